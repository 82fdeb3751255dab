"""Module 20: a trainer from a configuration: its steps, its epochs, what it returns and what it keeps."""

import contextlib
import dataclasses
import json
import logging
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tinytorch as tt
from tinytorch.pipeline import DistributedTrainer
from tinytorch.pipeline.optimization import build_schedule, parameter_groups

ROWS, BATCHES, STEPS = 18, 5, 3  # of an epoch: 5 batches, in steps of 2, 2 and 1


def weights_of(trainer):
    return {name: tensor.data.copy() for name, tensor in trainer.model.state_dict().items()}


# ---- the whole


def test_training_returns_what_the_interface_promises(build):
    result = build().train()
    assert set(result) == {"total_time", "final_metrics", "training_history"}
    assert result["total_time"] > 0
    assert [entry["epoch"] for entry in result["training_history"]] == [1, 2, 3]
    assert [entry["global_step"] for entry in result["training_history"]] == [STEPS, 2 * STEPS, 3 * STEPS]
    for entry in result["training_history"]:
        assert set(entry) == {"epoch", "train", "val", "global_step"}
        assert set(entry["train"]) == {"loss", "tokens_per_second", "epoch_time", "num_batches"}
        assert set(entry["val"]) == {"loss", "perplexity", "num_batches", "is_best"}
        assert entry["train"]["num_batches"] == entry["val"]["num_batches"] == BATCHES
        assert entry["train"]["tokens_per_second"] > 0
        assert_allclose(entry["val"]["perplexity"], math.exp(entry["val"]["loss"]))
    last = result["training_history"][-1]
    assert result["final_metrics"]["train_loss"] == last["train"]["loss"]
    assert result["final_metrics"]["val_perplexity"] == last["val"]["perplexity"]
    assert result["final_metrics"].items() >= {"global_step": 3 * STEPS, "epochs": 3}.items()


def test_it_learns_to_count(build):
    trainer = build(num_epochs=12, learning_rate=5e-2)
    history = trainer.train()["training_history"]
    assert history[0]["val"]["loss"] > 2  # log 11 is 2.4
    assert history[-1]["val"]["loss"] < 0.3
    assert trainer.best_val_loss == min(entry["val"]["loss"] for entry in history)


def test_is_best_says_whether_no_evaluation_before_was_as_good(build):
    trainer = build(num_epochs=8, learning_rate=0.8, eval_steps=2)
    history = trainer.train()["training_history"]
    steps, losses = trainer.history["eval_step"], trainer.history["eval_loss"]
    expected = [losses[i] < min(losses[:i], default=math.inf) for i, step in enumerate(steps) if step % STEPS == 0]
    assert [entry["val"]["is_best"] for entry in history] == expected
    assert set(expected) == {True, False}  # the rate is so high that both come


def test_steps_of_an_epoch_do_not_reach_into_the_next(build):
    seen = []

    def loss_fn(model, batch):
        if model.training:
            seen.append(len(batch["input_ids"]))
        return tt.cross_entropy(model(batch["input_ids"]).flatten(0, 1), batch["input_ids"].flatten()), 1

    trainer = build(loss_fn=loss_fn, num_epochs=2)
    assert trainer.total_steps == 2 * STEPS
    trainer.train()
    assert seen == [4, 4, 4, 4, 2] * 2
    assert trainer.history["step"] == [1, 2, 3, 4, 5, 6]


def test_an_evaluation_that_is_nan_is_never_the_best(build):
    evaluations = []

    def loss_fn(model, batch):
        loss, count = tt.pipeline.language_model_loss(model, batch)
        if not model.training:
            evaluations.append(1)
            loss = loss * (math.nan if len(evaluations) <= BATCHES else 1.0)
        return loss, count

    trainer = build(loss_fn=loss_fn)
    history = trainer.train()["training_history"]
    losses = [entry["val"]["loss"] for entry in history]
    assert math.isnan(losses[0]) and losses[1] > losses[2]
    assert [entry["val"]["is_best"] for entry in history] == [False, True, True]
    assert trainer.best_val_loss == losses[2]
    assert build("fresh").best_val_loss == math.inf


