"""Module 06: optimizers move parameters as the papers say, remember it by parameter, and refuse what is wrong."""

import copy
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tinytorch as tt
from tinytorch.optimizers import BLOCK
from tinytorch.testing import assert_close

SHAPES = [(3, 2), (4,), (), (2, 1, 3)]
STEPS = 6


def draw(shapes, steps=STEPS, seed=0, dtype=np.float64):
    """Starting values, and for each step one gradient per parameter."""
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return values, [[rng.standard_normal(shape).astype(dtype) for shape in shapes] for _ in range(steps)]


def as_parameters(values):
    return [tt.Parameter(np.array(value)) for value in values]


def take_step(optimizer, parameters, gradients):
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else tt.Tensor(np.array(gradient))
    optimizer.step()


def sgd_by_hand(p, gradients, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """torch.optim.SGD's algorithm for one parameter. A gradient of None is a step that passed it by."""
    velocity = None
    for g in gradients:
        if g is None:
            continue
        direction = g + weight_decay * p
        if momentum:
            velocity = direction if velocity is None else momentum * velocity + (1 - dampening) * direction
            direction = direction + momentum * velocity if nesterov else velocity
        p = p - lr * direction
    return p


def adam_by_hand(p, gradients, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    """Algorithm 1 of Kingma and Ba 2015, and algorithm 2 of Loshchilov and Hutter 2017 where decoupled."""
    m = v = t = 0
    for g in gradients:
        if g is None:
            continue
        t += 1
        decay = weight_decay * p
        if not decoupled:
            g = g + decay
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        corrected_m, corrected_v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * corrected_m / (np.sqrt(corrected_v) + eps) - (lr * decay if decoupled else 0)
    return p


def adamw_by_hand(p, gradients, weight_decay=1e-2, **settings):
    return adam_by_hand(p, gradients, weight_decay=weight_decay, decoupled=True, **settings)


SGD_RULE, ADAM_RULE = pytest.mark.exercise("ex-06-1", points=2), pytest.mark.exercise("ex-06-2", points=4)
RULES = [
    pytest.param(tt.SGD, sgd_by_hand, {"lr": 0.1}, marks=SGD_RULE, id="sgd"),
    pytest.param(tt.SGD, sgd_by_hand, {}, marks=SGD_RULE, id="sgd-defaults"),
    pytest.param(tt.SGD, sgd_by_hand, {"lr": 0.1, "weight_decay": 0.3}, marks=SGD_RULE, id="sgd-decay"),
    pytest.param(tt.SGD, sgd_by_hand, {"lr": 0.1, "momentum": 0.9}, marks=SGD_RULE, id="sgd-momentum"),
    pytest.param(
        tt.SGD, sgd_by_hand, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}, marks=SGD_RULE, id="sgd-dampening"
    ),
    pytest.param(
        tt.SGD, sgd_by_hand, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, marks=SGD_RULE, id="sgd-nesterov"
    ),
    pytest.param(
        tt.SGD,
        sgd_by_hand,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
        marks=SGD_RULE,
        id="sgd-nesterov-decay",
    ),
    pytest.param(tt.Adam, adam_by_hand, {}, marks=ADAM_RULE, id="adam-defaults"),
    pytest.param(tt.Adam, adam_by_hand, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 0.01}, marks=ADAM_RULE, id="adam"),
    pytest.param(tt.Adam, adam_by_hand, {"lr": 0.1, "betas": (0.0, 0.0)}, marks=ADAM_RULE, id="adam-without-memory"),
    pytest.param(tt.Adam, adam_by_hand, {"lr": 0.1, "weight_decay": 0.3}, marks=ADAM_RULE, id="adam-decay"),
    pytest.param(tt.AdamW, adamw_by_hand, {}, marks=ADAM_RULE, id="adamw-defaults"),
    pytest.param(
        tt.AdamW, adamw_by_hand, {"lr": 0.1, "weight_decay": 0.3, "betas": (0.8, 0.9)}, marks=ADAM_RULE, id="adamw"
    ),
]


