"""Shapes, indices, pieces and joints, each against NumPy, and what they say to those who ask for the impossible."""

import numpy as np
import pytest

import tinytorch as tt

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def assert_same(tensor, array):
    array = np.asarray(array)
    assert isinstance(tensor, tt.Tensor)
    assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(tensor.numpy(), array)


SHAPING = {
    "reshape": (lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6)),
    "reshape, a tuple": (lambda x: x.reshape((4, 6)), lambda x: x.reshape(4, 6)),
    "reshape, -1": (lambda x: x.reshape(2, -1), lambda x: x.reshape(2, 12)),
    "view": (lambda x: x.view(-1), lambda x: x.ravel()),
    "view after transpose": (lambda x: x.transpose(0, 2).view(-1), lambda x: x.swapaxes(0, 2).ravel()),
    "permute": (lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "permute, a tuple": (lambda x: x.permute((-1, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "transpose": (lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 2)),
    "swapaxes": (lambda x: x.swapaxes(1, 2), lambda x: x.swapaxes(1, 2)),
    "T": (lambda x: x.T, lambda x: x.T),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda x: x[:, None]),
    "unsqueeze, last": (lambda x: x.unsqueeze(-1), lambda x: x[..., None]),
    "squeeze": (lambda x: x[:1, :, :1].squeeze(), lambda x: x[0, :, 0]),
    "squeeze, one axis": (lambda x: x[:1, :, :1].squeeze(-1), lambda x: x[:1, :, 0]),
    "squeeze, an axis that is longer": (lambda x: x.squeeze(0), lambda x: x),
    "expand": (lambda x: x[:, :1].expand(2, 5, 4), lambda x: np.repeat(x[:, :1], 5, axis=1)),
    "expand, new axis and -1": (lambda x: x.expand(7, -1, 3, -1), lambda x: np.stack([x] * 7)),
    "flatten": (lambda x: x.flatten(), lambda x: x.ravel()),
    "flatten, from": (lambda x: x.flatten(1), lambda x: x.reshape(2, 12)),
    "flatten, to": (lambda x: x.flatten(end_dim=-2), lambda x: x.reshape(6, 4)),
    "flatten, one axis": (lambda x: x.flatten(1, 1), lambda x: x),
}


class TestShape:
    @pytest.mark.parametrize("ours, numpys", SHAPING.values(), ids=SHAPING.keys())
    def test_against_numpy(self, ours, numpys):
        assert_same(ours(tt.tensor(X)), numpys(X))

    def test_the_functions_are_the_methods(self):
        x = tt.tensor(X)
        assert_same(tt.reshape(x, (6, 4)), X.reshape(6, 4))
        assert_same(tt.permute(x, (1, 0, 2)), X.transpose(1, 0, 2))
        assert_same(tt.transpose(x, 1, 2), X.swapaxes(1, 2))
        assert_same(tt.unsqueeze(x, 0), X[None])
        assert_same(tt.squeeze(tt.unsqueeze(x, 0)), X)
        assert_same(tt.flatten(x, 0, 1), X.reshape(6, 4))

    def test_without_axes(self):
        x = tt.tensor(1.5)
        assert_same(x.T, np.float32(1.5))
        assert_same(x.flatten(), np.array([1.5], np.float32))
        assert_same(x.reshape(1, 1), np.array([[1.5]], np.float32))
        assert_same(x.expand(2, 2), np.full((2, 2), 1.5, np.float32))

    def test_views_share_memory_and_clones_do_not(self):
        x = tt.tensor(X)
        assert np.shares_memory(x.reshape(6, 4).data, x.data)
        assert np.shares_memory(x.T.data, x.data)
        assert not np.shares_memory(x.clone().data, x.data)


class TestIndexing:
    @pytest.mark.parametrize(
        "index",
        [
            1,
            -1,
            np.int64(1),
            (1, 2, 3),
            slice(None, None, -1),
            (slice(None), slice(0, 3, 2)),
            (..., 0),
            (None, 1, ..., None),
            [1, 0, 1],
            ([0, 1], [2, 2]),
            (slice(None), [2, 0, 2]),
            ([1, 0], slice(None), [3, 3]),
            np.array([[1, 0], [0, 0]]),
            X > 5,
            (slice(None), [True, False, True]),
            [],
        ],
        ids=repr,
    )
    def test_against_numpy(self, index):
        assert_same(tt.tensor(X)[index], X[index])

    def test_tensors_pick_like_arrays(self):
        x, i = tt.tensor(X), np.array([2, 0, 2])
        assert_same(x[:, tt.tensor(i)], X[:, i])
        assert_same(x[tt.tensor(1)], X[1])
        assert_same(x[x > 5], X[X > 5])
        assert_same(x[tt.tensor([True, False]), 1], X[[True, False], 1])

    def test_a_list_that_picks_a_row_twice_adds_its_gradients(self):
        x = tt.ones(3, requires_grad=True)
        x[[2, 0, 2]].backward(np.array([1, 10, 100]))
        assert_same(x.grad, np.array([10, 0, 101], np.float32))

    def test_a_row_picked_by_a_positive_and_a_negative_number_adds_both(self):
        x = tt.ones(3, 2, requires_grad=True)
        x[tt.tensor([2, -1, 0])].backward(np.array([[1, 1], [10, 10], [100, 100]]))
        assert_same(x.grad, np.array([[100, 100], [0, 0], [11, 11]], np.float32))

    @pytest.mark.parametrize("dtype", [tt.float64, tt.float32])
    def test_one_element_passes_its_gradient_on_from_a_product(self, dtype):
        x = tt.ones(3, dtype=dtype, requires_grad=True)
        (x[1] * 3).backward()
        assert_same(x.grad, np.array([0, 3, 0], dtype))

    @pytest.mark.parametrize("index, message", [(2, "index 2 is out of bounds"), ((0, 0, 0, 0), "too many indices")])
    def test_places_that_are_not_there(self, index, message):
        with pytest.raises(IndexError, match=message):
            tt.tensor(X)[index]

    @pytest.mark.parametrize("index", [1.0, tt.tensor([0.0, 1.0]), np.ones(2), "a"], ids=repr)
    def test_what_is_no_index(self, index):
        with pytest.raises(IndexError, match="integer"):
            tt.tensor(X)[index]

    def test_a_mask_of_another_shape(self):
        with pytest.raises(IndexError, match="boolean index did not match"):
            tt.tensor(X)[tt.tensor([True, False, True])]


class TestGather:
    @pytest.mark.parametrize("dim", [0, 1, 2, -1])
    def test_is_numpys_take_along_axis(self, dim):
        shape = tuple(5 if axis == dim % 3 else size for axis, size in enumerate(X.shape))
        index = np.random.default_rng(0).integers(0, X.shape[dim], shape)
        assert_same(tt.tensor(X).gather(dim, tt.tensor(index)), np.take_along_axis(X, index, dim))

    def test_is_the_formula_of_its_docstring(self):
        x, index = X[0], np.array([[2, 0, 1, 1], [0, 0, 2, 2]])
        y = tt.gather(tt.tensor(x), 0, tt.tensor(index))
        assert_same(y, [[x[index[i][j]][j] for j in range(4)] for i in range(2)])

    def test_an_index_smaller_than_the_tensor_leaves_the_rest_out(self):
        """As in PyTorch, and unlike NumPy, sizes of 1 are not stretched."""
        assert_same(tt.tensor(X).gather(2, tt.tensor([[[3, 0]]])), X[:1, :1, [3, 0]])

    def test_what_is_picked_twice_learns_twice(self):
        x = tt.ones(2, 2, requires_grad=True)
        x.gather(1, tt.tensor([[1, 1, 0], [0, 0, 0]])).sum().backward()
        assert_same(x.grad, np.array([[1, 2], [3, 0]], np.float32))

    def test_the_index_needs_as_many_axes(self):
        with pytest.raises(ValueError, match=r"gather needs an index with 3 axes, but got shape \(2,\)"):
            tt.tensor(X).gather(0, tt.tensor([0, 1]))

    def test_places_that_are_not_there(self):
        with pytest.raises(IndexError, match="from 0 to 1 along axis 0, but got 2 to 2"):
            tt.tensor(X).gather(0, tt.tensor([[[2]]]))


class TestPieces:
    @pytest.mark.exercise("ex-01-7", points=3)
    @pytest.mark.parametrize("dim", [0, 1, -1])
    @pytest.mark.parametrize("size", [1, 2, 3, 10])
    def test_split_cuts_pieces_of_a_length(self, size, dim):
        pieces = tt.tensor(X).split(size, dim)
        expected = np.split(X, range(size, X.shape[dim], size), axis=dim)
        assert [piece.shape for piece in pieces] == [array.shape for array in expected]
        for piece, array in zip(pieces, expected, strict=True):
            assert_same(piece, array)

    @pytest.mark.exercise("ex-01-7", points=3)
    def test_split_cuts_pieces_of_given_lengths(self):
        a, b, c = tt.split(tt.tensor(X), [1, 0, 3], dim=-1)
        assert_same(a, X[..., :1])
        assert_same(b, X[..., 1:1])
        assert_same(c, X[..., 1:])

    @pytest.mark.exercise("ex-01-8", points=1)
    @pytest.mark.parametrize("n, chunks, lengths", [(7, 3, [3, 3, 1]), (6, 4, [2, 2, 2]), (3, 5, [1] * 3), (4, 1, [4])])
    def test_chunk_makes_at_most_so_many_as_in_pytorch(self, n, chunks, lengths):
        pieces = tt.arange(n).chunk(chunks)
        assert [len(piece) for piece in pieces] == lengths
        assert_same(tt.cat(pieces), np.arange(n))

    @pytest.mark.exercise("ex-01-8", points=1)
    def test_chunk_along_another_axis(self):
        assert [piece.shape for piece in tt.chunk(tt.tensor(X), 2, dim=-1)] == [(2, 3, 2), (2, 3, 2)]

    @pytest.mark.parametrize("size", [0, -1])
    def test_a_length_below_1_is_refused(self, size):
        with pytest.raises(ValueError, match=f"pieces of at least 1, but got {size}"):
            tt.arange(4).split(size)

    @pytest.mark.exercise("ex-01-7", points=3)
    @pytest.mark.parametrize("sizes", [[1, 2], [5], [5, -1]])
    def test_lengths_that_do_not_add_up_are_refused(self, sizes):
        with pytest.raises(ValueError, match="split needs lengths"):
            tt.arange(4).split(sizes)

    @pytest.mark.exercise("ex-01-8", points=1)
    def test_no_chunks_are_refused(self):
        with pytest.raises(ValueError, match="at least 1 chunk, but got 0"):
            tt.arange(4).chunk(0)


class TestJoints:
    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_cat(self, dim):
        other = X[:1] if dim == 0 else X[:, :1] if dim == 1 else X[..., :1]
        assert_same(tt.cat([tt.tensor(X), tt.tensor(other)], dim=dim), np.concatenate([X, other], axis=dim))

    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_stack(self, dim):
        assert_same(tt.stack((tt.tensor(X), tt.tensor(X + 1)), dim), np.stack([X, X + 1], axis=dim))

    def test_a_generator_of_tensors_will_do(self):
        assert_same(tt.cat(tt.tensor([float(i)]) for i in range(3)), np.arange(3, dtype=np.float32))
        assert_same(tt.stack(tt.tensor(X)), X)

    @pytest.mark.parametrize("join", [tt.cat, tt.stack])
    def test_nothing_to_join_is_refused(self, join):
        with pytest.raises(ValueError, match="needs at least one tensor, but got none"):
            join([])

    @pytest.mark.parametrize("join", [tt.cat, tt.stack])
    def test_numpys_word_for_the_axis_is_understood(self, join):
        pair = [tt.tensor(X), tt.tensor(X)]
        assert_same(join(pair, axis=1), join(pair, dim=1).numpy())

    def test_cat_names_the_sizes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"float32 \(2, 2\), float32 \(3, 3\).*Sizes must agree on every axis but"):
            tt.cat([tt.ones(2, 2), tt.ones(3, 3)])

    def test_stack_points_to_cat(self):
        with pytest.raises(ValueError, match=r"float32 \(2,\), float32 \(3,\).*use cat to join along an old one"):
            tt.stack([tt.ones(2), tt.ones(3)])


