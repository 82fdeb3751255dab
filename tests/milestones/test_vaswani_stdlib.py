"""The copilot on the standard library: its corpus, what it is measured by, and a short run of the whole."""

import hashlib
import math
import sysconfig

import numpy as np
import pytest
from running import MILESTONES, load_script, read_metrics

import tinytorch as tt
from tinytorch_course import milestone

copilot = load_script(MILESTONES / "05_2017_transformer" / "vaswani_copilot.py")
stdlib = copilot.stdlib_corpus


# ---- the corpus


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
    corpus = stdlib.read_corpus()
    assert corpus.training == ["_c.py" * 10, "a.py" * 10, "b.py" * 10]
    assert corpus.held_out == ["d.py" * 10]
    assert corpus.sha256() == hashlib.sha256(b"_c.py" * 10 + b"a.py" * 10 + b"b.py" * 10 + b"d.py" * 10).hexdigest()
    assert "3 files of the standard library to learn, 130 bytes; 1 held out, 40 bytes; sha256" in corpus.describe()


def test_as_many_files_are_held_out_as_make_five_percent(library):
    for name, length in (("a.py", 900), ("b.py", 40), ("c.py", 30), ("d.py", 25)):
        library(name, b"x" * length)
    assert [len(text) for text in stdlib.read_corpus().held_out] == [30, 25]


def test_the_corpus_ends_before_it_grows_too_large(library, monkeypatch):
    for name in "abcd":
        library(f"{name}.py", name.encode() * 10)
    monkeypatch.setattr(stdlib, "MAX_BYTES", 35)
    corpus = stdlib.read_corpus()
    assert corpus.training + corpus.held_out == ["a" * 10, "b" * 10, "c" * 10]


def test_the_text_does_not_depend_on_how_the_system_ends_lines(library):
    library("a.py", b"x\r\ny = '\xc3\xa9'\r\n")
    library("b.py", b"z\n")
    assert stdlib.read_corpus() == (["x\ny = 'é'\n"], ["z\n"])


def test_a_python_without_source_ends_in_a_sentence(library):
    with pytest.raises(FileNotFoundError, match="needs Python's own source files"):
        stdlib.read_corpus()


# ---- windows


@pytest.fixture(scope="module")
def tokenizer():
    return tt.BPETokenizer.train("def f(x):\n    return x\n" * 4, 270)


@pytest.mark.parametrize("length", [1, 3, 7, 12])
def test_windows_in_order_predict_every_token_exactly_once(tokenizer, length):
    texts = ["def f(x):\n    return x\n", "def g(y):\n", "x\n"]
    ids = [1] + [i for text in texts for i in [*tokenizer.encode(text), 1]]
    batches, tokens = stdlib.load_windows(tokenizer, texts, length, 2)
    targets = [i for (batch,) in batches for row in batch.tolist() for i in row[1:]]
    inputs = [i for (batch,) in batches for row in batch.tolist() for i in row[:-1]]
    assert targets == ids[1:] and inputs == ids[:-1]
    assert tokens == len(targets)


def test_windows_for_training_are_full_and_without_padding(tokenizer):
    tt.manual_seed(0)
    batches, _ = stdlib.load_windows(tokenizer, ["def f(x):\n    return x\n"] * 9, 8, 4, shuffle=True)
    shapes = [batch.shape for (batch,) in batches]
    assert set(shapes) == {(4, 9)} and len(shapes) == len(batches)
    assert all(tokenizer.pad_id not in row for (batch,) in batches for row in batch.tolist())


def test_a_model_that_guesses_needs_the_bits_of_a_guess(tokenizer):
    texts = ["def f(x):\n    return 'naïve'\n"] * 3
    batches, tokens = stdlib.load_windows(tokenizer, texts, 5, 4)

    def guess(ids):
        return tt.zeros(*ids.shape, tokenizer.vocab_size)

    losses = [tt.next_token_loss(guess, batch) for (batch,) in batches]
    assert sum(count for _, count in losses) == tokens == 3 * (len(tokenizer.encode(texts[0])) + 1)
    loss = sum(loss.item() * count for loss, count in losses) / tokens
    expected = tokens * math.log2(tokenizer.vocab_size) / (3 * len(texts[0].encode()))
    assert stdlib.bits_per_byte(loss, tokens, 3 * len(texts[0].encode())) == pytest.approx(expected)


