"""A convolution takes the product of its kernels with what lies under them, at every place, forward and backward."""

import math
import re

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.convolutions import conv2d_composed
from tinytorch.convolutions.convolution import _columns, _columns_back
from tinytorch.convolutions.windows import at_each_place, places
from tinytorch.testing import assert_close, check_grad


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def conv_by_definition(x, weight, bias=None, stride=1, pads=((0, 0), (0, 0)), dilation=1, groups=1):
    """One number of the output at a time. `pads` are the zeros (before, after) each axis of the image."""
    x = np.pad(x, ((0, 0), (0, 0), *pads))
    (down, right), (dh, dw) = pair(stride), pair(dilation)
    filters, depth, kh, kw = weight.shape
    height = (x.shape[2] - dh * (kh - 1) - 1) // down + 1
    width = (x.shape[3] - dw * (kw - 1) - 1) // right + 1
    y = np.zeros((len(x), filters, height, width))
    for b, f, r, c in np.ndindex(y.shape):
        first = f // (filters // groups) * depth  # of the channels that this filter sees
        for channel, i, j in np.ndindex(depth, kh, kw):
            y[b, f, r, c] += x[b, first + channel, r * down + i * dh, c * right + j * dw] * weight[f, channel, i, j]
        y[b, f, r, c] += 0 if bias is None else bias[f]
    return y


IMAGES = (2, 4, 5, 6)
SETTINGS = {  # the weight, the settings, and the padding they mean
    "plain": ((3, 4, 3, 3), {}, (0, 0)),
    "kernel_of_2_by_3": ((3, 4, 2, 3), {}, (0, 0)),
    "kernel_of_1": ((3, 4, 1, 1), {}, (0, 0)),
    "kernel_as_large_as_the_image": ((3, 4, 5, 6), {}, (0, 0)),
    "stride": ((3, 4, 3, 3), {"stride": 2}, (0, 0)),
    "stride_for_each_axis": ((3, 4, 2, 2), {"stride": (3, 1)}, (0, 0)),
    "stride_beyond_the_image": ((3, 4, 3, 3), {"stride": 9}, (0, 0)),
    "padding": ((3, 4, 3, 3), {"padding": 1}, (1, 1)),
    "padding_for_each_axis": ((3, 4, 3, 3), {"padding": (2, 0)}, (2, 0)),
    "padding_beyond_the_kernel": ((3, 4, 2, 2), {"padding": 3}, (3, 3)),
    "valid": ((3, 4, 3, 3), {"padding": "valid"}, (0, 0)),
    "same": ((3, 4, 3, 5), {"padding": "same"}, (1, 2)),
    "same_with_an_even_kernel": ((3, 4, 2, 4), {"padding": "same"}, ((0, 1), (1, 2))),
    "same_with_dilation": ((3, 4, 2, 3), {"padding": "same", "dilation": (3, 2)}, ((1, 2), (2, 2))),
    "dilation": ((3, 4, 2, 3), {"dilation": 2}, (0, 0)),
    "dilation_for_each_axis": ((3, 4, 3, 2), {"dilation": (1, 4)}, (0, 0)),
    "groups": ((6, 2, 3, 3), {"groups": 2}, (0, 0)),
    "depthwise": ((4, 1, 3, 3), {"groups": 4, "padding": 1}, (1, 1)),
    "depthwise_with_two_filters_each": ((8, 1, 2, 2), {"groups": 4}, (0, 0)),
    "all": ((6, 2, 2, 3), {"stride": (2, 1), "padding": (1, 2), "dilation": (3, 2), "groups": 2}, (1, 2)),
}
every_setting = pytest.mark.parametrize(("weight", "settings", "padding"), SETTINGS.values(), ids=SETTINGS)
both = pytest.mark.parametrize("function", [tt.conv2d, conv2d_composed])


def arrays(weight, bias=True):
    return [normal(*IMAGES), normal(*weight, seed=1), normal(weight[0], seed=2)][: 3 if bias else 2]


