"""Convolution: kernels slide over images, and answer where they find their pattern."""

import functools
import math

import numpy as np

from .. import device as devices
from ..layers import Module, Parameter, require_positive, uniform
from ..tensor import cat, einsum, op
from .windows import (
    at_each_place,
    batch_first,
    batch_last,
    inside,
    packed,
    padded,
    paddings,
    per_axis,
    places,
    require_room,
    surrounded,
)


def conv2d_composed(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`conv2d` in primitive operations: at each place, the products of all kernels with the window under them."""
    stride, pads, dilation = _settings("conv2d", input, weight, bias, stride, padding, dilation, groups)
    parts = []
    for x, w in zip(surrounded(input, pads).chunk(groups, dim=1), weight.chunk(groups, dim=0)):
        products = functools.partial(einsum, "fchw,bchw->bf", w)
        parts.append(at_each_place(products, x, weight.shape[2:], stride, dilation))
    y = cat(parts, dim=1)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Slide kernels over images and take their products with what is under them (a cross-correlation, to be exact).

    input (B, C, H, W), weight (F, C / groups, kh, kw) and bias (F,) give (B, F, H_out, W_out), where an axis of n
    becomes (n + 2 padding - dilation (k - 1) - 1) // stride + 1. `padding` puts zeros at both ends: as many as it says,
    'valid' (none) or 'same' (as many as keep the size; stride 1). `dilation` is the step between a kernel's elements.
    Each of `groups` parts of the filters sees its own part of the channels; groups = C is a depthwise convolution.
    Raises ValueError for shapes and settings that do not fit, TypeError for inputs that are not floating point.
    Source: LeCun et al. 1989, "Backpropagation applied to handwritten zip code recognition", section 4.
    """
    stride, pads, dilation = _settings("conv2d", input, weight, bias, stride, padding, dilation, groups)
    return _conv(input, weight, bias, stride=stride, pads=pads, dilation=dilation, groups=groups)


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`conv2d` along one axis: input (B, C, W), weight (F, C / groups, k) and bias (F,) give (B, F, W_out)."""
    stride, pads, dilation = _settings("conv1d", input, weight, bias, stride, padding, dilation, groups)
    stride, pads, dilation = (1, *stride), ((0, 0), *pads), (1, *dilation)  # a signal is an image of height 1
    image, kernels = input.unsqueeze(2), weight.unsqueeze(2)
    return _conv(image, kernels, bias, stride=stride, pads=pads, dilation=dilation, groups=groups).squeeze(2)


def _settings(name, input, weight, bias, stride, padding, dilation, groups):
    """Stride, pads and dilation for each axis, after a check of everything that must fit."""
    axes = {"conv1d": 1, "conv2d": 2}[name]
    require_positive(groups=groups)
    filters, depth, *kernel = weight.shape if weight.ndim == axes + 2 else (0, 0)
    if 0 in (filters, depth, *kernel) or filters % groups:
        raise ValueError(
            f"{name} needs a weight of shape (F, C / groups{', kh' if axes == 2 else ''}, kw) with F divisible by "
            f"groups={groups}, but got {weight.shape}."
        )
    stride, dilation = per_axis("stride", stride, axes), per_axis("dilation", dilation, axes)
    pads = paddings(padding, kernel, stride, dilation)
    require_room(name, input, kernel, pads, dilation)
    if input.shape[1] != depth * groups:
        raise ValueError(
            f"{name} with a weight of shape {weight.shape} and groups={groups} needs inputs with {depth * groups} "
            f"channels (axis 1), but got shape {input.shape}."
        )
    if bias is not None and bias.shape != (filters,):
        raise ValueError(f"{name} needs a bias of shape ({filters},), one number per filter, but got {bias.shape}.")
    return stride, pads, dilation


@op
def _conv(x, weight, bias, *, stride, pads, dilation, groups):
    filters, depth, kh, kw = weight.shape
    x = packed(padded(batch_last(x), pads))  # (C, H, W, B)
    down, right = (places(*settings) for settings in zip((kh, kw), x.shape[1:], stride, dilation))
    # Copies for kw shifts and kh products of matrices, not copies for all kh * kw shifts and one product (Chellapilla
    # et al. 2006, section 3): as fast, in 1 / kh of the memory.
    columns = _columns(x, right)  # (C, kw, H, W_out, B)
    size, shape = x.shape, columns.shape
    height, across = len(range(size[1])[down[0]]), math.prod(shape[3:])  # H_out, W_out * B
    columns = columns.reshape(groups, depth * kw, size[1], across)
    taps = [weight[:, :, i].reshape(groups, filters // groups, depth * kw) for i in range(kh)]

    def under(row):  # (groups, depth * kw, H_out * W_out * B), a view where the stride is 1
        return columns[:, :, row].reshape(groups, depth * kw, -1)

    @_once
    def flat(g):  # (groups, F / groups, H_out * W_out * B)
        return packed(batch_last(g)).reshape(groups, filters // groups, -1)

    y = np.matmul(taps[0], under(down[0]))
    for tap, row in zip(taps[1:], down[1:]):
        y += np.matmul(tap, under(row))
    if bias is not None:
        y += bias.reshape(groups, -1, 1)

    def grad_x(g):
        d = np.zeros_like(columns)
        product = np.multiply if filters == groups else np.matmul  # the same for one filter, where matmul is slow
        for tap, row in zip(taps, down):
            d[:, :, row] += product(tap.swapaxes(1, 2), flat(g)).reshape(groups, depth * kw, height, across)
        return batch_first(inside(_columns_back(d.reshape(shape), right, size), pads))

    def grad_weight(g):
        rows = [np.matmul(under(row), flat(g).swapaxes(1, 2)).swapaxes(1, 2) for row in down]
        return np.stack([row.reshape(filters, depth, kw) for row in rows], axis=2)

    def grad_bias(g):
        return np.matmul(flat(g), devices.filled(g, height * across, 1)).reshape(filters)

    return batch_first(y.reshape(filters, height, *shape[3:])), (grad_x, grad_weight, grad_bias)


def _once(function):
    """`function`, doing its work only once while it gets the same array: the three gradients share one g."""
    last = None, None

    def remembering(g):
        nonlocal last
        if last[0] is not g:
            last = g, function(g)
        return last[1]

    return remembering


def _columns(x, shifts):
    """What each column of a kernel sees, its places along W being `shifts`: (C, H, W, B) to (C, kw, H, W_out, B)."""
    channels, tall, wide, batch = x.shape
    y = np.empty((channels, len(shifts), tall, len(range(wide)[shifts[0]]), batch), x.dtype, like=x)
    for j, shift in enumerate(shifts):
        y[:, j] = x[:, :, shift]
    return y


def _columns_back(d, shifts, size):
    """The gradient of x, of shape `size`, from that of its `_columns`, which is d (C, kw, H, W_out, B)."""
    dx = np.zeros(size, d.dtype, like=d)
    for j, shift in enumerate(shifts):
        dx[:, :, shift] += d[:, j]
    return dx


class _Conv(Module):
    """What Conv1d and Conv2d share."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        *,
        generator=None,
    ):
        require_positive(in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{type(self).__name__} needs in_channels and out_channels divisible by groups, but got {in_channels}, "
                f"{out_channels} and {groups}."
            )
        settings = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        self.kernel_size, self.stride, self.dilation = (per_axis(*item, self.axes) for item in settings.items())
        paddings(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else per_axis("padding", padding, self.axes, least=0)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = Parameter(uniform(shape, bound, generator))
        self.bias = Parameter(uniform((out_channels,), bound, generator)) if bias else None

    def forward(self, x):
        settings = self.stride, self.padding, self.dilation, self.groups
        return self.function(x, self.weight, self.bias, *settings)

    def extra_repr(self):
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        settings = [f"{name}={getattr(self, name)}" for name in names]
        return ", ".join([*settings, f"bias={self.bias is not None}"])


class Conv1d(_Conv):
    """`conv1d` as a layer: (B, in_channels, W) to (B, out_channels, W_out).

    Weight (out_channels, in_channels / groups, k) and bias (out_channels,) are drawn from U(-1/sqrt(n), 1/sqrt(n)),
    where n = in_channels / groups * k is how many numbers a filter sees, as in PyTorch.
    """

    axes, function = 1, staticmethod(conv1d)


class Conv2d(_Conv):
    """`conv2d` as a layer: (B, in_channels, H, W) to (B, out_channels, H_out, W_out).

    Weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,) are drawn from
    U(-1/sqrt(n), 1/sqrt(n)), where n = in_channels / groups * kh * kw is how many numbers a filter sees, as in PyTorch.
    """

    axes, function = 2, staticmethod(conv2d)
