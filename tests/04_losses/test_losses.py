"""Losses agree with their closed forms, average what counts, survive extremes, and refuse what makes no sense."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.losses import binary_cross_entropy_with_logits_composed, cross_entropy_composed
from tinytorch.testing import assert_close, check_grad

REDUCTIONS = {"mean": np.mean, "sum": np.sum, "none": lambda losses: losses}
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
PAIRED = {
    "mse_loss": tt.mse_loss,
    "binary_cross_entropy": tt.binary_cross_entropy,
    "binary_cross_entropy_with_logits": tt.binary_cross_entropy_with_logits,
}
every_paired_loss = pytest.mark.parametrize(("name", "loss"), PAIRED.items(), ids=PAIRED)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, seed=0, scale=1.0):
    return scale * rng(seed).standard_normal(shape)


def within(*shape, seed=0):
    """Numbers from 0.05 to 0.95."""
    return 0.05 + 0.9 * rng(seed).random(shape)


# ---- mean squared error and binary cross-entropy


@pytest.mark.exercise("ex-04-1", points=1)
@every_reduction
def test_mse_is_the_squared_difference(reduction):
    x, target = normal(3, 4), normal(3, 4, seed=1)
    expected = REDUCTIONS[reduction]((x - target) ** 2)
    assert_close(tt.mse_loss(tt.tensor(x), tt.tensor(target), reduction=reduction), expected, 1e-14, 1e-14)


@pytest.mark.exercise("ex-04-2", points=2)
@every_reduction
def test_binary_cross_entropy_is_that_of_the_definition(reduction):
    p, t = within(3, 4), rng(1).random((3, 4))
    expected = REDUCTIONS[reduction](-(t * np.log(p) + (1 - t) * np.log(1 - p)))
    assert_close(tt.binary_cross_entropy(tt.tensor(p), tt.tensor(t), reduction=reduction), expected, 1e-13, 1e-13)


@every_reduction
def test_with_logits_is_binary_cross_entropy_after_sigmoid(reduction):
    x, t = normal(3, 4, scale=3), rng(1).random((3, 4))
    p = 1 / (1 + np.exp(-x))
    expected = REDUCTIONS[reduction](-(t * np.log(p) + (1 - t) * np.log(1 - p)))
    assert_close(
        tt.binary_cross_entropy_with_logits(tt.tensor(x), tt.tensor(t), reduction=reduction), expected, 1e-12, 1e-12
    )


@pytest.mark.exercise("ex-04-3", points=3)
@every_reduction
def test_with_logits_composed_is_that_of_the_definition(reduction):
    x, t = normal(3, 4, scale=3), rng(1).random((3, 4))
    p = 1 / (1 + np.exp(-x))
    expected = REDUCTIONS[reduction](-(t * np.log(p) + (1 - t) * np.log(1 - p)))
    losses = binary_cross_entropy_with_logits_composed(tt.tensor(x), tt.tensor(t), reduction=reduction)
    assert_close(losses, expected, 1e-12, 1e-12)


@pytest.mark.exercise("ex-04-3", points=3)
def test_with_logits_composed_grows_in_a_line_without_overflow():
    x, t = tt.tensor([1e4, -1e4, 1e4, -1e4]), tt.tensor([0.0, 1.0, 1.0, 0.0])
    assert_close(binary_cross_entropy_with_logits_composed(x, t, reduction="none"), [1e4, 1e4, 0.0, 0.0], 0, 0)


@every_paired_loss
@every_reduction
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_gradients_to_input_and_target_are_those_of_finite_differences(name, loss, reduction, shape):
    check_grad(
        lambda x, t: loss(x, t, reduction=reduction), np.asarray(within(*shape)), np.asarray(within(*shape, seed=1))
    )


@every_paired_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(name, loss, dtype):
    x = tt.tensor(within(3).astype(dtype), requires_grad=True)
    value = loss(x, tt.tensor(within(3, seed=1).astype(dtype)))
    value.backward()
    assert value.dtype == x.grad.dtype == dtype


def impossible(dtype):
    """Probabilities of events that are certain, and what came; the surprise at each."""
    p = tt.tensor(np.array([0.0, 1.0, 0.0, 1.0], dtype), requires_grad=True)
    return p, tt.binary_cross_entropy(p, tt.tensor(np.array([1.0, 0.0, 0.0, 1.0], dtype)), reduction="none")


@pytest.mark.exercise("ex-04-2", points=2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_surprise_at_an_impossible_event_is_about_one_hundred(dtype):
    _, losses = impossible(dtype)
    assert losses.tolist() == pytest.approx([100, 100, 0, 0], abs=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_surprise_at_an_impossible_event_is_that_of_pytorch(dtype):
    _, losses = impossible(dtype)
    assert losses.tolist() == [100.0, 100.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_at_an_impossible_event_is_finite(dtype):
    p, losses = impossible(dtype)
    losses.sum().backward()
    assert np.isfinite(p.grad.data).all()
    assert np.sign(p.grad.data).tolist() == [-1, 1, 0, 0]


@pytest.mark.parametrize(("x", "t", "expected"), [(1e4, 1.0, 0.0), (1e4, 0.0, 1e4), (-1e4, 1.0, 1e4), (-1e4, 0.0, 0.0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_with_logits_grows_in_a_line_without_overflow(x, t, expected, dtype):
    logit = tt.tensor(np.array([x], dtype), requires_grad=True)
    loss = tt.binary_cross_entropy_with_logits(logit, tt.tensor(np.array([t], dtype)))
    loss.backward()
    assert_close(loss, expected, 1e-6, 0)
    assert_close(logit.grad, [(x > 0) - t], 0, 0)  # sigmoid of the logit, minus the target


def test_with_logits_keeps_the_digits_of_small_losses():
    logits = tt.tensor([20.0, 50.0], dtype=tt.float64)
    losses = tt.binary_cross_entropy_with_logits(logits, tt.ones(2, dtype=tt.float64), reduction="none")
    assert_close(losses, [math.log1p(math.exp(-20)), math.log1p(math.exp(-50))], 1e-12, 0)


# ---- cross-entropy


def surprise(logits, target):
    """-log softmax(logits)[target] of one row, with Python's numbers."""
    return math.log(sum(math.exp(v) for v in logits)) - logits[target]


