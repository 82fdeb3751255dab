"""What the grader asks the answers to lesson 04, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import probe, refusal

REDUCTIONS = ("mean", "sum", "none")


def predictions(rng):
    shape = (*rng.integers(2, 6, 2), 1)
    return {"x": rng.standard_normal(shape), "t": rng.standard_normal(shape)}


@probe("ex-04-1", predictions)
def squared_error(tt, x, t):
    x, t = tt.Tensor(x), tt.Tensor(t)
    found = {reduction: tt.mse_loss(x, t, reduction=reduction) for reduction in REDUCTIONS}
    found |= {"default": tt.mse_loss(x, t), "of_one_number": tt.mse_loss(x[0, 0, 0], t[0, 0, 0])}
    return found | {"refused": refusal(lambda: tt.mse_loss(x, t[0]))}


def probabilities(rng):
    """Targets of 0, of 1 and in between; in the last row predictions that are certain and right."""
    n = rng.integers(2, 6)
    p, t = rng.uniform(0.01, 0.99, (n, 4)), rng.uniform(0, 1, (n, 4))
    t[:, 0], t[:, 1], p[-1], t[-1] = 0, 1, [0, 1, 0, 1], [0, 1, 0, 1]
    return {"p": p, "t": t}


@probe("ex-04-2", probabilities)
def binary_cross_entropy(tt, p, t):
    p, t = tt.Tensor(p), tt.Tensor(t)
    found = {reduction: tt.binary_cross_entropy(p, t, reduction=reduction) for reduction in REDUCTIONS}
    wrong = [(p + 1, t), (p - 1, t), (p, t[0])]
    return found | {"refused": [refusal(lambda: tt.binary_cross_entropy(*pair)) for pair in wrong]}


def logits(rng):
    """Scores of both signs; the last ones are so far from 0 that the exponential of them overflows."""
    n = rng.integers(2, 6)
    x = np.append(4 * rng.standard_normal((n, 4)), rng.uniform(800, 2000) * np.array([[1, -1, 1, -1]]), 0)
    return {"x": x, "t": np.append(rng.uniform(0, 1, (n, 4)), [[0, 0, 1, 1]], 0)}


@probe("ex-04-3", logits)
def binary_cross_entropy_with_logits(tt, x, t):
    from tinytorch.losses import binary_cross_entropy_with_logits_composed as loss

    return {reduction: loss(tt.Tensor(x), tt.Tensor(t), reduction=reduction) for reduction in REDUCTIONS}


def classes(rng, *places):
    """Scores with the classes on axis 1, and targets; some are ignored, by the number of a class or another one."""
    n, c = int(rng.integers(3, 7)), int(rng.integers(3, 6))
    target, ignored = rng.integers(0, c - 1, (n, *places)), int(rng.choice([-1, c - 1, c]))
    target[rng.permutation(n)[:2]] = ignored
    return {"x": 3 * rng.standard_normal((n, c, *places)), "target": target, "ignored": ignored}


def surprise(tt, loss, x, target, ignored):
    """A loss with each reduction, and with the settings that are the default."""
    x, padded = tt.Tensor(x), tt.Tensor(np.where(target == ignored, -100, target))
    found = {r: loss(x, tt.Tensor(target), ignore_index=ignored, reduction=r) for r in REDUCTIONS}
    return found | {"by_default": loss(x, padded)}


@probe("ex-04-4", classes)
def cross_entropy_of_operations(tt, x, target, ignored):
    from tinytorch.losses import cross_entropy_composed

    return surprise(tt, cross_entropy_composed, x, target, ignored)


@probe("ex-04-5", classes)
def cross_entropy_of_rows(tt, x, target, ignored):
    return surprise(tt, tt.cross_entropy, x, target, ignored)


@probe("ex-04-5", classes)
def cross_entropy_of_one_row(tt, x, target, ignored):
    i, j = np.flatnonzero(target != ignored)[0], np.flatnonzero(target == ignored)[0]
    found = surprise(tt, tt.cross_entropy, x[i], target[i], ignored)
    nothing = tt.cross_entropy(tt.Tensor(x[j]), tt.Tensor(target[j]), ignore_index=ignored, reduction="none")
    return found | {"of_an_ignored_one": nothing}


@probe("ex-04-5", lambda rng: classes(rng, *rng.integers(2, 5, 2), 1))
def cross_entropy_at_each_place(tt, x, target, ignored):
    found = surprise(tt, tt.cross_entropy, x, target, ignored)
    wrong = [(x, target[1:]), (x, target[..., 0]), (x[0], target)]
    return found | {"refused": [refusal(lambda: tt.cross_entropy(*map(tt.Tensor, pair))) for pair in wrong]}
