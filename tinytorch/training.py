"""Module 07: the training loop, and checkpoints from which training goes on as if it had never stopped."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import safetensors.numpy
from tqdm.auto import tqdm

from . import device as devices
from .autograd import no_grad
from .optimizers import clip_grad_norm_

# ---- checkpoints


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, torn, or of something else."""


class Checkpoints:
    """A folder of checkpoints `step-00000100/`: the newest `keep`, and the best.

    Each holds `state.json` and the arrays of `state.safetensors`, is written beside, synced to disk and renamed, and
    carries checksums: an interruption leaves the old ones and at most a folder that is never taken for a checkpoint.
    """

    def __init__(self, folder, keep=3):
        if keep < 1:
            raise ValueError(f"Checkpoints needs keep of at least 1, but got {keep}.")
        self.folder, self.keep = Path(folder), keep

    def list(self):
        """The checkpoints' folders, oldest first, whether or not they are whole."""
        return sorted(self.folder.glob("step-????????"))

    def save(self, step, arrays, state, score=None):
        """Write the checkpoint of `step` and remove those no longer needed. Returns its folder.

        arrays: {name: array}; state: what JSON can hold; score: lower is better, None does not compete for the best.
        """
        final = self.folder / f"step-{step:08d}"
        if final.exists() and _is_whole(final):
            return final
        beside = self.folder / f".writing-{step:08d}-{os.getpid()}"
        try:
            beside.mkdir(parents=True)
            tensors = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
            content = json.dumps({"step": step, "score": score, "arrays_sha256": _sha256(tensors), "state": state})
            outer = json.dumps(
                {"format": "tinytorch checkpoint 1", "sha256": _sha256(content.encode()), "content": content}
            )
            _write(beside / "state.safetensors", tensors)
            _write(beside / "state.json", outer.encode())
            _sync(beside)
            if final.exists():
                shutil.rmtree(final)  # torn
            os.replace(beside, final)
            _sync(self.folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        self._remove_old()
        return final

    def _remove_old(self):
        wanted = {*self.list()[-self.keep :], self.best()}
        for folder in self.list():
            if folder not in wanted:  # renamed first: what is half removed must not look like a checkpoint
                os.replace(folder, folder.with_name(f".writing-{folder.name}"))
        for leftover in self.folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def set_aside(self):
        """Move the checkpoints of an earlier run to `<folder>-previous`: no run is resumed from another's."""
        if self.list():
            previous = self.folder.with_name(self.folder.name + "-previous")
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(self.folder, previous)

    def best(self):
        """The folder of the checkpoint with the lowest score, or None."""
        scored = []
        for folder in self.list():
            with contextlib.suppress(CheckpointError):
                score = _read_state(folder)["score"]
                if score is not None:
                    scored.append((score, folder))
        return min(scored)[1] if scored else None

    def load(self, folder=None):
        """(arrays, state) of a checkpoint: the given one, or the newest whole one, and says so if it is not the last.

        Raises CheckpointError where there is none.
        """
        if folder is not None:
            return _read(Path(folder))
        torn = []
        for candidate in reversed(self.list()):
            try:
                found = _read(candidate)
            except CheckpointError as error:
                torn.append(str(error))
                continue
            if torn:
                tqdm.write(f"{' '.join(torn)} Going on from {candidate.name} instead.")
            return found
        raise CheckpointError(f"No checkpoint to load in {self.folder}. {' '.join(torn)}".rstrip())


def _is_whole(folder):
    try:
        _read(folder)
    except CheckpointError:
        return False
    return True


def _read_state(folder):
    try:
        outer = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        content, checksum = outer["content"], outer["sha256"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a whole checkpoint of tinytorch ({error!r}).") from error
    if _sha256(content.encode()) != checksum:
        raise CheckpointError(f"{folder} is damaged: state.json does not match its checksum.")
    return json.loads(content)


def _read(folder):
    content = _read_state(folder)
    try:
        tensors = (folder / "state.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder} is not a whole checkpoint of tinytorch ({error!r}).") from error
    if _sha256(tensors) != content["arrays_sha256"]:
        raise CheckpointError(f"{folder} is damaged: state.safetensors does not match its checksum.")
    return safetensors.numpy.load(tensors), content["state"]


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _write(path, data):
    """Write bytes, and wait until they are on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder):
    """Wait until the names in a folder are on the disk (Windows has no way to ask for that)."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---- the loop


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after the step was finished and saved."""


class Trainer:
    """Trains a model: batches, gradients, clipping, schedule, evaluation, checkpoints, a progress bar.

    loss_fn(model, batch) returns the mean loss of a batch, or (mean loss, weight) where batches differ in how much they
    hold (for example in the number of tokens that are not padding).
    accumulate: batches per step, whose gradients add up to that of one large batch.
    clip_norm: the largest joint length of the gradients. schedule: stepped after every step.
    eval_loader, eval_every: held-out loss every so many steps and at the end.
    checkpoints, checkpoint_every: where and how often to save; also saved at the end and at Ctrl-C.
    `history` is a dict of lists: step, loss, lr, grad_norm, and eval_step, eval_loss.
    """

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
        for name, every in (
            ("accumulate", accumulate),
            ("eval_every", eval_every),
            ("checkpoint_every", checkpoint_every),
        ):
            if every is not None and every < 1:
                raise ValueError(f"Trainer needs {name} of at least 1, but got {every}.")
        self.model, self.optimizer, self.train_loader, self.loss_fn = model, optimizer, train_loader, loss_fn
        self.schedule, self.accumulate, self.clip_norm = schedule, accumulate, clip_norm
        self.eval_loader, self.eval_every = eval_loader, eval_every
        self.checkpoints, self.checkpoint_every = checkpoints, checkpoint_every
        self.step = 0
        self.history = {name: [] for name in ("step", "loss", "lr", "grad_norm", "eval_step", "eval_loss")}

    def fit(self, steps):
        """Train until step number `steps`, counted from the very first. Returns the history.

        Raises FloatingPointError where the loss or a gradient is no longer finite, TrainingInterrupted at Ctrl-C.
        """
        if self.step == 0 and self.checkpoints:
            self.checkpoints.set_aside()
        devices.keep_freed_memory()
        self.model.train()
        batches = self._batches()
        with (
            _held_interrupt() as interrupted,
            tqdm(total=steps, initial=self.step, desc="training", unit="step", disable=None, leave=False) as bar,
        ):
            while self.step < steps:
                loss = self._train_step(batches)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
                last = self.step >= steps
                if self.eval_loader and (last or (self.eval_every and self.step % self.eval_every == 0)):
                    self.history["eval_step"].append(self.step)
                    self.history["eval_loss"].append(self.evaluate(self.eval_loader))
                if last or interrupted.is_set() or (self.checkpoint_every and self.step % self.checkpoint_every == 0):
                    self.save()
                if interrupted.is_set() and not last:
                    raise TrainingInterrupted(
                        f"Stopped by Ctrl-C after step {self.step} of {steps}. {self._how_to_resume()}"
                    )
        return self.history

    def evaluate(self, loader):
        """The mean loss over a loader, in evaluation mode and without gradients."""
        was_training = self.model.training
        self.model.eval()
        with no_grad():
            pairs = [self._loss(batch) for batch in loader]
        self.model.train(was_training)
        return sum(loss.item() * weight for loss, weight in pairs) / sum(weight for _, weight in pairs)

    # ---- one step

    def _batches(self):
        while True:
            yield from self.train_loader

    def _loss(self, batch):
        result = self.loss_fn(self.model, batch)
        return result if isinstance(result, tuple) else (result, 1.0)

    def _train_step(self, batches):
        self.optimizer.zero_grad()
        total = weights = 0.0
        for _ in range(self.accumulate):
            loss, weight = self._loss(next(batches))
            self._require_finite("loss", loss.item())
            loss.backward(np.full_like(loss.data, weight))
            total, weights = total + loss.item() * weight, weights + weight
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad.data /= weights
        norm = float(clip_grad_norm_(parameters, self.clip_norm or math.inf))
        self._require_finite("gradient", norm)
        row = {
            "step": self.step + 1,
            "loss": total / weights,
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": norm,
        }
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        self.step += 1
        for name, value in row.items():
            self.history[name].append(value)
        return row["loss"]

    def _require_finite(self, what, value):
        if math.isfinite(value):
            return
        broken = [name for name, p in self.model.named_parameters() if not bool(np.all(np.isfinite(p.data)))]
        lr = self.optimizer.param_groups[0]["lr"]
        if self.step == 0:
            cause = "At the first step the cause is in the data (NaN, infinity) or in the loss (log or division by 0)."
        elif broken or self.history["grad_norm"][-1] > 10 or lr > 0.1:
            cause = (
                f"The last gradient norm was {self.history['grad_norm'][-1]:.3g} at a learning rate of {lr:.3g}: most "
                "likely the rate is too high. Lower it, warm up, or set clip_norm=1.0."
            )
        else:
            cause = "Training was calm until here: look for NaN, infinity or a rare extreme in this batch."
        raise FloatingPointError(f"The {what} became {value} at step {self.step + 1}. {cause} {self._how_to_resume()}")

    # ---- stopping and going on

    def _how_to_resume(self):
        if not self.checkpoints or not self.checkpoints.list():
            return "Nothing was saved: give the Trainer checkpoints=Checkpoints(folder)."
        return f"Saved in {self.checkpoints.list()[-1]}: call resume() before fit(), or run the script with --resume."

    def _generators(self):
        """Every source of randomness that training draws from, each once."""
        found = [devices.default_generator, getattr(self.train_loader, "generator", None)]
        found += [getattr(module, "generator", None) for module in self.model.modules()]
        return list({id(generator): generator for generator in found if generator is not None}.values())

    def save(self):
        """Write a checkpoint of this very moment, if the trainer has a place for it."""
        if not self.checkpoints:
            return
        optimizer = self.optimizer.state_dict()
        arrays = {f"model.{name}": devices.to_numpy(tensor.data) for name, tensor in self.model.state_dict().items()}
        counts = {}
        for number, entries in optimizer["state"].items():
            counts[number] = entries.pop("step")
            arrays.update({f"optimizer.{number}.{name}": devices.to_numpy(array) for name, array in entries.items()})
        state = {
            "step": self.step,
            "history": self.history,
            "optimizer": {"steps": counts, "param_groups": optimizer["param_groups"]},
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "loader": self.train_loader.state_dict() if hasattr(self.train_loader, "state_dict") else None,
            "generators": [generator.get_state() for generator in self._generators()],
        }
        evaluated = self.history["eval_step"][-1:] == [self.step]
        self.checkpoints.save(self.step, arrays, state, self.history["eval_loss"][-1] if evaluated else None)

    def resume(self, folder=None):
        """Go back to a checkpoint, the newest whole one unless `folder` names another. Returns its step.

        What follows is bit for bit what would have followed without the stop, on the same machine and settings.
        Raises CheckpointError where there is none, or where it belongs to another model or optimizer.
        """
        if not self.checkpoints:
            raise CheckpointError(
                "This Trainer has no checkpoints to resume from. Give it checkpoints=Checkpoints(folder)."
            )
        arrays, state = self.checkpoints.load(folder)
        entries = {int(number): {"step": step} for number, step in state["optimizer"]["steps"].items()}
        model = {}
        for name, array in arrays.items():
            kind, _, name = name.partition(".")
            if kind == "model":
                model[name] = array
            else:
                number, _, name = name.partition(".")
                entries[int(number)][name] = array
        try:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict({"state": entries, "param_groups": state["optimizer"]["param_groups"]})
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"The checkpoint belongs to another model or optimizer. {error}") from error
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        if state["loader"]:
            self.train_loader.load_state_dict(state["loader"])
        for generator, saved in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(saved)
        self.step, self.history = state["step"], state["history"]
        return self.step


@contextlib.contextmanager
def _held_interrupt():
    """Ctrl-C inside sets the event that this yields, so that a step is never torn; a second one stops at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def hold(signum, frame):
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


# ---- looking at it


def plot_loss(history, path=None, title="loss"):
    """Draw training loss, its running mean, and held-out loss over the steps; save a PNG at `path` if given.

    Returns the matplotlib figure.
    """
    from matplotlib.figure import Figure  # drawn without pyplot: no window, no global state

    figure = Figure(figsize=(7, 4), layout="constrained", dpi=120)
    axes = figure.subplots()
    steps, loss = np.array(history["step"]), np.array(history["loss"])
    window = max(1, len(loss) // 50)
    axes.plot(steps, loss, color="tab:blue", alpha=0.3, linewidth=1, label="training, each step")
    mean = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    axes.plot(steps[window - 1 :], mean, color="tab:blue", label=f"training, mean of {window}")
    if history["eval_step"]:
        axes.plot(history["eval_step"], history["eval_loss"], "o-", color="tab:orange", markersize=4, label="held out")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    if path is not None:
        figure.savefig(path)
    return figure
