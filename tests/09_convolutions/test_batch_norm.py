"""Batch normalisation: the batch's statistics while training, the running ones afterwards."""

import re

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.convolutions import batch_norm_composed
from tinytorch.convolutions.normalization import _move
from tinytorch.testing import assert_close, check_grad

SHAPES = {"rows": (6, 3), "signals": (4, 3, 5), "images": (2, 3, 4, 5), "volumes": (2, 3, 2, 2, 2)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
both = pytest.mark.parametrize("function", [tt.batch_norm, batch_norm_composed])
modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def normal(*shape, seed=0, scale=1.0, offset=0.0):
    return offset + scale * np.random.default_rng(seed).standard_normal(shape)


def statistics():
    """A running mean and variance of three channels."""
    return np.array([0.5, -1.0, 2.0]), np.array([0.25, 1.0, 4.0])


def by_definition(x, mean=None, var=None, weight=None, bias=None, eps=1e-5):
    """One channel after the other; without statistics, with its own."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        m, v = (values.mean(), values.var()) if mean is None else (mean[c], var[c])
        y[:, c] = (values - m) / np.sqrt(v + eps)
        y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return y


def affine(which):
    weight, bias = normal(3, seed=1), normal(3, seed=2)
    return {"none": (), "weight": (weight,), "bias": (None, bias), "both": (weight, bias)}[which]


def as_tensors(arrays):
    return [None if array is None else tt.tensor(array) for array in arrays]


# ---- the function


@pytest.mark.exercise("ex-09-8", points=1)
def test_a_running_statistic_moves_in_place_a_part_of_the_way():
    running = np.array([10.0, 0.0])
    _move(running, np.array([20.0, -4.0]), 0.25)
    assert running.tolist() == [12.5, -1.0]


@pytest.mark.exercise("ex-09-9", points=4)
@both
@every_shape
@modes
@pytest.mark.parametrize("which", ["none", "weight", "bias", "both"])
def test_values_are_those_of_the_definition(function, shape, training, which):
    x, running = normal(*shape, scale=3, offset=2), statistics()
    y = function(tt.tensor(x), *as_tensors(running), *as_tensors(affine(which)), training=training, eps=1e-3)
    used = (None, None) if training else running
    assert_close(y, by_definition(x, *used, *affine(which), eps=1e-3), 1e-12, 1e-12)


@every_shape
@modes
def test_gradients_are_those_of_finite_differences(shape, training):
    def function(x, *weights):
        return tt.batch_norm(x, *as_tensors(statistics()), *weights, training=training)

    check_grad(function, normal(*shape), *affine("both"))
    check_grad(function, normal(*shape))


@every_shape
@modes
def test_fused_is_composed(shape, training):
    results = []
    for function in (tt.batch_norm, batch_norm_composed):
        leaves = [tt.tensor(array, requires_grad=True) for array in (normal(*shape), *affine("both"))]
        running = as_tensors(statistics())
        y = function(leaves[0], *running, *leaves[1:], training=training, momentum=0.3)
        y.backward(normal(*shape, seed=3))
        results.append([y, *(leaf.grad for leaf in leaves), *running])
    for fused, composed in zip(*results):
        assert_close(fused, composed, 1e-11, 1e-12)


@pytest.mark.exercise("ex-09-8", points=1)
@pytest.mark.exercise("ex-09-9", points=4)
@both
def test_running_statistics_move_a_part_of_the_way_to_those_of_the_batch(function):
    x, (mean, var) = normal(2, 3, 4, 5, scale=3, offset=2), statistics()
    running = as_tensors((mean, var))
    arrays = [tensor.data for tensor in running]
    function(tt.tensor(x), *running, training=True, momentum=0.3)
    channels = x.swapaxes(0, 1).reshape(3, -1)
    assert_close(running[0], 0.7 * mean + 0.3 * channels.mean(1), 1e-12, 1e-12)
    assert_close(running[1], 0.7 * var + 0.3 * channels.var(1, ddof=1), 1e-12, 1e-12)
    assert all(tensor.data is array for tensor, array in zip(running, arrays)), "they change in place"


@pytest.mark.exercise("ex-09-9", points=4)
@both
def test_running_statistics_stay_as_they_are_in_evaluation(function):
    running = as_tensors(statistics())
    function(tt.tensor(normal(4, 3)), *running, training=False)
    for tensor, array in zip(running, statistics()):
        assert_close(tensor, array, 0, 0)


@both
def test_training_needs_no_running_statistics(function):
    x = normal(4, 3)
    assert_close(function(tt.tensor(x), None, None, training=True), by_definition(x), 1e-12, 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_channels_come_out_with_mean_zero_and_variance_one(dtype):
    x = normal(40, 3, 8, 8, scale=7, offset=100).astype(dtype)
    y = tt.batch_norm(tt.tensor(x), None, None, training=True).numpy()
    assert y.dtype == dtype
    assert_close(y.mean((0, 2, 3)), np.zeros(3), atol=1e-5)
    assert_close(y.var((0, 2, 3)), np.ones(3), atol=1e-4)


def test_the_variance_of_many_float32_values_is_exact():
    x = normal(1000, 2, 30, 30, offset=5).astype(np.float32)
    running = [tt.zeros(2), tt.zeros(2)]
    tt.batch_norm(tt.tensor(x), *running, training=True, momentum=1.0)
    channels = x.swapaxes(0, 1).reshape(2, -1).astype(np.float64)
    assert_close(running[0], channels.mean(1).astype(np.float32), rtol=3e-6)
    assert_close(running[1], channels.var(1, ddof=1).astype(np.float32), rtol=1e-5)


def test_offset_and_scale_of_a_channel_do_not_matter_in_training():
    x = normal(4, 3, 5)
    scales, offsets = np.array([[0.1], [30.0], [1.0]]), np.array([[-50.0], [3.0], [0.0]])
    moved, plain = (tt.batch_norm(tt.tensor(a), None, None, training=True, eps=0.0) for a in (x * scales + offsets, x))
    assert_close(moved, plain, 1e-9, 1e-9)


def test_the_gradient_neither_shifts_nor_scales_a_channel():
    x = tt.tensor(normal(4, 3, 5), requires_grad=True)
    tt.batch_norm(x, None, None, training=True, eps=0.0).backward(normal(4, 3, 5, seed=1))
    assert_close(x.grad.data.sum((0, 2)), np.zeros(3), atol=1e-12)
    assert_close((x.grad.data * x.data).sum((0, 2)), np.zeros(3), atol=1e-12)


def test_a_constant_channel_becomes_the_bias_with_finite_gradients():
    x = tt.full((4, 2, 3), 7.0, requires_grad=True)
    y = tt.batch_norm(x, None, None, tt.ones(2), tt.tensor([1.0, 2.0]), training=True)
    assert_close(y, np.broadcast_to(np.array([[1.0], [2.0]]), (4, 2, 3)), atol=1e-3)
    y.backward(normal(4, 2, 3).astype(np.float32))
    assert np.isfinite(x.grad.data).all()


@pytest.mark.parametrize("order", [(1, 2, 3, 0), (0, 2, 3, 1), (3, 2, 1, 0)])
@modes
def test_the_order_in_memory_does_not_matter(order, training):
    x, g, results = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1), []
    for turn in (lambda a: a, lambda a: np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))):
        leaf = tt.Tensor(turn(x), requires_grad=True)
        y = tt.batch_norm(leaf, *as_tensors(statistics()), training=training)
        y.backward(turn(g))
        results.append((y, leaf.grad))
    for plain, turned in zip(*results):
        assert_close(plain, turned, 1e-12, 1e-12)


def test_no_rows_are_no_trouble_in_evaluation():
    assert tt.batch_norm(tt.zeros(0, 3, 4), tt.zeros(3), tt.ones(3)).shape == (0, 3, 4)


# ---- what makes no sense


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (0, 3)])
def test_one_value_per_channel_is_refused_in_training(shape):
    with pytest.raises(ValueError, match=rf"more than one value per channel in training.*{re.escape(str(shape))}"):
        tt.batch_norm(tt.zeros(shape), None, None, training=True)


def test_one_image_has_values_enough_and_one_row_will_do_in_evaluation():
    assert tt.batch_norm(tt.ones(1, 3, 2), None, None, training=True).shape == (1, 3, 2)
    assert_close(tt.batch_norm(tt.ones(1, 3), tt.ones(3), tt.ones(3)), np.zeros((1, 3)), 0, 0)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_inputs_without_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"needs inputs of shape \(B, C\) or \(B, C, \.\.\.\), but got"):
        tt.batch_norm(tt.zeros(shape), None, None, training=True)


def test_inputs_of_integers_are_refused():
    with pytest.raises(TypeError, match=r"floating point inputs, but got int64. Convert them with x.float\(\)"):
        tt.batch_norm(tt.tensor([[1, 2], [3, 4]]), None, None, training=True)


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1)])
def test_numbers_that_are_not_one_per_channel_are_named(name, shape):
    given = {key: tt.ones(3) for key in ("running_mean", "running_var", "weight", "bias")}
    with pytest.raises(ValueError, match=rf"3 channels.*needs {name} of shape \(3,\), but got {re.escape(str(shape))}"):
        tt.batch_norm(tt.zeros(4, 3), **{**given, name: tt.ones(shape)})


@pytest.mark.parametrize(
    ("mean", "var", "training"), [(None, None, False), (tt.ones(3), None, True), (None, tt.ones(3), False)]
)
def test_missing_statistics_are_refused(mean, var, training):
    with pytest.raises(ValueError, match="needs running_mean and running_var; both may be None, but in training only"):
        tt.batch_norm(tt.zeros(4, 3), mean, var, training=training)


# ---- the layers

LAYERS = {
    "rows": (tt.BatchNorm1d, (6, 3)),
    "signals": (tt.BatchNorm1d, (4, 3, 5)),
    "images": (tt.BatchNorm2d, (2, 3, 4, 5)),
}
every_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)


def batches(shape, n=3):
    return [normal(*shape, seed=seed, scale=1 + seed, offset=seed) for seed in range(n)]


@every_layer
def test_a_layer_starts_as_the_normalisation_alone(layer, shape):
    module, x = layer(3), normal(*shape, scale=3, offset=2)
    assert [(name, p.shape) for name, p in module.named_parameters()] == [("weight", (3,)), ("bias", (3,))]
    assert [(name, b.shape) for name, b in module.named_buffers()] == [
        ("running_mean", (3,)), ("running_var", (3,)), ("num_batches_tracked", ())
    ]  # fmt: skip
    assert list(module.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert module.num_batches_tracked.dtype == tt.int64
    assert_close(module(tt.tensor(x)), by_definition(x), 1e-6, 1e-6)
    assert_close(layer(3).eval()(tt.tensor(x)), x, 1e-4, 1e-4)  # running mean 0 and variance 1


@every_layer
def test_running_statistics_follow_the_batches(layer, shape):
    module, mean, var = layer(3, momentum=0.2).double(), np.zeros(3), np.ones(3)
    for i, x in enumerate(batches(shape)):
        assert module.num_batches_tracked.item() == i
        module(tt.tensor(x))
        channels = x.swapaxes(0, 1).reshape(3, -1)
        mean, var = 0.8 * mean + 0.2 * channels.mean(1), 0.8 * var + 0.2 * channels.var(1, ddof=1)
    assert module.num_batches_tracked.item() == 3
    assert_close(module.running_mean, mean, 1e-12, 1e-12)
    assert_close(module.running_var, var, 1e-12, 1e-12)
    x = batches(shape)[0]
    assert_close(module.eval()(tt.tensor(x)), by_definition(x, mean, var), 1e-12, 1e-12)
    assert module.num_batches_tracked.item() == 3, "evaluation counts nothing"
    assert_close(module.running_mean, mean, 1e-12, 1e-12)


@every_layer
def test_without_momentum_the_running_statistics_are_the_plain_average(layer, shape):
    module = layer(3, momentum=None).double()
    channels = [x.swapaxes(0, 1).reshape(3, -1) for x in batches(shape)]
    for x in batches(shape):
        module(tt.tensor(x))
    assert_close(module.running_mean, np.mean([c.mean(1) for c in channels], axis=0), 1e-12, 1e-12)
    assert_close(module.running_var, np.mean([c.var(1, ddof=1) for c in channels], axis=0), 1e-12, 1e-12)


@every_layer
def test_without_tracking_every_batch_is_normalised_by_itself(layer, shape):
    module, x = layer(3, track_running_stats=False).double(), batches(shape)[2]
    assert list(module.state_dict()) == ["weight", "bias"]
    for mode in (True, False):
        assert_close(module.train(mode)(tt.tensor(x)), by_definition(x), 1e-12, 1e-12)


@every_layer
def test_weight_and_bias_can_be_left_out(layer, shape):
    module, x = layer(3, affine=False).double(), batches(shape)[1]
    assert list(module.parameters()) == []
    assert list(module.state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    assert_close(module(tt.tensor(x)), by_definition(x), 1e-12, 1e-12)


def test_the_layer_uses_its_weight_bias_and_eps():
    layer, x = tt.BatchNorm1d(3, eps=0.5).double(), normal(6, 3)
    weight, bias = affine("both")
    layer.weight.data[...], layer.bias.data[...] = weight, bias
    assert_close(layer(tt.tensor(x)), by_definition(x, None, None, weight, bias, eps=0.5), 1e-12, 1e-12)


def test_gradients_reach_weight_bias_and_input_but_no_statistics():
    layer, x = tt.BatchNorm2d(3), tt.tensor(normal(2, 3, 4, 5).astype(np.float32), requires_grad=True)
    layer(x).backward(normal(2, 3, 4, 5, seed=1).astype(np.float32))
    assert all(np.isfinite(p.grad.data).all() and p.grad.data.any() for p in (x, *layer.parameters()))
    assert all(not buffer.requires_grad and buffer.grad is None for _, buffer in layer.named_buffers())


def test_running_statistics_also_move_without_gradients():
    layer = tt.BatchNorm1d(3)
    with tt.no_grad():
        layer(tt.tensor(normal(6, 3, offset=5).astype(np.float32)))
    assert layer.num_batches_tracked.item() == 1 and (layer.running_mean.data > 0.3).all()


def test_a_state_dict_carries_the_statistics_and_the_count():
    layer, other = tt.BatchNorm1d(3), tt.BatchNorm1d(3)
    for x in batches((6, 3)):
        layer(tt.tensor(x.astype(np.float32)))
    other.load_state_dict({name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()})
    x = tt.tensor(normal(4, 3, seed=9).astype(np.float32))
    assert other.num_batches_tracked.item() == 3 and other.num_batches_tracked.dtype == tt.int64
    assert_close(other.eval()(x), layer.eval()(x), 0, 0)


def test_a_state_dict_shares_memory_with_the_layer_while_it_trains():
    layer = tt.BatchNorm1d(3)
    state = layer.state_dict()
    layer(tt.tensor(normal(6, 3).astype(np.float32)))
    assert state["num_batches_tracked"].item() == 1
    assert_close(state["running_mean"], layer.running_mean, 0, 0)


def test_a_change_of_dtype_leaves_the_count_an_integer():
    layer = tt.BatchNorm2d(3).double()
    assert (layer.weight.dtype, layer.running_var.dtype) == (tt.float64, tt.float64)
    assert layer.num_batches_tracked.dtype == tt.int64


def test_a_batch_that_is_refused_leaves_the_layer_as_it_was():
    layer = tt.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(tt.ones(1, 3))
    assert layer.num_batches_tracked.item() == 0
    assert_close(layer.running_mean, np.zeros(3), 0, 0)


def test_a_network_of_convolutions_and_batch_norm_learns_stripes():
    """Horizontal or vertical stripes under noise: the mean of an image says nothing, the pattern everything."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    phase = (np.arange(6)[None] + rng.integers(0, 2, (64, 1))) % 2  # (N, 6)
    images = np.where(labels[:, None, None] == 0, phase[:, :, None], phase[:, None, :]) + 0.3 * normal(64, 6, 6)
    x, target = tt.tensor(images[:, None].astype(np.float32)), tt.tensor(labels)
    g = tt.Generator(0)
    model = tt.Sequential(
        tt.Conv2d(1, 4, 3, generator=g), tt.BatchNorm2d(4), tt.ReLU(), tt.MaxPool2d(2), tt.Flatten(),
        tt.Linear(16, 2, generator=g),
    )  # fmt: skip
    optimizer = tt.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = tt.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert (model.eval()(x).argmax(1) == target).all()


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [(tt.BatchNorm1d, [(3,), (2, 3, 4, 5)]), (tt.BatchNorm2d, [(4, 3), (4, 3, 5), (2, 3, 2, 2, 2)])],
)
def test_inputs_with_another_number_of_axes_are_refused(layer, shapes):
    for shape in shapes:
        with pytest.raises(
            ValueError, match=rf"{layer.__name__} needs inputs of shape .*but got {re.escape(str(shape))}"
        ):
            layer(3)(tt.zeros(shape))


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"4 channels.*needs running_mean of shape \(4,\), but got \(3,\)"):
        tt.BatchNorm1d(3)(tt.zeros(2, 4))


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_number_of_features_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match=f"num_features needs an integer of at least 1, but got {size}"):
        tt.BatchNorm2d(size)


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_a_momentum_that_cannot_be_is_refused(momentum):
    with pytest.raises(ValueError, match=f"momentum from 0 to 1, or None, but got {momentum}"):
        tt.BatchNorm1d(3, momentum=momentum)


def test_repr_names_the_settings():
    assert repr(tt.BatchNorm2d(8)) == "BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
