"""Module 10: byte-pair encoding: its definition word for word, and any text at all."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import tinytorch as tt
from tinytorch.tokenization.bpe import _Chain, _join_everywhere, learn_merges
from tinytorch.tokenization.words import split_words

property_test = settings(deadline=None, derandomize=True, max_examples=150)
BYTES = [bytes([value]) for value in range(256)]
PAPER = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3  # the words of section 3.2
FEW = st.text(st.sampled_from("aab \né"), max_size=30)  # few characters: many pairs, and many ties
TEXT = "the cat and the dog and the bird: naïve, 日本語, 🙂\n" * 3


@pytest.fixture(scope="module")
def tokenizer():
    return tt.BPETokenizer.train(TEXT, 300)


# ---- the pieces, known by hand


def noted(words):
    """A chain of the words, and what is noted about it: weights, counts and places, as `learn_merges` begins."""
    chain, weights = _Chain(words), [0]
    for word, count in words.items():
        weights += [count] * (len(word) + 1)
    counts, places = Counter(), defaultdict(list)
    for i, pair in enumerate(pairwise(chain.tokens)):
        counts[pair] += weights[i]
        places[pair].append(i)
    return chain, weights, counts, places


@pytest.mark.exercise("ex-10-5", points=2)
def test_a_joined_pair_is_one_token_and_its_neighbours_know():
    chain = _Chain([b"low"])
    chain.join(1)
    assert chain.tokens == [b"", b"lo", b"", b"w", b""]
    assert (chain.after[1], chain.before[3]) == (3, 1)
    chain.join(1)
    assert chain.tokens == [b"", b"low", b"", b"", b""]
    assert (chain.after[1], chain.before[4]) == (4, 1)


@pytest.mark.exercise("ex-10-5", points=2)
def test_a_token_can_be_joined_to_the_one_before_it():
    chain = _Chain([b"low"])
    chain.join(2)  # "l", "ow"
    chain.join(chain.before[2])
    assert chain.tokens == [b"", b"low", b"", b"", b""]
    assert (chain.after[1], chain.before[4]) == (4, 1)


@pytest.mark.exercise("ex-10-6", points=4)
def test_a_join_changes_the_counts_of_its_neighbours():
    chain, weights, counts, places = noted({b"xaby": 3, b"ab": 2})
    created = _join_everywhere((b"a", b"b"), chain, weights, counts, places)
    assert [token for token in chain.tokens if token] == [b"x", b"ab", b"y", b"ab"]
    assert created == {(b"x", b"ab"), (b"ab", b"y")}
    found = {
        "x a": counts[b"x", b"a"],
        "b y": counts[b"b", b"y"],
        "x ab": counts[b"x", b"ab"],
        "ab y": counts[b"ab", b"y"],
    }
    assert found == {"x a": 0, "b y": 0, "x ab": 3, "ab y": 3}
    assert (places[b"x", b"ab"], places[b"ab", b"y"]) == ([1], [2])


@pytest.mark.exercise("ex-10-6", points=4)
def test_what_a_join_used_up_is_not_joined_again():
    chain, weights, counts, places = noted({b"aaab": 1})
    _join_everywhere((b"a", b"a"), chain, weights, counts, places)
    assert [token for token in chain.tokens if token] == [b"aa", b"a", b"b"]
    assert (counts[b"aa", b"a"], counts[b"a", b"b"]) == (1, 1)


@pytest.mark.exercise("ex-10-6", points=4)
def test_a_place_where_another_pair_stands_by_now_is_passed_over():
    chain, weights, counts, places = noted({b"abc": 2})
    assert _join_everywhere((b"b", b"c"), chain, weights, counts, places) == {(b"a", b"bc")}
    assert _join_everywhere((b"a", b"b"), chain, weights, counts, places) == set()
    assert [token for token in chain.tokens if token] == [b"a", b"bc"]


@pytest.mark.exercise("ex-10-7", points=5)
def test_a_word_counts_as_often_as_it_occurs():
    assert learn_merges({"ab": 1, "xab": 1, "cd": 3}, 2) == [(b"c", b"d"), (b"a", b"b")]


@pytest.mark.exercise("ex-10-7", points=5)
def test_the_first_merges_of_the_papers_words():
    merges = learn_merges({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 4)
    assert merges == [(b"e", b"s"), (b"es", b"t"), (b"l", b"o"), (b"lo", b"w")]


@pytest.mark.exercise("ex-10-7", points=5)
def test_a_pair_that_occurs_once_is_not_merged():
    assert learn_merges({"abc": 1, "ab": 1}, 10) == [(b"a", b"b")]


@pytest.mark.exercise("ex-10-8", points=4)
def test_a_new_word_is_joined_in_the_order_of_the_merges():
    tokenizer = tt.BPETokenizer.train(PAPER, 1000)
    assert [tokenizer.vocab[i] for i in tokenizer._encode_word("lowest")] == [b"low", b"est"]
    merges = [(b"b", b"c"), (b"a", b"b"), (b"bc", b"d")]
    tokenizer = tt.BPETokenizer(["<end>", *BYTES, b"bc", b"ab", b"bcd"], merges)
    assert [tokenizer.vocab[i] for i in tokenizer._encode_word("abcd")] == [b"a", b"bcd"]


@pytest.mark.exercise("ex-10-9", points=2)
def test_a_text_is_encoded_word_by_word_and_ended_where_asked():
    tokenizer = tt.BPETokenizer.train("ab ab ab", 260)  # ab and " ab"
    assert [tokenizer.vocab[i] for i in tokenizer.encode("ab ab b")] == [b"ab", b" ab", b" ", b"b"]
    assert tokenizer.encode("ab", add_end=True) == [*tokenizer.encode("ab"), tokenizer.end_id]


# ---- the definition: everything counted anew at every step


def joined(tokens, pair):
    tokens, i = list(tokens), 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) == pair:
            tokens[i : i + 2] = [pair[0] + pair[1]]
        i += 1
    return tokens


def merges_by_definition(texts, size):
    words = Counter(word for text in texts for word in split_words(text))
    words = [([bytes([byte]) for byte in word.encode()], count) for word, count in words.items()]
    merges = []
    while len(merges) < size:
        counts = Counter()
        for tokens, count in words:
            for pair in pairwise(tokens):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        words = [(joined(tokens, best), count) for tokens, count in words]
    return merges


def tokens_by_definition(tokenizer, word):
    """Join the pair that was learned first, the leftmost of them, until there is none."""
    tokens, ranks = [bytes([byte]) for byte in word.encode()], {p: r for r, p in enumerate(tokenizer.merges)}
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
        if not found:
            return tokens
        _, i = min(found)
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


@pytest.mark.exercise("ex-10-6", points=4)
@pytest.mark.exercise("ex-10-7", points=5)
@property_test
@given(st.lists(FEW, min_size=1, max_size=4).filter(any), st.integers(0, 30))
def test_the_merges_are_those_of_the_definition(texts, size):
    tokenizer = tt.BPETokenizer.train(texts, 258 + size)
    assert tokenizer.merges == merges_by_definition(texts, size)


@pytest.mark.exercise("ex-10-5", points=2)
@pytest.mark.exercise("ex-10-6", points=4)
@property_test
@given(st.text(st.sampled_from("ab"), min_size=8, max_size=60), st.integers(1, 30))
def test_the_merges_of_one_long_word_are_those_of_the_definition(text, size):
    assert tt.BPETokenizer.train(text, 258 + size).merges == merges_by_definition([text], size)


@pytest.mark.exercise("ex-10-8", points=4)
@property_test
@given(st.lists(FEW, min_size=1, max_size=4).filter(any), FEW)
def test_the_tokens_are_those_of_the_definition(texts, text):
    tokenizer = tt.BPETokenizer.train(texts, 280)
    expected = [token for word in split_words(text) for token in tokens_by_definition(tokenizer, word)]
    assert [tokenizer.vocab[i] for i in tokenizer.encode(text)] == expected


@pytest.mark.exercise("ex-10-7", points=5)
@property_test
@given(st.text(st.sampled_from("aab"), min_size=8, max_size=60), st.text(st.sampled_from("aab"), max_size=60))
def test_the_tokens_of_one_long_word_are_those_of_the_definition(corpus, word):
    tokenizer = tt.BPETokenizer.train(corpus, 280)
    assert [tokenizer.vocab[i] for i in tokenizer.encode(word)] == tokens_by_definition(tokenizer, word)


def test_the_merges_of_the_papers_words_by_hand():
    # es 9 = st 9, the first in byte order; es t 9; lo 7 = ow 7; lo w 7; ew 6 = ne 6 = w est 6; ew est 6 = n ew 6;
    # n ewest 6; dest 3 = id 3 = wi 3; i dest 3 = wi 3; w idest 3; er 2 = low e 2; low er 2
    by_hand = "e s, es t, l o, lo w, e w, ew est, n ewest, d est, i dest, w idest, e r, low er"
    expected = [tuple(part.encode() for part in merge.split(" ")) for merge in by_hand.split(", ")]
    tokenizer = tt.BPETokenizer.train(PAPER, 1000)
    assert tokenizer.merges == expected
    assert tokenizer.vocab_size == 258 + len(expected)
    assert [tokenizer.vocab[i] for i in tokenizer.encode("lowest")] == [b"low", b"est"]  # a word never seen


def test_the_vocabulary_is_special_tokens_bytes_and_what_merges_make():
    tokenizer = tt.BPETokenizer.train(PAPER, 261)
    assert tokenizer.vocab == ["<pad>", "<end>", *BYTES, b"es", b"est", b"lo"]
    assert tokenizer.vocab_size == 261


def test_two_ways_to_the_same_bytes_are_one_token():
    merges = [(b"a", b"b"), (b"ab", b"c"), (b"b", b"c"), (b"a", b"bc")]
    tokenizer = tt.BPETokenizer(["<end>", *BYTES, b"ab", b"abc", b"bc"], merges)
    assert tokenizer.encode("abc") == [258] and tokenizer.vocab_size == 260


def test_what_was_learned_earlier_is_joined_first_anywhere_in_the_word():
    merges = [(b"b", b"c"), (b"a", b"b"), (b"bc", b"d"), (b"a", b"bc")]
    tokenizer = tt.BPETokenizer(["<end>", *BYTES, b"bc", b"ab", b"bcd", b"abc"], merges)
    assert [tokenizer.vocab[i] for i in tokenizer.encode("abcd")] == [b"a", b"bcd"]
    assert [tokenizer.vocab[i] for i in tokenizer.encode("abce")] == [b"abc", b"e"]


def test_the_order_of_texts_does_not_matter():
    texts = ["low lower", "newest", "widest low"]
    assert tt.BPETokenizer.train(texts, 300).merges == tt.BPETokenizer.train(texts[::-1], 300).merges
    assert tt.BPETokenizer.train(iter(texts), 300).merges == tt.BPETokenizer.train(texts, 300).merges


def test_no_token_reaches_across_texts_or_words():
    assert tt.BPETokenizer.train(["ab"] * 9, 300).merges == [(b"a", b"b")]
    assert all(b" " not in token[1:] for token in tt.BPETokenizer.train("a b " * 9, 300).vocab[258:])


def test_training_ends_when_no_pair_occurs_twice():
    assert tt.BPETokenizer.train("abcd", 300).vocab_size == 258


def test_a_frequent_word_is_one_token(tokenizer):
    assert [tokenizer.vocab[i] for i in tokenizer.encode("cat and the")][-2:] == [b" and", b" the"]


# ---- there and back


@property_test
@given(st.text())
def test_any_text_decodes_to_itself(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, add_end=True)) == text
    assert all(i >= 2 for i in tokenizer.encode(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0\x01\x1b\x7f\x80\x9f\ufeff\uffff",
        "👩‍👩‍👧‍👦🏳️‍🌈🇯🇵",
        "中文，日本語、한국어",
        "שלום مرحبا हिन्दी ไทย",
        "e\u0301 é ﬁ ½ ² Ⅷ ٣",
        "\r\n\t \u2028\u3000  \n",
        "\U0010ffff\U0001f600",
        "<pad><end>",
    ],
    ids=["empty", "space", "control", "emoji", "cjk", "scripts", "forms", "white", "astral", "special"],
)
def test_unusual_texts_decode_to_themselves(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_end=True)) == text


def test_a_word_of_a_hundred_thousand_letters(tokenizer):
    tokenizer = tt.BPETokenizer.train("aaaaaaaa aaaa", 260)  # aa, aaaa
    assert tokenizer.encode("a" * 100_001) == [259] * 25_000 + [tokenizer.vocab.index(b"a")]


@pytest.mark.exercise("ex-10-10", points=1)
def test_half_a_character_is_replaced_and_a_whole_one_is_not(tokenizer):
    ids = [2 + byte for byte in "é".encode()]
    assert tokenizer.decode(ids[:1]) == "\ufffd"
    assert tokenizer.decode(ids) == "é"


@pytest.mark.exercise("ex-10-10", points=1)
@property_test
@given(st.binary())
def test_invalid_utf8_is_replaced(tokenizer, data):
    assert tokenizer.decode([2 + byte for byte in data]) == data.decode("utf-8", errors="replace")


def test_a_text_that_utf8_cannot_hold_is_refused(tokenizer):
    for use in (tokenizer.encode, lambda text: tt.BPETokenizer.train(text, 300)):
        with pytest.raises(ValueError, match=r"text that UTF-8 can hold, but got the half character '\\ud800'"):
            use("a \ud800")


# ---- special tokens


def test_special_tokens_come_first_and_in_order():
    tokenizer = tt.BPETokenizer.train("abc", 300, ["<|pad|>", "<|stop|>", "<|user|>"])
    assert tokenizer.special_tokens == {"<|pad|>": 0, "<|stop|>": 1, "<|user|>": 2}
    assert (tokenizer.pad_id, tokenizer.end_id) == (0, 1)


def test_one_special_token_pads_and_ends():
    tokenizer = tt.BPETokenizer.train("abc", 300, ["<|endoftext|>"])
    assert (tokenizer.pad_id, tokenizer.end_id) == (0, 0)
    assert tokenizer.decode([98, 0, 99]) == "a"


@pytest.mark.exercise("ex-10-9", points=2)
def test_their_names_in_a_text_are_plain_text_unless_allowed(tokenizer):
    text = "a<end>b<pad>"
    plain = tokenizer.encode(text)
    assert min(plain) >= 2 and tokenizer.decode(plain) == text
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert tokenizer.encode(text, allow_special=True) == [*a, tokenizer.end_id, *b, tokenizer.pad_id]
    assert tokenizer.encode("<end>", allow_special=True, add_end=True) == [1, 1]
    assert tokenizer.encode("<end> b", allow_special=True) == [1, *tokenizer.encode(" b")]


def test_the_longest_name_is_found_first():
    tokenizer = tt.BPETokenizer.train("abc", 300, ["<p>", "<e>", "<e>>", "a|b"])
    assert tokenizer.encode("<e>><e>a|ba", allow_special=True) == [2, 1, 3, *tokenizer.encode("a")]


def test_other_special_tokens_are_shown():
    tokenizer = tt.BPETokenizer.train("abc", 300, ["<pad>", "<end>", "<user>"])
    text = "<user>abc"
    assert tokenizer.decode(tokenizer.encode(text, allow_special=True)) == text


def test_they_are_never_merged_into():
    tokenizer = tt.BPETokenizer.train("<end>" * 50, 300)
    assert b"<end>" not in tokenizer.vocab  # a word, a sign and a word: cut apart
    assert tt.BPETokenizer.train("end " * 50, 300, ["pad", "end"]).encode("end")[0] > 257


def test_decoding_stops_at_the_end_and_passes_over_padding(tokenizer):
    ids = tokenizer.encode("the cat")
    assert tokenizer.decode([0, *ids, 0, 1, *ids]) == "the cat"


# ---- batches and ids


@pytest.mark.exercise("ex-10-9", points=2)
def test_a_batch_is_padded_on_the_right(tokenizer):
    texts = ["the", "", "the cat"]
    batch = tokenizer.encode_batch(texts)
    assert batch.dtype == np.int64
    assert batch.shape == (3, 1 + len(tokenizer.encode("the cat")))
    assert [tokenizer.decode(row) for row in batch] == texts
    assert_array_equal(batch[1], [1] + [0] * (batch.shape[1] - 1))


@pytest.mark.parametrize("wrong", [-1, 300, 10**9])
def test_ids_out_of_range_are_refused(tokenizer, wrong):
    with pytest.raises(
        ValueError, match=f"BPETokenizer needs ids from 0 to {tokenizer.vocab_size - 1}, but got {wrong}"
    ):
        tokenizer.decode([5, wrong])


# ---- what is refused


@pytest.mark.parametrize("nothing", ["", [], [""], iter([])], ids=["text", "list", "empty text", "iterator"])
def test_an_empty_corpus_is_refused(nothing):
    with pytest.raises(ValueError, match=r"needs text to learn from.*empty"):
        tt.BPETokenizer.train(nothing, 300)


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 259, for 3 special tokens and 256 bytes, but got 258"):
        tt.BPETokenizer.train("abc", 258, ["<pad>", "<end>", "<user>"])
    assert tt.BPETokenizer.train("abab", 258).merges == []


@pytest.mark.parametrize("size", [0, -1, 300.0, None])
def test_a_vocabulary_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="vocab_size needs an integer"):
        tt.BPETokenizer.train("abc", size)


@pytest.mark.parametrize(
    ("special", "error", "message"),
    [
        ("<end>", TypeError, r"a list of names, but got one text\. Write \['<end>'\]"),
        ([], ValueError, "needs a special token"),
        (["<end>", "<end>"], ValueError, "distinct tokens"),
        (["<end>", ""], ValueError, "none of them empty"),
    ],
    ids=["text", "none", "twice", "empty"],
)
def test_special_tokens_that_cannot_be_are_refused(special, error, message):
    with pytest.raises(error, match=message):
        tt.BPETokenizer.train("abc", 300, special)


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        (["<end>", *BYTES[1:]], [], r"1 are missing, the first of them b'\\x00'"),
        (["<end>", *BYTES], [(b"a", b"b")], "1 are missing, the first of them b'ab'"),
        (["<end>", *BYTES, b"abc"], [(b"ab", b"c")], "1 are missing, the first of them b'ab'"),
        (["<end>", *BYTES, b"a"], [], "distinct tokens"),
        (BYTES, [], "needs a special token"),
    ],
    ids=["a byte", "what is made", "what is joined", "twice", "no special"],
)
def test_a_vocabulary_that_cannot_be_is_refused(vocab, merges, message):
    with pytest.raises(ValueError, match=message):
        tt.BPETokenizer(vocab, merges)
