"""Tensor: the whole, from its parts."""

from . import lifting
from .arithmetic import Arithmetic
from .core import Core
from .reductions import Reductions
from .shaping import Shaping


class Tensor(Arithmetic, Reductions, Shaping, Core):
    """An n-dimensional array and, where `requires_grad` is set, its gradient.

    `data` is the array (not copied: `tensor(array)` copies), `grad` the gradient that `backward` adds to on leaves
    (a Tensor, or None), `grad_fn` the node that made this tensor (None on leaves). Names, argument order and defaults
    are PyTorch's; `axis` and `keepdims` are taken for `dim` and `keepdim`.
    Raises ValueError for ragged lists and TypeError for data that are not numbers.
    """

    __slots__ = ()


lifting.tensor_type = Tensor
