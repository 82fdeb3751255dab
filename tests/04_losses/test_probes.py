"""The probes of lesson 04 on seeds that everybody knows, beside plain NumPy."""

import math

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def reduced(losses, count):
    total = math.fsum(np.ravel(losses))
    return {"mean": total / count, "sum": total, "none": losses}


def squared_error(x, t):
    losses = x**2 - 2 * x * t + t**2
    found = reduced(losses, x.size)
    return found | {"default": found["mean"], "of_one_number": losses[0, 0, 0], "refused": "ValueError"}


def binary_cross_entropy(p, t):
    losses = np.zeros_like(p)
    for i, share in np.ndenumerate(t):
        if share > 0:  # what never happens costs nothing
            losses[i] -= share * math.log(p[i])
        if share < 1:
            losses[i] -= (1 - share) * math.log(1 - p[i])
    return reduced(losses, p.size) | {"refused": ["ValueError"] * 3}


def binary_cross_entropy_with_logits(x, t):
    return reduced(t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x), x.size)


def surprise(x, target, ignored):
    """The surprise at each target, by the definition."""
    losses = [
        -math.log(math.exp(row[t]) / math.fsum(map(math.exp, row))) if t != ignored else 0.0
        for row, t in zip(x.tolist(), target.ravel().tolist())
    ]
    found = reduced(np.reshape(losses, target.shape), np.count_nonzero(target != ignored))
    return found | {"by_default": found["mean"]}


cross_entropy_of_operations = cross_entropy_of_rows = surprise


def cross_entropy_of_one_row(x, target, ignored):
    i = list(target != ignored).index(True)
    return surprise(x[[i]], target[i], ignored) | {"of_an_ignored_one": 0.0}


def cross_entropy_at_each_place(x, target, ignored):
    rows = np.array([x[n, :, i, j, k] for n, i, j, k in np.ndindex(target.shape)])
    return surprise(rows, target, ignored) | {"refused": ["ValueError"] * 3}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
