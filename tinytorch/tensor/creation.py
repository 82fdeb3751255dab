"""New tensors: from data, from a constant, from random numbers."""

import numpy as np

from .. import device as devices
from .core import as_array, float32, float64
from .shaping import unpack
from .tensor import Tensor


def tensor(data, dtype=None, requires_grad=False, device="cpu"):
    """A tensor with a copy of `data`: numbers, nested lists or arrays. Python floats become float32."""
    array = devices.to_device(as_array(data, dtype).copy(), device)
    return Tensor(array, requires_grad=requires_grad)


def full(size, fill_value, dtype=None, requires_grad=False, device="cpu"):
    """A tensor of shape `size` (an integer or a tuple) with every element `fill_value`."""
    if isinstance(fill_value, np.generic):  # a Python number, whatever NumPy calls it
        fill_value = fill_value.item()
    if dtype is None:
        dtype = as_array(fill_value).dtype
    sizes = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    if any(n < 0 for n in sizes):
        raise ValueError(f"A shape needs sizes of 0 or more, but got {sizes}.")
    return Tensor(devices.to_device(np.full(sizes, fill_value, dtype), device), requires_grad=requires_grad)


def zeros(*size, dtype=float32, requires_grad=False, device="cpu"):
    """A tensor of zeros: zeros(2, 3) or zeros((2, 3))."""
    return full(unpack(size), 0, dtype, requires_grad, device)


def ones(*size, dtype=float32, requires_grad=False, device="cpu"):
    """A tensor of ones: ones(2, 3) or ones((2, 3))."""
    return full(unpack(size), 1, dtype, requires_grad, device)


def arange(start, end=None, step=1, dtype=None, device="cpu"):
    """start, start + step, ... below `end`: arange(n) counts from 0. Integers stay integers; floats are float32."""
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ValueError("arange needs a step other than 0.")
    array = np.arange(start, end, step)
    if dtype is None and array.dtype == float64:
        dtype = float32
    return Tensor(devices.to_device(array, device), dtype)


def eye(n, m=None, dtype=float32, device="cpu"):
    """The identity matrix, (n, n) or (n, m)."""
    return Tensor(devices.to_device(np.eye(n, m, dtype=dtype), device))


def randn(*size, generator=None, dtype=float32, requires_grad=False, device="cpu"):
    """Standard normal numbers from `generator` (default: the one that manual_seed seeds)."""
    return _random("standard_normal", size, generator, dtype, requires_grad, device)


def rand(*size, generator=None, dtype=float32, requires_grad=False, device="cpu"):
    """Uniform numbers from [0, 1) from `generator` (default: the one that manual_seed seeds)."""
    return _random("random", size, generator, dtype, requires_grad, device)


def _random(distribution, size, generator, dtype, requires_grad, device):
    draw = getattr(devices.generator_or_default(generator), distribution)
    sizes = unpack(size)
    if any(n < 0 for n in sizes):
        raise ValueError(f"A shape needs sizes of 0 or more, but got {sizes}.")
    return Tensor(devices.to_device(draw(sizes, dtype=dtype), device), requires_grad=requires_grad)


def full_like(x, fill_value, dtype=None):
    """A tensor of x's shape, dtype and device with every element `fill_value`."""
    return Tensor(np.full_like(x.data, fill_value, dtype=dtype))


def zeros_like(x, dtype=None):
    """Zeros of x's shape, dtype and device."""
    return full_like(x, 0, dtype)


def ones_like(x, dtype=None):
    """Ones of x's shape, dtype and device."""
    return full_like(x, 1, dtype)


def randn_like(x, generator=None):
    """Standard normal numbers of x's shape, dtype and device."""
    return randn(*x.shape, generator=generator, dtype=x.dtype, device=x.device)


def rand_like(x, generator=None):
    """Uniform numbers from [0, 1) of x's shape, dtype and device."""
    return rand(*x.shape, generator=generator, dtype=x.dtype, device=x.device)
