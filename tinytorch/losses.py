"""Module 04: losses. `reduction` is 'mean', 'sum' or 'none', as in PyTorch."""

import numpy as np

from . import device as devices
from .activations import log_softmax, shifted_exp, stable_sigmoid
from .layers import Module
from .tensor import op, where


def _reduce(losses, reduction):
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _check(name, input, target, reduction):
    _check_reduction(name, reduction)
    _check_tensors(name, input, target)
    if input.shape != target.shape:
        raise ValueError(
            f"{name} needs input and target of one shape, but got {input.shape} and {target.shape}. "
            "Broadcasting here is nearly always a mistake; reshape one of them."
        )
    if input.numel() == 0 and reduction == "mean":
        raise ValueError(f"{name} needs at least one element to average, but got shape {input.shape}.")


def _check_reduction(name, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name} needs reduction='mean', 'sum' or 'none', but got {reduction!r}.")


def _check_tensors(name, *given):
    for x in given:
        if not hasattr(x, "dtype"):
            raise TypeError(f"{name} needs tensors, but got a {type(x).__name__}. Convert it with tt.tensor(...).")


def _check_probabilities(input):
    if input.numel() and not bool(((input >= 0) & (input <= 1)).all()):
        raise ValueError(
            "binary_cross_entropy needs probabilities in [0, 1]. Apply sigmoid first, or use "
            "binary_cross_entropy_with_logits."
        )


def _check_classes(input, target, reduction):
    _check_reduction("cross_entropy", reduction)
    _check_tensors("cross_entropy", input, target)
    expected = input.shape[:1] + input.shape[2:] if input.ndim > 1 else ()
    if input.ndim == 0 or target.shape != expected:
        raise ValueError(
            "cross_entropy needs logits (N, C) with targets (N,), or logits (N, C, d1, ...) with targets "
            f"(N, d1, ...), but got logits {input.shape} and targets {target.shape}. A language model's "
            "(B, T, C) becomes logits.flatten(0, 1) with targets.flatten()."
        )


def mse_loss(input, target, *, reduction="mean"):
    """The squared difference of input and target, of one shape: its mean, its sum, or with 'none' each of them."""
    _check("mse_loss", input, target, reduction)
    difference = input - target
    return _reduce(difference * difference, reduction)


def binary_cross_entropy(input, target, *, reduction="mean"):
    """-(t log p + (1 - t) log(1 - p)) of probabilities p and targets t in [0, 1]; logarithms stop at -100."""
    _check("binary_cross_entropy", input, target, reduction)
    _check_probabilities(input)
    return _reduce(_binary_cross_entropy(input, target), reduction)


@op
def _binary_cross_entropy(p, t):
    log_p, log_q = _log_above_minus_100(p), _log_above_minus_100(1 - p)
    return -(t * log_p + (1 - t) * log_q), (
        lambda g: g * (p - t) / np.maximum(p * (1 - p), 1e-12),
        lambda g: g * (log_q - log_p),
    )


def _log_above_minus_100(p):
    return np.where(p > 0, np.maximum(np.log(np.where(p > 0, p, 1)), -100), -100).astype(p.dtype)


def binary_cross_entropy_with_logits_composed(input, target, *, reduction="mean"):
    """`binary_cross_entropy_with_logits` in primitive operations: log(1 + exp(x)) - x t, with exp of -|x| alone."""
    return _reduce(input.maximum(0.0) - input * target + ((-input.abs()).exp() + 1).log(), reduction)


def binary_cross_entropy_with_logits(input, target, *, reduction="mean"):
    """`binary_cross_entropy` of sigmoid(input), computed without ever rounding a probability to 0 or 1."""
    _check("binary_cross_entropy_with_logits", input, target, reduction)
    return _reduce(_binary_cross_entropy_with_logits(input, target), reduction)


@op
def _binary_cross_entropy_with_logits(x, t):
    y = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    return y, (lambda g: g * (stable_sigmoid(x) - t), lambda g: -g * x)


