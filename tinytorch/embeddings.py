"""Module 11: embeddings, vectors looked up by number, and the positions of a sequence as vectors or as rotations.

Letters: B batch, T time, V vocabulary, C channels, D width of a head.
"""

import math

import numpy as np

from . import device as devices
from .layers import Module, Parameter, require_positive
from .tensor import Tensor, arange, cat, eye, float32, op, randn, stack


def embedding_composed(ids, weight):
    """`embedding` as a product with one-hot rows: ids (...) and weight (V, C) give (..., C)."""
    return eye(weight.shape[0], dtype=weight.dtype)[ids] @ weight


@op
def embedding(ids, weight, padding_idx=None):
    """Row `ids[...]` of `weight`: ids (...) and weight (V, C) give (..., C). Row `padding_idx` gets no gradient.

    Raises TypeError for ids that are not integers and IndexError for ids outside 0 to V - 1.
    """
    _require_ids(ids, len(weight))
    shape, dtype = weight.shape, weight.dtype

    def rule(g):  # a row that was looked up twice learns twice
        whole = np.zeros(shape, dtype, like=g)
        devices.scatter_add(whole, ids, g)
        if padding_idx is not None:
            whole[padding_idx] = 0
        return whole

    return weight[ids], (None, rule)


def _require_ids(ids, rows):
    """Raise TypeError unless ids are integers, IndexError unless they count from 0 to rows - 1."""
    if not hasattr(ids, "dtype") or ids.dtype.kind not in "iu":
        came = getattr(ids, "dtype", f"a {type(ids).__name__}")
        raise TypeError(f"embedding needs a tensor of integer ids, but got {came}.")
    if ids.size and (ids.min() < 0 or ids.max() >= rows):
        raise IndexError(
            f"embedding needs ids from 0 to {rows - 1}, but got {int(ids.min())} to {int(ids.max())}. "
            "Do the tokenizer and the model have the same vocabulary?"
        )


class Embedding(Module):
    """A table of `num_embeddings` vectors of length `embedding_dim`, drawn from N(0, 1): ids (...) give (..., dim).

    The row `padding_idx`, if given, starts as zeros and gets no gradient.
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None, generator=None):
        """Keep the three settings under their names, and draw `weight`, a Parameter (num_embeddings, embedding_dim).

        Its numbers come from N(0, 1), by `generator` where one is given; row `padding_idx` is then set to zeros.
        """
        _require_table(num_embeddings, embedding_dim, padding_idx)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(randn(num_embeddings, embedding_dim, generator=generator))
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0

    def forward(self, ids):
        return embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}"


def _require_table(num_embeddings, embedding_dim, padding_idx):
    require_positive(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
    if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
        raise IndexError(f"padding_idx needs one of the {num_embeddings} rows, but got {padding_idx}.")


# ---- positions


def sinusoidal_positions(length, dim):
    """(length, dim): what to add to the vectors at positions 0 to length - 1, so that a model can tell them apart.

    Columns 2i and 2i + 1 are sine and cosine of position / 10000^(2i / dim). Raises ValueError for an odd `dim`.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    require_positive(length=length)
    cos, sin = rotary_angles(length, dim)
    return stack([sin, cos], dim=-1).flatten(-2)


def rotary_angles(positions, dim, theta=10000.0, dtype=float32):
    """(cos, sin), each (..., dim / 2): how far `rotary` turns each pair of channels at the positions.

    positions: an integer tensor (...), or a number n for 0 to n - 1. Pair i turns by theta^(-2i / dim) a position.
    Computed in double precision, as a large position times a small error is no small angle. Raises ValueError for an
    odd `dim` or a `theta` that is not above 0, TypeError for positions that are not integers.
    """
    _require_turns(dim, theta)
    positions = _as_positions(positions)
    pairs = np.arange(dim // 2, like=positions.data)
    angles = positions.data[..., None] * theta ** (pairs * (-2 / dim))  # (..., dim / 2)
    return Tensor(np.cos(angles), dtype), Tensor(np.sin(angles), dtype)


def _require_turns(dim, theta):
    require_positive(dim=dim)
    if dim % 2:
        raise ValueError(f"Positions take channels in pairs and need an even dim, but got {dim}.")
    if not 0 < theta < math.inf:
        raise ValueError(f"theta needs a number above 0, but got {theta}. Usual is 10000.")


def _as_positions(positions):
    """An integer tensor as it is, or for a number n the positions 0 to n - 1."""
    if not isinstance(positions, Tensor):
        positions = arange(positions)
    if positions.dtype.kind not in "iu":
        raise TypeError(f"rotary_angles needs integer positions, but got {positions.dtype}.")
    return positions


def rotary_composed(x, cos, sin, interleaved=False):
    """`rotary` in primitive operations: x (..., T, D), cos and sin (T, D / 2), give (..., T, D).

    A pair is channel 2i and channel 2i + 1 where `interleaved`, else channel i and channel i + D / 2.
    """
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, dim=-1)
    turned = first * cos - second * sin, second * cos + first * sin  # each (..., T, D / 2)
    return stack(turned, dim=-1).flatten(-2) if interleaved else cat(turned, dim=-1)


