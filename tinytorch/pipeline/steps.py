"""One step of training: batches that add up, on one rank or many, and what is done when something goes wrong."""

import dataclasses
import logging
import math

import numpy as np

from ..distributed import all_reduce_gradients
from ..optimizers import clip_grad_norm_
from ..precision import GradScaler, autocast
from ..training import Checkpoints, Trainer
from .failures import Failure, FailureKind, Recoveries, TrainingFailed, find_failure
from .loss import count_tokens, split_rows
from .optimization import build_optimizer, build_schedule

log = logging.getLogger("tinytorch")


@dataclasses.dataclass
class _Open:
    """What the batches of a step that is not finished have added up to, on this rank."""

    loss: float = 0.0  # times weight
    weight: float = 0.0
    batches: int = 0
    failure: Failure | None = None


class StepTrainer(Trainer):
    """A Trainer that a Config sets up, whose step is made by all ranks together, in mixed precision, or is recovered.

    total_steps: how many there will be. The history also has `failures`: what went wrong and what was done about it.
    A step that was given up counts: `step` says how far the data is used up.
    """

    def __init__(self, model, config, train_loader, val_loader, ranks, loss_fn, total_steps):
        training = config.training
        optimizer = build_optimizer(model, training)
        super().__init__(
            model,
            optimizer,
            train_loader,
            loss_fn,
            schedule=build_schedule(optimizer, training, total_steps),
            accumulate=training.gradient_accumulation_steps,
            clip_norm=training.max_grad_norm,
            eval_loader=val_loader,
            eval_every=None if val_loader is None else training.eval_steps,
            checkpoints=Checkpoints(config.folder, training.max_checkpoints, links=True),
            checkpoint_every=training.save_steps,
        )
        self.config, self.ranks, self.total_steps = config, ranks, total_steps
        self.is_main = ranks.rank == 0
        self.history["failures"] = []
        self.scaler = self._new_scaler()
        self._recoveries = Recoveries(training.failures.max_recoveries)
        self._open, self._rows, self._lowest = None, None, math.inf
        self._unit = training.batch_size * self.accumulate * config.data.max_seq_length  # tokens of a full step

    def _new_scaler(self):
        return GradScaler(enabled=self.config.training.compute_dtype == "float16")

    # ---- batch by batch

    def train_step(self, batch, ends_epoch=False):
        """Learn from one batch; with every `accumulate`-th one, or one that `ends_epoch`, the optimizer makes its step.

        Returns a dict: loss (of this batch, on this rank; NaN where it failed), learning_rate, grad_norm (None before
        the step is due), optimizer_step (whether it was made), num_tokens (real tokens of this batch) and global_step.
        """
        if self._open is None:
            self.model.train()
            self.model.zero_grad()  # also parameters that this optimizer does not change
            self.optimizer.zero_grad()
            self._open = _Open()
        rate = self.optimizer.param_groups[0]["lr"]  # this step's: the schedule is about to change it
        tokens = count_tokens(batch)
        try:
            loss = self._learn(batch)
        except BaseException:
            self._open = None  # what was added up is torn: no later step may build on it
            raise
        self._open.batches += 1
        made, norm = False, None
        if self._open.batches == self.accumulate or ends_epoch:
            made, norm = self._finish(rate)
        return {
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "optimizer_step": made,
            "num_tokens": tokens,
            "global_step": self.step,
        }

    def _loss(self, batch):
        with autocast(self.config.training.compute_dtype):
            return super()._loss(batch)

    def _learn(self, batch):
        """Add the gradient of a batch, times its weight, to that of the step. Returns its mean loss, NaN if it fails.

        What does not fit into memory is computed in pieces, whose gradients add up to the same.
        """
        if self._open.failure is not None:
            return math.nan  # the step is given up, and with it the batches that were to be a part of it
        before = [(parameter, parameter.grad) for parameter in self.model.parameters()]

        def undo():
            for parameter, grad in before:
                parameter.grad = grad

        try:
            pairs = self._in_pieces(batch, self._learn_piece, undo)
        except FloatingPointError as error:
            self._open.failure = Failure(FailureKind.NOT_FINITE, str(error), error)
            return math.nan
        except MemoryError as error:
            self._open.failure = Failure(FailureKind.OUT_OF_MEMORY, str(error), error)
            return math.nan
        total, weight = sum(loss * weight for loss, weight in pairs), sum(weight for _, weight in pairs)
        self._open.loss, self._open.weight = self._open.loss + total, self._open.weight + weight
        return total / weight

    def _in_pieces(self, batch, compute, undo=lambda: None):
        """[compute(piece), ...] of a batch, and of smaller pieces where memory does not hold these, after `undo()`.

        Raises MemoryError where that is not configured, and where a single row does not fit.
        """
        while True:
            try:
                return [compute(piece) for piece in split_rows(batch, self._rows)]
            except MemoryError as error:
                reason = str(error)  # alone: the error itself holds on to all that was computed before it
            undo()
            self._halve_rows(len(batch["input_ids"]), reason)

    def _learn_piece(self, batch):
        """(mean loss, weight) of a batch whose gradient is added in units of a step, so that float16 can hold it."""
        quiet = {"over": "ignore", "invalid": "ignore"} if self.scaler.is_enabled() else {}
        with np.errstate(**quiet):  # the scaler finds out by overflowing how large a scale may be
            loss, weight = self._loss(batch)
            self._require_finite("loss", loss.item())
            self.scaler.scale(loss).backward(np.full_like(loss.data, weight / self._unit))
        return loss.item(), weight

    # ---- the step itself

    def _finish(self, rate):
        """Make the step that its batches have prepared, or do about it what is configured. Returns (made, norm)."""
        finished, self._open = self._open, None
        loss, weight, failure = self._agree(finished)
        norm = None
        if failure is None:
            norm = self._gather_gradient(finished)
            failure = self._find_failure(loss, norm)
            if failure is not None and self._action(failure) != "clip":
                self.scaler.update()  # it knows these gradients, and no step will be made with them
        if failure is not None and not self._overcome(failure):
            return False, norm
        made = self._move()
        self.scaler.update()
        self.step += 1
        if made:
            if self.schedule.last_epoch < self.total_steps:
                self.schedule.step()
            self._lowest = min(self._lowest, loss)
            self._recoveries.succeed(self.step)
            self._note(step=self.step, loss=loss, lr=rate, grad_norm=norm)
            self._count(loss, weight)
        return made, norm

    def _move(self):
        """Let the optimizer make its step. Returns whether it did; a float16 gradient that overflowed is left out."""
        try:
            return self.scaler.step(self.optimizer)
        except MemoryError as error:
            raise MemoryError(
                f"The optimizer found no memory for step {self.step + 1} ({error}), and the weights may have moved in "
                f"part. {self._how_to_resume()} AdamW keeps two numbers for each weight: it needs a smaller model, or "
                "a machine with more memory."
            ) from error

    def _count(self, loss, weight):
        """Take note of the loss of a step that was made, the mean over what its weight counts."""

    def _agree(self, finished):
        """(mean loss, weight, Failure or None) of a step over all ranks: what one of them failed at, all failed at."""
        own, kinds = finished.failure, list(FailureKind)
        mine = [finished.loss, finished.weight, *(own is not None and own.kind == kind for kind in kinds)]
        loss, weight, *failed = self.ranks.all_reduce(np.array(mine, np.float64)).tolist()
        if not any(failed):
            return loss / weight, weight, None
        kind = next(kind for kind, count in zip(kinds, failed) if count)  # the same on all ranks
        own = own if own is not None and own.kind == kind else None
        messages = self.ranks.gather(own and own.message)
        if own is None:
            message = f"On another rank: {next(filter(None, messages))}"
            own = Failure(kind, message, TrainingFailed(message))
        return math.nan, weight, own

    def _gather_gradient(self, finished):
        """Give every parameter the mean gradient of all ranks, clipped. Returns its length before."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        weight = finished.weight / self._unit
        if self.ranks.is_distributed:
            all_reduce_gradients(parameters, weight, self.ranks)
        else:
            for parameter in self._parameters_with_gradients():
                parameter.grad.data /= weight
        self.scaler.unscale_(self.optimizer)
        return clip_grad_norm_(parameters, self.clip_norm).item()

    # ---- what goes wrong

    def _find_failure(self, loss, norm):
        """The Failure that a step shows when its gradient is known, or None."""
        if self.scaler.get_scale() > 1 and not math.isfinite(norm):
            return None  # the scale was too large: the scaler leaves the step out, and lowers it
        try:
            self._require_finite("gradient", norm)
        except FloatingPointError as error:
            return Failure(FailureKind.NOT_FINITE, str(error), error)
        return find_failure(loss, norm, self._lowest, self.config.training.failures)

    def _halve_rows(self, rows, reason):
        """After a MemoryError with a batch of so many rows: take smaller pieces, or raise it, with what was tried."""
        tried, training = min(rows, self._rows or rows), self.model.training
        when = f"at step {self.step + 1}" if training else f"in the evaluation after step {self.step}"
        message = f"{tried} of {rows} rows did not fit into memory {when} ({reason})."
        failure = Failure(FailureKind.OUT_OF_MEMORY, message, MemoryError(message))
        if self._action(failure) != "halve_batch" or tried == 1:
            raise failure.error
        self._rows = math.ceil(tried / 2)
        self._remember(failure, "halve_batch", self.step + training)

    def _require_finite(self, what, value):
        """As a Trainer's, but what to do is said only where the failure is not overcome."""
        if not math.isfinite(value):
            raise FloatingPointError(self._explain(what, value))

    def _action(self, failure):
        """What is configured to be done about a failure of this kind."""
        return getattr(self.config.training.failures, failure.kind)

    def _overcome(self, failure):
        """Do what is configured about a failure. Returns whether the step is to be made all the same.

        Raises the failure's error for "raise" and where nothing is left to halve, TrainingFailed for one too many.
        """
        action = self._action(failure)
        action = "raise" if action == "halve_batch" else action  # nothing is left to halve
        self._remember(failure, action)
        if action == "raise":
            raise type(failure.error)(f"{failure.message} {self._how_to_resume()}") from failure.error
        if action == "clip":
            return True
        self._recoveries.give_up(self.step + 1, failure, action, self._how_to_resume())
        if action == "reload":
            self._go_back(failure)
        else:
            self.step += 1  # its batches are used up
            if action == "halve_lr":
                self._set_rates([rate / 2 for rate in self.schedule.base_lrs])
        return False

    def _go_back(self, failure):
        """Go on from the newest whole checkpoint, at half the rate. Raises TrainingFailed where there is none."""
        failures, rates = self.history["failures"], self.schedule.base_lrs
        self.ranks.barrier()
        if self.checkpoints.latest() is None:
            raise TrainingFailed(f"{failure.message} There is no whole checkpoint to reload.") from failure.error
        self.resume()
        corrupt = [f for f in self.history["failures"] if f["kind"] == FailureKind.CORRUPT_CHECKPOINT]
        self.history["failures"] = failures + [f for f in corrupt if f not in failures]  # noted in going back
        self._set_rates([rate / 2 for rate in rates])

    def _set_rates(self, rates):
        """Change the learning rates at the top of the schedule, which then goes on from where it is."""
        lowest = self.config.training.min_lr_ratio * self.config.training.learning_rate
        rates = [max(rate, lowest) for rate in rates]
        self.schedule.load_state_dict({**self.schedule.state_dict(), "base_lrs": rates})

    def _remember(self, failure, action, step=None):
        """Keep in the history, and log, what went wrong, in which step (by default, this one), and what is done."""
        step = self.step + 1 if step is None else step
        known = {"step": step, "kind": failure.kind.value, "action": action, "message": failure.message}
        self.history["failures"].append(known)
        if self.is_main or action == "halve_batch":  # which other ranks know nothing of
            log.warning("Step %d, %s: %s %s", known["step"], known["kind"], action, known["message"])
