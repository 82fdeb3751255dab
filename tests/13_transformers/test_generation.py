"""Prompts of unequal length in one batch, and a penalty for repetition."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close
from tinytorch.transformers.generation import Generation, penalised, sample

V, CONTEXT = 11, 20
SHAPES = {
    "gpt2": {},
    "llama": {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False, "n_kv_head": 1},
    "mistral": {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False, "sliding_window": 3},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
with_and_without = pytest.mark.parametrize("use_cache", [True, False])


def gpt(**changes):
    shape = {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 12, "n_layer": 2, "n_head": 3, "initializer_range": 0.3}
    return tt.GPT(tt.GPTConfig(**{**shape, **changes}), tt.Generator(0))


def prompts(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, length).tolist() for length in lengths]


def on_the_left(rows, filler=0):
    """ids (B, T) of the rows behind padding, and where it is."""
    longest = max(map(len, rows))
    padded = [[filler] * (longest - len(row)) + row for row in rows]
    return tt.tensor(padded), tt.tensor([[i < longest - len(row) for i in range(longest)] for row in rows])


class Counter(tt.Module, Generation):
    """A model of another kind: it says how many tokens it has read so far, which is all that its cache holds."""

    config = SimpleNamespace(n_positions=None, vocab_size=50)

    def new_cache(self):
        return {"read": 0}

    def forward(self, ids, key_padding_mask=None, cache=None):
        real = np.ones(ids.shape, bool) if key_padding_mask is None else ~key_padding_mask.data[:, -ids.shape[1] :]
        read = real.sum(axis=1) + (cache["read"] if cache else 0)
        if cache is not None:
            cache["read"] = read
        return tt.tensor(np.eye(50)[np.repeat(read[:, None], ids.shape[1], axis=1)])


# ---- prompts of unequal length


@every_shape
@with_and_without
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_each_prompt_goes_on_as_it_would_alone(shape, use_cache, penalty):
    model, rows = gpt(**shape), prompts(5, 1, 8, 3)
    ids, padding = on_the_left(rows)
    settings = {"temperature": 0, "use_cache": use_cache, "repetition_penalty": penalty}
    together = model.generate(ids, 10, key_padding_mask=padding, **settings)
    alone = [model.generate(tt.tensor([row]), 10, **settings)[0, -10:].tolist() for row in rows]
    assert together[:, -10:].tolist() == alone
    assert together[:, :8].tolist() == ids.tolist()


@with_and_without
def test_what_stands_under_padding_is_never_read(use_cache):
    model, rows = gpt(), prompts(2, 6)
    written = []
    for filler in (0, 7):
        ids, padding = on_the_left(rows, filler)
        settings = {"repetition_penalty": 1.8, "key_padding_mask": padding, "use_cache": use_cache}
        written.append(model.generate(ids, 8, generator=tt.Generator(0), **settings)[:, 6:].tolist())
    assert written[0] == written[1]


@with_and_without
def test_a_model_with_another_cache_and_no_limit_goes_on_for_ever(use_cache):
    ids, padding = on_the_left([[9] * 3, [9]])
    y = Counter().generate(ids, 40, temperature=0, use_cache=use_cache, key_padding_mask=padding)
    assert y[:, 3:].tolist() == [list(range(3, 43)), list(range(1, 41))]


def test_a_mask_without_padding_changes_nothing():
    model, ids = gpt(), tt.tensor(prompts(4, 4))
    plain = model.generate(ids, 6, generator=tt.Generator(1))
    assert model.generate(ids, 6, generator=tt.Generator(1), key_padding_mask=ids < 0).tolist() == plain.tolist()


@pytest.mark.parametrize("mask", [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], ids=str)
def test_padding_elsewhere_is_refused_before_anything_runs(mask):
    for start in (gpt().generate, gpt().stream):
        with pytest.raises(ValueError, match=r"padding needs to be on the left of each prompt.* Move the padding to t"):
            start(tt.tensor([[1, 2, 3, 4]] * 2), 2, key_padding_mask=tt.tensor([[0] * 4, mask]) == 1)


@pytest.mark.parametrize("mask", [tt.zeros(2, 3) > 0, tt.zeros(2, 4)], ids=["shape", "dtype"])
def test_a_mask_of_another_kind_is_refused(mask):
    with pytest.raises(ValueError, match=r"key_padding_mask needs booleans of the shape of ids, \(2, 4\), but got"):
        gpt().generate(tt.tensor(prompts(4, 4)), 2, key_padding_mask=mask)


def test_padding_counts_for_the_room():
    ids, padding = on_the_left(prompts(2, CONTEXT - 2))
    assert gpt().generate(ids, 2, key_padding_mask=padding).shape == (2, CONTEXT)
    with pytest.raises(ValueError, match=rf"A prompt of 18 and 3 new tokens need to fit into n_positions={CONTEXT}"):
        gpt().generate(ids, 3, key_padding_mask=padding)


# ---- a penalty for repetition


def test_positive_logits_are_divided_and_negative_ones_multiplied():
    logits = np.array([[2.0, -2.0, 0.0, 3.0, -math.inf], [1.0, -1.0, 4.0, -4.0, 0.5]], np.float32)
    seen = np.array([[1, 1, 1, 0, 1], [0, 0, 1, 1, 0]], bool)
    expected = [[1.0, -4.0, 0.0, 3.0, -math.inf], [1.0, -1.0, 2.0, -8.0, 0.5]]
    y = penalised(logits, seen, 2.0)
    assert y.tolist() == expected
    assert y.dtype == np.float64
    assert logits[0, 0] == 2  # as it was


def rewritten(model, ids, n, penalty):
    """Greedy writing with a penalty, one number after the other."""
    for _ in range(n):
        rows = []
        for row, logits in zip(ids, model(tt.tensor(ids)).data[:, -1].tolist()):
            for token in set(row):
                logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
            rows.append([*row, int(np.argmax(logits))])
        ids = rows
    return ids


@with_and_without
@pytest.mark.parametrize("penalty", [0.5, 1.2, 5.0])
def test_tokens_of_the_prompt_and_new_ones_are_penalised_in_each_row(use_cache, penalty):
    model, ids = gpt(), prompts(4, 4, 4)
    settings = {"temperature": 0, "use_cache": use_cache, "repetition_penalty": penalty}
    assert model.generate(tt.tensor(ids), 9, **settings).tolist() == rewritten(model, ids, 9, penalty)


def test_a_penalty_of_one_is_none():
    model, ids = gpt(), tt.tensor(prompts(4))
    plain, penalty = (model.generate(ids, 9, generator=tt.Generator(0), **s) for s in ({}, {"repetition_penalty": 1}))
    assert_close(plain, penalty, 0, 0)


@pytest.mark.parametrize("largest", [1.0, 1e38])
@pytest.mark.parametrize(
    ("penalty", "logits", "seen", "expected"),
    [
        (1e-300, [0.2, 0.3, 0.9, -1.0], [1, 1, 0, 0], 1),
        (5e-324, [0.2, 0.3, 0.9, -1.0], [1, 1, 0, 1], 1),
        (1.7e308, [-0.2, -0.3, -1.0, -0.1], [1, 1, 0, 1], 2),
        (1.7e308, [-0.4, -0.3, -0.8, -0.2], [1, 1, 1, 1], 3),
    ],
)
def test_the_smallest_and_the_largest_penalty_decide_without_a_warning(penalty, logits, seen, expected, largest):
    y = penalised(np.array([logits], np.float32) * np.float32(largest), np.array([seen], bool), penalty)
    assert np.isfinite(y).all()
    assert {sample(y, temperature, generator=tt.Generator(0)).item() for temperature in (0, 0.01)} == {expected}


def test_a_model_goes_on_with_the_smallest_penalty():
    written = gpt().generate(tt.tensor([[3, 4]]), 9, repetition_penalty=1e-300, generator=tt.Generator(0))
    assert written.shape == (1, 11)


@pytest.mark.parametrize("penalty", [0, -1.0, math.inf, math.nan, "x", None, True, 10**400])
def test_a_penalty_out_of_range_is_refused(penalty):
    with pytest.raises(ValueError, match=rf"repetition_penalty needs a number above 0 .*, but got {penalty!r}"):
        gpt().stream(tt.tensor([[1]]), 1, repetition_penalty=penalty)


def test_ids_outside_the_vocabulary_are_refused_with_a_penalty_too():
    for token in (V, -1):
        with pytest.raises(IndexError, match="embedding needs ids from 0"):
            gpt().generate(tt.tensor([[1, token]]), 1, repetition_penalty=2.0)


# ---- texts


def test_complete_stops_after_as_many_tokens_as_it_is_told():
    tokenizer = tt.CharTokenizer("abcdefghi")  # and two special ones
    model = gpt()
    whole = tt.complete(model, tokenizer, "abc", repetition_penalty=1.1)
    assert tt.complete(model, tokenizer, "abc", repetition_penalty=1.1, max_new_tokens=3) == whole[:6]


class Talker(Counter):
    """With a parameter, so that it is somewhere."""

    def __init__(self):
        self.weight = tt.Parameter(tt.zeros(1))


def test_a_model_without_a_limit_is_told_where_to_stop():
    tokenizer = tt.CharTokenizer([chr(65 + i) for i in range(48)])
    with pytest.raises(ValueError, match=r"has no longest text. Pass max_new_tokens"):
        tt.complete(Talker(), tokenizer, "AA")
    with pytest.raises(ValueError, match=r"A prompt needs at least 1 token, but this one has 0"):
        tt.complete(Talker(), tokenizer, "", max_new_tokens=3)
    assert tt.complete(Talker(), tokenizer, "AA", max_new_tokens=3) == "AAABC"
