"""Module 20: what goes wrong for real, and what is done about it as configured: logged, remembered, and not forever."""

import logging
import math
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tinytorch as tt
from tinytorch.pipeline import FailureConfig, TrainingFailed, language_model_loss

STEPS = 3  # of an epoch: 5 batches, in steps of 2, 2 and 1


def weights_of(trainer):
    return {name: tensor.data.copy() for name, tensor in trainer.model.state_dict().items()}


def same(first, second):
    return all((array == second[name]).all() for name, array in first.items())


class Loss:
    """language_model_loss, times a factor in the batches whose number, from 1, is in `factors`."""

    def __init__(self, factors):
        self.factors, self.calls = factors, 0

    def __call__(self, model, batch):
        loss, count = language_model_loss(model, batch)
        if not model.training:
            return loss, count
        self.calls += 1
        return loss * self.factors.get(self.calls, 1.0), count


class SmallMemory:
    """language_model_loss of a machine that holds at most `rows` rows at a time; keeps the sizes that it was given."""

    def __init__(self, rows):
        self.rows, self.given = rows, []

    def __call__(self, model, batch):
        rows = len(batch["input_ids"])
        self.given.append(rows)
        if not model.training or rows <= self.rows:
            return language_model_loss(model, batch)
        first = _exhausted(model.wte.weight.sum())  # the first op forward is the last on the way back
        loss, count = language_model_loss(model, batch)
        return loss + first, count


@tt.op
def _exhausted(x):
    """Nothing forward; backward it asks for more memory than there is, when the other gradients are already there."""
    return np.zeros_like(x), lambda g: np.empty(1 << 60, np.uint8)


def kinds(trainer):
    return [(failure["step"], failure["kind"], failure["action"]) for failure in trainer.history["failures"]]


# ---- NaN


