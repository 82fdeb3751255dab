"""`StrictArray`: a stand-in for `cupy.ndarray` on machines without a GPU, and this module for `cupy` itself.

It answers what CuPy answers: NumPy's dispatch protocols and a few methods. It refuses what CuPy refuses: to become a
NumPy array unasked (`get` asks), NumPy arrays among its operands, methods of ufuncs other than the call, functions and
arguments that CuPy does not have. It is stricter in one thing: CuPy copies index arrays of NumPy to the GPU, at a cost.
"""

from types import SimpleNamespace

import numpy as np

ATTRIBUTES = {"T", "dtype", "ndim", "shape", "size", "strides"}
METHODS = {
    *("all", "any", "argmax", "argmin", "astype", "copy", "cumsum", "dot", "fill", "flatten", "item", "max", "mean"),
    *("min", "nonzero", "prod", "ravel", "repeat", "reshape", "squeeze", "sum", "swapaxes", "take", "transpose"),
    "view",
}
ABSENT = {"block", "geomspace", "insert", "matvec", "spacing", "unstack", "vecdot"}  # in CuPy 14

cuda = SimpleNamespace(is_available=lambda: True)


class StrictArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Holds a NumPy array out of reach. Operators, also in place, come from the mixin, by way of `__array_ufunc__`."""

    def __init__(self, array, base=None):
        self._array = array
        self.base = base  # the array whose memory this one looks at

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def get(self):
        return self._array.copy()

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if method != "__call__" or ufunc.__name__ in ABSENT:
            return NotImplemented
        if out is None:
            return _wrap(ufunc(*_unwrap(inputs), **_unwrap(kwargs)))
        ufunc(*_unwrap(inputs), out=_unwrap(out), **_unwrap(kwargs))
        return out[0]

    def __array_function__(self, function, types, args, kwargs):
        if function.__name__ in ABSENT or kwargs.keys() & {"where", "initial", "device"}:
            return NotImplemented
        function = getattr(np, function.__name__)  # by name, as CuPy finds its own
        return _wrap(function(*_unwrap(args), **_unwrap(kwargs)))

    def __getattr__(self, name):
        if name in ATTRIBUTES:
            return self._view(getattr(self._array, name))
        if name in METHODS:
            return lambda *args, **kwargs: self._view(getattr(self._array, name)(*_unwrap(args), **_unwrap(kwargs)))
        raise AttributeError(f"StrictArray has no attribute {name!r}. If cupy.ndarray has it, name it in METHODS.")

    def __getitem__(self, index):
        return self._view(self._array[_unwrap(index)])

    def __setitem__(self, index, value):
        self._array[_unwrap(index)] = _unwrap(value)

    def __len__(self):
        return len(self._array)

    def __bool__(self):
        return bool(self._array)

    def __int__(self):
        return int(self._array)

    def __float__(self):
        return float(self._array)

    def _view(self, result):
        """Wrap a result, with the array as its `base` if it looks at the same memory."""
        owner = self if self.base is None else self.base
        return _wrap(result, owner if getattr(result, "base", None) is owner._array else None)


class add:
    """`cupy.add`, as far as NumPy's own `np.add` does not lead here."""

    @staticmethod
    def at(target, index, values):
        np.add.at(_unwrap(target), _unwrap(index), _unwrap(values))


def asarray(array):
    """Move a NumPy array to the GPU."""
    return StrictArray(np.array(array))


def _wrap(result, base=None):
    return StrictArray(np.asarray(result), base) if isinstance(result, (np.ndarray, np.generic)) else result


def _unwrap(x):
    if isinstance(x, StrictArray):
        return x._array
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: move it with asarray first.")
    if isinstance(x, dict):
        return {name: _unwrap(value) for name, value in x.items()}
    return type(x)(map(_unwrap, x)) if isinstance(x, (list, tuple)) else x
