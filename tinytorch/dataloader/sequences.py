"""Token sequences of many lengths as batches of one shape: padded to the longest, or packed into full rows.

Labels are a copy of the ids, not shifted: the loss shifts once. They are IGNORED where there is nothing to predict.
"""

import bisect

import numpy as np

from ..layers import require_positive
from ..tensor import Tensor
from .datasets import Dataset

IGNORED = -100  # the label that cross_entropy leaves out


def token_sample(sample, number=0):
    """A sample as a dict of int64 arrays (T,): "input_ids" and "labels".

    sample: a sequence of ids, whose labels are then a copy of it, or a dict with "input_ids" and perhaps "labels",
    neither shifted nor padded. Raises ValueError, naming the sample by its `number`, for anything else and for no ids.
    """
    fields = sample if isinstance(sample, dict) else {"input_ids": sample}
    if "input_ids" not in fields or not fields.keys() <= {"input_ids", "labels"}:
        raise ValueError(
            f"Sample {number} needs 'input_ids' and at most 'labels' beside it, but has {list(fields)}. Hand over "
            "sequences without padding: masks are made from their lengths."
        )
    ids = _integers(fields["input_ids"], number, "input_ids")
    labels = _integers(fields.get("labels", ids), number, "labels")
    if len(labels) != len(ids):
        raise ValueError(f"Sample {number} needs a label for each of its {len(ids)} ids, but has {len(labels)}.")
    return {"input_ids": ids, "labels": labels}


def _integers(values, number, name):
    array = values.numpy() if isinstance(values, Tensor) else np.array(values)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"Sample {number} needs a row of at least one integer as {name}, but got {array.dtype} of shape "
            f"{array.shape}."
        )
    return array.astype(np.int64)


class SequencePacker:
    """Packs sequences of ids into rows of `max_length`, several in a row, so that hardly a place is padding.

    A row is a dict of arrays (max_length,): "input_ids", padded at the end with `pad_id`; "labels", unshifted and
    IGNORED at padding; "attention_mask", true at real tokens; and "documents", 0, 1, ... for the sequences of the row
    and the next number for its padding, so that a model can keep them apart. (Krell et al. 2021, "Efficient Sequence
    Packing without Cross-contamination")
    """

    def __init__(self, max_length, pad_id=0):
        require_positive(max_length=max_length)
        self.max_length, self.pad_id = max_length, pad_id

    def pack(self, sequences):
        """The sequences as a PackedRows dataset, in an order that follows from their lengths alone.

        A sequence is a row of ids, or a dict with "input_ids" and "labels". One longer than max_length is cut into
        pieces, each a document of its own. Raises ValueError for one without ids, and for none.
        """
        samples = [token_sample(sequence, number) for number, sequence in enumerate(sequences)]
        if not samples:
            raise ValueError("SequencePacker needs at least one sequence, but got none.")
        pieces = [
            (sample["input_ids"][i : i + self.max_length], sample["labels"][i : i + self.max_length])
            for sample in samples
            for i in range(0, len(sample["input_ids"]), self.max_length)
        ]
        return PackedRows(pieces, self._places([len(ids) for ids, _ in pieces]), self.max_length, self.pad_id)

    def _places(self, lengths):
        """Which pieces stand in each row, a list of lists of numbers: best-fit decreasing.

        The longest come first, each into the row that it leaves the least room in. That needs at most 11/9 of the rows
        of the best packing there is, and a few more (Johnson et al. 1974).
        """
        rows, room = [], []  # room: (places left, row), sorted
        for i in np.argsort(-np.array(lengths), kind="stable").tolist():
            at = bisect.bisect_left(room, (lengths[i],))
            if at == len(room):
                room.append((self.max_length, len(rows)))
                rows.append([])
            left, row = room.pop(at)
            rows[row].append(i)
            if left > lengths[i]:
                bisect.insort(room, (left - lengths[i], row))
        return sorted(sorted(row) for row in rows)  # as the pieces came


class PackedRows(Dataset):
    """Rows of several sequences each, made when they are asked for; see SequencePacker.

    efficiency: the share of places that hold a real token.
    """

    def __init__(self, pieces, places, max_length, pad_id):
        self.pieces, self.places, self.max_length, self.pad_id = pieces, places, max_length, pad_id
        self.efficiency = sum(len(ids) for ids, _ in pieces) / (len(places) * max_length)

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        pieces = [self.pieces[i] for i in self.places[index]]
        row = {
            "input_ids": np.full(self.max_length, self.pad_id, np.int64),
            "labels": np.full(self.max_length, IGNORED, np.int64),
            "attention_mask": np.zeros(self.max_length, bool),
            "documents": np.full(self.max_length, len(pieces), np.int64),
        }
        end = 0
        for number, (ids, labels) in enumerate(pieces):
            start, end = end, end + len(ids)
            row["input_ids"][start:end], row["labels"][start:end] = ids, labels
            row["documents"][start:end] = number
        row["attention_mask"][:end] = True
        return row


def padded_collate(pad_id=0, padding_side="right"):
    """A `collate_fn` that pads sequences of ids to the longest of their batch.

    It takes a list of sequences, or of dicts with "input_ids" and perhaps "labels", and gives a dict of tensors (B, T):
    "input_ids", padded with `pad_id`; "labels", unshifted and IGNORED at padding; "attention_mask", true at real
    tokens, also at those that equal pad_id. padding_side: "right", or "left" for generation. It raises ValueError for
    samples that are no such sequences.
    """
    if padding_side not in ("right", "left"):
        raise ValueError(f"padding_side needs to be 'right' or 'left', but got {padding_side!r}.")

    def collate(samples):
        samples = [token_sample(sample, number) for number, sample in enumerate(samples)]
        lengths = [len(sample["input_ids"]) for sample in samples]
        shape = len(samples), max(lengths)
        ids, labels = np.full(shape, pad_id, np.int64), np.full(shape, IGNORED, np.int64)  # (B, T)
        mask = np.arange(shape[1]) < np.array(lengths)[:, None]  # (B, T)
        if padding_side == "left":
            mask = mask[:, ::-1].copy()
        ids[mask] = np.concatenate([sample["input_ids"] for sample in samples])  # row by row, as a mask picks
        labels[mask] = np.concatenate([sample["labels"] for sample in samples])
        return {"input_ids": Tensor(ids), "labels": Tensor(labels), "attention_mask": Tensor(mask)}

    return collate
