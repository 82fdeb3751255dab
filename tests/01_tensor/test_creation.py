"""New tensors: their dtypes, whose memory they use, which random numbers they hold, what they refuse."""

import numpy as np
import pytest

import tinytorch as tt


def assert_same(tensor, array):
    """Equal values and dtype."""
    assert isinstance(tensor, tt.Tensor)
    assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(tensor.numpy(), array)


def f32(values):
    return np.array(values, np.float32)


class TestDtypes:
    @pytest.mark.parametrize("data", [1.5, [1.0, 2.0], [[1, 2.5]], (1.0,), []])
    def test_python_floats_become_float32(self, data):
        assert_same(tt.tensor(data), f32(data))

    @pytest.mark.parametrize("data", [3, [1, 2], [[1], [2]], range(3)])
    def test_python_integers_become_int64(self, data):
        assert_same(tt.tensor(data), np.array(data, np.int64))

    @pytest.mark.parametrize("data", [True, [True, False]])
    def test_python_booleans_stay_booleans(self, data):
        assert_same(tt.tensor(data), np.array(data, bool))

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
    def test_arrays_keep_their_dtype(self, dtype):
        array = np.array([[0, 1]], dtype)
        assert_same(tt.tensor(array), array)
        assert_same(tt.tensor(array[0, 1]), array[0, 1])

    @pytest.mark.parametrize("dtype", [tt.float64, tt.int64, np.float64, "float16"])
    def test_a_dtype_that_is_asked_for_wins(self, dtype):
        assert_same(tt.tensor([1.0, 2.0], dtype=dtype), np.array([1, 2], dtype))
        assert_same(tt.full((2,), 1.0, dtype=dtype), np.ones(2, dtype))
        assert_same(tt.zeros(2, dtype=dtype), np.zeros(2, dtype))
        assert_same(tt.ones(2, dtype=dtype), np.ones(2, dtype))
        assert_same(tt.arange(2, dtype=dtype), np.arange(2).astype(dtype))
        assert_same(tt.eye(2, dtype=dtype), np.eye(2, dtype=dtype))

    def test_a_tensor_may_be_made_of_tensors(self):
        assert_same(tt.tensor(tt.tensor([1, 2])), np.array([1, 2]))
        assert_same(tt.tensor([tt.tensor(1.0), tt.tensor(2.0)]), f32([1, 2]))


class TestMemory:
    def test_tensor_copies(self):
        array = f32([1, 2])
        for made in (tt.tensor(array), tt.tensor(tt.Tensor(array))):
            made.data[0] = 9
        np.testing.assert_array_equal(array, [1, 2])

    def test_Tensor_shares(self):
        array = f32([1, 2])
        shared = tt.Tensor(array)
        array[0] = 9
        assert shared[0].item() == 9
        assert tt.Tensor(shared).data is array

    def test_Tensor_copies_where_the_dtype_changes(self):
        array = f32([1, 2])
        assert not np.shares_memory(tt.Tensor(array, dtype=tt.float64).data, array)


class TestConstants:
    def test_zeros_and_ones_take_sizes_or_one_tuple(self):
        assert_same(tt.zeros(2, 3), np.zeros((2, 3), np.float32))
        assert_same(tt.zeros((2, 3)), np.zeros((2, 3), np.float32))
        assert_same(tt.ones([2, 3]), np.ones((2, 3), np.float32))
        assert_same(tt.ones(), f32(1))
        assert_same(tt.zeros(0, 3), np.zeros((0, 3), np.float32))

    def test_full_takes_the_dtype_of_its_value(self):
        assert_same(tt.full((2, 2), 1.5), f32([[1.5, 1.5], [1.5, 1.5]]))
        assert_same(tt.full(3, 7), np.array([7, 7, 7]))
        assert_same(tt.full((1,), True), np.array([True]))

    def test_full_takes_a_numpy_float_for_a_python_float(self):
        assert_same(tt.full((2,), np.float64(1.5)), f32([1.5, 1.5]))

    def test_eye(self):
        assert_same(tt.eye(3), np.eye(3, dtype=np.float32))
        assert_same(tt.eye(2, 3), np.eye(2, 3, dtype=np.float32))

    @pytest.mark.exercise("ex-01-3", points=1)
    def test_arange_counts_like_python(self):
        assert_same(tt.arange(4), np.array([0, 1, 2, 3]))
        assert_same(tt.arange(1, 4), np.array([1, 2, 3]))
        assert_same(tt.arange(5, 0, -2), np.array([5, 3, 1]))
        assert_same(tt.arange(0, 1, 0.25), f32([0, 0.25, 0.5, 0.75]))
        assert_same(tt.arange(3.0), f32([0, 1, 2]))

    def test_a_step_of_0_is_refused(self):
        with pytest.raises(ValueError, match="step other than 0"):
            tt.arange(0, 3, 0)

    @pytest.mark.parametrize("like, value", [(tt.zeros_like, 0), (tt.ones_like, 1)])
    def test_like_another_tensor(self, like, value):
        x = tt.tensor(np.ones((2, 3)), requires_grad=True)
        assert_same(like(x), np.full((2, 3), value, np.float64))
        assert_same(like(x, dtype=tt.int64), np.full((2, 3), value))
        assert not like(x).requires_grad

    def test_full_like(self):
        assert_same(tt.full_like(tt.tensor([1, 2]), 7), np.array([7, 7]))
        assert_same(tt.full_like(tt.ones(2), 0.5), f32([0.5, 0.5]))

    def test_a_gradient_can_be_asked_for(self):
        for x in (
            tt.tensor([1.0], requires_grad=True),
            tt.full((2,), 1.0, requires_grad=True),
            tt.zeros(2, requires_grad=True),
            tt.ones(2, requires_grad=True),
            tt.randn(2, requires_grad=True),
            tt.rand(2, requires_grad=True),
        ):
            assert x.requires_grad and x.is_leaf and x.grad is None


