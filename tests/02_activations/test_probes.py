"""The probes of lesson 02 on seeds that everybody knows, beside plain NumPy."""

import math

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def elementwise(function, x):
    return np.vectorize(function, otypes=[float])(x)


def rectifier(x):
    return {"output": np.where(x > 0, x, 0), "x_afterwards": x}


def sigmoid(near, unlikely, far):
    return {
        "output": elementwise(lambda x: 0.5 * (1 + math.tanh(x / 2)), near),
        "limits": np.array(far > 0, float),
        "logarithms_of_small_ones": elementwise(lambda x: -math.log1p(math.exp(-x)), unlikely),
    }


def silu(x):
    return {"output": elementwise(lambda x: x / (1 + math.exp(-x)), x)}


def gelu(x):
    c = math.sqrt(2 / math.pi)
    return {
        "exact": elementwise(lambda x: x * math.erfc(-x / math.sqrt(2)) / 2, x),
        "by_tanh": elementwise(lambda x: x / (1 + math.exp(-2 * c * (x + 0.044715 * x**3))), x),
    }


def distributions(x, shifts):
    e = np.exp(x)
    along = [e / np.add.reduce(e, axis, keepdims=True) for axis in range(3)]
    found = {f"along_axis_{axis}": p for axis, p in enumerate(along)}
    return found | {"shifted_0": along[1], "shifted_1": along[1], "along_the_last_axis": along[2]}


softmax_of_operations = softmax_in_one_operation = distributions


def log_softmax(x):
    found = {f"along_axis_{axis}": x - np.logaddexp.reduce(x, axis, keepdims=True) for axis in range(3)}
    x = x / 1000
    return found | {"of_scores_close_together": x - np.log(np.exp(x).sum(-1, keepdims=True))}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
