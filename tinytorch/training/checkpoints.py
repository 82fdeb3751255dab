"""Checkpoints: folders that are whole or not there, from which training goes on."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import safetensors.numpy
from tqdm import tqdm

from ..layers import require_positive
from .files import link_whole
from .files import sync_folder as _sync
from .files import write_synced as _write

FORMAT = "tinytorch checkpoint 1"

Validation = namedtuple("Validation", "is_valid errors step epoch")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, torn, or of something else."""


class Checkpoints:
    """A folder of checkpoints `step-00000100/`: the newest `keep`, and the best.

    Each holds `state.json` and the arrays of `state.safetensors`, is written beside, synced to disk and renamed, and
    carries checksums: an interruption leaves the old ones and at most a folder that is never taken for a checkpoint.
    links: keep the symbolic links `latest_checkpoint` and `best_checkpoint` to them, for people and scripts. They never
    point to what is not there; where the system has none, there are none.
    """

    def __init__(self, folder, keep=3, links=False):
        require_positive(keep=keep)
        self.folder, self.keep, self.links = Path(folder), keep, links

    def list(self):
        """The checkpoints' folders, oldest first, whether or not they are whole."""
        return sorted(folder for folder in self.folder.glob("step-" + 8 * "[0-9]") if folder.is_dir())

    @contextlib.contextmanager
    def locked(self):
        """Keep the folder for this process: two runs that save in one place would remove each other's checkpoints.

        Creates the folder. Raises CheckpointError where another process holds it; the system frees it at any exit.
        Raises OSError, with the path, where there can be no such folder.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"{self.folder} cannot be a folder of checkpoints ({error}). Name another."
            ) from error
        with open(self.folder.with_name(f".{self.folder.name}.lock"), "a+b") as file:
            try:
                _lock(file)
            except OSError as error:
                raise CheckpointError(
                    f"Another process is training into {self.folder}. Wait for it, or name another folder."
                ) from error
            yield

    def save(self, step, arrays, state, score=None, names=()):
        """Write the checkpoint of `step` and remove those no longer needed. Returns its folder.

        arrays: {name: array}; state: what JSON can hold; score: lower is better, None does not compete for the best;
        names: of further links to it, where links are kept. Checkpoints of later steps are removed: they belong to a
        path that was left by going back. Raises OSError, with the path, the reason and what there is to go on from,
        where the disk does not take it.
        """
        try:
            return self._save(step, arrays, state, score, names)
        except OSError as error:
            newest = self.latest()
            last = "No whole checkpoint is there." if newest is None else f"The newest whole one is {newest}."
            raise OSError(
                error.errno, f"The checkpoint of step {step} could not be saved in {self.folder} ({error}). {last}"
            ) from error

    def _save(self, step, arrays, state, score, names):
        tensors = safetensors.numpy.save({name: np.array(array, order="C") for name, array in arrays.items()})
        content = json.dumps({"step": step, "score": score, "arrays_sha256": _sha256(tensors), "state": state})
        outer = json.dumps({"format": FORMAT, "sha256": _sha256(content.encode()), "content": content})
        final = self.folder / f"step-{step:08d}"
        beside = self.folder / f".writing-{step:08d}"
        try:
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            beside.mkdir(parents=True)
            _write(beside / "state.safetensors", tensors)
            _write(beside / "state.json", outer.encode())
            _sync(beside)
            if final.is_dir():  # torn, or of a path that was left by going back
                _discard(final)
            os.replace(beside, final)
            _sync(self.folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        if self.links:
            self._link(final, names)
        self._remove_others(final)
        return final

    def _link(self, newest, names):
        """Point the links to the newest and the best, and `names` to the newest, before any other is removed."""
        best = self.best(until=newest)
        wanted = {**dict.fromkeys(["latest_checkpoint", *names], newest), "best_checkpoint": best}
        for name, folder in wanted.items():
            if folder is not None:
                with contextlib.suppress(OSError):  # links are an extra: Windows gives them to administrators only
                    link_whole(self.folder / name, folder)

    def _remove_others(self, newest):
        """Remove what `keep` does not cover, and all that was left half written or half removed."""
        wanted = {*[folder for folder in self.list() if folder <= newest][-self.keep :], self.best(until=newest)}
        for folder in self.list():
            if folder not in wanted:
                _discard(folder)
        for leftover in self.folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def set_aside(self):
        """Move the checkpoints of an earlier run to `<folder>-previous`: no run is resumed from another's."""
        if self.list():
            names = (f"{self.folder.name}-previous{n}" for n in itertools.chain([""], itertools.count(2)))
            previous = next(p for p in map(self.folder.with_name, names) if not p.exists())
            previous.mkdir()
            for folder in self.list():
                _unlink(folder)
                os.replace(folder, previous / folder.name)

    def best(self, until=None):
        """The folder of the checkpoint with the lowest score, or None; `until` leaves out those of later steps."""
        scored = []
        for folder in self.list():
            with contextlib.suppress(CheckpointError):
                score = _read_state(folder)["score"]
                if score is not None and not math.isnan(score) and (until is None or folder <= until):
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

    def latest(self):
        """The folder of the newest checkpoint that is whole, or None."""
        return next((folder for folder in reversed(self.list()) if self.validate(folder).is_valid), None)

    @staticmethod
    def validate(folder):
        """Whether a checkpoint is whole, read to the last byte: (is_valid, errors, step, epoch).

        errors: what is wrong, in words; step and, where the state has one, epoch: as far as they can be read.
        """
        folder, step, epoch = Path(folder), None, None
        try:
            content = _read_state(folder)
            step = content["step"]
            epoch = content["state"].get("epoch") if isinstance(content["state"], dict) else None
            _read(folder)
        except CheckpointError as error:
            return Validation(False, [str(error)], step, epoch)
        return Validation(True, [], step, epoch)


def _read_state(folder):
    try:
        outer = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        content, checksum = str(outer["content"]), outer["sha256"]
        if outer["format"] != FORMAT:
            raise KeyError(outer["format"])
        found = _sha256(content.encode())
    except (OSError, UnicodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a whole checkpoint of tinytorch ({error!r}).") from error
    if found != checksum:
        raise CheckpointError(f"{folder} is damaged: state.json does not match its checksum.")
    return _require_entries(folder, content)


def _require_entries(folder, text):
    """The dict that the text is, or a CheckpointError where it is not what `save` writes, though it is whole."""
    kinds = {"step": int, "score": (int, float, type(None)), "arrays_sha256": str, "state": object}
    try:
        content = json.loads(text)
        wrong = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a checkpoint of tinytorch: its state is {error!r}.") from error
    if wrong:
        raise CheckpointError(f"{folder} is not a checkpoint of tinytorch: its {wrong[0]} is {content[wrong[0]]!r}.")
    return content


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


def _lock(file):
    """Take the system's lock on an open file, or raise OSError at once where somebody has it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlink(folder):
    """Remove the links to a checkpoint that is about to go, so that none ever points to what is not there."""
    for path in folder.parent.iterdir():
        if path.is_symlink() and os.readlink(path) == folder.name:
            path.unlink()


def _discard(folder):
    """Remove a checkpoint. Renamed first: what is half removed must not look like one."""
    _unlink(folder)
    removing = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(removing, ignore_errors=True)
    os.replace(folder, removing)
    shutil.rmtree(removing, ignore_errors=True)
