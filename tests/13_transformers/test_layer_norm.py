"""Layer normalisation gives each row mean 0 and variance 1, whatever its offset and scale were."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close, check_grad
from tinytorch.transformers import layer_norm_composed


def normal(*shape, seed=0, scale=1.0, offset=0.0):
    return offset + scale * np.random.default_rng(seed).standard_normal(shape)


def by_definition(x, axes, weight=1.0, bias=0.0, eps=1e-5):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


CASES = {
    "vector": ((6,), (6,)),
    "rows": ((4, 6), (6,)),
    "batch": ((2, 3, 6), (6,)),
    "two_axes": ((2, 3, 6), (3, 6)),
    "all_axes": ((3, 6), (3, 6)),
    "no_rows": ((0, 6), (6,)),
}
every_case = pytest.mark.parametrize(("shape", "normalized"), CASES.values(), ids=CASES)
both = pytest.mark.parametrize("function", [tt.layer_norm, layer_norm_composed])


@pytest.mark.exercise("ex-13-1", points=2)
@both
@every_case
@pytest.mark.parametrize("affine", ["none", "weight", "both"])
def test_values_are_those_of_the_definition(function, shape, normalized, affine):
    x, weight, bias = normal(*shape, scale=3, offset=2), normal(*normalized, seed=1), normal(*normalized, seed=2)
    given = {"none": [], "weight": [weight], "both": [weight, bias]}[affine]
    axes = tuple(range(-len(normalized), 0))
    y = function(tt.tensor(x), normalized, *map(tt.tensor, given))
    assert_close(y, by_definition(x, axes, *given), 1e-12, 1e-13)


@every_case
def test_gradients_are_those_of_finite_differences(shape, normalized):
    arrays = normal(*shape), normal(*normalized, seed=1), normal(*normalized, seed=2)
    check_grad(lambda x, weight, bias: tt.layer_norm(x, normalized, weight, bias), *arrays)
    check_grad(lambda x: tt.layer_norm(x, normalized), arrays[0])


@pytest.mark.exercise("ex-13-1", points=2)
@every_case
def test_fused_is_composed(shape, normalized):
    arrays, results = (normal(*shape), normal(*normalized, seed=1), normal(*normalized, seed=2)), []
    for function in (tt.layer_norm, layer_norm_composed):
        leaves = [tt.tensor(array, requires_grad=True) for array in arrays]
        y = function(leaves[0], normalized, *leaves[1:])
        y.backward(normal(*shape, seed=3))
        results.append([y, *(leaf.grad for leaf in leaves)])
    for fused, composed in zip(*results):
        assert_close(fused, composed, 1e-11, 1e-12)


def test_a_bias_needs_no_weight():
    x, bias = normal(2, 3), normal(3, seed=2)
    assert_close(
        tt.layer_norm(tt.tensor(x), (3,), None, tt.tensor(bias)), by_definition(x, -1, bias=bias), 1e-12, 1e-12
    )
    check_grad(lambda x, bias: tt.layer_norm(x, (3,), None, bias), x, bias)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_come_out_with_mean_zero_and_variance_one(dtype):
    y = tt.layer_norm(tt.tensor(normal(50, 64, scale=7, offset=100).astype(dtype)), (64,)).numpy()
    assert y.dtype == dtype
    assert_close(y.mean(-1), np.zeros(50), atol=1e-5)
    assert_close(y.var(-1), np.ones(50), atol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 100.0])
@pytest.mark.parametrize("offset", [-1000.0, 5.0])
def test_offset_and_scale_of_a_row_do_not_matter(scale, offset):
    x = normal(3, 8)
    y = tt.layer_norm(tt.tensor(x * scale + offset), (8,), eps=0.0)
    assert_close(y, tt.layer_norm(tt.tensor(x), (8,), eps=0.0), 1e-8, 1e-9)


def test_the_gradient_neither_shifts_nor_scales_a_row():
    x = tt.tensor(normal(3, 8), requires_grad=True)
    tt.layer_norm(x, (8,), eps=0.0).backward(normal(3, 8, seed=1))
    assert_close(x.grad.data.sum(-1), np.zeros(3), atol=1e-12)
    assert_close((x.grad.data * x.data).sum(-1), np.zeros(3), atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e4])
def test_a_constant_row_becomes_the_bias_with_finite_gradients(value):
    x = tt.full((2, 4), value, requires_grad=True)
    layer = tt.LayerNorm(4)
    layer.bias.data[...] = [1, 2, 3, 4]
    y = layer(x)
    assert_close(y, [[1.0, 2.0, 3.0, 4.0]] * 2, atol=0.01)
    y.backward(normal(2, 4).astype(np.float32))
    assert np.isfinite(x.grad.data).all()


def test_eps_is_added_to_the_variance():
    x = np.array([[-1.0, 1.0]])  # variance 1
    assert_close(tt.layer_norm(tt.tensor(x), (2,), eps=3.0), x / 2, 1e-14, 1e-14)


def test_inputs_and_incoming_gradients_are_left_alone():
    arrays = normal(2, 3, 4), normal(4, seed=1), normal(4, seed=2)
    leaves, g = [tt.tensor(array, requires_grad=True) for array in arrays], tt.tensor(normal(2, 3, 4, seed=3))
    tt.layer_norm(leaves[0], (4,), *leaves[1:]).backward(g)
    for leaf, array in zip([*leaves, g], [*arrays, normal(2, 3, 4, seed=3)]):
        assert_close(leaf, array, 0, 0)


# ---- the layer


@pytest.mark.parametrize("shape", [6, (6,), [3, 6]])
def test_the_layer_starts_as_the_normalisation_alone(shape):
    layer, x = tt.LayerNorm(shape), tt.tensor(normal(2, 3, 6).astype(np.float32))
    expected = (shape,) if isinstance(shape, int) else tuple(shape)
    assert [(name, p.shape) for name, p in layer.named_parameters()] == [("weight", expected), ("bias", expected)]
    assert_close(layer(x), tt.layer_norm(x, expected), 1e-6, 1e-6)


@pytest.mark.parametrize(
    ("settings", "names"),
    [({"elementwise_affine": False}, []), ({"bias": False}, ["weight"]), ({}, ["weight", "bias"])],
)
def test_weight_and_bias_can_be_left_out(settings, names):
    layer = tt.LayerNorm(6, **settings)
    assert [name for name, _ in layer.named_parameters()] == names
    x = normal(2, 6)
    assert_close(layer(tt.tensor(x)), by_definition(x, -1), 1e-6, 1e-6)


def test_the_layer_uses_its_weight_bias_and_eps():
    layer = tt.LayerNorm(6, eps=0.5).to(dtype=tt.float64)
    weight, bias, x = normal(6, seed=1), normal(6, seed=2), normal(2, 6)
    layer.load_state_dict({"weight": weight, "bias": bias})
    assert_close(layer(tt.tensor(x)), by_definition(x, -1, weight, bias, eps=0.5), 1e-12, 1e-12)


@pytest.mark.parametrize("shape", [(2, 5), (6, 2), ()])
def test_inputs_that_end_otherwise_are_refused(shape):
    with pytest.raises(ValueError, match=r"layer_norm needs inputs that end in \(6,\), but got shape \("):
        tt.LayerNorm(6)(tt.zeros(shape))


@pytest.mark.parametrize(("weight", "bias"), [((5,), (6,)), ((6,), (1,)), ((1,), (6,)), ((6, 1), (6,))])
def test_a_weight_or_bias_of_another_shape_is_refused(weight, bias):
    with pytest.raises(ValueError, match=r"(weight|bias) of shape \(6,\), but got \("):
        tt.layer_norm(tt.zeros(2, 6), (6,), tt.zeros(weight), tt.zeros(bias))


@pytest.mark.parametrize(("shape", "name"), [(0, 0), ((3, -1), 1), ((2.5,), 0)])
def test_sizes_that_cannot_be_are_refused(shape, name):
    with pytest.raises(ValueError, match=rf"normalized_shape\[{name}\] needs an integer of at least 1"):
        tt.LayerNorm(shape)


def test_repr_names_the_settings():
    assert repr(tt.LayerNorm(6, eps=1e-3)) == "LayerNorm((6,), eps=0.001)"
    assert math.isclose(tt.LayerNorm(6).eps, 1e-5)