def expected(inputs, settings, padding):
    settings = {name: value for name, value in settings.items() if name != "padding"}
    return conv_by_definition(*inputs, **settings, pads=tuple(map(pair, padding)))


# ---- the pieces, known by hand


@pytest.mark.exercise("ex-09-1", points=2)
@pytest.mark.parametrize(
    ("kernel", "size", "stride", "dilation", "standing"),
    [
        (2, 4, 1, 1, [[0, 1, 2], [1, 2, 3]]),
        (3, 5, 1, 1, [[0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        (3, 7, 2, 1, [[0, 2, 4], [1, 3, 5], [2, 4, 6]]),
        (3, 8, 2, 1, [[0, 2, 4], [1, 3, 5], [2, 4, 6]]),
        (3, 6, 1, 2, [[0, 1], [2, 3], [4, 5]]),
        (2, 9, 3, 2, [[0, 3, 6], [2, 5, 8]]),
        (4, 4, 1, 1, [[0], [1], [2], [3]]),
    ],
)
def test_each_element_of_a_kernel_stands_at_its_places(kernel, size, stride, dilation, standing):
    assert [list(range(size))[place] for place in places(kernel, size, stride, dilation)] == standing


@pytest.mark.exercise("ex-09-2", points=2)
def test_each_column_of_a_kernel_sees_the_numbers_at_its_places():
    x = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).reshape(1, 2, 4, 1)
    y = _columns(x, [slice(0, 3), slice(1, 4)])
    assert y.shape == (1, 2, 2, 3, 1)
    assert y[0, :, :, :, 0].tolist() == [[[1, 2, 3], [5, 6, 7]], [[2, 3, 4], [6, 7, 8]]]


@pytest.mark.exercise("ex-09-3", points=2)
def test_a_number_that_was_seen_twice_gets_both_gradients():
    d = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]).reshape(1, 2, 1, 3, 1)
    dx = _columns_back(d, [slice(0, 3), slice(1, 4)], (1, 1, 5, 1))
    assert dx.shape == (1, 1, 5, 1)
    assert dx.ravel().tolist() == [1, 12, 23, 30, 0]


@pytest.mark.exercise("ex-09-4", points=3)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "sums"),
    [
        ((2, 2), (1, 1), (1, 1), [[10, 14, 18], [26, 30, 34]]),
        ((2, 2), (1, 2), (1, 1), [[10, 18], [26, 34]]),
        ((2, 1), (2, 1), (1, 1), [[4, 6, 8, 10]]),
        ((2, 2), (1, 1), (2, 3), [[22]]),
    ],
)
def test_a_function_is_asked_about_the_window_at_each_place(kernel, stride, dilation, sums):
    x = tt.arange(12.0).reshape(1, 1, 3, 4)
    y = at_each_place(lambda window: window.sum((2, 3)), x, kernel, stride, dilation)
    assert y.tolist() == [[sums]]


# ---- the definition


@pytest.mark.exercise("ex-09-1", points=2)
@pytest.mark.exercise("ex-09-4", points=3)
@pytest.mark.exercise("ex-09-5", points=3)
@both
@every_setting
@pytest.mark.parametrize("bias", [True, False])
def test_values_are_those_of_the_definition(function, weight, settings, padding, bias):
    inputs = arrays(weight, bias)
    y = function(*map(tt.tensor, inputs), **settings)
    assert_close(y, expected(inputs, settings, padding), 1e-12, 1e-12)


@pytest.mark.exercise("ex-09-2", points=2)
@pytest.mark.exercise("ex-09-3", points=2)
@every_setting
def test_gradients_are_those_of_finite_differences(weight, settings, padding):
    check_grad(lambda *inputs: tt.conv2d(*inputs, **settings), *arrays(weight))


