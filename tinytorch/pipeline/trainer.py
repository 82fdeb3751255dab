"""Training from a configuration: epochs, held-out loss, checkpoints, on one process or on many."""

import datetime
import hashlib
import json
import math
import time

import numpy as np

from .. import device as devices
from ..autograd import no_grad
from ..distributed import connect
from ..layers import evaluating
from ..training import CheckpointError, recompute_blocks
from .agreement import log_changes, require_agreement
from .failures import Failure, FailureKind, TrainingFailed
from .loss import language_model_loss
from .steps import StepTrainer, log

VERSION = 1  # of what a checkpoint holds besides what a Trainer puts there


class DistributedTrainer(StepTrainer):
    """Trains a language model as a Config says, on one process or on the many that mpiexec started.

    train_dataloader, val_dataloader: batches as `language_model_loss` describes them; with several ranks, those of this
    rank, as many on each. Where a sampler has `set_epoch`, it is called before each pass.
    resume_from_checkpoint: the folder of a checkpoint, or "latest" for the newest whole one of this run.
    ranks: from `distributed.connect`, by default. loss_fn(model, batch) gives (mean loss, weight).
    The default generator is seeded, differently on each rank, and all ranks get the weights of rank 0.
    Checkpoints are kept in `config.folder`, with links: latest_checkpoint, best_checkpoint, checkpoint_epoch_{n} where
    n epochs are completed, and final_checkpoint. The history has, besides a Trainer's, `epochs` and `failures`.
    Raises ValueError where the model is not config.model's, where a loader does not know its length or has none, and,
    on all ranks, where the ranks do not agree.
    """

    def __init__(
        self,
        model,
        config,
        train_dataloader,
        val_dataloader=None,
        resume_from_checkpoint=None,
        *,
        ranks=None,
        loss_fn=language_model_loss,
    ):
        if getattr(model, "config", config.model) != config.model:
            raise ValueError(f"DistributedTrainer needs a model of config.model, {config.model}, not {model.config}.")
        ranks, training = ranks or connect(), config.training
        require_agreement(ranks, config, train_dataloader, val_dataloader, resume_from_checkpoint)
        devices.manual_seed([config.seed, ranks.rank])
        for tensor in model.state_dict().values():
            ranks.broadcast(tensor.data)
        if training.gradient_checkpointing or any(getattr(part, "recompute", False) for part in model.modules()):
            recompute_blocks(model, training.gradient_checkpointing)
        steps = math.ceil(len(train_dataloader) / training.gradient_accumulation_steps) * training.num_epochs
        super().__init__(model, config, train_dataloader, val_dataloader, ranks, loss_fn, steps)
        self.history["epochs"] = []
        self._begin_epoch()
        if resume_from_checkpoint is not None:
            self.resume(None if resume_from_checkpoint == "latest" else resume_from_checkpoint)

    # ---- where training stands, in the usual words

    rank = property(lambda self: self.ranks.rank)
    local_rank = property(lambda self: self.ranks.local_rank)
    world_size = property(lambda self: self.ranks.world_size)
    is_distributed = property(lambda self: self.ranks.is_distributed)
    global_step = property(lambda self: self.step)

    @property
    def current_epoch(self):
        """How many epochs are completed."""
        return len(self.history["epochs"])

    @property
    def best_val_loss(self):
        """The lowest held-out loss so far; infinity before the first. One that is NaN is none."""
        return _lowest(self.history["eval_loss"])

    # ---- epoch by epoch

    def train(self):
        """Train all epochs of the configuration that are not completed yet, and keep checkpoints.

        Returns {"total_time": seconds, "final_metrics": {name: number}, "training_history": [a dict for each epoch]}.
        Raises what `fit` raises, and TrainingFailed for failures that are not overcome.
        """
        start, level = time.perf_counter(), log.level
        log.setLevel(self.config.log_level)
        try:
            self.fit(self.total_steps)
        finally:
            log.setLevel(level)
        epochs = self.history["epochs"]
        final = {"global_step": self.step, "epochs": self.current_epoch, "best_val_loss": self.best_val_loss}
        for part in ("train", "val") if epochs else ():
            final |= {f"{part}_{name}": value for name, value in (epochs[-1][part] or {}).items()}
        return {"total_time": time.perf_counter() - start, "final_metrics": final, "training_history": epochs}

    def evaluate(self, loader):
        """The mean loss over the loaders of all ranks, in evaluation mode and without gradients.

        What does not fit into memory is computed in pieces, as in training. An error on one rank is one on all.
        Raises ValueError without batches, and where the loader's length is not how many it gives.
        """
        sums, error = np.zeros(2), None
        try:
            sums += self._sums(loader)
        except Exception as caught:  # raised below, when no other rank waits for this one any more
            error = caught
        errors = self.ranks.gather(None if error is None else repr(error))
        if error is not None:
            raise error
        if any(errors):
            raise TrainingFailed(f"The evaluation failed on another rank: {next(filter(None, errors))}")
        total, weight = self.ranks.all_reduce(sums).tolist()
        if not weight:
            raise ValueError("evaluate needs at least one batch, but the loader gave none.")
        return total / weight

    def _sums(self, loader):
        """(sum of loss times weight, sum of weights) over the batches of this rank."""
        pairs, given = [], 0
        with evaluating(self.model), no_grad():
            for batch in loader:
                pairs += self._in_pieces(batch, self._measure)
                given += 1
        if hasattr(loader, "__len__") and len(loader) != given:
            raise ValueError(f"evaluate got {given} batches from a loader whose length is {len(loader)}.")
        return sum(loss * weight for loss, weight in pairs), sum(weight for _, weight in pairs)

    def _measure(self, batch):
        loss, weight = self._loss(batch)
        return loss.item(), weight

    def _train_step(self):
        """One step, made or given up, of batches of one epoch. Returns the loss of its last batch."""
        while True:
            start, before, result, tokens = time.perf_counter(), self.step, None, []
            if self._feed.taken == 0:
                self._set_epoch(self.current_epoch)
            while result is None or self._open is not None:
                batch = self._next_batch()
                result = self.train_step(batch, ends_epoch=self._feed.taken == len(self.train_loader))
                tokens.append(result["num_tokens"])
            self._epoch["seconds"] += time.perf_counter() - start
            if self.step > before:  # otherwise it went back to a checkpoint
                self._epoch["tokens"] += sum(tokens)
                self._epoch["batches"] += len(tokens)
                return result["loss"]

    def _next_batch(self):
        """The next batch. Raises ValueError where a pass is not as long as the loader says: that counts the steps."""
        before, length = self._feed.taken, len(self.train_loader)
        batch = next(self._feed)
        if self._feed.taken != before + 1:
            raise ValueError(f"The train_dataloader has the length {length}, but gave {before} batches in a pass.")
        if self._feed.taken == length and any(True for _ in self._feed.passing):
            raise ValueError(f"The train_dataloader has the length {length}, but gave {length + 1} batches or more.")
        return batch

    def _set_epoch(self, epoch):
        """Tell the sampler, on every rank, which pass comes next."""
        for place in (self.train_loader, *(getattr(self.train_loader, n, None) for n in ("batch_sampler", "sampler"))):
            if hasattr(place, "set_epoch"):
                place.set_epoch(epoch)

    def _begin_epoch(self):
        self._epoch = {"loss": 0.0, "weight": 0.0, "tokens": 0, "batches": 0, "seconds": 0.0}

    def _count(self, loss, weight):
        self._epoch["loss"] += loss * weight
        self._epoch["weight"] += weight

    def _after_step(self, last):
        ended = self._feed.taken == len(self.train_loader)
        super()._after_step(last or ended)
        if ended:
            self._feed._begin()  # be between two passes
            self._note(epochs=self._describe_epoch())
            self._begin_epoch()

    def _describe_epoch(self):
        """What the history says of the epoch that just ended; tokens a second are those of all ranks."""
        epoch = self._epoch
        tokens = self.ranks.all_reduce(np.array([epoch["tokens"]], np.int64)).item()
        train = {
            "loss": epoch["loss"] / epoch["weight"] if epoch["weight"] else math.nan,
            "tokens_per_second": tokens / epoch["seconds"],
            "epoch_time": epoch["seconds"],
            "num_batches": epoch["batches"],
        }
        val = None
        if self.eval_loader is not None:
            *earlier, loss = self.history["eval_loss"]
            val = {
                "loss": loss,
                "perplexity": math.inf if loss > 700 else math.exp(loss),
                "num_batches": len(self.eval_loader),
                "is_best": loss < _lowest(earlier),
            }
        return {"epoch": self.current_epoch + 1, "train": train, "val": val, "global_step": self.step}

    # ---- stopping and going on

    def _is_stopped(self, interrupted):
        return self.ranks.all_reduce(np.array([interrupted.is_set()], np.int64)).item() > 0

    def _is_saving_due(self):
        return super()._is_saving_due() or self._feed.taken == 0  # between two epochs

    def save(self):
        """Write a checkpoint of this very moment: rank 0 does, and the others wait for it."""
        if self._open is not None:
            raise RuntimeError("A checkpoint needs a step that is finished: call save() after optimizer_step is true.")
        arrays, state = self._snapshot()
        names = [f"checkpoint_epoch_{self.current_epoch}"] if self._feed.taken == 0 and self.current_epoch else []
        names += ["final_checkpoint"] if self.step == self.total_steps else []
        if self.is_main:
            self.checkpoints.save(self.step, arrays, state, self._score(), names)
        self.ranks.barrier()

    def _snapshot(self):
        arrays, state = super()._snapshot()
        own = {name: state[name] for name in ("feed", "generators")} | {"rows": self._rows}
        shapes = [(name, list(array.shape)) for name, array in sorted(arrays.items()) if name.startswith("model.")]
        metadata = {
            "version": VERSION,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "size_in_bytes": sum(array.nbytes for array in arrays.values()),
            "learning_rate": self.schedule.get_last_lr()[0],
            "config": self.config.to_dict(),
            "architecture_sha256": hashlib.sha256(json.dumps(shapes).encode()).hexdigest(),
        }
        progress = {"running": self._epoch, "scaler": self.scaler.state_dict()}
        more = {"epoch": self.current_epoch, "progress": progress, "ranks": self.ranks.gather(own)}
        return arrays, {**state, **more, "metadata": metadata}

    def _kinds(self):
        weights = {str(tensor.dtype) for tensor in self.model.state_dict().values()}
        return {
            "number of ranks": self.ranks.world_size,
            **{f"model.{name}": value for name, value in self.config.to_dict()["model"].items()},
            "type of weights": ", ".join(sorted(weights)),
            **super()._kinds(),
            "learning rate": self.config.training.learning_rate,
            "weight decay": self.config.training.weight_decay,
            "number of batches in a step": self.accumulate,
            "type of numbers in products": self.config.training.compute_dtype,
        }

    def resume(self, folder=None):
        """Go back to a checkpoint, as Trainer.resume; of several ranks, each finds its own place again.

        Where the newest is damaged, corrupt_checkpoint says whether the newest whole one takes its place.
        """
        damaged = [] if folder is not None else self._damaged_behind_the_latest()
        if damaged and self.config.training.failures.corrupt_checkpoint == "raise":
            raise CheckpointError(f"{' '.join(damaged)} corrupt_checkpoint='reload' would go on from an older one.")
        step = super().resume(self.checkpoints.latest() if damaged else folder)
        if damaged:
            message = " ".join(damaged)
            self._remember(Failure(FailureKind.CORRUPT_CHECKPOINT, message, CheckpointError(message)), "reload")
        self._open = None
        return step

    def _damaged_behind_the_latest(self):
        """What is wrong with the checkpoints that are newer than the newest whole one."""
        latest = self.checkpoints.latest()
        newer = [folder for folder in self.checkpoints.list() if latest is None or folder > latest]
        return [error for folder in newer for error in self.checkpoints.validate(folder).errors]

    def _load_weights(self, folder):
        optimizer, state = super()._load_weights(folder)
        if self.is_main:
            log_changes(state["metadata"]["config"], self.config)
        own, progress = state["ranks"][self.ranks.rank], state["progress"]
        self._epoch, self._rows = progress["running"], own["rows"]
        self._lowest = min(state["history"]["loss"], default=math.inf)
        self.scaler = self._new_scaler()  # one that knows nothing of gradients that were given up
        self.scaler.load_state_dict(progress["scaler"])
        self._set_epoch(state["epoch"])  # before the feed finds its place in the pass
        return optimizer, {**state, **own}


def _lowest(losses):
    return min((loss for loss in losses if not math.isnan(loss)), default=math.inf)
