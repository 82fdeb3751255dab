"""Module 08: datasets, samplers, and loaders that turn them into batches."""

import itertools
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from . import device as devices
from .layers import require_positive
from .tensor import Tensor, stack

# ---- datasets


class Dataset:
    """Anything with `len(dataset)` and `dataset[i]`."""

    picks_arrays = False  # whether dataset[array of numbers] gives a whole batch, which saves picking one by one

    def __init_subclass__(cls, **settings):
        """A class with a __getitem__ of its own is asked for one sample at a time, unless it says picks_arrays."""
        super().__init_subclass__(**settings)
        place = {name: i for i, base in reversed(list(enumerate(cls.__mro__))) for name in vars(base)}
        if place["__getitem__"] < place["picks_arrays"]:
            cls.picks_arrays = False

    def __len__(self):
        raise NotImplementedError(f"{type(self).__name__} needs a __len__ method.")

    def __getitem__(self, index):
        raise NotImplementedError(f"{type(self).__name__} needs a __getitem__ method.")


class TensorDataset(Dataset):
    """Rows of tensors that have the same length; an array of numbers gives a whole batch in one pick."""

    picks_arrays = True

    def __init__(self, *tensors):
        lengths = [len(tensor) for tensor in tensors]
        if not tensors or len(set(lengths)) != 1:
            raise ValueError(f"TensorDataset needs tensors of one length, but got lengths {lengths}.")
        self.tensors = tensors

    def __len__(self):
        return len(self.tensors[0])

    def __getitem__(self, index):
        """A tuple with the row of each tensor at `index`; for an array of numbers (n,), with n rows of each."""
        return tuple(tensor[index] for tensor in self.tensors)


