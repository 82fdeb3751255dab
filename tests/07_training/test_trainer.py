"""Module 07: the training loop learns, adds up batches rightly, evaluates without a trace, and stops with reasons."""

import io
import math
import signal
import sys
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tinytorch as tt


class Weight(tt.Module):
    """One number, called w."""

    def __init__(self, value=0.0):
        self.w = tt.Parameter(np.array([value]))


def square(model, target):
    """(w - target) ** 2, whose gradient is 2 * (w - target)."""
    return ((model.w - target) ** 2).mean()


def trainer_of(batches=(1.0,), *, loss_fn=square, lr=0.25, start=0.0, **settings):
    model = Weight(start)
    return tt.Trainer(model, tt.SGD(model.parameters(), lr=lr), list(batches), loss_fn, **settings)


def at_call(number, action, loss_fn=square):
    """`loss_fn` that calls `action` just before its call `number`, counted from 1."""
    calls = 0

    def wrapped(model, batch):
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return loss_fn(model, batch)

    return wrapped


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


# ---- what a step does


def test_a_regression_finds_the_line():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    y = x @ np.array([[1.0], [-2.0], [3.0]], np.float32) + 0.5
    model = tt.Linear(3, 1, generator=tt.Generator(0))
    loader = tt.DataLoader(tt.TensorDataset(tt.tensor(x), tt.tensor(y)), 16, shuffle=True, generator=tt.Generator(1))
    trainer = tt.Trainer(model, tt.Adam(model.parameters(), lr=0.05), loader, lambda m, b: tt.mse_loss(m(b[0]), b[1]))
    history = trainer.fit(300)
    assert history["loss"][-1] < 1e-4 < 1 < history["loss"][0]
    assert_allclose(model.weight.data, [[1, -2, 3]], atol=0.01)
    assert_allclose(model.bias.data, [0.5], atol=0.01)


@pytest.mark.exercise("ex-07-4", points=5)
def test_the_history_tells_each_step():
    trainer = trainer_of([3.0, -1.0])
    history = trainer.fit(3)
    assert history is trainer.history
    # w goes 0, 1.5, 0.25: each step halves the distance to the target.
    assert history["step"] == [1, 2, 3]
    assert_allclose(history["loss"], [9, 6.25, 7.5625])
    assert_allclose(history["grad_norm"], [6, 5, 5.5])
    assert history["lr"] == [0.25] * 3
    assert history["eval_step"] == history["eval_loss"] == []


@pytest.mark.exercise("ex-07-4", points=5)
def test_every_step_begins_with_gradients_of_zero():
    trainer = trainer_of()
    trainer.model.w.grad = tt.tensor(np.array([1e6]))
    assert trainer.fit(1)["grad_norm"] == [2.0]


def test_fit_counts_steps_from_the_very_first():
    trainer = trainer_of()
    trainer.fit(2)
    assert trainer.fit(2)["step"] == [1, 2]
    assert trainer.fit(5)["step"] == [1, 2, 3, 4, 5]


def test_fit_of_no_steps_changes_nothing():
    trainer = trainer_of()
    assert not any(trainer.fit(0).values())
    assert trainer.model.w.data == 0


def linear_run(batches, steps, loss_fn, **settings):
    model = tt.Linear(3, 2, generator=tt.Generator(5))
    for parameter in model.parameters():  # in float64, so that only a difference in the mathematics shows
        parameter.data = parameter.data.astype(np.float64)
    trainer = tt.Trainer(model, tt.AdamW(model.parameters(), lr=0.1), batches, loss_fn, **settings)
    return trainer.fit(steps), np.concatenate([p.data.ravel() for p in model.parameters()])


def cut(x, y, lengths):
    ends = np.cumsum(lengths)
    return [(tt.tensor(x[e - n : e]), tt.tensor(y[e - n : e])) for n, e in zip(lengths, ends)]


def assert_same_run(accumulated, large):
    for name in ("step", "loss", "grad_norm", "lr"):
        assert_allclose(accumulated[0][name], large[0][name], rtol=1e-12)
    assert_allclose(accumulated[1], large[1], rtol=1e-10)