@every_reduction
def test_cross_entropy_is_the_surprise_at_the_target(reduction):
    logits, target = normal(6, 4, scale=2), [3, 0, 0, 1, 2, 2]
    expected = REDUCTIONS[reduction](np.array([surprise(row, t) for row, t in zip(logits.tolist(), target)]))
    assert_close(tt.cross_entropy(tt.tensor(logits), tt.tensor(target), reduction=reduction), expected, 1e-13, 1e-13)


@pytest.mark.exercise("ex-04-4", points=3)
@every_reduction
def test_composed_cross_entropy_is_the_mean_surprise_at_the_targets_that_count(reduction):
    logits, target = normal(6, 4, scale=2), [3, -1, 0, 1, -1, 2]
    expected = [surprise(row, t) if t != -1 else 0.0 for row, t in zip(logits.tolist(), target)]
    expected = {"mean": sum(expected) / 4, "sum": sum(expected), "none": expected}[reduction]
    losses = cross_entropy_composed(tt.tensor(logits), tt.tensor(target), ignore_index=-1, reduction=reduction)
    assert_close(losses, expected, 1e-13, 1e-13)


@pytest.mark.exercise("ex-04-5", points=3)
def test_classes_of_an_image_are_on_axis_one():
    logits, target = normal(2, 4, 2, 3), rng(1).integers(0, 4, (2, 2, 3))
    losses = tt.cross_entropy(tt.tensor(logits), tt.tensor(target), reduction="none")
    expected = [[[surprise(logits[n, :, i, j], target[n, i, j]) for j in range(3)] for i in range(2)] for n in range(2)]
    assert_close(losses, expected, 1e-13, 1e-13)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    assert_close(tt.cross_entropy(tt.zeros(5, 7), tt.tensor([0, 1, 2, 3, 6])), math.log(7))


