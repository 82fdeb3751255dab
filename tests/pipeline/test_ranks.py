"""Module 20: two real processes that train together do what one does with the joint batches.

Run as a program (TASK FOLDER), under mpiexec or alone, this file is what its tests start.
"""

import dataclasses
import json
import math
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tinytorch as tt
from tinytorch.dataloader import DistributedSampler
from tinytorch.pipeline import (
    Config,
    DataConfig,
    DistributedTrainer,
    FailureConfig,
    TrainingConfig,
    TrainingFailed,
    language_model_loss,
)

ROWS, TIME = 24, 6


def rows():
    """Rows of unequal numbers of tokens: ranks weigh differently in each step."""
    ids = (np.arange(ROWS)[:, None] * 3 + np.arange(TIME)) % 11
    mask = np.arange(TIME) < np.random.default_rng(2).integers(2, TIME + 1, (ROWS, 1))
    return [{"input_ids": i, "labels": np.where(m, i, -100), "attention_mask": m} for i, m in zip(ids, mask)]


def build(folder, ranks, *, loss_fn=language_model_loss, resume=None, dropout=0.0, save_steps=1000, **failures):
    """A trainer of this rank. Whatever the number of ranks, a step is of 8 rows, the same ones."""
    model_config = tt.GPTConfig(vocab_size=11, n_positions=TIME, n_embd=8, n_layer=1, n_head=2, dropout=dropout)
    training = TrainingConfig(
        batch_size=4 // ranks.world_size,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        num_epochs=3,
        save_steps=save_steps,
        use_mixed_precision=False,
        failures=FailureConfig(**failures),
    )
    config = Config(model_config, training, DataConfig(max_seq_length=TIME), "run", str(folder))
    data = rows()
    loaders = [
        tt.DataLoader(
            data,
            batch_size=4 // ranks.world_size,
            sampler=DistributedSampler(data, ranks.world_size, ranks.rank, shuffle=shuffle, seed=7),
        )
        for shuffle in (True, False)
    ]
    model = tt.GPT(model_config, generator=tt.Generator(ranks.rank))  # made equal by the trainer
    return DistributedTrainer(model, config, *loaders, resume, ranks=ranks, loss_fn=loss_fn)


def described(trainer):
    weights = {name: tensor.data.tolist() for name, tensor in trainer.model.state_dict().items()}
    epochs = [(e["train"]["loss"], e["val"]["loss"], e["val"]["is_best"]) for e in trainer.history["epochs"]]
    return {"history": {**trainer.history, "epochs": epochs}, "weights": weights}


# ---- what the processes do


def train(folder, ranks):
    trainer = build(folder, ranks)
    trainer.train()
    epochs = [e["train"] for e in trainer.history["epochs"]]
    return described(trainer) | {"tokens": [round(e["tokens_per_second"] * e["epoch_time"], 6) for e in epochs]}


def disagree(folder, ranks):
    """What one rank sets otherwise ends all of them, in the same words, before any waits for another."""
    trainer = build(folder, ranks)
    config, loader = trainer.config, trainer.train_loader
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, num_epochs=4))
    short = [next(iter(loader))]
    others = {
        "config": ((longer, loader, loader), {}),
        "batches": ((config, short, loader), {}),
        "validation": ((config, loader), {}),
        "resume": ((config, loader, loader, "latest"), {}),
    }
    found = {}
    for name, (settings, more) in others.items():
        settings = settings if ranks.rank == 1 else (config, loader, loader)
        with pytest.raises(ValueError) as refused:
            DistributedTrainer(trainer.model, *settings, ranks=ranks, **more)
        found[name] = str(refused.value)
    with pytest.raises(ValueError, match="at least one batch, or None, but its length is 0"):
        DistributedTrainer(trainer.model, config, loader, [], ranks=ranks)
    DistributedTrainer(trainer.model, config, loader, loader if ranks.rank else [], ranks=ranks)  # which is enough
    return found


def evaluate_short_of_memory(folder, ranks):
    """Rank 1 cannot evaluate: both say so, and the step is saved before they end."""

    def loss_fn(model, batch):
        if not model.training and ranks.rank == 1:
            raise MemoryError("too many rows")
        return language_model_loss(model, batch)

    trainer = build(folder, ranks, loss_fn=loss_fn, out_of_memory="raise")
    error = MemoryError if ranks.rank == 1 else TrainingFailed
    with pytest.raises(error, match=r"2 of 2 rows did not fit into memory in the evaluation after step 3"):
        trainer.train()
    whole = build(Path(folder) / "whole", ranks)
    whole.train()
    trainer = build(folder, ranks, resume="latest", out_of_memory="raise")
    assert trainer.step == 3
    trainer.train()
    assert described(trainer) == described(whole)
    return described(trainer)


def stop_and_resume(folder, ranks):
    """Dropout draws other numbers on each rank: all of them must be found again."""
    whole = build(Path(folder) / "whole", ranks, dropout=0.3)
    whole.train()
    calls = 0

    def loss_fn(model, batch):
        nonlocal calls
        calls += model.training
        if model.training and calls == 7 and ranks.rank == 1:  # Ctrl-C reaches one rank alone, in step 4
            signal.raise_signal(signal.SIGINT)
        return language_model_loss(model, batch)

    with pytest.raises(tt.TrainingInterrupted, match="after step 4 of 9"):
        build(Path(folder) / "stopped", ranks, dropout=0.3, loss_fn=loss_fn).train()
    trainer = build(Path(folder) / "stopped", ranks, dropout=0.3, resume="latest")
    trainer.train()
    assert described(trainer) == described(whole)
    states = ranks.gather(tt.device.default_generator.get_state())
    assert states[0] != states[1]
    return described(trainer)


