"""Module 07: training that was stopped, however it was stopped, goes on as if it never had been: bit for bit.

Run as a program (FOLDER STEPS), this file is the training that one of its tests kills.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinytorch as tt

STEPS = 9  # of 4 batches a pass: a run sees two passes and a piece of a third


def nothing():
    """What a loss does besides when nobody interrupts it."""


def build(
    folder,
    *,
    optimizer="adam",
    schedule=False,
    accumulate=1,
    shuffle=False,
    dropout=None,
    evaluate=None,
    plain_list=False,
    before_loss=nothing,
    **settings,
):
    """A trainer of a small regression, made anew as a script that is started again would make it."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((14, 3)).astype(np.float32)
    data = tt.TensorDataset(tt.tensor(x), tt.tensor(np.sin(x[:, :1])))
    generator = tt.Generator(1) if shuffle == "own" else None
    loader = tt.DataLoader(data, batch_size=4, shuffle=bool(shuffle), generator=generator)
    own = (tt.Generator(2), tt.Generator(3)) if dropout == "own" else (None, None)
    p = 0.5 if dropout else 0.0
    model = tt.Sequential(
        tt.Linear(3, 6, generator=tt.Generator(0)),
        tt.Dropout(p, generator=own[0]),
        tt.Tanh(),
        tt.Dropout(p, generator=own[1]),
        tt.Linear(6, 1, generator=tt.Generator(4)),
    )
    rule = {
        "sgd": lambda p: tt.SGD(p, lr=0.1),
        "momentum": lambda p: tt.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "adam": lambda p: tt.Adam(p, lr=0.05),
        "adamw": lambda p: tt.AdamW(p, lr=0.05, betas=(0.8, 0.9)),
    }[optimizer](model.parameters())
    held_out = {
        None: None,
        "in order": tt.DataLoader(data, batch_size=5),
        "shuffled": tt.DataLoader(data, batch_size=5, shuffle=True, drop_last=True),
        "shuffled by its own": tt.DataLoader(
            data, batch_size=5, shuffle=True, drop_last=True, generator=tt.Generator(8)
        ),
        "on training data": loader,
    }[evaluate]

    def loss_fn(model, batch):
        if model.training:
            before_loss()
        return tt.mse_loss(model(batch[0]), batch[1]), len(batch[0])

    return tt.Trainer(
        model,
        rule,
        list(loader) if plain_list else loader,
        loss_fn,
        schedule=tt.warmup_cosine(rule, 3, STEPS) if schedule else None,
        accumulate=accumulate,
        clip_norm=1.0,
        eval_loader=held_out,
        eval_every=None if held_out is None else 2,
        checkpoints=tt.Checkpoints(folder),
        **settings,
    )


def exactly(array):
    return array.dtype.str, array.shape, array.tobytes()


def everything(trainer):
    """All that later steps depend on, as values that == compares bit for bit."""
    optimizer = trainer.optimizer.state_dict()
    state = {
        number: {name: value if name == "step" else exactly(value) for name, value in entries.items()}
        for number, entries in optimizer["state"].items()
    }
    generators = [tt.device.default_generator, getattr(trainer.train_loader, "generator", None)]
    generators += [module.generator for module in trainer.model.modules() if isinstance(module, tt.Dropout)]
    return {
        "step": trainer.step,
        "history": trainer.history,
        "weights": {name: exactly(tensor.data) for name, tensor in trainer.model.state_dict().items()},
        "optimizer": state,
        "settings": [
            {name: tuple(v) if name == "betas" else v for name, v in group.items()}
            for group in optimizer["param_groups"]
        ],
        "schedule": trainer.schedule and trainer.schedule.state_dict(),
        "generators": [generator and generator.get_state() for generator in generators],
    }


def press_ctrl_c_in_step(step, accumulate):
    """Called before each loss, it presses Ctrl-C in the last batch of `step`."""
    calls = 0

    def before_loss():
        nonlocal calls
        calls += 1
        if calls == step * accumulate:
            signal.raise_signal(signal.SIGINT)

    return before_loss


def run_without_stop(folder, **recipe):
    tt.manual_seed(7)
    trainer = build(folder, **recipe)
    trainer.fit(STEPS)
    return everything(trainer)


def run_until(stop, folder, **recipe):
    tt.manual_seed(7)
    trainer = build(folder, before_loss=press_ctrl_c_in_step(stop, recipe.get("accumulate", 1)), **recipe)
    with pytest.raises(tt.TrainingInterrupted, match=f"after step {stop} of {STEPS}"):
        trainer.fit(STEPS)
    return trainer


def resumed(folder, checkpoint=None, **recipe):
    tt.manual_seed(12345)  # where the random numbers of the new process stand must not matter
    trainer = build(folder, **recipe)
    trainer.resume(checkpoint)
    return trainer


