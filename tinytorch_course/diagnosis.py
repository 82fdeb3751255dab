"""The likely cause of a wrong value or an error, as one sentence; None where nothing is recognised.

Each rule looks at what was expected and what came, both as arrays. The first that fits is said.
"""

import numpy as np


def of_values(expected, got):
    """The likely cause of a difference between two values: numbers, arrays, tensors or lists of them."""
    if got is None and expected is not None:
        return "None came: is the return missing, or was this never reached?"
    expected, got = as_array(expected), as_array(got)
    if expected is None or got is None:
        return None
    if expected.shape != got.shape:
        return _of_shapes(expected, got)
    if not _numeric(expected, got):
        return None
    same = np.isclose(got, expected, rtol=1e-5, atol=1e-7, equal_nan=True)
    if same.all():
        return _of_types(expected, got)
    return next((cause for rule in RULES if (cause := rule(expected, got, same))), None)


def of_error(error):
    """The likely cause of an exception that came out of the student's code."""
    text = str(error)
    for kind, part, cause in ERRORS:
        if isinstance(error, kind) and part in text:
            return cause
    return None


ERRORS = [
    (RuntimeError, "a second time", "A node was visited twice: go on from one only when all of its gradient has come."),
    (RecursionError, "", "It calls itself without end: what stops it?"),
    (UnboundLocalError, "", "A name is used before it gets a value on this path through the function."),
    (TypeError, "NoneType", "Something is None here: is a return missing?"),
    (ValueError, "read-only", "It writes into an array that is not its own: make a new one."),
    (ValueError, "broadcast", "Two shapes do not fit: print them. An axis may need keepdim, a reshape or a transpose."),
    (ValueError, "mismatch in its core dimension", "The inner sizes of a product differ: is a transpose missing?"),
    (IndexError, "out of bounds", "An index is past the end: count the places once more; they start at 0."),
    (FloatingPointError, "", "A number became too large, or was divided by 0."),
    (RuntimeWarning, "overflow", "exp of a large number overflows: shift the numbers first."),
    (RuntimeWarning, "divide by zero", "Something is divided by 0, or the logarithm of 0 is taken."),
    (
        RuntimeWarning,
        "invalid value",
        "A calculation has no answer: 0 / 0, inf - inf, or the root of a negative number.",
    ),
]


def as_array(value):
    """A value as an array, or None for what is none."""
    value = getattr(value, "data", value) if type(value).__name__ in ("Tensor", "Parameter") else value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal lengths, arrays of another library
        return None
    return array if array.dtype.kind in "biufUS" else None


def _numeric(*arrays):
    return all(array.dtype.kind in "biuf" and array.size for array in arrays)


def _of_shapes(expected, got):
    e, g = expected.shape, got.shape
    came = f"Its shape is {g}, and needs to be {e}"
    if e == g[::-1]:
        return f"{came}: it is transposed."
    if expected.size == got.size:
        if tuple(n for n in e if n != 1) == tuple(n for n in g if n != 1):
            return f"{came}: only axes of length 1 differ. Look at keepdim, squeeze and unsqueeze."
        return f"{came}: as many numbers, but other axes. Look at reshape and transpose."
    if len(g) >= len(e) and _broadcasts(e, g):
        return f"{came}: sum over the axes along which the input was broadcast."
    if not g:
        return f"{came}: everything was reduced to one number. Along which axis should it be?"
    return f"{came}."


def _broadcasts(small, large):
    pairs = zip(small[::-1], large[::-1])
    return all(n in (m, 1) for n, m in pairs)


def _of_types(expected, got):
    if expected.dtype != got.dtype:
        return f"The numbers are right, but of type {got.dtype} instead of {expected.dtype}."
    return None


def _not_finite(expected, got, same):
    bad = ~np.isfinite(got) & np.isfinite(expected)
    if bad.any():
        return f"{_count(bad)} nan or infinite: a number overflowed, or was divided by 0."
    return None


def _zero(expected, got, same):
    return "All of it is 0: was it never filled in, or multiplied by 0?" if not got.any() else None


def _factor(expected, got, same):
    nonzero = (expected != 0) & np.isfinite(expected)
    if not nonzero.any() or np.any(got[~nonzero & np.isfinite(expected)] != 0):
        return None
    ratios = got[nonzero] / expected[nonzero].astype(float)
    factor = float(np.median(ratios))
    if not np.allclose(ratios, factor, rtol=1e-4) or np.isclose(factor, 1, rtol=1e-4):
        return None
    if np.isclose(factor, -1):
        return "The sign is wrong: everything is right but for a factor of -1."
    if expected.size == 1:  # a factor between two single numbers says nothing
        return None
    if np.isclose(factor, 2):
        return "It is twice as large as it should be: something is counted twice."
    if np.isclose(factor, 0.5):
        return "It is half of what it should be: where two things meet, add up, do not overwrite."
    for size in {*expected.shape, expected.size} - {1, 0}:
        if np.isclose(factor, size) or np.isclose(factor, 1 / size):
            verb = "times" if factor > 1 else "divided by"
            return f"It is right {verb} {size}, the length of an axis: a sum for a mean, or a mean for a sum?"
    return f"Everything is {factor:.4g} times as large as it should be: a factor is missing or too many."


def _offset(expected, got, same):
    difference = got.astype(float) - expected
    if expected.size > 1 and np.allclose(difference, difference.flat[0], rtol=1e-4, atol=1e-7):
        return f"Everything is off by the same {difference.flat[0]:.4g}: a shift is missing or too much."
    return None


def _order(expected, got, same):
    if expected.size < 3 or not np.allclose(np.sort(got, axis=None), np.sort(expected, axis=None), rtol=1e-5):
        return None
    if expected.ndim == 2 and expected.shape[0] == expected.shape[1] and np.allclose(got, expected.T):
        return "It is transposed."
    return "These are the right numbers at the wrong places: axes or their order are mixed up."


def _near(expected, got, same):
    scale = np.max(np.abs(expected[np.isfinite(expected)]), initial=0)
    if np.all(np.isfinite(got)) and np.max(np.abs(got - expected.astype(float)), initial=0) < 1e-2 * scale:
        return "It is within 1 % of what is needed: a small term is off, such as eps, a decay, or n for n - 1."
    return None


def _edges(expected, got, same):
    if expected.ndim and expected.shape[0] > 2:
        rows = same.reshape(len(same), -1).all(axis=1)
        if rows[:-1].all():
            return "Only the last one is wrong: look at the end of the range."
        if rows[1:].all():
            return "Only the first one is wrong: look at the beginning of the range."
        if rows[0]:
            return (
                "The first one is right, later ones are not: does something carry over, or is it read at a wrong index?"
            )
    return None


RULES = [_not_finite, _zero, _factor, _offset, _order, _near, _edges]


def _count(mask):
    return f"{int(mask.sum())} of {mask.size} numbers are" if mask.size > 1 else "The number is"
