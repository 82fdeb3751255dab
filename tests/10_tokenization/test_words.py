"""Module 10: a text is cut into words as GPT-2 cuts it, and bytes have GPT-2's names."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.tokenization.words import named_token, split_words, token_name

property_test = settings(deadline=None, derandomize=True, max_examples=150)
BYTES = [bytes([value]) for value in range(256)]


# ---- words: GPT-2's cuts. The lists were made with its own pattern and the library `regex`.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'm 30!\n", ["I", "'m", " 30", "!", "\n"]),
        ("we'll've don't", ["we", "'ll", "'ve", " don", "'t"]),
        ("DON'T 's''s", ["DON", "'", "T", " '", "s", "''", "s"]),
        ("  two  spaces  ", [" ", " two", " ", " spaces", "  "]),
        ("def f(x):\n    return x_1", ["def", " f", "(", "x", "):", "\n   ", " return", " x", "_", "1"]),
        ("a\t\tb \n c", ["a", "\t", "\t", "b", " \n", " c"]),
        ("x²=Ⅷ٣½", ["x", "²", "=", "Ⅷ٣½"]),
        ("日本語123ab一", ["日本語", "123", "ab一"]),
        ("e\u0301é", ["e", "\u0301", "é"]),
        ("🙂🙂 ok\u00a0\u3000!", ["🙂🙂", " ok", "\u00a0", "\u3000", "!"]),
        ("a\x1c\x1f b", ["a", "\x1c\x1f", " b"]),
        ("a  \x1c", ["a", " ", " \x1c"]),
        (" _a __b", [" _", "a", " __", "b"]),
        ("\r\n\r\nx", ["\r\n\r", "\n", "x"]),
    ],
)
def test_words_are_cut_as_gpt2_cuts_them(text, words):
    assert split_words(text) == words


@property_test
@given(st.text(st.characters(exclude_categories=())))
def test_cutting_loses_nothing(text):
    assert "".join(split_words(text)) == text


def test_every_character_is_a_letter_a_number_white_space_or_another_sign():
    white = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
    kinds = {"L": [], "N": [], "white": [], "sign": []}
    for code in range(sys.maxunicode + 1):
        kind = "white" if code in white else unicodedata.category(chr(code))[0]
        kinds[kind if kind in kinds else "sign"].append(chr(code))
    for characters in kinds.values():  # a run of one kind is one word
        assert len(split_words("".join(characters))) == 1
    for kind in ("L", "N", "sign"):
        for other in ("L", "N", "sign"):
            assert len(split_words(kinds[kind][-1] + kinds[other][-1])) == 1 + (kind != other)


# ---- names of bytes


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (b" the", "Ġthe"),
        (b"\n", "Ċ"),
        (b"\t", "ĉ"),
        (b"\x00", "Ā"),
        (b"\x7f", "ġ"),
        (b"\xad", "Ń"),
        ("é".encode(), "Ã©"),
        ("日".encode(), "æĹ¥"),
        (b"!~", "!~"),
        (b"\xff", "ÿ"),
    ],
)
def test_tokens_are_named_as_gpt2_names_them(token, name):
    assert token_name(token) == name
    assert named_token(name) == token


def test_every_byte_has_a_name_of_its_own():
    names = [token_name(byte) for byte in BYTES]
    assert len(set(names)) == 256
    assert all(len(name) == 1 and name.isprintable() and not name.isspace() for name in names)