class TestRandom:
    @pytest.mark.parametrize("draw", [tt.randn, tt.rand])
    def test_a_seed_gives_the_same_numbers_again(self, draw):
        tt.manual_seed(3)
        first, second = draw(2, 3), draw((2, 3))
        tt.manual_seed(3)
        assert_same(draw(2, 3), first.numpy())
        assert_same(draw(2, 3), second.numpy())
        assert not np.array_equal(first.data, second.data)

    @pytest.mark.parametrize("draw", [tt.randn, tt.rand])
    def test_a_generator_of_ones_own_leaves_the_default_alone(self, draw):
        tt.manual_seed(3)
        expected = draw(4)
        tt.manual_seed(3)
        own = draw(4, generator=tt.Generator(3))
        assert_same(own, expected.numpy())
        assert_same(draw(4), expected.numpy())

    def test_randn_has_mean_0_and_variance_1(self):
        x = tt.randn(100, 100, generator=tt.Generator(0)).numpy()
        assert x.dtype == np.float32
        assert abs(x.mean()) < 4 / 100 and abs(x.std() - 1) < 4 / 100

    def test_rand_fills_the_unit_interval(self):
        x = tt.rand(100, 100, generator=tt.Generator(0)).numpy()
        assert x.dtype == np.float32
        assert 0 <= x.min() < 0.01 and 0.99 < x.max() < 1
        assert abs(x.mean() - 0.5) < 4 / 100 / np.sqrt(12)

    @pytest.mark.parametrize("like", [tt.randn_like, tt.rand_like])
    def test_like_another_tensor(self, like):
        x = tt.zeros(2, 3, dtype=tt.float64)
        first = like(x, generator=tt.Generator(0))
        assert (first.shape, first.dtype) == (x.shape, x.dtype)
        assert_same(like(x, generator=tt.Generator(0)), first.numpy())

    def test_the_state_of_a_generator_can_be_taken_and_put_back(self):
        generator = tt.Generator(5)
        tt.rand(3, generator=generator)
        state = generator.get_state()
        expected = tt.rand(3, generator=generator)
        generator.set_state(state)
        assert_same(tt.rand(3, generator=generator), expected.numpy())
        assert_same(tt.rand(3, generator=generator.manual_seed(5)), tt.rand(3, generator=tt.Generator(5)).numpy())


class TestRefusals:
    @pytest.mark.parametrize("make", [tt.zeros, tt.ones, lambda *size: tt.full(size, 1.0)])
    def test_negative_sizes(self, make):
        with pytest.raises(ValueError, match=r"sizes of 0 or more, but got \(2, -1\)"):
            make(2, -1)

    @pytest.mark.parametrize("make", [tt.randn, tt.rand])
    def test_negative_sizes_of_random_tensors(self, make):
        with pytest.raises(ValueError, match="sizes of 0 or more"):
            make(2, -1)

    def test_sizes_that_are_not_integers(self):
        with pytest.raises(TypeError, match="float"):
            tt.zeros(2.5)

    def test_ragged_lists(self):
        with pytest.raises(ValueError, match="rows of equal length"):
            tt.tensor([[1, 2], [3]])

    @pytest.mark.parametrize(
        "data", ["text", ["a", "b"], None, [1, None], 1j, {"a": 1}, np.array("2024-01-01", "datetime64[D]")]
    )
    def test_what_is_not_a_number(self, data):
        with pytest.raises(TypeError, match=r"holds floats, integers or booleans, but got .*Convert the data first"):
            tt.tensor(data)