@pytest.mark.exercise("ex-09-4", points=3)
@pytest.mark.exercise("ex-09-5", points=3)
@every_setting
def test_fused_is_composed(weight, settings, padding):
    results = []
    for function in (tt.conv2d, conv2d_composed):
        leaves = [tt.tensor(array, requires_grad=True) for array in arrays(weight)]
        y = function(*leaves, **settings)
        y.backward(normal(*y.shape, seed=3))
        results.append([y, *(leaf.grad for leaf in leaves)])
    for fused, composed in zip(*results):
        assert_close(composed, fused, 1e-11, 1e-12)


# ---- known by hand


@pytest.mark.exercise("ex-09-2", points=2)
def test_an_edge_is_found_where_it_is():
    image = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    sobel = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    y = tt.conv2d(tt.tensor(image[None, None]), tt.tensor(sobel[None, None]))
    assert y.tolist() == [[[[4.0, 4.0]]]]


def test_kernels_are_not_flipped():
    x, kernel = tt.tensor([[[1.0, 2.0, 3.0, 4.0]]]), tt.tensor([[[1.0, 10.0]]])
    assert tt.conv1d(x, kernel).tolist() == [[[21.0, 32.0, 43.0]]]


def test_same_padding_of_an_even_kernel_is_longer_at_the_end():
    x, kernel = tt.tensor([[[1.0, 2.0, 3.0]]]), tt.ones(1, 1, 2)
    assert tt.conv1d(x, kernel, padding="same").tolist() == [[[3.0, 5.0, 3.0]]]


@pytest.mark.exercise("ex-09-3", points=2)
def test_the_gradient_of_an_input_is_how_often_it_was_seen():
    x = tt.zeros(1, 1, 3, 4, requires_grad=True)
    tt.conv2d(x, tt.ones(1, 1, 2, 2)).sum().backward()
    assert x.grad.tolist() == [[[[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]]]]


def test_a_kernel_of_1_by_1_is_a_linear_layer_at_each_place():
    x, weight, bias = normal(2, 4, 3, 5), normal(6, 4, seed=1), normal(6, seed=2)
    y = tt.conv2d(tt.tensor(x), tt.tensor(weight[:, :, None, None]), tt.tensor(bias))
    assert_close(y, np.moveaxis(np.moveaxis(x, 1, -1) @ weight.T + bias, -1, 1), 1e-12, 1e-12)


def test_a_kernel_as_large_as_the_image_is_a_linear_layer():
    x, weight = normal(2, 4, 3, 5), normal(6, 4, 3, 5, seed=1)
    y = tt.conv2d(tt.tensor(x), tt.tensor(weight))
    assert_close(y, (x.reshape(2, -1) @ weight.reshape(6, -1).T)[:, :, None, None], 1e-12, 1e-12)


def test_what_moves_in_the_image_moves_in_the_output():
    x, weight = np.zeros((1, 2, 9, 9)), normal(3, 2, 3, 3)
    x[:, :, 2:5, 2:5] = normal(1, 2, 3, 3, seed=1)
    moved = np.roll(x, (2, 1), axis=(2, 3))
    y, y_moved = (tt.conv2d(tt.tensor(image), tt.tensor(weight), padding=1).numpy() for image in (x, moved))
    assert_close(y_moved, np.roll(y, (2, 1), axis=(2, 3)), 1e-12, 1e-12)


def test_groups_are_convolutions_side_by_side():
    x, weight = normal(2, 6, 5, 5), normal(9, 2, 3, 3, seed=1)
    whole = tt.conv2d(tt.tensor(x), tt.tensor(weight), groups=3)
    parts = [tt.conv2d(tt.tensor(x[:, 2 * i : 2 * i + 2]), tt.tensor(weight[3 * i : 3 * i + 3])) for i in range(3)]
    assert_close(whole, tt.cat(parts, dim=1), 1e-12, 1e-12)


