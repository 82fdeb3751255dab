"""Module 01: tensors and their primitive operations, each forward with its rule of the gradient.

Read in this order: `lifting` (what `@op` does), `core` (what a tensor is), `arithmetic`, `reductions`, `shaping` (the
operations), `tensor` (the whole), `creation` (new ones). `rounding` (16 bits a number) can wait for module 17.
"""

from .arithmetic import einsum, where
from .core import bool_, device_and_dtype, float32, float64, int64
from .creation import (
    arange,
    eye,
    full,
    full_like,
    ones,
    ones_like,
    rand,
    rand_like,
    randn,
    randn_like,
    tensor,
    zeros,
    zeros_like,
)
from .lifting import op, wrap
from .rounding import LOW_TYPES, autocast_mode, from_bfloat16_bits, round_to, to_bfloat16_bits
from .shaping import cat, stack
from .tensor import Tensor
