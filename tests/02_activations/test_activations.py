"""Activations agree with their closed forms, keep their heads at extremes, and pull gradients back rightly."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.activations import (
    gelu_composed,
    log_softmax_composed,
    silu_composed,
    softmax_composed,
    stable_sigmoid,
)
from tinytorch.testing import assert_close, check_grad


def gelu_tanh(x):
    return tt.gelu(x, approximate="tanh")


def sigmoid_by_definition(x):
    return 1 / (1 + math.exp(-x))


ELEMENTWISE = {
    "relu": (tt.relu, lambda x: max(x, 0.0)),
    "sigmoid": (tt.sigmoid, sigmoid_by_definition),
    "tanh": (tt.tanh, math.tanh),
    "silu": (tt.silu, lambda x: x * sigmoid_by_definition(x)),
    "gelu": (tt.gelu, lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
    "gelu_tanh": (
        gelu_tanh,
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "erf": (tt.erf, math.erf),
}
every_function = pytest.mark.parametrize("function", [pair[0] for pair in ELEMENTWISE.values()], ids=ELEMENTWISE)


def random(*shape, seed=0, scale=2.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def check_twins(fused, composed, x):
    """Equal outputs, and equal gradients under a random cotangent."""
    leaves = [tt.tensor(x, requires_grad=True) for _ in range(2)]
    outputs = [function(leaf) for function, leaf in zip((fused, composed), leaves)]
    assert_close(*outputs, rtol=1e-13, atol=1e-14)
    for y in outputs:
        y.backward(random(*x.shape, seed=1))
    assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-12, atol=1e-13)


# ---- element by element


@pytest.mark.parametrize(("function", "definition"), ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_values_are_those_of_the_definition(function, definition):
    grid = np.linspace(-8, 8, 401)
    assert_close(function(tt.tensor(grid)), [definition(x) for x in grid], rtol=1e-14, atol=1e-15)


@pytest.mark.exercise("ex-02-1", points=1)
def test_relu_makes_a_new_tensor_without_what_is_below_zero():
    x = tt.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert_close(tt.relu(x), [0.0, 0.0, 0.0, 0.5, 2.0], 0, 0)
    assert_close(x, [-2.0, -0.5, 0.0, 0.5, 2.0], 0, 0)


@pytest.mark.parametrize(
    ("composed", "name"),
    [
        pytest.param(silu_composed, "silu", marks=pytest.mark.exercise("ex-02-3", points=1), id="silu"),
        pytest.param(gelu_composed, "gelu", marks=pytest.mark.exercise("ex-02-4", points=2), id="gelu"),
        pytest.param(
            lambda x: gelu_composed(x, "tanh"),
            "gelu_tanh",
            marks=pytest.mark.exercise("ex-02-4", points=2),
            id="gelu_tanh",
        ),
    ],
)
def test_composed_values_are_those_of_the_definition(composed, name):
    grid = np.linspace(-8, 8, 101)
    assert_close(composed(tt.tensor(grid)), [ELEMENTWISE[name][1](x) for x in grid], rtol=1e-13, atol=1e-14)


@every_function
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)])
def test_gradients_are_those_of_finite_differences(function, shape):
    check_grad(function, np.asarray(random(*shape)))


@every_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_forward_and_back(function, dtype):
    x = tt.tensor(random(3).astype(dtype), requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype


@every_function
def test_inputs_and_incoming_gradients_are_left_alone(function):
    x, g = random(7), random(7, seed=1)
    leaf, cotangent = tt.tensor(x, requires_grad=True), tt.tensor(g)
    function(leaf).backward(cotangent)
    assert_close(leaf, x, 0, 0)
    assert_close(cotangent, g, 0, 0)


@pytest.mark.exercise("ex-02-2", points=2)
def test_stable_sigmoid_has_its_limits_and_no_overflow():
    x = np.array([-1e4, -1.0, 0.0, 1.0, 1e4])
    expected = [0.0, sigmoid_by_definition(-1.0), 0.5, sigmoid_by_definition(1.0), 1.0]
    assert_close(stable_sigmoid(x), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (tt.relu, 0.0, 1e4),
        (tt.sigmoid, 0.0, 1.0),
        (tt.tanh, -1.0, 1.0),
        (tt.silu, 0.0, 1e4),
        (tt.gelu, 0.0, 1e4),
        (gelu_tanh, 0.0, 1e4),
        (tt.erf, -1.0, 1.0),
    ],
    ids=ELEMENTWISE,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extremes_give_the_limits_and_no_warning(function, low, high, dtype):
    x = tt.tensor(np.array([-1e4, 1e4], dtype), requires_grad=True)
    y = function(x)
    assert_close(y, [low, high], rtol=0, atol=1e-30)
    y.backward(tt.ones(2))
    slope_above = 1.0 if high == 1e4 else 0.0
    assert_close(x.grad, [0.0, slope_above], rtol=0, atol=1e-30)


@every_function
def test_not_a_number_stays_one(function):
    assert math.isnan(function(tt.tensor([math.nan])).item())


def test_relu_has_gradient_zero_at_zero():
    x = tt.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    tt.relu(x).sum().backward()
    assert_close(x.grad, [0.0, 0.0, 1.0], 0, 0)


@pytest.mark.exercise("ex-02-2", points=2)
@pytest.mark.parametrize("function", [tt.sigmoid, lambda x: tt.silu(x) / x], ids=["sigmoid", "silu"])
def test_small_probabilities_keep_their_digits_in_single_precision(function):
    x = np.array([-80.0, -40.0, -20.0, -10.0, -5.0, 5.0, 20.0], np.float32)
    assert_close(function(tt.tensor(x)), [sigmoid_by_definition(float(v)) for v in x], rtol=1e-6, atol=0)


@pytest.mark.parametrize("x", [-3.0, 0.0, 0.5, 12.0])
def test_sigmoid_of_minus_x_is_one_minus_sigmoid(x):
    pair = tt.sigmoid(tt.tensor([x, -x], dtype=tt.float64))
    assert_close(pair.sum(), 1.0, rtol=1e-15, atol=1e-15)


def test_gelu_refuses_an_unknown_form():
    with pytest.raises(ValueError, match=r"gelu needs approximate='none' or 'tanh', but got 'fast'"):
        tt.gelu(tt.ones(2), approximate="fast")


@pytest.mark.parametrize(
    ("fused", "composed"),
    [(tt.silu, silu_composed), (tt.gelu, gelu_composed), (gelu_tanh, lambda x: gelu_composed(x, "tanh"))],
    ids=["silu", "gelu", "gelu_tanh"],
)
def test_fused_is_composed(fused, composed):
    check_twins(fused, composed, random(4, 5))


# ---- the error function


def test_erf_is_right_to_the_last_digits():
    x = np.concatenate([np.linspace(-7, 7, 2001), np.nextafter(0.46875, [0, 1]), [-0.0, 1e-300, 5e-9]])
    assert_close(tt.erf(tt.tensor(x)), [math.erf(v) for v in x], rtol=1e-14, atol=0)


def test_erf_is_odd_and_ends_at_one():
    x = tt.tensor([0.1, 0.4, 0.5, 3.9, 4.1, 6.5, math.inf], dtype=tt.float64)
    assert_close(tt.erf(-x), -tt.erf(x), 0, 0)
    assert_close(tt.erf(x)[-2:], [1.0, 1.0], 0, 0)


# ---- softmax


@pytest.mark.exercise("ex-02-6", points=2)
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3, 1e30])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_is_positive_and_sums_to_one(dim, scale):
    p = tt.softmax(tt.tensor(random(3, 4, 5, scale=scale).astype(np.float32)), dim)
    assert bool((p >= 0).all())
    total = p.sum(dim)
    assert_close(total, np.ones(total.shape))


@pytest.mark.exercise("ex-02-6", points=2)
def test_softmax_is_that_of_the_definition():
    x = random(3, 4)
    expected = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in x]
    assert_close(tt.softmax(tt.tensor(x)), expected, rtol=1e-14, atol=1e-14)
    assert_close(tt.log_softmax(tt.tensor(x)), np.log(expected), rtol=1e-13, atol=1e-13)
    assert_close(tt.softmax(tt.tensor(x.T), dim=0), np.transpose(expected), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("composed", "of_definition"),
    [
        pytest.param(softmax_composed, lambda p: p, marks=pytest.mark.exercise("ex-02-5", points=2), id="softmax"),
        pytest.param(log_softmax_composed, np.log, marks=pytest.mark.exercise("ex-02-7", points=2), id="log_softmax"),
    ],
)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_composed_softmax_is_that_of_the_definition(composed, of_definition, dim, shift):
    x = random(3, 4, 5)
    expected = np.exp(x) / np.exp(x).sum(dim, keepdims=True)
    assert_close(composed(tt.tensor(x + shift), dim), of_definition(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.exercise("ex-02-7", points=2)
def test_composed_log_softmax_sees_what_softmax_rounds_to_zero():
    assert_close(log_softmax_composed(tt.tensor([0.0, -1000.0])), [0.0, -1000.0], 0, 0)


@pytest.mark.parametrize("function", [tt.softmax, tt.log_softmax])
@pytest.mark.parametrize("shift", [-1e4, -100.0, 3.0, 100.0, 1e4])
def test_softmax_does_not_feel_a_shift(function, shift):
    x = np.array([[0.0, 1.0, -2.0, 5.0], [3.0, 3.0, 3.0, -4.0]], np.float32)  # whole numbers: the shift is exact
    assert_close(function(tt.tensor(x + np.float32(shift))), function(tt.tensor(x)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_softmax_of_far_apart_logits_is_one_hot_with_gradient_zero(scale):
    x = tt.tensor([[0.0, scale, -scale]], requires_grad=True)
    p = tt.softmax(x)
    assert_close(p, [[0.0, 1.0, 0.0]], 0, 0)
    p.backward(tt.tensor([[1.0, 2.0, 3.0]]))
    assert_close(x.grad, np.zeros((1, 3)), 0, 0)


def test_one_far_row_does_not_cost_the_others_their_digits():
    rows = np.array([[0.5, -1.0, 2.0], [1e4, 0.0, -1e4]], np.float32)
    assert_close(tt.softmax(tt.tensor(rows))[0], tt.softmax(tt.tensor(rows[0])), rtol=1e-6, atol=1e-6)


def test_minus_infinity_gets_no_probability_and_no_gradient():
    x = tt.tensor([[1.0, -math.inf, 2.0]], requires_grad=True)
    p = tt.softmax(x)
    rest = tt.softmax(tt.tensor([1.0, 2.0])).tolist()
    assert_close(p, [[rest[0], 0.0, rest[1]]])
    p.backward(tt.tensor([[3.0, 5.0, -1.0]]))
    assert x.grad[0, 1].item() == 0
    assert bool((x.grad == x.grad).all())  # no NaN


def test_log_softmax_of_minus_infinity_is_minus_infinity():
    x = tt.tensor([0.0, -math.inf], requires_grad=True)
    y = tt.log_softmax(x)
    assert_close(y, [0.0, -math.inf])
    y[0].backward()
    assert_close(x.grad, [0.0, 0.0], 0, 0)


def test_log_softmax_sees_what_softmax_rounds_to_zero():
    assert_close(tt.log_softmax(tt.tensor([0.0, -200.0, -1e4])), [0.0, -200.0, -1e4])


@pytest.mark.parametrize("function", [tt.softmax, tt.log_softmax])
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_softmax_gradients_are_those_of_finite_differences(function, dim):
    check_grad(lambda x: function(x, dim), random(3, 4, 2))


@pytest.mark.parametrize("function", [tt.softmax, tt.log_softmax])
def test_softmax_gradients_hold_beyond_the_range_of_exp(function):
    check_grad(lambda x: function(x + 1000.0), random(3, 4), rtol=1e-4)


@pytest.mark.parametrize(
    ("fused", "composed"),
    [(tt.softmax, softmax_composed), (tt.log_softmax, log_softmax_composed)],
    ids=["softmax", "log_softmax"],
)
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_fused_softmax_is_composed(fused, composed, dim, scale):
    check_twins(lambda x: fused(x, dim), lambda x: composed(x, dim), random(4, 5, scale=scale))


def test_softmax_takes_axis_for_dim():
    x = tt.tensor(random(2, 3))
    assert_close(tt.softmax(x, axis=0), tt.softmax(x, dim=0), 0, 0)


def test_softmax_of_many_equal_numbers_in_float16():
    x = tt.full(1000, 5.0, dtype=np.float16)
    np.testing.assert_allclose(tt.softmax(x).numpy(), 0.001, rtol=1e-2)