# ---- sizes


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "out"),
    [
        (28, 3, 1, 1, 1, 28),
        (28, 5, 1, 0, 1, 24),
        (28, 3, 2, 1, 1, 14),
        (8, 3, 2, 0, 1, 3),
        (224, 7, 2, 3, 1, 112),
        (7, 3, 1, 0, 3, 1),
        (7, 3, 1, 2, 2, 7),
        (5, 1, 3, 0, 1, 2),
        (3, 3, 5, 0, 4, None),
    ],
)
def test_sizes_are_those_of_the_formula(size, kernel, stride, padding, dilation, out):
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    signal, weight = tt.zeros(1, 1, size), tt.zeros(1, 1, kernel)
    if out is None:
        with pytest.raises(ValueError, match=r"span of its kernel, \(9,\), but got \(3,\)"):
            tt.conv1d(signal, weight, **settings)
    else:
        assert tt.conv1d(signal, weight, **settings).shape == (1, 1, out)
        images, weights = tt.zeros(2, 3, size, size), tt.zeros(4, 3, kernel, kernel)
        assert tt.conv2d(images, weights, **settings).shape == (2, 4, out, out)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_keeps_the_size(kernel, dilation):
    y = tt.conv2d(tt.zeros(1, 1, 5, 4), tt.zeros(2, 1, kernel, kernel), padding="same", dilation=dilation)
    assert y.shape == (1, 2, 5, 4)


def test_no_images_give_no_outputs_and_gradients_of_zero():
    leaves = [tt.zeros(0, 2, 5, 5, requires_grad=True), tt.ones(3, 2, 3, 3, requires_grad=True)]
    y = tt.conv2d(*leaves, padding=1)
    assert y.shape == (0, 3, 5, 5)
    y.backward(np.zeros(y.shape))
    assert leaves[0].grad.shape == (0, 2, 5, 5)
    assert_close(leaves[1].grad, np.zeros((3, 2, 3, 3)), 0, 0)


# ---- signals


@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_one_channel_is_numpys_correlation(mode):
    x, kernel = normal(9), normal(3, seed=1)
    padding = {"valid": 0, "full": 2, "same": "same"}[mode]
    y = tt.conv1d(tt.tensor(x[None, None]), tt.tensor(kernel[None, None]), padding=padding)
    assert_close(y[0, 0], np.correlate(x, kernel, mode), 1e-12, 1e-12)


@pytest.mark.parametrize(
    ("weight", "settings", "padding"),
    [
        ((3, 4, 3), {}, 0),
        ((3, 4, 2), {"stride": 2, "padding": (1,)}, 1),
        ((6, 2, 3), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}, 3),
        ((4, 1, 4), {"padding": "same", "groups": 4}, (1, 2)),
    ],
)
def test_a_signal_is_an_image_of_height_1(weight, settings, padding):
    x, weight, bias = normal(2, 4, 8), normal(*weight, seed=1), normal(weight[0], seed=2)
    y = tt.conv1d(*map(tt.tensor, (x, weight, bias)), **settings)
    in_images = {name: (1, value) for name, value in settings.items() if name in ("stride", "dilation")}
    groups = settings.get("groups", 1)
    pads = (0, 0), pair(padding)
    definition = conv_by_definition(x[:, :, None], weight[:, :, None], bias, pads=pads, groups=groups, **in_images)
    assert_close(y, definition[:, :, 0], 1e-12, 1e-12)
    check_grad(lambda *inputs: tt.conv1d(*inputs, **settings), x, weight, bias)


# ---- memory and precision


