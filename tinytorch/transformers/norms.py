"""Normalisations: each position's channels brought to one scale, so that deep models train."""

import math

import numpy as np

from .. import device as devices
from ..layers import Module, Parameter, require_positive
from ..tensor import ones, op, zeros


def _require_fit(name, x, normalized_shape, weight, bias=None):
    """Raise ValueError unless x ends in `normalized_shape` and the weight and bias have it."""
    if x.shape[-len(normalized_shape) :] != normalized_shape:
        raise ValueError(f"{name} needs inputs that end in {normalized_shape}, but got shape {x.shape}.")
    if weight is not None and weight.shape != normalized_shape:
        raise ValueError(f"{name} needs a weight of shape {normalized_shape}, but got {weight.shape}.")
    if bias is not None and bias.shape != normalized_shape:
        raise ValueError(f"{name} needs a bias of shape {normalized_shape}, but got {bias.shape}.")


def _as_shape(normalized_shape):
    """An integer or several as a tuple, all of them positive."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    require_positive(**{f"normalized_shape[{i}]": size for i, size in enumerate(shape)})
    return shape


# ---- layer normalisation (Ba et al. 2016, arXiv:1607.06450)


def layer_norm_composed(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """`layer_norm` in primitive operations, on tensors: x (..., *normalized_shape) gives the same shape.

    Each part of x over the last len(normalized_shape) axes comes out with mean 0 and variance 1 (as far as `eps`, added
    to the variance, allows), then times `weight` and plus `bias`, where these are given.
    """
    dims = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    y = centred / ((centred * centred).mean(dims, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Shift and scale the last axes to mean 0 and variance 1, then by `weight` and `bias` of that shape."""
    normalized_shape = tuple(normalized_shape)
    _require_fit("layer_norm", x, normalized_shape, weight, bias)
    return _layer_norm(x, weight, bias, n=math.prod(normalized_shape), eps=eps)


@op
def _layer_norm(x, weight, bias, *, n, eps):
    mean = devices.filled(x, n, 1 / n)  # a product with it is the mean of each row, faster than np.mean
    rows = x.reshape(-1, n)
    normal = rows - (rows @ mean)[:, None]
    inverse = 1 / np.sqrt((normal * normal) @ mean + eps)[:, None]  # 1 / standard deviation
    normal *= inverse
    y = normal if weight is None else normal * weight.reshape(-1)
    y = y if bias is None else y + bias.reshape(-1)

    def grad_x(g):
        d = g.reshape(-1, n)
        d = d * weight.reshape(-1) if weight is not None else d
        dx = d - (d @ mean)[:, None]
        dx -= normal * ((d * normal) @ mean)[:, None]
        dx *= inverse
        return dx.reshape(x.shape)

    def grad_weight(g):
        return np.einsum("ij,ij->j", g.reshape(-1, n), normal).reshape(weight.shape)

    def grad_bias(g):
        return (devices.filled(g, len(rows), 1) @ g.reshape(-1, n)).reshape(bias.shape)

    return y.reshape(x.shape), (grad_x, grad_weight, grad_bias)


class LayerNorm(Module):
    """`layer_norm` over the last axes, `normalized_shape` (an integer or a tuple); weight starts at 1, bias at 0."""

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True):
        shape = _as_shape(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = Parameter(ones(*shape)) if elementwise_affine else None
        self.bias = Parameter(zeros(*shape)) if elementwise_affine and bias else None

    def forward(self, x):
        """x (..., *normalized_shape), normalised over the axes of that shape."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}"


# ---- root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467)


def rms_norm_composed(x, normalized_shape, weight=None, eps=None):
    """`rms_norm` in primitive operations, on tensors: x (..., *normalized_shape) gives the same shape.

    Each part of x over the last len(normalized_shape) axes comes out with a mean square of 1, then times `weight`,
    where it is given. `eps` is added to the mean square; None means the machine epsilon of x's dtype.
    """
    dims = tuple(range(-len(normalized_shape), 0))
    eps = np.finfo(x.dtype).eps if eps is None else eps
    y = x / ((x * x).mean(dims, keepdim=True) + eps).sqrt()
    return y if weight is None else y * weight


def rms_norm(x, normalized_shape, weight=None, eps=None):
    """Scale the last axes to a mean square of 1, then by `weight` of that shape: layer_norm without the shift.

    `eps` is added to the mean square; by default it is the machine epsilon of x's dtype, as in PyTorch. Raises
    ValueError for shapes that do not fit, TypeError for integers.
    """
    normalized_shape = tuple(normalized_shape)
    _require_fit("rms_norm", x, normalized_shape, weight)
    if x.dtype.kind != "f":
        raise TypeError(f"rms_norm needs floating point numbers, but got {x.dtype}. Convert them with x.float().")
    eps = np.finfo(x.dtype).eps.item() if eps is None else eps
    return _rms_norm(x, weight, n=math.prod(normalized_shape), eps=eps)


@op
def _rms_norm(x, weight, *, n, eps):
    mean = devices.filled(x, n, 1 / n)
    rows = x.reshape(-1, n)
    inverse = 1 / np.sqrt((rows * rows) @ mean + eps)[:, None]  # 1 / root mean square
    normal = rows * inverse
    y = normal if weight is None else normal * weight.reshape(-1)

    def grad_x(g):
        d = g.reshape(-1, n)
        d = d * weight.reshape(-1) if weight is not None else d
        dx = d - normal * ((d * normal) @ mean)[:, None]
        dx *= inverse
        return dx.reshape(x.shape)

    def grad_weight(g):
        return np.einsum("ij,ij->j", g.reshape(-1, n), normal).reshape(weight.shape)

    return y.reshape(x.shape), (grad_x, grad_weight)


class RMSNorm(Module):
    """`rms_norm` over the last axes, `normalized_shape` (an integer or a tuple); weight starts at 1."""

    def __init__(self, normalized_shape, eps=None, elementwise_affine=True):
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.weight = Parameter(ones(*self.normalized_shape)) if elementwise_affine else None

    def forward(self, x):
        """x (..., *normalized_shape), divided by its root mean square over the axes of that shape."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}"
