"""Pooling: the largest value or the mean of each window, and where their gradients go."""

import re

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.convolutions import avg_pool2d_composed, max_pool2d_composed
from tinytorch.testing import assert_close, check_grad


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def pool_by_definition(reduce, around, x, kernel_size, stride=None, padding=0):
    """`reduce` of each window, where the image is surrounded by the number `around`."""
    (kh, kw), (down, right), (ph, pw) = (pair(v) for v in (kernel_size, stride or kernel_size, padding))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=around)
    height, width = (x.shape[2] - kh) // down + 1, (x.shape[3] - kw) // right + 1
    y = np.zeros((*x.shape[:2], height, width))
    for b, c, i, j in np.ndindex(y.shape):
        y[b, c, i, j] = reduce(x[b, c, i * down : i * down + kh, j * right : j * right + kw])
    return y


# ---- the twins, known by hand


@pytest.mark.exercise("ex-09-6", points=1)
def test_the_mean_of_each_window():
    x = tt.tensor([[[[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 7.0, 6.0]]]])
    assert avg_pool2d_composed(x, 2).tolist() == [[[[3.25, 3.75]]]]


@pytest.mark.exercise("ex-09-7", points=2)
def test_the_largest_value_of_each_window():
    x = tt.tensor([[[[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 7.0, 6.0]]]])
    assert max_pool2d_composed(x, 2).tolist() == [[[[5.0, 7.0]]]]


@pytest.mark.exercise("ex-09-7", points=2)
def test_padding_never_wins_where_all_numbers_are_negative():
    x = tt.tensor([[[[-5.0, -3.0, -4.0]]]])
    assert max_pool2d_composed(x, (1, 3), 1, (0, 1)).tolist() == [[[[-3.0, -3.0, -3.0]]]]


# ---- the definition

POOLS = {
    "max": (tt.max_pool2d, max_pool2d_composed, np.max, -np.inf),
    "avg": (tt.avg_pool2d, avg_pool2d_composed, np.mean, 0.0),
}
every_pool = pytest.mark.parametrize(("pool", "composed", "reduce", "around"), POOLS.values(), ids=POOLS)
SETTINGS = {  # kernel_size, stride, padding
    "halves": (2,),
    "a_rest_is_left": ((2, 4),),
    "overlap": (3, 1),
    "gaps": (2, 3),
    "stride_for_each_axis": (2, (1, 2)),
    "padding": (3, 2, 1),
    "padding_for_each_axis": ((2, 5), (2, 1), (1, 2)),
    "one_element": (1,),
    "one_element_in_two": (1, 2),
    "all": ((5, 6),),
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
IMAGES = (2, 3, 5, 6)


@every_pool
@every_setting
def test_values_are_those_of_the_definition(pool, composed, reduce, around, settings):
    x = normal(*IMAGES)
    expected = pool_by_definition(reduce, around, x, *settings)
    assert_close(pool(tt.tensor(x), *settings), expected, 1e-13, 1e-14)
    assert_close(composed(tt.tensor(x), *settings), expected, 1e-13, 1e-14)


@every_pool
@every_setting
def test_gradients_are_those_of_finite_differences(pool, composed, reduce, around, settings):
    check_grad(lambda x: pool(x, *settings), normal(*IMAGES))


@pytest.mark.exercise("ex-09-6", points=1)
@pytest.mark.exercise("ex-09-7", points=2)
@every_pool
@every_setting
def test_fused_is_composed(pool, composed, reduce, around, settings):
    x = np.maximum(normal(*IMAGES), 0)  # after a ReLU there are ties
    results = []
    for function in (pool, composed):
        leaf = tt.tensor(x, requires_grad=True)
        y = function(leaf, *settings)
        y.backward(normal(*y.shape, seed=1))
        results.append((y, leaf.grad))
    for fused, twin in zip(*results):
        assert_close(twin, fused, 1e-12, 1e-13)


@pytest.mark.parametrize(
    ("of_signals", "of_images"),
    [
        ((2,), ((1, 2),)),
        ((3, 1), ((1, 3), (1, 1))),
        ((2, 3), ((1, 2), (1, 3))),
        ((3, 2, 1), ((1, 3), (1, 2), (0, 1))),
        (((2,), (3,)), ((1, 2), (1, 3))),
    ],
)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_a_signal_is_an_image_of_height_1(kind, of_signals, of_images):
    pool, _, reduce, around = POOLS[kind]
    signal, x = getattr(tt, f"{kind}_pool1d"), normal(2, 3, 7)
    expected = pool_by_definition(reduce, around, x[:, :, None], *of_images)
    assert_close(pool(tt.tensor(x[:, :, None]), *of_images), expected, 1e-13, 1e-14)
    assert_close(signal(tt.tensor(x), *of_signals), expected[:, :, 0], 1e-13, 1e-14)
    check_grad(lambda x: signal(x, *of_signals), x)


# ---- known by hand


def test_the_largest_value_takes_the_whole_gradient():
    x = tt.tensor([[[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 7.0, 6.0]]], requires_grad=True)
    y = tt.max_pool2d(x.unsqueeze(0), 2)
    assert y.tolist() == [[[[5.0, 7.0]]]]
    y.backward(np.array([[[[10.0, 20.0]]]], np.float32))
    assert x.grad.tolist() == [[[0, 10, 0, 0], [0, 0, 20, 0]]]


def test_of_equal_values_the_first_takes_the_gradient():
    x = tt.ones(1, 1, 4, 4, requires_grad=True)
    tt.max_pool2d(x, 2).sum().backward()
    assert x.grad.tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]]]