FULL = {
    "optimizer": "adamw",
    "schedule": True,
    "accumulate": 3,
    "shuffle": "own",
    "dropout": "own",
    "evaluate": "in order",
}

RECIPES = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "momentum"},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
    "schedule": {"schedule": True},
    "accumulation": {"accumulate": 3},
    "shuffled": {"shuffle": "default"},
    "shuffled-own-generator": {"shuffle": "own"},
    "dropout": {"dropout": "default"},
    "dropout-own-generators": {"dropout": "own"},
    "dropout-and-order-from-one-generator": {"shuffle": "default", "dropout": "default"},
    "evaluation": {"evaluate": "in order", "dropout": "default"},
    "evaluation-shuffled": {"evaluate": "shuffled", "shuffle": "default"},
    "evaluation-shuffled-own-generator": {"evaluate": "shuffled by its own"},
    "evaluation-on-training-data": {"evaluate": "on training data", "shuffle": "own"},
    "list-of-batches": {"plain_list": True},
}


@pytest.mark.exercise("ex-07-7", points=4)
@pytest.mark.parametrize("stop", [2, 4, 5])  # within a pass, at its very end, and after the first batch of the next
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_resumed_run_equals_one_never_stopped(recipe, stop, tmp_path):
    expected = run_without_stop(tmp_path / "whole", **recipe)
    run_until(stop, tmp_path / "stopped", **recipe)
    trainer = resumed(tmp_path / "stopped", **recipe)
    assert trainer.step == stop
    assert trainer.fit(STEPS)["loss"] == expected["history"]["loss"]
    assert everything(trainer) == expected


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_a_run_with_everything_at_once_may_stop_at_any_step(stop, tmp_path):
    run_until(stop, tmp_path / "stopped", **FULL)
    trainer = resumed(tmp_path / "stopped", **FULL)
    trainer.fit(STEPS)
    assert everything(trainer) == run_without_stop(tmp_path / "whole", **FULL)


def test_a_run_may_stop_after_every_step(tmp_path):
    run_until(1, tmp_path / "stopped", **FULL)
    for _ in range(2, STEPS):
        trainer = resumed(tmp_path / "stopped", before_loss=press_ctrl_c_in_step(1, FULL["accumulate"]), **FULL)
        with pytest.raises(tt.TrainingInterrupted, match=f"after step {trainer.step + 1} of {STEPS}"):
            trainer.fit(STEPS)
    trainer = resumed(tmp_path / "stopped", **FULL)
    assert trainer.step == STEPS - 1
    trainer.fit(STEPS)
    assert everything(trainer) == run_without_stop(tmp_path / "whole", **FULL)


def test_what_resume_restores_is_what_was_saved(tmp_path):
    saved = everything(run_until(5, tmp_path, **FULL))
    assert everything(resumed(tmp_path, **FULL)) == saved


def test_resuming_a_finished_run_trains_no_further(tmp_path):
    expected = run_without_stop(tmp_path, **FULL)
    trainer = resumed(tmp_path, **FULL)
    trainer.fit(STEPS)
    assert everything(trainer) == expected


def test_the_same_trainer_may_resume_in_place(tmp_path):
    trainer = run_until(5, tmp_path / "stopped", **FULL)
    tt.device.default_generator.random()
    trainer.resume()
    trainer.fit(STEPS)
    assert everything(trainer) == run_without_stop(tmp_path / "whole", **FULL)


def test_the_same_trainer_may_fit_in_two_parts(tmp_path):
    recipe = {**FULL, "evaluate": None}  # the end of the first part would be evaluated too
    tt.manual_seed(7)
    trainer = build(tmp_path / "parts", **recipe)
    trainer.fit(5)
    trainer.fit(STEPS)
    assert everything(trainer) == run_without_stop(tmp_path / "whole", **recipe)


class WithScalar(tt.Module):
    """A model that has a parameter and a buffer without axes, an empty one, and one that is not a float."""

    def __init__(self):
        self.scale = tt.Parameter(np.array(1.0, np.float32))
        self.rows = tt.Parameter(np.ones((2, 1), np.float32))
        self.count = tt.tensor(3)
        self.mask = tt.tensor([True, False])
        self.empty = tt.zeros(0, 4)


def test_tensors_of_every_shape_and_type_come_back_as_they_were(tmp_path):
    def build_odd():
        model = WithScalar()
        optimizer = tt.Adam(model.parameters(), lr=0.1)
        checkpoints = tt.Checkpoints(tmp_path)
        return tt.Trainer(model, optimizer, [1.0], lambda m, _: (m.rows * m.scale).sum(), checkpoints=checkpoints)

    trainer = build_odd()
    trainer.model.count.data += 1
    trainer.fit(2)
    successor = build_odd()
    assert successor.resume() == 2
    assert everything(successor) == everything(trainer)


