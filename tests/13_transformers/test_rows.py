"""Rows that hold more or less than one text: several documents, or a prompt behind padding on the left."""

import sys

import numpy as np
import pytest
import strict_array

import tinytorch as tt
from tinytorch.testing import assert_close

V, CONTEXT = 11, 12
SHAPES = {
    "gpt2": {},
    "llama": {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False},
    "grouped": {"n_kv_head": 1, "sliding_window": 3},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def gpt(**changes):
    shape = {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 12, "n_layer": 2, "n_head": 3, "initializer_range": 0.3}
    return tt.GPT(tt.GPTConfig(**{**shape, **changes}), tt.Generator(0))


def texts(*lengths):
    rng = np.random.default_rng(0)
    return [rng.integers(0, V, length).tolist() for length in lengths]


def together(parts):
    return [token for part in parts for token in part]


def numbered(*lengths):
    """The documents of a row that holds texts of these lengths."""
    return np.repeat(np.arange(len(lengths)), lengths).tolist()


def on_the_left(rows):
    """ids (B, T) of the rows behind padding, and where it is."""
    longest = max(map(len, rows))
    padded = [[0] * (longest - len(row)) + row for row in rows]
    return tt.tensor(padded), tt.tensor([[i < longest - len(row) for i in range(longest)] for row in rows])


# ---- documents


@pytest.mark.exercise("ex-13-5", points=2)
@pytest.mark.exercise("ex-13-7", points=4)
@every_shape
@pytest.mark.parametrize("lengths", [(4, 5, 1), (1, 1, 8), (10,)])
def test_packed_documents_get_the_logits_that_each_has_alone(shape, lengths):
    model, parts = gpt(**shape), texts(*lengths)
    packed = model(tt.tensor([together(parts)]), documents=tt.tensor([numbered(*lengths)]))
    alone = tt.cat([model(tt.tensor([part])) for part in parts], dim=1)
    assert_close(packed, alone, 1e-4, 1e-5)


def test_rows_are_packed_each_in_its_own_way():
    model, (a, b, c, d) = gpt(), texts(2, 5, 4, 3)
    packed = model(tt.tensor([a + b, c + d]), documents=tt.tensor([numbered(2, 5), numbered(4, 3)]))
    for row, first, text in [(0, 0, a), (0, 2, b), (1, 0, c), (1, 4, d)]:
        assert_close(packed[row, first : first + len(text)], model(tt.tensor([text]))[0], 1e-4, 1e-5)


@every_shape
def test_gradients_of_packed_documents_are_those_of_each_alone(shape):
    model, parts = gpt(**shape), texts(4, 3, 5)
    g = np.random.default_rng(1).standard_normal((1, 12, V)).astype(np.float32)
    model(tt.tensor([together(parts)]), documents=tt.tensor([numbered(4, 3, 5)])).backward(g)
    packed = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for first, part in zip((0, 4, 7), parts):
        model(tt.tensor([part])).backward(g[:, first : first + len(part)])
    for name, parameter in model.named_parameters():
        assert_close(packed[name], parameter.grad, 1e-3, 1e-4, what=name)


def test_documents_go_together_with_padding_on_either_side():
    model, (a, b) = gpt(), texts(3, 4)
    ids = tt.tensor([[0, 0, *a, *b, 0]])
    padding = tt.tensor([[True] * 2 + [False] * 7 + [True]])
    for numbers in ([0] * 5 + [1] * 5, [3, 3, 5, 5, 5, 7, 7, 7, 7, 9]):
        logits = model(ids, padding, documents=tt.tensor([numbers]))
        assert_close(logits[:, 2:5], model(tt.tensor([a])), 1e-4, 1e-5)
        assert_close(logits[:, 5:9], model(tt.tensor([b])), 1e-4, 1e-5)
        assert np.isfinite(logits.data).all()


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([[0, 0, 1, 1]], r"integers of the shape of ids, \(2, 4\), and no cache, but got int64 of \(1, 4\)"),
        ([0, 0, 1, 1], r"but got int64 of \(4,\)"),
        ([[0.0, 0, 1, 1]] * 2, r"but got float32 of \(2, 4\)"),
        ([[0, 0, 1, 1], [0, 1, 1, 0]], "numbers that do not fall along a row.* Count them up from left to right"),
    ],
)
def test_documents_of_another_kind_are_refused(documents, message):
    with pytest.raises(ValueError, match=message):
        gpt()(tt.tensor([texts(4)[0]] * 2), documents=tt.tensor(documents))