def test_without_a_validation_set_there_is_no_validation(build):
    result = build(evaluate=False).train()
    assert [entry["val"] for entry in result["training_history"]] == [None] * 3
    assert result["final_metrics"]["best_val_loss"] == math.inf


def test_the_loss_of_an_epoch_is_the_mean_over_its_tokens(build):
    seen = []

    def loss_fn(model, batch):
        loss, count = tt.pipeline.language_model_loss(model, batch)
        if model.training:
            seen.append((loss.item(), count))
        return loss, count

    entry = build(loss_fn=loss_fn, num_epochs=1).train()["training_history"][0]
    losses, counts = np.array(seen).T
    assert len(set(counts)) > 1
    assert_allclose(entry["train"]["loss"], np.average(losses, weights=counts), rtol=1e-12)


def test_alone_it_is_rank_0_of_1(build):
    trainer = build()
    assert (trainer.rank, trainer.local_rank, trainer.world_size, trainer.is_distributed) == (0, 0, 1, False)
    assert (trainer.current_epoch, trainer.global_step, trainer.best_val_loss) == (0, 0, math.inf)


# ---- a step


def test_a_step_is_that_of_a_plain_loop_over_the_joint_batch(build):
    """Accumulated over batches of unequal numbers of tokens, clipped, with AdamW written out in NumPy."""
    trainer = build(max_grad_norm=0.1, weight_decay=0.3, warmup_steps=1, shuffle=False)
    first, second, *_ = list(trainer.train_loader)
    joint = {name: tt.cat([first[name], second[name]]) for name in first}
    model = tt.GPT(trainer.config.model, generator=tt.Generator(0))
    loss, _ = tt.pipeline.language_model_loss(model, joint)
    loss.backward()
    norm = math.sqrt(sum((p.grad.data**2).sum() for p in model.parameters()))
    assert norm > 0.1
    lr = 1e-2 / 2  # the first of one step of warm-up
    expected = {}
    for name, p in model.named_parameters():
        g = p.grad.data.astype(np.float64) * 0.1 / norm
        decayed = p.data * (1 - lr * 0.3) if p.ndim > 1 else p.data
        expected[name] = decayed - lr * g / (np.abs(g) + 1e-8)  # the first step of Adam: both means are those of g
    results = [trainer.train_step(first), trainer.train_step(second)]
    assert_allclose(results[1]["grad_norm"], norm, rtol=1e-4)
    for name, array in weights_of(trainer).items():
        assert_allclose(array, expected[name], atol=2e-6)
    assert trainer.history["loss"] == [pytest.approx(loss.item(), rel=1e-5)]


def test_parameters_that_the_optimizer_does_not_change_begin_each_step_without_gradient(build):
    """Their gradient is that of the last step alone, as that of a trainer that made no other."""
    trainer, once = build("a", shuffle=False), build("b", shuffle=False)
    for each in (trainer, once):
        each.optimizer.param_groups = [
            {**group, "params": [p for p in group["params"] if p is not each.model.wpe.weight]}
            for group in each.optimizer.param_groups
        ]
    batch = next(iter(trainer.train_loader))
    trainer.train_step(batch), trainer.train_step(batch)
    once.model.load_state_dict(trainer.model.state_dict())
    for each in (trainer, once):
        each.train_step(batch), each.train_step(batch)
    assert_allclose(trainer.model.wpe.weight.grad.data, once.model.wpe.weight.grad.data, rtol=1e-5)
    assert np.abs(once.model.wpe.weight.grad.data).max() > 0


