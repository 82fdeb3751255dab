"""Weights in folders of Hugging Face's transformers: `config.json`, the shape, and `model.safetensors`, the numbers."""

import contextlib
import json
import operator
import os
import re
import shutil
from pathlib import Path

import numpy as np
import safetensors

from ..tensor import from_bfloat16_bits, to_bfloat16_bits
from ..training.files import sync_folder, write_synced

BUFFERS = re.compile(r"(^|\.)attn\.(masked_)?bias$|rotary_emb\.inv_freq$")  # masks and tables, not weights
NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Pretrained:
    """The part of a model that counts, reads and writes its weights. The rest has these two, and `config`.

    config_class: the dataclass of its configuration; formats: {model_type: Format}, all that it can be read from.
    """

    config_class = formats = None

    def num_parameters(self):
        """How many numbers are learned; a tied head is counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(cls, folder, **changes):
        """A model with the weights in `folder`, as Hugging Face's transformers saves those of its `formats`.

        folder: holds config.json and model.safetensors, or the parts that model.safetensors.index.json lists.
        changes: fields of the configuration to set otherwise, such as dropout=0.0. Weights of any floating point type
        become float32; the model is in evaluation mode. Raises ValueError for what the folder asks for and the model
        is not, for weights that do not fit, and for files that are damaged; FileNotFoundError for one that is missing.
        """
        folder = Path(folder)
        path = folder / "config.json"
        described = _read_json(path)
        kind = cls._format_named(described.get("model_type"), path)
        model = cls(cls.config_class(**{**kind.read_config(described, path), **changes}))
        state = _read_state(folder, kind, tied=model.config.tie_word_embeddings)
        try:
            model.load_state_dict(state)
        except (KeyError, ValueError) as error:
            raise ValueError(f"The weights in {folder} do not fit its config.json. {error.args[0]}") from error
        return model.eval()

    def save_pretrained(self, folder, dtype=None):
        """Write config.json and model.safetensors, which from_pretrained and transformers read, into `folder`.

        dtype: of the numbers in the file, "float32", or "bfloat16", which takes half the space and rounds to 8 binary
        digits; by default they stay as they are. The names are those of the first of the `formats` that fits the
        configuration. Each file is written beside and renamed: an interruption leaves the old files, new weights under
        a config.json that is the same, or no config.json, and then nothing is read. Raises ValueError for a
        configuration that none of the formats fits, for another dtype, and for numbers that are too large for it.
        """
        if dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"save_pretrained needs dtype 'float32' or 'bfloat16', but got {dtype!r}.")
        _write(folder, self._format_of(self.config), self.config, self.state_dict(), dtype)

    @classmethod
    def _format_named(cls, model_type, path):
        """The Format of a `model_type` that the file at `path` names."""
        if model_type not in list(cls.formats):  # by comparison: a file may name something that has no hash
            known = ", ".join(name for name in cls.formats if name)
            raise ValueError(f"{path} is of model_type {model_type!r}, but {cls.__name__} reads only {known}.")
        return cls.formats[model_type]

    @classmethod
    def _format_of(cls, config):
        """The Format that a configuration can be written in."""
        for kind in cls.formats.values():
            if kind.fits(config):
                return kind
        known = ", or of ".join(map(str, cls.formats.values()))
        raise ValueError(
            f"save_pretrained writes models with the parts of {known}, but this is {config}. "
            "Save its state dict instead."
        )


def _read_state(folder, kind, tied):
    """The state dict from the weights in `folder`, in float32; `tied`: the output head is the embedding."""
    stored = {}
    for file in _weight_files(folder):
        stored.update(_read_tensors(file))
    state = kind.read_names(stored)
    if tied and kind.embedding in state:
        head = state.setdefault("lm_head.weight", state[kind.embedding])
        if not np.array_equal(head, state[kind.embedding]):
            raise ValueError(
                f"The output head in {folder} differs from the token embedding, but tie_word_embeddings makes them "
                "one. Pass tie_word_embeddings=False."
            )
    return state


def _read_json(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"from_pretrained needs a folder on this machine with config.json and model.safetensors, but {path} is "
            "missing. Was saving interrupted, or is the model yet to be downloaded?"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} needs to be a JSON file, but it is not: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} needs to hold a JSON object, but holds a {type(content).__name__}.")
    return content


def _weight_files(folder):
    """The files that hold the weights: one, or the parts that an index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise FileNotFoundError(
            f"from_pretrained needs {whole} or {index.name} beside it, but both are missing. Other formats are not "
            "read: a pickled file can run any program. Save the model in transformers with save_pretrained."
        )
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} needs a weight_map from the names of tensors to the names of files.")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise FileNotFoundError(f"{index} needs the file {name!r}, but {folder} does not have it.")
    return [folder / name for name in files]


