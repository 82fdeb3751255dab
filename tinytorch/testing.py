"""What students, the grader and our own tests check with."""

import numpy as np

from .autograd import directional_derivative
from .device import Generator
from .tensor import Tensor


def assert_close(actual, expected, rtol=None, atol=None, what="The result"):
    """Raise AssertionError, with the first place that differs, unless shapes agree and |a - e| <= atol + rtol * |e|.

    By default rtol is 1e-5 and atol 1e-6; where one of them is given, the other is 0.
    """
    rtol, atol = (1e-5, 1e-6) if rtol is None and atol is None else (rtol or 0, atol or 0)
    actual, expected = (np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in (actual, expected))
    if actual.shape != expected.shape:
        raise AssertionError(f"{what} needs shape {expected.shape}, but has {actual.shape}.")
    close = np.isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
    if not close.all():
        place = tuple(int(i) for i in np.argwhere(~close)[0])
        raise AssertionError(
            f"{what} differs in {np.sum(~close)} of {close.size} places, first at {place}: "
            f"expected {expected[place]}, got {actual[place]}."
        )


def check_grad(function, *inputs, rtol=1e-5, seed=0):
    """Compare the gradients of `function(*inputs)` with finite differences; raise AssertionError where they differ.

    In float64, for one floating point input after the other: the derivative along a random direction, of the output's
    product with a random cotangent. (Summing the output instead would miss, for example, a wrong rule of softmax, whose
    outputs always sum to 1.) Inputs are arrays or tensors; integers and booleans are passed on as they are.
    """
    rng = Generator(seed)
    arrays = [np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in inputs]
    arrays = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arrays]
    tensors = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    output = function(*tensors)
    cotangent = rng.standard_normal(output.shape)
    output.backward(Tensor(cotangent))
    for i, (x, leaf) in enumerate(zip(arrays, tensors)):
        if not leaf.requires_grad:
            continue
        if leaf.grad is None:
            raise AssertionError(f"Input {i} got no gradient: the graph between it and the output is broken.")
        direction = rng.standard_normal(x.shape)

        def product(moved, i=i):
            y = function(*(Tensor(moved if k == i else other) for k, other in enumerate(arrays)))
            return float(np.sum(y.data * cotangent))

        expected = directional_derivative(product, [x], [direction])
        got = float(np.sum(leaf.grad.data * direction))
        scale = max(abs(expected), abs(got), np.linalg.norm(leaf.grad.data) * np.linalg.norm(direction) * 1e-2, 1e-3)
        if not abs(got - expected) <= rtol * scale:
            raise AssertionError(
                f"The gradient of input {i} is wrong: along a random direction it gives {got:.8g}, but finite "
                f"differences give {expected:.8g}. Gradient: {leaf.grad}"
            )
