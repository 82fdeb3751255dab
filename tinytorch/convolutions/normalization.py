"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2)."""

import numpy as np

from .. import device as devices
from ..layers import Module, Parameter, require_positive
from ..tensor import ones, op, tensor, zeros
from .windows import batch_first, batch_last


def batch_norm_composed(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    """`batch_norm` in primitive operations: input (B, C) or (B, C, ...), all other tensors (C,) or None.

    In training, the batch's statistics are used (the variance divided by n), and the running ones, where given, move in
    place (towards the variance divided by n - 1). Otherwise the running ones are used, and stay.
    """
    dims = (0, *range(2, input.ndim))
    shape = (-1, *(1 for _ in dims[1:]))  # broadcasts over places and the batch
    mean, var = running_mean, running_var
    if training:
        mean, var = input.mean(dims), input.var(dims, correction=0)
        if running_mean is not None:
            n = input.numel() // input.shape[1]
            _move(running_mean.data, mean.data, momentum)
            _move(running_var.data, var.data * (n / (n - 1)), momentum)
    y = (input - mean.reshape(shape)) / (var.reshape(shape) + eps).sqrt()
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Shift and scale each channel to mean 0 and variance 1 over the batch and all places, then by weight and bias.

    input (B, C) or (B, C, ...), which is also the shape that comes out; all others (C,), or None. In training the
    statistics are the input's, and the running ones, where given, move a part `momentum` of the way towards them, in
    place (towards the unbiased variance). Otherwise the running statistics are used.
    Raises ValueError for shapes that do not fit, for one value per channel in training, and for missing statistics;
    TypeError for inputs that are not floating point.
    """
    if input.ndim < 2:
        raise ValueError(f"batch_norm needs inputs of shape (B, C) or (B, C, ...), but got {input.shape}.")
    if input.dtype.kind != "f":
        raise TypeError(f"batch_norm needs floating point inputs, but got {input.dtype}. Convert them with x.float().")
    others = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, given in others.items():
        if given is not None and given.shape != input.shape[1:2]:
            raise ValueError(
                f"batch_norm of inputs with {input.shape[1]} channels (axis 1 of {input.shape}) needs {name} of shape "
                f"({input.shape[1]},), but got {given.shape}."
            )
    if (running_mean is None) is not (running_var is None) or (running_mean is None and not training):
        raise ValueError("batch_norm needs running_mean and running_var; both may be None, but in training only.")
    if training and input.numel() <= input.shape[1]:
        raise ValueError(
            f"batch_norm needs more than one value per channel in training, but got shape {input.shape}. Use a larger "
            "batch (a loader with drop_last=True leaves out a last batch of one), or eval()."
        )
    running = None if running_mean is None else (running_mean.data, running_var.data)
    return _batch_norm(input, weight, bias, running=running, training=training, momentum=momentum, eps=eps)


@op
def _batch_norm(x, weight, bias, *, running, training, momentum, eps):
    shape = batch_last(x).shape

    def flat(x):  # (C, n): the batch and all places in one axis
        return batch_last(x).reshape(shape[0], -1)

    x = flat(x)
    n = x.shape[1]
    summing = devices.filled(x, n, 1)  # a product with it adds up rows faster than np.sum
    mean = x @ summing / n if training else running[0]
    normal = x - mean[:, None]
    var = _products(normal, normal) / n if training else running[1]
    if training and running is not None:
        _move(running[0], mean, momentum)
        _move(running[1], var * (n / (n - 1)), momentum)
    inverse = 1 / np.sqrt(var + eps)  # 1 / standard deviation
    normal *= inverse[:, None]
    y = normal if weight is None else normal * weight[:, None]
    y = y if bias is None else y + bias[:, None]

    def rule(g):
        g = flat(g)
        total, along = g @ summing, _products(g, normal)
        dx = g
        if training:  # then mean and variance depend on x, too
            dx = normal * (along / -n)[:, None]
            dx += g
            dx -= (total / n)[:, None]
        dx = dx * (inverse if weight is None else inverse * weight)[:, None]
        return batch_first(dx.reshape(shape)), along, total

    return batch_first(y.reshape(shape)), rule


def _products(x, y):
    """The product of each row of x (C, n) with that of y: (C,). Faster than np.einsum, and more exact in float32."""
    return np.matmul(x[:, None], y[:, :, None])[:, 0, 0]


def _move(running, new, momentum):
    """Move a running statistic (an array) a part of the way towards a new one, in place."""
    running += momentum * (new - running)


class _BatchNorm(Module):
    """What BatchNorm1d and BatchNorm2d share."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        require_positive(num_features=num_features)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"{type(self).__name__} needs momentum from 0 to 1, or None, but got {momentum}.")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(ones(num_features)) if affine else None
        self.bias = Parameter(zeros(num_features)) if affine else None
        self.register_buffer("running_mean", zeros(num_features) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0) if track_running_stats else None)

    def forward(self, x):
        if x.ndim not in self.ndims:
            raise ValueError(f"{type(self).__name__} needs inputs of shape {self.shapes}, but got {x.shape}.")
        training, tracking = self.training or not self.track_running_stats, self.training and self.track_running_stats
        momentum = self.momentum
        if tracking and momentum is None:
            momentum = 1 / (self.num_batches_tracked.item() + 1)
        statistics = self.running_mean, self.running_var
        y = batch_norm(x, *statistics, self.weight, self.bias, training, momentum, self.eps)
        if tracking:
            self.num_batches_tracked.data += 1
        return y

    def extra_repr(self):
        names = ("eps", "momentum", "affine", "track_running_stats")
        return ", ".join([str(self.num_features), *(f"{name}={getattr(self, name)}" for name in names)])


class BatchNorm1d(_BatchNorm):
    """`batch_norm` as a layer, for (B, C) or (B, C, W); weight starts at 1, bias at 0.

    Training normalises by the batch and moves running_mean and running_var by `momentum` (None: their plain average
    over all num_batches_tracked batches); evaluation normalises by those. `affine=False` has no weight and bias;
    `track_running_stats=False` always normalises by the batch.
    """

    ndims, shapes = (2, 3), "(B, C) or (B, C, W)"


class BatchNorm2d(_BatchNorm):
    """`batch_norm` as a layer, for (B, C, H, W): one mean and variance per channel. Settings as in BatchNorm1d."""

    ndims, shapes = (4,), "(B, C, H, W)"