def in_memory_as(order, array):
    """The same array with its axes in that order in memory, from slowest to fastest."""
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0), (0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_the_order_in_memory_does_not_matter(order, padding):
    x, weight = normal(3, 4, 5, 6), normal(2, 4, 3, 3, seed=1)
    leaf, kernels = tt.Tensor(in_memory_as(order, x), requires_grad=True), tt.tensor(weight, requires_grad=True)
    y = tt.conv2d(leaf, kernels, padding=padding)
    assert_close(y, conv_by_definition(x, weight, pads=((padding, padding),) * 2), 1e-12, 1e-12)
    g = normal(*y.shape, seed=2)
    y.backward(in_memory_as(order, g))
    plain, plain_kernels = (tt.tensor(array, requires_grad=True) for array in (x, weight))
    conv2d_composed(plain, plain_kernels, padding=padding).backward(g)
    assert_close(leaf.grad, plain.grad, 1e-12, 1e-12)
    assert_close(kernels.grad, plain_kernels.grad, 1e-12, 1e-12)


def test_a_gradient_that_was_broadcast_will_do():
    x, weight = tt.tensor(normal(2, 3, 4, 5), requires_grad=True), tt.tensor(normal(2, 3, 3, 3), requires_grad=True)
    tt.conv2d(x, weight).mean((2, 3)).sum().backward()
    first = x.grad.numpy()
    x.grad = None
    y = tt.conv2d(x, weight)
    y.backward(np.full(y.shape, 1 / 6))
    assert_close(first, x.grad, 1e-12, 1e-12)


def test_two_gradients_through_one_graph_are_each_their_own():
    def leaves():
        return [tt.tensor(array, requires_grad=True) for array in arrays((3, 4, 3, 3))]

    twice = leaves()
    y = tt.conv2d(*twice)
    gradients = [normal(*y.shape, seed=seed) for seed in (3, 4)]
    for g in gradients:
        y.backward(g, retain_graph=True)
    once = leaves()
    tt.conv2d(*once).backward(sum(gradients))
    for leaf, other in zip(twice, once):
        assert_close(leaf.grad, other.grad, 1e-12, 1e-12)


def test_float32_is_exact_to_its_precision():
    inputs = [array.astype(np.float32) for array in (normal(8, 16, 9, 9), normal(8, 16, 3, 3, seed=1))]
    results = []
    for dtype in (np.float32, np.float64):
        leaves = [tt.tensor(array.astype(dtype), requires_grad=True) for array in inputs]
        y = tt.conv2d(*leaves, padding=1)
        y.backward(np.ones(y.shape, dtype))
        assert y.dtype == dtype
        results.append([y, *(leaf.grad for leaf in leaves)])
    for single, double in zip(*results):
        assert_close(single, double, 1e-4, 1e-4)


def test_a_kernel_is_recovered_from_what_it_did():
    x, wanted = tt.tensor(normal(16, 2, 6, 6).astype(np.float32)), normal(3, 2, 3, 3, seed=1).astype(np.float32)
    target = tt.conv2d(x, tt.tensor(wanted), padding=1)
    layer = tt.Conv2d(2, 3, 3, padding=1, generator=tt.Generator(0))
    optimizer = tt.Adam(layer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        tt.mse_loss(layer(x), target).backward()
        optimizer.step()
    assert_close(layer.weight, wanted, atol=0.01)
    assert_close(layer.bias, np.zeros(3), atol=0.01)


# ---- what makes no sense


@pytest.mark.parametrize(("function", "axes"), [(tt.conv1d, "(B, C, W)"), (tt.conv2d, "(B, C, H, W)")])
@pytest.mark.parametrize("more", [-2, -1, 1])
def test_inputs_with_another_number_of_axes_are_refused(function, axes, more):
    n = axes.count(",") + 1
    with pytest.raises(ValueError, match=re.escape(f"needs inputs of shape {axes}, but got (")):
        function(tt.zeros((3,) * (n + more)), tt.zeros((3,) * n))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_that_do_not_match_are_named(channels):
    with pytest.raises(ValueError, match=rf"needs inputs with 3 channels \(axis 1\), but got shape \(2, {channels}, 5"):
        tt.conv2d(tt.zeros(2, channels, 5, 5), tt.zeros(4, 3, 3, 3))


def test_channels_are_counted_over_all_groups():
    with pytest.raises(ValueError, match=r"groups=2 needs inputs with 6 channels \(axis 1\), but got shape \(2, 3, 5"):
        tt.conv2d(tt.zeros(2, 3, 5, 5), tt.zeros(4, 3, 3, 3), groups=2)


@pytest.mark.parametrize("shape", [(4, 3, 3), (4, 3, 3, 3, 3), (4, 3, 0, 3), (0, 3, 3, 3), (4, 0, 3, 3), ()])
def test_weights_that_cannot_be_are_refused(shape):
    with pytest.raises(ValueError, match=rf"weight of shape \(F, C / groups, kh, kw\).*{re.escape(str(shape))}"):
        tt.conv2d(tt.zeros(2, 3, 5, 5), tt.zeros(shape))


def test_filters_that_the_groups_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"F divisible by groups=2, but got \(3, 2, 3\)"):
        tt.conv1d(tt.zeros(1, 4, 5), tt.zeros(3, 2, 3), groups=2)


@pytest.mark.parametrize(
    ("size", "settings", "came"),
    [((2, 5), {}, "(2, 5)"), ((5, 4), {"dilation": 2}, "(5, 4)"), ((1, 0), {"padding": 1}, "(3, 2)")],
)
def test_an_image_smaller_than_the_kernel_is_refused(size, settings, came):
    with pytest.raises(ValueError, match=re.escape(f"but got {came}, padding included. Use a smaller kernel")):
        tt.conv2d(tt.zeros(1, 1, *size), tt.zeros(1, 1, 3, 3), **settings)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1)])