def fail_on_one(folder, ranks):
    """What goes wrong on rank 1 alone is overcome, or raised, by both."""
    calls = 0

    def loss_fn(model, batch):
        nonlocal calls
        calls += model.training
        loss, count = language_model_loss(model, batch)
        if model.training and ranks.rank == 1 and calls in (3, 9, 13):  # steps 2, 5 and 7
            loss = loss * math.nan
        return loss, count

    found = []
    for action in ("skip", "reload", "raise"):
        calls = 0
        trainer = build(Path(folder) / action, ranks, loss_fn=loss_fn, save_steps=1, not_finite=action)
        if action == "raise":
            error = TrainingFailed if ranks.rank == 0 else FloatingPointError
            with pytest.raises(error, match="The loss became nan at step 2"):
                trainer.train()
        else:
            trainer.train()
        found.append([(failure["step"], failure["action"]) for failure in trainer.history["failures"]])
        found.append(trainer.history["step"])
    return {"found": found}


def run_short_of_memory(folder, ranks):
    """Rank 1 holds a single row: it computes in pieces, and the sums stay those of all tokens."""

    def loss_fn(model, batch):
        if model.training and ranks.rank == 1 and len(batch["input_ids"]) > 1:
            raise MemoryError("too many rows")
        return language_model_loss(model, batch)

    trainer = build(folder, ranks, loss_fn=loss_fn)
    trainer.train()
    return described(trainer) | {"failures": [len(trainer.history["failures"])]}


TASKS = (train, disagree, evaluate_short_of_memory, stop_and_resume, fail_on_one, run_short_of_memory)
TASKS = {task.__name__: task for task in TASKS}


# ---- the tests


def launch(task, folder, n=2):
    """The results of a task on each of n ranks."""
    from running import run_ranks  # not above: as a program, this file does not find it

    finished = run_ranks(n, __file__, task, folder)
    assert finished.returncode == 0, finished.stderr
    assert "training" not in finished.stderr  # no bar without a terminal
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(n)]


def assert_same_training(found, expected, tolerance):
    for name in ("loss", "grad_norm", "lr", "eval_loss", "epochs"):
        assert_allclose(found["history"][name], expected["history"][name], rtol=tolerance, err_msg=name)
    for name, weights in expected["weights"].items():
        assert_allclose(found["weights"][name], weights, atol=tolerance, err_msg=name)


def test_two_ranks_train_as_one_with_the_joint_batches(tmp_path):
    first, second = launch("train", tmp_path / "two")
    assert first == second  # bit for bit
    expected = json.loads(json.dumps(train(tmp_path / "one", tt.distributed.connect({}))))
    assert len(expected["history"]["step"]) == 9
    assert_same_training(first, expected, 2e-5)
    assert_allclose(first["history"]["loss"][0], expected["history"]["loss"][0], rtol=1e-6)
    assert_allclose(first["history"]["grad_norm"][0], expected["history"]["grad_norm"][0], rtol=1e-6)
    assert tt.Checkpoints.validate(tmp_path / "two" / "run" / "final_checkpoint") == (True, [], 9, 3)


def test_the_tokens_of_an_epoch_are_those_of_all_ranks(tmp_path):
    real = sum(int(row["attention_mask"].sum()) for row in rows())
    for found in launch("train", tmp_path):
        assert found["tokens"] == [real] * 3


def test_ranks_that_do_not_train_alike_are_refused_on_all_of_them(tmp_path):
    first, second = launch("disagree", tmp_path)
    assert first == second
    says = "All ranks need to train alike, but on rank 1 "
    assert first["config"].startswith(f"{says}training.num_epochs is 4, and on rank 0 it is 3. Build configuration")
    assert first["batches"].startswith(f"{says}number of batches in a pass is 1, and on rank 0 it is 6.")
    assert first["validation"].startswith(f"{says}with a val_dataloader is False, and on rank 0 it is True.")
    assert first["resume"].startswith(f"{says}resume_from_checkpoint is 'latest', and on rank 0 it is None.")


def test_an_evaluation_that_fails_on_one_rank_fails_on_all_and_loses_no_step(tmp_path):
    first, second = launch("evaluate_short_of_memory", tmp_path)
    assert first == second


def test_a_rank_that_is_stopped_stops_all_and_all_go_on_bit_for_bit(tmp_path):
    first, second = launch("stop_and_resume", tmp_path)
    assert first == second


@pytest.mark.slow
def test_a_failure_of_one_rank_is_overcome_by_all(tmp_path):
    first, second = launch("fail_on_one", tmp_path)
    assert first == second
    skipped, after_skip, reloaded, after_reload, raised, after_raise = first["found"]
    assert skipped == [[2, "skip"], [5, "skip"], [7, "skip"]]
    assert after_skip == [1, 3, 4, 6, 8, 9]
    assert [action for _, action in reloaded] == ["reload"] * 3
    assert after_reload == list(range(1, 10))
    assert (raised, after_raise) == ([[2, "raise"]], [1])


@pytest.mark.slow
def test_a_rank_that_is_short_of_memory_computes_in_pieces(tmp_path):
    first, second = launch("run_short_of_memory", tmp_path / "two")
    assert (first.pop("failures"), second.pop("failures")) == ([0], [1])
    assert first["weights"] == second["weights"]
    expected = json.loads(json.dumps(train(tmp_path / "one", tt.distributed.connect({}))))
    assert_same_training(first, expected, 2e-5)


if __name__ == "__main__":
    task, folder = sys.argv[1:]
    here = tt.distributed.connect()
    result = TASKS[task](folder, here)
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / f"rank-{here.rank}.json").write_text(json.dumps(result))
