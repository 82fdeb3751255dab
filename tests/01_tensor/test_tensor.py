"""What a tensor shows and gives away: its repr, its numbers, its memory, and what it refuses to be."""

import copy
import operator
import pickle

import numpy as np
import pytest

import tinytorch as tt


def leaf(values):
    return tt.tensor(values, requires_grad=True)


class TestRepr:
    @pytest.mark.parametrize(
        "tensor, text",
        [
            (tt.tensor(1.5), "tensor(1.5)"),
            (tt.tensor([1.0, 2.0]), "tensor([1., 2.])"),
            (tt.tensor([1, 2]), "tensor([1, 2])"),
            (tt.tensor([True]), "tensor([ True])"),
            (tt.tensor([1 / 3, 1e-9]), "tensor([0.3333, 0.    ])"),
            (tt.tensor([float("nan"), float("inf")]), "tensor([nan, inf])"),
            (tt.tensor(np.ones(1)), "tensor([1.], dtype=float64)"),
            (tt.tensor([1], dtype="int32"), "tensor([1], dtype=int32)"),
            (tt.zeros(0), "tensor([])"),
            (leaf([1.0]), "tensor([1.], requires_grad=True)"),
            (leaf([1.0]) * 2, "tensor([2.], grad_fn=<mul>)"),
            (leaf(np.ones(1)).sum(), "tensor(1., dtype=float64, grad_fn=<sum>)"),
        ],
        ids=str,
    )
    def test_values_then_what_is_not_usual(self, tensor, text):
        assert repr(tensor) == str(tensor) == text

    def test_rows_stand_under_each_other(self):
        assert repr(tt.tensor([[1.0, 2.0], [3.0, 4.0]])) == "tensor([[1., 2.],\n        [3., 4.]])"

    def test_a_long_one_is_shortened(self):
        text = repr(tt.zeros(1000, 1000))
        assert "..." in text and len(text) < 1000


class TestNumbers:
    @pytest.mark.parametrize("x, kind", [(tt.tensor([[1.5]]), float), (tt.tensor(2), int), (tt.tensor([True]), bool)])
    def test_item_is_a_number_of_python(self, x, kind):
        assert type(x.item()) is kind and x.item() == x.data.reshape(-1)[0]

    def test_float_int_and_bool(self):
        assert (float(tt.tensor([2.5])), int(tt.tensor(2.5)), bool(tt.tensor(0.0))) == (2.5, 2, False)

    def test_an_integer_counts_and_picks(self):
        assert list(range(tt.tensor(3))) == [0, 1, 2]
        assert "abc"[tt.tensor(1)] == "b"

    def test_a_float_does_not_pick(self):
        with pytest.raises(TypeError, match="float"):
            "abc"[tt.tensor(1.0)]

    def test_lists(self):
        assert tt.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
        assert tt.tensor(0.5).tolist() == 0.5

    @pytest.mark.parametrize("shape", [(2,), (0,)])
    def test_many_or_no_elements_are_no_number(self, shape):
        x = tt.ones(shape)
        with pytest.raises(
            ValueError, match=rf"item\(\) needs a tensor with one element, but got shape \({shape[0]},\)"
        ):
            x.item()
        with pytest.raises(ValueError, match=rf"shape \({shape[0]},\) is neither true nor false.*\.all\(\)"):
            bool(x)