@every_reduction
def test_ignored_targets_count_neither_in_the_loss_nor_in_the_mean(reduction):
    logits, target = normal(5, 4), np.array([1, -100, 3, -100, 0])
    counted = target != -100
    x = tt.tensor(logits, requires_grad=True)
    loss = tt.cross_entropy(x, tt.tensor(target), reduction=reduction)
    rest = tt.cross_entropy(tt.tensor(logits[counted]), tt.tensor(target[counted]), reduction=reduction)
    if reduction == "none":
        assert_close(loss[~counted], [0.0, 0.0], 0, 0)
        loss, rest = loss[counted].sum(), rest.sum()
    assert_close(loss, rest, 1e-14, 1e-14)
    loss.backward()
    assert_close(x.grad[~counted], np.zeros((2, 4)), 0, 0)
    assert (x.grad.data[counted] != 0).all()


@pytest.mark.exercise("ex-04-5", points=3)
@pytest.mark.parametrize("ignore_index", [-1, 2, 999])
def test_any_number_can_be_ignored(ignore_index):
    logits, target = normal(3, 4), [1, ignore_index, 3]
    value = tt.cross_entropy(tt.tensor(logits), tt.tensor(target), ignore_index=ignore_index)
    assert_close(value, (surprise(logits[0], 1) + surprise(logits[2], 3)) / 2, 1e-13, 1e-13)


def test_what_an_ignored_row_holds_does_not_matter():
    x = tt.tensor([[0.0, 0.0], [1e30, -1e30], [-1e30, -1e30]], requires_grad=True)
    loss = tt.cross_entropy(x, tt.tensor([1, -100, -100]))
    loss.backward()
    assert_close(loss, math.log(2))
    assert_close(x.grad, [[0.5, -0.5], [0.0, 0.0], [0.0, 0.0]])


