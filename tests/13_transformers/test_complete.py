"""Module 13: `complete` with tokens that are whole characters, several of them, or a part of one."""

from types import SimpleNamespace

import pytest

import tinytorch as tt


class Speaker:
    """In the place of a model: it says the same ids whatever it is asked."""

    config = SimpleNamespace(n_positions=40)

    def __init__(self, ids):
        self.ids = ids

    def parameters(self):
        return [tt.zeros(1)]

    def stream(self, ids, max_new_tokens, stop_tokens, temperature):
        for token in self.ids:
            yield [token]
            if token in stop_tokens:
                return


@pytest.fixture(scope="module")
def tokenizer():
    return tt.BPETokenizer.train("ab " * 9, 260)


def byte_ids(data):
    return [2 + byte for byte in data]


def complete(tokenizer, ids):
    """The text, and the pieces in which it was shown."""
    pieces = []
    text = tt.complete(Speaker(ids), tokenizer, "a", show=pieces.append)
    assert text == tt.complete(Speaker(ids), tokenizer, "a") == "a" + "".join(pieces)
    return text, [piece for piece in pieces if piece]


def test_a_character_of_several_tokens_is_shown_when_it_is_whole(tokenizer):
    assert complete(tokenizer, byte_ids("é🙂!".encode())) == ("aé🙂!", ["é", "🙂", "!"])


def test_bytes_that_are_no_character_are_replaced(tokenizer):
    assert complete(tokenizer, byte_ids(b"x\xff\xffy")) == ("ax\ufffd\ufffdy", ["x", "\ufffd\ufffdy"])
    assert complete(tokenizer, byte_ids(b"x" + "🙂".encode()[:3])) == ("ax\ufffd", ["x", "\ufffd"])


def test_the_end_token_ends_it(tokenizer):
    ids = [*tokenizer.encode(" ab"), tokenizer.end_id, *tokenizer.encode("b")]
    assert complete(tokenizer, ids) == ("a ab", [" ab"])


def test_saying_nothing_is_the_prompt(tokenizer):
    assert complete(tokenizer, [tokenizer.end_id]) == complete(tokenizer, []) == ("a", [])


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_model_completes_with_either_tokenizer(kind):
    text = "def f(x):\n    return x\n"
    tokenizer = tt.CharTokenizer.from_text(text) if kind == "char" else tt.BPETokenizer.train(text, 270)
    model = tt.GPT(tt.GPTConfig(tokenizer.vocab_size, 40, n_embd=8, n_layer=1, n_head=1), tt.Generator(0))
    pieces = []
    completed = tt.complete(model, tokenizer, "def", show=pieces.append)
    assert completed == "def" + "".join(pieces)


def test_the_loss_without_padding_counts_every_token():
    model = tt.GPT(tt.GPTConfig(9, 8, n_embd=8, n_layer=1, n_head=1), tt.Generator(0))
    ids = tt.tensor([[3, 0, 4, 5], [6, 7, 0, 0]])  # 0 is a token like any other here
    loss, count = tt.next_token_loss(model, ids)
    expected = tt.cross_entropy(model(ids[:, :-1]).reshape(6, 9), ids[:, 1:].reshape(6))
    assert count == 6
    assert loss.item() == pytest.approx(expected.item())
    assert tt.next_token_loss(model, ids, 0)[1] == 3
