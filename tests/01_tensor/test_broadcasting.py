"""Broadcasting as a property: for all shapes that fit, NumPy's values and gradients that are summed back."""

import math
import operator
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinytorch as tt

for_all = settings(deadline=None, derandomize=True, max_examples=60, database=None)

# name: (operation, its derivatives by x and by y)
OPERATIONS = {
    "add": (operator.add, lambda x, y: 1 + 0 * x * y, lambda x, y: 1 + 0 * x * y),
    "sub": (operator.sub, lambda x, y: 1 + 0 * x * y, lambda x, y: 0 * x * y - 1),
    "mul": (operator.mul, lambda x, y: y + 0 * x, lambda x, y: x + 0 * y),
    "truediv": (operator.truediv, lambda x, y: 1 / y + 0 * x, lambda x, y: -x / y**2),
    "pow": (operator.pow, lambda x, y: y * x ** (y - 1), lambda x, y: x**y * np.log(x)),
}
each_operation = pytest.mark.parametrize("f, by_x, by_y", OPERATIONS.values(), ids=OPERATIONS.keys())


def positive(shape, seed):
    return np.random.default_rng(seed).uniform(0.5, 2, shape)


def summed(values, shape):
    """Each element of `shape` gets the sum of `values` over all places that it was copied to."""
    size = math.prod(shape)
    came_from = np.broadcast_to(np.arange(size).reshape(shape), values.shape)
    return np.bincount(came_from.ravel(), weights=values.ravel(), minlength=size).reshape(shape)


def clash(x, y):
    """Whether two shapes do not broadcast: seen from the last axis, two sizes differ and neither is 1."""
    return any(a != b and 1 not in (a, b) for a, b in zip(x[::-1], y[::-1]))


@each_operation
@for_all
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=4, max_side=3))
def test_shapes_that_fit_give_numpys_values_and_gradients_of_the_inputs_shapes(f, by_x, by_y, shapes):
    x, y = (positive(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    a, b = (tt.Tensor(array, requires_grad=True) for array in (x, y))
    z = f(a, b)
    assert z.shape == shapes.result_shape
    np.testing.assert_allclose(z.detach().numpy(), f(x, y), rtol=1e-12)

    g = positive(z.shape, seed=2)
    z.backward(g)
    for leaf, derivative in ((a, by_x), (b, by_y)):
        assert leaf.grad.shape == leaf.shape
        np.testing.assert_allclose(leaf.grad.numpy(), summed(g * derivative(x, y), leaf.shape), rtol=1e-12)


@each_operation
@for_all
@given(x=hnp.array_shapes(max_dims=4, max_side=4), y=hnp.array_shapes(max_dims=4, max_side=4))
def test_shapes_that_clash_are_both_named(f, by_x, by_y, x, y):
    assume(clash(x, y))
    with pytest.raises(ValueError, match=re.escape(f"float32 {x}, float32 {y}") + ".*compared from the last axis"):
        f(tt.ones(x), tt.ones(y))


@for_all
@given(shapes=hnp.mutually_broadcastable_shapes(signature="(n?,k),(k,m?)->(n?,m?)", max_dims=3, max_side=3))
def test_matmul_broadcasts_its_batches(shapes):
    x, y = (positive(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    a, b = (tt.Tensor(array, requires_grad=True) for array in (x, y))
    z = a @ b
    np.testing.assert_allclose(z.detach().numpy(), x @ y, rtol=1e-12)

    g = positive(z.shape, seed=2)
    z.backward(g)
    # z is linear in each input, so that <gradient, direction> is <g, z of the direction>
    for leaf, product, seed in ((a, lambda v: v @ y, 3), (b, lambda v: x @ v, 4)):
        assert leaf.grad.shape == leaf.shape
        direction = positive(leaf.shape, seed)
        np.testing.assert_allclose(np.sum(leaf.grad.data * direction), np.sum(g * product(direction)), rtol=1e-10)


@for_all
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_where_broadcasts_all_three(shapes):
    c, x, y = (positive(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    a, b = (tt.Tensor(array, requires_grad=True) for array in (x, y))
    z = tt.where(tt.Tensor(c > 1), a, b)
    np.testing.assert_array_equal(z.detach().numpy(), np.where(c > 1, x, y))

    g = positive(z.shape, seed=3)
    z.backward(g)
    np.testing.assert_allclose(a.grad.numpy(), summed(np.where(c > 1, g, 0), x.shape), rtol=1e-12)
    np.testing.assert_allclose(b.grad.numpy(), summed(np.where(c > 1, 0, g), y.shape), rtol=1e-12)


@for_all
@given(data=st.data(), shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
def test_expand_is_numpys_broadcast_to(data, shape):
    target = data.draw(hnp.broadcastable_shapes(shape, min_dims=len(shape), max_dims=4, max_side=3))
    assume(np.broadcast_shapes(shape, target) == target)
    x = tt.Tensor(positive(shape, 0), requires_grad=True)
    y = x.expand(target)
    np.testing.assert_array_equal(y.detach().numpy(), np.broadcast_to(x.data, target))

    g = positive(target, seed=1)
    y.backward(g)
    np.testing.assert_allclose(x.grad.numpy(), summed(g, shape), rtol=1e-12)