def cross_entropy_composed(input, target, *, ignore_index=-100, reduction="mean"):
    """`cross_entropy` in primitive operations, for logits (N, C) and class numbers (N,).

    Where a target equals `ignore_index`, the loss is 0, and the mean is over the others.
    """
    counted = target != ignore_index
    labels = where(counted, target, 0)
    losses = -log_softmax(input, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    losses = where(counted, losses, 0.0)
    return losses.sum() / counted.sum() if reduction == "mean" else _reduce(losses, reduction)


def cross_entropy(input, target, *, ignore_index=-100, reduction="mean"):
    """-log softmax(input)[target]: the surprise, in nats, at the right class.

    input: logits (N, C), (C,), or (N, C, d1, ...) with the classes on axis 1; target: class numbers (N,), (), or
    (N, d1, ...). Targets equal to `ignore_index` count neither in the loss nor in its mean.
    Raises ValueError for shapes that do not fit and where nothing is left to average, TypeError for targets that are
    not integers, IndexError for classes out of range.
    """
    _check_classes(input, target, reduction)
    if input.ndim == 1:
        loss = _cross_entropy(input.unsqueeze(0), target.reshape(1), ignore_index=ignore_index, reduction=reduction)
        return loss.squeeze(0) if reduction == "none" else loss
    if input.ndim > 2:
        rows = input.permute(0, *range(2, input.ndim), 1).reshape(-1, input.shape[1])
        loss = _cross_entropy(rows, target.flatten(), ignore_index=ignore_index, reduction=reduction)
        return loss.reshape(target.shape) if reduction == "none" else loss
    return _cross_entropy(input, target, ignore_index=ignore_index, reduction=reduction)


@op
def _cross_entropy(logits, target, *, ignore_index, reduction):
    if target.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy needs targets that are class numbers (integers), but got {target.dtype}.")
    n, classes = logits.shape
    counted = target != ignore_index
    count = int(np.count_nonzero(counted))
    if count == 0 and reduction == "mean":
        raise ValueError(f"cross_entropy has nothing to average: all {n} targets are ignore_index={ignore_index}.")
    labels = target * counted  # 0 where the target does not count
    if count and (labels.min() < 0 or labels.max() >= classes):
        raise IndexError(
            f"cross_entropy needs targets from 0 to {classes - 1} (or ignore_index={ignore_index}), but got "
            f"{int(labels.min())} to {int(labels.max())}."
        )
    e, shift = shifted_exp(logits, 1)  # (N, C)
    total = e @ devices.filled(e, classes, 1)  # (N,)
    rows = np.arange(n, like=logits)
    weight = counted.astype(logits.dtype)
    losses = np.where(counted, np.log(total) - (logits[rows, labels] - shift[:, 0]), 0)
    if reduction == "mean":
        weight /= count

    def rule(g):  # softmax minus one-hot, weighted
        scale = g * weight
        d = e * (scale / total)[:, None]
        d[rows, labels] -= scale
        return d

    return (losses if reduction == "none" else losses.sum() / (count if reduction == "mean" else 1)), rule


class MSELoss(Module):
    """`mse_loss` as a module."""

    def __init__(self, *, reduction="mean"):
        self.reduction = reduction

    def forward(self, input, target):
        return mse_loss(input, target, reduction=self.reduction)


class BCELoss(MSELoss):
    """`binary_cross_entropy` as a module."""

    def forward(self, input, target):
        return binary_cross_entropy(input, target, reduction=self.reduction)


class BCEWithLogitsLoss(MSELoss):
    """`binary_cross_entropy_with_logits` as a module."""

    def forward(self, input, target):
        return binary_cross_entropy_with_logits(input, target, reduction=self.reduction)


class CrossEntropyLoss(Module):
    """`cross_entropy` as a module."""

    def __init__(self, *, ignore_index=-100, reduction="mean"):
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, input, target):
        return cross_entropy(input, target, ignore_index=self.ignore_index, reduction=self.reduction)
