"""Operators, element-wise functions, comparisons and products, against NumPy; the gradients are module 05's."""

import operator
from functools import partial

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close

RNG = np.random.default_rng(0)
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
GATES = {
    operator.add: pytest.mark.exercise("ex-01-1", points=1),
    operator.mul: pytest.mark.exercise("ex-01-2", points=1),
}
each_operator = pytest.mark.parametrize("f", [pytest.param(f, marks=GATES.get(f, ())) for f in OPERATORS])
each_comparison = pytest.mark.parametrize("f", COMPARISONS)


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    """A test that is run again, with another answer, sees the same numbers."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def positive(*shape):
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def assert_same(tensor, array):
    assert isinstance(tensor, tt.Tensor)
    assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape)
    assert_close(tensor, array, rtol=1e-6)


class TestOperands:
    @each_operator
    def test_two_tensors(self, f):
        x, y = positive(3, 4), positive(4)
        assert_same(f(tt.tensor(x), tt.tensor(y)), f(x, y))

    @each_operator
    @pytest.mark.parametrize("scalar", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2)], ids=repr)
    def test_a_scalar_on_either_side_leaves_float32(self, f, scalar):
        x = positive(3)
        number = scalar.item() if isinstance(scalar, np.generic) else scalar
        assert_same(f(tt.tensor(x), scalar), f(x, number))
        assert_same(f(scalar, tt.tensor(x)), f(number, x))

    @each_operator
    def test_a_numpy_array_on_either_side(self, f):
        x, y = positive(3, 1), positive(4)
        assert_same(f(tt.tensor(x), y), f(x, y))
        assert_same(f(x, tt.tensor(y)), f(x, y))

    def test_a_numpy_matrix_on_either_side(self):
        x, y = positive(2, 3), positive(3, 4)
        assert_same(tt.tensor(x) @ y, x @ y)
        assert_same(x @ tt.tensor(y), x @ y)

    @each_operator
    def test_an_array_of_float64_widens(self, f):
        x, y = positive(3), positive(3).astype(np.float64)
        assert_same(f(tt.tensor(x), tt.tensor(y)), f(x, y))
        assert_same(f(tt.tensor(x), y), f(x, y))

    @each_operator
    def test_a_scalar_leaves_float64(self, f):
        x = positive(3).astype(np.float64)
        assert_same(f(tt.tensor(x), 2), f(x, 2))

    @each_operator
    def test_the_operands_are_not_changed(self, f):
        x, y = positive(3), positive(3)
        a, b = tt.tensor(x), tt.tensor(y)
        f(a, b)
        np.testing.assert_array_equal(a.numpy(), x)
        np.testing.assert_array_equal(b.numpy(), y)

    def test_augmented_assignment_makes_a_new_tensor(self):
        x = before = tt.tensor([1.0, 2.0])
        x += 1
        x *= 3
        assert_same(x, np.array([6, 9], np.float32))
        assert_same(before, np.array([1, 2], np.float32))

    def test_the_named_functions_are_the_operators(self):
        x, y = tt.tensor(positive(3)), tt.tensor(positive(3))
        for function, f in zip([tt.add, tt.sub, tt.mul, tt.div, tt.pow], OPERATORS, strict=True):
            assert_same(function(x, y), f(x.data, y.data))
        assert_same(tt.matmul(x, y), np.asarray(x.data @ y.data))

    @pytest.mark.parametrize("other", ["a", None, {}], ids=repr)
    def test_what_is_no_number_is_refused(self, other):
        with pytest.raises(TypeError, match=r"add cannot work with \(float32 \(2,\), .*tensors, arrays and numbers"):
            tt.ones(2) + other


class TestIntegers:
    def test_integers_stay_integers(self):
        x = tt.tensor([5, -3])
        for y in (x + 2, x - x, x * 3, -x, x**2, x.abs(), x.clip(0, 4), x.sum(), x.cumsum(0), tt.maximum(x, 0)):
            assert y.dtype == tt.int64

    @pytest.mark.parametrize("y", [2, tt.tensor([2, 2]), np.array([2, 2]), np.int64(2)], ids=type)
    def test_true_division_gives_float32(self, y):
        assert_same(tt.tensor([1, 2]) / y, np.array([0.5, 1], np.float32))

    @pytest.mark.parametrize("y", [2.5, tt.tensor([2.5, 2.5]), np.float64(2.5)], ids=type)
    def test_with_floats_they_give_float32(self, y):
        assert_same(tt.tensor([1, 2]) * y, np.array([2.5, 5], np.float32))
        assert_same(y - tt.tensor([1, 2]), np.array([1.5, 0.5], np.float32))

    @pytest.mark.parametrize("name", ["exp", "sqrt", "sin", "cos", "tanh", "log", "mean", "var", "std"])
    def test_functions_of_real_numbers_give_float32(self, name):
        x = np.array([1, 2, 3])
        function = partial(getattr(np, name), **({"ddof": 1} if name in ("var", "std") else {}))
        assert_same(getattr(tt.tensor(x), name)(), np.asarray(function(x), np.float32))

    def test_a_choice_between_scalars_gives_float32(self):
        assert_same(tt.where(tt.tensor([True, False]), 1.5, 2.5), np.array([1.5, 2.5], np.float32))

    def test_an_integer_to_a_negative_power_is_refused(self):
        with pytest.raises(ValueError, match="negative integer powers"):
            tt.tensor([2]) ** -1

    def test_booleans_count_as_integers_in_sums(self):
        assert tt.tensor([True, True, False]).sum().item() == 2


class TestElementwise:
    @pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "cos", "tanh", "abs"])
    def test_against_numpy_as_method_and_function(self, name):
        x = positive(3, 4)
        assert_same(getattr(tt.tensor(x), name)(), getattr(np, name)(x))
        assert_same(getattr(tt, name)(tt.tensor(x)), getattr(np, name)(x))

    def test_clip(self):
        x = np.array([-2.0, -0.5, 0.5, 2.0], np.float32)
        assert_same(tt.tensor(x).clip(-1, 1), np.clip(x, -1, 1))
        assert_same(tt.clip(tt.tensor(x), max=1), np.minimum(x, 1))
        assert_same(tt.tensor(x).clip(min=-1), np.maximum(x, -1))
        with pytest.raises(ValueError, match="clip needs min, max or both"):
            tt.tensor(x).clip()

    def test_maximum_and_minimum(self):
        x, y = RNG.standard_normal((2, 3, 4)).astype(np.float32)
        assert_same(tt.maximum(tt.tensor(x), tt.tensor(y)), np.maximum(x, y))
        assert_same(tt.minimum(tt.tensor(x), 0.5), np.minimum(x, np.float32(0.5)))

    @pytest.mark.parametrize("f", [tt.maximum, tt.minimum])
    def test_a_tie_shares_the_gradient(self, f):
        x, y = tt.tensor([1.0, 2.0], requires_grad=True), tt.tensor([1.0, 2.0], requires_grad=True)
        f(x, y).backward(np.array([4, 6]))
        assert_same(x.grad, np.array([2, 3], np.float32))
        assert_same(y.grad, np.array([2, 3], np.float32))

    def test_abs_has_gradient_0_at_0(self):
        x = tt.tensor([0.0, -2.0], requires_grad=True)
        x.abs().backward(np.ones(2))
        assert_same(x.grad, np.array([0, -1], np.float32))

    def test_where_and_masked_fill_choose(self):
        mask, x, y = np.array([[True], [False]]), positive(2, 3), positive(3)
        assert_same(tt.where(tt.tensor(mask), tt.tensor(x), tt.tensor(y)), np.where(mask, x, y))
        assert_same(tt.tensor(x).masked_fill(tt.tensor(mask), -np.inf), np.where(mask, np.float32(-np.inf), x))
        assert_same(tt.tensor([1, 2]).masked_fill(tt.tensor([True, False]), 7), np.array([7, 2]))

    @pytest.mark.parametrize("diagonal", [-1, 0, 2])
    def test_triangles(self, diagonal):
        x = positive(2, 4, 3)
        assert_same(tt.tensor(x).tril(diagonal), np.tril(x, diagonal))
        assert_same(tt.tensor(x).triu(diagonal=diagonal), np.triu(x, diagonal))

    def test_division_by_0_is_infinite(self):
        with np.errstate(all="ignore"):
            assert (tt.tensor([1.0, -1.0]) / 0).tolist() == [np.inf, -np.inf]


class TestPow:
    """x**y at 0, where the general formulas divide by 0 or take its logarithm."""

    def gradients(self, x, y):
        x, y = (tt.tensor(np.array([v]), requires_grad=True) for v in (x, y))
        z = x**y
        z.backward()
        return z.item(), x.grad.item(), y.grad.item()

    def test_base_0(self):
        assert self.gradients(0.0, 3.0) == (0, 0, 0)
        assert self.gradients(0.0, 1.0) == (0, 1, 0)

    def test_exponent_0(self):
        assert self.gradients(0.0, 0.0) == (1, 0, 0)
        assert self.gradients(2.0, 0.0) == (1, 0, pytest.approx(np.log(2)))

    def test_a_negative_base_with_a_whole_exponent(self):
        x = tt.tensor([-2.0], requires_grad=True)
        (x**3).backward()
        assert x.grad.item() == 12

    def test_negative_and_fractional_exponents(self):
        x = positive(3)
        assert_same(tt.tensor(x) ** -0.5, x**-0.5)
        assert_same(tt.tensor(x).pow(-2), x ** np.float32(-2))
        assert_same(2 ** tt.tensor(x), np.float32(2) ** x)


class TestComparisons:
    @each_comparison
    def test_against_numpy_with_every_operand(self, f):
        x, y = np.array([1.0, 2.0, 3.0], np.float32), np.array([[2.0], [3.0]], np.float32)
        assert_same(f(tt.tensor(x), tt.tensor(y)), f(x, y))
        assert_same(f(tt.tensor(x), y), f(x, y))
        assert_same(f(x, tt.tensor(y)), f(x, y))
        assert_same(f(tt.tensor(x), 2), f(x, 2))
        assert_same(f(2, tt.tensor(x)), f(2, x))

    @each_comparison
    def test_they_have_no_gradient(self, f):
        assert not f(tt.ones(2, requires_grad=True), 1).requires_grad

    def test_logic(self):
        a, b = np.array([True, True, False]), np.array([True, False, False])
        assert_same(tt.tensor(a) & tt.tensor(b), a & b)
        assert_same(tt.tensor(a) | tt.tensor(b), a | b)
        assert_same(~tt.tensor(a), ~a)

    def test_logic_on_floats_is_refused(self):
        with pytest.raises(TypeError, match=r"and cannot work with \(float32 \(1,\), float32 \(1,\)\)"):
            tt.ones(1) & tt.ones(1)

    @pytest.mark.parametrize("dim", [None, 0, -1])
    @pytest.mark.parametrize("keepdim", [False, True])
    def test_all_and_any(self, dim, keepdim):
        x = np.array([[True, False, True], [True, False, False]])
        assert_same(tt.tensor(x).all(dim, keepdim), np.asarray(x.all(axis=dim, keepdims=keepdim)))
        assert_same(tt.tensor(x).any(dim=dim, keepdim=keepdim), np.asarray(x.any(axis=dim, keepdims=keepdim)))


class TestMatmul:
    @pytest.mark.exercise("ex-01-4", points=2)
    @pytest.mark.parametrize(
        "x, y",
        [
            ((3, 4), (4, 2)),
            ((4,), (4,)),
            ((4,), (4, 2)),
            ((3, 4), (4,)),
            ((5, 3, 4), (5, 4, 2)),
            ((5, 3, 4), (4, 2)),
            ((3, 4), (5, 4, 2)),
            ((2, 1, 3, 4), (5, 4, 2)),
            ((0, 4), (4, 2)),
            ((3, 0), (0, 2)),
        ],
        ids=str,
    )
    def test_shapes_and_values_are_those_of_numpy(self, x, y):
        x, y = positive(*x), positive(*y)
        assert_same(tt.tensor(x) @ tt.tensor(y), np.asarray(x @ y))

    @pytest.mark.parametrize("x, y", [((2, 3), (2, 3)), ((3,), (2,)), ((2, 3, 4), (5, 4, 2))])
    def test_shapes_that_do_not_fit_are_named_with_the_rule(self, x, y):
        with pytest.raises(ValueError) as caught:
            tt.ones(x) @ tt.ones(y)
        message = str(caught.value)
        assert str(x) in message and str(y) in message
        assert message.startswith("matmul cannot work with")

    def test_the_rule_of_the_inner_sizes_is_given(self):
        with pytest.raises(ValueError, match=r"\(n, k\) @ \(k, m\)"):
            tt.ones(2, 3) @ tt.ones(2, 3)

    def test_a_number_has_no_axis_to_multiply_along(self):
        with pytest.raises(ValueError, match=r"matmul cannot work with \(float32 \(2, 3\), 3\)"):
            tt.ones(2, 3) @ 3


class TestEinsum:
    @pytest.mark.parametrize(
        "equation, shapes",
        [
            ("ij,jk->ik", [(2, 3), (3, 4)]),
            ("ij,jk", [(2, 3), (3, 4)]),  # implicit: ik
            ("ba", [(2, 3)]),  # implicit: ab, the transpose
            ("i,i", [(3,), (3,)]),  # implicit: a number
            ("ij->", [(2, 3)]),
            ("ij->ji", [(2, 3)]),
            ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
            (" i j , j -> i ", [(2, 3), (3,)]),
            ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
            ("aB,Bc->ac", [(2, 3), (3, 4)]),
        ],
    )
    def test_against_numpy(self, equation, shapes):
        arrays = [positive(*shape) for shape in shapes]
        assert_same(tt.einsum(equation, *map(tt.tensor, arrays)), np.asarray(np.einsum(equation, *arrays)))

    @pytest.mark.parametrize("equation", ["ii->i", "...i->i", "i...,i...->i"])
    def test_what_has_no_rule_is_refused(self, equation):
        operands = [tt.ones(3, 3)] * (equation.count(",") + 1)
        with pytest.raises(ValueError, match=r"every axis named once per operand, without '\.\.\.', but got"):
            tt.einsum(equation, *operands)

    @pytest.mark.parametrize("operands", [1, 3])
    def test_the_number_of_operands_must_be_that_of_the_equation(self, operands):
        with pytest.raises(ValueError, match=f"got {operands} operands for the 2 inputs of 'ij,jk->ik'"):
            tt.einsum("ij,jk->ik", *[tt.ones(3, 3)] * operands)

    def test_sizes_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match="'j'"):
            tt.einsum("ij,jk->ik", tt.ones(2, 3), tt.ones(4, 5))

    def test_an_unknown_letter_in_the_output_is_refused(self):
        with pytest.raises(ValueError, match="k did not appear in the input"):
            tt.einsum("ij->ik", tt.ones(2, 3))