def test_a_value_that_wins_in_two_windows_gets_both_gradients():
    x = tt.tensor([[[1.0, 9.0, 2.0]]], requires_grad=True)
    y = tt.max_pool1d(x, 2, 1)
    y.backward(np.array([[[3.0, 4.0]]], np.float32))
    assert x.grad.tolist() == [[[0, 7, 0]]]


def test_padding_never_wins_against_a_number():
    x = tt.tensor([[[-5.0, -3.0, -4.0]]], requires_grad=True)
    y = tt.max_pool1d(x, 3, 1, 1)
    assert y.tolist() == [[[-3.0, -3.0, -3.0]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[0, 3, 0]]]


def test_padding_counts_in_a_mean():
    x = tt.tensor([[[6.0, 3.0]]], requires_grad=True)
    y = tt.avg_pool1d(x, 2, 2, 1)
    assert y.tolist() == [[[3.0, 1.5]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[0.5, 0.5]]]


def test_not_a_number_is_not_hidden():
    x = normal(1, 1, 4, 4)
    x[0, 0, 1, 1] = np.nan
    for pool in (tt.max_pool2d, tt.avg_pool2d):
        y = pool(tt.tensor(x), 2).numpy()
        assert np.isnan(y[0, 0, 0, 0]) and np.isfinite(y.ravel()[1:]).all()


@pytest.mark.parametrize("pool", [tt.max_pool2d, tt.avg_pool2d])
def test_a_window_over_everything_is_a_reduction(pool):
    x = tt.tensor(normal(2, 3, 4, 5))
    expected = x.amax((2, 3)) if pool is tt.max_pool2d else x.mean((2, 3))
    assert_close(pool(x, (4, 5)), expected.reshape(2, 3, 1, 1), 1e-13, 1e-14)


# ---- memory


def in_memory_as(order, array):
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("order", [(1, 2, 3, 0), (0, 2, 3, 1), (3, 2, 1, 0)])
@pytest.mark.parametrize("settings", [(2,), (3, 1, 1)], ids=str)
@every_pool
def test_the_order_in_memory_does_not_matter(pool, composed, reduce, around, settings, order):
    x, g = normal(*IMAGES), None
    results = []
    for array in (x, in_memory_as(order, x)):
        leaf = tt.Tensor(array, requires_grad=True)
        y = pool(leaf, *settings)
        g = normal(*y.shape, seed=1)
        y.backward(g if array is x else in_memory_as(order, g))
        results.append((y, leaf.grad))
    for plain, turned in zip(*results):
        assert_close(plain, turned, 1e-13, 1e-14)


@every_pool
def test_no_images_give_no_outputs(pool, composed, reduce, around):
    x = tt.zeros(0, 3, 4, 4, requires_grad=True)
    y = pool(x, 2)
    assert y.shape == (0, 3, 2, 2)
    y.backward(np.zeros(y.shape))
    assert x.grad.shape == x.shape


# ---- what makes no sense

FUNCTIONS = [tt.max_pool1d, tt.avg_pool1d, tt.max_pool2d, tt.avg_pool2d]
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def axes_of(function):
    return 1 if function.__name__.endswith("1d") else 2


@every_function
@pytest.mark.parametrize("more", [-1, 1])
def test_inputs_with_another_number_of_axes_are_refused(function, more):
    wanted = "(B, C, W)" if axes_of(function) == 1 else "(B, C, H, W)"
    with pytest.raises(ValueError, match=re.escape(f"{function.__name__} needs inputs of shape {wanted}, but got (")):
        function(tt.zeros((4,) * (axes_of(function) + 2 + more)), 2)