def test_bits_per_byte_by_hand():
    assert stdlib.bits_per_byte(math.log(2), 4, 8) == 0.5
    assert stdlib.bits_per_byte(3 * math.log(2), 10, 20) == 1.5


# ---- the 5-gram


def bits(training, held_out, n):
    """All bits that the text costs."""
    return stdlib.ngram_bits_per_byte(training, held_out, n) * len(held_out)


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
    costs = [stdlib.ngram_bits_per_byte(text[:50_000], text[50_000:], n) for n in (1, 2, 5)]
    assert costs[0] > costs[1] > costs[2]
    assert math.log2(20) / 7 < costs[2] < 1.2 * math.log2(20) / 7  # one of 20 words every 7 bytes, and no more


# ---- the whole, with a small corpus


def run(out, *arguments):
    options = milestone.read_options(
        copilot.__doc__,
        lambda options: copilot.STEPS[options.corpus],
        out,
        list(map(str, arguments)),
        choices={"corpus": copilot.CORPORA},
    )
    tt.manual_seed(options.seed)
    return copilot.main(options)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(stdlib, "MAX_BYTES", 60_000)
    monkeypatch.setattr(stdlib, "MERGES", 50)


def test_a_short_run_reports_what_it_read_and_what_it_learned(tmp_path, small, capsys):
    assert run(tmp_path, "--corpus", "stdlib", "--steps", 8) == 1  # too short for its gate
    said = capsys.readouterr().out
    found = read_metrics(tmp_path)
    corpus = stdlib.read_corpus()
    assert found["corpus_files"] == len(corpus.training) + len(corpus.held_out)
    assert found["corpus_bytes"] == len("".join(corpus.training + corpus.held_out).encode()) <= 60_000
    assert found["corpus_held_out_bytes"] == len("".join(corpus.held_out).encode())
    assert found["corpus_sha256"] == corpus.sha256()
    assert 0 < found["loss_final"] < found["loss_initial"] == pytest.approx(math.log(308), rel=0.05)
    assert 2 < found["bits_per_byte"] < 8 and 1 < found["bits_per_byte_5gram"] < 6
    assert found["steps"] == 8 and found["held_out_loss"] == pytest.approx(found["loss_final"])
    assert found["corpus_sha256"] in said and "Not reached: the gate is that the loss on files never seen" in said
    assert all(f"\n{header}|" in said for header in copilot.HEADERS)
    assert "valid Python" not in said


def test_resuming_goes_on_with_the_same_corpus_and_tokenizer(tmp_path, small, monkeypatch, capsys):
    run(tmp_path / "whole", "--corpus", "stdlib", "--steps", 6, "--train-only")
    out = tmp_path / "stopped"

    def stop(trainer):
        if trainer.step == 3:
            raise KeyboardInterrupt

    save = tt.Trainer._train_step
    with monkeypatch.context() as patch:
        patch.setattr(tt.Trainer, "_train_step", lambda self: (save(self), self.save(), stop(self))[0])
        with pytest.raises(KeyboardInterrupt):
            run(out, "--corpus", "stdlib", "--steps", 6, "--train-only")
    monkeypatch.setattr(tt.BPETokenizer, "train", None)  # it was kept
    run(out, "--resume", "--train-only")
    ends = [read_metrics(folder) for folder in (tmp_path / "whole", out)]
    assert ends[0]["loss_final"] == ends[1]["loss_final"]
    assert ends[1]["steps"] == 6
    with pytest.raises(SystemExit):
        run(out, "--resume", "--corpus", "patterns")
    assert "a run of corpus stdlib, so --corpus patterns cannot be kept" in capsys.readouterr().err


def test_without_the_option_it_learns_the_programs(tmp_path):
    options = milestone.read_options("", lambda o: copilot.STEPS[o.corpus], tmp_path, [], {"corpus": copilot.CORPORA})
    assert (options.corpus, options.steps) == ("patterns", 700)
