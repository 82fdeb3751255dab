"""The loader: samples in a sampler's order, made into batches, where wanted ahead of time."""

import itertools
import threading
from queue import SimpleQueue

import numpy as np

from .. import device as devices
from ..layers import require_positive
from ..tensor import Tensor, stack
from .samplers import BatchSampler, RandomSampler, SequentialSampler


def default_collate(samples):
    """A batch of a list of samples: tensors, arrays or numbers stacked along a new first axis.

    Samples that are tuples or lists give a tuple of batches, one for each place; dicts give a dict of batches; however
    deep. Raises ValueError where samples differ in their shapes, their number of parts, or their keys.
    """
    first = samples[0]
    if isinstance(first, dict):
        _require_same_keys(samples)
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        _require_as_many_parts(samples)
        return tuple(default_collate(column) for column in zip(*samples))
    return stack([sample if isinstance(sample, Tensor) else Tensor(sample) for sample in samples])


def _require_same_keys(samples):
    keys = [set(sample) for sample in samples]
    if any(other != keys[0] for other in keys):
        raise ValueError(f"A batch needs samples with the same keys, but got {sorted(map(sorted, keys), key=len)}.")


def _require_as_many_parts(samples):
    lengths = sorted({len(sample) for sample in samples})
    if len(lengths) > 1:
        raise ValueError(f"A batch needs samples with as many parts each, but got lengths {lengths}.")


class DataLoader:
    """Batches of a dataset, once through per iteration, in order or shuffled by `generator`.

    sampler: gives the order instead of `shuffle`; batch_sampler: gives whole batches of numbers.
    collate_fn: makes a batch of a list of samples (default: `default_collate`).
    prefetch: how many batches a thread of its own prepares ahead. Batches and their order are the same with it, as long
    as the dataset draws no random numbers itself: those would be drawn earlier than without.
    The whole order of a pass is drawn when it begins. Raises ValueError for an empty dataset, for sizes that cannot be,
    and for arguments that say the same thing twice.
    """

    def __init__(
        self,
        dataset,
        batch_size=1,
        shuffle=False,
        sampler=None,
        batch_sampler=None,
        *,
        collate_fn=None,
        drop_last=False,
        generator=None,
        prefetch=0,
    ):
        if len(dataset) == 0:
            raise ValueError("DataLoader needs a dataset with at least one sample, but got an empty one.")
        if prefetch != 0:
            require_positive(prefetch=prefetch)
        if sampler is not None or batch_sampler is not None:
            self._require_one_order(shuffle, generator, sampler, batch_sampler, batch_size, drop_last)
        elif shuffle:
            sampler = RandomSampler(dataset, generator=generator)
        else:
            sampler = SequentialSampler(dataset)
        self.dataset, self.sampler, self.collate_fn, self.prefetch = dataset, sampler, collate_fn, prefetch
        self.batch_size = None if batch_sampler is not None else batch_size
        self.batch_sampler = BatchSampler(sampler, batch_size, drop_last) if batch_sampler is None else batch_sampler
        if batch_sampler is None and drop_last and len(self) == 0:
            raise ValueError(
                f"{len(sampler)} samples make no full batch of {batch_size}, and drop_last drops the rest."
            )
        # never None: whether a Trainer's checkpoint fits must not depend on shuffling
        self.generator = getattr(self.batch_sampler, "generator", None) or devices.generator_or_default(generator)
        self._turn = threading.Lock()  # of the thread that reads the dataset: that of a pass left early may still do so

    @staticmethod
    def _require_one_order(shuffle, generator, sampler, batch_sampler, batch_size, drop_last):
        given = {"shuffle": shuffle, "generator": generator is not None}
        if batch_sampler is not None:
            given |= {"sampler": sampler is not None, "batch_size": batch_size != 1, "drop_last": drop_last}
        twice = [name for name, value in given.items() if value]
        kind = "sampler" if batch_sampler is None else "batch_sampler"
        if twice:
            raise ValueError(f"DataLoader needs {' and '.join(twice)} or a {kind}, but got both: tell it the {kind}.")
        if not hasattr(sampler if batch_sampler is None else batch_sampler, "__len__"):
            raise ValueError(f"DataLoader needs a {kind} that knows how much it gives: add a __len__ method.")

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        batches = list(self.batch_sampler)  # drawn now, by whoever reads: how far it prefetches has no influence
        return self._ahead(batches) if self.prefetch else map(self._batch, batches)

    def _ahead(self, batches):
        """The batches from a thread, in order; an error in it is raised here, and leaving early ends it.

        Whoever drops a pass may be the garbage collector, in any thread, at any moment: the end waits for nothing, and
        takes no lock. `SimpleQueue.put` is made for that.
        """
        wanted, made, left = SimpleQueue(), SimpleQueue(), []  # `left` is filled once nobody reads any more
        threading.Thread(target=self._make, args=(wanted, made, left), name="prefetch", daemon=True).start()
        try:
            for indices in batches[: self.prefetch]:
                wanted.put(indices)
            for following in itertools.chain(batches[self.prefetch :], [None] * min(self.prefetch, len(batches))):
                batch, error = made.get()
                if error is not None:
                    raise error
                wanted.put(following)
                yield batch
        finally:
            error = None  # its traceback holds this frame
            left.append(True)
            wanted.put(None)

    def _make(self, wanted, made, left):
        """The thread's work: (batch, None) or (None, error) for each that is wanted, until nobody reads any more."""
        while (indices := wanted.get()) is not None and not left:
            try:
                with self._turn:
                    made.put((self._batch(indices), None))
            except BaseException as error:
                made.put((None, error))

    def _batch(self, indices):
        if self.collate_fn is None and getattr(self.dataset, "picks_arrays", False):
            return self.dataset[np.array(indices)]
        return (self.collate_fn or default_collate)([self.dataset[int(i)] for i in indices])
