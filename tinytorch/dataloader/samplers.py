"""Samplers: the numbers of the samples of a pass, in their order, one by one or in batches."""

import itertools
import math

import numpy as np

from .. import device as devices
from ..layers import require_positive


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
