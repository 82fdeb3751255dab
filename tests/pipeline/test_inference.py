"""Texts in, texts out: batches of unequal prompts, stop texts, streams, and what is counted."""

import random

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import Mamba, MambaConfig
from tinytorch.pipeline.inference import TextGenerator

TEXT = "the quick brown fox jumps over the lazy dog"
TOKENIZER = tt.CharTokenizer.from_text(TEXT)
PROMPTS = ["the quick", "fox", "a", "lazy dog jumps", "over"]
GREEDY = {"temperature": 0}


def gpt():
    shape = {"n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "initializer_range": 0.3}
    return tt.GPT(tt.GPTConfig(TOKENIZER.vocab_size, **shape), tt.Generator(0))


def mamba():
    return Mamba(MambaConfig.tiny(vocab_size=TOKENIZER.vocab_size, initializer_range=1.0), tt.Generator(0))


@pytest.fixture(params=[gpt, mamba], ids=["gpt", "mamba"])
def writer(request):
    return TextGenerator(request.param(), TOKENIZER)


class Scripted:
    """In the place of a model: it writes each of its texts in a row, one character a step, and counts the steps."""

    config = tt.GPTConfig(TOKENIZER.vocab_size, 64)

    def __init__(self, *texts, end=True, tokenizer=TOKENIZER):
        self.rows, self.steps = [tokenizer.encode(text, add_end=end) for text in texts], 0

    def parameters(self):
        return [tt.zeros(1)]

    def stream(self, ids, max_new_tokens, stop_tokens, key_padding_mask=None, **sampling):
        for i in range(min(max_new_tokens, max(map(len, self.rows)))):
            self.steps += 1
            yield tt.tensor([row[min(i, len(row) - 1)] for row in self.rows]).numpy()


# ---- what is written


def test_a_text_goes_on_as_complete_writes_it(writer):
    expected = [tt.complete(writer.model, TOKENIZER, prompt, max_new_tokens=12) for prompt in PROMPTS]
    assert [writer.generate(prompt, 12, **GREEDY) for prompt in PROMPTS] == expected
    assert writer.generate(PROMPTS, 12, **GREEDY) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 3, 99])
def test_groups_by_length_change_no_text_and_no_order(writer, batch_size):
    prompts = random.Random(0).choices(PROMPTS, k=7)
    expected = writer.generate(prompts, 8, repetition_penalty=1.4, **GREEDY)
    assert writer.generate_dynamic(prompts, batch_size, 8, repetition_penalty=1.4, **GREEDY) == expected


class Listening(Scripted):
    """It says nothing, and remembers how many places of each batch held tokens, and how many padding."""

    def __init__(self):
        super().__init__("")
        self.batches = []

    def stream(self, ids, max_new_tokens, stop_tokens, key_padding_mask=None):
        padded = 0 if key_padding_mask is None else key_padding_mask.sum().item()
        self.batches.append((ids.numel() - padded, padded))
        self.rows = [stop_tokens] * len(ids)
        return super().stream(ids, max_new_tokens, stop_tokens)


@pytest.mark.parametrize(("batch_size", "expected"), [(1, [(1, 0), (2, 0), (8, 0), (9, 0)]), (2, [(3, 1), (17, 1)])])
def test_prompts_alike_in_length_go_together_with_the_least_padding(batch_size, expected):
    model, prompts = Listening(), ["the quick", "a", "lazy dog", "ox"]
    assert TextGenerator(model, TOKENIZER).generate_dynamic(prompts, batch_size) == prompts
    assert model.batches == expected
    assert TextGenerator(model, TOKENIZER).generate(prompts) == prompts
    assert model.batches[-1] == (20, 16)


@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys, np.array], ids=lambda kind: kind.__name__)
def test_prompts_may_come_in_anything_that_can_be_gone_through(writer, kind):
    expected = writer.generate(PROMPTS, 4, **GREEDY)
    assert writer.generate(kind(PROMPTS), 4, **GREEDY) == expected
    assert writer.generate_dynamic(kind(PROMPTS), 2, 4, **GREEDY) == expected


def test_two_streams_take_turns_on_one_model():
    writer = TextGenerator(gpt(), TOKENIZER)
    alone = [writer.generate(prompt, 9, **GREEDY) for prompt in ("fox", "lazy")]
    one, other = (writer.stream(prompt, 9, **GREEDY) for prompt in ("fox", "lazy"))
    pieces = list(zip(one, other))
    assert ["fox" + "".join(p for p, _ in pieces), "lazy" + "".join(p for _, p in pieces)] == alone
    assert writer.model.training