def test_train_step_says_what_it_did(build):
    trainer = build(shuffle=False)
    batch = next(iter(trainer.train_loader))
    real = int(batch["attention_mask"].sum().item())
    first, second = trainer.train_step(batch), trainer.train_step(batch)
    keys = {"loss", "learning_rate", "grad_norm", "optimizer_step", "num_tokens", "global_step"}
    assert set(first) == set(second) == keys
    assert (first["optimizer_step"], first["global_step"], first["grad_norm"]) == (False, 0, None)
    assert (second["optimizer_step"], second["global_step"]) == (True, 1)
    assert second["grad_norm"] > 0
    assert first["num_tokens"] == real < batch["input_ids"].numel()
    assert first["loss"] == second["loss"]  # nothing has moved between them
    assert trainer.train_step(batch)["loss"] < first["loss"]


def test_a_checkpoint_between_the_batches_of_a_step_is_refused(build):
    trainer = build()
    trainer.train_step(next(iter(trainer.train_loader)))
    with pytest.raises(RuntimeError, match=r"needs a step that is finished: call save\(\) after optimizer_step"):
        trainer.save()


# ---- optimizer and schedule


class Named(tt.Module):
    no_decay = ("A_log", "inner.weight")

    def __init__(self):
        self.inner = tt.Linear(2, 2)
        self.outer = tt.Linear(2, 2)
        self.norm = tt.LayerNorm(2)
        self.A_log = tt.Parameter(tt.ones(2, 2))
        self.BA_log = tt.Parameter(tt.ones(2, 2))


def test_weight_decay_spares_biases_norms_and_what_the_model_names():
    model = Named()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decaying, spared = (
        {names[p] for p in group["params"]}
        for group in sorted(parameter_groups(model, 0.1), key=lambda g: -g["weight_decay"])
    )
    assert decaying == {"outer.weight", "BA_log"}
    assert spared == {"inner.weight", "inner.bias", "outer.bias", "norm.weight", "norm.bias", "A_log"}