@pytest.mark.parametrize(("kind", "by_hand", "settings"), RULES)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_steps_follow_the_paper(kind, by_hand, settings, dtype, rtol):
    values, gradients = draw(SHAPES, dtype=dtype)
    parameters = as_parameters(values)
    optimizer = kind(parameters, **settings)
    for row in gradients:
        take_step(optimizer, parameters, row)
    for parameter, value, own in zip(parameters, values, zip(*gradients)):
        expected = by_hand(value.astype(np.float64), [g.astype(np.float64) for g in own], **settings)
        assert parameter.dtype == dtype
        assert_close(parameter.data, expected, rtol=rtol, atol=rtol, what="The parameter")


# Which parameters have a gradient at each step: neighbours of different ages, one that comes late, one that never does.
PRESENT = [(1, 0, 0, 1), (1, 1, 0, 0), (0, 1, 0, 1), (1, 1, 0, 1), (1, 0, 0, 1), (0, 1, 0, 0)]


@pytest.mark.parametrize(("kind", "by_hand", "settings"), RULES)
def test_a_parameter_without_gradient_is_left_alone_and_does_not_age(kind, by_hand, settings):
    values, gradients = draw(SHAPES)
    gradients = [[g if here else None for g, here in zip(row, present)] for row, present in zip(gradients, PRESENT)]
    parameters = as_parameters(values)
    optimizer = kind(parameters, **settings)
    for row in gradients:
        take_step(optimizer, parameters, row)
    for parameter, value, own in zip(parameters, values, zip(*gradients)):
        assert_close(parameter.data, by_hand(value, own, **settings), rtol=1e-12, what="The parameter")
    assert_array_equal(parameters[2].data, values[2])
    ages = {number: entries["step"] for number, entries in optimizer.state_dict()["state"].items()}
    assert ages == {0: 4, 1: 4, 3: 4}


@pytest.mark.parametrize(
    "shapes",
    [
        [(BLOCK,)],
        [(BLOCK + 1,)],
        [(BLOCK - 1,), (2,)],
        [(7,), (2 * BLOCK + 5,), (3,)],
    ],
    ids=str,
)
@pytest.mark.parametrize(("kind", "by_hand", "settings"), [RULES[6], RULES[-1]])
def test_long_parameters_are_updated_to_their_last_element(kind, by_hand, settings, shapes):
    values, gradients = draw(shapes, steps=2)
    parameters = as_parameters(values)
    optimizer = kind(parameters, **settings)
    for row in gradients:
        take_step(optimizer, parameters, row)
    for parameter, value, own in zip(parameters, values, zip(*gradients)):
        assert_close(parameter.data, by_hand(value, own, **settings), rtol=1e-11, what="The parameter")


def test_a_long_parameter_without_gradient_between_two_others_keeps_its_values():
    values, gradients = draw([(9,), (BLOCK + 3,), (9,)], steps=1)
    parameters = as_parameters(values)
    take_step(tt.SGD(parameters, lr=1.0), parameters, [gradients[0][0], None, gradients[0][2]])
    assert_array_equal(parameters[1].data, values[1])
    assert_allclose(parameters[0].data, values[0] - gradients[0][0], rtol=1e-15)
    assert_allclose(parameters[2].data, values[2] - gradients[0][2], rtol=1e-15)


def test_groups_have_settings_of_their_own():
    values, gradients = draw(SHAPES)
    parameters = as_parameters(values)
    optimizer = tt.SGD(
        [{"params": parameters[:2], "lr": 0.5}, {"params": iter(parameters[2:]), "momentum": 0.9}], lr=0.01
    )
    for row in gradients:
        take_step(optimizer, parameters, row)
    for i, own in enumerate(zip(*gradients)):
        settings = {"lr": 0.5} if i < 2 else {"lr": 0.01, "momentum": 0.9}
        assert_allclose(parameters[i].data, sgd_by_hand(values[i], own, **settings), rtol=1e-12)


def test_parameters_of_two_dtypes_keep_their_own_precision():
    narrow, wide = tt.Parameter(np.ones(3, np.float32)), tt.Parameter(np.ones(3))
    optimizer = tt.SGD([narrow, wide, tt.Parameter(np.ones(2, np.float32))], lr=1e-3)
    third = np.full(3, 1 / 3)
    take_step(optimizer, optimizer.param_groups[0]["params"], [third.astype(np.float32), third, None])
    assert narrow.dtype == np.float32
    assert_allclose(wide.data, 1 - 1e-3 / 3, rtol=1e-16)


