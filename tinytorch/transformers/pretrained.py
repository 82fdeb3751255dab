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

from .formats import format_named, format_of, resolved

BUFFERS = re.compile(r"(^|\.)attn\.(masked_)?bias$|rotary_emb\.inv_freq$")  # masks and tables, not weights
NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_config(folder):
    """The fields of GPTConfig that `folder` describes."""
    path = Path(folder) / "config.json"
    config = _read_json(path)
    return format_named(config.get("model_type"), path).read_config(config, path)


def read_state(folder, tied):
    """The state dict of a GPT from the weights in `folder`, in float32; `tied`: the output head is the embedding."""
    folder = Path(folder)
    path = folder / "config.json"
    stored = {}
    for file in _weight_files(folder):
        stored.update(_read_tensors(file))
    state = format_named(_read_json(path).get("model_type"), path).read_names(stored)
    if tied and "wte.weight" in state:
        head = state.setdefault("lm_head.weight", state["wte.weight"])
        if not np.array_equal(head, state["wte.weight"]):
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
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = numbers.astype(np.float32, copy=False).reshape(tensor["shape"])
    return arrays


def write(folder, config, state_dict):
    """Write config.json and model.safetensors of a GPT with this GPTConfig and state dict."""
    kind = format_of(config)
    state = {name: tensor.numpy() for name, tensor in state_dict.items()}
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    stored = {name: np.ascontiguousarray(array) for name, array in kind.write_names(state).items()}
    described = {**kind.write_config(resolved(config)), "dtype": str(state["wte.weight"].dtype)}
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
