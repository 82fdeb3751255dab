"""Numbers of 16 bits: what float32 becomes in bfloat16 and float16, and whether products of matrices are rounded so.

bfloat16 is the upper half of a float32: its 8 bits of exponent, but 7 of its 23 bits of mantissa. float16 has 10 of
those, and 5 bits of exponent: it ends at 65504.
"""

import threading

import numpy as np

from .. import autograd

LOW_TYPES = ("bfloat16", "float16")

# Products of matrices and convolutions, and how many of their first arguments are factors or the bias added to them;
# None is all. PyTorch's autocast has them among "ops that can autocast to float16". What happens inside (the softmax of
# attention) stays in float32.
MATRIX_PRODUCTS = {"linear": 3, "matmul": 2, "einsum": None, "conv": 3, "causal_conv1d": 3, "attention": 3}


class _AutocastMode(threading.local):
    dtype = None  # the name of the type to which products of matrices are rounded, or None


autocast_mode = _AutocastMode()


def round_to(array, dtype):
    """A float32 array with each number rounded to the nearest of type `dtype`, at a tie to the even one.

    dtype: "bfloat16", "float16" or "float32", which changes nothing. What is beyond the largest number of the type
    becomes infinite; NaN stays NaN. Raises TypeError for another array, ValueError for another type.
    """
    if getattr(array, "dtype", None) != np.float32:
        raise TypeError(f"round_to needs an array of float32, but got {getattr(array, 'dtype', type(array).__name__)}.")
    if isinstance(array, np.generic):  # what NumPy makes of an array without axes
        array = np.asarray(array)
    if dtype == "bfloat16":
        return _without_lower_bits(array, 16)
    if dtype == "float16":
        return _round_to_float16(array)
    if dtype != "float32":
        raise ValueError(f"round_to needs dtype 'bfloat16', 'float16' or 'float32', but got {dtype!r}.")
    return array


def _without_lower_bits(x, count):
    """x rounded to the nearest number whose lower `count` bits are 0: add just under half of them, and cut them off.

    Half is added where the bit above is odd. What carries goes into the exponent, as it should.
    """
    bits = x.view(np.uint32)
    kept = np.empty_like(bits)
    np.right_shift(bits, count, out=kept)  # in place from here: arrays without axes would become scalars, which warn
    kept &= 1
    kept += (1 << count - 1) - 1
    kept += bits
    kept &= (1 << 32) - (1 << count)
    y = kept.view(np.float32)
    y[np.isnan(x)] = np.nan  # adding may have carried through all its bits
    return y


def _round_to_float16(x):
    """x rounded to numbers of float16, as by NumPy's own conversion, which takes several times as long."""
    y = _without_lower_bits(x, 13)
    with np.errstate(invalid="ignore"):
        y[np.abs(y) > 65504] *= np.inf
        coarse = np.abs(x) < 2.0**-14  # below the normal numbers the spacing stays 2**-24, as that of float32 near 0.75
        y[coarse] = np.copysign(x[coarse] + 0.75 - 0.75, x[coarse])
    return y


def to_bfloat16_bits(array):
    """The bits of a float32 array rounded to bfloat16, as uint16: half the memory. Raises TypeError for others."""
    bits = round_to(array, "bfloat16").view(np.uint32)
    return np.right_shift(bits, 16, out=np.empty_like(bits)).astype(np.uint16)


def from_bfloat16_bits(bits):
    """The float32 numbers whose bfloat16 bits are `bits`, an array of uint16. Raises TypeError for others."""
    if getattr(bits, "dtype", None) != np.uint16:
        raise TypeError(f"bfloat16 bits are an array of uint16, but got {getattr(bits, 'dtype', type(bits).__name__)}.")
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def rounded(value, dtype):
    """`round_to` for arrays of float32; anything else as it is: float64 was asked for, integers are exact."""
    return round_to(value, dtype) if getattr(value, "dtype", None) == np.float32 else value


def rounded_factors(name, arrays, dtype):
    """The arguments of the operation `name`, those rounded to `dtype` that MATRIX_PRODUCTS counts."""
    count = MATRIX_PRODUCTS[name]
    count = len(arrays) if count is None else count
    return [rounded(array, dtype) for array in arrays[:count]] + arrays[count:]


class RoundedNode(autograd.Node):
    """A recorded operation whose incoming gradient, and the gradients that it passes on, are rounded to `dtype`."""

    __slots__ = ("dtype",)

    def __init__(self, name, rule, inputs, dtype):
        super().__init__(name, rule, inputs)
        self.dtype = dtype

    def pull_back(self, g):
        for source, gradient in super().pull_back(rounded(g, self.dtype)):
            yield source, rounded(gradient, self.dtype)