def test_the_gradient_is_only_read():
    values, gradients = draw(SHAPES, steps=1)
    parameters = as_parameters(values)
    take_step(tt.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.5), parameters, gradients[0])
    for parameter, g in zip(parameters, gradients[0]):
        assert_array_equal(parameter.grad.data, g)


# ---- where the numbers live


def test_parameters_of_a_group_are_views_of_one_buffer_before_and_after_steps():
    values, gradients = draw(SHAPES)
    parameters = as_parameters(values)
    optimizer = tt.Adam(parameters)
    for parameter, value in zip(parameters, values):
        assert_array_equal(parameter.data, value)
    for row in gradients:
        take_step(optimizer, parameters, row)
        buffers = {id(parameter.data.base) for parameter in parameters}
        assert len(buffers) == 1 and parameters[0].data.base is not None


def test_loaded_weights_are_those_that_the_next_step_moves():
    model = tt.Linear(3, 2)
    optimizer = tt.SGD(model.parameters(), lr=0.5)
    loaded = {"weight": np.full((2, 3), 7, np.float32), "bias": np.full(2, -1, np.float32)}
    model.load_state_dict(loaded)
    take_step(optimizer, [model.weight, model.bias], [np.ones((2, 3), np.float32), np.ones(2, np.float32)])
    assert_array_equal(model.weight.data, np.full((2, 3), 6.5, np.float32))
    assert_array_equal(model.bias.data, np.full(2, -1.5, np.float32))


def test_an_array_that_somebody_assigned_is_the_one_that_moves():
    first, second = parameters = as_parameters([np.zeros(2), np.zeros(3)])
    optimizer = tt.SGD(parameters, lr=1.0, momentum=0.5)
    take_step(optimizer, parameters, [np.ones(2), np.ones(3)])
    first.data = np.array([10.0, 20.0])
    take_step(optimizer, parameters, [np.ones(2), np.ones(3)])
    assert_allclose(first.data, [8.5, 18.5])  # the velocity, 0.5 * 1 + 1, is kept
    assert_allclose(second.data, [-2.5] * 3)


def test_two_parameters_whose_arrays_were_exchanged_each_take_their_own_gradient():
    first, second = parameters = as_parameters([np.zeros(2), np.full(2, 5.0)])
    optimizer = tt.SGD(parameters, lr=1.0)
    first.data, second.data = second.data, first.data
    take_step(optimizer, parameters, [np.ones(2), np.zeros(2)])
    assert_allclose(first.data, [4, 4])
    assert_allclose(second.data, [0, 0])


def test_a_parameter_reversed_in_place_takes_its_gradient_in_the_new_order():
    parameter = tt.Parameter(np.array([1.0, 2.0, 3.0]))
    optimizer = tt.SGD([parameter], lr=1.0)
    parameter.data = parameter.data[::-1]
    take_step(optimizer, [parameter], [np.array([1.0, 0.0, 0.0])])
    assert_allclose(parameter.data, [2, 2, 1])


