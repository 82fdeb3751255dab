"""Batches of samples of like length, so that little of a batch is padding."""

import math

import numpy as np

from .. import device as devices
from ..layers import require_positive
from .samplers import Sampler


class DynamicBatchSampler(Sampler):
    """Batches of samples of like length: of `batch_size` samples, or of as many as `max_tokens` allow, or both.

    lengths: of each sample. max_tokens: the most that rows times the longest row may be, padding included.
    Samples are sorted by length, longest first, and cut into buckets that make `batches_per_bucket` batches each. With
    `shuffle`, equal lengths change places, samples are mixed within their bucket, and all batches among each other, by
    `generator`: 1 gives the least padding, more give a sample other neighbours in every pass. The sizes of the batches
    are the same in every pass; with `drop_last`, one that is smaller than its bucket allows is left out.
    Raises ValueError for lengths below 1, for a sample longer than max_tokens, and without any limit.
    """

    def __init__(
        self,
        lengths,
        batch_size=None,
        max_tokens=None,
        *,
        batches_per_bucket=4,
        shuffle=True,
        generator=None,
        drop_last=False,
    ):
        if batch_size is None and max_tokens is None:
            raise ValueError("DynamicBatchSampler needs batch_size, max_tokens, or both, but got neither.")
        limits = {"batch_size": batch_size, "max_tokens": max_tokens}
        limits = {name: limit for name, limit in limits.items() if limit is not None}
        require_positive(batches_per_bucket=batches_per_bucket, **limits)
        self.lengths = _lengths(lengths, max_tokens)
        self.batch_size, self.max_tokens, self.batches_per_bucket = batch_size, max_tokens, batches_per_bucket
        self.shuffle, self.drop_last = shuffle, drop_last
        self.generator = devices.generator_or_default(generator) if shuffle else None
        self._cuts = self._cut()
        if len(self) == 0:
            raise ValueError(f"{len(self.lengths)} samples make no full batch, and drop_last drops the rest.")

    def _cut(self):
        """For each bucket, in the order of falling length: (where it begins, where it ends, samples of a batch)."""
        falling, cuts, start = np.sort(self.lengths)[::-1], [], 0
        while start < len(falling):
            limits = [] if self.batch_size is None else [self.batch_size]
            limits += [] if self.max_tokens is None else [self.max_tokens // int(falling[start])]
            rows = min(limits)
            end = min(start + rows * self.batches_per_bucket, len(falling))
            cuts.append((start, end, rows))
            start = end
        return cuts

    def __len__(self):
        """The number of batches that a pass gives: the same for every pass, as it follows from the lengths alone."""
        rounded = math.floor if self.drop_last else math.ceil
        return sum(rounded((end - start) / rows) for start, end, rows in self._cuts)

    def __iter__(self):
        """Yields lists of numbers; without shuffle those of the longest samples first."""
        n = len(self.lengths)
        order = self.generator.permutation(n) if self.shuffle else np.arange(n)
        order = order[np.argsort(-self.lengths[order], kind="stable")]
        batches = []
        for start, end, rows in self._cuts:
            bucket = self.generator.permutation(order[start:end]) if self.shuffle else order[start:end]
            batches += [bucket[i : i + rows].tolist() for i in range(0, end - start, rows)]
            if self.drop_last and len(batches[-1]) < rows:
                batches.pop()
        places = self.generator.permutation(len(batches)) if self.shuffle else range(len(batches))
        return iter([batches[i] for i in places])


def _lengths(lengths, max_tokens):
    """The lengths as an array. Raises ValueError where they are none, or where one is longer than max_tokens."""
    lengths = np.array(lengths)
    if lengths.ndim != 1 or not len(lengths) or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"DynamicBatchSampler needs a row of integers, the length of each sample, but got {lengths.dtype} of shape "
            f"{lengths.shape}."
        )
    if lengths.min() < 1:
        i = int(lengths.argmin())
        raise ValueError(f"DynamicBatchSampler needs lengths of at least 1, but sample {i} has {lengths[i]}.")
    if max_tokens is not None and lengths.max() > max_tokens:
        i = int(lengths.argmax())
        raise ValueError(
            f"Sample {i} has {lengths[i]} tokens, but max_tokens={max_tokens} is the most that a batch may have. "
            "Raise it, or shorten or split the sample."
        )
    return lengths.astype(np.int64)
