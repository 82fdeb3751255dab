"""Probes: what a grader compares with the reference, on inputs that nobody knows before.

A probe of an exercise calls what the student wrote, on inputs drawn from a generator, and returns arrays. It judges
nothing. The student's arrays and the reference's are made in two processes from one secret seed, and compared in a
third, in which no student's code ever ran. The public tests of a lesson call the same probes, on seeds that everybody
knows, and compare with an oracle in plain NumPy.
"""

import io
import runpy
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = "probes.py"  # in a folder of tests
LARGEST = 20_000_000  # bytes of all arrays that come back from one exercise
KINDS = "biufcU"  # of arrays: truth values, numbers and strings, never objects
TOLERANCE = {4: (1e-4, 1e-5), 8: (1e-7, 1e-9)}  # itemsize of the coarser numbers: relative, absolute


@dataclass(frozen=True)
class Probe:
    """One probe: `inputs(rng)` draws the keyword arguments of `run(tt, ...)`, which returns {name: array}."""

    exercise: str
    name: str
    inputs: object
    run: object

    def drawn(self, seed):
        """The inputs that belong to a seed."""
        return self.inputs(np.random.default_rng([seed, zlib.crc32(self.name.encode())]))

    def __call__(self, tt, seed):
        """What `tt`, a package tinytorch, gives on the inputs of a seed: {name: array}."""
        return {name: _array(value, name) for name, value in self.run(tt, **self.drawn(seed)).items()}


def probe(exercise, inputs):
    """Decorator: makes a Probe of `run(tt, **inputs(rng))` for an exercise such as "ex-05-2"."""
    return lambda run: Probe(exercise, run.__name__, inputs, run)


def gradients(tt, function, *arrays, g):
    """For a probe: the output of a function, and the gradients that g sends to each input."""
    tensors = [tt.Tensor(x, requires_grad=True) for x in arrays]
    output = function(*tensors)
    output.backward(g)
    return {"output": output, **{f"gradient_{i}": x.grad for i, x in enumerate(tensors)}}


def refusal(function, *arguments):
    """For a probe: the name of the error that a function raises for what it cannot take, or "nothing"."""
    try:
        function(*arguments)
    except Exception as error:
        return type(error).__name__
    return "nothing"


def load(path):
    """The Probes of a file, in its order; none where there is no such file."""
    if not Path(path).exists():
        return []
    return [value for value in runpy.run_path(str(path)).values() if isinstance(value, Probe)]


def _array(value, name):
    array = np.asarray(value.detach().numpy() if hasattr(value, "detach") else value)
    if array.dtype.kind not in KINDS:
        raise TypeError(f"{name} needs to be numbers, truth values or strings, not {type(value).__name__}")
    return array


# ---- what crosses the border between the processes


def collect(probes, tt, seed):
    """{"probe.name": array} of all probes. One that raises gives what it said, under "probe!"."""
    found = {}
    for probe in probes:
        try:
            found |= {f"{probe.name}.{name}": array for name, array in probe(tt, seed).items()}
        except Exception as error:
            found[f"{probe.name}!"] = np.array(f"{type(error).__name__}: {error}"[:1000])
    return found


def pack(arrays):
    """The bytes of an .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def unpack(content):
    """The arrays of an .npz file that nobody can trust: no pickles, and nothing larger than its own bytes.

    Raises ValueError for anything else.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError("more than there is room for")  # entries can share their bytes
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > LARGEST:
                    raise ValueError(f"{entry.filename} is compressed or too large")
                arrays[entry.filename.removesuffix(".npy")] = _unpacked(archive.read(entry))
    except Exception as error:  # whatever zipfile and NumPy run into
        raise ValueError(f"no .npz file: {error}") from error
    return arrays


def _unpacked(content):
    file = io.BytesIO(content)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, in_columns, dtype = header.get(np.lib.format.read_magic(file), _unknown)(file)
    if dtype.kind not in KINDS:
        raise ValueError(f"an array of {dtype}")
    content = content[file.tell() :]
    if any(n < 0 for n in shape) or len(content) != dtype.itemsize * int(np.prod([1, *shape], dtype=object)):
        raise ValueError(f"{len(content)} bytes for an array of shape {shape}, {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if in_columns else "C")


def _unknown(file):
    raise ValueError("an array of an unknown format")


# ---- the comparison


def differences(expected, got):
    """Sentences: how the arrays of a student differ from the reference's. Empty where they agree."""
    found = []
    for name, wanted in expected.items():
        what = name.replace("_", " ").replace(".", ": ", 1)
        if name in got:
            said = _difference(wanted, got[name])
            found += [f"{what} {said}"] if said else []
        elif (failed := f"{name.partition('.')[0]}!") in got:
            found.append(f"{failed[:-1].replace('_', ' ')}: {got[failed]}")
        else:
            found.append(f"{what} is missing")
    return list(dict.fromkeys(found))


def _difference(wanted, came):
    if wanted.shape != came.shape:
        return f"needs the shape {wanted.shape}, but has {came.shape}"
    if wanted.dtype.kind != came.dtype.kind:
        return f"needs the type {wanted.dtype}, but has {came.dtype}"
    if wanted.dtype.kind not in "fc":
        differs = wanted != came
    else:
        size = min(wanted.real.dtype.itemsize, came.real.dtype.itemsize)
        relative, absolute = TOLERANCE.get(size, TOLERANCE[4])
        with np.errstate(invalid="ignore"):
            differs = ~np.isclose(came, wanted, relative, absolute, equal_nan=True)
    count = int(np.sum(differs))
    return f"has other values than the reference at {count} of {wanted.size} places" if count else None
