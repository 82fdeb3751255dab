"""Weights in folders of Hugging Face's transformers: `config.json`, the shape, and `model.safetensors`, the numbers."""

import contextlib
import json
import operator
import os
import re
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from ..tensor import from_bfloat16_bits

BUFFERS = re.compile(r"(^|\.)attn\.(masked_)?bias$|rotary_emb\.inv_freq$")  # masks and tables, not weights
NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Pretrained:
    """The part of a model that reads and writes its weights. The rest has these two, and `config`.

    config_class: the dataclass of its configuration; formats: {model_type: Format}, all that it can be read from.
    """

    config_class = formats = None

    @classmethod
    def from_pretrained(cls, folder, **changes):
        """A model with the weights in `folder`, as Hugging Face's transformers saves those of its `formats`.

        folder: holds config.json and model.safetensors, or the parts that model.safetensors.index.json lists.
        changes: fields of the configuration to set otherwise, such as dropout=0.0. Weights of any floating point type
        become float32; the model is in evaluation mode. Raises ValueError for what the folder asks for and the model
        is not, and for weights that do not fit; FileNotFoundError for a file that is missing.
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

    def save_pretrained(self, folder):
        """Write config.json and model.safetensors, which from_pretrained and transformers read, into `folder`.

        The names are those of the first of the `formats` that fits the configuration. Each file is written beside and
        renamed: an interruption leaves the old files or no config.json, and then nothing is read. Raises ValueError
        for a configuration that none of them fits.
        """
        _write(folder, self._format_of(self.config), self.config, self.state_dict())

    @classmethod
    def _format_named(cls, model_type, path):
        """The Format of a `model_type` that the file at `path` names."""
        if model_type not in cls.formats:
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
    if not path.exists():
        raise FileNotFoundError(
            f"from_pretrained needs a folder on this machine with config.json and model.safetensors, but {path} is "
            "missing. Was saving interrupted, or is the model yet to be downloaded?"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} needs to be a JSON file, but it is not: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} needs to hold a JSON object, but holds a {type(content).__name__}.")
    return content


def _weight_files(folder):
    """The files that hold the weights: one, or the parts that an index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not index.exists():
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
        arrays[name] = numbers.astype(np.float32, copy=False).reshape(tensor["shape"])
    return arrays


def _write(folder, kind, config, state_dict):
    """Write config.json and model.safetensors of a model with this configuration and state dict, in a Format."""
    state = {name: tensor.numpy() for name, tensor in state_dict.items()}
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    stored = {name: np.ascontiguousarray(array) for name, array in kind.write_names(state).items()}
    described = {**kind.write_config(config), "dtype": str(state[kind.embedding].dtype)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _replacing(folder, "model.safetensors", "config.json") as (weights, description):
        safetensors.numpy.save_file(stored, weights, metadata={"format": "pt"})
        description.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _replacing(folder, *names):
    """Give paths to write beside files, which they replace once all are on the disk.

    The last of the old ones goes first and the last of the new ones comes last: there is no moment with a mixture of
    old and new files in which that one exists.
    """
    beside = [folder / f".writing-{name}" for name in names]
    try:
        yield beside
        for path in beside:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        (folder / names[-1]).unlink(missing_ok=True)
        for path, name in zip(beside, names):
            os.replace(path, folder / name)
    finally:
        for path in beside:
            path.unlink(missing_ok=True)
