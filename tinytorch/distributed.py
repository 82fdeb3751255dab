"""Module 19: several processes train one model, each on its share of the data, and add up their gradients over MPI.

Started with `mpiexec -n 2 python -m mpi4py script.py`: the part `-m mpi4py` ends all processes where one raises, while
the others would otherwise wait for it forever. mpi4py is imported where processes are to be connected, not before.
"""

import math
import os

import numpy as np

from . import device as devices
from .tensor import wrap

HOW_TO_START = "Start with: mpiexec -n 2 python -m mpi4py script.py"
STARTED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # set by the mpiexec of MPICH, Intel, Microsoft, Open MPI
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # how many processes it started, where it says so


class Ranks:
    """The processes that train together: `world_size` of them, this one with number `rank`, from 0.

    local_rank: its number among those on the same machine. Every process has to call the same methods in the same
    order: each waits for the others. Arrays are NumPy's; those of CuPy go through the host's memory and back.
    """

    def __init__(self, communicator=None, local_rank=0):
        """communicator: mpi4py's, or None for a process that is alone."""
        self._communicator = communicator
        self.rank = 0 if communicator is None else communicator.Get_rank()
        self.world_size = 1 if communicator is None else communicator.Get_size()
        self.local_rank = local_rank

    @property
    def is_distributed(self):
        """Whether there are others."""
        return self.world_size > 1

    def all_reduce(self, array):
        """The sum of every rank's `array`, in place and on all ranks. Returns the array.

        Raises TypeError for what MPI cannot add up, and ValueError, on all ranks, where shapes or dtypes differ.
        """
        if getattr(array, "dtype", np.dtype(bool)).kind not in "fiu" or array.dtype == np.float16:
            what = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"all_reduce needs an array of integers, float32 or float64, but got {what}.")
        return self._in_place("all_reduce", array, lambda buffer: self._communicator.Allreduce(_mpi().IN_PLACE, buffer))

    def broadcast(self, array, root=0):
        """The `array` of rank `root`, in place and on all ranks. Returns the array.

        Raises TypeError for what is no array, and ValueError for a rank that is none or where shapes or dtypes differ.
        """
        if not hasattr(array, "dtype"):
            raise TypeError(f"broadcast needs an array, but got a {type(array).__name__}.")
        if not 0 <= root < self.world_size:
            raise ValueError(f"broadcast needs a root from 0 to {self.world_size - 1}, but got {root}.")
        return self._in_place(
            "broadcast", array, lambda buffer: self._communicator.Bcast(buffer.view(np.uint8), root=root)
        )

    def barrier(self):
        """Wait here until all ranks have come."""
        if self._communicator is not None:
            self._communicator.Barrier()

    def gather(self, value):
        """A list with the `value` of every rank, in their order, on all ranks: anything that can be pickled."""
        return [value] if self._communicator is None else self._communicator.allgather(value)

    def _in_place(self, name, array, communicate):
        """Let `communicate` change the array by way of a buffer in the host's memory."""
        if self._communicator is None:
            return array
        kinds = self.gather((array.shape, array.dtype.str))
        if len(set(kinds)) > 1:
            raise ValueError(f"{name} needs arrays of one shape and dtype, but the ranks gave {kinds}.")
        buffer = np.array(devices.to_numpy(array)).reshape(-1)  # what MPI sends is in one piece
        communicate(buffer)
        array[...] = devices.to_device(buffer.reshape(array.shape), devices.device_of(array))
        return array


def connect(env=os.environ):
    """The Ranks of this process: those that mpiexec started, or itself alone where nothing says otherwise.

    env: WORLD_SIZE, RANK and LOCAL_RANK may be set, as by PyTorch's launchers, and must then agree with MPI, which is
    started only where mpiexec's own variables are there.
    Raises ValueError for variables that are no such numbers, RuntimeError where they need an MPI that is not there.
    """
    wanted = {name: _number(env, name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    if not any(name in env for name in STARTED):
        _require_alone(wanted)
        return Ranks()
    communicator = _mpi().COMM_WORLD
    for name in SIZES:
        if _number(env, name) not in (None, communicator.Get_size()):
            raise RuntimeError(
                f"mpiexec started {env[name]} processes, but mpi4py sees {communicator.Get_size()}: it uses another "
                "MPI. Use the mpiexec of the MPI that mpi4py finds."
            )
    local = communicator.Split_type(_mpi().COMM_TYPE_SHARED).Get_rank()
    found = {"WORLD_SIZE": communicator.Get_size(), "RANK": communicator.Get_rank(), "LOCAL_RANK": local}
    for name, value in wanted.items():
        if value not in (None, found[name]):
            raise RuntimeError(f"{name}={value}, but MPI says {found[name]}. Leave it unset. {HOW_TO_START}")
    return Ranks(communicator, local)


def _require_alone(wanted):
    """Raise unless the variables, as far as they are set, are those of a process without others."""
    size = wanted["WORLD_SIZE"]
    if size is not None and size > 1:
        raise RuntimeError(f"WORLD_SIZE={size} needs processes connected by MPI, and this is none. {HOW_TO_START}")
    for name, value in wanted.items():
        alone = int(name == "WORLD_SIZE")
        if value not in (None, alone):
            raise ValueError(f"One process has {name}={alone}, but it is {value}. Leave it unset. {HOW_TO_START}")


def _number(env, name):
    """The variable `name` as an integer of at least 0, or None where it is not set."""
    if name not in env:
        return None
    if not env[name].isdecimal():
        raise ValueError(f"The environment variable {name} needs an integer of at least 0, but is {env[name]!r}.")
    return int(env[name])


def _mpi():
    """mpi4py's module MPI; importing it starts MPI. Raises RuntimeError where it or an MPI is missing."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the second where mpi4py finds no library of an MPI
        raise RuntimeError(
            f"Several processes need mpi4py and an MPI: pip install 'tinytorch-edu[mpi]'. ({error})"
        ) from error
    return MPI


def all_reduce_gradients(parameters, weight, ranks):
    """Turn gradients that each rank added up over its own batches into those of the mean over all ranks' batches.

    Each `.grad` holds the sum of `weight of a batch * gradient of its mean loss`, and `weight` the sum of those weights
    on this rank, for example its number of tokens. Returns the weight of all ranks, by which the gradients are divided.
    A parameter gets a gradient where any rank has one for it. One buffer and one call, however many parameters; all
    ranks need the same parameters in the same order. Raises ValueError where no rank has any weight, or one that is
    not finite.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    has = [parameter.grad is not None for parameter in parameters]
    pieces = [devices.to_numpy(p.grad.data).reshape(-1) if h else np.zeros(p.numel()) for p, h in zip(parameters, has)]
    dtype = np.result_type(np.float32, *(parameter.dtype for parameter in parameters))
    sums = ranks.all_reduce(np.concatenate([*pieces, has, [weight]], dtype=dtype, casting="unsafe"))
    total = float(sums[-1])
    if not 0 < total < math.inf:
        raise ValueError(f"all_reduce_gradients needs finite weights, one of them above 0, but they sum to {total}.")
    sums[: -len(has) - 1] /= total
    start = 0
    for parameter, holders in zip(parameters, sums[-len(has) - 1 :]):
        end = start + parameter.numel()
        if holders:
            mean = sums[start:end].reshape(parameter.shape).astype(parameter.dtype, copy=False)
            parameter.grad = wrap(devices.to_device(mean, parameter.device))
        start = end
    return total
