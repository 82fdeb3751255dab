"""The texts that milestones learn from, how they are cut up, and what a model of them is measured by."""

import hashlib
import math
import sys
import sysconfig
import types

import numpy as np
import pytest

import tinytorch as tt
from tinytorch_course import corpora

# ---- the standard library


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of our own: function(name, content in bytes) adds a file."""
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})

    def add(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return add


def test_the_corpus_is_the_top_level_files_by_name_and_the_last_are_held_out(library):
    for name in ("b.py", "a.py", "_c.py", "d.py"):
        library(name, name.encode() * 10)
    for name in ("_sysconfigdata_linux.py", "readme.txt", "test/t.py", "idlelib/i.py"):
        library(name, b"no")
    corpus = corpora.read_stdlib()
    assert corpus.training == ["_c.py" * 10, "a.py" * 10, "b.py" * 10]
    assert corpus.held_out == ["d.py" * 10]
    assert corpus.sha256() == hashlib.sha256(b"_c.py" * 10 + b"a.py" * 10 + b"b.py" * 10 + b"d.py" * 10).hexdigest()
    assert "3 files of the standard library to learn, 130 bytes; 1 held out, 40 bytes; sha256" in corpus.describe()


def test_as_many_files_are_held_out_as_make_five_percent(library):
    for name, length in (("a.py", 900), ("b.py", 40), ("c.py", 30), ("d.py", 25)):
        library(name, b"x" * length)
    assert [len(text) for text in corpora.read_stdlib().held_out] == [30, 25]


def test_the_corpus_ends_before_it_grows_too_large(library, monkeypatch):
    for name in "abcd":
        library(f"{name}.py", name.encode() * 10)
    monkeypatch.setattr(corpora, "MAX_BYTES", 35)
    corpus = corpora.read_stdlib()
    assert corpus.training + corpus.held_out == ["a" * 10, "b" * 10, "c" * 10]


def test_the_text_does_not_depend_on_how_the_system_ends_lines(library):
    library("a.py", b"x\r\ny = '\xc3\xa9'\r\n")
    library("b.py", b"z\n")
    assert corpora.read_stdlib()[:2] == (["x\ny = 'é'\n"], ["z\n"])


def test_a_python_without_source_ends_in_a_sentence(library):
    with pytest.raises(FileNotFoundError, match="needs Python's own source files"):
        corpora.read_stdlib()


# ---- the language reference


@pytest.fixture
def reference(monkeypatch):
    """A language reference of our own: function(topics) puts it in the place of Python's."""

    def put(topics):
        monkeypatch.setitem(sys.modules, "pydoc_data.topics", types.SimpleNamespace(topics=topics))

    return put


def test_the_reference_is_the_topics_by_name_and_the_last_are_held_out(reference):
    reference({name: f"about {name}" for name in ["while", "if", "with", "for"]})
    expected = ["about for", "about if", "about while"], ["about with"], "topics of the language reference"
    assert corpora.read_topics() == expected


def test_a_paragraph_counts_once_however_it_is_indented(reference):
    compound = "Statements\n\n  The if\n  statement\n\nThe end\n\nThe end"
    reference({"compound": compound, "if": "The if statement", "with": "The with statement\n\nThe end"})
    corpus = corpora.read_topics()
    assert corpus.training == ["Statements\n\n  The if\n  statement\n\nThe end"]
    assert corpus.held_out == ["The with statement"]


def test_nothing_that_is_held_out_of_the_real_reference_is_in_what_is_learned():
    corpus = corpora.read_topics()
    learned = {" ".join(part.split()) for text in corpus.training for part in text.split("\n\n")}
    held_out = {" ".join(part.split()) for text in corpus.held_out for part in text.split("\n\n")}
    assert len(learned) > 500 and len(held_out) > 20 and not learned & held_out
    assert corpora.size(corpus.held_out) >= 0.05 * corpora.size(corpus.training + corpus.held_out)


def test_a_python_without_the_reference_ends_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(FileNotFoundError, match=r"needs the module pydoc_data\.topics, but this Python came without"):
        corpora.read_topics()


# ---- windows


@pytest.fixture(scope="module")
def tokenizer():
    return tt.BPETokenizer.train("def f(x):\n    return x\n" * 4, 270)


@pytest.mark.parametrize("length", [1, 3, 7, 12])
def test_windows_in_order_predict_every_token_exactly_once(tokenizer, length):
    texts = ["def f(x):\n    return x\n", "def g(y):\n", "x\n"]
    ids = [1] + [i for text in texts for i in [*tokenizer.encode(text), 1]]
    batches, tokens = corpora.load_windows(tokenizer, texts, length, 2)
    targets = [i for (batch,) in batches for row in batch.tolist() for i in row[1:]]
    inputs = [i for (batch,) in batches for row in batch.tolist() for i in row[:-1]]
    assert targets == ids[1:] and inputs == ids[:-1]
    assert tokens == len(targets)