def test_a_bias_that_is_not_one_number_per_filter_is_refused(shape):
    with pytest.raises(ValueError, match=rf"bias of shape \(4,\), .* but got {re.escape(str(shape))}"):
        tt.conv2d(tt.zeros(2, 3, 5, 5), tt.zeros(4, 3, 3, 3), tt.zeros(shape))


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "same", (1, 0), (1,), (1, 1, 1)])
def test_steps_that_cannot_be_are_refused(name, value):
    message = rf"{name} needs an integer of at least 1, or 2 of them, but got {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        tt.conv2d(tt.zeros(1, 1, 5, 5), tt.zeros(1, 1, 3, 3), **{name: value})
    with pytest.raises(ValueError, match=message):
        tt.Conv2d(1, 1, 3, **{name: value})


@pytest.mark.parametrize("value", [-1, 1.5, None, (1, -1), (1,), ((1, 1), (1, 1))])
def test_padding_that_cannot_be_is_refused(value):
    message = f"padding needs an integer of at least 0, or 2 of them, but got {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        tt.conv2d(tt.zeros(1, 1, 5, 5), tt.zeros(1, 1, 3, 3), padding=value)
    with pytest.raises(ValueError, match=message):
        tt.Conv2d(1, 1, 3, padding=value)


def test_an_unknown_word_for_padding_is_refused():
    with pytest.raises(ValueError, match="padding needs integers, 'same' or 'valid', but got 'full'"):
        tt.conv1d(tt.zeros(1, 1, 5), tt.zeros(1, 1, 3), padding="full")


@pytest.mark.parametrize("stride", [2, (1, 2)])
def test_same_padding_with_a_stride_is_refused(stride):
    with pytest.raises(ValueError, match="padding='same' needs stride 1"):
        tt.conv2d(tt.zeros(1, 1, 5, 5), tt.zeros(1, 1, 3, 3), stride=stride, padding="same")
    with pytest.raises(ValueError, match="padding='same' needs stride 1"):
        tt.Conv2d(1, 1, 3, stride=stride, padding="same")


@pytest.mark.parametrize("groups", [0, -1, 1.5])
def test_a_number_of_groups_that_cannot_be_is_refused(groups):
    with pytest.raises(ValueError, match=f"groups needs an integer of at least 1, but got {groups}"):
        tt.conv2d(tt.zeros(1, 1, 5, 5), tt.zeros(1, 1, 3, 3), groups=groups)


def test_images_of_integers_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"floating point inputs, but got int64. Convert them with x.float\(\)"):
        tt.conv2d(tt.tensor(np.zeros((1, 1, 5, 5), np.int64)), tt.zeros(1, 1, 3, 3))


# ---- the layers


LAYERS = {
    "1d": (tt.Conv1d, tt.conv1d, (2, 4, 9)),
    "2d": (tt.Conv2d, tt.conv2d, (2, 4, 9, 8)),
}
every_layer = pytest.mark.parametrize(("layer", "function", "shape"), LAYERS.values(), ids=LAYERS)


