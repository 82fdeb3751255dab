"""What the grader asks the answers to lesson 02, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import probe


@probe("ex-02-1", lambda rng: {"x": rng.permuted(np.append(rng.standard_normal(11), 0.0)).reshape(3, 4)})
def rectifier(tt, x):
    x = tt.tensor(x)
    return {"output": tt.relu(x), "x_afterwards": x}


def near_and_far(rng):
    """Ordinary scores, scores of unlikely events, and scores whose exponential does not fit into a float64."""
    return {
        "near": np.append(3 * rng.standard_normal((2, 3)), [[0.0], [-0.0]], 1),
        "unlikely": -rng.uniform(40, 700, 6),
        "far": rng.uniform(1e3, 1e4, 4) * [1, -1, 1, -1],
    }


@probe("ex-02-2", near_and_far)
def sigmoid(tt, near, unlikely, far):
    from tinytorch.activations import stable_sigmoid

    with np.errstate(over="raise", invalid="raise"):
        return {
            "output": stable_sigmoid(near),
            "limits": stable_sigmoid(far),
            "logarithms_of_small_ones": np.log(stable_sigmoid(unlikely)),
        }


def scores(rng):
    return {"x": np.append(3 * rng.standard_normal((rng.integers(2, 6), 4)), [[0.0, -9.0, 9.0, 1.0]], 0)}


@probe("ex-02-3", scores)
def silu(tt, x):
    from tinytorch.activations import silu_composed

    return {"output": silu_composed(tt.Tensor(x))}


@probe("ex-02-4", scores)
def gelu(tt, x):
    from tinytorch.activations import gelu_composed

    x = tt.Tensor(x)
    return {"exact": gelu_composed(x), "by_tanh": gelu_composed(x, "tanh")}


def shifted_scores(rng):
    """Scores with a tie and one that is masked, and numbers that may be added to all scores along an axis."""
    x = rng.standard_normal((rng.integers(2, 5), rng.integers(3, 6), rng.integers(2, 5)))
    x[0, 0] = x[0, 1]
    x[1, 2, 0] = -np.inf
    return {"x": x, "shifts": [float(rng.integers(1000, 3000)), -float(rng.integers(1000, 3000))]}


def distributions(tt, softmax, x, shifts):
    """What a softmax gives along each axis, with and without a shift that makes exp overflow, or give 0."""
    found = {f"along_axis_{dim}": softmax(tt.Tensor(x), dim) for dim in range(3)}
    found |= {f"shifted_{i}": softmax(tt.Tensor(x + shift), 1) for i, shift in enumerate(shifts)}
    return found | {"along_the_last_axis": softmax(tt.Tensor(x))}


@probe("ex-02-5", shifted_scores)
def softmax_of_operations(tt, x, shifts):
    from tinytorch.activations import softmax_composed

    return distributions(tt, softmax_composed, x, shifts)


@probe("ex-02-6", shifted_scores)
def softmax_in_one_operation(tt, x, shifts):
    return distributions(tt, tt.softmax, x, shifts)


def far_apart(rng):
    """Scores so far apart that most probabilities are rounded to 0, and an axis of length 1."""
    return {"x": rng.uniform(500, 2000) * rng.standard_normal((rng.integers(2, 5), 1, rng.integers(2, 6)))}


@probe("ex-02-7", far_apart)
def log_softmax(tt, x):
    from tinytorch.activations import log_softmax_composed

    found = {f"along_axis_{dim}": log_softmax_composed(tt.Tensor(x), dim) for dim in range(3)}
    return found | {"of_scores_close_together": log_softmax_composed(tt.Tensor(x / 1000))}
