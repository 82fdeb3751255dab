"""The training loop."""

import contextlib
import math

import numpy as np
from tqdm import tqdm

from .. import device as devices
from ..autograd import no_grad
from ..layers import evaluating, require_positive
from ..optimizers import ReduceLROnPlateau, clip_grad_norm_
from ..tensor import Tensor
from .checkpoints import CheckpointError
from .interrupts import TrainingInterrupted, held_interrupt


class Trainer:
    """Trains a model: batches, gradients, clipping, schedule, evaluation, checkpoints, a progress bar.

    loss_fn(model, batch) returns the mean loss of a batch, or (mean loss, weight) where batches differ in how much they
    hold (for example in the number of tokens that are not padding).
    accumulate: batches per step, whose gradients add up to that of one large batch.
    clip_norm: the largest joint length of the gradients. schedule: stepped after every step.
    eval_loader, eval_every: held-out loss every so many steps and at the end.
    checkpoints, checkpoint_every: where and how often to save; also saved at the end and at Ctrl-C.
    `history` is a dict of lists: step, loss, lr, grad_norm, and eval_step, eval_loss.
    Raises ValueError for settings out of range.
    """

    is_main = True  # whether this process writes and shows: where several train together, one does

    def __init__(
        self,
        model,
        optimizer,
        train_loader,
        loss_fn,
        *,
        schedule=None,
        accumulate=1,
        clip_norm=None,
        eval_loader=None,
        eval_every=None,
        checkpoints=None,
        checkpoint_every=None,
    ):
        require_positive(accumulate=accumulate)
        if eval_every is not None:
            require_positive(eval_every=eval_every)
            if eval_loader is None:
                raise ValueError(f"eval_every={eval_every} needs an eval_loader to evaluate on.")
        if checkpoint_every is not None:
            require_positive(checkpoint_every=checkpoint_every)
            if checkpoints is None:
                raise ValueError(f"checkpoint_every={checkpoint_every} needs checkpoints=Checkpoints(folder).")
        if isinstance(schedule, ReduceLROnPlateau):
            raise TypeError("ReduceLROnPlateau needs a metric at each step: use it in a loop of your own.")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"Trainer needs clip_norm above 0, but got {clip_norm}. None does not clip.")
        self.model, self.optimizer, self.loss_fn = model, optimizer, loss_fn
        self.schedule, self.accumulate, self.clip_norm = schedule, accumulate, clip_norm
        self.eval_loader, self.eval_every = eval_loader, eval_every
        self.checkpoints, self.checkpoint_every = checkpoints, checkpoint_every
        self.step = 0
        self._owed = None  # of the last step: its "evaluation", or its "saving", where an error came between
        self._torn = None  # the kind of the error that came in the middle of a step
        self.history = {name: [] for name in ("step", "loss", "lr", "grad_norm", "eval_step", "eval_loss")}
        self.train_loader = train_loader

    @property
    def train_loader(self):
        return self._feed.loader

    @train_loader.setter
    def train_loader(self, loader):
        self._feed = _Feed(loader)

    def fit(self, steps):
        """Train until step number `steps`, counted from the very first. Returns the history.

        A step that is made is saved also where its evaluation raises an error; what is left of it is then done first.
        Raises FloatingPointError where the loss or a gradient is no longer finite, TrainingInterrupted at Ctrl-C,
        CheckpointError where another process saves in the same place, and RuntimeError after an error that came in the
        middle of a step.
        """
        self._require_whole()
        devices.keep_freed_memory()
        self.model.train()
        saves = self.checkpoints is not None and self.is_main
        bar_settings = {"desc": "training", "unit": "step", "disable": None if self.is_main else True, "leave": False}
        with (
            self.checkpoints.locked() if saves else contextlib.nullcontext(),
            held_interrupt() as interrupted,
            tqdm(total=steps, initial=self.step, **bar_settings) as bar,
        ):
            if self.step == 0 and saves:
                self.checkpoints.set_aside()
            while self.step < steps or self._owed:
                if not self._owed:
                    loss = self._whole_step()
                    bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                    bar.update(self.step - bar.n)
                last = self.step >= steps
                if self._owed == "evaluation":
                    self._evaluate_or_save(last)
                stop = self._is_stopped(interrupted)
                if last or stop or self._is_saving_due():
                    self.save()
                self._owed = None
                if stop:
                    raise TrainingInterrupted(
                        f"Stopped by Ctrl-C after step {self.step} of {steps}. {self._how_to_resume()}"
                    )
        return self.history

    def _require_whole(self):
        """Raise RuntimeError where an error left a step half done: its batches are used up, its numbers are drawn."""
        if self._torn is not None:
            raise RuntimeError(
                f"An error left this training in the middle of step {self.step + 1} ({self._torn}). "
                f"{self._how_to_resume()} Or begin with a new Trainer."
            )

    def _whole_step(self):
        """The loss of one step; notes where it was left in the middle."""
        try:
            loss = self._train_step()
        except BaseException as error:
            self._torn = type(error).__name__
            raise
        self._owed = "evaluation"
        return loss

    def _evaluate_or_save(self, last):
        """What follows a step; where that raises an error, the step is saved before all is lost with the process."""
        try:
            self._after_step(last)
        except Exception:
            self.save()
            raise
        self._owed = "saving"

    def _after_step(self, last):
        """Evaluate where that is due; `last` says that no step follows."""
        if self.eval_loader is not None and (last or _is_due(self.eval_every, self.step)):
            self._note(eval_step=self.step, eval_loss=self.evaluate(self.eval_loader))

    def _is_stopped(self, interrupted):
        """Whether training is to end here, since Ctrl-C was pressed."""
        return interrupted.is_set()

    def _is_saving_due(self):
        return _is_due(self.checkpoint_every, self.step)

    def evaluate(self, loader):
        """The mean loss over a loader, in evaluation mode and without gradients. Raises ValueError without batches."""
        with evaluating(self.model), no_grad():
            pairs = [self._loss(batch) for batch in loader]
        if not pairs:
            raise ValueError("evaluate needs at least one batch, but the loader gave none.")
        return sum(loss.item() * weight for loss, weight in pairs) / sum(weight for _, weight in pairs)

    # ---- one step

    def _loss(self, batch):
        """What loss_fn says of a batch: (mean loss, weight), the weight as a Python float, and 1.0 where it gives none.

        Raises TypeError where the loss is no tensor, and ValueError where the weight is not above 0 and finite.
        """
        result = self.loss_fn(self.model, batch)
        loss, weight = result if isinstance(result, tuple) else (result, 1)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn needs to return a tensor, or (tensor, weight), but got a {type(loss).__name__}.")
        if not 0 < float(weight) < math.inf:
            raise ValueError(f"loss_fn needs to return a weight above 0 with the mean loss, but it was {weight}.")
        return loss, float(weight)

    def _train_step(self):
        """One step: `accumulate` batches, one gradient, one move of optimizer and schedule, one line in the history.

        The gradient is that of the mean over all that the batches' weights count, and is clipped to `clip_norm`.
        Returns the loss, the same mean. Raises FloatingPointError, before anything moved, where loss or gradient is not
        finite.
        """
        self.model.zero_grad()  # also parameters that this optimizer does not change
        self.optimizer.zero_grad()
        total = weights = 0.0
        for _ in range(self.accumulate):
            loss, weight = self._loss(next(self._feed))
            self._require_finite("loss", loss.item())
            loss.backward(np.full_like(loss.data, weight))
            total, weights = total + loss.item() * weight, weights + weight
        parameters = self._parameters_with_gradients()
        for parameter in parameters:
            parameter.grad.data /= weights
        norm = clip_grad_norm_(parameters, self.clip_norm or math.inf).item()
        self._require_finite("gradient", norm)
        lr = self.optimizer.param_groups[0]["lr"]  # this step's: the schedule is about to change it
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        self._note(step=self.step, loss=total / weights, lr=lr, grad_norm=norm)
        return total / weights

    def _parameters_with_gradients(self):
        """Those of the optimizer's parameters that the losses reached. Raises ValueError where there is none."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:
            raise ValueError("No parameter of the optimizer got a gradient. Was it built from this model's parameters?")
        return parameters

    def _note(self, **values):
        """Append each value to the list of its name in the history."""
        for name, value in values.items():
            self.history[name].append(value)

    def _require_finite(self, what, value):
        """Raise FloatingPointError with the likely cause where `value`, called `what` in the message, is not finite."""
        if not math.isfinite(value):
            raise FloatingPointError(f"{self._explain(what, value)} {self._how_to_resume()}")

    def _explain(self, what, value):
        """In words, what is not finite, and the likely cause."""
        broken = [name for name, p in self.model.named_parameters() if not bool(np.all(np.isfinite(p.data)))]
        lr = self.optimizer.param_groups[0]["lr"]
        if not self.history["grad_norm"]:
            cause = "At the first step the cause is in the data (NaN, infinity) or in the loss (log or division by 0)."
        elif broken or self.history["grad_norm"][-1] > 10 or lr > 0.1:
            cause = (
                f"The last gradient norm was {self.history['grad_norm'][-1]:.3g} at a learning rate of {lr:.3g}: most "
                "likely the rate is too high. Lower it, warm up, or set clip_norm=1.0."
            )
        else:
            cause = "Training was calm until here: look for NaN, infinity or a rare extreme in this batch."
        return f"The {what} became {value} at step {self.step + 1}. {cause}"

    # ---- stopping and going on

    def _how_to_resume(self):
        if self.checkpoints is None:
            return "Nothing was saved: give the Trainer checkpoints=Checkpoints(folder)."
        saved = self.checkpoints.list()
        if not saved:
            return "Nothing was saved yet: set checkpoint_every lower to lose less."
        return f"Saved in {saved[-1]}: call resume() before fit(), or run the script with --resume."

    def _generators(self):
        return devices.generators_of([self.train_loader, self.eval_loader, *self.model.modules()])

    def save(self):
        """Write a checkpoint of this very moment, if the trainer has a place for it."""
        if self.checkpoints is not None:
            self.checkpoints.save(self.step, *self._snapshot(), self._score())

    def _score(self):
        """What the checkpoint of this moment competes with for the best: its held-out loss, or None without one."""
        evaluated = self.history["eval_step"][-1:] == [self.step]
        return self.history["eval_loss"][-1] if evaluated else None

    def _snapshot(self):
        """(arrays, state): all that training needs to go on from this moment."""
        optimizer = self.optimizer.state_dict()
        arrays = {f"model.{name}": devices.to_numpy(tensor.data) for name, tensor in self.model.state_dict().items()}
        counts = {}
        for number, entries in optimizer["state"].items():
            counts[number] = entries.pop("step")
            arrays.update({f"optimizer.{number}.{name}": devices.to_numpy(array) for name, array in entries.items()})
        state = {
            "step": self.step,
            "evaluated": self._owed != "evaluation",
            "history": self.history,
            "kinds": self._kinds(),
            "optimizer": {"steps": counts, "param_groups": optimizer["param_groups"]},
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "feed": self._feed.state_dict(),
            "generators": [generator.get_state() for generator in self._generators()],
        }
        return arrays, state

    def _kinds(self):
        """What a checkpoint must agree with, besides names and shapes, to be resumed."""
        return {
            "optimizer": type(self.optimizer).__name__,
            "schedule": type(self.schedule).__name__,
            "number of generators": len(self._generators()),
            "number of batches in a pass": len(self.train_loader) if hasattr(self.train_loader, "__len__") else None,
        }

    def resume(self, folder=None):
        """Go back to a checkpoint, the newest whole one unless `folder` names another. Returns its step.

        What follows is bit for bit what would have followed without the stop, on the same machine and settings.
        Raises CheckpointError, and changes nothing, where there is none or where it belongs to another training.
        """
        optimizer, state = self._load_weights(folder)
        self.optimizer.load_state_dict(optimizer)
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self._feed.load_state_dict(state["feed"])
        for generator, saved in zip(self._generators(), state["generators"]):
            generator.set_state(saved)
        self.step, self.history = state["step"], state["history"]
        return self.step

    def _load_weights(self, folder):
        """Put a checkpoint's weights into the model once everything in it fits. Returns (optimizer's state, all else).

        Raises CheckpointError, and changes nothing, where there is none or where it belongs to another training.
        """
        if self.checkpoints is None:
            raise CheckpointError(
                "This Trainer has no checkpoints to resume from. Give it checkpoints=Checkpoints(folder)."
            )
        arrays, state = self.checkpoints.load(folder)
        if not isinstance(state, dict) or "kinds" not in state:
            raise CheckpointError("The checkpoint was not written by a Trainer.")
        for what, kind in self._kinds().items():
            saved = state["kinds"].get(what)
            if saved != kind:
                raise CheckpointError(f"The checkpoint belongs to another training: its {what} is {saved}, not {kind}.")
        model, optimizer = _split_arrays(arrays, state["optimizer"])
        try:
            self.optimizer.check_state_dict(optimizer)
            if self.schedule is not None:
                self.schedule.check_state_dict(state["schedule"])
            self.model.load_state_dict(model)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"The checkpoint belongs to another training. {error}") from error
        self._torn, self._owed = None, None if state.get("evaluated", True) else "evaluation"
        return optimizer, state


def _is_due(every, step):
    return every is not None and step % every == 0


def _split_arrays(arrays, optimizer):
    """The state dicts of model and optimizer from a checkpoint's arrays and what it says of the optimizer."""
    model, state = {}, {int(number): {"step": step} for number, step in optimizer["steps"].items()}
    for name, array in arrays.items():
        kind, _, name = name.partition(".")
        if kind == "model":
            model[name] = array
        else:
            number, _, name = name.partition(".")
            state[int(number)][name] = array
    return model, {"state": state, "param_groups": optimizer["param_groups"]}