@every_layer
@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}, {"groups": 2, "bias": False}],
    ids=str,
)
def test_a_layer_is_the_function_with_its_parameters(layer, function, shape, settings):
    module, x = layer(4, 6, 3, **settings), tt.tensor(normal(*shape).astype(np.float32))
    options = {name: value for name, value in settings.items() if name != "bias"}
    assert_close(module(x), function(x, module.weight, module.bias, **options), 0, 0)
    kernel = (3,) * (len(shape) - 2)
    names = ["weight", "bias"] if settings.get("bias", True) else ["weight"]
    assert [name for name, _ in module.named_parameters()] == names
    assert list(module.state_dict()) == names
    assert module.weight.shape == (6, 4 // settings.get("groups", 1), *kernel)
    assert all(p.requires_grad and p.dtype == tt.float32 for p in module.parameters())


def test_all_parameters_of_a_layer_get_gradients():
    module = tt.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1)
    module(tt.tensor(normal(2, 2, 5, 5).astype(np.float32))).sum().backward()
    assert all(np.isfinite(p.grad.data).all() and p.grad.data.any() for p in module.parameters())


@pytest.mark.parametrize(
    ("module", "seen"),
    [
        (tt.Conv2d(16, 64, 5, generator=tt.Generator(0)), 16 * 25),
        (tt.Conv2d(8, 256, (3, 7), groups=2, generator=tt.Generator(1)), 4 * 21),
        (tt.Conv2d(400, 400, 5, groups=400, generator=tt.Generator(2)), 25),
        (tt.Conv1d(32, 64, 5, generator=tt.Generator(3)), 32 * 5),
    ],
    ids=["2d", "groups", "depthwise", "1d"],
)
def test_weights_start_uniform_within_one_over_the_root_of_what_a_filter_sees(module, seen):
    weight, bias, bound = module.weight.detach().numpy(), module.bias.detach().numpy(), 1 / math.sqrt(seen)
    assert weight.size >= 9_000
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert abs(weight.mean()) < 5 * weight.std() / math.sqrt(weight.size)
    assert_close(weight.std(), bound / math.sqrt(3), rtol=0.03)
    assert 0.8 * bound < np.abs(bias).max() <= bound
    assert_close(bias.std(), bound / math.sqrt(3), rtol=0.25)


def test_a_generator_decides_the_weights():
    first, same, other = (tt.Conv2d(2, 3, 3, generator=tt.Generator(seed)).weight.detach() for seed in (1, 1, 2))
    assert_close(first, same, 0, 0)
    assert not np.allclose(first.data, other.data)


@pytest.mark.parametrize(("channels", "groups"), [((4, 6), 4), ((6, 4), 4), ((3, 3), 2)])
def test_channels_that_the_groups_cannot_share_are_refused(channels, groups):
    with pytest.raises(ValueError, match=f"divisible by groups, but got {channels[0]}, {channels[1]} and {groups}"):
        tt.Conv2d(*channels, 3, groups=groups)


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "groups"])
@pytest.mark.parametrize("size", [0, -2, 1.5])
def test_numbers_of_channels_that_cannot_be_are_refused(name, size):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, but got {size}"):
        tt.Conv1d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, name: size})


@pytest.mark.parametrize("size", [0, -2, 1.5, (3, 0), (3,), (3, 3, 3)])
def test_sizes_of_a_kernel_that_cannot_be_are_refused(size):
    with pytest.raises(ValueError, match=f"kernel_size needs an integer of at least 1, .*{re.escape(repr(size))}"):
        tt.Conv2d(4, 4, size)


def test_repr_names_the_settings():
    assert repr(tt.Conv2d(1, 8, 3, padding=1)) == (
        "Conv2d(in_channels=1, out_channels=8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), "
        "groups=1, bias=True)"
    )
    assert "padding=same" in repr(tt.Conv1d(1, 8, 3, padding="same"))
