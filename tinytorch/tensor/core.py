"""What a tensor is: an array, its gradient, and the node that made it; its way out to Python and its way back."""

import operator

import numpy as np

from .. import autograd
from .. import device as devices
from .lifting import float32, float64, op, wrap

int64, bool_ = np.dtype(np.int64), np.dtype(np.bool_)


def as_array(data, dtype=None):
    """An array from numbers, nested lists or arrays. Python floats become float32; arrays keep their type."""
    if isinstance(data, Core):
        data = data.data
    elif not hasattr(data, "dtype"):
        try:
            data = np.array(data)
        except ValueError as error:
            raise ValueError(f"A tensor needs rows of equal length: {error}") from error
        if data.dtype == float64 and dtype is None:
            data = data.astype(float32)
    elif isinstance(data, np.generic):
        data = np.asarray(data)
    if data.dtype.kind not in "fiub":
        raise TypeError(f"A tensor holds floats, integers or booleans, but got {data.dtype}. Convert the data first.")
    return data if dtype is None else data.astype(dtype, copy=False)


def device_and_dtype(wanted, device=None, dtype=None):
    """(device, dtype) out of what `to` was given, in any order. Raises TypeError for dtypes that no tensor has."""
    for value in wanted:
        if isinstance(value, str) and value.startswith(("cpu", "cuda")):
            device = value
        else:
            dtype = value
    if dtype is not None and np.dtype(dtype).kind not in "fiub":
        raise TypeError(f"A tensor holds floats, integers or booleans, but was asked for {np.dtype(dtype)}.")
    return device, dtype


OPERATORS = {  # what an array on the left asks a tensor on the right
    np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul, np.true_divide: operator.truediv,
    np.power: operator.pow, np.matmul: operator.matmul, np.remainder: operator.mod, np.floor_divide: operator.floordiv,
    np.equal: operator.eq, np.not_equal: operator.ne, np.less: operator.lt, np.less_equal: operator.le,
    np.greater: operator.gt, np.greater_equal: operator.ge, np.bitwise_and: operator.and_, np.bitwise_or: operator.or_,
}  # fmt: skip


def _operand(x):
    if isinstance(x, np.generic):  # a Python number, whatever NumPy calls it
        return x.item()
    return x if isinstance(x, Core) else wrap(x)


