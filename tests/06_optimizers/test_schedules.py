"""Module 06: learning-rate schedules give the rates of their closed forms, in any group, also after a stop."""

import json
import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close

BASE = 0.8


def sgd(*rates):
    return tt.SGD([{"params": [tt.Parameter(np.zeros(1))], "lr": lr} for lr in rates or (BASE,)])


def rates(schedule, steps):
    """The rate of the first group at step 0, 1, ..., `steps`."""
    seen = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        schedule.step()
        seen.append(schedule.get_last_lr()[0])
    return seen


STAIRS, WARM_UP = pytest.mark.exercise("ex-06-5", points=1), pytest.mark.exercise("ex-06-6", points=1)
COSINE, SEQUENCE = pytest.mark.exercise("ex-06-7", points=1), pytest.mark.exercise("ex-06-8", points=2)
CLOSED_FORMS = [
    pytest.param(lambda o: tt.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: BASE / (1 + t), id="lambda"),
    pytest.param(lambda o: tt.StepLR(o, 3), lambda t: BASE * 0.1 ** math.floor(t / 3), marks=STAIRS, id="step"),
    pytest.param(lambda o: tt.StepLR(o, 2, gamma=0.5), lambda t: BASE / 2 ** (t // 2), marks=STAIRS, id="step-half"),
    pytest.param(lambda o: tt.LinearLR(o), lambda t: BASE * (1 + 2 * min(t, 5) / 5) / 3, marks=WARM_UP, id="linear"),
    pytest.param(
        lambda o: tt.LinearLR(o, 1.0, 0.0, total_iters=4),
        lambda t: BASE * max(0, 1 - t / 4),
        marks=WARM_UP,
        id="linear-down",
    ),
    pytest.param(
        lambda o: tt.CosineAnnealingLR(o, 12),
        lambda t: BASE * math.cos(math.pi * t / 24) ** 2,
        marks=COSINE,
        id="cosine",
    ),
    pytest.param(
        lambda o: tt.CosineAnnealingLR(o, 12, eta_min=0.2),
        lambda t: 0.2 + 0.6 * math.cos(math.pi * t / 24) ** 2,
        marks=COSINE,
        id="cosine-above-0",
    ),
    pytest.param(lambda o: tt.ConstantLR(o, 0.25, total_iters=3), lambda t: BASE / (4 if t < 3 else 1), id="constant"),
    pytest.param(lambda o: tt.ExponentialLR(o, 0.9), lambda t: BASE * math.exp(t * math.log(0.9)), id="exponential"),
    pytest.param(
        lambda o: tt.MultiStepLR(o, [7, 3], 0.5), lambda t: BASE / 2 ** ((t >= 3) + (t >= 7)), id="milestones"
    ),
    pytest.param(
        lambda o: tt.PolynomialLR(o, 10, power=2), lambda t: BASE * (max(0, 10 - t) / 10) ** 2, id="polynomial"
    ),
    pytest.param(
        lambda o: tt.CosineAnnealingWarmRestarts(o, 2, T_mult=2, eta_min=0.2),
        lambda t: 0.2 + 0.6 * math.cos(math.pi / 2 * (t / 2 if t < 2 else (t - 2) / 4 if t < 6 else (t - 6) / 8)) ** 2,
        id="warm-restarts",
    ),
    pytest.param(
        lambda o: tt.OneCycleLR(o, 2.0, 10, pct_start=0.4, div_factor=4, final_div_factor=5),
        lambda t: (
            0.5 + 1.5 * math.sin(math.pi / 6 * t) ** 2
            if t < 3
            else 0.1 + 1.9 * math.cos(math.pi / 12 * (min(t, 9) - 3)) ** 2
        ),
        id="one-cycle",
    ),
    pytest.param(
        lambda o: tt.SequentialLR(
            o,
            [tt.LinearLR(o, 0.25, 1.0, 4), tt.StepLR(o, 2, 0.5), tt.LambdaLR(o, lambda t: 0.01 * (t + 1))],
            [4, 8],
        ),
        lambda t: BASE * ((1 + 3 * t / 4) / 4 if t < 4 else 0.5 ** ((t - 4) // 2) if t < 8 else 0.01 * (t - 7)),
        marks=SEQUENCE,
        id="sequence",
    ),
    pytest.param(
        lambda o: tt.warmup_cosine(o, 4, 12, eta_min=0.1),
        lambda t: BASE * (t + 1) / 5 if t < 4 else 0.1 + 0.7 * math.cos(math.pi * (t - 4) / 16) ** 2,
        marks=SEQUENCE,
        id="warmup-cosine",
    ),
]


@pytest.mark.parametrize(("build", "closed_form"), CLOSED_FORMS)
def test_rates_follow_the_closed_form(build, closed_form):
    assert_close(rates(build(sgd()), 12), [closed_form(t) for t in range(13)], rtol=1e-12, atol=1e-15, what="The rate")


@pytest.mark.parametrize(("build", "closed_form"), CLOSED_FORMS)
def test_the_optimizer_steps_with_the_rate_of_the_moment(build, closed_form):
    optimizer = sgd()
    (parameter,) = optimizer.param_groups[0]["params"]
    schedule = build(optimizer)
    for t in range(12):
        before = parameter.data.item()
        parameter.grad = tt.Tensor(np.ones(1))
        optimizer.step()
        schedule.step()
        assert before - parameter.data.item() == pytest.approx(closed_form(t), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda o: tt.StepLR(o, 2, 0.5),
        lambda o: tt.LinearLR(o, 0.1, 1.0, 6),
        lambda o: tt.SequentialLR(o, [tt.LinearLR(o, 0.25, 1.0, 3), tt.StepLR(o, 2, 0.5)], [3]),
    ],
    ids=["step", "linear", "sequence"],
)
def test_groups_keep_the_ratio_of_their_rates(build):
    schedule = build(sgd(0.1, 0.4))
    for _ in range(7):
        low, high = schedule.get_last_lr()
        assert high == pytest.approx(4 * low, rel=1e-12)
        schedule.step()


def test_warmup_cosine_starts_above_zero_peaks_after_the_warmup_and_ends_at_the_minimum():
    seen = rates(tt.warmup_cosine(sgd(), 10, 50, eta_min=0.02), 50)
    assert 0 < seen[0] < seen[1]
    assert max(seen) == seen[10] == BASE
    assert sorted(seen[:11]) == seen[:11] and sorted(seen[10:], reverse=True) == seen[10:]
    assert seen[50] == pytest.approx(0.02)


def test_schedules_build_on_the_rate_that_the_optimizer_was_made_with():
    optimizer = sgd()
    tt.StepLR(optimizer, 1, gamma=0.5).step()
    assert tt.LinearLR(optimizer, 0.5, 1.0, 2).get_last_lr() == [BASE / 2]


@pytest.mark.parametrize(("build", "closed_form"), CLOSED_FORMS)
@pytest.mark.parametrize("stop", [0, 3, 9])
def test_a_new_schedule_with_the_old_state_goes_on(build, closed_form, stop):
    schedule = build(sgd())
    rates(schedule, stop)
    state = json.loads(json.dumps(schedule.state_dict()))
    successor = build(sgd(123.0))
    successor.load_state_dict(state)
    assert rates(successor, 3) == rates(schedule, 3)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "build",
    [
        lambda o, schedules: schedules.StepLR(o, 3, gamma=0.3),
        lambda o, schedules: schedules.LinearLR(o, 0.2, 0.9, 6),
        lambda o, schedules: schedules.CosineAnnealingLR(o, 20, eta_min=0.05),
        lambda o, schedules: schedules.SequentialLR(
            o, [schedules.LinearLR(o, 0.2, 1.0, 5), schedules.CosineAnnealingLR(o, 15)], [5]
        ),
        lambda o, schedules: schedules.ConstantLR(o, 0.5, 4),
        lambda o, schedules: schedules.ExponentialLR(o, 0.9),
        lambda o, schedules: schedules.MultiStepLR(o, [3, 5], 0.5),
        lambda o, schedules: schedules.PolynomialLR(o, 6, 2.0),
        lambda o, schedules: schedules.CosineAnnealingWarmRestarts(o, 3, 2, 0.1),
        lambda o, schedules: schedules.OneCycleLR(
            o, 1.0, total_steps=20, **({} if schedules is tt else {"cycle_momentum": False})
        ),
    ],
    ids=[
        "step",
        "linear",
        "cosine",
        "sequence",
        "constant",
        "exponential",
        "milestones",
        "polynomial",
        "warm-restarts",
        "one-cycle",
    ],
)
def test_rates_are_those_of_pytorch(build):
    torch = pytest.importorskip("torch")
    twin = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    theirs = build(twin, torch.optim.lr_scheduler)
    expected = []
    for _ in range(20):
        expected.append(twin.param_groups[0]["lr"])
        twin.step()
        theirs.step()
    assert rates(build(sgd(), tt), 19) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: tt.warmup_cosine(o, 0, 10), "0 < warmup_steps < total_steps, but got 0, 10"),
        (lambda o: tt.warmup_cosine(o, 10, 10), "0 < warmup_steps < total_steps, but got 10, 10"),
        (lambda o: tt.warmup_cosine(o, -1, 10), "0 < warmup_steps < total_steps, but got -1, 10"),
        (lambda o: tt.SequentialLR(o, [tt.StepLR(o, 2)], [3]), "1 schedules need 0 milestones, not 1"),
        (lambda o: tt.SequentialLR(o, [tt.StepLR(o, 2)] * 2, []), "2 schedules need 1 milestones, not 0"),
        (lambda o: tt.SequentialLR(o, [tt.StepLR(o, 2)] * 3, [5, 3]), r"milestones.*\[5, 3\]"),
        (lambda o: tt.SequentialLR(o, [], []), "at least one schedule"),
        (lambda o: tt.StepLR(o, 0), "step_size.*0"),
        (lambda o: tt.StepLR(o, -2), "step_size.*-2"),
        (lambda o: tt.LinearLR(o, total_iters=0), "total_iters.*0"),
        (lambda o: tt.CosineAnnealingLR(o, 0), "T_max.*0"),
        (lambda o: tt.LambdaLR(o, lambda t: -1.0), r"lr.*-0\.8"),
        (lambda o: tt.LambdaLR(o, lambda t: math.nan), "lr.*nan"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(sgd())


def test_a_state_for_another_number_of_groups_is_refused():
    state = tt.StepLR(sgd(0.1, 0.2), 2).state_dict()
    schedule = tt.StepLR(sgd(), 2)
    with pytest.raises(ValueError, match=r"1\b.*\b2\b"):
        schedule.load_state_dict(state)
    assert schedule.get_last_lr() == [BASE]


def test_a_schedule_without_a_formula_says_what_it_needs():
    with pytest.raises(NotImplementedError, match="LRScheduler needs a method lr_at"):
        tt.optimizers.LRScheduler(sgd())


# ---- waiting for progress


def plateau_rates(metrics, **settings):
    optimizer = sgd(1.0)
    schedule = tt.ReduceLROnPlateau(optimizer, **settings)
    seen = []
    for metric in metrics:
        schedule.step(metric)
        seen.append(schedule.get_last_lr()[0])
    return seen


@pytest.mark.exercise("ex-06-9", points=3)
@pytest.mark.parametrize(
    ("settings", "metrics", "expected"),
    [
        ({"patience": 1}, [3, 2, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0.1, 0.1, 0.01]),
        ({"patience": 0, "factor": 0.5}, [3, 3, 2, 2], [1, 0.5, 0.5, 0.25]),
        ({"patience": 0, "mode": "max"}, [1, 2, 2, 3], [1, 1, 0.1, 0.1]),
        ({"patience": 0, "cooldown": 2}, [1, 1, 1, 1, 1], [1, 0.1, 0.1, 0.1, 0.01]),
        ({"patience": 0, "min_lr": 0.3}, [1, 1, 1], [1, 0.3, 0.3]),
        ({"patience": 0, "threshold": 0.5}, [8, 5, 3], [1, 0.1, 0.1]),
        ({"patience": 0}, [1, math.nan], [1, 0.1]),
        ({"patience": 1}, [2, 2, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_a_plateau_lowers_the_rate(settings, metrics, expected):
    assert_close(plateau_rates(metrics, **settings), expected, rtol=1e-6, what="The rate")


def test_a_plateau_is_recognised_across_a_stop():
    first = tt.ReduceLROnPlateau(sgd(), patience=1)
    first.step(1.0)
    first.step(2.0)
    second = tt.ReduceLROnPlateau(sgd(), patience=1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.step(2.0)
    assert second.get_last_lr() == pytest.approx([0.1 * BASE])


@pytest.mark.parametrize(("settings", "message"), [({"mode": "low"}, "'low'"), ({"factor": 1.0}, "below 1, but got 1")])
def test_settings_of_a_plateau_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tt.ReduceLROnPlateau(sgd(), **settings)


@pytest.mark.oracle
@pytest.mark.parametrize("settings", [{"patience": 1}, {"patience": 0, "cooldown": 2, "mode": "max", "factor": 0.7}])
def test_a_plateau_is_that_of_pytorch(settings):
    torch = pytest.importorskip("torch")
    metrics = tt.Generator(3).standard_normal(40).round(1).tolist()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings, eps=0)
    expected = []
    for metric in metrics:
        theirs.step(metric)
        expected.append(optimizer.param_groups[0]["lr"])
    assert plateau_rates(metrics, **settings) == pytest.approx(expected, rel=1e-9)
