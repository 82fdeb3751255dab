"""Module 20: training that was stopped, however it was stopped, goes on as if it never had been: bit for bit.

Run as a program (FOLDER), this file is the training that one of its tests kills.
"""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.dataloader import DistributedSampler
from tinytorch.pipeline import (
    Config,
    DataConfig,
    DistributedTrainer,
    FailureConfig,
    TrainingConfig,
    language_model_loss,
)

STEPS = 9  # of three epochs: 5 batches each, in steps of 2, 2 and 1
FULL = {
    "dropout": 0.2,
    "eval_steps": 2,
    "save_steps": 4,
    "use_mixed_precision": True,
    "precision": "float16",
    "gradient_checkpointing": True,
}


def exactly(array):
    return array.dtype.str, array.shape, array.tobytes()


def everything(trainer):
    """All that later steps depend on, without how long things took, as values that == compares bit for bit."""
    optimizer = trainer.optimizer.state_dict()
    epochs = [
        (e["epoch"], e["train"]["loss"], e["train"]["num_batches"], e["val"], e["global_step"])
        for e in trainer.history["epochs"]
    ]
    return {
        "step": trainer.step,
        "history": {name: list(values) for name, values in trainer.history.items() if name != "epochs"},
        "epochs": epochs,
        "weights": {name: exactly(tensor.data) for name, tensor in trainer.model.state_dict().items()},
        "optimizer": {
            number: {name: v if name == "step" else exactly(v) for name, v in entries.items()}
            for number, entries in optimizer["state"].items()
        },
        "rates": trainer.schedule.get_last_lr(),
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "generators": [tt.device.default_generator.get_state(), trainer.train_loader.generator.get_state()],
    }


def ctrl_c_at(call):
    """A loss that presses Ctrl-C in the training batch of this number."""
    calls = 0

    def loss_fn(model, batch):
        nonlocal calls
        calls += model.training
        if model.training and calls == call:
            signal.raise_signal(signal.SIGINT)
        return language_model_loss(model, batch)

    return loss_fn


@pytest.mark.parametrize("batch", [1, 5, 6, 9])  # in the steps 1, 3, 4 and 5; epochs end with 3 and 6
@pytest.mark.parametrize("recipe", [{}, FULL], ids=["plain", "everything"])
def test_a_run_stopped_by_ctrl_c_goes_on_bit_for_bit(recipe, batch, build):
    whole = build("whole", **recipe)
    result = whole.train()
    stopped = build("stopped", loss_fn=ctrl_c_at(batch), **recipe)
    with pytest.raises(tt.TrainingInterrupted, match="Stopped by Ctrl-C after step"):
        stopped.train()
    tt.manual_seed(999)
    trainer = build("stopped", resume="latest", **recipe)
    assert 0 < trainer.step < STEPS
    assert trainer.current_epoch == trainer.step // 3
    resumed = trainer.train()
    assert everything(trainer) == everything(whole)
    assert [e["epoch"] for e in resumed["training_history"]] == [e["epoch"] for e in result["training_history"]]


