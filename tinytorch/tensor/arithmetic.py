"""Operations element by element, comparisons, and products of matrices."""

import numpy as np

from .lifting import op


def _larger(x, y):
    """1 where x > y, 1/2 at a tie: the share of the gradient that x gets in maximum(x, y)."""
    return np.where(np.equal(x, y), 0.5, np.greater(x, y))


def _require_booleans(name, mask):
    dtype = getattr(mask, "dtype", type(mask))
    if np.dtype(dtype).kind != "b":
        raise TypeError(f"{name} needs a mask of booleans, but got {dtype}. Compare, as in mask != 0.")


def _less_one(y):
    """The power y - 1 in the derivative y * x**(y - 1); at y = 0, where the factor is 0, one that is safe at x = 0."""
    return np.where(y == 0, 1, y - 1) if hasattr(y, "shape") else y - 1 if y else 1


class Arithmetic:
    """The operators of a tensor, with NumPy's broadcasting, and the functions of one element."""

    __slots__ = ()

    # ---- arithmetic, with broadcasting

    @op
    def __add__(x, y):
        """x + y, element by element."""
        return x + y, (lambda g: g, lambda g: g)

    @op
    def __sub__(x, y):
        """x - y, element by element."""
        return x - y, (lambda g: g, lambda g: -g)

    @op
    def __mul__(x, y):
        """x * y, element by element."""
        return x * y, (lambda g: g * y, lambda g: g * x)

    @op
    def __truediv__(x, y):
        """x / y, element by element."""
        z = x / y
        return z, (lambda g: g / y, lambda g: -g * z / y)

    @op
    def __pow__(x, y):
        """x to the power y. At y = 0 the result does not depend on x, and at x = 0 not on y."""
        z = x**y
        return z, (
            lambda g: g * y * x ** _less_one(y),
            lambda g: g * z * np.log(np.where(np.equal(x, 0), 1, x)),
        )

    @op
    def __neg__(x):
        """-x."""
        return -x, lambda g: -g

    @op
    def __matmul__(x, y):
        """The matrix product of the last two axes, batched over the others; a 1-D side is a vector."""
        z = np.matmul(x, y)

        def grad_x(g):
            if y.ndim == 1:
                return g[..., None] * y
            if x.ndim == 1:
                return np.matmul(y, g[..., None])[..., 0]
            return np.matmul(g, y.swapaxes(-1, -2))

        def grad_y(g):
            if x.ndim == 1:
                return g * x if y.ndim == 1 else x[:, None] * g[..., None, :]
            if y.ndim == 1:
                return np.matmul(x.swapaxes(-1, -2), g[..., None])[..., 0]
            if y.ndim == 2:  # one product over all rows, not a sum of products
                return np.matmul(x.reshape(-1, x.shape[-1]).T, g.reshape(-1, g.shape[-1]))
            return np.matmul(x.swapaxes(-1, -2), g)

        return z, (grad_x, grad_y)

    def __radd__(self, other):
        return Arithmetic.__add__(other, self)

    def __rsub__(self, other):
        return Arithmetic.__sub__(other, self)

    def __rmul__(self, other):
        return Arithmetic.__mul__(other, self)

    def __rtruediv__(self, other):
        return Arithmetic.__truediv__(other, self)

    def __rpow__(self, other):
        return Arithmetic.__pow__(other, self)

    def __rmatmul__(self, other):
        return Arithmetic.__matmul__(other, self)

    def _not_in_place(self, other):
        """`x += y` makes a new tensor, which is fine for a computed one, but would leave a parameter as it is."""
        if self.requires_grad and self.is_leaf:
            raise RuntimeError(
                "A leaf that requires a gradient is not changed by p -= ...: that would make a new tensor. Use an "
                "optimizer, or p.data -= lr * p.grad"
            )
        return NotImplemented

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _not_in_place

    @op
    def __mod__(x, y):
        """The remainder of x / y, with the sign of y."""
        return np.mod(x, y), (lambda g: g, lambda g: -g * np.floor_divide(x, y))

    @op
    def __floordiv__(x, y):
        """x / y rounded down. It is a staircase: its gradient is 0."""
        return np.floor_divide(x, y), (lambda g: np.zeros_like(g), lambda g: np.zeros_like(g))

    # ---- comparisons and logic: booleans, which have no gradient

    @op
    def __eq__(x, y):
        return np.equal(x, y)

    @op
    def __ne__(x, y):
        return np.not_equal(x, y)

    @op
    def __lt__(x, y):
        return np.less(x, y)

    @op
    def __le__(x, y):
        return np.less_equal(x, y)

    @op
    def __gt__(x, y):
        return np.greater(x, y)

    @op
    def __ge__(x, y):
        return np.greater_equal(x, y)

    @op
    def __and__(x, y):
        return x & y

    @op
    def __or__(x, y):
        return x | y

    @op
    def __invert__(x):
        return ~x

    @op
    def all(x, dim=None, keepdim=False):
        return np.all(x, axis=dim, keepdims=keepdim)

    @op
    def any(x, dim=None, keepdim=False):
        return np.any(x, axis=dim, keepdims=keepdim)

    __hash__ = object.__hash__  # as keys, tensors are themselves; == compares values

    # ---- element by element

    @op
    def exp(x):
        """e to the power x."""
        y = np.exp(x)
        return y, lambda g: g * y

    @op
    def log(x):
        """The natural logarithm."""
        return np.log(x), lambda g: g / x

    @op
    def sqrt(x):
        """The square root."""
        y = np.sqrt(x)
        return y, lambda g: g * 0.5 / y

    @op
    def tanh(x):
        """The hyperbolic tangent."""
        y = np.tanh(x)
        return y, lambda g: g * (1 - y * y)

    @op
    def sin(x):
        """The sine of x in radians."""
        return np.sin(x), lambda g: g * np.cos(x)

    @op
    def cos(x):
        """The cosine of x in radians."""
        return np.cos(x), lambda g: -g * np.sin(x)

    @op
    def abs(x):
        """|x|; its gradient at 0 is 0."""
        return np.abs(x), lambda g: g * np.sign(x)

    @op
    def clip(x, min=None, max=None):
        """x limited to [min, max]. No gradient flows where a limit holds."""
        if min is None and max is None:
            raise ValueError("clip needs min, max or both.")
        y = np.clip(x, min, max)
        return y, lambda g: g * (x == y)

    clamp = clip
    __abs__ = abs

    @op
    def maximum(x, y):
        """The larger of each pair. A tie shares the gradient equally."""
        return np.maximum(x, y), (lambda g: g * _larger(x, y), lambda g: g * _larger(y, x))

    @op
    def minimum(x, y):
        """The smaller of each pair. A tie shares the gradient equally."""
        return np.minimum(x, y), (lambda g: g * _larger(y, x), lambda g: g * _larger(x, y))

    @op
    def masked_fill(x, mask, value):
        """x, with `value` (a number) where `mask` is true. `mask` broadcasts to x."""
        _require_booleans("masked_fill", mask)
        return np.where(mask, value, x).astype(x.dtype), lambda g: np.where(mask, 0, g)

    @op
    def tril(x, diagonal=0):
        """The last two axes on and below a diagonal; zero elsewhere."""
        return np.tril(x, diagonal), lambda g: np.tril(g, diagonal)

    @op
    def triu(x, diagonal=0):
        """The last two axes on and above a diagonal; zero elsewhere."""
        return np.triu(x, diagonal), lambda g: np.triu(g, diagonal)

    def pow(self, exponent):
        """self ** exponent."""
        return self**exponent