@pytest.mark.parametrize("length", [1, 3, 1000])
def test_windows_overlap_by_one_token_and_the_last_is_what_is_left(tokenizer, length):
    texts = ["def f(x):\n    return x\n", "x\n"]
    ids = [1] + [i for text in texts for i in [*tokenizer.encode(text), 1]]
    rows = [row.tolist() for row in corpora.windows(tokenizer, texts, length)]
    assert [i for row in rows for i in row[1:]] == ids[1:]
    assert [row[0] for row in rows[1:]] == [row[-1] for row in rows[:-1]]
    assert {len(row) for row in rows[:-1]} <= {length + 1} and len(rows[-1]) >= 2
    assert corpora.count_predicted(rows) == len(ids) - 1


def test_windows_for_training_are_full_and_without_padding(tokenizer):
    tt.manual_seed(0)
    batches, _ = corpora.load_windows(tokenizer, ["def f(x):\n    return x\n"] * 9, 8, 4, shuffle=True)
    shapes = [batch.shape for (batch,) in batches]
    assert set(shapes) == {(4, 9)} and len(shapes) == len(batches)
    assert all(tokenizer.pad_id not in row for (batch,) in batches for row in batch.tolist())


def test_a_model_that_guesses_needs_the_bits_of_a_guess(tokenizer):
    texts = ["def f(x):\n    return 'naïve'\n"] * 3
    batches, tokens = corpora.load_windows(tokenizer, texts, 5, 4)

    def guess(ids):
        return tt.zeros(*ids.shape, tokenizer.vocab_size)

    losses = [tt.next_token_loss(guess, batch) for (batch,) in batches]
    assert sum(count for _, count in losses) == tokens == 3 * (len(tokenizer.encode(texts[0])) + 1)
    loss = sum(loss.item() * count for loss, count in losses) / tokens
    expected = tokens * math.log2(tokenizer.vocab_size) / (3 * len(texts[0].encode()))
    assert corpora.bits_per_byte(loss, tokens, 3 * len(texts[0].encode())) == pytest.approx(expected)


def test_bits_per_byte_by_hand():
    assert corpora.bits_per_byte(math.log(2), 4, 8) == 0.5
    assert corpora.bits_per_byte(3 * math.log(2), 10, 20) == 1.5


# ---- the 5-gram


def bits(training, held_out, n):
    """All bits that the text costs."""
    return corpora.ngram_bits_per_byte(training, held_out, n) * len(held_out)


def test_a_model_without_context_by_hand():
    # aab: a 2, b 1 in 3 places; 2 different ones, each discounted by 0.75, leave 1.5 to the 256 bytes
    a, b, x = (1.25 + 1.5 / 256) / 3, (0.25 + 1.5 / 256) / 3, (1.5 / 256) / 3
    assert bits(b"aab", b"abxx", 1) == pytest.approx(-math.log2(a * b * x * x))


def test_a_model_of_pairs_by_hand():
    # abab: ab 2, ba 1. Without context counts how many bytes come before: b before a, a before b: one each.
    single, none = (0.25 + 1.5 / 256) / 2, (1.5 / 256) / 2
    b_after_a = (1.25 + 0.75 * single) / 2
    a_after_b = (0.25 + 0.75 * single) / 1
    x_after_b = (0.75 * none) / 1
    assert bits(b"abab", b"abab", 2) == pytest.approx(-math.log2(single * b_after_a * a_after_b * b_after_a))
    assert bits(b"abab", b"abx", 2) == pytest.approx(-math.log2(single * b_after_a * x_after_b))
    assert bits(b"abab", b"xa", 2) == pytest.approx(-math.log2(none * single))  # nothing is known after x


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("context", [b"", b"a", b"the ca", b"zzzzzz", "é".encode()])
def test_the_chances_of_all_bytes_sum_to_one(n, context):
    training = "the cat and the café, the bird and the end".encode()
    before = bits(training, context, n) if context else 0
    chances = [2 ** (before - bits(training, context + bytes([byte]), n)) for byte in range(256)]
    assert sum(chances) == pytest.approx(1)
    assert min(chances) > 0


def test_a_longer_memory_reads_repetition_better():
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, 6).tolist()) for _ in range(20)]
    text = b" ".join(words[i] for i in rng.integers(0, 20, 10_000))
    costs = [corpora.ngram_bits_per_byte(text[:50_000], text[50_000:], n) for n in (1, 2, 5)]
    assert costs[0] > costs[1] > costs[2]
    assert math.log2(20) / 7 < costs[2] < 1.2 * math.log2(20) / 7  # one of 20 words every 7 bytes, and no more