@pytest.mark.parametrize("factor", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("batch", [3, 4], ids=["first-batch-of-its-step", "second"])
def test_skip_leaves_the_step_out_and_uses_up_its_batches(factor, batch, build, caplog):
    trainer = build(loss_fn=Loss({batch: factor}), failures=FailureConfig(not_finite="skip"), num_epochs=2)
    trainer.fit(1)
    before, rate = weights_of(trainer), trainer.optimizer.param_groups[0]["lr"]
    with caplog.at_level(logging.WARNING, "tinytorch"):
        trainer.fit(2)
    assert same(before, weights_of(trainer))
    assert trainer.optimizer.param_groups[0]["lr"] == rate
    assert kinds(trainer) == [(2, "not_finite", "skip")]
    assert "The loss became" in trainer.history["failures"][0]["message"]
    assert "Step 2, not_finite: skip The loss became" in caplog.text
    result = trainer.train()
    assert trainer.history["step"] == [1, 3, 4, 5, 6]
    assert [entry["train"]["num_batches"] for entry in result["training_history"]] == [5, 5]
    assert np.isfinite(trainer.history["loss"]).all()


def test_a_gradient_that_is_not_finite_is_skipped_too(build):
    @tt.op
    def steep(x):
        return x * 1, lambda g: g * math.inf

    def loss_fn(model, batch):
        loss, count = language_model_loss(model, batch)
        return (steep(loss) if model.training and len(trainer.history["step"]) == 1 else loss), count

    with np.errstate(invalid="ignore"):  # infinity times 0
        trainer = build(loss_fn=loss_fn)
        trainer.fit(1)
        before = weights_of(trainer)
        with pytest.raises(TrainingFailed, match=r"The gradient became nan .* once too often after max_recoveries=3"):
            trainer.fit(9)
    assert same(before, weights_of(trainer))
    assert kinds(trainer) == [(step, "not_finite", "skip") for step in (2, 3, 4, 5)]


def test_raise_ends_training_with_the_cause_before_anything_moved(build):
    trainer = build(loss_fn=Loss({4: math.nan}), failures=FailureConfig(not_finite="raise"))
    trainer.fit(1)
    before = weights_of(trainer)
    with pytest.raises(FloatingPointError, match=r"The loss became nan at step 2\. Training was calm"):
        trainer.fit(2)
    assert same(before, weights_of(trainer))
    assert trainer.step == 1


def test_halving_the_rate_changes_the_whole_schedule_that_follows(build):
    plain, halved = (
        build("plain"),
        build("halved", loss_fn=Loss({3: math.nan}), failures=FailureConfig(not_finite="halve_lr")),
    )
    expected, rates = plain.fit(9)["lr"], halved.fit(9)["lr"]
    assert kinds(halved) == [(2, "not_finite", "halve_lr")]
    assert_allclose(rates, [expected[0], *(rate / 2 for rate in expected[1:8])], rtol=1e-12)


def test_a_halved_rate_stays_above_the_lowest(build):
    factors = dict.fromkeys((3, 7, 11), math.nan)
    trainer = build(loss_fn=Loss(factors), failures=FailureConfig(not_finite="halve_lr"), min_lr_ratio=0.4)
    trainer.train()
    assert trainer.schedule.base_lrs == [4e-3, 4e-3]


def test_too_many_in_a_row_end_training_with_the_story(build):
    factors = dict.fromkeys(range(3, 100), math.nan)
    trainer = build(loss_fn=Loss(factors), failures=FailureConfig(max_recoveries=2), num_epochs=5)
    with pytest.raises(
        TrainingFailed, match=r"max_recoveries=2 .* Step 2 \(skip\): The loss .* Step 3 \(skip\): "
    ) as raised:
        trainer.train()
    assert isinstance(raised.value.__cause__, FloatingPointError)
    assert trainer.history["step"] == [1]


def test_a_success_in_between_begins_the_count_anew(build):
    factors = dict.fromkeys([1, 3, 6, 8, 11, 13], math.nan)  # steps 1, 2 and 4, 5 and 7, 8
    trainer = build(loss_fn=Loss(factors), failures=FailureConfig(max_recoveries=2))
    trainer.train()
    assert trainer.history["step"] == [3, 6, 9]


# ---- going back


def test_reload_goes_back_to_the_newest_checkpoint_at_half_the_rate(build):
    plain = build("plain", save_steps=2)
    plain.fit(9)
    loss_fn = Loss({9: math.nan})  # in step 5, once: the checkpoint of step 4 is the newest
    trainer = build("back", loss_fn=loss_fn, failures=FailureConfig(not_finite="reload"), save_steps=2)
    trainer.fit(9)
    assert kinds(trainer) == [(5, "not_finite", "reload")]
    assert trainer.history["step"] == list(range(1, 10))
    assert trainer.history["loss"][:5] == plain.history["loss"][:5]
    assert_allclose(
        trainer.history["lr"], plain.history["lr"][:4] + [r / 2 for r in plain.history["lr"][4:]], rtol=1e-12
    )
    assert [entry["train"]["num_batches"] for entry in trainer.history["epochs"]] == [5, 5, 5]
    assert loss_fn.calls == 15 + 2  # both batches of the step came again


def test_what_fails_again_after_every_reload_ends_training(build):
    def loss_fn(model, batch):
        loss, count = language_model_loss(model, batch)
        return loss * (math.nan if model.training and trainer.step == 5 else 1), count

    trainer = build(loss_fn=loss_fn, failures=FailureConfig(not_finite="reload"), save_steps=2)
    with pytest.raises(TrainingFailed, match=r"once too often .*(Step 6 \(reload\).*){3}"):
        trainer.train()


def test_reload_without_a_checkpoint_says_so(build):
    trainer = build(loss_fn=Loss({1: math.nan}), failures=FailureConfig(not_finite="reload"))
    with pytest.raises(TrainingFailed, match=r"The loss became nan .* There is no whole checkpoint to reload"):
        trainer.train()


def test_reload_passes_over_a_damaged_checkpoint(build):
    loss_fn = Loss({9: math.nan})
    trainer = build(loss_fn=loss_fn, failures=FailureConfig(not_finite="reload"), save_steps=2, evaluate=False)
    trainer.fit(4)
    (trainer.config.folder / "step-00000004" / "state.json").write_text("{}")
    trainer.fit(9)
    assert kinds(trainer) == [(5, "not_finite", "reload"), (4, "corrupt_checkpoint", "reload")]
    assert trainer.history["step"] == list(range(1, 10))


# ---- exploding gradients and divergence


def test_an_exploding_gradient_is_clipped_and_noted(build):
    plain = build("plain", max_grad_norm=0.01)
    trainer = build(
        "huge", loss_fn=Loss({1: 1e5, 2: 1e5}), max_grad_norm=0.01, failures=FailureConfig(divergence="raise")
    )
    plain.fit(1), trainer.fit(1)
    assert kinds(trainer) == [(1, "exploding_gradient", "clip")]
    assert trainer.history["grad_norm"][0] > 100
    for name, array in weights_of(trainer).items():
        assert_allclose(array, weights_of(plain)[name], atol=1e-6)


def test_an_exploding_gradient_may_be_skipped_or_raised(build):
    failures = FailureConfig(exploding_gradient="skip", max_gradient_norm=50.0)
    trainer = build("skip", loss_fn=Loss({1: 1e5}), failures=failures)
    before = weights_of(trainer)
    trainer.fit(1)
    assert same(before, weights_of(trainer))
    trainer = build("raise", loss_fn=Loss({1: 1e5}), failures=FailureConfig(exploding_gradient="raise"))
    with pytest.raises(TrainingFailed, match=r"The gradient has the length .* more than max_gradient_norm=100\."):
        trainer.fit(1)


def test_divergence_is_a_loss_far_above_the_lowest(build):
    loss_fn = Loss({1: 60.0, 2: 60.0, 6: 60.0, 7: 60.0})  # the first step is not above any
    trainer = build(loss_fn=loss_fn, failures=FailureConfig(exploding_gradient="clip"))
    trainer.fit(9)
    assert [entry for entry in kinds(trainer) if entry[1] == "divergence"] == [(4, "divergence", "halve_lr")]
    assert re.search(r"more than 100 above the lowest so far, 2\.", trainer.history["failures"][-1]["message"])
    assert trainer.history["step"] == [1, 2, 3, 5, 6, 7, 8, 9]


# ---- with a scaled loss


@pytest.mark.parametrize("action", ["skip", "halve_lr", "reload", "clip"])
def test_failures_leave_the_scaler_ready_for_the_next_step(action, build):
    failures = FailureConfig(exploding_gradient=action, max_gradient_norm=10.0, max_loss_rise=1e9)
    mixed = {"use_mixed_precision": True, "precision": "float16", "save_steps": 1}
    trainer = build(loss_fn=Loss({3: 1e3, 4: 1e3}), failures=failures, **mixed)
    trainer.scaler.update(256.0)  # with which nothing overflows
    trainer.train()
    assert (2, "exploding_gradient", action) in kinds(trainer)
    assert trainer.history["step"][-1] == 9
    assert np.isfinite(trainer.history["grad_norm"]).all()


def test_a_gradient_that_no_scale_makes_finite_is_a_failure(build):
    @tt.op
    def steep(x):
        return x * 1, lambda g: g * math.inf

    def loss_fn(model, batch):
        loss, count = language_model_loss(model, batch)
        return (steep(loss) if model.training else loss), count

    trainer = build(loss_fn=loss_fn, use_mixed_precision=True, precision="float16", num_epochs=10)
    with np.errstate(invalid="ignore"), pytest.raises(TrainingFailed, match=r"The gradient .* once too often"):
        trainer.train()
    assert trainer.step == 16 + 3  # from 2**16 to 1, and max_recoveries more
    assert trainer.history["step"] == []


def test_the_lowest_loss_is_known_after_a_resume(build):
    build(save_steps=1).fit(2)
    trainer = build(resume="latest", loss_fn=Loss({1: 200.0}))  # step 3 is of a single batch
    trainer.fit(4)
    assert kinds(trainer) == [(3, "divergence", "halve_lr")]


# ---- memory


@pytest.mark.parametrize("rows", [3, 2, 1])
def test_what_does_not_fit_is_computed_in_pieces_to_the_same_result(rows, build):
    plain, loss_fn = build("plain"), SmallMemory(rows)
    trainer = build("small", loss_fn=loss_fn)
    expected, found = plain.fit(9), trainer.fit(9)
    assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    assert_allclose(found["grad_norm"], expected["grad_norm"], rtol=1e-4)
    for name, array in weights_of(trainer).items():
        assert_allclose(array, weights_of(plain)[name], atol=2e-5)
    sizes = [2] if rows > 1 else [2, 1]  # 4 rows are halved once or twice, and no larger piece is tried again
    assert kinds(trainer) == [(1, "out_of_memory", "halve_batch")] * len(sizes)
    assert loss_fn.given.count(4) == 1
    assert (
        "4 of 4 rows did not fit into memory at step 1 (Unable to allocate" in trainer.history["failures"][0]["message"]
    )


def test_one_row_that_does_not_fit_ends_training(build):
    trainer = build(loss_fn=SmallMemory(0))
    before = weights_of(trainer)
    with pytest.raises(MemoryError, match=r"1 of 4 rows did not fit into memory at step 1"):
        trainer.train()
    assert same(before, weights_of(trainer))
    assert [action for _, _, action in kinds(trainer)] == ["halve_batch", "halve_batch", "raise"]


class SmallEvaluation:
    """language_model_loss, but at most `rows` rows at a time fit where the model is evaluated."""

    def __init__(self, rows):
        self.rows, self.given = rows, []

    def __call__(self, model, batch):
        if not model.training:
            self.given.append(len(batch["input_ids"]))
            if self.given[-1] > self.rows:
                raise MemoryError("too many rows")
        return language_model_loss(model, batch)


def test_an_evaluation_that_does_not_fit_is_computed_in_pieces_to_the_same_result(build):
    plain, loss_fn = build("plain"), SmallEvaluation(1)
    trainer = build("small", loss_fn=loss_fn)
    expected, found = plain.train()["training_history"], trainer.train()["training_history"]
    assert_allclose([e["val"]["loss"] for e in found], [e["val"]["loss"] for e in expected], rtol=1e-4)
    assert kinds(trainer) == [(3, "out_of_memory", "halve_batch")] * 2
    assert "4 of 4 rows did not fit into memory in the evaluation after step 3" in str(trainer.history["failures"])
    assert max(loss_fn.given[3:]) == 1


@pytest.mark.parametrize("again", ["the same trainer", "another that resumes"])
@pytest.mark.parametrize("eval_steps", [2, 1000], ids=["within an epoch", "at its end"])
def test_a_step_whose_evaluation_fails_is_not_lost(again, eval_steps, build):
    """It is evaluated before the next one, and all is as if nothing had been."""
    settings = {"eval_steps": eval_steps, "dropout": 0.2, "failures": FailureConfig(out_of_memory="raise")}
    whole = build("whole", **settings)
    whole.train()
    small = SmallEvaluation(0)
    trainer = build("a", loss_fn=small, **settings)
    step = min(eval_steps, STEPS)
    with pytest.raises(MemoryError, match=rf"4 of 4 rows did not fit into memory in the evaluation after step {step}"):
        trainer.train()
    assert [folder.name for folder in trainer.checkpoints.list()] == [f"step-{step:08d}"]
    if again == "the same trainer":
        small.rows = 4
    else:
        tt.manual_seed(9)
        trainer = build("a", resume="latest", **settings)
        assert trainer.step == step
    result = trainer.train()
    assert [e["val"] for e in result["training_history"]] == [e["val"] for e in whole.history["epochs"]]
    assert {name: values for name, values in trainer.history.items() if name != "epochs"} == {
        name: values for name, values in whole.history.items() if name != "epochs"
    }
    assert same(weights_of(trainer), weights_of(whole))


def test_an_optimizer_without_memory_says_where_to_go_on(build, monkeypatch):
    trainer = build(save_steps=1)
    trainer.fit(1)

    def step():
        raise MemoryError("Unable to allocate 3 GiB")

    monkeypatch.setattr(trainer.optimizer, "step", step)
    with pytest.raises(
        MemoryError, match=r"no memory for step 2 \(Unable to allocate 3 GiB\).* in part\. Saved in .*step-00000001"
    ):
        trainer.train()
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match=r"in the middle of step 2 \(MemoryError\)"):
        trainer.train()