@every_function
def test_a_kernel_larger_than_the_input_is_refused(function):
    axes = axes_of(function)
    with pytest.raises(ValueError, match=r"at least as large as the span of its kernel, \(4,.*but got \(3,"):
        function(tt.zeros((1, 1) + (3,) * axes), 4)


@every_function
@pytest.mark.parametrize("name", ["kernel_size", "stride"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", (2, 0), (2, 2, 2)])
def test_sizes_that_cannot_be_are_refused(function, name, value):
    x = tt.zeros((1, 1) + (5,) * axes_of(function))
    with pytest.raises(ValueError, match=rf"{name} needs an integer of at least 1.*but got {re.escape(repr(value))}"):
        function(x, **{"kernel_size": 2, name: value})


@every_function
@pytest.mark.parametrize("padding", [-1, 0.5, None, "same"])
def test_padding_that_cannot_be_is_refused(function, padding):
    x = tt.zeros((1, 1) + (5,) * axes_of(function))
    with pytest.raises(ValueError, match=rf"padding needs an integer of at least 0.*but got {padding!r}"):
        function(x, 2, padding=padding)


@every_function
def test_padding_of_more_than_half_the_kernel_is_refused(function):
    x = tt.zeros((1, 1) + (5,) * axes_of(function))
    function(x, 3, padding=1)
    with pytest.raises(ValueError, match=r"padding of at most half its kernel \(3,.*but got \(2,"):
        function(x, 3, padding=2)


@every_function
def test_images_of_integers_are_refused_with_the_remedy(function):
    x = tt.tensor(np.zeros((1, 1) + (5,) * axes_of(function), np.int64))
    with pytest.raises(TypeError, match=r"floating point inputs, but got int64. Convert them with x.float\(\)"):
        function(x, 2)


# ---- the layers

LAYERS = [tt.MaxPool1d, tt.AvgPool1d, tt.MaxPool2d, tt.AvgPool2d]
every_layer = pytest.mark.parametrize(
    ("layer", "function"), list(zip(LAYERS, FUNCTIONS)), ids=[c.__name__ for c in LAYERS]
)


@every_layer
@pytest.mark.parametrize("settings", [(2,), (3, 2), (3, 1, 1)], ids=str)
def test_a_layer_is_the_function_with_its_settings(layer, function, settings):
    x = tt.tensor(normal(2, 3, *(7, 8)[: axes_of(function)]))
    assert_close(layer(*settings)(x), function(x, *settings), 0, 0)
    names = ("kernel_size", "stride", "padding")
    assert_close(layer(**dict(zip(names, settings)))(x), function(x, *settings), 0, 0)
    assert list(layer(*settings).parameters()) == [] and layer(*settings).state_dict() == {}


@every_layer
def test_a_layer_refuses_bad_settings_when_it_is_built(layer, function):
    with pytest.raises(ValueError, match="kernel_size needs an integer of at least 1"):
        layer(0)
    with pytest.raises(ValueError, match="stride needs an integer of at least 1"):
        layer(2, -1)
    with pytest.raises(ValueError, match="at most half its kernel"):
        layer(2, padding=2)


def test_repr_names_the_settings():
    assert repr(tt.MaxPool2d(2)) == "MaxPool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))"
    assert repr(tt.AvgPool1d(3, 2, 1)) == "AvgPool1d(kernel_size=(3,), stride=(2,), padding=(1,))"


@pytest.mark.parametrize(
    ("settings", "shape"),
    [((), (2, 60)), ((0,), (120,)), ((2,), (2, 3, 20)), ((1, 2), (2, 12, 5)), ((-2, -1), (2, 3, 20))],
)
def test_flatten_joins_axes_in_order(settings, shape):
    x = normal(2, 3, 4, 5)
    assert_close(tt.Flatten(*settings)(tt.tensor(x)), x.reshape(shape), 0, 0)


def test_flatten_undoes_nothing_but_the_shape():
    """The output of a convolution lies in memory in another order than it shows, which flatten must not."""
    y = tt.conv2d(tt.tensor(normal(3, 2, 5, 5)), tt.tensor(normal(4, 2, 3, 3)))
    flat = tt.Flatten()(y).numpy()
    for b, c, i, j in np.ndindex(y.shape):
        assert flat[b, c * 9 + i * 3 + j] == y.data[b, c, i, j]
    assert repr(tt.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