def test_a_resume_goes_on_with_the_epoch_after_the_last_completed(build):
    """Two epochs, then two more: four entries, not five, and no epoch comes twice."""
    first = build("run", num_epochs=2)
    first.train()
    second = build("run", resume="latest", num_epochs=4)
    assert (second.current_epoch, second.global_step) == (2, 6)
    history = second.train()["training_history"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert second.history["step"] == list(range(1, 13))


@pytest.mark.parametrize("link", ["latest_checkpoint", "checkpoint_epoch_2", "final_checkpoint"])
def test_a_resume_may_name_a_link(link, build):
    build("run", num_epochs=2).train()
    trainer = build("other", resume=build("run").config.folder / link)
    assert (trainer.current_epoch, trainer.global_step) == (2, 6)


def test_a_run_that_is_complete_has_nothing_left_to_do(build):
    expected = build("run").train()["training_history"]
    again = build("run", resume="latest")
    before = {name: exactly(tensor.data) for name, tensor in again.model.state_dict().items()}
    assert again.train()["training_history"] == expected
    assert before == {name: exactly(tensor.data) for name, tensor in again.model.state_dict().items()}


def test_an_order_that_follows_from_the_epoch_is_found_again(build):
    data = build().train_loader.dataset

    def make(name, **settings):
        loader = tt.DataLoader(data, batch_size=4, sampler=DistributedSampler(data, 1, 0, seed=3))
        return build(name, loader=loader, **settings)

    whole = make("whole")
    whole.train()
    for stop in (2, 3, 4):
        make(f"stopped{stop}").fit(stop)
        trainer = make(f"stopped{stop}", resume="latest")
        trainer.fit(STEPS)
        assert trainer.history["loss"] == whole.history["loss"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"learning_rate": 0.5}, "learning rate is 0.01, not 0.5"),
        ({"weight_decay": 0.0}, "weight decay is 0.1, not 0.0"),
        ({"gradient_accumulation_steps": 3}, "number of batches in a step is 2, not 3"),
        ({"use_mixed_precision": True}, "type of numbers in products is float32, not bfloat16"),
        ({"dropout": 0.5}, r"model\.dropout is 0\.0, not 0\.5"),
        ({"model": {"n_head": 4}}, r"model\.n_head is 2, not 4"),  # of equal shapes
        ({"model": {"layer_norm_epsilon": 1e-3}}, r"model\.layer_norm_epsilon is 1e-05, not 0\.001"),
        ({"dtype": np.float64}, "type of weights is float32, not float64"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(change, what, build):
    build("run").fit(1)
    with pytest.raises(tt.CheckpointError, match=what):
        build("run", resume="latest", **change)


def test_other_settings_are_gone_on_with_and_logged(build, caplog):
    build("run").fit(1)
    with caplog.at_level(logging.INFO, "tinytorch"):
        trainer = build("run", resume="latest", max_grad_norm=0.5, failures=FailureConfig(max_recoveries=7))
        build("other", resume=trainer.config.folder / "step-00000001")
    *changed, moved = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert changed == [
        ("WARNING", "Going on with another training.max_grad_norm: it was 1.0 and is 0.5."),
        ("WARNING", "Going on with another training.failures.max_recoveries: it was 3 and is 7."),
    ]
    assert moved[0] == "INFO" and moved[1].startswith("Going on with another output_dir: it was ")


def test_a_checkpoint_of_more_ranks_is_said_to_be_that_first(build):
    build("run").fit(1)
    trainer = build("run", learning_rate=0.5)
    trainer.ranks = Two()
    with pytest.raises(tt.CheckpointError, match=r"its number of ranks is 1, not 2"):
        trainer.resume()


class Two:
    """What a trainer asks of two ranks before it loads anything."""

    rank, world_size, is_distributed = 0, 2, True


def test_a_checkpoint_of_a_plain_trainer_is_refused(build):
    trainer = build("run")
    plain = tt.Trainer(
        trainer.model,
        trainer.optimizer,
        trainer.train_loader,
        language_model_loss,
        schedule=trainer.schedule,
        checkpoints=trainer.checkpoints,
    )
    plain.fit(1)
    with pytest.raises(tt.CheckpointError, match="number of ranks is None, not 1"):
        build("run", resume="latest")


def test_there_is_nothing_to_resume_in_an_empty_folder(build):
    with pytest.raises(tt.CheckpointError, match="No checkpoint to load in"):
        build("empty", resume="latest")


# ---- kill -9

ROWS = 12


def count_events(folder, kill_at):
    """A list that counts what this process does to the files in a folder; it is killed at event number `kill_at`.

    Only for a process of its own: nothing removes an audit hook.
    """
    events = [0]

    def count(event, arguments):
        watched = event in ("os.rename", "os.symlink", "os.remove", "os.rmdir", "os.mkdir")
        watched |= event == "open" and arguments[1] in ("w", "wb")
        if watched and str(folder) in str(arguments[0]) + str(arguments[1]):
            events[0] += 1
            if events[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    return events


def train_in(folder):
    """A run that goes on where it can."""
    model_config = tt.GPTConfig(vocab_size=11, n_positions=6, n_embd=4, n_layer=1, n_head=1, dropout=0.1)
    training = TrainingConfig(
        batch_size=4,
        gradient_accumulation_steps=1,
        num_epochs=2,
        save_steps=1,
        use_mixed_precision=False,
        max_checkpoints=2,
    )
    config = Config(model_config, training, DataConfig(max_seq_length=6), "run", str(folder))
    ids = (np.arange(ROWS)[:, None] + np.arange(6)) % 11
    rows = [{"input_ids": row, "labels": row} for row in ids]
    loader = tt.DataLoader(rows, batch_size=4, shuffle=True, generator=tt.Generator(5))
    model = tt.GPT(model_config, generator=tt.Generator(0))
    resume = "latest" if list((Path(folder) / "run").glob("step-*")) else None
    trainer = DistributedTrainer(model, config, loader, loader, resume)
    trainer.train()
    return trainer


def start(folder, kill_at=0):
    """(exit status, output) of a process that does this and counts its events; the signal that ended it is negative."""
    program = [sys.executable, __file__, str(folder), str(kill_at)]
    finished = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert finished.returncode in (0, -signal.SIGKILL), finished.stderr
    return finished.returncode, finished.stdout


def test_a_run_killed_at_any_moment_of_saving_goes_on_bit_for_bit(tmp_path):
    events = int(start(tmp_path / "counted")[1])
    expected = everything(train_in(tmp_path / "whole"))
    assert events > 40
    for kill_at in range(8, events, events // 4):
        folder = tmp_path / str(kill_at)
        assert start(folder, kill_at) == (-signal.SIGKILL, "")
        links = [path for path in (folder / "run").iterdir() if path.is_symlink()]
        assert all(path.exists() for path in links)
        newest = tt.Checkpoints(folder / "run").latest()
        assert newest is None or tt.Checkpoints.validate(newest).is_valid
        assert everything(train_in(folder)) == expected


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_never_killed(tmp_path):
    events = int(start(tmp_path / "counted")[1])
    expected, statuses = everything(train_in(tmp_path / "whole")), []
    while 0 not in statuses:
        statuses.append(start(tmp_path / "killed", kill_at=events // 3)[0])
    assert statuses[:-1] == [-signal.SIGKILL] * (len(statuses) - 1)
    assert 2 <= len(statuses) - 1 <= 6  # each gets a save further, at least
    assert everything(train_in(tmp_path / "killed")) == expected


if __name__ == "__main__":
    events = count_events(sys.argv[1], kill_at=int(sys.argv[2]))
    train_in(Path(sys.argv[1]))
    print(events[0])