class TestSize:
    def test_shape_in_all_its_forms(self):
        x = tt.zeros(2, 3)
        assert (x.shape, x.size(), x.size(0), x.size(-1)) == ((2, 3), (2, 3), 2, 3)
        assert (x.ndim, x.dim(), x.numel(), len(x)) == (2, 2, 6, 2)
        assert (x.dtype, x.device) == (tt.float32, "cpu")

    def test_rows_come_one_by_one(self):
        assert [row.tolist() for row in tt.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
        a, b = leaf([1.0, 2.0])
        assert (a.item(), b.item(), b.requires_grad) == (1, 2, True)

    def test_without_axes_there_is_no_length_and_no_row(self):
        with pytest.raises(TypeError, match=r"no length. Its value is item\(\)"):
            len(tt.tensor(1.0))
        with pytest.raises(TypeError, match="no length"):
            list(tt.tensor(1.0))


class TestMemory:
    def test_numpy_shares(self):
        x = tt.tensor([1.0, 2.0])
        x.numpy()[0] = 9
        assert x.tolist() == [9, 2]

    def test_numpy_would_lose_a_gradient(self):
        for x in (leaf([1.0]), leaf([1.0]) * 2):
            with pytest.raises(RuntimeError, match=r"call detach\(\).numpy\(\)"):
                x.numpy()
            with pytest.raises(RuntimeError, match=r"call detach\(\).numpy\(\)"):
                np.asarray(x)

    def test_numpy_reads_a_tensor(self):
        x = tt.tensor([1.0, 2.0])
        assert np.shares_memory(np.asarray(x), x.data)
        assert np.asarray(x, dtype=np.float64).dtype == np.float64
        assert not np.shares_memory(np.array(x), x.data)

    def test_detach_shares_and_leaves_the_graph(self):
        x = leaf([1.0, 2.0])
        y = (x * 2).detach()
        assert not y.requires_grad and y.is_leaf and y.grad_fn is None
        assert x.detach().data is x.data

    def test_clone_copies_and_stays_in_the_graph(self):
        x = leaf([1.0, 2.0])
        y = x.clone()
        y.backward(np.array([3, 4]))
        assert not np.shares_memory(y.data, x.data)
        assert x.grad.tolist() == [3, 4]


class TestTo:
    @pytest.mark.parametrize("before", ["float32", "float64", "int64", "bool"])
    @pytest.mark.parametrize("after", ["float16", "float32", "float64", "int64", "bool"])
    def test_every_dtype_becomes_every_other(self, before, after):
        x = tt.tensor([0, 1], dtype=before)
        for y in (x.to(np.dtype(after)), x.to(after), x.to(dtype=np.dtype(after)), x.to("cpu", np.dtype(after))):
            assert y.dtype == after
            assert y.tolist() == [0, 1]

    def test_where_nothing_changes_it_is_the_tensor_itself(self):
        x = tt.ones(2)
        assert x.to(tt.float32) is x and x.to("cpu") is x and x.to() is x

    def test_the_graph_goes_along(self):
        x = leaf([1.0, 2.0])
        y = x.to(tt.float64) * np.array([0.1, 0.2])
        assert y.dtype == tt.float64
        y.backward(np.ones(2))
        assert x.grad.dtype == tt.float32
        np.testing.assert_array_equal(x.grad.numpy(), np.array([0.1, 0.2], np.float32))


class TestRefusals:
    def test_assignment_points_to_where_and_data(self):
        with pytest.raises(TypeError, match=r"not written into.*tt.where or masked_fill, or write into .data"):
            tt.zeros(2)[0] = 1.0

    def test_attributes_that_tensors_do_not_have(self):
        with pytest.raises(AttributeError, match="requires_grads"):
            tt.zeros(2).requires_grads = True


class TestIdentity:
    def test_as_keys_tensors_are_themselves(self):
        x, same_values = tt.ones(2), tt.ones(2)
        assert hash(x) != hash(same_values)
        assert {x: "x"}[x] == "x"
        assert len({x, same_values, x}) == 2

    def test_equality_compares_values(self):
        assert (tt.tensor([1, 2]) == tt.tensor([1, 3])).tolist() == [True, False]

    def test_a_number_is_found_among_the_elements(self):
        assert 2 in tt.tensor([1, 2])
        assert 5 not in tt.tensor([1, 2])


class TestChangingALeaf:
    def test_data_takes_a_tensor_as_in_a_hand_written_step(self):
        p = tt.tensor([1.0, 2.0], requires_grad=True)
        (p * p).sum().backward()
        p.data -= 0.5 * p.grad
        assert isinstance(p.data, np.ndarray)
        assert p.tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ipow", "imatmul"])
    def test_a_leaf_with_a_gradient_is_not_replaced_by_an_assignment(self, name):
        p = tt.ones(2, requires_grad=True)
        with pytest.raises(RuntimeError, match=r"p.data -= lr \* p.grad"):
            getattr(operator, name)(p, 2.0)

    def test_a_computed_tensor_may_be_added_to(self):
        x = tt.ones(2, requires_grad=True)
        y = x * 2
        y += x
        y.sum().backward()
        assert x.grad.tolist() == [3.0, 3.0]

    def test_integers_cannot_be_asked_for_a_gradient(self):
        with pytest.raises(TypeError, match="Only floating point tensors have gradients, but this one is int64"):
            tt.arange(3).requires_grad = True

    def test_a_graph_is_not_cut_by_an_assignment(self):
        y = tt.ones(2, requires_grad=True) * 2
        with pytest.raises(RuntimeError, match=r"Use detach\(\)"):
            y.requires_grad = False

    def test_dtypes_that_no_tensor_has_are_refused(self):
        with pytest.raises(TypeError, match="was asked for complex64"):
            tt.ones(2).to("complex64")


class TestWhatAUserOfPyTorchTypes:
    @pytest.mark.parametrize(("method", "dtype"), [("double", "float64"), ("long", "int64"), ("bool", "bool")])
    def test_dtypes_as_methods(self, method, dtype):
        x = getattr(tt.tensor([0.0, 1.5]), method)()
        assert x.dtype == dtype
        assert x.float().dtype == tt.float32

    def test_a_number_formats_itself(self):
        assert f"{tt.tensor(1.23456):.2f}" == "1.23"
        with pytest.raises(TypeError, match="unsupported format string"):
            format(tt.ones(2), ".2f")

    def test_abs_mod_and_floor_division(self):
        x = tt.tensor([-5.5, 5.5])
        assert abs(x).tolist() == [5.5, 5.5]
        assert (x % 2.0).tolist() == [0.5, 1.5]
        assert (x // 2.0).tolist() == [-3.0, 2.0]

    @pytest.mark.parametrize("make", [tt.randn, tt.rand])
    def test_random_numbers_in_float64(self, make):
        assert make(3, dtype=tt.float64).dtype == tt.float64

    def test_no_grad_needs_no_parentheses(self):
        @tt.no_grad
        def double(x):
            return x * 2

        assert not double(tt.ones(1, requires_grad=True)).requires_grad

    @pytest.mark.parametrize("generator", [0, np.random.default_rng(0)])
    def test_a_generator_is_one_of_ours(self, generator):
        with pytest.raises(TypeError, match=r"needs a tinytorch.Generator, for example tt.Generator\(0\)"):
            tt.randn(2, generator=generator)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
    def test_a_copied_generator_goes_on_alike(self, copied):
        generator = tt.Generator(3)
        generator.random(5)
        other = copied(generator)
        assert isinstance(other, tt.Generator)
        assert other.random() == generator.random()


@pytest.mark.parametrize("apply", [lambda m: tt.ones(2).masked_fill(m, 0.0), lambda m: tt.where(m, 1.0, 0.0)])
def test_a_mask_of_integers_is_refused(apply):
    with pytest.raises(TypeError, match="needs a mask of booleans, but got int64"):
        apply(tt.tensor([0, 1]))


@pytest.mark.parametrize("index", [-1, 2])
def test_gather_refuses_indices_out_of_range(index):
    with pytest.raises(IndexError, match=f"from 0 to 1 along axis 1, but got {index} to {index}"):
        tt.ones(2, 2).gather(1, tt.full((2, 1), index))


def test_numpy_functions_point_to_ours():
    with pytest.raises(TypeError, match=r"np.exp works on arrays. For tensors there is tt.exp, or x.data"):
        np.exp(tt.ones(2))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow", "mod", "floordiv", "lt", "ge", "eq", "ne"])
def test_an_array_on_the_left_makes_a_tensor(name):
    x, y = np.array([3.0, 5.0]), np.array([2.0, 5.0])
    result = getattr(operator, name)(x, tt.tensor(y))
    assert isinstance(result, tt.Tensor)
    np.testing.assert_array_equal(result.data, getattr(operator, name)(x, y))