@op
def where(condition, x, y):
    """x where the condition is true, y elsewhere, with broadcasting."""
    _require_booleans("where", condition)
    return np.where(condition, x, y), (None, lambda g: np.where(condition, g, 0), lambda g: np.where(condition, 0, g))


def einsum(equation, *operands):
    """Products of `operands` summed over subscripts: einsum('bij,bjk->bik', x, y) is x @ y. Letters name axes."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if "." in equation or any(len(set(names)) < len(names) for names in inputs):
        raise ValueError(f"einsum needs every axis named once per operand, without '...', but got {equation!r}.")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum got {len(operands)} operands for the {len(inputs)} inputs of {equation!r}.")
    if not arrow:  # NumPy's convention: what occurs once, in alphabetical order
        letters = "".join(inputs)
        output = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return _einsum(*operands, inputs=inputs, output=output)


@op
def _einsum(*arrays, inputs, output):
    def rule(i):
        others = [names for k, names in enumerate(inputs) if k != i]
        alone = "".join(letter for letter in inputs[i] if letter not in output + "".join(others))  # summed on its own
        equation = ",".join([output, *others, alone]) + "->" + inputs[i]

        def grad(g):
            sizes = tuple(arrays[i].shape[inputs[i].index(letter)] for letter in alone)
            rest = [array for k, array in enumerate(arrays) if k != i]
            d = np.einsum(equation, g, *rest, np.zeros(sizes, g.dtype, like=g) + 1, optimize=True)
            return np.broadcast_to(d, np.broadcast_shapes(d.shape, arrays[i].shape))  # the others may have length 1

        return grad

    return np.einsum(",".join(inputs) + "->" + output, *arrays, optimize=True), tuple(map(rule, range(len(arrays))))
