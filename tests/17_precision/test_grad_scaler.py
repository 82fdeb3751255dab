"""Module 17: the scale of the loss, beside the rules of torch.amp.GradScaler in plain Python."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tinytorch as tt


class Weights(tt.Module):
    """A vector, called w."""

    def __init__(self, values=(1.0, 2.0)):
        self.w = tt.Parameter(np.array(values, np.float32))


@pytest.fixture
def model():
    return Weights()


def sgd(model, lr=0.5):
    return tt.SGD(model.parameters(), lr=lr)


def step_with(scaler, optimizer, gradient):
    """One step in which the scaled gradient is `gradient`."""
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = tt.tensor(np.array(gradient, np.float32))
    stepped = scaler.step(optimizer)
    scaler.update()
    return stepped


def scales_by_hand(overflows, scale=2.0**16, growth=2.0, backoff=0.5, interval=2000):
    """The scale after each step: torch.amp.GradScaler's documentation, word for word."""
    good, scales = 0, []
    for overflow in overflows:
        if overflow:
            scale, good = scale * backoff, 0
        else:
            good += 1
            if good == interval:
                scale, good = scale * growth, 0
        scales.append(scale)
    return scales


# ---- the scale


def test_the_defaults_are_those_of_pytorch():
    assert tt.GradScaler().state_dict() == {
        "scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 0,
    }


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_the_scale_follows_the_gradients(model, bad):
    overflows = np.random.default_rng(0).random(60) < 0.2
    scaler, optimizer = (
        tt.GradScaler(init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=3),
        sgd(model),
    )
    seen = []
    for overflow in overflows:
        stepped = step_with(scaler, optimizer, [1.0, bad if overflow else 1.0])
        assert stepped is not bool(overflow)
        seen.append(scaler.get_scale())
    assert seen == scales_by_hand(overflows, 8.0, 3.0, 0.25, 3)
    assert len(set(seen)) > 5


def test_it_grows_after_2000_good_steps_and_stops_before_float32_ends(model):
    scaler, optimizer = tt.GradScaler(), sgd(model, lr=0.0)
    for _ in range(2000):
        assert scaler.get_scale() == 2.0**16
        step_with(scaler, optimizer, [1.0, 1.0])
    assert scaler.get_scale() == 2.0**17
    large = tt.GradScaler(init_scale=2.0**127, growth_interval=1)
    step_with(large, optimizer, [1.0, 1.0])
    assert large.get_scale() == 2.0**127


def test_gradients_that_are_never_finite_are_an_error_at_last(model):
    scaler, optimizer = tt.GradScaler(init_scale=2.0**-124), sgd(model)
    step_with(scaler, optimizer, [math.nan, 1.0])
    step_with(scaler, optimizer, [math.nan, 1.0])
    with pytest.raises(FloatingPointError, match=r"even with a scale of 1\.18e-38: it is not the scale"):
        step_with(scaler, optimizer, [math.nan, 1.0])


# ---- the step


def test_a_step_is_that_of_the_true_gradient(model):
    scaler, optimizer = tt.GradScaler(), sgd(model)
    loss = (model.w * tt.tensor([3.0, -4.0])).sum()
    scaled = scaler.scale(loss)
    assert scaled.item() == -5 * 2.0**16
    scaled.backward()
    assert_array_equal(model.w.grad.data, [3 * 2.0**16, -4 * 2.0**16])
    assert scaler.step(optimizer) is True
    assert_array_equal(model.w.data, [1 - 1.5, 2 + 2])
    scaler.update()