# ---- from another checkpoint than the newest


@pytest.mark.parametrize("choose", [tt.Checkpoints.best, lambda kept: kept.list()[0]], ids=["best", "oldest"])
def test_from_an_older_checkpoint_the_same_steps_follow_again(choose, tmp_path):
    recipe = {**FULL, "optimizer": "momentum", "checkpoint_every": 1}
    expected = run_without_stop(tmp_path, **recipe)
    trainer = resumed(tmp_path, choose(tt.Checkpoints(tmp_path)), **recipe)
    assert trainer.step < STEPS
    trainer.fit(STEPS)
    assert everything(trainer) == expected


def turn_back_and_train_differently(folder, steps):
    """Six steps; then, from the third checkpoint, on at another rate until `steps`."""
    trainer = build(folder, checkpoint_every=1)
    trainer.checkpoints.keep = 6
    trainer.fit(6)
    trainer.resume(folder / "step-00000003")
    trainer.optimizer.param_groups[0]["lr"] = 0.001
    trainer.fit(steps)
    return everything(trainer)


@pytest.mark.parametrize("steps", [4, 6, 7])
def test_after_turning_back_the_newest_checkpoint_is_of_the_new_path(steps, tmp_path):
    expected = turn_back_and_train_differently(tmp_path, steps)
    trainer = build(tmp_path)
    trainer.resume()
    assert trainer.step == steps
    assert everything(trainer)["weights"] == expected["weights"]
    assert trainer.history == expected["history"]


# ---- crashes


def snapshots_of(monkeypatch, folder, copies):
    """Copy the folder as it is before each change to the file system: what a kill at that moment would leave."""
    busy = False

    def watched(name):
        real = getattr(os, name)

        def change(*args, **kwargs):
            nonlocal busy
            if not busy and folder.exists():
                busy = True
                shutil.copytree(folder, copies / f"{len(os.listdir(copies)):04d}")
                busy = False
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, change)

    copies.mkdir()
    for name in ("mkdir", "fsync", "rename", "replace", "unlink", "remove", "rmdir"):
        watched(name)


def test_a_crash_at_any_moment_of_saving_loses_at_most_the_step_being_saved(tmp_path, monkeypatch):
    recipe = {"shuffle": "own", "evaluate": "in order", "checkpoint_every": 1}
    with monkeypatch.context() as patch:
        snapshots_of(patch, tmp_path / "run", tmp_path / "copies")
        expected = run_without_stop(tmp_path / "run", **recipe)
    copies = sorted((tmp_path / "copies").iterdir())
    assert len(copies) > 4 * STEPS
    newest = 0
    for copy in copies:
        if not tt.Checkpoints(copy).list():
            assert newest == 0
            continue
        trainer = resumed(copy, **{**recipe, "checkpoint_every": None})
        assert trainer.step in (newest, newest + 1)
        newest = trainer.step
        trainer.fit(STEPS)
        assert everything(trainer) == expected
        leftovers = [path for path in copy.iterdir() if path.name.startswith(".")]
        assert not leftovers or newest == STEPS  # the next save removes them, where there is one
    assert newest == STEPS


def trained_in_another_process(folder, steps):
    return subprocess.Popen([sys.executable, __file__, str(folder), str(steps)])


def newest_step(folder):
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=0)


def wait_until(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < deadline, "the training did not come to the moment to kill it"
        time.sleep(0.0005)


def test_a_run_killed_again_and_again_ends_as_one_never_killed(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    rng = random.Random(5)
    for while_writing in (False, True, False, True):
        process = trained_in_another_process(killed, 10**6)
        step = newest_step(killed) + rng.randint(1, 15)
        wait_until(lambda step=step: newest_step(killed) >= step, process)
        if while_writing:
            wait_until(lambda: any(killed.glob(".writing-*")), process)
        process.kill()
        assert process.wait() != 0
        for folder in tt.Checkpoints(killed).list():
            tt.Checkpoints(killed).load(folder)
    steps = newest_step(killed) + 5
    for folder in (killed, whole):
        assert trained_in_another_process(folder, steps).wait() == 0
    assert {path.name[:5] for path in killed.iterdir()} == {"step-"}
    name = f"step-{steps:08d}"
    for file in ("state.safetensors", "state.json"):
        assert (killed / name / file).read_bytes() == (whole / name / file).read_bytes()


if __name__ == "__main__":
    trainer = build(Path(sys.argv[1]), checkpoint_every=1, **{**FULL, "schedule": False})
    if trainer.checkpoints.list():
        trainer.resume()
    trainer.fit(int(sys.argv[2]))
