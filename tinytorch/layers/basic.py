"""The linear layer and dropout. Initialisation is PyTorch's."""

import math

import numpy as np

from .. import device as devices
from ..tensor import op, rand
from .module import Module, Parameter, require_positive

# ---- the linear layer


def linear_composed(x, weight, bias=None):
    """`linear` in primitive operations: x (..., in), weight (out, in) and bias (out,), or None, give (..., out)."""
    y = x @ weight.T
    return y if bias is None else y + bias


@op
def linear(x, weight, bias=None):
    """x @ weight.T + bias: x (..., in), weight (out, in), bias (out,) give (..., out)."""
    if weight.ndim != 2:
        raise ValueError(f"linear needs a weight of shape (out, in), but got {weight.shape}.")
    out_features, in_features = weight.shape
    if x.shape[-1:] != (in_features,):
        raise ValueError(
            f"Linear({in_features}, {out_features}) needs inputs whose last axis is {in_features}, but got shape "
            f"{x.shape}."
        )
    rows = x.reshape(-1, in_features)  # one product of matrices, however many axes x has
    y = rows @ weight.T
    if bias is not None:
        y += bias

    def flat(g):
        return g.reshape(-1, out_features)

    return y.reshape(*x.shape[:-1], out_features), (
        lambda g: (flat(g) @ weight).reshape(x.shape),
        lambda g: flat(g).T @ rows,
        lambda g: devices.filled(g, len(rows), 1) @ flat(g),  # adds up rows faster than np.sum
    )


class Linear(Module):
    """y = x @ weight.T + bias: (..., in_features) to (..., out_features).

    Weight (out, in) and bias are drawn from U(-1/sqrt(in), 1/sqrt(in)), as in PyTorch.
    """

    def __init__(self, in_features, out_features, bias=True, *, generator=None):
        """Keep both sizes, and make the parameters weight (out, in) and bias (out,); without `bias`, that is None.

        Raises ValueError for sizes that are no integers of at least 1.
        """
        require_positive(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = Parameter(uniform((out_features, in_features), bound, generator))
        self.bias = Parameter(uniform((out_features,), bound, generator)) if bias else None

    def forward(self, x):
        return linear(x, self.weight, self.bias)

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def uniform(shape, bound, generator=None):
    """Numbers from U(-bound, bound), as most initialisations need them."""
    return rand(*shape, generator=generator) * (2 * bound) - bound


# ---- dropout


@op
def _apply_mask(x, mask):
    return x * mask, lambda g: g * mask


def dropout(x, p=0.5, training=True, generator=None):
    """While training, zero each element with probability p and scale the others by 1 / (1 - p) (Srivastava 2014).

    Outside of training, and for p = 0, x itself comes back. Raises ValueError where p is no probability.
    """
    require_probability(p)
    if not training or p == 0:
        return x
    return _apply_mask(x, devices.to_device(dropout_mask(x.shape, p, x.dtype, generator), x.device))


def require_probability(p):
    """Raise ValueError unless p can be the probability of dropout."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout needs a probability between 0 and 1, but got {p}.")


def dropout_mask(shape, p, dtype, generator=None):
    """A NumPy array with 0 where an element is dropped and 1 / (1 - p) elsewhere."""
    draws = devices.generator_or_default(generator).random(shape, dtype=np.float32)
    return np.multiply(draws >= p, 1 / (1 - p) if p < 1 else 0, dtype=dtype)


class Dropout(Module):
    """`dropout` in training, nothing in evaluation. The mask comes from `generator`, or the default one."""

    def __init__(self, p=0.5, *, generator=None):
        require_probability(p)
        self.p = p
        self.generator = generator

    def forward(self, x):
        return dropout(x, self.p, self.training, self.generator)

    def extra_repr(self):
        return f"p={self.p}"
