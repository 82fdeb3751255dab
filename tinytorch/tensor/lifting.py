"""`@op`: from a function on raw arrays to an operation on tensors that records its own way back.

Such a function returns its output and the rule of its gradient, and its local names are all that the rule remembers:
one function is one operation. In a rule, `g` is the gradient of the output. A rule may answer in the shape that its
input was broadcast to; the tape sums it back.
"""

import functools
import inspect

import numpy as np

from .. import autograd
from .rounding import MATRIX_PRODUCTS, RoundedNode, autocast_mode, rounded, rounded_factors

float32, float64 = np.dtype(np.float32), np.dtype(np.float64)

tensor_type = None  # the class that operations take and return; tensor.py sets it once


def op(function):
    """Lift `function(*arrays, **settings) -> (output, rule)` to tensors; record a node where gradients are wanted.

    A rule is a tuple with one function per positional argument, or one function that returns every gradient.
    A function that returns only its output works forward; `backward` then says what is missing.
    """
    name = function.__name__.strip("_")
    signature = inspect.signature(function)
    settings = {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}  # never tensors
    is_product = name in MATRIX_PRODUCTS

    @functools.wraps(function)
    def lifted(*args, **kwargs):
        if kwargs and not settings.issuperset(kwargs):
            args, kwargs = _in_place_of_names(signature, args, kwargs)
        recording = autograd.grad_mode.enabled
        arrays, edges, wanted = [], [], False
        for arg in args:
            edge = None
            if isinstance(arg, tensor_type):
                array = arg._data
                if recording and arg._requires_grad:
                    edge = (arg.grad_fn or arg, array.shape, array.dtype)  # where a gradient goes
                    wanted = True
                arg = array
            elif isinstance(arg, np.generic):  # np.float64 is a Python float too, and must not widen float32
                arg = arg.item()
            arrays.append(arg)
            edges.append(edge)
        low = autocast_mode.dtype if is_product else None
        if low:
            arrays = rounded_factors(name, arrays, low)
        try:
            result = function(*arrays, **kwargs)
        except (TypeError, ValueError) as error:
            explanation = _explained(error, name, arrays)
            if explanation is None:
                raise
            raise explanation from error
        output, rule = result if type(result) is tuple and len(result) == 2 else (result, None)
        dtype = getattr(output, "dtype", None)
        if dtype is None:
            raise TypeError(
                f"'{name}' needs to return an array, or (array, rule), but returned {_what(result)}. Is the return "
                "missing, or are brackets around several rules? Several rules are a tuple: return y, (rule1, rule2)"
            )
        if dtype == float64 and not _asks_for_float64(arrays, kwargs):
            output = output.astype(float32)  # integers meeting floats: NumPy says float64, PyTorch float32
        if low:
            output = rounded(output, low)
        tensor = wrap(output)
        if wanted and dtype.kind == "f":
            tensor._requires_grad = True
            tensor.grad_fn = RoundedNode(name, rule, edges, low) if low else autograd.Node(name, rule, edges)
        return tensor

    return lifted


def _asks_for_float64(arrays, kwargs):
    return "dtype" in kwargs or any(getattr(array, "dtype", float32) == float64 for array in arrays)


def numpy_names(function):
    """Let a function of `dim` and `keepdim` take NumPy's names `axis` and `keepdims` for them, as PyTorch does."""

    signature = inspect.signature(function)

    @functools.wraps(function)
    def renamed(*args, **kwargs):
        return function(*args, **_renamed(signature, kwargs))

    return renamed


def _renamed(signature, kwargs):
    names = {"axis": "dim", "keepdims": "keepdim"}
    return {names[k] if names.get(k) in signature.parameters else k: value for k, value in kwargs.items()}


def _in_place_of_names(signature, args, kwargs):
    """NumPy's keywords become PyTorch's; tensors given by name become positional, as rules count by position."""
    kwargs = _renamed(signature, kwargs)
    if any(isinstance(value, tensor_type) for value in kwargs.values()):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        args, kwargs = bound.args, {name: _data(value) for name, value in bound.kwargs.items()}
    return args, kwargs


def _what(result):
    return f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"


def _data(value):
    return value.data if isinstance(value, tensor_type) else value


_HINTS = {
    "operands could not be broadcast": "Sizes are compared from the last axis: two must be equal, or one of them 1.",
    "matmul:": "The last axis of the first must be as long as the second-to-last of the second: (n, k) @ (k, m).",
    "ufunc": "It takes tensors, arrays and numbers.",
    "unsupported operand": "It takes tensors, arrays and numbers.",
    "cannot reshape": "The new shape must hold as many elements; one size may be -1, to be worked out.",
    "axis": "Axes count from 0, or from the end with -1.",
    "axes don't match": "Name every axis once.",
    "repeated axis": "Name every axis once.",
    "all the input arrays must have same number": "They must have equally many axes; unsqueeze adds one.",
    "Cannot cast ufunc": "It takes floating point numbers. Convert with x.float().",
    "all the input array dimensions": "Sizes must agree on every axis but the one along which they are joined.",
    "all input arrays must have the same shape": "stack makes a new axis; use cat to join along an old one.",
}


def _explained(error, name, arrays):
    """NumPy's refusal with what came and the likely fix; None for sentences of our own, which need no more."""
    for beginning, hint in _HINTS.items():
        if str(error).startswith(beginning):
            came = ", ".join(f"{a.dtype} {a.shape}" if hasattr(a, "dtype") else repr(a) for a in arrays)
            kind = next(kind for kind in (IndexError, TypeError, ValueError) if isinstance(error, kind))
            return kind(f"{name} cannot work with ({came}): {error}. {hint}")
    return None


def wrap(array):
    """A tensor around the array that an operation made (a reduction of NumPy makes scalars)."""
    tensor = tensor_type.__new__(tensor_type)
    tensor._data = np.asarray(array) if isinstance(array, np.generic) else array
    tensor._requires_grad = False
    tensor.grad = None
    tensor.grad_fn = None
    return tensor
