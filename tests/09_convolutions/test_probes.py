"""The probes of lesson 09 on seeds that everybody knows, beside plain NumPy."""

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def under(kernel, size, stride, dilation):
    """Row by row the positions under a kernel: (places, kernel)."""
    firsts = [first for first in range(0, size, stride) if first + dilation * (kernel - 1) < size]
    return np.array([[first + dilation * i for i in range(kernel)] for first in firsts])


def windows(images, kernel, stride, dilation=(1, 1)):
    """The index that takes all windows out of images (..., H, W): (..., H_out, W_out, kh, kw)."""
    down, right = (under(*settings) for settings in zip(kernel, images.shape[-2:], stride, dilation))
    return ..., down[:, None, :, None], right[:, None, :]


def upstream(output):
    return np.cos(np.arange(output.size)).reshape(output.shape)


def around(x, pads, value=0.0):
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def inside(x, pads):
    (top, bottom), (left, right) = pads
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def places_of_a_kernel(settings):
    positions = [row for kernel_and_axis in settings for row in under(*kernel_and_axis).T]
    return {"counts": [len(row) for row in positions], "positions": np.concatenate(positions)}


def columns_of_an_image(x, shifts):
    columns = np.stack([np.take(x, range(x.shape[2])[shift], axis=2) for shift in shifts], axis=1)
    return {"columns": columns, "of_float32": columns.astype(np.float32)}


def gradient_of_columns(d, shifts, size):
    gradient = np.zeros(size)
    for j, shift in enumerate(shifts):
        for place, position in enumerate(range(size[2])[shift]):
            gradient[:, :, position] += d[:, j, :, place]
    return {"gradient": gradient}


def function_at_each_place(x, factors, stride, dilation):
    index, gradient = windows(x, factors.shape, stride, dilation), np.zeros_like(x)
    y = (x[index] * factors).sum((-2, -1))
    np.add.at(gradient, index, upstream(y)[..., None, None] * factors)
    return {"output": y, "gradient_of_x": gradient}


def function_of_all_channels_at_each_place(x, factors, stride):
    return {"output": (x[windows(x, factors.shape, stride)] * factors).sum((1, -2, -1))[:, None]}


def convolution(x, weight, bias, stride, padding, dilation, groups):
    pads = [(n, n) for n in padding]
    x, (filters, depth, *kernel) = around(x, pads), weight.shape
    index = windows(x, kernel, stride, dilation)
    parts = [slice(f // (filters // groups) * depth, (f // (filters // groups) + 1) * depth) for f in range(filters)]
    y = np.stack([np.einsum("bcrsij,cij->brs", x[:, part][index], w) for part, w in zip(parts, weight)], axis=1)
    g, by_x = upstream(y), np.zeros_like(x)
    for f, part in enumerate(parts):
        np.add.at(by_x[:, part], index, g[:, f, None, :, :, None, None] * weight[f, :, None, None])
    by_weight = [np.einsum("bcrsij,brs->cij", x[:, part][index], g[:, f]) for f, part in enumerate(parts)]
    return {
        "output": y + bias[:, None, None],
        "gradient_of_input": inside(by_x, pads),
        "gradient_of_weight": by_weight,
        "gradient_of_bias": g.sum((0, 2, 3)),
    }


def depthwise_convolution_of_the_same_size(x, weight):
    x = around(x, ((0, 1), (1, 2)))  # what a kernel of 2 by 4 needs
    return {"output": np.einsum("bcrsij,cij->bcrs", x[windows(x, (2, 4), (1, 1))], weight[:, 0])}


def mean_pooling(x, kernel, stride, padding):
    pads = [(n, n) for n in padding]
    surrounded = around(x, pads)
    index, gradient = windows(surrounded, kernel, stride), np.zeros_like(surrounded)
    y = surrounded[index].mean((-2, -1))
    np.add.at(gradient, index, upstream(y)[..., None, None] / np.prod(kernel))
    return {
        "output": y,
        "gradient_of_x": inside(gradient, pads),
        "output_of_windows_side_by_side": x[windows(x, kernel, kernel)].mean((-2, -1)),
    }


def max_pooling(x, kernel, stride, padding):
    pads = [(n, n) for n in padding]
    surrounded = around(x, pads, -np.inf)
    index, gradient = windows(surrounded, kernel, stride), np.zeros_like(surrounded)
    seen = surrounded[index]
    y, first = seen.max((-2, -1)), seen.reshape(*seen.shape[:-2], -1).argmax(-1)
    wins = (np.arange(np.prod(kernel)) == first[..., None]).reshape(seen.shape)
    np.add.at(gradient, index, upstream(y)[..., None, None] * wins)
    return {
        "output": y,
        "gradient_of_x": inside(gradient, pads),
        "output_of_windows_side_by_side": x[windows(x, kernel, kernel)].max((-2, -1)),
    }


def running_average(running, new, momenta):
    found = {}
    for i, momentum in enumerate(momenta):
        running = (1 - momentum) * running + momentum * new[i]
        found[f"after_{i + 1}"] = running
    return found


def rows(x):
    """One row for each channel of a batch."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def batch(rows, x):
    """The batch of the shape of x that has these rows."""
    return rows.reshape(x.swapaxes(0, 1).shape).swapaxes(0, 1)


def normalised(x, weight, bias, mean, var, eps=1e-5):
    """What weight and bias are applied to, and what does not depend on where the statistics are from."""
    g, normal = rows(upstream(x)), (rows(x) - mean[:, None]) / np.sqrt(var + eps)[:, None]
    y = weight[:, None] * normal + bias[:, None]
    return normal, {"output": batch(y, x), "gradient_of_weight": (g * normal).sum(1), "gradient_of_bias": g.sum(1)}


def batch_norm_in_training(x, weight, bias, mean, var, training, momentum):
    now, spread, g = rows(x).mean(1), rows(x).var(1), rows(upstream(x))
    normal, found = normalised(x, weight, bias, now, spread)
    by_normal = g - g.mean(1, keepdims=True) - normal * np.mean(g * normal, axis=1, keepdims=True)
    return {
        **found,
        "gradient_of_input": batch((weight / np.sqrt(spread + 1e-5))[:, None] * by_normal, x),
        "running_mean": (1 - momentum) * mean + momentum * now,
        "running_var": (1 - momentum) * var + momentum * rows(x).var(1, ddof=1),
    }


def batch_norm_in_evaluation(x, weight, bias, mean, var, training, momentum):
    _, found = normalised(x, weight, bias, mean, var)
    gradient = batch((weight / np.sqrt(var + 1e-5))[:, None] * rows(upstream(x)), x)
    return {**found, "gradient_of_input": gradient, "running_mean": mean, "running_var": var}


def batch_norm_of_the_batch_alone(x, eps):
    normal, _ = normalised(x, np.ones(3), np.zeros(3), rows(x).mean(1), rows(x).var(1), eps)
    return {"output": batch(normal, x)}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