class _Feed:
    """Batches without end, pass after pass over a loader, from a place that can be saved and found again."""

    def __init__(self, loader):
        self.loader = loader
        self._begin()

    def _begin(self):
        """Be between two passes: none is under way, and nothing of the next one is taken yet."""
        self.began, self.taken, self.passing = None, 0, None

    def __next__(self):
        """The next batch; where a pass has ended, the first of a new one.

        Counts in `taken` the batches of this pass, and keeps in `began` the state that the loader's generator had
        before it. Raises ValueError where the loader has no batches left to give.
        """
        for _ in range(2):  # where one pass has ended, the next begins
            if self.passing is None:
                generator = getattr(self.loader, "generator", None)
                self.began = generator.get_state() if generator is not None else None
                self.passing = iter(self.loader)
            for batch in self.passing:
                self.taken += 1
                return batch
            self._begin()
        raise ValueError("Training needs batches, but the loader gave none. It must give them anew in every pass.")

    def state_dict(self):
        return {"began": self.began, "taken": self.taken}

    def load_state_dict(self, state):
        """Take up the pass again: same order, after the batches that were taken. Moves the loader's generator."""
        self._begin()
        if state["taken"]:
            if state["began"] is not None:
                self.loader.generator.set_state(state["began"])
            for _ in range(state["taken"]):
                next(self)