@pytest.mark.parametrize("action", ["raise", "skip"])
def test_out_of_memory_may_be_raised_or_skipped(action, build):
    trainer = build(loss_fn=SmallMemory(1), failures=FailureConfig(out_of_memory=action, max_recoveries=2))
    error = MemoryError if action == "raise" else TrainingFailed
    with pytest.raises(error, match=r"(4 of 4|2 of 2) rows did not fit"):
        trainer.train()
    assert len(trainer.history["failures"]) == (1 if action == "raise" else 3)
    assert trainer.history["step"] == []


def test_the_size_that_fits_is_remembered_by_checkpoints(build):
    build(loss_fn=SmallMemory(2), evaluate=False).fit(2)
    loss_fn = SmallMemory(2)
    trainer = build(loss_fn=loss_fn, resume="latest", evaluate=False)
    trainer.fit(5)
    assert max(loss_fn.given) == 2
    assert len(trainer.history["failures"]) == 1


def test_a_trainer_that_an_error_left_in_a_step_goes_on_only_from_a_checkpoint(build):
    """The batches of that step are used up and its random numbers drawn: training on would not be what it says."""
    calls = []

    def loss_fn(model, batch):
        calls.append(model.training)
        if sum(calls) == 9 and model.training:  # in step 5
            raise RuntimeError("the cable was pulled")
        return language_model_loss(model, batch)

    whole = build("whole", dropout=0.2, save_steps=4)
    whole.train()
    trainer = build("a", loss_fn=loss_fn, dropout=0.2, save_steps=4)
    with pytest.raises(RuntimeError, match="the cable"):
        trainer.train()
    with pytest.raises(
        RuntimeError,
        match=r"in the middle of step 5 \(RuntimeError\)\. Saved in .*step-00000004: call resume\(\) before",
    ):
        trainer.train()
    assert trainer.resume() == 4
    trainer.train()
    assert trainer.history["loss"] == whole.history["loss"]
    assert same(weights_of(trainer), weights_of(whole))