class Core:
    """The part of a tensor that is not mathematics."""

    __slots__ = ("__weakref__", "_data", "_requires_grad", "grad", "grad_fn")

    def __init__(self, data, dtype=None, requires_grad=False):
        self._data = as_array(data, dtype)
        self._requires_grad = False
        self.grad = None
        self.grad_fn = None
        self.requires_grad = requires_grad

    # ---- what it is

    @property
    def data(self):
        """The array. To be assigned, or changed in place, only outside of a graph that is still to go backward."""
        return self._data

    @data.setter
    def data(self, array):  # a tensor, too: p.data -= lr * p.grad makes one
        self._data = as_array(array)

    @property
    def requires_grad(self):
        """Whether this tensor gets a gradient, or leads to one that does."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad):
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"Only floating point tensors have gradients, but this one is {self.dtype}.")
        if not requires_grad and not self.is_leaf:
            raise RuntimeError("A computed tensor always has its graph. Use detach() for the values alone.")
        self._requires_grad = bool(requires_grad)

    @property
    def shape(self):
        return self._data.shape

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def ndim(self):
        return self.data.ndim

    @property
    def device(self):
        return devices.device_of(self.data)

    @property
    def is_leaf(self):
        return self.grad_fn is None

    @property
    def T(self):
        """The axes in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    def size(self, dim=None):
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self):
        return self.ndim

    def numel(self):
        """The number of elements."""
        return self.data.size

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("A tensor without axes has no length. Its value is item().")
        return len(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        values = devices.to_numpy(self.data)
        text = np.array2string(
            values, separator=", ", precision=4, suppress_small=True, threshold=200, prefix="tensor("
        )
        notes = [f"dtype={self.dtype}"] if self.dtype not in (float32, int64, bool_) else []
        notes += [f"device='{self.device}'"] if self.device != "cpu" else []
        notes += [f"grad_fn={self.grad_fn}"] if self.grad_fn else []
        notes += ["requires_grad=True"] if self.requires_grad and self.is_leaf else []
        return f"tensor({', '.join([text, *notes])})"

    # ---- its values elsewhere

    def numpy(self):
        """The values as a NumPy array, sharing memory where that is possible."""
        if self.requires_grad:
            raise RuntimeError("numpy() would lose the gradient of this tensor: call detach().numpy().")
        return devices.to_numpy(self.data)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        """array * tensor is a tensor; array -= tensor, as in p.data -= lr * p.grad, changes the array."""
        if out is not None:
            arrays = [x.data if isinstance(x, Core) else x for x in inputs]
            return getattr(ufunc, method)(*arrays, out=out, **kwargs)
        if method != "__call__" or ufunc not in OPERATORS:
            name = ufunc.__name__
            raise TypeError(f"np.{name} works on arrays. For tensors there is tt.{name}, or x.data.")
        return OPERATORS[ufunc](*map(_operand, inputs))

    def item(self):
        """The one value as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor with one element, but got shape {self.shape}.")
        return self.data.item()

    def tolist(self):
        return devices.to_numpy(self.data).tolist()

    def __bool__(self):
        if self.data.size != 1:
            raise ValueError(
                f"A tensor of shape {self.shape} is neither true nor false. Ask about one value, or .all()."
            )
        return bool(self.data.item())

    def __format__(self, spec):
        return format(self.item(), spec) if self.ndim == 0 else super().__format__(spec)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        return operator.index(self.item())

    def __setitem__(self, index, value):
        raise TypeError(
            "Tensors are not written into: a rule may have saved these values for the backward pass. "
            "Build a new tensor with tt.where or masked_fill, or write into .data before it is used."
        )

    def detach(self):
        """The same values without the graph. Shares memory."""
        return wrap(self.data)

    def requires_grad_(self, requires_grad=True):
        """Ask for a gradient, or stop asking (leaves only). Returns the tensor."""
        self.requires_grad = requires_grad
        return self

    def to(self, *wanted, device=None, dtype=None):
        """This tensor on a device ('cpu' or 'cuda') and in a dtype, in any order; itself where nothing changes."""
        device, dtype = device_and_dtype(wanted, device, dtype)
        moved = self if device in (None, self.device) else self._to_device(device=device)
        return moved if dtype is None or moved.dtype == dtype else moved._to_dtype(dtype=dtype)

    def float(self):
        """This tensor in float32."""
        return self.to(dtype=float32)

    def double(self):
        """This tensor in float64."""
        return self.to(dtype=float64)

    def long(self):
        """This tensor in int64."""
        return self.to(dtype=int64)

    def bool(self):
        """This tensor in booleans: true where it is not zero."""
        return self.to(dtype=bool_)

    @op
    def _to_device(x, *, device):
        home = devices.device_of(x)
        return devices.to_device(x, device), lambda g: devices.to_device(g, home)

    @op
    def _to_dtype(x, *, dtype):
        return x.astype(dtype), lambda g: g

    @op
    def clone(x):
        """A copy that the gradient flows through."""
        return x.copy(), lambda g: g

    # ---- the way back

    def backward(self, gradient=None, retain_graph=False, create_graph=False):
        """Add `gradient` times d(self)/d(leaf) to `.grad` of every leaf that this tensor was computed from.

        `gradient` has this tensor's shape and may be left out for one element; `retain_graph` keeps the saved values
        for another pass. Raises RuntimeError without a graph, the second time, or for many elements without `gradient`.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward() needs a graph, and this tensor has none: nothing that it was computed from has "
                "requires_grad=True, or it was computed inside no_grad()."
            )
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() without an argument needs a tensor with one element, but got shape {self.shape}. "
                    "Reduce it first, for example with mean(), or pass backward(gradient) of that shape."
                )
            gradient = np.ones_like(self.data)
        if create_graph or getattr(gradient, "requires_grad", False):
            raise RuntimeError(
                "Second derivatives are not supported: leave out create_graph, and pass gradient.detach()."
            )
        gradient = as_array(gradient, self.dtype)
        if gradient.shape != self.shape:
            raise RuntimeError(f"backward() needs a gradient of shape {self.shape}, but got {gradient.shape}.")
        if self.is_leaf:
            self.accumulate_grad(gradient)
        else:
            autograd.backward(self.grad_fn, gradient, retain_graph)

    def accumulate_grad(self, g):
        """Add the array g, of this tensor's shape, to `.grad` (None at first): out of place, as others may hold g."""
        self.grad = wrap(g.copy() if self.grad is None else self.grad.data + g)
