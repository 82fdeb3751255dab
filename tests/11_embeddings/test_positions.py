"""Positions: waves that are added, and rotations after which a score depends on the distance alone."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.embeddings import rotary_composed
from tinytorch.testing import assert_close, check_grad

both = pytest.mark.parametrize("function", [tt.rotary, rotary_composed])
both_pairings = pytest.mark.parametrize("interleaved", [False, True])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- waves


@pytest.mark.exercise("ex-11-5", points=2)
def test_sinusoidal_positions_are_those_of_the_paper():
    table = tt.sinusoidal_positions(7, 6).numpy()
    assert (table.shape, table.dtype) == ((7, 6), np.float32)
    for position, i in np.ndindex(7, 3):
        angle = position / 10000 ** (2 * i / 6)
        assert_close(table[position, 2 * i], math.sin(angle), 1e-6, 1e-7)
        assert_close(table[position, 2 * i + 1], math.cos(angle), 1e-6, 1e-7)


def test_a_shift_of_sinusoidal_positions_is_the_same_for_all():
    table = tt.sinusoidal_positions(40, 8).numpy().astype(np.float64)
    products = table @ table.T  # depends on the distance alone
    for distance in (1, 5):
        assert np.ptp(np.diagonal(products, distance)) < 1e-5


@pytest.mark.parametrize("dim", [5, 1])
def test_channels_without_a_partner_are_refused(dim):
    for function in (tt.sinusoidal_positions, tt.rotary_angles):
        with pytest.raises(ValueError, match=f"need an even dim, but got {dim}"):
            function(3, dim)
    with pytest.raises(ValueError, match=f"need an even dim, but got {dim}"):
        tt.Rotary(dim)


@pytest.mark.parametrize("size", [0, -2, 1.5])
def test_sizes_that_cannot_be_are_refused(size):
    with pytest.raises(ValueError, match=f"length needs an integer of at least 1, but got {size}"):
        tt.sinusoidal_positions(size, 4)
    with pytest.raises(ValueError, match=f"dim needs an integer of at least 1, but got {size}"):
        tt.sinusoidal_positions(4, size)


# ---- angles


@pytest.mark.exercise("ex-11-4", points=2)
@pytest.mark.parametrize("theta", [10000.0, 500.0])
def test_a_pair_turns_by_its_power_of_theta_a_position(theta):
    cos, sin = tt.rotary_angles(5, 6, theta)
    assert (cos.shape, cos.dtype, sin.dtype) == ((5, 3), tt.float32, tt.float32)
    for position, i in np.ndindex(5, 3):
        angle = position * theta ** (-2 * i / 6)
        assert_close(cos[position, i], math.cos(angle), 1e-6, 1e-7)
        assert_close(sin[position, i], math.sin(angle), 1e-6, 1e-7)


def test_positions_can_be_any_integers():
    whole, some = tt.rotary_angles(20, 4), tt.rotary_angles(tt.tensor([[3, 4], [17, 0]]), 4)
    for all_angles, angles in zip(whole, some):
        assert angles.shape == (2, 2, 2)
        assert_close(angles, all_angles.numpy()[[[3, 4], [17, 0]]], 0, 0)


@pytest.mark.exercise("ex-11-4", points=2)
def test_far_positions_keep_their_precision():
    position = 1_000_003
    cos, sin = tt.rotary_angles(tt.tensor([position]), 2)
    assert_close(cos, [[math.cos(position)]], 0, 1e-7)
    assert_close(sin, [[math.sin(position)]], 0, 1e-7)


def test_angles_come_in_the_dtype_that_was_asked_for():
    assert {angles.dtype for angles in tt.rotary_angles(3, 4, dtype=tt.float64)} == {np.dtype(np.float64)}


@pytest.mark.parametrize("theta", [0, -1.0, math.inf, math.nan])
def test_a_theta_that_cannot_be_is_refused(theta):
    with pytest.raises(ValueError, match=f"theta needs a number above 0, but got {theta}"):
        tt.rotary_angles(3, 4, theta)


def test_positions_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="integer positions, but got float32"):
        tt.rotary_angles(tt.tensor([0.5]), 4)


# ---- rotations


@pytest.mark.exercise("ex-11-6", points=3)
@both
def test_halves_are_the_real_and_imaginary_parts_of_a_turned_number(function):
    x, (cos, sin) = normal(2, 3, 5, 8), tt.rotary_angles(5, 8, dtype=tt.float64)
    turned = (x[..., :4] + 1j * x[..., 4:]) * (cos.numpy() + 1j * sin.numpy())
    y = function(tt.tensor(x), cos, sin)
    assert_close(y, np.concatenate([turned.real, turned.imag], -1), 1e-13, 1e-13)


@pytest.mark.exercise("ex-11-6", points=3)
@both
def test_neighbours_are_the_real_and_imaginary_parts_of_a_turned_number(function):
    x, (cos, sin) = normal(2, 3, 5, 8), tt.rotary_angles(5, 8, dtype=tt.float64)
    turned = x.view(complex) * (cos.numpy() + 1j * sin.numpy())
    assert_close(function(tt.tensor(x), cos, sin, interleaved=True), turned.view(float), 1e-13, 1e-13)


@both_pairings
def test_lengths_stay_and_position_0_does_not_turn(interleaved):
    x = tt.tensor(normal(2, 5, 8))
    y = tt.rotary(x, *tt.rotary_angles(5, 8, dtype=tt.float64), interleaved)
    assert_close((y * y).sum(-1), (x * x).sum(-1), 1e-12, 1e-12)
    assert_close(y[:, 0], x[:, 0], 0, 0)
    assert np.abs(y.data - x.data)[:, 1:].max() > 0.1


@both_pairings
@pytest.mark.parametrize("shift", [1, 100])
def test_scores_depend_on_distances_alone(interleaved, shift):
    q, k = tt.tensor(normal(6, 8)), tt.tensor(normal(6, 8, seed=1))
    scores = []
    for start in (0, shift):
        cos, sin = tt.rotary_angles(tt.arange(start, start + 6), 8, dtype=tt.float64)
        scores.append(tt.rotary(q, cos, sin, interleaved) @ tt.rotary(k, cos, sin, interleaved).T)
    assert_close(*scores, 1e-11, 1e-11)
    assert np.abs(scores[0].data - (q @ k.T).data).max() > 0.1


@both_pairings
def test_gradients_are_those_of_finite_differences(interleaved):
    cos, sin = tt.rotary_angles(4, 6, dtype=tt.float64)
    check_grad(lambda x: tt.rotary(x, cos, sin, interleaved), normal(2, 4, 6))
    check_grad(lambda x, cos, sin: tt.rotary(x, cos, sin, interleaved), normal(2, 4, 6), normal(4, 3), normal(2, 1, 3))


@both_pairings
def test_the_gradient_is_the_gradient_of_the_output_turned_back(interleaved):
    cos, sin = tt.rotary_angles(5, 8, dtype=tt.float64)
    x, g = tt.tensor(normal(5, 8), requires_grad=True), normal(5, 8, seed=1)
    tt.rotary(x, cos, sin, interleaved).backward(g)
    assert_close(tt.rotary(x.grad, cos, sin, interleaved), g, 1e-12, 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("of_angles", ["float32", "float64"])
def test_the_dtype_is_that_of_x(dtype, of_angles):
    angles = tt.rotary_angles(3, 4, dtype=np.dtype(of_angles))
    assert tt.rotary(tt.tensor(normal(3, 4).astype(dtype)), *angles).dtype == dtype


@pytest.mark.parametrize(
    ("x", "cos", "sin"),
    [
        ((3, 5), (3, 2), (3, 2)),  # an odd width
        ((3, 4), (3, 4), (3, 4)),  # angles for each channel, not for each pair
        ((3, 4), (4, 2), (4, 2)),  # of another number of positions
        ((3, 4), (3, 2), (2, 2)),
        ((3, 4), (2, 3, 2), (2, 3, 2)),  # x would be broadcast
        ((4,), (2,), (2,)),
        ((), (2,), (2,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, cos, sin):
    with pytest.raises(ValueError, match=r"rotary needs x \(\.\.\., T, D\) with an even D.*but got \("):
        tt.rotary(tt.zeros(x), tt.zeros(cos), tt.zeros(sin))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="rotary needs floating point numbers, but got int64"):
        tt.rotary(tt.ones(3, 4).long(), *tt.rotary_angles(3, 4))


# ---- the layer


@pytest.mark.exercise("ex-11-7", points=2)
@both_pairings
@pytest.mark.parametrize("start", [0, 3, 60, 1000])
def test_the_layer_turns_from_its_start_on(interleaved, start):
    x = tt.tensor(normal(2, 5, 8).astype(np.float32))
    angles = tt.rotary_angles(tt.arange(start, start + 5), 8, 500.0)
    layer = tt.Rotary(8, theta=500.0, interleaved=interleaved)
    assert_close(layer(x, start), tt.rotary(x, *angles, interleaved), 0, 0)
    assert_close(layer(x, start), tt.rotary(x, *angles, interleaved), 0, 0)  # from the table that is there now


def test_the_layer_follows_the_dtype_of_its_input():
    layer, x = tt.Rotary(4), normal(3, 4)
    exact = tt.rotary(tt.tensor(x), *tt.rotary_angles(3, 4, dtype=tt.float64))
    assert_close(layer(tt.tensor(x)), exact, 0, 0)
    assert layer(tt.tensor(x.astype(np.float32))).dtype == tt.float32
    assert_close(layer(tt.tensor(x)), exact, 0, 0)


def test_the_layer_has_nothing_to_learn_or_to_save():
    layer = tt.Rotary(4)
    assert list(layer.parameters()) == []
    assert layer.state_dict() == {}
    assert repr(layer) == "Rotary(4, theta=10000.0, interleaved=False)"
