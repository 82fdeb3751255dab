"""Samplers for many ranks: one order for all, dealt like cards, so that no two ranks learn from the same samples."""

import contextlib
import math

import numpy as np

from .. import device as devices
from ..layers import require_positive
from .samplers import Sampler


class _DealingSampler(Sampler):
    """What a rank gets of an order that all ranks agree on: every `num_replicas`-th, beginning with number `rank`.

    The order depends on nothing but `seed` and the epoch that `set_epoch` names. Every rank gets as many: what is
    missing for that, `padding`, is taken again from the beginning of the order, or with `drop_last` the rest is left
    out. A class of this kind defines `_total` and `_order`.
    """

    def __init__(self, num_replicas, rank, shuffle, seed, drop_last):
        require_positive(num_replicas=num_replicas)
        _require_count("seed", seed)
        _require_count("rank", rank)
        name = type(self).__name__
        if rank >= num_replicas:
            raise ValueError(
                f"{name} needs a rank from 0 to {num_replicas - 1} where num_replicas={num_replicas}, but got {rank}."
            )
        self.num_replicas, self.rank, self.shuffle = num_replicas, rank, shuffle
        self.seed, self.drop_last, self.epoch = seed, drop_last, 0
        needed = num_replicas if drop_last else 1
        if self._total() < needed:
            raise ValueError(
                f"{name} needs at least {needed} to deal to {num_replicas} ranks with drop_last={drop_last}, but got "
                f"{self._total()}."
            )

    def set_epoch(self, epoch):
        """The order of this epoch comes next: call it before each pass, with the same integer on all ranks."""
        _require_count("epoch", epoch)
        self.epoch = epoch

    @property
    def padding(self):
        """How many are repeated, over all ranks, so that every rank gets as many; 0 with drop_last."""
        return max(0, len(self) * self.num_replicas - self._total())

    def __len__(self):
        """How many this rank gets, which is how many every rank gets."""
        return self._total() // self.num_replicas if self.drop_last else math.ceil(self._total() / self.num_replicas)

    def __iter__(self):
        order = self._order(devices.Generator([self.seed, self.epoch]))
        needed = len(self) * self.num_replicas
        padded = (order * math.ceil(needed / len(order)))[:needed]
        return iter(padded[self.rank :: self.num_replicas])

    def _total(self):
        """How many there are before they are dealt."""
        raise NotImplementedError

    def _order(self, generator):
        """A list of what is dealt, the same on every rank; `generator` is its only source of random numbers."""
        raise NotImplementedError


class DistributedSampler(_DealingSampler):
    """One rank's samples of a dataset (or of a number of samples) in an order that all ranks agree on, as in PyTorch.

    The order is a function of `seed` and epoch, so call `set_epoch(epoch)` before each pass. Ranks have no sample in
    common but the `padding` repeated ones, with which every rank gets as many; `drop_last` leaves a rest out instead.
    Raises ValueError for a rank that is not among `num_replicas`, and where a rank would get no sample.
    """

    def __init__(self, dataset, num_replicas, rank, shuffle=True, seed=0, drop_last=False):
        self.num_samples = dataset if isinstance(dataset, (int, np.integer)) else len(dataset)
        super().__init__(num_replicas, rank, shuffle, seed, drop_last)

    def _total(self):
        return self.num_samples

    def _order(self, generator):
        return generator.permutation(self.num_samples).tolist() if self.shuffle else list(range(self.num_samples))


class DistributedBatchSampler(_DealingSampler):
    """One rank's batches of a batch sampler: whole batches are dealt, so that they keep what makes them, like lengths.

    All ranks need an equal `batch_sampler`; its generator, if it has one, is set to `seed` and epoch while the order is
    drawn, and then put back. `shuffle` also mixes the batches. See DistributedSampler for set_epoch and padding.
    """

    def __init__(self, batch_sampler, num_replicas, rank, shuffle=True, seed=0, drop_last=False):
        self.batch_sampler = batch_sampler
        super().__init__(num_replicas, rank, shuffle, seed, drop_last)

    def _total(self):
        return len(self.batch_sampler)

    def _order(self, generator):
        with _drawing_from(generator, getattr(self.batch_sampler, "generator", None)):
            batches = list(self.batch_sampler)
        places = generator.permutation(len(batches)) if self.shuffle else range(len(batches))
        return [batches[i] for i in places]


@contextlib.contextmanager
def _drawing_from(generator, other):
    """Let `other`, a generator or None, draw the next numbers of `generator`; afterwards it is as if it drew none."""
    if other is None:
        yield
        return
    before = other.get_state()
    other.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(other.get_state())
        other.set_state(before)


def _require_count(name, value):
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
        raise ValueError(f"{name} needs an integer of at least 0, but got {value!r}.")
