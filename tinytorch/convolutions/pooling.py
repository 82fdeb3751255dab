"""Pooling: one number for each window, so that images shrink and small shifts matter less."""

import functools
import math

import numpy as np

from ..layers import Module
from ..tensor import op
from .windows import at_each_place, batch_first, batch_last, inside, padded, per_axis, require_room, seen, surrounded


def max_pool2d_composed(input, kernel_size, stride=None, padding=0):
    """`max_pool2d` in primitive operations: padding never wins, and of equal values the first gets the gradient."""
    kernel, stride, pads = _settings("max_pool2d", input, kernel_size, stride, padding)
    x = surrounded(input, pads, -math.inf)
    return at_each_place(lambda window: window.flatten(2).max(dim=2).values, x, kernel, stride)


def max_pool2d(input, kernel_size, stride=None, padding=0):
    """The largest value under the kernel at each place, channel by channel: (B, C, H, W) to (B, C, H_out, W_out).

    `stride` is the kernel's size by default, so that windows do not overlap. `padding`, at most half the kernel, is
    smaller than every number. Of equal values the first gets the gradient.
    Raises ValueError for shapes and settings that do not fit, TypeError for inputs that are not floating point.
    Source: Riesenhuber and Poggio 1999, "Hierarchical models of object recognition in cortex".
    """
    kernel, stride, pads = _settings("max_pool2d", input, kernel_size, stride, padding)
    return _max_pool(input, kernel=kernel, stride=stride, pads=pads)


def max_pool1d(input, kernel_size, stride=None, padding=0):
    """`max_pool2d` along one axis: (B, C, W) to (B, C, W_out)."""
    kernel, stride, pads = _settings("max_pool1d", input, kernel_size, stride, padding)
    return _max_pool(input, kernel=kernel, stride=stride, pads=pads)


@op
def _max_pool(x, *, kernel, stride, pads):
    x = padded(batch_last(x), pads, -math.inf)
    views = seen(x, kernel, stride)
    y = functools.reduce(np.maximum, views)

    def rule(g):
        rest, dx = batch_last(g), np.zeros_like(x)
        for view, dview in zip(views, seen(dx, kernel, stride)):
            share = np.where(view == y, rest, 0)
            dview += share
            rest = rest - share  # of equal values the first takes all
        return batch_first(inside(dx, pads))

    return batch_first(y), rule


def avg_pool2d_composed(input, kernel_size, stride=None, padding=0):
    """`avg_pool2d` in primitive operations: padding is zeros that count in the mean."""
    kernel, stride, pads = _settings("avg_pool2d", input, kernel_size, stride, padding)
    return at_each_place(lambda window: window.mean((2, 3)), surrounded(input, pads), kernel, stride)


def avg_pool2d(input, kernel_size, stride=None, padding=0):
    """The mean under the kernel at each place, channel by channel: (B, C, H, W) to (B, C, H_out, W_out).

    `stride` is the kernel's size by default. `padding`, at most half the kernel, is zeros that count in the mean.
    Raises ValueError for shapes and settings that do not fit, TypeError for inputs that are not floating point.
    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.
    """
    kernel, stride, pads = _settings("avg_pool2d", input, kernel_size, stride, padding)
    return _avg_pool(input, kernel=kernel, stride=stride, pads=pads)


def avg_pool1d(input, kernel_size, stride=None, padding=0):
    """`avg_pool2d` along one axis: (B, C, W) to (B, C, W_out)."""
    kernel, stride, pads = _settings("avg_pool1d", input, kernel_size, stride, padding)
    return _avg_pool(input, kernel=kernel, stride=stride, pads=pads)


@op
def _avg_pool(x, *, kernel, stride, pads):
    x, n = padded(batch_last(x), pads), math.prod(kernel)
    shape = x.shape

    def rule(g):
        share, dx = batch_last(g) / n, np.zeros(shape, g.dtype, like=g)
        for dview in seen(dx, kernel, stride):
            dview += share
        return batch_first(inside(dx, pads))

    return batch_first(functools.reduce(np.add, seen(x, kernel, stride)) / n), rule


def _settings(name, input, kernel_size, stride, padding):
    """Kernel, stride and pads for each axis, after a check of everything that must fit."""
    kernel, stride, padding = _numbers(name, kernel_size, stride, padding)
    pads = tuple((p, p) for p in padding)
    require_room(name, input, kernel, pads, (1,) * len(kernel))
    return kernel, stride, pads


def _numbers(name, kernel_size, stride, padding):
    axes = 1 if name.endswith("1d") else 2
    kernel, padding = per_axis("kernel_size", kernel_size, axes), per_axis("padding", padding, axes, least=0)
    if any(2 * p > k for p, k in zip(padding, kernel)):
        raise ValueError(f"{name} needs padding of at most half its kernel {kernel}, but got {padding}.")
    return kernel, kernel if stride is None else per_axis("stride", stride, axes), padding


class _Pool(Module):
    """What all pooling layers share."""

    def __init__(self, kernel_size, stride=None, padding=0):
        numbers = _numbers(type(self).__name__, kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = numbers

    def forward(self, x):
        return self.function(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(_Pool):
    """`max_pool1d` as a layer: (B, C, W) to (B, C, W_out)."""

    function = staticmethod(max_pool1d)


class MaxPool2d(_Pool):
    """`max_pool2d` as a layer: (B, C, H, W) to (B, C, H_out, W_out)."""

    function = staticmethod(max_pool2d)


class AvgPool1d(_Pool):
    """`avg_pool1d` as a layer: (B, C, W) to (B, C, W_out)."""

    function = staticmethod(avg_pool1d)


class AvgPool2d(_Pool):
    """`avg_pool2d` as a layer: (B, C, H, W) to (B, C, H_out, W_out)."""

    function = staticmethod(avg_pool2d)


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` joined into one: by default an image (C, H, W) becomes a row."""

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
