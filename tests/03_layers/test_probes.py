"""The probes of lesson 03 on seeds that everybody knows, beside plain NumPy."""

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def linear_map(x, weight, square, bias):
    product = np.einsum("...i,oi->...o", x, weight)
    return {
        "output": product + bias,
        "without_bias": product,
        "of_a_square_weight": np.einsum("...i,oi->...o", x, square),
        "of_a_single_row": product[0, 0, 0],
    }


def draws(seed):
    """The numbers from 0 to 1 that a seed stands for: PCG64's, in single precision."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return lambda *shape: generator.random(shape, dtype=np.float32)


def linear_layer(n, m, seed):
    draw, first = draws(seed), draws(seed)
    return {
        "weight": (2 * draw(m, n) - 1) * np.float32(n**-0.5),
        "bias": (2 * draw(m) - 1) * np.float32(n**-0.5),
        "weight_without_bias": (2 * first(n, m) - 1) * np.float32(m**-0.5),
        "no_bias": True,
        "parameters": [True] * 3,
        "sizes": [n, m, m, n],
        "refused": ["ValueError"] * 2,
    }


def one_after_another(x, scales, shifts):
    y = x
    for scale, shift in zip(scales, shifts):
        y = scale * y + shift
    return {"output": y, "nested": y, "of_no_modules": x}


def modules_inside(blocks):
    names, kinds, seen = [""], ["Sequential"], set()
    for n, block in enumerate(blocks.tolist()):
        names, kinds = [*names, f"{n}"], [*kinds, "Sequential"]
        for k, leaf in enumerate(block):
            if leaf not in seen:
                seen.add(leaf)
                names, kinds = [*names, f"{n}.{k}"], [*kinds, ["ReLU", "Tanh", "Sigmoid"][leaf]]
    return {"names": names, "kinds": kinds}


def parameters_inside(blocks, values):
    found, seen = {"scale": 10.0}, set()
    for n, block in enumerate(blocks.tolist()):
        for k, i in enumerate(block):
            found[f"{n}.{k}.bias"] = float(k)
            if i not in seen:
                seen.add(i)
                found[f"{n}.{k}.weight"] = float(np.float32(values[i]))
    return {"names": list(found), "values": list(found.values())}


def training_and_evaluation(blocks, part):
    """The modes of the whole, its blocks and its leaves."""
    of_part = [False] + [n == part for n in range(len(blocks))] + [leaf in blocks[part] for leaf in range(3)]
    modes = [np.zeros(len(of_part), bool), of_part, np.ones(len(of_part), bool), np.logical_not(of_part)]
    return {f"modes_{i}": mode for i, mode in enumerate(modes)} | {f"returned_{i}": True for i in range(4)}


def mask(u, p):
    return np.where(u < np.float32(p), 0, 1 / (1 - p))


def masks(x, p, seed):
    draw = draws(seed)
    return {
        "first": mask(draw(*x.shape), p),
        "next": mask(draw(*x.shape), p),
        "in_single_precision": mask(draws(seed)(5), p).astype(np.float32),
        "of_nothing": np.ones(5, np.float32),
        "of_everything": np.zeros(5, np.float32),
        "types": ["float64", "float32"],
    }


def dropout(x, p, seed):
    return {
        "in_training": x * mask(draws(seed)(*x.shape), p),
        "of_everything": 0 * x,
        "in_evaluation": x,
        "the_same_object": [True] * 2,
        "refused": ["ValueError"] * 2,
    }


def contents(scale, weight, count):
    return {"scale": scale.astype(np.float32), "weight": weight.astype(np.float32), "count": count}


def loading(state):
    return {
        **contents(*state.values()),
        "types": ["float32", "float32", "int64"],
        "the_same_arrays": [True] * 3,
        "report": [0, 0],
    }


def loading_what_is_in_common(state):
    found = contents(0 * state["scale"], state["inner.weight"], 0 * state["inner.count"])
    return {**found, "missing": ["scale", "inner.count"], "unexpected": ["other", "count"]}


def loading_what_does_not_fit(state):
    found = {f"shape_of_{name}": "ValueError" for name in state} | {"missing": "KeyError", "unexpected": "KeyError"}
    zeros = contents(*(0 * array for array in state.values()))
    return found | {f"{name}_after_{what.replace('.', '_')}": zero for name, zero in zeros.items() for what in found}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
