"""What attention remembers of the positions before, so that each new one is computed once."""

import numpy as np

from .. import autograd
from ..layers import require_positive
from ..tensor import wrap


class KVCache:
    """The keys and values of one attention layer for the positions so far, in buffers that never move.

    `append` takes those of the new positions, (B, H, L, D), and returns all so far, (B, H, S, D). For inference only.
    `capacity` is how many positions there is room for, `length` how many there are; `keys` and `values` are the
    buffers, arrays (B, H, capacity, D), or None before the first `append`.
    """

    def __init__(self, capacity):
        require_positive(capacity=capacity)
        self.capacity = capacity
        self.length = 0
        self.keys = self.values = None

    def append(self, key, value):
        _require_room(self, key, value)
        batch, heads, new, width = key.shape
        end = self.length + new
        if self.keys is None:
            self.keys = np.empty((batch, heads, self.capacity, width), key.dtype, like=key.data)
            self.values = np.empty_like(self.keys)
        self.keys[:, :, self.length : end] = key.data
        self.values[:, :, self.length : end] = value.data
        self.length = end
        return wrap(self.keys[:, :, :end]), wrap(self.values[:, :, :end])


def _require_room(cache, key, value):
    """Raise unless `cache` can go on with key and value: no graph, as many sequences and heads as before, and room."""
    if autograd.grad_mode.enabled and (key.requires_grad or value.requires_grad):
        raise RuntimeError("A KVCache keeps no graph. Generate inside no_grad().")
    batch, heads, new, width = key.shape
    before = None if cache.keys is None else cache.keys.shape
    if before is not None and (batch, heads, width) != (*before[:2], before[3]):
        raise ValueError(
            f"The cache goes on with keys of shape {before[:2]} + (new, {before[3]}), but got {key.shape}. "
            "Use a new cache for other sequences."
        )
    end = cache.length + new
    if end > cache.capacity:
        raise ValueError(f"The cache holds {cache.capacity} positions, but {end} are needed.")