def _read_tensors(path):
    """{name: float32 array} of a .safetensors file, without buffers."""
    try:
        tensors = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no .safetensors file: {error}.") from error
    arrays = {}
    for name, tensor in sorted(tensors, key=operator.itemgetter(0)):  # they come in any order
        if BUFFERS.search(name):
            continue
        if tensor["dtype"] not in NUMBERS:
            known = ", ".join(NUMBERS)
            raise ValueError(f"{path} needs numbers of type {known}, but {name} is of type {tensor['dtype']}.")
        numbers = np.frombuffer(tensor["data"], NUMBERS[tensor["dtype"]])
        if tensor["dtype"] == "BF16":
            numbers = from_bfloat16_bits(numbers)
        arrays[name] = _as_float32(name, numbers).reshape(tensor["shape"])
    return arrays


def _as_float32(name, numbers):
    with np.errstate(over="ignore"):
        small = numbers.astype(np.float32, copy=False)
    if small is not numbers:
        _require_finite(name, numbers, small, "float32")
    return small


def _require_finite(name, numbers, rounded, dtype):
    """Raise ValueError where rounding to a type has made a number infinite."""
    if (np.isinf(rounded) & np.isfinite(numbers)).any():
        largest = np.abs(numbers[np.isfinite(numbers)]).max()
        raise ValueError(f"{name} holds numbers up to {largest}, which are too large for {dtype}.")


def _write(folder, kind, config, state_dict, dtype):
    """Write config.json and model.safetensors of a model with this configuration and state dict, in a Format."""
    state = {name: tensor.numpy() for name, tensor in state_dict.items()}
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    stored = {name: _as_stored(name, array, dtype) for name, array in kind.write_names(state).items()}
    described = {**kind.write_config(config), "dtype": dtype or str(next(iter(stored.values())).dtype)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _beside(folder) as (weights, description):
        specs = {
            name: safetensors.TensorSpec(
                dtype=dtype or str(array.dtype), shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
            )
            for name, array in stored.items()
        }
        safetensors.serialize_file(specs, weights, {"format": "pt"})
        write_synced(description, (json.dumps(described, indent=2) + "\n").encode())


def _as_stored(name, array, dtype):
    """The array whose bytes go into the file, little-endian and in order; for bfloat16 of uint16."""
    if dtype is None:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    numbers = _as_float32(name, array)
    if dtype == "bfloat16":
        bits = to_bfloat16_bits(numbers)
        _require_finite(name, numbers, from_bfloat16_bits(bits), dtype)
        return np.ascontiguousarray(bits, "<u2")
    return np.ascontiguousarray(numbers, "<f4")


@contextlib.contextmanager
def _beside(folder):
    """Give paths for new weights and a new config.json, which replace those in `folder` once both are on the disk.

    There is no moment with a config.json beside weights of another one: unless it stays the same, the old one goes
    first and the new one comes last. They wait in a folder of their own: what a process that was killed has left there
    is nobody else's, and goes.
    """
    inside, weights, config = folder / ".writing-pretrained", "model.safetensors", "config.json"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    try:
        yield inside / weights, inside / config
        with open(inside / weights, "rb+") as file:
            os.fsync(file.fileno())
        old = folder / config
        if old.is_file() and old.read_bytes() != (inside / config).read_bytes():
            old.unlink()
        os.replace(inside / weights, folder / weights)
        os.replace(inside / config, folder / config)
        sync_folder(folder)
    finally:
        shutil.rmtree(inside, ignore_errors=True)
