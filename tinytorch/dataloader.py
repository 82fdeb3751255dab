"""Module 08: datasets and loaders."""

import numpy as np

from . import device as devices
from .layers import require_positive
from .tensor import Tensor, stack


class Dataset:
    """Anything with `len(dataset)` and `dataset[i]`."""

    def __len__(self):
        raise NotImplementedError(f"{type(self).__name__} needs a __len__ method.")

    def __getitem__(self, index):
        raise NotImplementedError(f"{type(self).__name__} needs a __getitem__ method.")


class TensorDataset(Dataset):
    """Rows of tensors that have the same length; an array of numbers gives a whole batch in one pick."""

    def __init__(self, *tensors):
        lengths = [len(tensor) for tensor in tensors]
        if not tensors or len(set(lengths)) != 1:
            raise ValueError(f"TensorDataset needs tensors of one length, but got lengths {lengths}.")
        self.tensors = tensors

    def __len__(self):
        return len(self.tensors[0])

    def __getitem__(self, index):
        return tuple(tensor[index] for tensor in self.tensors)


def default_collate(samples):
    """Samples (tensors, numbers, or tuples of these) stacked into a batch."""
    if isinstance(samples[0], (tuple, list)):
        lengths = sorted({len(sample) for sample in samples})
        if len(lengths) > 1:
            raise ValueError(f"A batch needs samples with as many parts each, but got lengths {lengths}.")
        return tuple(default_collate(column) for column in zip(*samples))
    return stack([sample if isinstance(sample, Tensor) else Tensor(sample) for sample in samples])


class DataLoader:
    """Batches of a dataset, once through per iteration, in order or shuffled by `generator`.

    The order of a pass is drawn when it begins. Raises ValueError for an empty dataset and sizes that cannot be.
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, drop_last=False, collate_fn=None, generator=None):
        require_positive(batch_size=batch_size)
        if len(dataset) == 0:
            raise ValueError("DataLoader needs a dataset with at least one sample, but got an empty one.")
        if drop_last and len(dataset) < batch_size:
            raise ValueError(
                f"{len(dataset)} samples make no full batch of {batch_size}, and drop_last drops the rest."
            )
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn = collate_fn
        self.generator = generator or devices.default_generator

    def __len__(self):
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def __iter__(self):
        n = len(self.dataset)
        order = self.generator.permutation(n) if self.shuffle else np.arange(n)
        for i in range(len(self)):
            yield self._batch(order[i * self.batch_size : (i + 1) * self.batch_size])

    def _batch(self, indices):
        if self.collate_fn is None and isinstance(self.dataset, TensorDataset):
            return self.dataset[indices]
        return (self.collate_fn or default_collate)([self.dataset[int(i)] for i in indices])