class Subset(Dataset):
    """The samples of a dataset at `indices`, in that order. Raises IndexError for indices that it does not have."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, np.array(indices, np.int64).reshape(-1)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(dataset))]
        if len(outside):
            raise IndexError(f"Subset needs indices from 0 to {len(dataset) - 1}, but got {outside[0]}.")

    @property
    def picks_arrays(self):
        return getattr(self.dataset, "picks_arrays", False)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        index = self.indices[index]
        return self.dataset[index if index.ndim else int(index)]


def random_split(dataset, lengths, generator=None):
    """Split a dataset at random into Subsets that share no sample.

    lengths: integers that sum to the length of the dataset, or fractions that sum to 1; what rounding down leaves over
    goes to the first parts, one sample each. Raises ValueError for other sums and for a part without samples.
    """
    n, sizes = len(dataset), list(lengths)
    if not _are_integers(sizes) and math.isclose(sum(sizes), 1):
        sizes = [math.floor(n * fraction) for fraction in sizes]
        left_over = n - sum(sizes)
        sizes = [size + (i < left_over) for i, size in enumerate(sizes)]
    _require_parts_of(n, sizes, lengths)
    order = devices.generator_or_default(generator).permutation(n)
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def _are_integers(sizes):
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def _require_parts_of(n, sizes, lengths):
    """Raise ValueError unless `sizes`, which were made of `lengths`, are integers above 0 that sum to n."""
    if not _are_integers(sizes) or not sizes or sum(sizes) != n or min(sizes) < 1:
        raise ValueError(
            f"random_split needs lengths above 0 that sum to {n}, the length of the dataset, or fractions that sum to "
            f"1 and leave no part empty, but got {list(lengths)}."
        )


# ---- samplers: the order of a pass


class Sampler:
    """Yields the numbers of the samples of a pass, in their order, and knows how many.

    `generator` is where its random numbers come from, if it needs any; a Trainer saves the state of it, to resume.
    """

    generator = None

    def __len__(self):
        raise NotImplementedError(f"{type(self).__name__} needs a __len__ method.")

    def __iter__(self):
        raise NotImplementedError(f"{type(self).__name__} needs an __iter__ method.")


class SequentialSampler(Sampler):
    """All samples of a dataset, first to last."""

    def __init__(self, data_source):
        self.data_source = data_source

    def __len__(self):
        return len(self.data_source)

    def __iter__(self):
        return iter(range(len(self)))


class RandomSampler(Sampler):
    """Samples of a dataset in random order: each once, or with `replacement` any of them at any time.

    num_samples: how many (default: as many as there are); beyond one pass without replacement the next one begins.
    """

    def __init__(self, data_source, replacement=False, num_samples=None, generator=None):
        if num_samples is not None:
            require_positive(num_samples=num_samples)
        self.data_source, self.replacement, self.num_samples = data_source, replacement, num_samples
        self.generator = devices.generator_or_default(generator)

    def __len__(self):
        return len(self.data_source) if self.num_samples is None else self.num_samples

    def __iter__(self):
        """An iterator over len(self) integers from 0 to n - 1, drawn anew from `self.generator` each time.

        With replacement each is drawn from all n. Without, all n come in random order before any comes again.
        """
        n = len(self.data_source)
        if self.replacement:
            return iter(self.generator.integers(0, n, len(self)).tolist())
        passes = [self.generator.permutation(n) for _ in range(math.ceil(len(self) / n))]
        return iter(np.concatenate(passes)[: len(self)].tolist())


class WeightedRandomSampler(Sampler):
    """`num_samples` numbers from 0 to len(weights) - 1, each drawn with a chance that is proportional to its weight.

    With weights 1 / (samples of the class), rare classes come as often as frequent ones. Raises ValueError for weights
    that are no chances, and, without replacement, for more samples than have one.
    """

    def __init__(self, weights, num_samples, replacement=True, generator=None):
        require_positive(num_samples=num_samples)
        weights = np.array(weights, np.float64)
        if weights.ndim != 1 or not (np.isfinite(weights) & (weights >= 0)).all() or weights.sum() <= 0:
            raise ValueError(
                "WeightedRandomSampler needs a row of finite weights of at least 0, not all 0, but got "
                f"{np.array2string(weights, threshold=10)}."
            )
        if not replacement and num_samples > np.count_nonzero(weights):
            raise ValueError(
                f"WeightedRandomSampler needs num_samples of at most {np.count_nonzero(weights)}, the number of "
                f"weights above 0, but got {num_samples}. Draw fewer, or with replacement."
            )
        self.weights, self.num_samples, self.replacement = weights, num_samples, replacement
        self.generator = devices.generator_or_default(generator)

    def __len__(self):
        return self.num_samples

    def __iter__(self):
        """An iterator over num_samples integers, drawn anew from `self.generator` with chances like the weights."""
        chances = self.weights / self.weights.sum()
        return iter(self.generator.choice(len(chances), self.num_samples, self.replacement, chances).tolist())


class BatchSampler(Sampler):
    """Lists of `batch_size` numbers from a sampler; with `drop_last` a shorter last one is left out."""

    def __init__(self, sampler, batch_size, drop_last=False):
        require_positive(batch_size=batch_size)
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    @property
    def generator(self):
        return getattr(self.sampler, "generator", None)

    def __len__(self):
        """The number of batches that a pass gives."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def __iter__(self):
        """Yields lists of `batch_size` numbers in the sampler's order; a shorter last one only without drop_last."""
        numbers = iter(self.sampler)
        while batch := list(itertools.islice(numbers, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


# ---- batches


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
        batches = iter(list(self.batch_sampler))  # drawn now, by whoever reads: how far it prefetches has no influence
        return self._ahead(batches) if self.prefetch else map(self._batch, batches)

    def _ahead(self, batches):
        """The batches from a thread, in order; an error in it is raised here, and leaving early ends it."""
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        try:
            waiting = deque(worker.submit(self._batch, batch) for batch in itertools.islice(batches, self.prefetch))
            while waiting:
                ready = waiting.popleft().result()
                waiting.extend(worker.submit(self._batch, batch) for batch in itertools.islice(batches, 1))
                yield ready
        finally:
            worker.shutdown(cancel_futures=True)

    def _batch(self, indices):
        if self.collate_fn is None and getattr(self.dataset, "picks_arrays", False):
            return self.dataset[np.array(indices)]
        return (self.collate_fn or default_collate)([self.dataset[int(i)] for i in indices])
