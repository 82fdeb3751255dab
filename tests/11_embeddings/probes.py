"""What the grader asks the answers to lesson 11, beside the reference, on inputs that nobody knows before."""

from functools import partial

import numpy as np

from tinytorch_course.grading.probes import probe, refusal

# ---- tables


def lookups(rng):
    """A table, ids of which one comes twice and the last row never, and the gradient of what is looked up."""
    rows, columns = rng.integers(3, 7), rng.integers(1, 5)
    ids = rng.integers(0, rows - 1, (*rng.integers(1, 4, rng.integers(3)), rng.integers(2, 6)))
    ids.flat[-1] = ids.flat[0]
    return {
        "ids": ids,
        "weight": rng.standard_normal((rows, columns)),
        "g": rng.standard_normal((*ids.shape, columns)),
    }


def looked_up(tt, function, ids, weight, g):
    """The rows, and the gradient that g sends to the table."""
    table = tt.Tensor(weight, requires_grad=True)
    rows = function(tt.Tensor(ids), table)
    rows.backward(g)
    return rows, table.grad


@probe("ex-11-1", lookups)
def lookup_by_a_product(tt, ids, weight, g):
    from tinytorch.embeddings import embedding_composed

    rows, gradient = looked_up(tt, embedding_composed, ids, weight, g)
    return {"rows": rows, "gradient": gradient}


@probe("ex-11-2", lookups)
def lookup(tt, ids, weight, g):
    rows, gradient = looked_up(tt, tt.embedding, ids, weight, g)
    padding = int(ids.flat[0])
    _, padded = looked_up(tt, partial(tt.embedding, padding_idx=padding), ids, weight, g)
    _, from_the_end = looked_up(tt, partial(tt.embedding, padding_idx=padding - len(weight)), ids, weight, g)
    return {
        "rows": rows,
        "gradient": gradient,
        "gradient_with_padding": padded,
        "gradient_with_padding_counted_from_the_end": from_the_end,
    }


@probe("ex-11-2", lambda rng: {"weight": rng.standard_normal((rng.integers(2, 6), 3))})
def ids_outside_the_table(tt, weight):
    outside = {"below_0": [0, -1], "too_large": [len(weight), 0], "no_integers": [0.0, 1.0]}
    return {name: refusal(tt.embedding, tt.tensor(ids), tt.Tensor(weight)) for name, ids in outside.items()}


def tables(rng):
    rows, columns = (int(n) for n in rng.integers(6, 14, 2))
    padding = int(rng.integers(-rows, rows))
    return {"rows": rows, "columns": columns, "padding": padding, "seed": int(rng.integers(2**31))}


@probe("ex-11-3", tables)
def table(tt, rows, columns, padding, seed):
    plain, first, other = (tt.Embedding(rows, columns, idx, tt.Generator(seed)) for idx in (None, 0, padding))
    return {
        "weight": plain.weight,
        "weight_with_padding_0": first.weight,
        "weight_with_padding": other.weight,
        "settings": [other.num_embeddings, other.embedding_dim, other.padding_idx],
        "names_of_parameters": [name for name, _ in plain.named_parameters()],
        "no_rows": refusal(tt.Embedding, 0, columns),
        "padding_outside": refusal(tt.Embedding, rows, columns, rows),
    }


# ---- positions


def turns(rng):
    """Positions, one of them far away, and an even number of channels."""
    positions = rng.integers(0, 50, rng.integers(1, 4, rng.integers(1, 3)))
    positions.flat[0] += 100_000
    return {
        "positions": positions,
        "length": int(rng.integers(1, 6)),
        "dim": 2 * int(rng.integers(2, 6)),
        "theta": float(10 ** rng.uniform(1, 6)),
    }


@probe("ex-11-4", turns)
def angles(tt, positions, length, dim, theta):
    given = tt.Tensor(positions)
    cos, sin = tt.rotary_angles(given, dim, theta, tt.float64)
    single_cos, single_sin = tt.rotary_angles(given, dim)
    counted_cos, counted_sin = tt.rotary_angles(length, dim, theta)
    return {
        "cos": cos,
        "sin": sin,
        "cos_in_single_precision": single_cos,
        "sin_in_single_precision": single_sin,
        "cos_of_a_length": counted_cos,
        "sin_of_a_length": counted_sin,
        "odd_dim": refusal(tt.rotary_angles, length, dim + 1),
        "theta_of_0": refusal(tt.rotary_angles, length, dim, 0.0),
        "positions_that_are_no_integers": refusal(tt.rotary_angles, tt.Tensor(positions / 2), dim),
    }


@probe("ex-11-5", lambda rng: {"length": int(rng.integers(1, 9)), "dim": 2 * int(rng.integers(2, 7))})
def sines_and_cosines(tt, length, dim):
    return {
        "table": tt.sinusoidal_positions(length, dim),
        "odd_dim": refusal(tt.sinusoidal_positions, length, dim + 1),
        "no_length": refusal(tt.sinusoidal_positions, 0, dim),
    }


def heads(rng):
    """x (..., T, D), the cosines and sines of its angles, and the gradient of what is turned."""
    time, pairs = rng.integers(1, 5), rng.integers(2, 5)
    x = rng.standard_normal((*rng.integers(1, 4, rng.integers(3)), time, 2 * pairs))
    angles = rng.uniform(-np.pi, np.pi, (time, pairs))
    return {"x": x, "cos": np.cos(angles), "sin": np.sin(angles), "g": rng.standard_normal(x.shape)}


def turned(tt, x, cos, sin, g, interleaved):
    """What `rotary_composed` gives, and the gradients that g sends to its inputs."""
    from tinytorch.embeddings import rotary_composed

    x, cos, sin = (tt.Tensor(array, requires_grad=True) for array in (x, cos, sin))
    output = rotary_composed(x, cos, sin, interleaved)
    output.backward(g)
    return {"output": output, "gradient": x.grad, "gradient_of_cos": cos.grad, "gradient_of_sin": sin.grad}


@probe("ex-11-6", heads)
def halves_turned(tt, x, cos, sin, g):
    return turned(tt, x, cos, sin, g, interleaved=False)


@probe("ex-11-6", heads)
def neighbours_turned(tt, x, cos, sin, g):
    return turned(tt, x, cos, sin, g, interleaved=True)


def sequences(rng):
    """x (B, T, D), a start near which a table of 64 positions ends, and one far beyond."""
    dim, time = 2 * int(rng.integers(1, 5)), int(rng.integers(2, 6))
    return {
        "x": rng.standard_normal((rng.integers(1, 4), time, dim)),
        "near": int(rng.integers(66 - time, 70)),
        "far": int(rng.integers(100, 400)),
        "theta": float(10 ** rng.uniform(1, 5)),
        "interleaved": bool(rng.integers(2)),
    }


@probe("ex-11-7", sequences)
def rotary_layer(tt, x, near, far, theta, interleaved):
    layer, single, double = tt.Rotary(x.shape[-1], theta, interleaved), tt.Tensor(x.astype(np.float32)), tt.Tensor(x)
    return {
        "from_0": layer(single),
        "past_the_end_of_the_table": layer(single, near),
        "far_past_the_end": layer(single, start=far),
        "in_double_precision": layer(double, near),
        "from_0_again": layer(single),
    }
