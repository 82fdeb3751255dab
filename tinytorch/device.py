"""The seam between NumPy and CuPy: the few things that do not follow an array by themselves.

CuPy arrays answer NumPy's dispatch protocols, so `np.exp(x)` or `np.zeros_like(x)` run where x lives and the rest of
the framework never asks. What is left: finding a device, moving arrays, adding at repeated indices, random numbers.
"""

import ctypes
import importlib
import importlib.util
import platform

import numpy as np

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the numbers of these options in glibc's malloc.h


def array_module(array):
    """The library an array belongs to: numpy, or the one (cupy) that its type comes from."""
    if isinstance(array, np.ndarray):
        return np
    return importlib.import_module(type(array).__module__.partition(".")[0])


def device_of(array):
    """'cpu' or 'cuda': where an array lives."""
    return "cpu" if isinstance(array, np.ndarray) else "cuda"


def is_cuda_available():
    """Whether CuPy is installed and finds a GPU (CuPy imports without one, so importing is no test)."""
    if importlib.util.find_spec("cupy") is None:
        return False
    return bool(importlib.import_module("cupy").cuda.is_available())


def check_device(device):
    """Return the device's name, or say why it cannot be used."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"A device is 'cpu' or 'cuda', but got {device!r}.")
    if device == "cuda" and not is_cuda_available():
        raise RuntimeError(
            "device 'cuda' needs CuPy and an NVIDIA GPU, and one of them is missing here. "
            "Install the extra 'cuda' on a machine with a GPU, or use device='cpu'."
        )
    return device


def to_device(array, device):
    """A copy of the array on the device, or the array itself where it is there already."""
    if device_of(array) == check_device(device):
        return array
    return to_numpy(array) if device == "cpu" else importlib.import_module("cupy").asarray(array)


def to_numpy(array):
    """An array of any library, or numbers, as a NumPy array in the host's memory."""
    if isinstance(array, np.ndarray):
        return array
    return array.get() if hasattr(array, "get") else np.asarray(array)


def filled(like, length, value):
    """An array of `length` equal numbers with the dtype and place of `like`; for few numbers faster than np.full_like.

    A product with it adds up rows or columns faster than np.sum.
    """
    array = np.empty_like(like, shape=(length,))
    array[...] = value
    return array


def keep_freed_memory():
    """Ask the C library to keep the memory of freed arrays for the next ones, up to 256 MB of it.

    Each training step frees large arrays and asks for the same ones again; when the memory goes back to the system in
    between, that costs up to a third of the step. Concerns the whole process, changes no result, and does nothing where
    the library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def scatter_add(target, index, values):
    """`target[index] += values` in place, where an index that occurs twice adds twice."""
    if isinstance(target, np.ndarray) and isinstance(index, np.ndarray) and index.dtype != bool and target.ndim == 2:
        _add_rows(target, index.ravel(), values.reshape(-1, target.shape[1]))
    else:
        array_module(target).add.at(target, index, values)


def _add_rows(target, rows, values):
    """Add by sorting: equal rows become neighbours, and each run is one sum. Several times faster than np.add.at."""
    if len(rows):
        rows = rows % len(target)  # -1 and the last number mean the same row
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
        target[rows[starts]] += np.add.reduceat(values[order], starts, axis=0)


class Generator(np.random.Generator):
    """A source of random numbers with PyTorch's handles: `manual_seed`, `get_state`, `set_state`.

    Numbers are always drawn on the host and moved, so that a seed means the same on every device.
    """

    def __init__(self, seed=None):
        super().__init__(np.random.PCG64(seed))

    def manual_seed(self, seed):
        """Start again from `seed` (an integer >= 0)."""
        self.bit_generator.state = np.random.PCG64(seed).state
        return self

    def get_state(self):
        """The whole state, as a dict of strings and integers that JSON can hold."""
        return self.bit_generator.state

    def set_state(self, state):
        self.bit_generator.state = state

    def __reduce__(self):  # copies and pickles stay what they are
        return _generator_in, (self.get_state(),)


def _generator_in(state):
    generator = Generator()
    generator.set_state(state)
    return generator


default_generator = Generator(0)


def generator_or_default(generator):
    """The generator that was given, or the default one for None."""
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise TypeError(f"generator needs a tinytorch.Generator, for example tt.Generator(0), but got {generator!r}.")
    return generator


def generators_of(objects):
    """Every source of randomness that objects draw from, each once: the default one and attributes `generator`."""
    found = [default_generator, *(getattr(place, "generator", None) for place in objects)]
    return list(dict.fromkeys(generator for generator in found if generator is not None))


def manual_seed(seed):
    """Seed the default generator, from which every layer and sampler draws unless it is given its own."""
    return default_generator.manual_seed(seed)