def test_frozen_parameters_are_left_out():
    model = Named()
    model.outer.requires_grad_(False)
    grouped = {p for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert grouped == set(model.parameters()) - set(model.outer.parameters())


def test_the_optimizer_is_as_documented(build):
    optimizer = build(weight_decay=0.2, learning_rate=5e-3).optimizer
    assert isinstance(optimizer, tt.AdamW)
    assert [(g["betas"], g["eps"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ((0.9, 0.95), 1e-8, 0.2),
        ((0.9, 0.95), 1e-8, 0.0),
    ]


@pytest.mark.parametrize(
    ("asked", "total", "warmup"), [(1000, 130, 13), (5, 130, 5), (0, 130, 1), (9, 4, 1), (9, 1, 1)]
)
def test_a_warm_up_that_is_too_long_is_cut_to_a_tenth(asked, total, warmup, build):
    training = dataclasses.replace(build().config.training, warmup_steps=asked, learning_rate=1.0, min_lr_ratio=0.1)
    optimizer = tt.SGD([tt.Parameter(tt.ones(1))], lr=1.0)
    schedule = build_schedule(optimizer, training, total)
    rates = [schedule.lr_at(step, 1.0) for step in range(total + 1)]
    rising = [(step + 1) / (warmup + 1) for step in range(warmup)]
    length = max(total, warmup + 1) - warmup
    falling = [0.55 + 0.45 * math.cos(math.pi * (step - warmup) / length) for step in range(warmup, total + 1)]
    assert_allclose(rates, (rising + falling)[: total + 1], atol=1e-12)


def test_the_rate_reaches_its_top_and_stays_at_its_end(build):
    trainer = build(num_epochs=10, min_lr_ratio=0.1)
    rates = trainer.fit(trainer.total_steps)["lr"]
    assert_allclose(max(rates), 1e-2, rtol=1e-12)
    assert_allclose(trainer.optimizer.param_groups[0]["lr"], 1e-3)
    trainer.fit(trainer.total_steps + 4)
    assert_allclose(trainer.history["lr"][-4:], 1e-3)


# ---- precision and memory


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_well_with_other_numbers(precision, build):
    exact = build("exact", num_epochs=5).train()["final_metrics"]["val_loss"]
    trainer = build("mixed", num_epochs=5, use_mixed_precision=True, precision=precision)
    mixed = trainer.train()["final_metrics"]["val_loss"]
    assert mixed != exact
    assert_allclose(mixed, exact, atol=0.05)
    assert trainer.scaler.is_enabled() == (precision == "float16")
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {np.dtype(np.float32)}


def test_a_scale_that_overflows_skips_the_step_and_the_schedule_and_shrinks(build):
    trainer = build(use_mixed_precision=True, precision="float16", shuffle=False)
    trainer.scaler = tt.GradScaler(init_scale=2.0**40)
    before, batches = weights_of(trainer), list(trainer.train_loader)
    rate = trainer.optimizer.param_groups[0]["lr"]
    result = [trainer.train_step(batch) for batch in batches[:2]][-1]
    assert (result["optimizer_step"], result["global_step"]) == (False, 1)
    assert trainer.scaler.get_scale() == 2.0**39
    assert all((array == before[name]).all() for name, array in weights_of(trainer).items())
    assert trainer.optimizer.param_groups[0]["lr"] == rate
    assert trainer.history["failures"] == trainer.history["step"] == []
    while not result["optimizer_step"]:
        result = [trainer.train_step(batch) for batch in batches[:2]][-1]
    assert math.isfinite(result["grad_norm"])
    assert trainer.scaler.get_scale() < 2.0**39


def test_gradient_checkpointing_changes_no_bit(build):
    plain, saving = build("plain", dropout=0.1), build("saving", dropout=0.1, gradient_checkpointing=True)
    assert all(block.recompute for block in saving.model.h)
    for trainer in (plain, saving):
        tt.manual_seed(1)
        trainer.fit(4)
    assert [saving.history[name] for name in ("loss", "grad_norm")] == [
        plain.history[name] for name in ("loss", "grad_norm")
    ]
    assert all((array == weights_of(plain)[name]).all() for name, array in weights_of(saving).items())


# ---- samplers


class Epochs(tt.Sampler):
    """Keeps which epochs it was told, and in which it was read."""

    def __init__(self):
        self.told, self.read = [], []

    def __len__(self):
        return ROWS

    def __iter__(self):
        self.read.append(self.told[-1])
        return iter(np.random.default_rng(self.told[-1]).permutation(ROWS).tolist())

    def set_epoch(self, epoch):
        self.told.append(epoch)


@pytest.mark.parametrize("place", ["sampler", "batch_sampler"])
def test_the_sampler_is_told_each_epoch_before_it_is_read(place, build):
    sampler, data = Epochs(), build().train_loader.dataset
    if place == "sampler":
        loader = tt.DataLoader(data, batch_size=4, sampler=sampler)
    else:
        batches = tt.BatchSampler(sampler, 4)
        batches.set_epoch = sampler.set_epoch
        loader = tt.DataLoader(data, batch_sampler=batches)
    build("b", loader=loader).train()
    assert sampler.read == [0, 1, 2]


# ---- what is kept


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.is_symlink())


def test_checkpoints_and_their_links(build):
    trainer = build(num_epochs=4, save_steps=4, max_checkpoints=3)
    trainer.train()
    folder, last = trainer.config.folder, f"step-{4 * STEPS:08d}"
    links = {path.name: path.resolve().name for path in folder.iterdir() if path.is_symlink()}
    best = trainer.checkpoints.best().name
    assert (
        links.items()
        >= {
            "latest_checkpoint": last,
            "final_checkpoint": last,
            "checkpoint_epoch_4": last,
            "best_checkpoint": best,
        }.items()
    )
    assert all((folder / name).exists() for name in links)
    assert names_in(folder) == sorted({"step-00000008", "step-00000009", last, best})


def test_a_checkpoint_describes_itself(build):
    trainer = build(num_epochs=2)
    trainer.train()
    arrays, state = trainer.checkpoints.load()
    assert state["epoch"] == 2
    assert trainer.checkpoints.validate(trainer.config.folder / "latest_checkpoint") == (True, [], 2 * STEPS, 2)
    known = state["metadata"]
    assert known["version"] == 1
    assert known["size_in_bytes"] == sum(array.nbytes for array in arrays.values())
    assert known["learning_rate"] == trainer.optimizer.param_groups[0]["lr"]
    assert tt.pipeline.Config.from_dict(known["config"]) == trainer.config
    assert known["created_at"].endswith("+00:00")


def test_the_hash_of_the_architecture_is_that_of_names_and_shapes(build):
    def hash_of(name, **settings):
        trainer = build(name, num_epochs=1, **settings)
        trainer.train()
        return trainer.checkpoints.load()[1]["metadata"]["architecture_sha256"]

    assert hash_of("a") == hash_of("b", learning_rate=0.5)
    assert len(hash_of("a")) == 64
    assert hash_of("a") != hash_of("wider", model={"n_embd": 16})


def test_checkpoints_are_of_the_weights_at_that_moment(build):
    trainer = build(num_epochs=1)
    trainer.train()
    saved = weights_of(trainer)
    for parameter in trainer.model.parameters():
        parameter.data += 1
    arrays, _ = trainer.checkpoints.load()
    assert all((arrays[f"model.{name}"] == array).all() for name, array in saved.items())


def test_a_history_of_training_is_json(build):
    trainer = build(num_epochs=1)
    trainer.train()
    assert json.loads(json.dumps(trainer.history)) == trainer.history


# ---- what cannot be


def test_a_model_of_another_configuration_is_refused(build):
    trainer = build()
    other = tt.GPT(dataclasses.replace(trainer.config.model, n_embd=16))
    with pytest.raises(ValueError, match=r"needs a model of config\.model, GPTConfig\(.*n_embd=8.* not .*n_embd=16"):
        DistributedTrainer(other, trainer.config, trainer.train_loader)


def test_a_loader_without_a_length_is_refused(build):
    trainer = build()
    with pytest.raises(ValueError, match=r"train_dataloader that knows how many batches a pass has"):
        DistributedTrainer(trainer.model, trainer.config, iter([]))


class Batches:
    """A loader that says another number of batches than it gives."""

    def __init__(self, batches, length):
        self.batches, self.length = list(batches), length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("empty", [[], Batches([], 0)], ids=["list", "loader"])
def test_loaders_without_batches_are_refused_before_anything_is_trained(empty, build):
    trainer = build()
    with pytest.raises(ValueError, match=r"train_dataloader with at least one batch, but its length is 0"):
        DistributedTrainer(trainer.model, trainer.config, empty)
    with pytest.raises(ValueError, match=r"val_dataloader with at least one batch, or None, but its length is 0"):
        DistributedTrainer(trainer.model, trainer.config, trainer.train_loader, empty)
    with pytest.raises(ValueError, match=r"val_dataloader that knows how many batches"):
        DistributedTrainer(trainer.model, trainer.config, trainer.train_loader, iter(trainer.train_loader))


@pytest.mark.parametrize(("length", "given"), [(7, "5 batches in a pass"), (3, "4 batches or more")])
def test_a_pass_of_another_length_than_its_loader_says_is_refused(length, given, build):
    loader = Batches(build().train_loader, length)
    with pytest.raises(ValueError, match=rf"train_dataloader has the length {length}, but gave {given}"):
        build(loader=loader).train()
    trainer = build("b", held_out=loader)
    with pytest.raises(ValueError, match=rf"evaluate got 5 batches from a loader whose length is {length}"):
        trainer.train()


def test_evaluating_nothing_is_refused(build):
    with pytest.raises(ValueError, match=r"at least one batch, but the loader gave none"):
        build().evaluate([])


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_level_of_the_log_is_that_of_the_configuration_while_it_trains(error, build):
    log, seen = logging.getLogger("tinytorch"), []
    log.setLevel(logging.ERROR)

    def loss_fn(model, batch):
        seen.append(log.level)
        if error is not None:
            raise error("no more")
        return tt.pipeline.language_model_loss(model, batch)

    trainer = build(loss_fn=loss_fn)
    try:
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            trainer.train()
        assert set(seen) == {logging.INFO}
        assert log.level == logging.ERROR
    finally:
        log.setLevel(logging.NOTSET)
