"""Module 11: embeddings, vectors looked up by number."""

import numpy as np

from . import device as devices
from .layers import Module, Parameter, require_positive
from .tensor import eye, op, randn


def embedding_composed(ids, weight):
    """`embedding` as a product with one-hot rows."""
    return eye(weight.shape[0], dtype=weight.dtype)[ids] @ weight


@op
def embedding(ids, weight, padding_idx=None):
    """Row `ids[...]` of `weight`: ids (...) and weight (V, C) give (..., C). Row `padding_idx` gets no gradient.

    Raises TypeError for ids that are not integers and IndexError for ids outside 0 to V - 1.
    """
    if not hasattr(ids, "dtype") or ids.dtype.kind not in "iu":
        came = getattr(ids, "dtype", f"a {type(ids).__name__}")
        raise TypeError(f"embedding needs a tensor of integer ids, but got {came}.")
    if ids.size and (ids.min() < 0 or ids.max() >= len(weight)):
        raise IndexError(
            f"embedding needs ids from 0 to {len(weight) - 1}, but got {int(ids.min())} to {int(ids.max())}. "
            "Do the tokenizer and the model have the same vocabulary?"
        )
    shape, dtype = weight.shape, weight.dtype

    def rule(g):  # a row that was looked up twice learns twice
        whole = np.zeros(shape, dtype, like=g)
        devices.scatter_add(whole, ids, g)
        if padding_idx is not None:
            whole[padding_idx] = 0
        return whole

    return weight[ids], (None, rule)


class Embedding(Module):
    """A table of `num_embeddings` vectors of length `embedding_dim`, drawn from N(0, 1): ids (...) give (..., dim).

    The row `padding_idx`, if given, starts as zeros and gets no gradient.
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None, generator=None):
        require_positive(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise IndexError(f"padding_idx needs one of the {num_embeddings} rows, but got {padding_idx}.")
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(randn(num_embeddings, embedding_dim, generator=generator))
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0

    def forward(self, ids):
        return embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}"