def test_an_overflow_moves_neither_weights_nor_moments_nor_the_schedule(model):
    optimizer = tt.Adam(model.parameters(), lr=0.1)
    schedule = tt.StepLR(optimizer, step_size=1, gamma=0.5)
    scaler = tt.GradScaler()
    for gradient, moves in [([1, 1], True), ([math.inf, 1], False), ([1, math.nan], False), ([2, 1], True)]:
        before, weights, lr = optimizer.state_dict(), model.w.data.copy(), optimizer.param_groups[0]["lr"]
        before = {i: {name: np.array(value) for name, value in s.items()} for i, s in before["state"].items()}
        stepped = step_with(scaler, optimizer, gradient)
        if stepped:
            schedule.step()
        assert stepped is moves
        assert (model.w.data != weights).all() == moves
        assert (optimizer.param_groups[0]["lr"] != lr) == moves
        if not moves:
            after = optimizer.state_dict()["state"]
            assert all(
                (after[i][name] == value).all() for i, entries in before.items() for name, value in entries.items()
            )
    assert scaler.get_scale() == 2.0**14


def test_gradients_are_unscaled_before_they_are_clipped(model):
    scaler, optimizer = tt.GradScaler(), sgd(model, lr=1.0)
    scaler.scale((model.w * tt.tensor([3.0, 4.0])).sum()).backward()
    assert scaler.unscale_(optimizer) is True
    assert_allclose(tt.clip_grad_norm_(model.parameters(), 1.0).item(), 5.0)
    scaler.step(optimizer)
    assert_allclose(model.w.data, [1 - 0.6, 2 - 0.8], rtol=1e-6)


def test_one_overflow_among_two_optimizers_shrinks_the_scale_and_stops_only_its_own():
    first, second, scaler = Weights(), Weights(), tt.GradScaler()
    first.w.grad, second.w.grad = tt.tensor([1.0, math.inf]), tt.tensor([1.0, 1.0])
    assert [scaler.step(sgd(first)), scaler.step(sgd(second))] == [False, True]
    scaler.update()
    assert scaler.get_scale() == 2.0**15


def test_gradients_that_vanish_in_float16_arrive_with_a_scale():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)

    def gradient(dtype, scaler):
        layer = tt.Linear(3, 2, generator=tt.Generator(0))
        with tt.autocast(dtype):
            y = layer(tt.tensor(x))
        loss = (y * 1e-8).sum()  # a gradient of 1e-8, where float16 ends at 6e-8
        scaler.scale(loss).backward()
        scaler.unscale_(tt.SGD(layer.parameters(), lr=1.0))
        return layer.weight.grad.data

    without, true = (gradient(dtype, tt.GradScaler(enabled=False)) for dtype in ("float16", "float32"))
    assert (without == 0).all() and (true != 0).all()
    assert_allclose(gradient("float16", tt.GradScaler()), true, rtol=5e-3, atol=1e-10)


def test_training_in_float16_finds_its_scale_and_learns():
    """A scale that is too large at first: gradients overflow, it shrinks, and then each step is a good one."""
    generator = tt.Generator(0)
    model = tt.Sequential(tt.Linear(4, 16, generator=generator), tt.Tanh(), tt.Linear(16, 1, generator=generator))
    x = tt.randn(32, 4, generator=generator)
    target = (x.data[:, :1] * x.data[:, 1:2]).astype(np.float32)
    optimizer, scaler = tt.Adam(model.parameters(), lr=0.02), tt.GradScaler(init_scale=2.0**24)
    steps, losses = [], []
    for _ in range(150):
        model.zero_grad()
        with tt.autocast("float16"):
            loss = tt.mse_loss(model(x), tt.tensor(target))
        with np.errstate(over="ignore", invalid="ignore"):
            scaler.scale(loss).backward()
        steps.append(scaler.step(optimizer))
        scaler.update()
        losses.append(loss.item())
    skipped = steps.index(True)
    assert skipped > 2 and all(steps[skipped:])
    assert scaler.get_scale() == 2.0 ** (24 - skipped)
    assert losses[skipped] == losses[0] and losses[-1] < 0.1 * losses[0]


# ---- saved, switched off, misused


