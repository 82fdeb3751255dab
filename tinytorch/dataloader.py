"""Module 08: datasets and loaders."""

import numpy as np

from . import device as devices
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
        return tuple(default_collate(column) for column in zip(*samples))
    return stack([sample if isinstance(sample, Tensor) else Tensor(sample) for sample in samples])


class DataLoader:
    """Batches of a dataset, once through per iteration, in order or shuffled by `generator`.

    A loader can be saved in the middle of a pass: `state_dict` holds the random state that the pass began with and how
    many batches were handed out; the next iteration after `load_state_dict` goes on from there.
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, drop_last=False, collate_fn=None, generator=None):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"DataLoader needs a batch_size of at least 1, but got {batch_size!r}.")
        if len(dataset) == 0:
            raise ValueError("DataLoader needs a dataset with at least one sample, but got an empty one.")
        if drop_last and len(dataset) < batch_size:
            raise ValueError(
                f"{len(dataset)} samples make no full batch of {batch_size}, and drop_last drops the rest."
            )
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.collate_fn = collate_fn
        self.generator = generator or devices.default_generator
        self._began = self.generator.get_state()
        self._handed_out = 0
        self._resumed = False

    def __len__(self):
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def __iter__(self):
        if self._resumed and 0 < self._handed_out < len(self):
            now = self.generator.get_state()
            self.generator.set_state(self._began)
            order = self._order()
            self.generator.set_state(now)
        else:
            self._began, self._handed_out = self.generator.get_state(), 0
            order = self._order()
        self._resumed = False
        for i in range(self._handed_out, len(self)):
            self._handed_out = i + 1
            yield self._batch(order[i * self.batch_size : (i + 1) * self.batch_size])

    def _order(self):
        n = len(self.dataset)
        return self.generator.permutation(n) if self.shuffle else np.arange(n)

    def _batch(self, indices):
        if self.collate_fn is None and isinstance(self.dataset, TensorDataset):
            return self.dataset[indices]
        return (self.collate_fn or default_collate)([self.dataset[int(i)] for i in indices])

    def state_dict(self):
        return {"began": self._began, "handed_out": self._handed_out}

    def load_state_dict(self, state):
        self._began, self._handed_out, self._resumed = state["began"], state["handed_out"], True
