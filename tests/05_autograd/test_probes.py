"""The probes of lesson 05 on seeds that everybody knows, beside plain NumPy."""

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def addition(x, y, g):
    return {"output": x + y, "gradient_0": g.sum(1, keepdims=True), "gradient_1": g.sum(0, keepdims=True)}


def multiplication(x, y, g):
    by_x, by_y = np.sum(g * y, 1, keepdims=True), np.sum(g * x, 0, keepdims=True)
    return {"output": x * y, "gradient_0": by_x, "gradient_1": by_y}


def rectifier(x, g):
    return {"output": np.maximum(x, 0), "gradient_0": np.where(x > 0, g, 0)}


def sum_over_each_axis(x, g):
    outputs = {f"output_of_{axis}": x.sum(axis) for axis in range(3)}
    return outputs | {f"gradient_0_of_{axis}": np.stack([g[axis]] * x.shape[axis], axis) for axis in range(3)}


def sum_over_several_axes_and_all(x, g, kept, total):
    found = [np.empty_like(x) for _ in range(3)]
    for i, j, k, m in np.ndindex(x.shape):
        found[0][i, j, k, m], found[1][i, j, k, m], found[2][i, j, k, m] = g[j, k], kept[i, 0, 0, 0], total
    return {
        "output_of_0": np.einsum("ijkm->jk", x),
        "output_of_1": np.einsum("ijkm->i", x).reshape(-1, 1, 1, 1),
        "output_of_2": np.einsum("ijkm->", x),
        **{f"gradient_0_of_{i}": gradient for i, gradient in enumerate(found)},
    }


def two_gradients_of_a_leaf(x, g):
    return {"first": g[0], "sum": g[0] + g[1], "later": g[1]}


def leaves_that_are_handed_one_array(x, g):
    return {"one": 2 * g, "other": g, "g": g}


def gathered(g, shape):
    """Each element's sum over the places of g that it was copied to."""
    total = np.zeros(shape)
    for index in np.ndindex(g.shape):
        own = index[g.ndim - len(shape) :]
        total[tuple(0 if size == 1 else i for i, size in zip(own, shape))] += g[index]
    return total


def gradient_before_broadcasting(g, shapes):
    return {f"shape_{i}": gathered(g, shape) for i, shape in enumerate(shapes)}


def gradient_with_axes_of_length_1(g):
    n, _, m, _ = g.shape
    return {f"shape_{i}": gathered(g, shape) for i, shape in enumerate([(1, m, 1), (1, 1, 1), (n, 1, 1, 1), (1,)])}


def products(axes, arrays):
    """Each output, and each gradient, as a sum over the letters that it does not have."""
    found = {}
    for i, ((of_x, of_y, of_g), (x, y, g)) in enumerate(zip(axes, arrays)):
        found[f"output_of_{i}"] = np.einsum(f"{of_x},{of_y}->{of_g}", x, y)
        found[f"gradient_0_of_{i}"] = np.einsum(f"{of_g},{of_y}->{of_x}", g, y)
        found[f"gradient_1_of_{i}"] = np.einsum(f"{of_g},{of_x}->{of_y}", g, x)
    return found


product_of_matrices = product_with_fewer_axes_on_one_side = product_with_a_vector = products


def product_of_stretched_batches(x, y, g):
    return {
        "output": np.einsum("bnk,ckm->bcnm", x[:, 0], y),
        "gradient_0": np.einsum("bcnm,ckm->bnk", g, y)[:, None],
        "gradient_1": np.einsum("bcnm,bnk->ckm", g, x[:, 0]),
    }


def softmax_along_each_axis(x, g):
    """Row by row, with the whole Jacobian."""
    found = {}
    for dim in (0, 1, 2):
        rows = np.moveaxis(x, dim, -1).reshape(-1, x.shape[dim])
        e = [np.exp(row - max(row)) for row in rows]
        p = np.array([row / sum(row) for row in e])
        jacobians = np.array([np.diag(row) - np.outer(row, row) for row in p])
        gradient = np.einsum("rij,ri->rj", jacobians, np.moveaxis(g, dim, -1).reshape(rows.shape))
        for name, values in (("output", p), ("gradient_0", gradient)):
            found[f"{name}_of_{dim}"] = np.moveaxis(values.reshape(np.moveaxis(x, dim, -1).shape), -1, dim)
    return found


def a_node_with_one_rule_per_input(x, y, z, g):
    return {
        "sources": [True, True],
        "gradient_0": g.sum(1, keepdims=True),
        "gradient_1": np.float32(3) * g.sum(0).astype(np.float32),
        "dtypes": ["float64", "float32"],
        "calls": ["x", "z"],
    }


def a_node_with_one_function_for_all_inputs(x, y, z, g):
    return {
        "sources": [True, True],
        "gradient_0": g.sum(1, keepdims=True),
        "gradient_1": np.float32(3) * g.sum(0).astype(np.float32),
        "calls": ["all"],
    }


def a_node_used_early_and_late(x, g, n):
    """(e^s - n s / 2) / s - s with s = sin x."""
    s = np.sin(x)
    slope = np.exp(s) * (s - 1) / s**2 - 1
    return {"output": np.exp(s) / s - n / 2 - s, "gradient_0": g * slope * np.cos(x)}


def an_input_of_several_nodes(x, g, n):
    y = x / n
    return {
        "output": np.sin(x) - np.exp(y) - (np.tanh(y) - np.cos(x)) / x,
        "gradient_0": g * (np.cos(x) - np.sin(x) / x + (np.tanh(y) - np.cos(x)) / x**2),
        "gradient_1": g * (-np.exp(y) - np.cosh(y) ** -2 / x),
    }


def nodes_that_are_handed_one_array(x, g, n):
    return {
        "output": np.exp(x) / n + np.exp(x) + np.exp(-x),
        "gradient_0": g * np.exp(x) * (1 / n + 1),
        "gradient_1": g * np.exp(-x),
        "g": g,
    }


def backward_again(x, g, n):
    return {
        "refused": ["nothing"] * 3 + ["RuntimeError"],
        "gradient": 3 * g * np.cos(np.exp(x)) * np.exp(x),
    }


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