def test_sampling_settings_reach_the_model(writer):
    settings = {"top_k": 5, "top_p": 0.9, "temperature": 1.5}
    ids = tt.tensor([TOKENIZER.encode("fox")])
    expected = writer.model.generate(ids, 9, stop_tokens=[1], generator=tt.Generator(4), **settings)
    assert writer.generate("fox", 9, generator=tt.Generator(4), **settings) == TOKENIZER.decode(expected.tolist()[0])


@pytest.mark.parametrize("penalty", [1.0, 1.6])
def test_streamed_pieces_are_the_text(writer, penalty):
    pieces = list(writer.stream("lazy", 10, repetition_penalty=penalty, **GREEDY))
    assert "lazy" + "".join(pieces) == writer.generate("lazy", 10, repetition_penalty=penalty, **GREEDY)
    assert len(pieces) > 1


def test_a_row_ends_at_its_own_end_token():
    model = Scripted("fox", "over the dog", "")
    assert TextGenerator(model, TOKENIZER).generate(["a", "b", "c"], 40) == ["afox", "bover the dog", "c"]


# ---- stop texts


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("o", ["the quick br", "f"]),
        (" ", ["the", "fox"]),
        (["zzz", "own"], ["the quick br", "fox"]),
        (["row", "ro", "ick"], ["the qu", "fox"]),
        ("zzz", ["the quick brown", "fox"]),
    ],
    ids=str,
)
def test_writing_ends_before_the_first_stop_text(stop, expected):
    texts = ["the quick brown", "fox"]
    assert TextGenerator(Scripted(*texts), TOKENIZER).generate(["a", "b"], stop=stop) == [
        "a" + expected[0],
        "b" + expected[1],
    ]
    for text, end in zip(texts, expected):
        assert "".join(TextGenerator(Scripted(text), TOKENIZER).stream("a", stop=stop)) == end


def test_a_batch_runs_no_longer_than_its_last_row():
    model = Scripted("the quick", "fox jumps over", end=False)
    TextGenerator(model, TOKENIZER).generate(["a", "b"], stop=["u"])
    assert model.steps == len("the qu")


def test_what_may_become_a_stop_text_waits():
    written = TextGenerator(Scripted("over the fox"), TOKENIZER).stream("a", stop="the dog")
    assert list(written) == ["o", "v", "e", "r", " ", "the f", "o", "x"]
    written = TextGenerator(Scripted("over the"), TOKENIZER).stream("a", stop="the dog")
    assert list(written) == ["o", "v", "e", "r", " ", "the"]


def test_a_character_of_several_tokens_comes_whole():
    tokenizer = tt.BPETokenizer.train("ab " * 9, 260)
    model = tt.GPT(tt.GPTConfig(tokenizer.vocab_size, 40, n_embd=8, n_layer=1, n_head=1), tt.Generator(0))
    writer = TextGenerator(model, tokenizer)
    assert "é" + "".join(writer.stream("é", 20, **GREEDY)) == writer.generate("é", 20, **GREEDY)


BYTES = tt.BPETokenizer.train("ab " * 9, 258 + 1)
HALF = "\U0001f642".encode()[:2]


@pytest.mark.parametrize("stop", ["\ufffd", "b", ["!", "\ufffd"], "\ufffdb"], ids=ascii)
@pytest.mark.parametrize(
    "written",
    ["é".encode(), "éb🙂!".encode(), b"x" + HALF, b"x" + HALF + b"b", b"\xff\xffb", "a\ufffdb".encode(), b"b" + HALF],
    ids=ascii,
)
@pytest.mark.parametrize("end", [True, False], ids=["end", "limit"])
def test_a_text_and_its_stream_stop_at_the_same_place_in_half_characters(written, stop, end):
    model = Scripted(tokenizer=BYTES)
    model.rows = [[2 + byte for byte in written] + [BYTES.end_id] * end]
    writer, whole = TextGenerator(model, BYTES), written.decode(errors="replace")
    stops = [stop] if isinstance(stop, str) else stop
    expected = whole[: min((whole.index(s) for s in stops if s in whole), default=len(whole))]
    assert writer.generate("a", stop=stop) == "a" + expected
    tokens = writer.statistics.tokens
    assert "".join(writer.stream("a", stop=stop)) == expected
    assert writer.statistics.tokens == tokens


# ---- what is counted


