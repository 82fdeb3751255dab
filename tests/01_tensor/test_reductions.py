"""Reductions against NumPy: axes, kept axes, variance, extremes with their places, ties, and nothing to reduce."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
DIMS = [None, 0, 2, -1, (0, 2), (-1, 0)]
NAMES = {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min}
each_dim = pytest.mark.parametrize("dim", DIMS, ids=str)
GATES = {"sum": pytest.mark.exercise("ex-01-5", points=2)}
each_name = pytest.mark.parametrize("name", [pytest.param(name, marks=GATES.get(name, ())) for name in NAMES])


def assert_same(tensor, array):
    array = np.asarray(array)
    assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape)
    assert_close(tensor, array)


class TestAxes:
    @each_name
    @each_dim
    @pytest.mark.parametrize("keepdim", [False, True])
    def test_over_one_axis_several_or_all(self, name, dim, keepdim):
        expected = NAMES[name](X, axis=dim, keepdims=keepdim)
        assert_same(getattr(tt.tensor(X), name)(dim, keepdim), expected)
        assert_same(getattr(tt, name)(tt.tensor(X), dim=dim, keepdim=keepdim), expected)

    @each_name
    def test_a_list_of_axes_means_the_tuple(self, name):
        assert_same(getattr(tt.tensor(X), name)([0, 2]), NAMES[name](X, axis=(0, 2)))

    @pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "amax", "amin", "prod", "argmax", "argmin"])
    def test_numpys_words_are_understood(self, name):
        method = getattr(tt.tensor(X), name)
        assert_same(method(axis=1, keepdims=True), method(dim=1, keepdim=True).numpy())

    @pytest.mark.parametrize("name", ["max", "min"])
    def test_numpys_words_are_understood_where_places_come_along(self, name):
        method = getattr(tt.tensor(X), name)
        for theirs, ours in zip(method(axis=1, keepdims=True), method(dim=1, keepdim=True), strict=True):
            assert_same(theirs, ours.numpy())

    def test_a_tensor_without_axes(self):
        x = tt.tensor(2.5)
        for y in (x.sum(), x.mean(), x.amax(), x.amin(), x.max(), x.min(), x.prod()):
            assert_same(y, np.float32(2.5))

    @pytest.mark.parametrize(
        "name", ["sum", "mean", "var", "std", "amax", "amin", "prod", "cumsum", "argmax", "all", "max"]
    )
    @pytest.mark.parametrize("dim", [3, -4])
    def test_an_axis_that_is_not_there_is_named(self, name, dim):
        x = tt.tensor(X) if name != "all" else tt.tensor(X) > 0
        with pytest.raises(IndexError, match=f"axis {dim} is out of bounds for array of dimension 3"):
            getattr(x, name)(dim=dim)


class TestVariance:
    @pytest.mark.exercise("ex-01-6", points=1)
    @each_dim
    @pytest.mark.parametrize("correction", [0, 1])
    @pytest.mark.parametrize("keepdim", [False, True])
    def test_variance_and_standard_deviation(self, dim, correction, keepdim):
        settings = {"axis": dim, "ddof": correction, "keepdims": keepdim}
        assert_same(tt.tensor(X).var(dim, correction, keepdim), np.var(X, **settings))
        assert_same(tt.tensor(X).std(dim, correction=correction, keepdim=keepdim), np.std(X, **settings))

    @pytest.mark.exercise("ex-01-6", points=1)
    def test_the_default_is_unbiased_as_in_pytorch(self):
        assert tt.tensor([1.0, 2.0, 3.0]).var().item() == 1
        assert tt.tensor([1.0, 2.0, 3.0]).var(correction=0).item() == pytest.approx(2 / 3)

    def test_a_large_mean_does_not_spoil_it(self):
        """The mean of squares minus the square of the mean would lose every digit here."""
        assert tt.tensor([10000.0, 10001.0, 10002.0]).var().item() == 1

    @pytest.mark.parametrize("shape, correction", [((1,), 1), ((0,), 0), ((3, 0), 1)])
    def test_too_few_elements_are_refused(self, shape, correction):
        with pytest.raises(ValueError, match=f"var needs more than {correction} elements to average, but got shape"):
            tt.ones(shape).var(correction=correction)


class TestExtremes:
    @pytest.mark.parametrize("dim", [0, 1, -1])
    @pytest.mark.parametrize("keepdim", [False, True])
    def test_along_an_axis_values_come_with_their_places(self, dim, keepdim):
        for method, value, place in [("max", np.max, np.argmax), ("min", np.min, np.argmin)]:
            values, indices = getattr(tt.tensor(X), method)(dim, keepdim)
            assert_same(values, value(X, axis=dim, keepdims=keepdim))
            assert_same(indices, place(X, axis=dim, keepdims=keepdim))

    def test_the_pair_has_names(self):
        pair = tt.tensor(X).max(dim=1)
        assert pair.values is pair[0] and pair.indices is pair[1]

    def test_over_everything_only_the_value_comes(self):
        assert_same(tt.tensor(X).max(), X.max())
        assert_same(tt.min(tt.tensor(X)), X.min())

    @pytest.mark.parametrize("dim", [None, 0, -1])
    @pytest.mark.parametrize("keepdim", [False, True])
    def test_places(self, dim, keepdim):
        assert_same(tt.tensor(X).argmax(dim, keepdim), np.argmax(X, axis=dim, keepdims=keepdim))
        assert_same(tt.argmin(tt.tensor(X), dim=dim, keepdim=keepdim), np.argmin(X, axis=dim, keepdims=keepdim))

    @pytest.mark.parametrize("method", ["max", "amax"])
    def test_over_everything_a_tie_shares_the_gradient(self, method):
        x = tt.tensor([3.0, 1.0, 3.0, 3.0], requires_grad=True)
        getattr(x, method)().backward()
        assert_same(x.grad, np.array([1, 0, 1, 1], np.float32) / 3)

    def test_amax_along_an_axis_shares_row_by_row(self):
        x = tt.tensor([[3.0, 3.0], [1.0, 2.0]], requires_grad=True)
        x.amax(dim=1).backward(np.array([10, 20]))
        assert_same(x.grad, np.array([[5, 5], [0, 20]], np.float32))

    def test_max_along_an_axis_takes_the_first_of_a_tie(self):
        x = tt.tensor([[3.0, 3.0], [1.0, 2.0]], requires_grad=True)
        values, indices = x.max(dim=1)
        values.backward(np.array([10, 20]))
        assert indices.tolist() == [0, 1]
        assert_same(x.grad, np.array([[10, 0], [0, 20]], np.float32))


class TestProductsAndRunningSums:
    @pytest.mark.parametrize("dim", [None, 0, -1])
    @pytest.mark.parametrize("keepdim", [False, True])
    def test_prod(self, dim, keepdim):
        assert_same(tt.tensor(X).prod(dim, keepdim), np.prod(X, axis=dim, keepdims=keepdim))

    def test_a_factor_of_0_has_the_product_of_the_others_as_gradient(self):
        x = tt.tensor([[2.0, 0.0, 3.0], [0.0, 0.0, 3.0]], requires_grad=True)
        x.prod(dim=1).backward(np.ones(2))
        assert_same(x.grad, np.array([[0, 6, 0], [0, 0, 0]], np.float32))

    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_cumsum(self, dim):
        assert_same(tt.tensor(X).cumsum(dim), np.cumsum(X, axis=dim))


class TestNothingToReduce:
    def test_a_sum_of_nothing_is_0_and_a_product_1(self):
        assert_same(tt.zeros(0, 3).sum(), np.float32(0))
        assert_same(tt.zeros(0, 3).sum(dim=0), np.zeros(3, np.float32))
        assert_same(tt.zeros(0).prod(), np.float32(1))

    @pytest.mark.parametrize("dim", [None, 0])
    def test_a_mean_of_nothing_is_refused(self, dim):
        with pytest.raises(ValueError, match=r"mean needs at least one element to average, but got shape \(0, 3\)"):
            tt.zeros(0, 3).mean(dim)

    @pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "argmax", "argmin"])
    def test_an_extreme_of_nothing_is_refused(self, name):
        with pytest.raises(ValueError, match=r"zero-size|empty"):
            getattr(tt.zeros(0), name)()