@tt.no_grad()
def test_a_cache_goes_on_with_one_document():
    model, ids = gpt(), tt.tensor(texts(4))
    with pytest.raises(ValueError, match=r"int64 of \(1, 4\) with a cache. Generate from one document a row"):
        model(ids, cache=model.new_cache(), documents=tt.tensor([[0, 0, 1, 1]]))


# ---- padding on the left


@pytest.mark.exercise("ex-13-7", points=4)
@every_shape
def test_a_prompt_behind_padding_gets_the_logits_that_it_has_alone(shape):
    model, rows = gpt(**shape), texts(3, 7, 1)
    ids, padding = on_the_left(rows)
    logits = model(ids, key_padding_mask=padding)
    for i, row in enumerate(rows):
        assert_close(logits[i, -len(row) :], model(tt.tensor([row]))[0], 1e-4, 1e-5)
    assert np.isfinite(logits.data).all()


@pytest.mark.exercise("ex-13-7", points=4)
@every_shape
@tt.no_grad()
def test_a_cache_counts_from_the_first_token_behind_padding(shape):
    model, rows = gpt(**shape), texts(2, 6)
    ids, padding = on_the_left(rows)
    whole, cache = model(ids, key_padding_mask=padding), model.new_cache()
    parts = [model(ids[:, :3], padding[:, :3], cache)]
    parts += [model(ids[:, i : i + 1], padding[:, : i + 1], cache) for i in range(3, 6)]
    assert_close(tt.cat(parts, dim=1), whole, 1e-4, 1e-5)


def test_gradients_behind_padding_are_those_without_it():
    model, (row,) = gpt(), texts(4)
    ids, padding = on_the_left([row, texts(7)[0]])
    g = np.random.default_rng(1).standard_normal((1, 4, V)).astype(np.float32)
    model(ids[:1], padding[:1])[:, 3:].backward(g)
    behind = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(tt.tensor([row])).backward(g)
    for name, parameter in model.named_parameters():
        assert_close(behind[name], parameter.grad, 1e-3, 1e-4, what=name)


def test_a_row_of_nothing_but_padding_makes_no_nan():
    model = gpt()
    logits = model(tt.tensor([[0, 0, 0], [1, 2, 3]]), tt.tensor([[True] * 3, [False] * 3]))
    logits.sum().backward()
    assert np.isfinite(logits.data).all()
    assert all(np.isfinite(parameter.grad.data).all() for parameter in model.parameters())


def test_a_mask_that_says_nothing_changes_no_bit():
    model, ids = gpt(), tt.tensor(texts(5))
    assert_close(model(ids, key_padding_mask=ids < 0), model(ids), 0, 0)


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (4,)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"key_padding_mask needs shape \(2, 4\), but got \("):
        gpt()(tt.tensor(texts(4, 4)), key_padding_mask=tt.ones(shape) > 0)


def test_documents_and_padding_stay_on_the_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_array)
    found = []
    for where in ("cpu", "cuda"):
        model = gpt().to(where)
        ids, padding = (x.to(where) for x in on_the_left(texts(3, 8)))
        documents = tt.tensor([[0] * 5 + [1] * 3, [0] * 2 + [1] * 6]).to(where)
        logits = model(ids, padding, documents=documents)
        logits.sum().backward()
        written = model.generate(ids, 4, temperature=0, key_padding_mask=padding, repetition_penalty=1.3)
        found.append((logits.detach().to("cpu"), model.wpe.weight.grad.to("cpu"), written.to("cpu")))
    for here, there in zip(*found):
        assert_close(there, here, 1e-4, 1e-4)
