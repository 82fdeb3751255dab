"""A tokenizer of single characters."""

from .base import Tokenizer


class CharTokenizer(Tokenizer):
    """One token for each character of an alphabet, after two special ones: `pad_id` 0 and `end_id` 1.

    Build it from a text (`CharTokenizer.from_text`) or from an alphabet of distinct characters.
    """

    TYPE, NAME = "char", "character tokenizer"
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

    def _text(self, ids):
        return "".join(self.alphabet[i - len(self.SPECIAL)] for i in ids)

    def _to_json(self):
        return {"alphabet": self.alphabet}

    @classmethod
    def _from_json(cls, content):
        return cls(content["alphabet"])