def test_arrays_that_became_float64_are_updated_in_float64():
    first, second = parameters = as_parameters([np.ones(3, np.float32), np.ones(2, np.float32)])
    optimizer = tt.SGD(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.data = parameter.data.astype(np.float64)
    take_step(optimizer, parameters, [np.full(3, 1 / 3), np.full(2, 1 / 3)])
    assert_allclose(np.concatenate([first.data, second.data]), [1 - 1e-3 / 3] * 5, rtol=1e-15)


def test_one_array_that_became_float64_does_not_widen_the_others():
    first, second = parameters = as_parameters([np.ones(3, np.float32), np.ones(2, np.float32)])
    optimizer = tt.SGD(parameters, lr=1e-3)
    first.data = first.data.astype(np.float64)
    take_step(optimizer, parameters, [np.full(3, 1 / 3), np.full(2, 1 / 3, np.float32)])
    assert (first.dtype, second.dtype) == (np.float64, np.float32)


def test_two_optimizers_may_share_a_parameter():
    parameters = as_parameters([np.zeros(2)])
    first, second = tt.SGD(parameters, lr=1.0, momentum=0.5), tt.SGD(parameters, lr=10.0)
    for optimizer in (first, second, first):
        take_step(optimizer, parameters, [np.ones(2)])
    assert_allclose(parameters[0].data, [-(1 + 10 + 1.5)] * 2)


# ---- zero_grad


@pytest.mark.parametrize("owner", ["optimizer", "module"])
def test_zero_grad_forgets_gradients_or_fills_them_with_zeros(owner):
    model = tt.Linear(3, 2)
    zero_grad = (model if owner == "module" else tt.SGD(model.parameters())).zero_grad
    model.weight.grad = tt.ones(2, 3)
    zero_grad(set_to_none=False)
    assert_array_equal(model.weight.grad.data, np.zeros((2, 3), np.float32))
    assert model.bias.grad is None
    zero_grad()
    assert model.weight.grad is None


def test_a_gradient_of_zeros_still_decays_and_ages_but_none_does_neither():
    zeros, none = parameters = as_parameters([np.ones(2), np.ones(2)])
    optimizer = tt.AdamW(parameters, lr=0.1, weight_decay=0.5)
    take_step(optimizer, parameters, [np.zeros(2), None])
    assert_allclose(zeros.data, [0.95, 0.95])
    assert_array_equal(none.data, [1, 1])
    assert list(optimizer.state_dict()["state"]) == [0]


# ---- state dicts


def exactly(state_dict):
    """A state dict as values that == compares bit for bit."""
    state = {
        number: {
            name: value if name == "step" else (value.dtype.str, value.shape, value.tobytes())
            for name, value in entries.items()
        }
        for number, entries in state_dict["state"].items()
    }
    return state, state_dict["param_groups"]


@pytest.mark.parametrize(("kind", "by_hand", "settings"), RULES)
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_new_optimizer_with_the_old_state_goes_on_exactly(kind, by_hand, settings, stop):
    values, gradients = draw(SHAPES, dtype=np.float32)
    gradients = [[g if here else None for g, here in zip(row, present)] for row, present in zip(gradients, PRESENT)]
    parameters = as_parameters(values)
    optimizer = kind([{"params": parameters[:1], "lr": 0.2}, {"params": parameters[1:]}], **settings)
    for row in gradients[:stop]:
        take_step(optimizer, parameters, row)
    saved, copies = copy.deepcopy(optimizer.state_dict()), as_parameters([p.data for p in parameters])
    successor = kind([{"params": copies[:1]}, {"params": copies[1:]}], lr=0.7)
    successor.load_state_dict(saved)
    assert exactly(successor.state_dict()) == exactly(saved)
    for row in gradients[stop:]:
        take_step(optimizer, parameters, row)
        take_step(successor, copies, row)
    for parameter, twin in zip(parameters, copies):
        assert_array_equal(twin.data, parameter.data, strict=True)
    assert exactly(successor.state_dict()) == exactly(optimizer.state_dict())


def test_loading_an_empty_state_forgets_whatever_was_remembered():
    values, gradients = draw(SHAPES)
    parameters = as_parameters(values)
    optimizer = tt.SGD(parameters, lr=0.1, momentum=0.9)
    empty = copy.deepcopy(optimizer.state_dict())
    take_step(optimizer, parameters, gradients[0])
    optimizer.load_state_dict(empty)
    assert optimizer.state_dict()["state"] == {}
    before = [parameter.data.copy() for parameter in parameters]
    take_step(optimizer, parameters, gradients[1])
    for parameter, start, g in zip(parameters, before, gradients[1]):
        assert_allclose(parameter.data, start - 0.1 * g, rtol=1e-12)


def test_an_optimizer_can_load_its_own_state():
    values, gradients = draw(SHAPES)
    parameters = as_parameters(values)
    optimizer = tt.Adam(parameters)
    take_step(optimizer, parameters, gradients[0])
    before = copy.deepcopy(exactly(optimizer.state_dict()))
    optimizer.load_state_dict(optimizer.state_dict())
    assert exactly(optimizer.state_dict()) == before


def lose_a_parameter(state):
    state["param_groups"][0]["params"].pop()


def lose_a_group(state):
    state["param_groups"].pop()


def reshape_a_moment(state):
    state["state"][1]["exp_avg_sq"] = np.zeros((5, 5))


def lose_a_moment(state):
    del state["state"][1]["exp_avg_sq"]


def rename_a_moment(state):
    state["state"][1]["momentum_buffer"] = state["state"][1].pop("exp_avg")


def number_out_of_range(state):
    state["state"][99] = state["state"].pop(1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_a_parameter, r"groups of \[4\] parameters.*\[3\]"),
        (lose_a_group, r"groups of \[4\] parameters.*\[\]"),
        (reshape_a_moment, r"Parameter 1 .*\(4,\).*exp_avg_sq.*\(5, 5\)"),
        (lose_a_moment, "exp_avg_sq"),
        (rename_a_moment, "momentum_buffer"),
        (number_out_of_range, "99"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(damage, message):
    values, gradients = draw(SHAPES)
    parameters = as_parameters(values)
    optimizer = tt.Adam(parameters, lr=0.1)
    take_step(optimizer, parameters, gradients[0])
    before = copy.deepcopy(exactly(optimizer.state_dict()))
    other = copy.deepcopy(optimizer.state_dict())
    other["param_groups"][0]["lr"] = 0.9
    damage(other)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(other)
    assert exactly(optimizer.state_dict()) == before


# ---- PyTorch beside it


def torch_twins(values):
    torch = pytest.importorskip("torch")
    return torch, [torch.nn.Parameter(torch.tensor(value)) for value in values]


def take_torch_step(torch, optimizer, parameters, gradients):
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = None if gradient is None else torch.tensor(gradient)
    optimizer.step()


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "by_hand", "settings"), RULES)
def test_steps_are_those_of_pytorch(kind, by_hand, settings):
    values, gradients = draw(SHAPES)
    gradients = [[g if here else None for g, here in zip(row, present)] for row, present in zip(gradients, PRESENT)]
    torch, theirs = torch_twins(values)
    ours = as_parameters(values)
    optimizer, twin = kind(ours, **settings), getattr(torch.optim, kind.__name__)(theirs, **settings)
    for row in gradients:
        take_step(optimizer, ours, row)
        take_torch_step(torch, twin, theirs, row)
    for mine, yours in zip(ours, theirs):
        assert_allclose(mine.data, yours.detach().numpy(), rtol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "by_hand", "settings"), RULES)