def test_sum_and_none_of_ignored_targets_only_are_zero():
    x, target = tt.tensor(normal(2, 3), requires_grad=True), tt.tensor([-100, -100])
    loss = tt.cross_entropy(x, target, reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.data.any()
    assert_close(tt.cross_entropy(x, target, reduction="none"), [0.0, 0.0], 0, 0)


@every_reduction
@pytest.mark.parametrize("more", [(3,), (2, 3)])
def test_classes_are_on_axis_one(more, reduction):
    logits, target = normal(2, 4, *more), rng(1).integers(0, 4, (2, *more))
    target.flat[1] = -100
    rows = np.moveaxis(logits, 1, -1).reshape(-1, 4)
    expected = tt.cross_entropy(tt.tensor(rows), tt.tensor(target.ravel()), reduction=reduction)
    value = tt.cross_entropy(tt.tensor(logits), tt.tensor(target), reduction=reduction)
    assert value.shape == (target.shape if reduction == "none" else ())
    assert_close(value, expected.reshape(value.shape), 1e-14, 1e-14)
    check_grad(lambda x: tt.cross_entropy(x, tt.tensor(target), reduction=reduction), logits)


@pytest.mark.exercise("ex-04-5", points=3)
@every_reduction
def test_one_row_needs_no_batch(reduction):
    logits = normal(4)
    value = tt.cross_entropy(tt.tensor(logits), tt.tensor(2), reduction=reduction)
    assert value.shape == ()
    assert_close(value, surprise(logits, 2), 1e-13, 1e-13)


@every_reduction
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_fused_cross_entropy_is_composed(reduction, scale):
    logits, target = normal(6, 4, scale=scale), tt.tensor([3, -100, 0, 1, 2, 2])
    leaves = [tt.tensor(logits, requires_grad=True) for _ in range(2)]
    losses = [f(x, target, reduction=reduction) for f, x in zip((tt.cross_entropy, cross_entropy_composed), leaves)]
    assert_close(*losses, 1e-13, 1e-13)
    for loss in losses:
        loss.backward(normal(*loss.shape, seed=1))
    assert_close(leaves[0].grad, leaves[1].grad, 1e-12, 1e-13)


@every_reduction
def test_cross_entropy_gradient_is_that_of_finite_differences(reduction):
    target = tt.tensor([3, -100, 0, 1, 2, 2])
    check_grad(lambda x: tt.cross_entropy(x, target, reduction=reduction), normal(6, 4))


def test_cross_entropy_gradient_is_softmax_minus_one_hot():
    logits, target = normal(3, 4), np.array([2, 0, 3])
    x = tt.tensor(logits, requires_grad=True)
    tt.cross_entropy(x, tt.tensor(target), reduction="sum").backward()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_close(x.grad, p - np.eye(4)[target], 1e-12, 1e-14)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_far_apart_logits_give_a_line_and_no_overflow(scale):
    x = tt.tensor([[scale, 0.0], [scale, 0.0]], requires_grad=True)
    losses = tt.cross_entropy(x, tt.tensor([0, 1]), reduction="none")
    losses.sum().backward()
    assert_close(losses, [0.0, scale], 1e-6, 0)
    assert_close(x.grad, [[0.0, 0.0], [1.0, -1.0]], 0, 0)


@pytest.mark.parametrize("shift", [-30_000.0, -40.0, 40.0, 30_000.0])
def test_a_shift_of_the_logits_costs_no_digits(shift):
    logits = np.array([[0.0, 1.0, -2.0], [3.0, 3.0, -4.0]], np.float32)  # whole numbers: the shift is exact
    target = tt.tensor([1, 0])
    value = tt.cross_entropy(tt.tensor(logits + np.float32(shift)), target, reduction="none")
    expected = [surprise(logits[0].tolist(), 1), surprise(logits[1].tolist(), 0)]
    assert_close(value, expected, rtol=0, atol=5e-6)


def test_a_forbidden_class_gets_no_gradient():
    x = tt.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    loss = tt.cross_entropy(x, tt.tensor([0]))
    loss.backward()
    assert_close(loss, math.log(2))
    assert_close(x.grad, [[-0.5, 0.0, 0.5]])


def test_the_surprise_at_a_forbidden_class_is_infinite():
    assert tt.cross_entropy(tt.tensor([[0.0, -math.inf]]), tt.tensor([1])).item() == math.inf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_reduction
def test_cross_entropy_keeps_the_dtype(reduction, dtype):
    x = tt.tensor(normal(2, 3).astype(dtype), requires_grad=True)
    value = tt.cross_entropy(x, tt.tensor([0, -100]), reduction=reduction)
    value.sum().backward()
    assert value.dtype == x.grad.dtype == dtype


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_targets_can_be_any_integers(dtype):
    value = tt.cross_entropy(tt.zeros(2, 4), tt.tensor(np.array([0, 3], dtype)))
    assert_close(value, math.log(4))


def test_inputs_are_left_alone():
    logits, target = normal(3, 4), np.array([2, -100, 3])
    x, labels = tt.tensor(logits, requires_grad=True), tt.tensor(target)
    tt.cross_entropy(x, labels).backward()
    assert_close(x, logits, 0, 0)
    assert labels.tolist() == target.tolist()


# ---- losses as modules


@every_reduction
@pytest.mark.parametrize(
    ("module", "function", "target"),
    [
        (tt.MSELoss, tt.mse_loss, within(3, 4, seed=1)),
        (tt.BCELoss, tt.binary_cross_entropy, within(3, 4, seed=1)),
        (tt.BCEWithLogitsLoss, tt.binary_cross_entropy_with_logits, within(3, 4, seed=1)),
        (tt.CrossEntropyLoss, tt.cross_entropy, np.array([0, -100, 3])),
    ],
)
def test_modules_are_their_functions(module, function, target, reduction):
    x, t = tt.tensor(within(3, 4)), tt.tensor(target)
    assert_close(module(reduction=reduction)(x, t), function(x, t, reduction=reduction), 0, 0)


def test_cross_entropy_module_passes_ignore_index_on():
    loss = tt.CrossEntropyLoss(ignore_index=1)
    assert_close(loss(tt.tensor([[0.0, 0.0], [5.0, 0.0]]), tt.tensor([0, 1])), math.log(2))


# ---- what makes no sense


@every_paired_loss
@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((2, 3), (3,)), ((3,), ())])
def test_shapes_are_never_broadcast(name, loss, shapes):
    with pytest.raises(ValueError, match=rf"{name} needs input and target of one shape, but got \(.*Broadcasting"):
        loss(tt.full(shapes[0], 0.5), tt.full(shapes[1], 0.5))


