"""What GPT-2 does to a text before byte-pair encoding: it is cut into words, and bytes get printable names."""

import functools
import itertools
import re
import sys
import unicodedata


@functools.cache  # not when this file is imported: looking at every character there is takes 0.1 s
def _word_pattern():
    r"""GPT-2's pattern, 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+, for Python's `re`.

    `re` has no \p{L} and \p{N}. Its \w is both and the underscore; its \d is without numbers such as ² and Ⅷ
    (categories No and Nl); its \s has four control characters, \x1c to \x1f, that are no white space in Unicode.
    """
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("No", "Nl")]
    runs = [list(run) for _, run in itertools.groupby(enumerate(codes), lambda item: item[1] - item[0])]
    numbers = "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)  # as ranges: `re` is five times faster
    space, solid = r"[^\S\x1c-\x1f]", r"[\S\x1c-\x1f]"
    return re.compile(
        r"'(?:[stmd]|re|ve|ll)"
        rf"| ?[^\W\d_{numbers}]+"
        rf"| ?[\d{numbers}]+"
        r"| ?(?:[^\s\w]|[_\x1c-\x1f])+"
        rf"|{space}+(?!{solid})|{space}+"
    )


def split_words(text):
    """A text cut as GPT-2 cuts it (Radford et al. 2019, section 2.2): ["I", "'m", " 30", "!", "\\n"].

    Words, numbers and signs take one space before them along. No token ever reaches across a cut.
    """
    return _word_pattern().findall(text)


def to_bytes(text):
    """The text in UTF-8. Raises ValueError where it cannot be written so."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"BPETokenizer needs text that UTF-8 can hold, but got the half character {text[error.start]!r}. "
            "Was the text decoded with the right encoding, and without surrogateescape?"
        ) from error


def _name_bytes():
    """GPT-2's printable name of each byte: itself where Latin-1 can be seen, the others from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


_NAMES = _name_bytes()
_BYTES = {name: byte for byte, name in _NAMES.items()}


def token_name(token):
    """The bytes of a token as GPT-2's files write them: b" the" is "Ġthe"."""
    return "".join(map(_NAMES.__getitem__, token))


def named_token(name):
    """The bytes of a token from its name. Raises KeyError for a character that names no byte."""
    return bytes(map(_BYTES.__getitem__, name))