def test_statistics_of_a_batch():
    writer = TextGenerator(Scripted("fox", "over", ""), TOKENIZER)
    assert writer.statistics == tt.GenerationStatistics()
    assert writer.statistics.tokens_per_second == 0
    writer.generate(["a", "b", "c"])
    found = writer.statistics
    assert (found.prompts, found.batches, found.tokens) == (3, 1, len("fox") + len("over") + 3)
    assert 0 < found.seconds_to_first_token < found.seconds
    assert found.tokens_per_second == found.tokens / found.seconds


def test_statistics_of_groups_and_streams(writer):
    writer.generate_dynamic(PROMPTS, 2, 3, stop=(), **GREEDY)
    assert (writer.statistics.prompts, writer.statistics.batches) == (5, 3)
    assert 5 <= writer.statistics.tokens <= 15
    stream = writer.stream("fox", 6, **GREEDY)
    next(stream)
    stream.close()
    assert (writer.statistics.prompts, writer.statistics.batches, writer.statistics.tokens) == (1, 1, 1)
    assert writer.statistics.seconds > 0


def test_nothing_written_has_no_first_token(writer):
    assert writer.generate("fox", 0) == "fox"
    assert writer.statistics.seconds_to_first_token is None


def test_the_mode_of_the_model_is_as_it_was(writer):
    next(writer.stream("fox", 6, **GREEDY))
    writer.generate(PROMPTS, 2, stop="e")
    assert {module.training for module in writer.model.modules()} == {True}


# ---- what is refused


def test_no_prompts_and_empty_prompts_are_refused(writer):
    for method in (writer.generate, writer.generate_dynamic):
        with pytest.raises(ValueError, match=r"Generation needs at least one prompt, but got none"):
            method([])
        with pytest.raises(ValueError, match=r"Each prompt needs at least one token to go on from, but '' has none"):
            method(["fox", ""])
    for method in (writer.generate, writer.stream):
        with pytest.raises(ValueError, match=r"Each prompt needs at least one token to go on from, but '' has none"):
            method("")


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_written():
    writer = TextGenerator(gpt(), TOKENIZER)
    for method, prompts in ((writer.generate, ["fox", "a" * 60]), (writer.stream, "a" * 60)):
        with pytest.raises(ValueError, match=r"A prompt of 60 and 5 new tokens need to fit into n_positions=64"):
            method(prompts, 5)
    assert writer.generate("a" * 60, 4).startswith("a" * 60)


def test_a_mamba_reads_a_prompt_of_any_length():
    assert len(TextGenerator(mamba(), TOKENIZER).generate("fox " * 1000, 5, stop="zzz")) >= 4000


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size needs an integer of at least 1, but got 0"),
        ({"prompts": "fox"}, TypeError, r"a list of prompts, but got one text. Use generate, or \[text\]"),
        ({"stop": ["e", ""]}, ValueError, "stop needs texts of at least one character"),
        ({"temperature": -1}, ValueError, "temperature needs a number of at least 0, but got -1"),
        ({"repetition_penalty": 0}, ValueError, "repetition_penalty needs a number above 0"),
        ({"prompts": ["FOX"]}, ValueError, "The tokenizer does not know 'F', 'O', 'X'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        TextGenerator(gpt(), TOKENIZER).generate_dynamic(**{"prompts": PROMPTS, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens needs an integer of at least 0, but got -1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens needs an integer of at least 0, but got 2.5"),
        ({"max_new_tokens": None}, "max_new_tokens needs an integer of at least 0, but got None"),
        ({"stop": None}, r"stop needs a text or a list of texts, \(\) for none, but got None"),
        ({"stop": 5}, "stop needs a text or a list of texts.* but got 5"),
        ({"stop": ["e", 5]}, r"stop needs a text or a list of texts.* but got \['e', 5\]"),
        ({"temperature": None}, "temperature needs a number of at least 0, but got None"),
        ({"repetition_penalty": "x"}, "repetition_penalty needs a number above 0 .* but got 'x'"),
    ],
    ids=str,
)
def test_every_method_refuses_settings_that_cannot_be_by_their_names(settings, message):
    writer = TextGenerator(gpt(), TOKENIZER)
    for start in (writer.generate, writer.stream, lambda prompt, **given: writer.generate_dynamic([prompt], **given)):
        with pytest.raises(ValueError, match=message):
            start("fox", **settings)


@pytest.mark.parametrize("prompts", [None, 5, [5], ["fox", None], b"fox", [["fox"]]], ids=str)
def test_prompts_that_are_no_texts_are_refused(prompts):
    writer = TextGenerator(gpt(), TOKENIZER)
    for method in (writer.generate, writer.generate_dynamic, writer.stream):
        with pytest.raises(
            TypeError, match=r"Generation needs (a text or a list of texts as prompts, but got|prompts th)"
        ):
            method(prompts)
