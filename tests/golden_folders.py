"""Folders of Hugging Face's transformers, kept under tests/golden/pretrained, to be copied and changed."""

import json
import shutil
from pathlib import Path

import safetensors.numpy

GOLDEN = Path(__file__).parent / "golden" / "pretrained"


def copied(name, folder, **changes):
    """A golden folder, copied to `folder`, with fields of its config.json changed (None removes one)."""
    shutil.copytree(GOLDEN / name, folder)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    config = {key: value for key, value in config.items() if value is not None or key not in changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rewrite(folder, change):
    """Pass the tensors of model.safetensors, {name: array}, through `change`."""
    path = folder / "model.safetensors"
    tensors = change(safetensors.numpy.load(path.read_bytes()))
    path.unlink()
    safetensors.numpy.save_file(tensors, path)
    return folder
