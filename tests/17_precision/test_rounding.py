"""Module 17: numbers rounded to 16 bits, beside the definition of the types."""

import fractions
import math
import sys

import numpy as np
import pytest
import strict_array
from numpy.testing import assert_array_equal

from tinytorch.precision import from_bfloat16_bits, round_to, to_bfloat16_bits

RANGES = {"bfloat16": (8, -126, 127), "float16": (11, -14, 15)}  # bits of the significand, exponents of normal numbers


def rounded_by_hand(x, dtype):
    """The nearest multiple of the type's spacing at x, at a tie an even multiple (Python's round), in exact numbers."""
    if x == 0 or not math.isfinite(x):
        return x
    bits, lowest, highest = RANGES[dtype]
    exponent = max(math.frexp(x)[1] - 1, lowest)
    spacing = fractions.Fraction(2) ** (exponent - bits + 1)
    y = float(round(fractions.Fraction(x) / spacing) * spacing)
    return math.copysign(math.inf if abs(y) >= 2.0 ** (highest + 1) else abs(y), x)


def samples(dtype):
    """Numbers of every size, ties, neighbours of ties, and the borders of the type."""
    rng = np.random.default_rng(0)
    bits, lowest, highest = RANGES[dtype]
    sizes = 2.0 ** rng.integers(max(lowest - bits - 2, -148), min(highest + 2, 128), 400)
    plain = (rng.uniform(1, 2, 400) * sizes).astype(np.float32)
    ties = ((rng.integers(0, 2**bits, 400) + 0.5) * 2.0 ** -rng.integers(0, bits + 10, 400)).astype(np.float32)
    border = np.float32((2 - 2.0**-bits) * 2.0**highest)  # half a spacing above the largest number
    x = np.concatenate([plain, ties, np.nextafter(ties, 0), np.nextafter(ties, np.float32(np.inf)), [border, 0, 1]])
    return np.concatenate([x, -x, np.nextafter(np.array([border]), np.float32(0))]).astype(np.float32)


@pytest.mark.parametrize("dtype", RANGES)
def test_a_number_is_rounded_to_the_nearest_and_at_a_tie_to_the_even_one(dtype):
    x = samples(dtype)
    expected = [rounded_by_hand(number, dtype) for number in x.tolist()]
    got = round_to(x, dtype)
    assert got.dtype == np.float32
    assert_array_equal(got, expected)
    assert_array_equal(np.signbit(got), np.signbit(x))
    assert np.isinf(got).any() and (got != x).any()


@pytest.mark.parametrize("dtype", RANGES)
def test_rounding_twice_changes_nothing(dtype):
    once = round_to(samples(dtype), dtype)
    assert_array_equal(round_to(once, dtype), once)


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001], ids=hex)
def test_every_nan_stays_nan(dtype, bits):
    x = np.array([bits, 0], np.uint32).view(np.float32)
    assert_array_equal(round_to(x, dtype), [np.nan, 0])
    assert np.isnan(round_to(x[0], dtype))
    assert np.isnan(from_bfloat16_bits(to_bfloat16_bits(x)))[0]


def test_known_numbers():
    x = np.float32([1 / 3, 3.14159265, 65519, 65520, 1e-8, 2049, 257, 259])
    assert_array_equal(
        round_to(x, "bfloat16"), np.float32([0.333984375, 3.140625, 65536, 65536, 1.00117177e-8, 2048, 256, 260])
    )
    assert_array_equal(round_to(x, "float16"), np.float32([0.333251953125, 3.140625, 65504, np.inf, 0, 2048, 257, 259]))
    assert round_to(x, "float32") is x


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_any_shape_and_order_in_memory_and_the_input_stays(dtype, shape):
    x = np.random.default_rng(0).standard_normal(shape[::-1]).astype(np.float32).T
    x.flags.writeable = False
    before = x.copy()
    y = round_to(x, dtype)
    assert type(y) is np.ndarray
    assert y.shape == shape and y.strides == x.strides
    assert_array_equal(x, before)
    assert_array_equal(y.ravel(), [rounded_by_hand(number, dtype) for number in x.ravel().tolist()])


def test_bfloat16_takes_half_the_memory():
    x = samples("bfloat16")
    bits = to_bfloat16_bits(x)
    assert (bits.dtype, bits.nbytes) == (np.uint16, x.nbytes // 2)
    assert_array_equal(from_bfloat16_bits(bits), round_to(x, "bfloat16"))
    assert to_bfloat16_bits(np.float32([1, -2, np.inf])).tolist() == [0x3F80, 0xC000, 0x7F80]
    assert from_bfloat16_bits(to_bfloat16_bits(np.float32(-1.5))) == -1.5


def test_every_pattern_of_16_bits_comes_back():
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = from_bfloat16_bits(bits)
    real = ~np.isnan(numbers)
    assert real.sum() == 2**16 - 2 * 127
    assert_array_equal(to_bfloat16_bits(numbers)[real], bits[real])


@pytest.mark.parametrize("dtype", RANGES)
def test_it_runs_where_the_array_lives(dtype, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_array)
    x = np.float32([1 / 3, 1e6, -2.5, np.nan])
    assert_array_equal(round_to(strict_array.asarray(x), dtype).get(), round_to(x, dtype))
    bits = to_bfloat16_bits(strict_array.asarray(x))
    assert_array_equal(bits.get(), to_bfloat16_bits(x))
    assert_array_equal(from_bfloat16_bits(bits).get(), round_to(x, "bfloat16"))


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: round_to(np.ones(2), "bfloat16"), TypeError, "needs an array of float32, but got float64"),
        (lambda: round_to([1.0], "bfloat16"), TypeError, "needs an array of float32, but got list"),
        (lambda: round_to(np.float32([1]), "half"), ValueError, "'bfloat16', 'float16' or 'float32', but got 'half'"),
        (lambda: to_bfloat16_bits(np.arange(2)), TypeError, "float32, but got int64"),
        (lambda: from_bfloat16_bits(np.arange(2)), TypeError, "an array of uint16, but got int64"),
        (lambda: from_bfloat16_bits(3), TypeError, "an array of uint16, but got int\\."),
    ],
)
def test_what_cannot_be_rounded_is_said(attempt, error, message):
    with pytest.raises(error, match=message):
        attempt()


@pytest.mark.oracle
def test_pytorch_rounds_alike():
    torch = pytest.importorskip("torch")
    for dtype in RANGES:
        x = samples(dtype)
        assert_array_equal(round_to(x, dtype), torch.tensor(x).to(getattr(torch, dtype)).float().numpy())
