"""From text in files to batches for a language model: read, tokenise, split, pack or pad, deal to ranks."""

import itertools
import json
import logging
import re
from pathlib import Path

import numpy as np

from .. import device as devices
from ..dataloader import (
    BatchSampler,
    DataLoader,
    DistributedBatchSampler,
    DynamicBatchSampler,
    RandomSampler,
    SequencePacker,
    SequentialSampler,
    Subset,
    default_collate,
    padded_collate,
    random_split,
    token_sample,
)
from ..dataloader.sequences import IGNORED
from ..distributed import connect
from ..tokenization import BPETokenizer, CharTokenizer

log = logging.getLogger("tinytorch")

# ---- text to sequences of ids


def load_tokenizer(path):
    """The tokenizer that a file holds, of whichever kind. Raises ValueError where the file is no tokenizer of ours."""
    kinds = {kind.TYPE: kind for kind in (BPETokenizer, CharTokenizer)}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        kind = kinds[content["type"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a tokenizer: {error!r}. Save one with tokenizer.save.") from error
    return kind.load(path)


def load_token_sequences(config, tokenizer=None):
    """(training sequences, validation sequences): the documents at `config.data.dataset_path` as arrays of ids.

    A folder holds a document in each `.txt` file, in its subfolders, too; of a single file, blank lines part the
    documents. Each ends with the tokenizer's end token. Whole documents are drawn for validation by `config.seed`: a
    share of val_split, and at least one unless that is 0. tokenizer: by default the one at tokenizer_path.
    Raises FileNotFoundError where there is no such path, and ValueError for files without text or in another encoding,
    for too few documents, and for a tokenizer with more tokens than the model knows.
    """
    tokenizer = load_tokenizer(_path(config, "tokenizer_path")) if tokenizer is None else tokenizer
    if tokenizer.vocab_size > config.model.vocab_size:
        raise ValueError(
            f"The model needs a vocab_size of at least {tokenizer.vocab_size}, the size of the tokenizer, but got "
            f"{config.model.vocab_size}."
        )
    texts, sequences = _texts(_path(config, "dataset_path")), []
    while some := list(itertools.islice(texts, config.data.preprocessing_batch_size)):
        sequences += [np.array(tokenizer.encode(text, add_end=True), np.int64) for text in some]
        log.info("Tokenised %d documents, %d tokens.", len(sequences), sum(map(len, sequences)))
    return _split(sequences, config)


def _path(config, name):
    value = getattr(config.data, name)
    if value is None:
        raise ValueError(f"Reading text needs data.{name} in the configuration, but it is not set.")
    if not Path(value).exists():
        raise FileNotFoundError(f"data.{name} is {value}, but nothing is there. Is the path right?")
    return Path(value)


def _texts(path):
    """The documents at a path, one after another; files are opened when it is their turn."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise ValueError(f"{path} needs at least one .txt file, but has none.")
        yield from map(_read, files)
    else:
        yield from (document for document in re.split(r"\n\s*\n", _read(path)) if document.strip())


def _read(file):
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} needs to be text in UTF-8, but {error.reason} at byte {error.start}.") from error
    if not text.strip():
        raise ValueError(f"{file} is empty. Remove it, or put text into it.")
    return text


def _split(sequences, config):
    """The sequences of training and of validation, each in their order."""
    n = len(sequences)
    held_out = max(1, round(n * config.data.val_split)) if config.data.val_split else 0
    if not held_out:
        return sequences, []
    if held_out >= n:
        raise ValueError(
            f"val_split={config.data.val_split} of the documents leaves none to train on, as there are {n}. Part the "
            "text by blank lines or into several files, or set val_split=0 and train_split=1."
        )
    parts = random_split(sequences, [n - held_out, held_out], devices.Generator(config.seed))
    return tuple([sequences[i] for i in sorted(part.indices.tolist())] for part in parts)


# ---- sequences of ids to batches


def create_data_loaders(train_dataset, val_dataset, config, ranks=None):
    """(training loader, validation loader), both of dicts of tensors (B, T): "input_ids", "labels", "attention_mask".

    A dataset has sequences of ids, or dicts of "input_ids" and "labels", of any length; without a val_dataset the
    second loader is None. `config.data` says the rest. With `packing`, rows of max_seq_length hold several sequences,
    longer ones are cut into pieces, and "documents" tells them apart. Without, longer ones lose their end, and a batch
    is padded to its longest. A batch has at most batch_size rows and max_tokens_per_batch places; with that, or with
    bucket_by_length, its rows are of like length. Rows with nothing to predict are left out. How many lost something
    is logged once, by the first rank.
    ranks: from `distributed.connect`, by default; whole batches are dealt to them. In training each gets as many, a few
    of them twice where they do not come out even; call `loader.batch_sampler.set_epoch(epoch)` before each pass. In
    validation none comes twice, so that the sum over the ranks is what one process finds; a rank may have none.
    Raises ValueError for samples that are no sequences, and where there is nothing to predict at all.
    """
    ranks = ranks or connect()
    train = _loader(train_dataset, "training", config, ranks, is_training=True)
    if val_dataset is None or len(val_dataset) == 0:
        return train, None
    return train, _loader(val_dataset, "validation", config, ranks, is_training=False)


def _loader(dataset, name, config, ranks, is_training):
    data, pad_id = config.data, getattr(config.model, "pad_token_id", 0)
    warn = log.warning if ranks.rank == 0 else lambda *message: None  # once, not by every rank
    samples = [token_sample(dataset[i], i) for i in range(len(dataset))]
    if data.packing:
        rows = SequencePacker(data.max_seq_length, pad_id).pack(samples)
    else:
        rows = _cut_off(samples, data.max_seq_length, name, warn)
    rows = _with_targets(rows, name, warn)
    shuffle = is_training and data.shuffle_data
    batch_sampler = _batch_sampler([len(row["input_ids"]) for row in rows], config, shuffle)
    if ranks.is_distributed:
        batch_sampler = _dealt(batch_sampler, ranks, config.seed, is_training)
    collate = default_collate if data.packing else padded_collate(pad_id)
    return DataLoader(rows, batch_sampler=batch_sampler, collate_fn=collate, prefetch=data.num_workers)


def _cut_off(samples, max_length, name, warn):
    """The samples without what is beyond max_length."""
    too_long = sum(len(sample["input_ids"]) > max_length for sample in samples)
    if too_long:
        warn(
            "%d of %d %s sequences are longer than max_seq_length=%d and lose their end; data.packing=True keeps it.",
            *(too_long, len(samples), name, max_length),
        )
    return [{key: values[:max_length] for key, values in sample.items()} for sample in samples]


def _with_targets(rows, name, warn):
    """The rows in which a token is to be predicted from one before it: a batch needs at least one such."""
    kept = [i for i, row in enumerate(rows) if _has_target(row)]
    if not kept:
        raise ValueError(
            f"The {name} data need at least one sequence of 2 tokens or more with a label, but none of {len(rows)} is."
        )
    if len(kept) < len(rows):
        warn("%d of %d %s rows have nothing to predict and are left out.", len(rows) - len(kept), len(rows), name)
    return Subset(rows, kept)


def _has_target(row):
    targets = row["labels"][1:] != IGNORED
    if "documents" in row:
        targets = targets & (row["documents"][1:] == row["documents"][:-1])
    return bool(targets.any())


def _dealt(batch_sampler, ranks, seed, is_training):
    if not is_training:
        return list(batch_sampler)[ranks.rank :: ranks.world_size]
    # shuffle=False: seed and epoch already shuffle what it deals from
    return DistributedBatchSampler(batch_sampler, ranks.world_size, ranks.rank, shuffle=False, seed=seed)


def _batch_sampler(lengths, config, shuffle):
    batch_size, max_tokens = config.training.batch_size, config.data.max_tokens_per_batch
    generator = devices.Generator(config.seed) if shuffle else None
    if config.data.bucket_by_length or max_tokens is not None:
        return DynamicBatchSampler(lengths, batch_size, max_tokens, shuffle=shuffle, generator=generator)
    order = RandomSampler(lengths, generator=generator) if shuffle else SequentialSampler(lengths)
    return BatchSampler(order, batch_size)
