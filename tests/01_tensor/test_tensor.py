"""What a tensor shows and gives away: its repr, its numbers, its memory, and what it refuses to be."""

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