@pytest.mark.exercise("ex-07-4", points=5)
@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_accumulated_batches_are_one_large_batch(clip_norm):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((24, 3)), rng.standard_normal((24, 2))

    def mse(model, batch):
        return tt.mse_loss(model(batch[0]), batch[1])

    small = linear_run(cut(x, y, [2] * 12), 3, mse, accumulate=4, clip_norm=clip_norm)
    assert_same_run(small, linear_run(cut(x, y, [8] * 3), 3, mse, clip_norm=clip_norm))


@pytest.mark.exercise("ex-07-4", points=5)
@pytest.mark.parametrize("as_weight", [int, float, np.float32, np.int64, tt.tensor], ids=lambda kind: kind.__name__)
def test_accumulated_batches_of_different_weight_are_one_large_batch(as_weight, tmp_path):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((16, 3)), rng.standard_normal((16, 2))

    def weighted(model, batch):
        return tt.mse_loss(model(batch[0]), batch[1]), as_weight(len(batch[0]))

    small = linear_run(cut(x, y, [1, 5, 2, 3, 4, 1]), 2, weighted, accumulate=3, checkpoints=tt.Checkpoints(tmp_path))
    assert_same_run(small, linear_run(cut(x, y, [8, 8]), 2, lambda m, b: tt.mse_loss(m(b[0]), b[1])))


def test_the_weight_of_a_single_batch_cancels():
    trainer = trainer_of(loss_fn=lambda model, target: (square(model, target), 1000))
    assert trainer.fit(1)["loss"] == [1.0]
    assert trainer.history["grad_norm"] == [2.0]
    assert_allclose(trainer.model.w.data, [0.5])


@pytest.mark.exercise("ex-07-2", points=1)
@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_that_is_not_positive_stops_with_a_sentence(weight):
    trainer = trainer_of(loss_fn=lambda model, target: (square(model, target), weight))
    with pytest.raises(ValueError, match=f"weight.*{weight}"):
        trainer.fit(1)
    assert trainer.model.w.data == 0


@pytest.mark.exercise("ex-07-4", points=5)
def test_clipping_shortens_the_step_and_reports_the_length_before():
    trainer = trainer_of([100.0], lr=1.0, clip_norm=0.5)
    assert trainer.fit(1)["grad_norm"] == [200.0]
    assert_allclose(trainer.model.w.data, [0.5], rtol=1e-6)


@pytest.mark.exercise("ex-07-4", points=5)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_schedule_moves_once_a_step(accumulate):
    trainer = trainer_of(accumulate=accumulate)
    trainer.schedule = tt.LambdaLR(trainer.optimizer, lambda t: 1 / (1 + t))
    assert trainer.fit(4)["lr"] == [0.25, 0.125, 0.25 / 3, 0.0625]
    assert trainer.schedule.last_epoch == 4
    assert_allclose(trainer.model.w.data, [1 - 0.5 * 0.75 * (1 - 0.5 / 3) * 0.875])


class TwoParts(tt.Module):
    def __init__(self):
        self.body, self.head = Weight(2.0), Weight(3.0)


@pytest.mark.exercise("ex-07-4", points=5)
def test_parameters_that_the_optimizer_does_not_have_neither_move_nor_count_in_the_norm():
    model = TwoParts()
    trainer = tt.Trainer(
        model,
        tt.SGD(model.head.parameters(), lr=0.0),
        [None],
        lambda m, _: (m.head.w * 3 + m.body.w * 400).sum(),
        clip_norm=1.0,
    )
    assert trainer.fit(3)["grad_norm"] == [3.0, 3.0, 3.0]
    assert model.body.w.data == 2


def test_the_gradient_of_a_parameter_outside_the_model_is_averaged_too():
    temperature, model = tt.Parameter(np.array([0.0])), Weight()
    trainer = tt.Trainer(
        model,
        tt.SGD([*model.parameters(), temperature], lr=1.0),
        [None],
        lambda m, _: (m.w + temperature).sum(),
        accumulate=4,
    )
    trainer.fit(1)
    assert_allclose(model.w.data, [-1])
    assert_allclose(temperature.data, [-1])


# ---- evaluation


def run_with_evaluation(steps, eval_every):
    trainer = trainer_of([3.0], eval_loader=[0.0, 4.0], eval_every=eval_every)
    return trainer.fit(steps)


