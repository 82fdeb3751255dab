"""Texts to learn from that come with Python, and what a model of them is measured by: bits per byte.

A tokenizer decides how many tokens a text has, so losses per token cannot be compared; bits per byte of text can.
Beside a neural network stands a model that only counts: a 5-gram of bytes with Kneser-Ney smoothing.
"""

import hashlib
import math
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tinytorch as tt

MAX_BYTES = 1_500_000
HELD_OUT = 0.05  # of the bytes, at least, in whole texts
MERGES = 1000


class Corpus(NamedTuple):
    """Texts in a fixed order, the last ones held out; `unit` says what each of them is."""

    training: list
    held_out: list
    unit: str

    def sha256(self):
        """What tells this text from that of another version of Python."""
        return hashlib.sha256("".join(self.training + self.held_out).encode()).hexdigest()

    def describe(self):
        return (
            f"{len(self.training)} {self.unit} to learn, {size(self.training):,} bytes; "
            f"{len(self.held_out)} held out, {size(self.held_out):,} bytes; sha256 {self.sha256()}"
        )


def size(texts):
    """Bytes of the texts together."""
    return sum(len(text.encode()) for text in texts)


def read_stdlib():
    """The top-level files of the standard library in the order of their names, up to MAX_BYTES, the last ones held out.

    Raises FileNotFoundError where Python came without its source.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = []
    for path in sorted(folder.glob("*.py"), key=lambda path: path.name):
        if path.name.startswith("_sysconfigdata"):  # how this very Python was built: written by no person
            continue
        text = path.read_text(encoding="utf-8")
        if size([*texts, text]) > MAX_BYTES:
            break
        texts.append(text)
    if len(texts) < 2:
        raise FileNotFoundError(f"The corpus needs Python's own source files, but {folder} has none.")
    return _hold_out(texts, "files of the standard library")


def read_topics():
    """Python's language reference as `help("topics")` has it, topic by topic, by name, the last ones held out.

    Topics hold each other: "compound" is "if", "while", "with" and more. So each paragraph, however it is indented,
    counts once, where it first stands, and what is held out is nowhere in what is learned.
    Raises FileNotFoundError where Python came without it.
    """
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError:
        raise FileNotFoundError(
            "The corpus needs the module pydoc_data.topics, but this Python came without it. Take another Python, or "
            "another corpus."
        ) from None
    seen, texts = set(), []
    for name in sorted(topics):
        paragraphs = {" ".join(paragraph.split()): paragraph for paragraph in topics[name].split("\n\n")}
        new = [paragraph for words, paragraph in paragraphs.items() if words not in seen]
        seen.update(paragraphs)
        if new:
            texts.append("\n\n".join(new))
    return _hold_out(texts, "topics of the language reference")


def _hold_out(texts, unit):
    """The Corpus of these texts: as many of the last ones are held out as make HELD_OUT of the bytes."""
    first = len(texts) - 1
    while first > 1 and size(texts[first:]) < HELD_OUT * size(texts):
        first -= 1
    return Corpus(texts[:first], texts[first:], unit)


# ---- tokens


def learn_tokenizer(corpus, folder):
    """A BPE tokenizer of the training texts, kept in the folder for the next time."""
    path = folder / f"bpe-{corpus.sha256()[:12]}-{MERGES}.json"
    if not path.exists():
        tt.BPETokenizer.train(corpus.training, 2 + 256 + MERGES).save(path)
    return tt.BPETokenizer.load(path)


def windows(tokenizer, texts, length):
    """The texts as rows of length + 1 ids, arrays; the last may be shorter.

    The texts stand in a row, an end token before the first and behind each. A window begins with the last token of the
    one before, so that each token but the very first is predicted exactly once.
    """
    ids = np.array([tokenizer.end_id, *(i for text in texts for i in tokenizer.encode(text, add_end=True))])
    return [ids[start : start + length + 1] for start in range(0, len(ids) - 1, length)]


def count_predicted(rows):
    """How many tokens are predicted in these rows: all but the first of each."""
    return sum(len(row) - 1 for row in rows)


def load_windows(tokenizer, texts, length, batch_size, shuffle=False):
    """Batches (B, length + 1) of the windows of the texts, and how many tokens they predict.

    Shuffled, for training, the rest that fills no batch is left out; in order it follows, as a shorter window.
    """
    rows = windows(tokenizer, texts, length)
    full = [row for row in rows if len(row) == length + 1]
    loader = tt.DataLoader(tt.TensorDataset(tt.tensor(np.stack(full))), batch_size, shuffle, drop_last=shuffle)
    if not shuffle:
        loader = [*loader, *((tt.tensor(row[None]),) for row in rows[len(full) :])]
    return loader, count_predicted(rows)


# ---- bits per byte


def measure(corpus, loss, tokens):
    """What a run reports: the corpus, and bits per byte for a mean `loss` in nats of all held-out tokens."""
    training, held_out = "".join(corpus.training).encode(), "".join(corpus.held_out).encode()
    return {
        "bits_per_byte": bits_per_byte(loss, tokens, len(held_out)),
        "bits_per_byte_5gram": ngram_bits_per_byte(training, held_out, 5),
        "corpus_texts": len(corpus.training) + len(corpus.held_out),
        "corpus_bytes": len(training) + len(held_out),
        "corpus_held_out_bytes": len(held_out),
        "corpus_sha256": corpus.sha256(),
    }


def bits_per_byte(loss, tokens, bytes):
    """The surprise of `tokens` tokens, `loss` nats each, in bits for each byte of their text.

    The end of each text is a token too: the model of tokens pays for it, the model of bytes does not.
    """
    return loss * tokens / math.log(2) / bytes


def ngram_bits_per_byte(training, held_out, n=5):
    """The mean surprise in bits at each byte of `held_out` for an n-gram model of `training`, both bytes.

    Interpolated Kneser-Ney smoothing (Chen and Goodman 1998, section 2.7; the discount D is 0.75):
    P(byte) = (max(count - D, 0) + D * followers * P(byte after the context without its first)) / total
    for a context that `followers` different bytes came after, in `total` places. Without context P is 1/256. Below the
    longest context, `count` is how many different bytes came before: "Francisco" is frequent, but only after "San".
    """
    discount, probability = 0.75, np.full(len(held_out), 1 / 256)
    for length in range(1, n + 1):
        seen = _grams(training, length) if length == n else np.unique(_grams(training, length + 1)) % 256**length
        grams, counts = np.unique(seen, return_counts=True)
        contexts, first, followers = np.unique(grams // 256, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        asked = _grams(held_out, length)
        total = _look_up(asked // 256, contexts, totals)
        share = discount * _look_up(asked // 256, contexts, followers)
        shorter = probability[length - 1 :]  # the first bytes of all have no longer context: theirs stay
        longer = np.maximum(_look_up(asked, grams, counts) - discount, 0) + share * shorter
        probability[length - 1 :] = np.where(total, longer / np.maximum(total, 1), shorter)
    return float(-np.log2(probability).mean())


def _grams(data, length):
    """Each `length` neighbouring bytes as one number, the last byte lowest."""
    data, n = np.frombuffer(data, np.uint8).astype(np.int64), max(len(data) - length + 1, 0)
    return sum(data[i : i + n] * 256 ** (length - 1 - i) for i in range(length))


def _look_up(asked, keys, values):
    """The value of each asked key, 0 for one that is not there; `keys` are sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
