"""Module 02: activation functions.

Where an operation is fused, its composed twin stands above it: the same mathematics in primitive operations, to learn
from and to test against.
"""

import functools
import math

import numpy as np

from .tensor import op


@op
def relu(x):
    """max(x, 0). The gradient at 0 is 0."""
    return np.maximum(x, 0), lambda g: g * (x > 0)


@op
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    y = stable_sigmoid(x)
    return y, lambda g: g * y * (1 - y)


def stable_sigmoid(x):
    """The sigmoid of a raw array: exp is only taken of what is not above 0, so that it cannot overflow."""
    e = np.exp(-np.abs(x))  # at most 1
    return np.maximum(e, x >= 0) / (1 + e)  # 1 / (1 + e) from 0 on, e / (1 + e) below


def silu_composed(x):
    """x * sigmoid(x)."""
    return x * sigmoid(x)


@op
def silu(x):
    """x * sigmoid(x), also called swish (Elfwing et al. 2018, arXiv:1702.03118)."""
    s = stable_sigmoid(x)
    return x * s, lambda g: g * s * (1 + x * (1 - s))


def softplus_composed(x):
    """log(1 + exp(x)), written so that exp cannot overflow."""
    return relu(x) + (1 + (-x.abs()).exp()).log()


@op
def softplus(x):
    """log(1 + exp(x)): above 0 everywhere, nearly x where x is large (Dugas et al. 2000). Its slope is the sigmoid."""
    y = np.log1p(np.exp(-np.abs(x)))
    y += np.maximum(x, 0)
    return y, lambda g: g * -np.expm1(-y)  # the sigmoid: 1 - 1 / (1 + exp(x))


# ---- GELU: x times the probability that a standard normal number is below x (Hendrycks and Gimpel, arXiv:1606.08415)


def gelu_composed(x, approximate="none"):
    """x times the probability that a standard normal number is below x, by `erf`; 'tanh': in GPT-2's tanh form."""
    if approximate == "tanh":
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def gelu(x, approximate="none"):
    """GELU: exact with approximate='none', or the tanh form that GPT-2 was trained with, approximate='tanh'."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu needs approximate='none' or 'tanh', but got {approximate!r}.")
    return _gelu_tanh(x) if approximate == "tanh" else _gelu_exact(x)


@op
def _gelu_tanh(x):
    c, a = math.sqrt(2 / math.pi), 0.044715
    t = np.square(x, out=np.empty_like(x))
    t *= a * c
    t += c
    t *= x
    np.tanh(t, out=t)  # tanh(c (x + a x^3))
    y = np.add(t, 1, out=np.empty_like(x))
    y *= x
    y *= 0.5

    def rule(g):
        d = np.square(x, out=np.empty_like(x))
        d *= 3 * a * c
        d += c
        d *= x  # x times the slope of tanh's argument
        d *= 1 - t * t
        d += t
        d += 1
        d *= 0.5
        d *= g
        return d

    return y, rule


@op
def _gelu_exact(x):
    p = 0.5 * (1 + _erf(x * math.sqrt(0.5)))
    return x * p, lambda g: g * (p + x * np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))


@op
def erf(x):
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return _erf(x), lambda g: g * np.exp(-x * x) * (2 / math.sqrt(math.pi))


# Cody 1969, "Rational Chebyshev approximation for the error function", Math. Comp. 23: tables for |x| below 0.46875 and
# for |x| up to 4. The second holds to 1e-15 up to 6, where erf is 1 in double precision.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_FAR = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip


def _ratio(coefficients, x):
    """A polynomial over another, both by Horner's rule, highest power first."""
    numerator, denominator = (functools.reduce(lambda total, c: total * x + c, table) for table in coefficients)
    return numerator / denominator


def _erf(x):
    size = np.minimum(np.abs(x), 6)
    near = x * _ratio(_NEAR, size * size)
    far = np.sign(x) * (1 - np.exp(-size * size) * _ratio(_FAR, size))
    return np.where(size < 0.46875, near, far)


# ---- softmax


def softmax_composed(x, dim=-1):
    """exp(x) / sum(exp(x)), after a shift by the largest value, which changes nothing and prevents overflow."""
    e = (x - x.amax(dim, keepdim=True).detach()).exp()
    return e / e.sum(dim, keepdim=True)


@op
def softmax(x, dim=-1):
    """exp(x) / sum(exp(x)) along `dim`: positive numbers that sum to 1."""
    p, _ = shifted_exp(x, dim)
    p /= np.sum(p, axis=dim, keepdims=True)
    return p, lambda g: p * (g - np.sum(g * p, axis=dim, keepdims=True))


def log_softmax_composed(x, dim=-1):
    """x - log(sum(exp(x))), after the shift by the largest value."""
    shifted = x - x.amax(dim, keepdim=True).detach()
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


@op
def log_softmax(x, dim=-1):
    """The logarithm of softmax along `dim`, without the underflow of taking it afterwards."""
    e, shift = shifted_exp(x, dim)
    total = np.sum(e, axis=dim, keepdims=True)
    return x - shift - np.log(total), lambda g: g - e * (np.sum(g, axis=dim, keepdims=True) / total)


def shifted_exp(x, axis=-1, visible=None, out=None):
    """exp(x - shift) of raw arrays, zero where `visible` is false; and the shift, which cancels in every softmax.

    The shift keeps exp within range. The usual one, the maximum of each row, is the slowest pass of a softmax. Where
    no |x| is large, exp is safe without any shift, and two fast passes over all elements tell (on the host: elsewhere
    asking would wait for the device).
    """
    if x.dtype.kind != "f":
        raise TypeError(f"softmax needs floating point numbers, but got {x.dtype}. Convert them with x.float().")
    safe = 0.5 * math.log(np.finfo(x.dtype).max / max(1, x.shape[axis]))  # the sum of a row must fit, too
    if isinstance(x, np.ndarray) and x.size and x.max() < safe and x.min() > -safe:
        e = np.exp(x, out=out)
        if visible is not None:
            e *= visible
        return e, np.zeros((1,) * x.ndim, x.dtype, like=x)
    if visible is not None:
        x = np.where(visible, x, -np.inf)
    shift = np.max(x, axis=axis, keepdims=True)
    shift = np.where(np.isinf(shift), 0, shift).astype(x.dtype)  # a row with nothing to see becomes zeros
    return np.exp(x - shift, out=out), shift