@pytest.mark.parametrize(
    ("steps", "eval_every", "expected"),
    [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, None, [3]), (2, 9, [2]), (3, 1, [1, 2, 3])],
)
def test_evaluation_comes_every_so_often_and_once_at_the_end(steps, eval_every, expected):
    history = run_with_evaluation(steps, eval_every)
    assert history["eval_step"] == expected
    weights = [3 - 3 * 0.5**step for step in expected]
    assert_allclose(history["eval_loss"], [(w**2 + (w - 4) ** 2) / 2 for w in weights])


def test_evaluation_leaves_training_as_it_would_have_been():
    with_it, without = run_with_evaluation(4, 1), trainer_of([3.0]).fit(4)
    assert {name: with_it[name] for name in ("loss", "grad_norm", "lr")} == {
        name: without[name] for name in ("loss", "grad_norm", "lr")
    }


@pytest.mark.exercise("ex-07-1", points=2)
@pytest.mark.parametrize("training", [True, False])
def test_evaluate_runs_in_evaluation_mode_without_a_graph_and_restores_the_mode(training):
    seen = []

    def watched(model, target):
        loss = square(model, target)
        seen.append((model.training, model.body.training, loss.requires_grad))
        return loss

    model = TwoParts().train(training)
    model.w = model.body.w
    tt.Trainer(model, tt.SGD(model.parameters()), [1.0], watched).evaluate([1.0, 2.0])
    assert seen == [(False, False, False)] * 2
    assert model.training is model.body.training is training
    assert model.w.grad is None


@pytest.mark.exercise("ex-07-1", points=2)
def test_evaluate_restores_the_mode_after_an_error():
    def broken(model, batch):
        raise RuntimeError("no such file")

    trainer = trainer_of(loss_fn=broken)
    with pytest.raises(RuntimeError, match="no such file"):
        trainer.evaluate([1.0])
    assert trainer.model.training


def test_training_is_in_training_mode_around_evaluations():
    modes = []

    def watched(model, batch):
        modes.append((batch, model.training))
        return square(model, batch)

    trainer = trainer_of([1.0], loss_fn=watched, eval_loader=[2.0], eval_every=1)
    trainer.model.eval()
    trainer.fit(2)
    assert modes == [(1.0, True), (2.0, False)] * 2


@pytest.mark.exercise("ex-07-1", points=2)
@pytest.mark.exercise("ex-07-2", points=1)
def test_evaluate_is_the_mean_over_everything_that_the_weights_count():
    trainer = trainer_of(loss_fn=lambda model, batch: (square(model, batch[0]), batch[1]))
    assert trainer.evaluate([(1.0, 1), (2.0, 7)]) == pytest.approx((1 * 1 + 4 * 7) / 8)


# ---- batches without end


@pytest.mark.exercise("ex-07-3", points=3)
def test_where_a_pass_has_ended_the_next_begins():
    feed = tt.training.trainer._Feed(["a", "b"])
    assert [(next(feed), feed.taken) for _ in range(5)] == [("a", 1), ("b", 2), ("a", 1), ("b", 2), ("a", 1)]


@pytest.mark.exercise("ex-07-3", points=3)
@pytest.mark.parametrize("taken", range(1, 8))
def test_from_the_place_that_was_kept_the_same_batches_follow(taken):
    def feed_of(seed):
        return tt.training.trainer._Feed(tt.DataLoader(range(6), 2, shuffle=True, generator=tt.Generator(seed)))

    def batches(feed, count):
        return [next(feed).tolist() for _ in range(count)]

    first, second = feed_of(seed=0), feed_of(seed=99)
    batches(first, taken)
    second.load_state_dict(first.state_dict())
    assert batches(second, 4) == batches(first, 4)


# ---- what is refused