def test_a_state_dict_of_pytorch_loads_and_training_goes_on(kind, by_hand, settings):
    values, gradients = draw(SHAPES)
    torch, theirs = torch_twins(values)
    twin = getattr(torch.optim, kind.__name__)(theirs, **settings)
    for row in gradients[:3]:
        take_torch_step(torch, twin, theirs, row)
    ours = as_parameters([parameter.detach().numpy() for parameter in theirs])
    optimizer = kind(ours)
    optimizer.load_state_dict(twin.state_dict())
    remembered = {number: set(entries) - {"step"} for number, entries in optimizer.state_dict()["state"].items()}
    for number, entries in twin.state_dict()["state"].items():
        kept = {name for name, value in entries.items() if name != "step" and value is not None}
        assert kept <= remembered.get(number, set())
    for row in gradients[3:]:
        take_step(optimizer, ours, row)
        take_torch_step(torch, twin, theirs, row)
    for mine, yours in zip(ours, theirs):
        assert_allclose(mine.data, yours.detach().numpy(), rtol=1e-12)


# ---- clipping


def with_gradients(*gradients):
    """A parameter for each gradient, and one more that has none."""
    parameters = as_parameters([np.zeros_like(g) for g in gradients] + [np.zeros(2)])
    for parameter, g in zip(parameters, gradients):
        parameter.grad = tt.Tensor(np.array(g))
    return parameters


@pytest.mark.exercise("ex-06-3", points=2)
def test_clipping_returns_the_joint_length_and_scales_all_gradients_by_one_factor():
    first, second, without = with_gradients(np.array([3.0, 0.0]), np.array([[0.0, 4.0], [12.0, 0.0]]))
    norm = tt.clip_grad_norm_([first, second, without], 6.5)
    assert_close(first.grad, [1.5, 0], rtol=1e-6, what="The first gradient")
    assert_close(second.grad, [[0, 2], [6, 0]], rtol=1e-6, what="The second gradient")
    assert isinstance(norm, tt.Tensor)
    assert norm.item() == 13
    assert without.grad is None


