"""The causal convolution: each channel's kernel reaches a few tokens back, never forward, never into another text."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import causal_conv1d_composed
from tinytorch.testing import assert_close, check_grad

both = pytest.mark.parametrize("function", [tt.causal_conv1d, causal_conv1d_composed])
DOCUMENTS = np.array([[0, 0, 1, 1, 1, 2, 2], [3, 4, 4, 4, 4, 4, 5]])
SHAPES = {  # steps and taps
    "usual": (7, 4),
    "one_tap": (7, 1),
    "one_step": (1, 4),
    "as_many_taps_as_steps": (4, 4),
    "more_taps_than_steps": (2, 5),
}
every_shape = pytest.mark.parametrize(("time", "width"), SHAPES.values(), ids=SHAPES)


def inputs(time=7, width=4, batch=2, channels=3):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((batch, time, channels), (channels, 1, width), (channels,))]


def conv_by_definition(x, weight, bias=None, documents=None):
    """One number of the output at a time."""
    y = np.zeros(x.shape)
    for b, t, e in np.ndindex(x.shape):
        y[b, t, e] = 0 if bias is None else bias[e]
        for back in range(min(weight.shape[2], t + 1)):  # how far back; the last tap is for the token itself
            if documents is None or documents[b, t - back] == documents[b, t]:
                y[b, t, e] += weight[e, 0, -1 - back] * x[b, t - back, e]
    return y


@pytest.mark.exercise("ex-14-4", points=3)
@both
def test_the_last_tap_is_for_the_token_itself(function):
    x, weight = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1), np.array([100.0, 10.0, 1.0]).reshape(1, 1, 3)
    assert function(tt.Tensor(x), tt.Tensor(weight)).flatten().tolist() == [1, 12, 124, 248]


@pytest.mark.exercise("ex-14-4", points=3)
@both
@every_shape
@pytest.mark.parametrize("has_bias", [False, True], ids=["no_bias", "bias"])
def test_values_are_those_of_the_definition(function, time, width, has_bias):
    arrays = inputs(time, width)[: 3 if has_bias else 2]
    assert_close(function(*map(tt.Tensor, arrays)), conv_by_definition(*arrays), 1e-13, 1e-14)


@pytest.mark.exercise("ex-14-4", points=3)
@both
@pytest.mark.parametrize("width", [1, 2, 4, 9])
def test_no_tap_reaches_into_another_document(function, width):
    arrays = inputs(7, width)
    y = function(*map(tt.Tensor, arrays), documents=tt.tensor(DOCUMENTS))
    assert_close(y, conv_by_definition(*arrays, DOCUMENTS), 1e-13, 1e-14)


@pytest.mark.exercise("ex-14-4", points=3)
@both
def test_documents_in_one_row_are_those_that_run_alone(function):
    x, weight, bias = map(tt.Tensor, inputs(9, batch=1))
    together = function(x, weight, bias, tt.tensor([[0] * 4 + [1] * 2 + [0] * 3]))  # a number may come again
    alone = [function(x[:, first:end], weight, bias) for first, end in ((0, 4), (4, 6), (6, 9))]
    assert_close(together[:, :6], tt.cat(alone[:2], dim=1), 1e-13, 1e-14)


@both
def test_a_token_changes_itself_and_the_next_width_minus_one(function):
    x, weight, bias = inputs(9)
    before = function(*map(tt.Tensor, (x, weight, bias))).data
    x[:, 3] += 1
    changed = np.abs(function(*map(tt.Tensor, (x, weight, bias))).data - before).max(axis=(0, 2)) > 0
    assert np.flatnonzero(changed).tolist() == [3, 4, 5, 6]


def test_it_is_the_depthwise_convolution_of_lesson_9_with_zeros_before_it():
    x, weight, bias = inputs(7)
    padded = np.pad(x, ((0, 0), (3, 0), (0, 0))).swapaxes(1, 2)
    expected = tt.conv1d(*map(tt.Tensor, (padded, weight, bias)), groups=3).transpose(1, 2)
    assert_close(tt.causal_conv1d(*map(tt.Tensor, (x, weight, bias))), expected, 1e-12, 1e-13)


@every_shape
@pytest.mark.parametrize("packed", [False, True], ids=["one_document", "documents"])
def test_gradients_are_those_of_finite_differences(time, width, packed):
    documents = tt.tensor(DOCUMENTS[:, :time]) if packed else None
    check_grad(lambda *x: tt.causal_conv1d(*x, documents=documents), *inputs(time, width))
    check_grad(lambda *x: tt.causal_conv1d(*x, documents=documents), *inputs(time, width)[:2])


@pytest.mark.exercise("ex-14-4", points=3)
@every_shape
@pytest.mark.parametrize("packed", [False, True], ids=["one_document", "documents"])
def test_fused_is_composed_both_ways(time, width, packed):
    documents, results = tt.tensor(DOCUMENTS[:, :time]) if packed else None, []
    for function in (tt.causal_conv1d, causal_conv1d_composed):
        leaves = [tt.Tensor(x, requires_grad=True) for x in inputs(time, width)]
        y = function(*leaves, documents)
        y.backward(np.random.default_rng(1).standard_normal(y.shape))
        results.append([y, *(leaf.grad for leaf in leaves)])
    for fused, composed in zip(*results):
        assert_close(fused, composed, 1e-12, 1e-13)


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_and_inputs_are_left_alone(function, dtype):
    leaves = [tt.Tensor(x.astype(dtype), requires_grad=True) for x in inputs()]
    y = function(*leaves, tt.tensor(DOCUMENTS))
    y.sum().backward()
    assert {tensor.dtype for tensor in (y, *(leaf.grad for leaf in leaves))} == {np.dtype(dtype)}
    for leaf, x in zip(leaves, inputs()):
        assert_close(leaf, x.astype(dtype), 0, 0)


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (7, 3), r"x of shape \(batch, time, channels\), none of them 0, but got \(7, 3\)"),
        (0, (2, 0, 3), r"x of shape .* none of them 0, but got \(2, 0, 3\)"),
        (1, (3, 4), r"a weight of shape \(3, 1, taps\), one kernel for each channel, but got \(3, 4\)"),
        (1, (3, 3, 4), r"a weight of shape \(3, 1, taps\).* but got \(3, 3, 4\)"),
        (1, (4, 1, 4), r"a weight of shape \(3, 1, taps\).* but got \(4, 1, 4\)"),
        (1, (3, 1, 0), r"a weight of shape \(3, 1, taps\).* but got \(3, 1, 0\)"),
        (2, (4,), r"a bias of shape \(3,\), but got \(4,\)"),
        (3, (7,), r"documents of shape \(2, 7\), but got \(7,\)"),
        (3, (2, 8), r"documents of shape \(2, 7\), but got \(2, 8\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(place, shape, message):
    given = [*map(tt.Tensor, inputs()), tt.tensor(DOCUMENTS)]
    given[place] = tt.ones(*shape)
    with pytest.raises(ValueError, match=f"causal_conv1d needs {message}"):
        tt.causal_conv1d(*given)