def test_what_was_overcome_does_not_ask_for_a_resume(build, caplog):
    trainer = build(loss_fn=Loss({9: math.nan}), save_steps=1)
    trainer.train()
    assert kinds(trainer) == [(5, "not_finite", "skip")]
    assert "resume" not in caplog.text + str(trainer.history["failures"])
    trainer = build("b", loss_fn=Loss({9: math.nan}), save_steps=1, failures=FailureConfig(not_finite="raise"))
    with pytest.raises(FloatingPointError, match=r"became nan at step 5\..* Saved in .*step-00000004: call resume\(\)"):
        trainer.train()
    trainer = build("c", loss_fn=Loss(dict.fromkeys(range(9, 40), math.nan)), save_steps=1, num_epochs=9)
    with pytest.raises(TrainingFailed, match=r"once too often .* Saved in .*: call resume\(\)"):
        trainer.train()


def test_an_error_in_the_middle_of_a_step_leaves_nothing_of_it(build):
    fails = {2}

    def loss_fn(model, batch):
        if model.training and len(seen) + 1 in fails:
            fails.clear()
            raise RuntimeError("the cable was pulled")
        seen.append(batch)
        return language_model_loss(model, batch)

    seen = []
    trainer, plain = build("torn", loss_fn=loss_fn), build("plain")
    batches = list(trainer.train_loader)
    with pytest.raises(RuntimeError, match="the cable"):
        [trainer.train_step(batch) for batch in batches]
    for batch in batches[:2]:
        found, expected = trainer.train_step(batch), plain.train_step(batch)
    assert found == expected
    assert same(weights_of(trainer), weights_of(plain))


