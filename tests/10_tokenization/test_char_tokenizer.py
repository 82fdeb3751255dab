"""Module 10: characters to numbers and back, without losing one, and with words for what cannot be encoded."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import tinytorch as tt

property_test = settings(deadline=None, derandomize=True)


@pytest.fixture
def tokenizer():
    return tt.CharTokenizer("abc")


# ---- known by hand


@pytest.mark.exercise("ex-10-1", points=1)
def test_the_alphabet_is_each_character_of_the_text_once_and_sorted():
    assert tt.CharTokenizer.from_text("hello").alphabet == ["e", "h", "l", "o"]


@pytest.mark.exercise("ex-10-2", points=2)
def test_each_character_becomes_its_id(tokenizer):
    assert tokenizer.encode("cab") == [4, 2, 3]


@pytest.mark.exercise("ex-10-3", points=2)
def test_ids_out_of_range_are_refused_and_others_are_text(tokenizer):
    assert tokenizer.decode([4, 2, 3]) == "cab"
    with pytest.raises(ValueError, match="CharTokenizer needs ids from 0 to 4, but got 5"):
        tokenizer.decode([2, 5])


# ---- there and back


@pytest.mark.exercise("ex-10-2", points=2)
@pytest.mark.exercise("ex-10-3", points=2)
@property_test
@given(st.text(min_size=1))
def test_what_is_encoded_decodes_to_itself(text):
    tokenizer = tt.CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, add_end=True)) == text


@pytest.mark.exercise("ex-10-1", points=1)
@pytest.mark.exercise("ex-10-2", points=2)
@property_test
@given(st.text(min_size=1))
def test_ids_follow_the_sorted_characters_after_the_special_ones(text):
    tokenizer = tt.CharTokenizer.from_text(text)
    characters = sorted(set(text))
    assert tokenizer.vocab_size == len(characters) + 2
    assert tokenizer.encode("".join(characters)) == list(range(2, tokenizer.vocab_size))


@property_test
@given(st.lists(st.text("abc"), min_size=1))
def test_a_batch_decodes_row_by_row(texts):
    tokenizer = tt.CharTokenizer("abc")
    assert [tokenizer.decode(row) for row in tokenizer.encode_batch(texts)] == texts


def test_the_alphabet_may_be_given_in_any_order():
    assert tt.CharTokenizer("cab").encode("abc") == [3, 4, 2]


@pytest.mark.exercise("ex-10-1", points=1)
def test_the_tokenizer_of_a_text_does_not_depend_on_where_characters_stand():
    assert tt.CharTokenizer.from_text("hello").alphabet == tt.CharTokenizer.from_text("lohleo").alphabet


def test_letters_that_look_alike_are_different_characters():
    composed, decomposed = "\u00e9", "e\u0301"
    tokenizer = tt.CharTokenizer.from_text(composed + decomposed)
    assert tokenizer.vocab_size == 2 + 3
    assert tokenizer.decode(tokenizer.encode(decomposed)) == decomposed


# ---- special tokens


def test_the_special_tokens_come_first(tokenizer):
    assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.vocab_size) == (0, 1, 5)


@pytest.mark.exercise("ex-10-2", points=2)
def test_the_end_token_follows_where_asked(tokenizer):
    assert tokenizer.encode("ab") == [2, 3]
    assert tokenizer.encode("ab", add_end=True) == [2, 3, 1]
    assert tokenizer.encode("") == []
    assert tokenizer.encode("", add_end=True) == [1]


@pytest.mark.exercise("ex-10-3", points=2)
def test_decoding_stops_at_the_end_and_passes_over_padding(tokenizer):
    assert tokenizer.decode([0, 2, 0, 3, 1, 4]) == "ab"
    assert tokenizer.decode([1, 2]) == tokenizer.decode([]) == ""


def test_the_names_of_special_tokens_in_a_text_are_ordinary_characters():
    tokenizer = tt.CharTokenizer.from_text("<pad><end>")
    ids = tokenizer.encode("<end>")
    assert len(ids) == 5 and min(ids) >= 2
    assert tokenizer.decode(ids) == "<end>"


@pytest.mark.parametrize("container", [list, tuple, np.array, tt.tensor, iter], ids=lambda kind: kind.__name__)
def test_ids_may_come_in_anything_that_holds_integers(container, tokenizer):
    assert tokenizer.decode(container([4, 2, 3])) == "cab"


# ---- batches


@pytest.mark.exercise("ex-10-4", points=2)
def test_a_batch_is_padded_on_the_right_to_the_longest(tokenizer):
    expected = np.array([[2, 1, 0, 0], [3, 4, 2, 1], [1, 0, 0, 0]])
    assert_array_equal(tokenizer.encode_batch(["a", "bca", ""]), expected, strict=True)


@pytest.mark.exercise("ex-10-4", points=2)
def test_a_batch_without_end_tokens(tokenizer):
    assert_array_equal(tokenizer.encode_batch(["a", "bc"], add_end=False), [[2, 0], [3, 4]])
    assert tokenizer.encode_batch(["", ""], add_end=False).shape == (2, 0)


def test_a_batch_may_come_from_a_generator(tokenizer):
    assert tokenizer.encode_batch(text for text in ("a", "b")).tolist() == [[2, 1], [3, 1]]


@pytest.mark.exercise("ex-10-4", points=2)
def test_a_batch_of_no_texts_is_refused(tokenizer):
    with pytest.raises(ValueError, match="at least one text"):
        tokenizer.encode_batch([])


@pytest.mark.exercise("ex-10-4", points=2)
def test_one_text_is_not_a_batch_of_its_characters(tokenizer):
    with pytest.raises(TypeError, match="list of texts"):
        tokenizer.encode_batch("abc")


# ---- what is refused


@pytest.mark.exercise("ex-10-2", points=2)
def test_unknown_characters_are_named_once_each_beside_those_that_are_known(tokenizer):
    with pytest.raises(ValueError, match=r"does not know '\\n', 'x', 'ß'\. It knows 'abc'"):
        tokenizer.encode("axßbx\nc")


def test_an_unknown_character_in_a_batch_is_named(tokenizer):
    with pytest.raises(ValueError, match="does not know 'z'"):
        tokenizer.encode_batch(["abc", "abz"])


@pytest.mark.parametrize("build", [tt.CharTokenizer, tt.CharTokenizer.from_text])
@pytest.mark.parametrize("nothing", ["", []])
def test_an_empty_corpus_is_refused(build, nothing):
    with pytest.raises(ValueError, match=r"at least one character.*empty"):
        build(nothing)


@pytest.mark.parametrize("alphabet", ["abca", ["a", "b", "b"]])
def test_an_alphabet_with_a_character_twice_is_refused(alphabet):
    with pytest.raises(ValueError, match=r"distinct characters\. Use from_text"):
        tt.CharTokenizer(alphabet)


@pytest.mark.parametrize("alphabet", [["ab", "c"], ["", "c"], [1, 2]], ids=["long", "empty", "numbers"])
def test_an_alphabet_of_anything_but_characters_is_refused(alphabet):
    with pytest.raises((TypeError, ValueError), match="characters"):
        tt.CharTokenizer(alphabet)


@pytest.mark.parametrize("wrong", [-1, 5, 10**9])
def test_ids_out_of_range_are_refused(wrong, tokenizer):
    with pytest.raises(ValueError, match=f"ids from 0 to 4, but got {wrong}"):
        tokenizer.decode([2, wrong])


@pytest.mark.parametrize("ids", [[2.9], np.array([2.0]), tt.tensor([2.5])], ids=["number", "array", "tensor"])
def test_ids_that_are_no_integers_are_refused(ids, tokenizer):
    with pytest.raises(TypeError, match="integer"):
        tokenizer.decode(ids)


@pytest.mark.parametrize("ids", [np.array([[2, 3]]), np.array([[2], [3]])], ids=["row", "column"])
def test_a_batch_of_ids_is_not_decoded_as_one_text(ids, tokenizer):
    with pytest.raises((TypeError, ValueError), match=r"integer|dimension"):
        tokenizer.decode(ids)


# ---- files


@property_test
@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_a_saved_tokenizer_is_loaded_as_it_was(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("tokenizer") / "characters.json"
    tokenizer = tt.CharTokenizer.from_text(text)
    tokenizer.save(path)
    loaded = tt.CharTokenizer.load(str(path))
    assert loaded.alphabet == tokenizer.alphabet
    assert loaded.encode(text, add_end=True) == tokenizer.encode(text, add_end=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"type": "char"}',
        b'{"type": "bpe", "alphabet": ["a"]}',
        b'{"type": "char", "alphabet": null}',
        b'{"type": "char", "alphabet": 3}',
        b'{"type": "char", "alphabet": []}',
        b'{"type": "char", "alphabet": ["a", "a"]}',
        b'{"type": "char", "alphabet": [1, 2]}',
        b'{"type": "char", "alphabet": [["a"]]}',
        b'{"type": "char", "alphabet": ["ab"]}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}}}',
        b"\x80\x04\x95\xff",
    ],
)
def test_a_foreign_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.json is not a character tokenizer"):
        tt.CharTokenizer.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tt.CharTokenizer.load(tmp_path / "nowhere.json")


def test_the_file_is_plain_json(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text(encoding="ascii")) == {
        "type": "char",
        "alphabet": ["a", "b", "c"],
    }