NO_SUCH_AXIS = {
    "transpose": lambda x: x.transpose(0, 5),
    "permute": lambda x: x.permute(0, 1, 5),
    "unsqueeze": lambda x: x.unsqueeze(5),
    "squeeze": lambda x: x.squeeze(5),
    "flatten, first": lambda x: x.flatten(5),
    "flatten, last": lambda x: x.flatten(0, 5),
    "split": lambda x: x.split(1, 5),
    "chunk": lambda x: x.chunk(2, 5),
    "gather": lambda x: x.gather(5, tt.zeros(2, 3, 4, dtype=tt.int64)),
    "cat": lambda x: tt.cat([x, x], dim=5),
    "stack": lambda x: tt.stack([x, x], dim=5),
}


class TestRefusals:
    @pytest.mark.parametrize("f", NO_SUCH_AXIS.values(), ids=NO_SUCH_AXIS.keys())
    def test_an_axis_that_is_not_there_is_named(self, f):
        with pytest.raises(IndexError, match=r"axis 5 is out of bounds for array of dimension [34]"):
            f(tt.tensor(X))

    def test_a_shape_with_other_elements(self):
        with pytest.raises(
            ValueError, match=r"reshape cannot work with \(float32 \(2, 3, 4\), 5, 5\).*as many elements"
        ):
            tt.tensor(X).reshape(5, 5)

    def test_two_sizes_to_be_worked_out(self):
        with pytest.raises(ValueError, match="one unknown dimension"):
            tt.tensor(X).reshape(-1, -1)

    @pytest.mark.parametrize("dims", [(0, 1), (0, 1, 1)])
    def test_permute_needs_every_axis_once(self, dims):
        with pytest.raises(ValueError, match="Name every axis once"):
            tt.tensor(X).permute(*dims)

    def test_only_axes_of_length_1_expand(self):
        with pytest.raises(ValueError, match=r"expand cannot work with \(float32 \(2, 3, 4\), 2, 5, 4\)"):
            tt.tensor(X).expand(2, 5, 4)

    def test_flatten_needs_its_axes_in_order(self):
        with pytest.raises(ValueError, match="flatten"):
            tt.tensor(X).flatten(2, 1)