# ---- checkpoints


def damage(folder):
    (folder / "state.safetensors").write_bytes(b"torn")


def test_a_corrupt_newest_checkpoint_is_passed_over_and_noted(build):
    build(save_steps=1, evaluate=False).fit(3)
    damage(build().config.folder / "step-00000003")
    trainer = build(resume="latest", evaluate=False)
    assert trainer.step == 2
    assert kinds(trainer) == [(3, "corrupt_checkpoint", "reload")]
    assert "step-00000003 is damaged" in trainer.history["failures"][0]["message"]
    assert trainer.fit(4)["step"] == [1, 2, 3, 4]


def test_a_corrupt_newest_checkpoint_is_refused_where_that_is_configured(build):
    build(save_steps=1, evaluate=False).fit(3)
    damage(build().config.folder / "step-00000003")
    with pytest.raises(tt.CheckpointError, match=r"step-00000003 is damaged.*corrupt_checkpoint='reload' would"):
        build(resume="latest", failures=FailureConfig(corrupt_checkpoint="raise"), evaluate=False)


def test_a_corrupt_checkpoint_that_was_named_is_refused(build):
    build(save_steps=1, evaluate=False).fit(3)
    folder = build().config.folder / "step-00000002"
    damage(folder)
    with pytest.raises(tt.CheckpointError, match=r"step-00000002 is damaged"):
        build(resume=folder, evaluate=False)
