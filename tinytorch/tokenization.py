"""Module 10: tokenizers, from text to numbers and back."""

import json
import operator
from pathlib import Path

import numpy as np


class CharTokenizer:
    """One token for each character of an alphabet, after two special ones: `pad_id` 0 and `end_id` 1.

    Build it from a text (`CharTokenizer.from_text`) or from an alphabet of distinct characters.
    """

    SPECIAL = ("<pad>", "<end>")
    pad_id, end_id = 0, 1

    def __init__(self, alphabet):
        alphabet = list(alphabet)
        if not alphabet:
            raise ValueError("CharTokenizer needs at least one character, but got none. Is the corpus empty?")
        if not all(isinstance(character, str) and len(character) == 1 for character in alphabet):
            raise ValueError(f"CharTokenizer needs an alphabet of single characters, but got {alphabet!r}.")
        if len(set(alphabet)) < len(alphabet):
            raise ValueError("CharTokenizer needs an alphabet of distinct characters. Use from_text for a text.")
        self.alphabet = alphabet
        self._ids = {character: i for i, character in enumerate(alphabet, start=len(self.SPECIAL))}

    @classmethod
    def from_text(cls, text):
        """The tokenizer of all characters that occur in a text, in sorted order."""
        return cls(sorted(set(text)))

    @property
    def vocab_size(self):
        return len(self.SPECIAL) + len(self.alphabet)

    def encode(self, text, add_end=False):
        """The ids of a text's characters, a list; with `add_end` the end token follows.

        Raises ValueError, naming them, for characters outside the alphabet.
        """
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            raise ValueError(
                f"The tokenizer does not know {', '.join(map(repr, unknown))}. It knows {''.join(self.alphabet)!r}."
            )
        return [self._ids[character] for character in text] + [self.end_id] * add_end

    def decode(self, ids):
        """The text of ids, up to the end token; padding says nothing. Raises ValueError for ids out of range."""
        text = []
        for i in map(operator.index, ids):
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"CharTokenizer needs ids from 0 to {self.vocab_size - 1}, but got {i}.")
            if i == self.end_id:
                break
            if i != self.pad_id:
                text.append(self.alphabet[i - len(self.SPECIAL)])
        return "".join(text)

    def encode_batch(self, texts, add_end=True):
        """An array (number of texts, longest) of ids, padded on the right with `pad_id`."""
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
        """Write the alphabet as JSON."""
        Path(path).write_text(json.dumps({"type": "char", "alphabet": self.alphabet}), encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. Raises ValueError for other files."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["type"] != "char":
                raise KeyError(content["type"])
            return cls(content["alphabet"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a character tokenizer: {error!r}. Save one with tokenizer.save."
            ) from error