@pytest.mark.exercise("ex-06-3", points=2)
@pytest.mark.parametrize("limit", [13.0, 13.5, math.inf])
def test_gradients_within_the_limit_are_not_touched(limit):
    gradients = [np.array([3.0, 4.0]), np.array([12.0])]
    parameters = with_gradients(*gradients)
    assert tt.clip_grad_norm_(iter(parameters), limit).item() == 13
    for parameter, g in zip(parameters, gradients):
        assert parameter.grad.tolist() == g.tolist()


def test_clipping_takes_a_single_tensor():
    parameter = with_gradients(np.array([3.0, 4.0]))[0]
    assert tt.clip_grad_norm_(parameter, 1.0).item() == 5
    assert_allclose(parameter.grad.data, [0.6, 0.8], rtol=1e-6)


def test_clipping_without_any_gradient_gives_a_norm_of_zero():
    assert tt.clip_grad_norm_([tt.Parameter(np.zeros(2))], 1.0).item() == 0


def test_clipping_one_parameter_leaves_the_gradient_of_another_alone():
    x, y = tt.Parameter(np.array([3.0])), tt.Parameter(np.array([4.0]))
    (x + y).sum().backward()  # the rule of + hands one and the same array to both
    tt.clip_grad_norm_([x], 0.5)
    assert_allclose(x.grad.data, [0.5], rtol=1e-5)
    assert_array_equal(y.grad.data, [1.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_gradient_shows_in_the_norm(bad):
    parameters = with_gradients(np.array([1.0, bad]), np.array([1.0]))
    assert not math.isfinite(tt.clip_grad_norm_(parameters, 1.0).item())


@pytest.mark.exercise("ex-06-3", points=2)
def test_a_gradient_of_infinite_length_stays_as_it_is():
    parameters = with_gradients(np.array([1.0, math.inf]), np.array([2.0]))
    tt.clip_grad_norm_(parameters, 1.0)
    assert [p.grad.tolist() for p in parameters if p.grad is not None] == [[1.0, math.inf], [2.0]]


@pytest.mark.oracle
def test_clipping_is_that_of_pytorch():
    values, gradients = draw(SHAPES, steps=1)
    torch, theirs = torch_twins(values)
    ours = as_parameters(values)
    for mine, yours, g in zip(ours, theirs, gradients[0]):
        mine.grad, yours.grad = tt.Tensor(np.array(g)), torch.tensor(g)
    norm = tt.clip_grad_norm_(ours, 0.7)
    assert_allclose(norm.item(), torch.nn.utils.clip_grad_norm_(theirs, 0.7).item(), rtol=1e-6)
    for mine, yours in zip(ours, theirs):
        assert_allclose(mine.grad.data, yours.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match=f"max_norm above 0, but got {limit}"):
        tt.clip_grad_norm_(with_gradients(np.ones(2)), limit)


# ---- what is refused


def one():
    return [tt.Parameter(np.ones(2, np.float32))]


def shared():
    parameter = tt.Parameter(np.ones(2))
    return [{"params": [parameter]}, {"params": [tt.Parameter(np.ones(1)), parameter]}]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tt.SGD(one(), lr=-0.1), r"SGD needs lr .*-0\.1"),
        (lambda: tt.SGD(one(), lr=math.nan), "SGD needs lr .*nan"),
        (lambda: tt.SGD(one(), lr=math.inf), "SGD needs lr .*inf"),
        (lambda: tt.SGD(one(), weight_decay=-1), "SGD needs weight_decay .*-1"),
        (lambda: tt.SGD(one(), momentum=-0.5), r"momentum.*-0\.5"),
        (lambda: tt.SGD(one(), momentum=math.nan), "momentum.*nan"),
        (lambda: tt.SGD(one(), nesterov=True), "momentum > 0"),
        (lambda: tt.SGD(one(), momentum=0.9, dampening=0.1, nesterov=True), "dampening = 0"),
        (lambda: tt.SGD([{"params": one(), "lr": -3.0}]), r"lr .*-3\.0"),
        (lambda: tt.Adam(one(), lr=-1.0), "Adam needs lr"),
        (lambda: tt.Adam(one(), eps=-1e-8), "Adam needs eps .*-1e-08"),
        (lambda: tt.Adam(one(), betas=(1.0, 0.9)), r"two betas in \[0, 1\), but got \(1\.0, 0\.9\)"),
        (lambda: tt.Adam(one(), betas=(0.9, 1.0)), "two betas"),
        (lambda: tt.Adam(one(), betas=(-0.1, 0.9)), "two betas"),
        (lambda: tt.Adam(one(), betas=(math.nan, 0.9)), "two betas"),
        (lambda: tt.Adam(one(), betas=(0.9,)), "two betas"),
        (lambda: tt.AdamW(one(), weight_decay=-0.1), r"AdamW needs weight_decay .*-0\.1"),
        (lambda: tt.SGD([]), "needs parameters, but got none"),
        (lambda: tt.SGD(iter(())), "needs parameters, but got none"),
        (lambda: tt.SGD(one() * 2), "given twice"),
        (lambda: tt.SGD(shared()), "given twice"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "wrong",
    [tt.arange(3), tt.Parameter(np.ones(3)) * 2, np.ones(3), "weight", 1.0],
    ids=["integers", "computed", "array", "name", "number"],
)
def test_what_is_no_floating_point_leaf_is_refused(wrong):
    with pytest.raises(TypeError, match="floating point leaves"):
        tt.SGD([wrong])


@pytest.mark.parametrize("shape", [(1,), (3, 2), (6,)])
def test_a_gradient_of_another_shape_is_refused(shape):
    parameter = tt.Parameter(np.ones((2, 3)))
    optimizer = tt.SGD([parameter])
    parameter.grad = tt.Tensor(np.ones(shape))
    with pytest.raises(ValueError, match="shape"):
        optimizer.step()
    assert_array_equal(parameter.data, np.ones((2, 3)))


def test_an_optimizer_without_a_rule_says_what_it_needs():
    class Idle(tt.Optimizer):
        pass

    parameters = one()
    with pytest.raises(NotImplementedError, match="Idle needs an update method"):
        take_step(Idle(parameters), parameters, [np.ones(2, np.float32)])


def test_a_new_optimizer_is_one_method():
    class Sign(tt.Optimizer):
        def update(self, group, step, p, g):
            p -= group["lr"] * np.sign(g)

    parameters = as_parameters([np.zeros(3)])
    take_step(Sign(parameters, lr=0.5), parameters, [np.array([-2.0, 0.0, 7.0])])
    assert_array_equal(parameters[0].data, [0.5, 0, -0.5])


@pytest.mark.exercise("ex-06-4", points=1)
def test_decay_groups_spare_biases_and_scales():
    model = tt.Sequential(tt.Linear(3, 4), tt.LayerNorm(4), tt.Linear(4, 2, bias=False))
    decaying, spared = tt.decay_groups(model, 0.5)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [names[p] for p in decaying["params"]] == ["0.weight", "2.weight"]
    assert [names[p] for p in spared["params"]] == ["0.bias", "1.weight", "1.bias"]
    before = {name: p.data.copy() for p, name in names.items()}
    for parameter in names:
        parameter.grad = tt.zeros_like(parameter)
    tt.AdamW([decaying, spared], lr=0.1).step()
    for parameter, name in names.items():
        np.testing.assert_allclose(parameter.data, before[name] * (0.95 if "weight" in name and name[0] != "1" else 1))


def test_a_deep_copied_model_and_its_optimizer_learn_together():
    model = tt.Linear(2, 1)
    optimizer = tt.SGD(model.parameters(), lr=1.0)
    model, optimizer = copy.deepcopy((model, optimizer))
    before = model.weight.data.copy()
    model(tt.ones(3, 2)).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(model.weight.data, before - 3)


@pytest.mark.parametrize("params", [tt.Linear(2, 1), tt.Linear(2, 1).parameters])
def test_a_model_is_not_its_parameters(params):
    with pytest.raises(TypeError, match=r"Pass model.parameters\(\)"):
        tt.SGD(params)


def test_momentum_that_was_switched_off_leaves_a_state_that_loads():
    parameter = tt.Parameter(np.ones(2))
    optimizer = tt.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = tt.ones(2)
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.0
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    np.testing.assert_allclose(parameter.data, 0.8, rtol=1e-6)
