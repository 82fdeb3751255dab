"""Datasets: anything with a length and numbered samples, and how to split it."""

import math

import numpy as np

from .. import device as devices


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
