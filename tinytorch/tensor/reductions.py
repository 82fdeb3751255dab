"""Reductions: many elements into one, over an axis `dim`, several, or all."""

import math
from collections import namedtuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .lifting import numpy_names, op

ValuesAndIndices = namedtuple("ValuesAndIndices", "values indices")


def _axes(dim):
    """NumPy wants several axes as a tuple."""
    return tuple(dim) if isinstance(dim, list) else dim


def _count(shape, dim):
    """How many elements a reduction over `dim` joins into one."""
    if dim is None:
        return math.prod(shape)
    return math.prod(shape[axis] for axis in normalize_axis_tuple(dim, len(shape)))


def _spread(g, shape, dim, keepdim):
    """Bring back the axes that a reduction over `dim` removed, as 1, so that g broadcasts to `shape`."""
    if dim is None:
        return np.reshape(g, (1,) * len(shape))
    return g if keepdim else np.expand_dims(g, dim)


def _extreme(reduce, x, dim, keepdim):
    """The largest or smallest values, with a rule that shares the gradient equally among ties."""
    dim = _axes(dim)
    y = reduce(x, axis=dim, keepdims=keepdim)

    def rule(g):
        tied = x == _spread(y, x.shape, dim, keepdim)
        return _spread(g, x.shape, dim, keepdim) * tied / np.sum(tied, axis=dim, keepdims=True)

    return y, rule


class Reductions:
    """sum, mean and their relatives. `keepdim` leaves the reduced axes in place with length 1."""

    __slots__ = ()

    # ---- reductions over `dim`: an axis, several, or None for all

    @op
    def sum(x, dim=None, keepdim=False):
        """The sum over `dim`: an axis, several, or None for all. `keepdim` leaves them in place with length 1."""
        dim, shape = _axes(dim), x.shape
        y = np.sum(x, axis=dim, keepdims=keepdim)
        return y, lambda g: np.broadcast_to(_spread(g, shape, dim, keepdim), shape)

    @op
    def mean(x, dim=None, keepdim=False):
        """The mean over `dim`."""
        dim, shape = _axes(dim), x.shape
        n = _count(shape, dim)
        if n == 0:
            raise ValueError(f"mean needs at least one element to average, but got shape {shape}.")
        y = np.mean(x, axis=dim, keepdims=keepdim)
        return y, lambda g: np.broadcast_to(_spread(g / n, shape, dim, keepdim), shape)

    @op
    def var(x, dim=None, correction=1, keepdim=False):
        """The variance over `dim`, divided by n - correction (1: unbiased, PyTorch's default; 0: as LayerNorm does)."""
        dim, shape = _axes(dim), x.shape
        n = _count(shape, dim) - correction
        if n <= 0:
            raise ValueError(f"var needs more than {correction} elements to average, but got shape {shape}.")
        centred = x - np.mean(x, axis=dim, keepdims=True)
        y = np.sum(centred * centred, axis=dim, keepdims=keepdim) / n
        return y, lambda g: _spread(g, shape, dim, keepdim) * centred * (2 / n)

    @numpy_names
    def std(self, dim=None, correction=1, keepdim=False):
        """The standard deviation over `dim`: the root of `var`."""
        return self.var(dim, correction, keepdim).sqrt()

    @op
    def amax(x, dim=None, keepdim=False):
        """The largest values over `dim`. Ties share the gradient equally."""
        return _extreme(np.max, x, dim, keepdim)

    @op
    def amin(x, dim=None, keepdim=False):
        """The smallest values over `dim`. Ties share the gradient equally."""
        return _extreme(np.min, x, dim, keepdim)

    @op
    def argmax(x, dim=None, keepdim=False):
        """The index of the largest value along `dim`, or into the flattened tensor."""
        return np.argmax(x, axis=dim, keepdims=keepdim)

    @op
    def argmin(x, dim=None, keepdim=False):
        """The index of the smallest value along `dim`, or into the flattened tensor."""
        return np.argmin(x, axis=dim, keepdims=keepdim)

    @numpy_names
    def max(self, dim=None, keepdim=False):
        """The largest value; along a `dim`, the pair (values, indices)."""
        return self.amax() if dim is None else self._pick(self.argmax(dim, keepdim=True), dim, keepdim)

    @numpy_names
    def min(self, dim=None, keepdim=False):
        """The smallest value; along a `dim`, the pair (values, indices)."""
        return self.amin() if dim is None else self._pick(self.argmin(dim, keepdim=True), dim, keepdim)

    def _pick(self, indices, dim, keepdim):
        values = self.gather(dim, indices)
        return ValuesAndIndices(*(t if keepdim else t.squeeze(dim) for t in (values, indices)))

    @op
    def prod(x, dim=None, keepdim=False):
        """The product over one axis, or over all. Its gradient is right where factors are 0, too."""
        rows = x.reshape(1, -1) if dim is None else np.moveaxis(x, dim, -1)

        def rule(g):  # each factor's gradient is the product of those before it and those after it
            ones = np.ones_like(rows[..., :1])
            before = np.cumprod(np.concatenate((ones, rows[..., :-1]), axis=-1), axis=-1)
            after = np.cumprod(np.concatenate((ones, np.flip(rows, -1)[..., :-1]), axis=-1), axis=-1)
            others = before * np.flip(after, -1)
            others = others.reshape(x.shape) if dim is None else np.moveaxis(others, -1, dim)
            return _spread(g, x.shape, dim, keepdim) * others

        return np.prod(x, axis=dim, keepdims=keepdim), rule

    @op
    def cumsum(x, dim):
        """The running sum along `dim`."""
        return np.cumsum(x, axis=dim), lambda g: np.flip(np.cumsum(np.flip(g, dim), axis=dim), dim)
