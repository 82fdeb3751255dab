"""An embedding looks rows up, adds up the gradients of rows that were looked up often, and refuses other ids."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.embeddings import embedding_composed
from tinytorch.testing import assert_close, check_grad


def table(rows=5, width=3, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width))


@pytest.mark.exercise("ex-11-1", points=1)
@pytest.mark.exercise("ex-11-2", points=3)
@pytest.mark.parametrize("ids", [2, [0], [4, 0, 4], [[1, 2], [3, 3], [0, 1]], [[[1], [2]]]])
@pytest.mark.parametrize("function", [tt.embedding, embedding_composed])
def test_ids_give_the_rows_of_those_numbers(function, ids):
    weight = table()
    y = function(tt.tensor(ids), tt.tensor(weight))
    assert y.shape == (*np.shape(ids), 3)
    for position in np.ndindex(np.shape(ids)):
        assert_close(y[position], weight[np.asarray(ids)[position]], 0, 0)


def test_no_ids_give_no_rows():
    weight = tt.tensor(table(), requires_grad=True)
    y = tt.embedding(tt.zeros(2, 0, dtype=tt.int64), weight)
    assert y.shape == (2, 0, 3)
    y.sum().backward()
    assert_close(weight.grad, np.zeros((5, 3)), 0, 0)


@pytest.mark.exercise("ex-11-1", points=1)
@pytest.mark.exercise("ex-11-2", points=3)
@pytest.mark.parametrize("ids", [2, [0, 3], [4, 4, 4], [[1, 2], [2, 1]]])
def test_gradient_is_that_of_finite_differences_and_of_the_composed_twin(ids):
    check_grad(lambda weight: tt.embedding(tt.tensor(ids), weight), table())
    g, weights = table(np.size(ids), 3, seed=1).reshape(*np.shape(ids), 3), []
    for function in (tt.embedding, embedding_composed):
        weights.append(tt.tensor(table(), requires_grad=True))
        function(tt.tensor(ids), weights[-1]).backward(g)
    assert_close(weights[0].grad, weights[1].grad, 1e-14, 1e-14)


@pytest.mark.exercise("ex-11-2", points=3)
def test_a_row_looked_up_many_times_adds_up_all_its_gradients():
    rng = np.random.default_rng(0)
    ids, g = rng.integers(0, 20, (30, 40)), rng.standard_normal((30, 40, 3))
    weight = tt.tensor(table(25), requires_grad=True)
    tt.embedding(tt.tensor(ids), weight).backward(g)
    expected = np.zeros((25, 3))
    for row, gradient in zip(ids.ravel(), g.reshape(-1, 3)):
        expected[row] += gradient
    assert_close(weight.grad, expected, 1e-12, 1e-12)
    assert not weight.grad.data[20:].any()  # never looked up


@pytest.mark.exercise("ex-11-2", points=3)
@pytest.mark.exercise("ex-11-3", points=2)
@pytest.mark.parametrize("padding_idx", [0, 3, -1])
def test_the_padding_starts_as_zeros_and_never_learns(padding_idx):
    layer = tt.Embedding(5, 3, padding_idx=padding_idx)
    assert not layer.weight.data[padding_idx].any()
    assert np.delete(layer.weight.data, padding_idx, axis=0).all()
    layer(tt.arange(5)).sum().backward()
    expected = np.ones((5, 3))
    expected[padding_idx] = 0
    assert_close(layer.weight.grad, expected, 0, 0)


def test_a_padding_that_was_loaded_is_looked_up_like_any_row():
    layer = tt.Embedding(5, 3, padding_idx=1)
    layer.load_state_dict({"weight": table()})
    assert_close(layer(tt.tensor([1, 2])), table()[1:3])


@pytest.mark.parametrize("padding_idx", [5, -6])
def test_a_padding_outside_the_table_is_refused(padding_idx):
    with pytest.raises(IndexError, match="padding_idx"):
        tt.Embedding(5, 3, padding_idx=padding_idx)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_ids_can_be_any_integers(dtype):
    assert_close(tt.embedding(tt.tensor(np.array([3, 0], dtype)), tt.tensor(table())), table()[[3, 0]], 0, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_that_of_the_table(dtype):
    weight = tt.tensor(table().astype(dtype), requires_grad=True)
    y = tt.embedding(tt.tensor([1, 1]), weight)
    y.sum().backward()
    assert y.dtype == weight.grad.dtype == dtype


@pytest.mark.parametrize("ids", [[1.0, 2.0], [True, False]])
def test_ids_that_are_no_integers_are_refused(ids):
    with pytest.raises(TypeError, match=r"embedding needs a tensor of integer ids, but got (float32|bool)"):
        tt.Embedding(5, 3)(tt.tensor(ids))


@pytest.mark.exercise("ex-11-2", points=3)
@pytest.mark.parametrize(("ids", "came"), [([0, 5], "0 to 5"), ([-1, 2], "-1 to 2"), (7, "7 to 7")])
def test_ids_outside_the_table_are_refused(ids, came):
    with pytest.raises(IndexError, match=rf"needs ids from 0 to 4, but got {came}.*the same vocabulary"):
        tt.Embedding(5, 3)(tt.tensor(ids))


@pytest.mark.parametrize("size", [0, -3, 1.5, True])
@pytest.mark.parametrize("name", ["num_embeddings", "embedding_dim"])
def test_sizes_that_cannot_be_are_refused(name, size):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, but got {size}"):
        tt.Embedding(**{"num_embeddings": 2, "embedding_dim": 2, name: size})


@pytest.mark.exercise("ex-11-3", points=2)
def test_weights_start_standard_normal():
    weight = tt.Embedding(500, 80, generator=tt.Generator(0)).weight.detach().numpy()
    assert abs(weight.mean()) < 5 / math.sqrt(weight.size)
    assert_close(weight.std(), 1.0, rtol=0.02)
    assert_close(np.mean(np.abs(weight) < 1), math.erf(math.sqrt(0.5)), atol=0.01)


def test_a_generator_decides_the_weights():
    one, same, other = (tt.Embedding(3, 4, generator=tt.Generator(seed)).weight.data for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_layer_holds_one_table():
    layer = tt.Embedding(5, 3)
    assert [(name, p.shape, p.dtype) for name, p in layer.named_parameters()] == [("weight", (5, 3), tt.float32)]
    assert repr(layer) == "Embedding(5, 3)"
