"""Operations that move elements and compute nothing: shapes, indexing, cutting and joining."""

import itertools
import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .. import device as devices
from . import lifting
from .lifting import numpy_names, op


def unpack(sizes):
    """f(2, 3) and f((2, 3)) mean the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _as_index(index, like):
    """An index with its tensors and sequences of numbers turned into arrays, on the device of `like`."""
    if isinstance(index, tuple):
        return tuple(_as_index(list(part) if isinstance(part, tuple) else part, like) for part in index)
    if isinstance(index, (list, range)):
        return np.array(index, dtype=None if index else np.int64, like=like)
    return index.data if isinstance(index, lifting.tensor_type) else index


def _grid(index, dim):
    """The full index that `gather` means: `index` along `dim`, and each position itself along the other axes."""
    grid = []
    for axis, size in enumerate(index.shape):
        others = tuple(-1 if a == axis else 1 for a in range(index.ndim))
        grid.append(np.arange(size, like=index).reshape(others))
    grid[dim] = index
    return tuple(grid)


def _require_lengths(split_size, n, dim):
    """Raise ValueError unless an axis `dim` of size n can be cut so: a length of 1 or more, or lengths that fill it."""
    if isinstance(split_size, int):
        if split_size <= 0:
            raise ValueError(f"split needs pieces of at least 1, but got {split_size}.")
    elif sum(split_size) != n or any(size < 0 for size in split_size):
        raise ValueError(
            f"split needs lengths of 0 or more that add up to {n}, the size of axis {dim}, but got {split_size}."
        )


class Shaping:
    """Views, picked elements and pieces of a tensor."""

    __slots__ = ()

    # ---- shape

    @op
    def reshape(x, *shape):
        """The same elements, in the same order, in another shape; one size may be -1."""
        old = x.shape
        return np.reshape(x, unpack(shape)), lambda g: np.reshape(g, old)

    view = reshape

    @op
    def permute(x, *dims):
        """The axes in another order."""
        dims = unpack(dims)
        back = sorted(range(len(dims)), key=lambda i: dims[i] % len(dims))
        return np.transpose(x, dims), lambda g: np.transpose(g, back)

    @op
    def transpose(x, dim0, dim1):
        """Two axes exchanged."""
        return np.swapaxes(x, dim0, dim1), lambda g: np.swapaxes(g, dim0, dim1)

    swapaxes = transpose

    @op
    def squeeze(x, dim=None):
        """Without the axes of length 1, or without axis `dim` where its length is 1."""
        shape = x.shape
        if dim is not None and shape[normalize_axis_index(dim, x.ndim)] != 1:
            return x, lambda g: g
        return np.squeeze(x, dim), lambda g: np.reshape(g, shape)

    @op
    def unsqueeze(x, dim):
        """With a new axis of length 1 at `dim`."""
        shape = x.shape
        return np.expand_dims(x, dim), lambda g: np.reshape(g, shape)

    @op
    def expand(x, *sizes):
        """Axes of length 1 repeated to `sizes`, without copying; -1 keeps a size; new axes come first."""
        sizes = unpack(sizes)
        old = (1,) * (len(sizes) - x.ndim) + x.shape
        return np.broadcast_to(x, tuple(n if size == -1 else size for n, size in zip(old, sizes))), lambda g: g

    @op
    def flatten(x, start_dim=0, end_dim=-1):
        """The axes from `start_dim` to `end_dim` joined into one."""
        shape = x.shape or (1,)
        first, last = (normalize_axis_index(dim, len(shape)) for dim in (start_dim, end_dim))
        if first > last:
            raise ValueError(f"flatten needs start_dim before end_dim, but got {start_dim} and {end_dim}.")
        joined = shape[:first] + (math.prod(shape[first : last + 1]),) + shape[last + 1 :]
        return np.reshape(x, joined), lambda g: np.reshape(g, x.shape)

    # ---- picking and joining

    def __getitem__(self, index):
        """Slices, integers, None, `...`, and integer or boolean tensors, arrays and lists, as in NumPy."""
        return Shaping._getitem(self, index=_as_index(index, self.data))

    @op
    def _getitem(x, *, index):
        shape, dtype = x.shape, x.dtype
        parts = index if isinstance(index, tuple) else (index,)
        repeats = any(getattr(part, "dtype", None) is not None and part.dtype.kind in "iu" for part in parts)

        def rule(g):
            whole = np.zeros(shape, dtype, like=g)
            if repeats:
                devices.scatter_add(whole, index, g)
            else:
                whole[index] = g
            return whole

        return x[index], rule

    @op
    def gather(x, dim, index):
        """y[i][j] = x[index[i][j]][j] for dim=0, and so on for every `dim`; `index` has as many axes as x."""
        if index.ndim != x.ndim:
            raise ValueError(f"gather needs an index with {x.ndim} axes, but got shape {index.shape}.")
        dim = normalize_axis_index(dim, x.ndim)
        if index.size and (index.min() < 0 or index.max() >= x.shape[dim]):
            raise IndexError(
                f"gather needs indices from 0 to {x.shape[dim] - 1} along axis {dim}, but got {int(index.min())} to "
                f"{int(index.max())}."
            )
        shape, dtype, grid = x.shape, x.dtype, _grid(index, dim)

        def rule(g):
            whole = np.zeros(shape, dtype, like=g)
            devices.scatter_add(whole, grid, g)
            return whole

        return x[grid], rule

    def split(self, split_size, dim=0):
        """Pieces of length `split_size` along `dim` (the last may be shorter), or of the lengths in a list, as a tuple.

        Raises ValueError for a length below 1, and for a list of lengths that do not add up to the size of the axis.
        """
        dim = normalize_axis_index(dim, self.ndim)
        n = self.shape[dim]
        _require_lengths(split_size, n, dim)
        if isinstance(split_size, int):
            split_size = [min(split_size, n - start) for start in range(0, n, split_size)]
        before = (slice(None),) * dim
        ends = itertools.accumulate(split_size)
        return tuple(self[(*before, slice(end - size, end))] for size, end in zip(split_size, ends))

    def chunk(self, chunks, dim=0):
        """At most `chunks` pieces of equal length along `dim`; the last may be shorter.

        Raises ValueError for fewer than 1 chunk.
        """
        if chunks <= 0:
            raise ValueError(f"chunk needs at least 1 chunk, but got {chunks}.")
        n = self.shape[normalize_axis_index(dim, self.ndim)]
        return self.split(max(1, -(-n // chunks)), dim)


@numpy_names
def cat(tensors, dim=0):
    """Tensors joined along axis `dim`."""
    return _cat(*_some(tensors, "cat"), dim=dim)


@op
def _cat(*arrays, dim):
    dim = normalize_axis_index(dim, min(array.ndim for array in arrays))
    sizes = [array.shape[dim] for array in arrays]
    ends = list(itertools.accumulate(sizes))

    def part(size, end):
        before = (slice(None),) * dim
        return lambda g: g[(*before, slice(end - size, end))]

    return np.concatenate(arrays, axis=dim), tuple(map(part, sizes, ends))


@numpy_names
def stack(tensors, dim=0):
    """Tensors of one shape joined along a new axis `dim`."""
    return _stack(*_some(tensors, "stack"), dim=dim)


@op
def _stack(*arrays, dim):
    return np.stack(arrays, axis=dim), tuple(lambda g, i=i: g.take(i, axis=dim) for i in range(len(arrays)))


def _some(tensors, name):
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError(f"{name} needs at least one tensor, but got none.")
    return tensors
