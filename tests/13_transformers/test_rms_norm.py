"""Root mean square normalisation gives each row a mean square of 1, and SwiGLU lets one product open another."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close, check_grad
from tinytorch.transformers import rms_norm_composed, swiglu_composed


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


CASES = {
    "vector": ((6,), (6,)),
    "rows": ((4, 6), (6,)),
    "batch": ((2, 3, 6), (6,)),
    "two_axes": ((2, 3, 6), (3, 6)),
    "no_rows": ((0, 6), (6,)),
}
every_case = pytest.mark.parametrize(("shape", "normalized"), CASES.values(), ids=CASES)
both = pytest.mark.parametrize("function", [tt.rms_norm, rms_norm_composed])


@pytest.mark.exercise("ex-13-2", points=1)
@both
@every_case
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_values_are_those_of_the_definition(function, shape, normalized, eps):
    x, weight = normal(*shape, scale=3), normal(*normalized, seed=1)
    axes = tuple(range(-len(normalized), 0))
    expected = x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)
    assert_close(function(tt.tensor(x), normalized, eps=eps), expected, 1e-12, 1e-13)
    assert_close(function(tt.tensor(x), normalized, tt.tensor(weight), eps), expected * weight, 1e-12, 1e-13)


@every_case
def test_gradients_are_those_of_finite_differences_and_of_the_composed_twin(shape, normalized):
    arrays, results = (normal(*shape), normal(*normalized, seed=1)), []
    check_grad(lambda x, weight: tt.rms_norm(x, normalized, weight), *arrays)
    check_grad(lambda x: tt.rms_norm(x, normalized), arrays[0])
    for function in (tt.rms_norm, rms_norm_composed):
        leaves = [tt.tensor(array, requires_grad=True) for array in arrays]
        y = function(leaves[0], normalized, leaves[1])
        y.backward(normal(*shape, seed=3))
        results.append([y, *(leaf.grad for leaf in leaves)])
    for fused, composed in zip(*results):
        assert_close(fused, composed, 1e-11, 1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_a_row_does_not_matter_but_its_offset_does(scale):
    x = normal(3, 8)
    y = tt.rms_norm(tt.tensor(x), (8,), eps=0.0)
    assert_close(tt.rms_norm(tt.tensor(x * scale), (8,), eps=0.0), y, 1e-12, 1e-12)
    assert np.abs(tt.rms_norm(tt.tensor(x + 1), (8,)).data - y.data).max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eps_is_by_default_the_precision_of_the_numbers(dtype):
    x = np.full((1, 4), 1e-6, dtype)
    expected = 1e-6 / math.sqrt(1e-12 + np.finfo(dtype).eps)
    for function in (tt.rms_norm, rms_norm_composed):
        y = function(tt.tensor(x), (4,))
        assert y.dtype == dtype
        assert_close(y, np.full((1, 4), expected), 1e-5)


def test_a_row_of_zeros_stays_zero_with_finite_gradients():
    x = tt.zeros(2, 4, requires_grad=True)
    y = tt.RMSNorm(4)(x)
    y.backward(normal(2, 4).astype(np.float32))
    assert not y.data.any()
    assert np.isfinite(x.grad.data).all()


@pytest.mark.parametrize("shape", [6, (6,), [3, 6]])
def test_the_layer_starts_as_the_normalisation_alone_and_uses_its_weight(shape):
    expected = (shape,) if isinstance(shape, int) else tuple(shape)
    layer, x = tt.RMSNorm(shape, eps=1e-5), tt.tensor(normal(2, 3, 6).astype(np.float32))
    assert [(name, p.shape) for name, p in layer.named_parameters()] == [("weight", expected)]
    assert_close(layer(x), tt.rms_norm(x, expected, eps=1e-5), 0, 0)
    layer.weight.data[...] = 2
    assert_close(layer(x), 2 * tt.rms_norm(x, expected, eps=1e-5), 1e-6, 1e-6)


def test_the_weight_can_be_left_out():
    layer, x = tt.RMSNorm(6, elementwise_affine=False), tt.tensor(normal(2, 6))
    assert list(layer.parameters()) == []
    assert_close(layer(x), tt.rms_norm(x, (6,)), 0, 0)
    assert repr(tt.RMSNorm(6, eps=1e-3)) == "RMSNorm((6,), eps=0.001)"


@pytest.mark.parametrize("shape", [(2, 5), (6, 2), ()])
def test_inputs_that_end_otherwise_are_refused(shape):
    with pytest.raises(ValueError, match=r"rms_norm needs inputs that end in \(6,\), but got shape \("):
        tt.RMSNorm(6)(tt.zeros(shape))


@pytest.mark.parametrize("weight", [(5,), (1,), (6, 1)])
def test_a_weight_of_another_shape_is_refused(weight):
    with pytest.raises(ValueError, match=r"rms_norm needs a weight of shape \(6,\), but got \("):
        tt.rms_norm(tt.zeros(2, 6), (6,), tt.zeros(weight))


@pytest.mark.parametrize(("shape", "name"), [(0, 0), ((3, -1), 1), ((2.5,), 0)])
def test_sizes_that_cannot_be_are_refused(shape, name):
    with pytest.raises(ValueError, match=rf"normalized_shape\[{name}\] needs an integer of at least 1"):
        tt.RMSNorm(shape)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="rms_norm needs floating point numbers, but got int64"):
        tt.rms_norm(tt.ones(2, 6).long(), (6,))


# ---- SwiGLU


@pytest.mark.exercise("ex-13-4", points=1)
@pytest.mark.parametrize("function", [tt.swiglu, swiglu_composed])
def test_one_product_opens_the_other(function):
    gate, up = normal(50, scale=4), normal(50, seed=1)
    expected = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]
    assert_close(function(tt.tensor(gate), tt.tensor(up)), expected, 1e-12, 1e-13)
    check_grad(function, gate, up)


def test_a_huge_gate_neither_overflows_nor_closes():
    gate = tt.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    y = tt.swiglu(gate, tt.tensor([2.0, 2.0, 2.0]))
    y.sum().backward()
    assert_close(y, [0.0, 0.0, 2e4], 1e-6)
    assert_close(gate.grad, [0.0, 1.0, 2.0], 1e-6)


def test_the_module_has_three_matrices_with_as_many_weights_as_the_mlp():
    layer, mlp = tt.SwiGLU(12), tt.MLP(12, bias=False)
    assert [name for name, _ in layer.named_parameters()] == [f"{n}_proj.weight" for n in ("gate", "up", "down")]
    assert sum(p.numel() for p in layer.parameters()) == sum(p.numel() for p in mlp.parameters())
    assert tt.SwiGLU(12, n_inner=5).down_proj.weight.shape == (12, 5)
    x = tt.tensor(normal(2, 3, 12).astype(np.float32))
    expected = layer.down_proj(tt.silu(layer.gate_proj(x)) * layer.up_proj(x))
    assert_close(layer(x), expected, 1e-5, 1e-6)


def test_the_module_drops_its_output_in_training_only():
    layer, x = tt.SwiGLU(12, dropout=0.5, generator=tt.Generator(0)), tt.tensor(normal(2, 3, 12).astype(np.float32))
    assert (layer(x).data == 0).any()
    assert not (layer.eval()(x).data == 0).any()