class OnePass:
    """A loader with batches in its first pass only, which does not let itself be asked for more for ever."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        assert self.passes < 4, "an empty loader was asked again and again"
        return iter(self.batches if self.passes == 1 else ())


@pytest.mark.exercise("ex-07-3", points=3)
@pytest.mark.parametrize(("batches", "trained"), [([], 0), ([1.0, 1.0], 2)], ids=["empty", "exhausted"])
def test_a_training_loader_that_has_no_batches_left_is_refused(batches, trained):
    trainer = trainer_of()
    trainer.train_loader = OnePass(batches)
    with pytest.raises(ValueError, match="batch"):
        trainer.fit(5)
    assert trainer.step == trained


@pytest.mark.exercise("ex-07-1", points=2)
def test_evaluating_a_loader_without_batches_is_refused():
    with pytest.raises(ValueError, match="batch"):
        trainer_of().evaluate([])


@pytest.mark.parametrize("name", ["accumulate", "eval_every", "checkpoint_every"])
@pytest.mark.parametrize("value", [0, -1, 0.5, 1.5, math.nan])
def test_counts_below_one_or_between_integers_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, but got .*{value}"):
        trainer_of(**{name: value})


@pytest.mark.parametrize("clip_norm", [0, -1.0, math.nan])
def test_a_clip_norm_that_is_not_positive_is_refused(clip_norm):
    with pytest.raises(ValueError, match=f"norm above 0, but got {clip_norm}"):
        trainer_of(clip_norm=clip_norm).fit(1)


# ---- losses that are not numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_loss_at_the_first_step_points_at_the_data(bad):
    trainer = trainer_of(loss_fn=lambda model, target: square(model, target) * bad)
    with pytest.raises(FloatingPointError, match=rf"The loss became {bad} at step 1\. At the first step .*data"):
        trainer.fit(5)
    assert trainer.model.w.data == 0
    assert trainer.step == 0 and not any(trainer.history.values())


def spoil_at(step, factor=math.nan):
    """A loss that is broken from its call `step` on."""
    calls = []

    def loss_fn(model, target):
        calls.append(target)
        return square(model, target) * (factor if len(calls) >= step else 1)

    return loss_fn


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_loss_later_at_a_high_rate_points_at_the_learning_rate(bad):
    trainer = trainer_of(loss_fn=spoil_at(3, bad))
    with pytest.raises(
        FloatingPointError,
        match=rf"The loss became {bad} at step 3\. .*gradient norm was 1 at a learning rate of 0\.25.*Lower it",
    ):
        trainer.fit(5)
    assert_allclose(trainer.model.w.data, [0.75])
    assert trainer.history["step"] == [1, 2]


def test_a_broken_loss_in_a_calm_run_points_at_the_batch():
    trainer = trainer_of(loss_fn=spoil_at(3), lr=0.01)
    with pytest.raises(FloatingPointError, match=r"at step 3\. Training was calm .*this batch"):
        trainer.fit(5)


@pytest.mark.exercise("ex-07-4", points=5)
def test_a_broken_loss_within_an_accumulation_stops_before_the_step():
    trainer = trainer_of(loss_fn=spoil_at(5), accumulate=2)
    with pytest.raises(FloatingPointError, match="at step 3"):
        trainer.fit(5)
    assert_allclose(trainer.model.w.data, [0.75])


@tt.op
def poison(x, *, factor):
    """x, with a gradient of `factor`."""
    return x.copy(), lambda g: g * factor


@pytest.mark.exercise("ex-07-4", points=5)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_broken_gradient_stops_before_the_step(bad, clip_norm):
    trainer = trainer_of(loss_fn=lambda model, target: poison(square(model, target), factor=bad), clip_norm=clip_norm)
    with pytest.raises(FloatingPointError, match=rf"The gradient became {bad} at step 1"):
        trainer.fit(5)
    assert trainer.model.w.data == 0
    assert trainer.optimizer.state_dict()["state"] == {}


def test_a_broken_loss_says_where_the_last_checkpoint_is(tmp_path):
    trainer = trainer_of(loss_fn=spoil_at(3), checkpoints=tt.Checkpoints(tmp_path / "run"), checkpoint_every=2)
    with pytest.raises(FloatingPointError, match=r"Saved in .*step-00000002: call resume\(\) before fit\(\)"):
        trainer.fit(5)


def test_where_nothing_was_saved_yet_checkpoints_are_not_asked_for_again(tmp_path):
    trainer = trainer_of(loss_fn=spoil_at(2), checkpoints=tt.Checkpoints(tmp_path / "run"), checkpoint_every=2)
    with pytest.raises(FloatingPointError, match="Nothing was saved") as caught:
        trainer.fit(5)
    assert "give the Trainer checkpoints" not in str(caught.value)


# ---- Ctrl-C


@pytest.fixture
def own_handler():
    """A handler of SIGINT that is not Python's own, to find again after training."""

    def handler(signum, frame):
        raise AssertionError("the signal reached the handler from before training")

    before = signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_finishes_the_step_saves_it_and_says_how_to_go_on(tmp_path, own_handler):
    checkpoints = tt.Checkpoints(tmp_path / "run")
    trainer = trainer_of(loss_fn=at_call(2, press_ctrl_c), checkpoints=checkpoints)
    with pytest.raises(
        tt.TrainingInterrupted, match=r"after step 2 of 5\. Saved in .*step-00000002.*resume\(\) before fit\(\)"
    ):
        trainer.fit(5)
    assert_allclose(trainer.model.w.data, [0.75])
    arrays, state = checkpoints.load()
    assert state["step"] == 2
    assert_array_equal(arrays["model.w"], trainer.model.w.data)
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_ctrl_c_in_an_evaluation_lets_it_finish_and_saves_its_result(tmp_path, own_handler):
    checkpoints = tt.Checkpoints(tmp_path / "run")
    trainer = trainer_of(
        loss_fn=at_call(3, press_ctrl_c), eval_loader=[1.0, 2.0], eval_every=1, checkpoints=checkpoints
    )
    with pytest.raises(tt.TrainingInterrupted, match="after step 1 of 5"):
        trainer.fit(5)
    assert checkpoints.load()[1]["history"]["eval_loss"] == trainer.history["eval_loss"] == [(0.25 + 2.25) / 2]