def rotary(x, cos, sin, interleaved=False):
    """Rotary position embedding: turn each pair of channels by its angle, so that q @ k depends on distances alone.

    x (..., T, D); cos and sin (T, D / 2), or what broadcasts to (..., T, D / 2), from `rotary_angles`. A pair is
    channel i and its neighbour where `interleaved` (the paper), or channel i and i + D / 2 (Llama's and GPT-NeoX's
    weights). Keys in a cache stay as they are: new positions go on with rotary_angles(arange(start, end), D).
    Raises ValueError for shapes that do not fit, TypeError for integers.
    Source: Su et al. 2021, arXiv:2104.09864, section 3.2.
    """
    if x.dtype.kind != "f":
        raise TypeError(f"rotary needs floating point numbers, but got {x.dtype}. Convert them with x.float().")
    turned = (*x.shape[:-1], x.shape[-1] // 2) if x.ndim else ()
    for angles in (cos, sin):
        fits = angles.ndim <= x.ndim and angles.shape[-1:] == turned[-1:]
        fits = fits and all(n in (1, size) for n, size in zip(angles.shape[::-1], turned[::-1]))
        if not fits or x.ndim < 2 or x.shape[-1] % 2:
            raise ValueError(
                "rotary needs x (..., T, D) with an even D, and cos and sin (T, D / 2), but got "
                f"{x.shape}, {cos.shape} and {sin.shape}. rotary_angles(T, D) gives both."
            )
    return _rotary(x, cos.to(x.dtype), sin.to(x.dtype), interleaved=interleaved)


@op
def _rotary(x, cos, sin, *, interleaved):
    def grad_cos(g):
        (first, second), (g_first, g_second) = _pairs(x, interleaved), _pairs(g, interleaved)
        return g_first * first + g_second * second

    def grad_sin(g):
        (first, second), (g_first, g_second) = _pairs(x, interleaved), _pairs(g, interleaved)
        return g_second * first - g_first * second

    return _turn(x, cos, sin, interleaved), (lambda g: _turn(g, cos, -sin, interleaved), grad_cos, grad_sin)


def _turn(x, cos, sin, interleaved):
    """Each channel times cos, plus its partner times -sin or sin: whole rows at once, faster than halves of them."""
    first, second = _pairs(x, interleaved)
    y = _joined(second, first, interleaved)
    y *= _joined(-sin, sin, interleaved)
    y += x * _joined(cos, cos, interleaved)
    return y


def _pairs(x, interleaved):
    """The first and the second channel of all pairs, as views (..., T, D / 2)."""
    half = x.shape[-1] // 2
    return (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])


def _joined(first, second, interleaved):
    """The way back from `_pairs`, as a copy."""
    if interleaved:
        return np.stack((first, second), axis=-1).reshape(*first.shape[:-1], 2 * first.shape[-1])
    return np.concatenate((first, second), axis=-1)


class Rotary(Module):
    """`rotary` for heads of width `dim`, with a table of the angles: x (..., T, D) from position `start` on.

    It has no parameters, so that one may serve all layers of a model.
    """

    def __init__(self, dim, theta=10000.0, interleaved=False):
        self.dim, self.theta, self.interleaved = dim, theta, interleaved
        self._table = rotary_angles(64, dim, theta)  # a tuple, so that no state dict has it

    def forward(self, x, start=0):
        """Turn x (..., T, D) as what stands at positions start to start + T - 1.

        The angles are cut out of a table, which is made anew where it is too short, or of another dtype or device.
        """
        end = start + x.shape[-2]
        cos, sin = self._table
        if len(cos) < end or (cos.dtype, cos.device) != (x.dtype, x.device):
            positions = arange(max(len(cos), 1 << (end - 1).bit_length()), device=x.device)
            cos, sin = self._table = rotary_angles(positions, self.dim, self.theta, x.dtype)
        return rotary(x, cos[start:end], sin[start:end], self.interleaved)

    def extra_repr(self):
        return f"{self.dim}, theta={self.theta}, interleaved={self.interleaved}"