def test_a_scaler_goes_on_from_its_state(model):
    first, second = (tt.GradScaler(init_scale=4.0, growth_interval=3) for _ in range(2))
    optimizer = sgd(model)
    for gradient in ([1, 1], [1, math.inf], [1, 1], [1, 1]):
        step_with(first, optimizer, gradient)
    state = first.state_dict()
    assert (state["scale"], state["_growth_tracker"]) == (2.0, 2)
    second.load_state_dict(state)
    assert second.state_dict() == state
    step_with(second, optimizer, [1, 1])
    assert second.get_scale() == 4.0


def test_switched_off_it_passes_everything_through(model):
    scaler, optimizer = tt.GradScaler(enabled=False), sgd(model)
    loss = model.w.sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    assert scaler.unscale_(optimizer) is True and scaler.step(optimizer) is True
    scaler.update()
    assert_array_equal(model.w.data, [0.5, 1.5])
    assert (scaler.is_enabled(), scaler.get_scale(), scaler.state_dict()) == (False, 1.0, {})
    scaler.load_state_dict({})


def test_a_new_scale_can_be_set(model):
    scaler = tt.GradScaler()
    scaler.update(new_scale=4)
    assert scaler.get_scale() == 4.0
    with pytest.raises(ValueError, match="new_scale above 0, but got 0"):
        scaler.update(new_scale=0)


def test_calls_out_of_order_are_refused(model):
    scaler, optimizer = tt.GradScaler(), sgd(model)
    with pytest.raises(RuntimeError, match=r"how the gradients were\. Call step"):
        scaler.update()
    with pytest.raises(ValueError, match=r"No parameter of this optimizer has a gradient"):
        scaler.step(optimizer)
    model.w.grad = tt.ones(2)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_.. was called a second time for this optimizer"):
        scaler.unscale_(optimizer)
    assert_array_equal(model.w.grad.data, [2.0**-16] * 2)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step.. was called a second time for this optimizer"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_.. comes before step.., and was called after it"):
        scaler.unscale_(optimizer)
    scaler.update()
    scaler.step(optimizer)


@pytest.mark.parametrize(
    "settings",
    [{"init_scale": 0}, {"init_scale": math.inf}, {"growth_factor": 1}, {"backoff_factor": 1}, {"backoff_factor": 0}],
    ids=str,
)
def test_factors_that_cannot_be_are_refused(settings):
    with pytest.raises(
        ValueError, match="GradScaler needs init_scale above 0, growth_factor above 1 and backoff_factor"
    ):
        tt.GradScaler(**settings)


@pytest.mark.parametrize("interval", [0, 2.5, True])
def test_an_interval_is_a_count(interval):
    with pytest.raises(ValueError, match="growth_interval needs an integer of at least 1, but got"):
        tt.GradScaler(growth_interval=interval)


def test_the_state_of_a_scaler_that_was_off_is_refused():
    scaler = tt.GradScaler(init_scale=4.0)
    with pytest.raises(KeyError, match=r"lacks \['_growth_tracker', .* enabled=False\?"):
        scaler.load_state_dict({"scale": 1.0})
    assert scaler.get_scale() == 4.0


@pytest.mark.oracle
def test_pytorch_takes_the_same_way(model):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    theirs, their_optimizer = (
        torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2),
        torch.optim.SGD([weight], 0.5),
    )
    ours, optimizer = tt.GradScaler(init_scale=8.0, growth_interval=2), sgd(model)
    for overflow in np.random.default_rng(1).random(30) < 0.3:
        gradient = [math.inf if overflow else 1.0, 3.0]
        step_with(ours, optimizer, gradient)
        theirs.scale(torch.tensor(0.0))  # makes its scale
        weight.grad = torch.tensor(gradient)
        theirs.step(their_optimizer)
        theirs.update()
        assert ours.state_dict() == theirs.state_dict()
        assert_array_equal(model.w.data, weight.detach().numpy())
