"""What a language model learns from a batch: the next token, wherever there is one to predict.

A batch is a dict: "input_ids" (B, T); "labels" (B, T), the ids again, not shifted, and -100 where nothing is to be
predicted (default: the ids); "attention_mask" (B, T), true at real tokens (default: all); "documents" (B, T), where
rows hold several: which document of its row a token belongs to.
"""

import numpy as np

from ..dataloader.sequences import IGNORED
from ..losses import cross_entropy
from ..tensor import Tensor


def language_model_loss(model, batch):
    """(mean loss, count): the surprise, in nats, at each next token, and how many tokens that is the mean of.

    `next_token_loss` of lesson 13 for batches in which rows are padded on either side, packed, or partly labelled.
    Labels are shifted here and nowhere else: position t predicts label t + 1. Not counted are labels of -100, padding,
    what follows padding on the left, and the first token of a document, which no other document predicts.
    Raises ValueError for a batch that is no such dict, and where no token is left to predict.
    """
    ids, mask, documents = (_array(batch, name) for name in ("input_ids", "attention_mask", "documents"))
    device = next(model.parameters()).device
    given = {}
    if mask is not None and not mask.all():
        given["key_padding_mask"] = Tensor(mask[:, :-1] == 0).to(device)
    if documents is not None:
        given["documents"] = Tensor(documents[:, :-1]).to(device)
    targets = next_tokens(batch)
    count = int(np.count_nonzero(targets != IGNORED))
    if count == 0:
        raise ValueError(f"A batch needs a token to predict, but none of {ids.shape} is left. Are all labels -100?")
    logits = model(Tensor(ids[:, :-1]).to(device), **given)  # (B, T - 1, V)
    return cross_entropy(logits.flatten(0, 1), Tensor(targets.reshape(-1)).to(device), ignore_index=IGNORED), count


def next_tokens(batch):
    """The targets (B, T - 1) of a batch, an array: the label one position on, or -100 where none is to be predicted."""
    ids, labels, mask, documents = (
        _array(batch, name) for name in ("input_ids", "labels", "attention_mask", "documents")
    )
    targets = (ids if labels is None else labels)[:, 1:]
    counted = np.ones_like(targets, dtype=bool)
    if mask is not None:
        counted &= (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
    if documents is not None:
        counted &= documents[:, 1:] == documents[:, :-1]
    return np.where(counted, targets, IGNORED)


def count_tokens(batch):
    """How many real tokens a batch holds: those that its attention_mask calls so, or all."""
    mask = _array(batch, "attention_mask")
    return int(_array(batch, "input_ids").size if mask is None else np.count_nonzero(mask))


def split_rows(batch, rows):
    """The batch in pieces of at most `rows` rows (None: as it is), without those that hold no token to predict."""
    total = len(_array(batch, "input_ids"))
    if rows is None or rows >= total:
        return [batch]
    pieces = [{name: value[start : start + rows] for name, value in batch.items()} for start in range(0, total, rows)]
    return [piece for piece in pieces if (next_tokens(piece) != IGNORED).any()] or [batch]


def _array(batch, name):
    """The array called `name` in a batch, or None. Raises ValueError where it cannot be what its name says."""
    if not isinstance(batch, dict) or "input_ids" not in batch:
        keys = f"the keys {', '.join(map(str, batch))}" if isinstance(batch, dict) else f"a {type(batch).__name__}"
        raise ValueError(f"A batch needs to be a dict with 'input_ids' (B, T), but is {keys}.")
    if batch.get(name) is None:
        return None
    array, ids = (value.data if isinstance(value, Tensor) else value for value in (batch[name], batch["input_ids"]))
    for part, value in ((name, array), ("input_ids", ids)):
        if not hasattr(value, "dtype"):
            raise ValueError(
                f"A batch needs {part} to be an array or a tensor (B, T), but got a {type(value).__name__}. "
                "np.array(rows) makes an array of a list of rows of one length; padded_collate makes them so."
            )
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "iub" or array.shape != ids.shape:
        raise ValueError(
            f"A batch needs {name} with integers of shape (B, T), T at least 2, like input_ids, but got {array.dtype} "
            f"of shape {array.shape} beside {ids.shape}."
        )
    return array