@every_paired_loss
def test_nothing_has_no_mean(name, loss):
    with pytest.raises(ValueError, match=rf"{name} needs at least one element to average, but got shape \(0, 3\)"):
        loss(tt.zeros(0, 3), tt.zeros(0, 3))
    assert loss(tt.zeros(0, 3), tt.zeros(0, 3), reduction="sum").item() == 0


@pytest.mark.parametrize("name", [*PAIRED, "cross_entropy"])
@pytest.mark.parametrize("reduction", ["average", "", None])
def test_unknown_reductions_are_refused(name, reduction):
    x, target = tt.full((2, 2), 0.5), tt.tensor([0, 1]) if name == "cross_entropy" else tt.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=f"{name} needs reduction='mean', 'sum' or 'none', but got"):
        getattr(tt, name)(x, target, reduction=reduction)


@pytest.mark.parametrize("p", [-1e-3, 1.001, math.nan, math.inf])
def test_binary_cross_entropy_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match=r"needs probabilities in \[0, 1\]. Apply sigmoid first"):
        tt.binary_cross_entropy(tt.tensor([0.5, p]), tt.ones(2))


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ((3, 4), (4,)),
        ((3, 4), (3, 1)),
        ((3, 4), (3, 4)),
        ((2, 4, 3), (2, 4)),
        ((4,), (1,)),
        ((), ()),
        ((2, 3, 4), (6,)),
    ],
)
def test_cross_entropy_says_which_shapes_fit(logits, target):
    with pytest.raises(ValueError, match=r"needs logits \(N, C\) with targets \(N,\).*flatten"):
        tt.cross_entropy(tt.zeros(logits), tt.zeros(target, dtype=tt.int64))


@pytest.mark.parametrize("target", [[0.0, 1.0], [True, False]])
def test_targets_that_are_no_class_numbers_are_refused(target):
    with pytest.raises(TypeError, match=r"needs targets that are class numbers \(integers\), but got (float32|bool)"):
        tt.cross_entropy(tt.zeros(2, 3), tt.tensor(target))


@pytest.mark.parametrize("target", [[0, 3], [0, -1], [-101, 2]])
@every_reduction
def test_classes_out_of_range_are_refused(target, reduction):
    with pytest.raises(
        IndexError, match=rf"targets from 0 to 2 \(or ignore_index=-100\).*{min(target)} to {max(target)}"
    ):
        tt.cross_entropy(tt.zeros(2, 3), tt.tensor(target), reduction=reduction)


@pytest.mark.parametrize("target", [[-100, -100], []])
def test_nothing_counted_has_no_mean(target):
    labels = tt.tensor(np.array(target, np.int64))
    with pytest.raises(ValueError, match=rf"nothing to average: all {len(target)} targets are ignore_index=-100"):
        tt.cross_entropy(tt.zeros(len(target), 3), labels)


@pytest.mark.parametrize(
    ("loss", "input", "target"),
    [
        (tt.mse_loss, tt.ones(2), 1.0),
        (tt.cross_entropy, tt.ones(2, 3), [0, 1]),
        (tt.cross_entropy, [[1.0]], tt.ones(1)),
    ],
)
def test_what_is_no_tensor_is_refused(loss, input, target):
    with pytest.raises(TypeError, match=r"needs tensors, but got a (float|list)"):
        loss(input, target)
