"""What all tokenizers share: decoding, batches, files."""

import json
import operator
from pathlib import Path

import numpy as np


class Tokenizer:
    """Text to ids and back. A kind of tokenizer defines `encode` and what else this class asks for.

    `pad_id` fills a batch and says nothing, `end_id` ends a text; ids run from 0 to `vocab_size` - 1.
    """

    TYPE = NAME = ""  # what a saved file says it is, and what an error calls it

    def decode(self, ids):
        """The text of ids, up to the end token; padding says nothing. Raises ValueError for ids out of range."""
        kept = []
        for i in map(operator.index, ids):
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"{type(self).__name__} needs ids from 0 to {self.vocab_size - 1}, but got {i}.")
            if i == self.end_id:
                break
            if i != self.pad_id:
                kept.append(i)
        return self._text(kept)

    def encode_batch(self, texts, add_end=True):
        """An array (number of texts, longest) of ids, int64, padded on the right with `pad_id`.

        Raises TypeError for one text in place of a list, and ValueError for no texts.
        """
        if isinstance(texts, str):
            raise TypeError("encode_batch needs a list of texts, but got one text. Use encode, or [text].")
        rows = [self.encode(text, add_end) for text in texts]
        if not rows:
            raise ValueError("encode_batch needs at least one text, but got none.")
        ids = np.full((len(rows), max(map(len, rows))), self.pad_id, np.int64)
        for row, tokens in zip(ids, rows):
            row[: len(tokens)] = tokens
        return ids

    def save(self, path):
        """Write the tokenizer as JSON."""
        Path(path).write_text(json.dumps({"type": self.TYPE, **self._to_json()}), encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. Raises ValueError for other files."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["type"] != cls.TYPE:
                raise KeyError(content["type"])
            return cls._from_json(content)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a {cls.NAME}: {error!r}. Save one with tokenizer.save.") from error

    # ---- what a kind of tokenizer defines

    def encode(self, text, add_end=False):
        """The ids of a text, a list; with `add_end` the end token follows."""
        raise NotImplementedError

    def _text(self, ids):
        """The text of ids that are in range and neither padding nor the end."""
        raise NotImplementedError

    def _to_json(self):
        raise NotImplementedError

    @classmethod
    def _from_json(cls, content):
        raise NotImplementedError