def test_ctrl_c_without_checkpoints_says_that_nothing_was_saved(own_handler):
    trainer = trainer_of(loss_fn=at_call(2, press_ctrl_c))
    with pytest.raises(tt.TrainingInterrupted, match=r"after step 2 of 5\. Nothing was saved: .*checkpoints="):
        trainer.fit(5)
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_ctrl_c_in_the_last_step_is_not_lost(tmp_path, own_handler):
    checkpoints = tt.Checkpoints(tmp_path / "run")
    trainer = trainer_of(loss_fn=at_call(3, press_ctrl_c), checkpoints=checkpoints)
    with pytest.raises(tt.TrainingInterrupted, match="after step 3 of 3"):
        trainer.fit(3)
    assert checkpoints.load()[1]["step"] == 3


def test_a_second_ctrl_c_stops_at_once(tmp_path, own_handler):
    checkpoints = tt.Checkpoints(tmp_path / "run")

    def press_twice():
        press_ctrl_c()
        press_ctrl_c()

    trainer = trainer_of(loss_fn=at_call(2, press_twice), checkpoints=checkpoints)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit(5)
    assert caught.type is KeyboardInterrupt
    assert trainer.step == 1
    assert_allclose(trainer.model.w.data, [0.5])
    assert checkpoints.list() == []
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_a_second_ctrl_c_while_saving_leaves_no_half_checkpoint(tmp_path, own_handler, monkeypatch):
    checkpoints = tt.Checkpoints(tmp_path / "run")
    write = tt.training.checkpoints._write

    def interrupted_write(path, data):
        write(path, data[: len(data) // 2])
        press_ctrl_c()

    trainer = trainer_of(loss_fn=at_call(2, press_ctrl_c), checkpoints=checkpoints, checkpoint_every=1)
    trainer.fit(1)
    monkeypatch.setattr(tt.training.checkpoints, "_write", interrupted_write)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit(5)
    assert caught.type is KeyboardInterrupt
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]


def test_an_interrupted_trainer_can_be_told_to_go_on(own_handler):
    trainer = trainer_of(loss_fn=at_call(2, press_ctrl_c))
    with pytest.raises(tt.TrainingInterrupted, match="after step 2"):
        trainer.fit(4)
    assert trainer.fit(4)["loss"] == trainer_of().fit(4)["loss"]


@pytest.mark.parametrize("loss_fn", [square, spoil_at(2)], ids=["end", "error"])
def test_the_handler_from_before_is_back_after_every_end(loss_fn, own_handler):
    trainer = trainer_of(loss_fn=loss_fn)
    if loss_fn is square:
        trainer.fit(3)
    else:
        with pytest.raises(FloatingPointError, match="at step 2"):
            trainer.fit(3)
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_training_works_in_a_thread_where_signals_cannot_be_held():
    trainer = trainer_of()
    thread = threading.Thread(target=trainer.fit, args=(3,))
    thread.start()
    thread.join()
    assert trainer.history["step"] == [1, 2, 3]


# ---- after an error


def evaluation_fails_once():
    """The loss of `square`, whose third evaluation raises an error."""
    evaluations = []

    def loss_fn(model, target):
        if not model.training:
            evaluations.append(target)
            if len(evaluations) == 3:
                raise OSError("the validation set is gone")
        return square(model, target)

    return loss_fn


@pytest.mark.parametrize("again", ["the same trainer", "another that resumes"])
@pytest.mark.parametrize("steps", [3, 5], ids=["at the end", "before it"])
def test_a_step_whose_evaluation_fails_is_saved_and_evaluated_first(again, steps, tmp_path):
    def build(folder, **settings):
        return trainer_of(
            [3.0], eval_loader=[1.0], eval_every=1, checkpoints=tt.Checkpoints(tmp_path / folder), **settings
        )

    expected = build("whole").fit(steps)
    trainer = build("a", loss_fn=evaluation_fails_once())
    with pytest.raises(OSError, match="the validation set is gone"):
        trainer.fit(steps)
    assert [folder.name for folder in trainer.checkpoints.list()] == ["step-00000003"]
    if again != "the same trainer":
        trainer = build("a")
        assert trainer.resume() == 3
    assert trainer.fit(steps) == expected
    assert trainer.checkpoints.best() == trainer.checkpoints.list()[-1]  # the last is lower than all before


def test_a_trainer_that_was_left_in_a_step_asks_for_a_checkpoint(tmp_path):
    """Half of the step's batches are used up: what followed would be another training."""
    trainer = trainer_of(
        [1.0, 2.0, 3.0],
        loss_fn=spoil_at(6),
        accumulate=2,
        checkpoints=tt.Checkpoints(tmp_path / "run"),
        checkpoint_every=1,
    )
    with pytest.raises(FloatingPointError, match="step 3"):
        trainer.fit(5)
    with pytest.raises(
        RuntimeError,
        match=r"in the middle of step 3 \(FloatingPointError\)\. Saved in .*step-00000002: call resume\(\).* new",
    ):
        trainer.fit(5)
    trainer.loss_fn = square
    assert trainer.resume() == 2
    assert trainer.fit(5) == trainer_of([1.0, 2.0, 3.0], accumulate=2).fit(5)


# ---- what is seen


def test_nothing_is_written_where_there_is_no_terminal(capsys):
    trainer_of(eval_loader=[1.0]).fit(3)
    assert tuple(capsys.readouterr()) == ("", "")


def test_a_terminal_sees_a_bar_with_the_loss(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    trainer_of().fit(3)
    assert "training" in terminal.getvalue() and "0/3" in terminal.getvalue()


def test_an_optimizer_of_another_model_is_refused():
    model, other = tt.Linear(1, 1), tt.Linear(1, 1)
    trainer = tt.Trainer(model, tt.SGD(other.parameters()), [tt.ones(2, 1)], lambda m, x: m(x).mean())
    with pytest.raises(ValueError, match="Was it built from this model's parameters"):
        trainer.fit(1)


@pytest.mark.exercise("ex-07-2", points=1)
@pytest.mark.parametrize("result", [None, 1.0, [1.0]])
def test_a_loss_that_is_no_tensor_is_refused(result):
    model = tt.Linear(1, 1)
    trainer = tt.Trainer(model, tt.SGD(model.parameters()), [tt.ones(2, 1)], lambda m, x: result)
    with pytest.raises(TypeError, match="loss_fn needs to return a tensor"):
        trainer.fit(1)


def test_a_plateau_schedule_is_refused():
    model = tt.Linear(1, 1)
    optimizer = tt.SGD(model.parameters())
    with pytest.raises(TypeError, match="needs a metric at each step"):
        tt.Trainer(model, optimizer, [tt.ones(2, 1)], None, schedule=tt.ReduceLROnPlateau(optimizer))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that is ignored like this")
def test_a_ctrl_c_that_is_not_for_us_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model = tt.Linear(1, 1)

        def loss_fn(model, x):
            signal.raise_signal(signal.SIGINT)
            return model(x).mean()

        trainer = tt.Trainer(model, tt.SGD(model.parameters()), [tt.ones(2, 1)], loss_fn)
        assert len(trainer.fit(3)["loss"]) == 3
    finally:
        signal.signal(signal.SIGINT, before)
