"""A GPT sees the past and only the past, with and without a cache, and generates what its settings ask for."""

import itertools
import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close
from tinytorch.transformers import sample

V, CONTEXT = 11, 10


def config(**changes):
    return tt.GPTConfig(**{"vocab_size": V, "n_positions": CONTEXT, "n_embd": 12, "n_layer": 2, "n_head": 3, **changes})


def gpt(seed=0, **changes):
    """A small GPT whose weights are large enough that its choices are clear."""
    return tt.GPT(config(initializer_range=0.3, **changes), generator=tt.Generator(seed))


def ids(batch=2, time=4, seed=0):
    return tt.tensor(np.random.default_rng(seed).integers(0, V, (batch, time)))


# ---- the configuration


@pytest.mark.parametrize("size", [0, -4, 2.5, None, "8"])
@pytest.mark.parametrize("field", ["vocab_size", "n_positions", "n_embd", "n_layer", "n_head"])
def test_a_size_that_cannot_be_is_refused_by_name(field, size):
    with pytest.raises(ValueError, match=rf"{field} needs an integer of at least 1, but got"):
        config(**{field: size})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_inner": 0}, "n_inner needs an integer of at least 1, but got 0"),
        ({"n_embd": 10}, "n_embd divisible by n_head, but got 10 and 3"),
        ({"dropout": 1.0}, "dropout of at least 0 and below 1, but got 1.0"),
        ({"dropout": -0.1}, "dropout of at least 0 and below 1, but got -0.1"),
        ({"dropout": math.nan}, "dropout of at least 0 and below 1, but got nan"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_defaults_are_those_of_gpt2():
    small = tt.GPTConfig(vocab_size=50257)
    assert (small.n_positions, small.n_embd, small.n_layer, small.n_head) == (1024, 768, 12, 12)
    assert (small.layer_norm_epsilon, small.initializer_range) == (1e-5, 0.02)


# ---- the parts


def test_the_mlp_is_four_times_as_wide_inside_unless_told():
    assert tt.MLP(6).c_fc.weight.shape == (24, 6)
    assert tt.MLP(6, n_inner=5).c_proj.weight.shape == (6, 5)


@pytest.mark.exercise("ex-13-3", points=1)
def test_the_mlp_works_on_each_position_alone():
    mlp, x = tt.MLP(6, generator=tt.Generator(0)), tt.tensor(np.random.default_rng(0).standard_normal((2, 3, 6)))
    expected = mlp.c_proj(tt.gelu(mlp.c_fc(x), approximate="tanh"))
    assert_close(mlp(x), expected, 0, 0)
    assert_close(mlp(x[:, 1:2]), expected[:, 1:2], 1e-5, 1e-6)


@pytest.mark.exercise("ex-13-5", points=2)
def test_a_block_adds_to_the_stream_what_its_normalised_parts_say():
    block, x = tt.Block(config(), tt.Generator(0)), tt.tensor(np.random.default_rng(0).standard_normal((2, 4, 12)))
    y = x + block.attn(block.ln_1(x), is_causal=True)
    assert_close(block(x), y + block.mlp(block.ln_2(y)), 1e-6, 1e-6)


@pytest.mark.exercise("ex-13-5", points=2)
def test_silent_branches_make_a_block_the_identity():
    block, x = tt.Block(config()), tt.tensor(np.random.default_rng(0).standard_normal((2, 4, 12)))
    for parameter in (*block.attn.out_proj.parameters(), *block.mlp.c_proj.parameters()):
        parameter.data[...] = 0
    assert_close(block(x), x, 0, 0)


# ---- the whole, forward


@pytest.mark.exercise("ex-13-7", points=4)
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 7), (2, CONTEXT)])
def test_every_position_gets_a_logit_for_every_token(batch, time):
    assert gpt()(ids(batch, time)).shape == (batch, time, V)


def test_parameters_are_counted_once_by_their_formula():
    c = 12
    block = 2 * c + 4 * (c * c + c) + 2 * c + (4 * c * c + 4 * c) + (4 * c * c + c)
    expected = V * c + CONTEXT * c + 2 * block + 2 * c + V * c
    assert gpt().num_parameters() == expected
    assert gpt(tie_word_embeddings=True).num_parameters() == expected - V * c


def test_a_tied_head_is_the_token_embedding_and_learns_from_both_uses():
    model = gpt(tie_word_embeddings=True)
    assert model.lm_head.weight is model.wte.weight
    names = [name for name, _ in model.named_parameters()]
    assert "wte.weight" in names
    assert "lm_head.weight" not in names
    assert {"wte.weight", "lm_head.weight"} <= model.state_dict().keys()
    model(tt.tensor([[3]])).sum().backward()
    untied = gpt()
    untied.load_state_dict(model.state_dict())
    untied(tt.tensor([[3]])).sum().backward()
    assert_close(model.wte.weight.grad, untied.wte.weight.grad + untied.lm_head.weight.grad, 1e-4, 1e-5)


@pytest.mark.exercise("ex-13-6", points=2)
def test_weights_start_as_in_gpt2():
    model = tt.GPT(tt.GPTConfig(vocab_size=200, n_positions=64, n_embd=96, n_layer=3, n_head=4), tt.Generator(0))
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if name.endswith("bias"):
            assert_close(values, np.zeros_like(values), 0, 0, what=name)
        elif values.ndim == 1:
            assert_close(values, np.ones_like(values), 0, 0, what=name)
        else:
            residual = name.endswith(("out_proj.weight", "c_proj.weight"))
            assert_close(values.std(), 0.02 / math.sqrt(6) if residual else 0.02, rtol=0.05, what=name)
            assert abs(values.mean()) < 5 * values.std() / math.sqrt(values.size), name


@pytest.mark.parametrize("vocabulary", [2, 50, 1000])
def test_an_untrained_model_is_as_surprised_as_a_fair_die(vocabulary):
    model = tt.GPT(config(vocab_size=vocabulary), tt.Generator(0))
    targets = tt.tensor(np.random.default_rng(0).integers(0, vocabulary, 40))
    loss = tt.cross_entropy(model(targets.reshape(4, 10)).flatten(0, 1), targets)
    assert_close(loss, math.log(vocabulary), rtol=0, atol=0.05)


def test_a_seed_decides_all_weights():
    one, same, other = gpt(1), gpt(1), gpt(2)
    for (name, first), second in zip(one.named_parameters(), same.parameters()):
        assert_close(first, second, 0, 0, what=name)
    assert not np.array_equal(one.wte.weight.data, other.wte.weight.data)


@pytest.mark.exercise("ex-13-5", points=2)
@pytest.mark.parametrize("place", range(1, 6))
def test_a_token_changes_no_logits_before_it_and_all_from_it_on(place):
    model, before = gpt(), ids(2, 6)
    after = before.numpy().copy()
    after[:, place] = (after[:, place] + 1) % V
    changed = np.abs(model(tt.tensor(after)).data - model(before).data).max(axis=(0, 2))
    assert [position for position in range(6) if changed[position] >= 1e-5] == list(range(place, 6))
    least = float(changed[place:].min())
    assert least > 1e-3


@pytest.mark.exercise("ex-13-7", points=4)
def test_the_whole_is_its_parts_one_after_the_other():
    model, tokens = gpt(), ids(2, 6)
    x = model.wte(tokens) + model.wpe.weight[:6]
    for block in model.h:
        x = block(x)
    assert_close(model(tokens), model.lm_head(model.ln_f(x)), 1e-6, 1e-6)


@pytest.mark.exercise("ex-13-7", points=4)
def test_positions_matter():
    logits = gpt()(tt.tensor([[5, 5, 5]])).data
    difference = float(np.abs(logits[0, 0] - logits[0, 1]).max())
    assert difference > 1e-2


@pytest.mark.exercise("ex-13-5", points=2)
@pytest.mark.exercise("ex-13-7", points=4)
def test_padding_changes_nothing_for_the_tokens_after_it():
    model = gpt()
    padding = tt.tensor([[True, True, False, False, False]])
    one = model(tt.tensor([[0, 0, 3, 1, 4]]), key_padding_mask=padding)
    other = model(tt.tensor([[7, 9, 3, 1, 4]]), key_padding_mask=padding)
    assert_close(one[:, 2:], other[:, 2:], 1e-5, 1e-6)
    finite = bool(np.isfinite(one.data).all())
    assert finite
    difference = float(np.abs(one.data - model(tt.tensor([[0, 0, 3, 1, 4]])).data)[:, 2:].max())
    assert difference > 1e-2


def test_padding_at_the_end_leaves_a_short_sequence_as_it_was_alone():
    model, short = gpt(), [3, 1, 4]
    padded = model(tt.tensor([[*short, 0, 0]]), key_padding_mask=tt.tensor([[False] * 3 + [True] * 2]))
    assert_close(padded[:, :3], model(tt.tensor([short])), 1e-5, 1e-6)


def test_dropout_is_active_in_training_only():
    model = gpt(dropout=0.5)
    assert not np.allclose(model(ids()).data, model(ids()).data)
    model.eval()
    assert_close(model(ids()), gpt()(ids()), 1e-6, 1e-6)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("", marks=pytest.mark.exercise("ex-13-7", points=4)),
        pytest.param("h.0", marks=pytest.mark.exercise("ex-13-5", points=2)),
        pytest.param("h.1.mlp", marks=pytest.mark.exercise("ex-13-3", points=1)),
        "h.1.attn",
    ],
)
def test_dropout_acts_in_each_of_its_places(place):
    model = gpt()
    expected = model(ids()).data
    part = dict(model.named_modules())[place]
    if place.endswith("attn"):
        part.dropout = 0.5
    else:
        part.dropout.p = 0.5
    difference = float(np.abs(model(ids()).data - expected).max())
    assert difference > 1e-3


@pytest.mark.parametrize("shape", [(4,), (), (1, 2, 3), (2, 0)])
def test_ids_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"GPT needs ids of shape \(batch, time\) with at least one.* but got \("):
        gpt()(tt.zeros(shape, dtype=tt.int64))


def test_a_sequence_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match=rf"n_positions={CONTEXT} positions, but got a sequence of {CONTEXT + 1}"):
        gpt()(ids(1, CONTEXT + 1))


@pytest.mark.parametrize("token", [V, -1])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(IndexError, match=rf"ids from 0 to {V - 1}, but got .*the same vocabulary"):
        gpt()(tt.tensor([[1, token]]))


def test_ids_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="integer ids, but got float32"):
        gpt()(tt.tensor([[1.0, 2.0]]))


# ---- the cache


@pytest.mark.exercise("ex-13-5", points=2)
@pytest.mark.exercise("ex-13-7", points=4)
@pytest.mark.parametrize("pieces", [[1] * 6, [6], [4, 1, 1], [3, 3], [1, 5]])
@pytest.mark.parametrize("batch", [1, 3])
@tt.no_grad()
def test_cached_logits_are_the_uncached_ones(pieces, batch):
    model, tokens = gpt(), ids(batch, 6)
    cache, ends = model.new_cache(), list(itertools.accumulate(pieces))
    logits = [model(tokens[:, end - length : end], cache=cache) for length, end in zip(pieces, ends)]
    assert_close(tt.cat(logits, dim=1), model(tokens), 1e-4, 1e-5)
    assert [layer.length for layer in cache] == [6, 6]


@tt.no_grad()
def test_cached_padding_covers_all_positions_so_far():
    model, tokens = gpt(), ids(2, 5)
    padding = np.array([[False] * 5, [True, True, False, False, False]])
    cache, logits = model.new_cache(), []
    for end in range(1, 6):
        mask = tt.tensor(padding[:, :end])
        logits.append(model(tokens[:, end - 1 : end], key_padding_mask=mask, cache=cache))
    assert_close(tt.cat(logits, dim=1), model(tokens, key_padding_mask=tt.tensor(padding)), 1e-4, 1e-5)


@tt.no_grad()
def test_the_context_holds_for_the_cache_too():
    model = gpt()
    cache = model.new_cache()
    model(ids(1, CONTEXT - 1), cache=cache)
    with pytest.raises(ValueError, match=rf"n_positions={CONTEXT} positions, but got a sequence of {CONTEXT + 1}"):
        model(ids(1, 2), cache=cache)
    assert cache[0].length == CONTEXT - 1
    assert model(ids(1, 1), cache=cache).shape == (1, 1, V)


def test_a_cache_keeps_no_graph():
    model = gpt()
    with pytest.raises(RuntimeError, match="A KVCache keeps no graph"):
        model(ids(), cache=model.new_cache())


# ---- generating


def greedy(model, prompt, n):
    """The most likely token again and again, with the plain forward pass."""
    for _ in range(n):
        logits = model(tt.tensor(prompt))
        prompt = np.concatenate([prompt, logits.data[:, -1].argmax(-1)[:, None]], axis=1)
    return prompt


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"temperature": 1e-6}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 0, "top_k": 3}],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_most_likely_token_again_and_again(settings, use_cache, batch):
    model, prompt = gpt(), ids(batch, 2)
    y = model.generate(prompt, 6, use_cache=use_cache, **settings)
    assert y.dtype == prompt.dtype
    assert y.tolist() == greedy(model, prompt.numpy(), 6).tolist()


@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0}, {"top_k": 4}, {"top_p": 0.7}], ids=str)
def test_the_same_seed_gives_the_same_text_with_and_without_a_cache(settings):
    model = gpt()
    texts = [
        model.generate(ids(), 6, use_cache=use_cache, generator=tt.Generator(seed), **settings).tolist()
        for seed, use_cache in [(1, True), (1, False), (2, True)]
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_the_default_generator_decides_where_none_is_given():
    model, texts = gpt(), []
    for _ in range(2):
        tt.manual_seed(4)
        texts.append(model.generate(ids(), 6).tolist())
    assert texts[0] == texts[1]


def test_the_prompt_stays_in_front_and_is_not_changed():
    prompt = ids(2, 3)
    before = prompt.tolist()
    y = gpt().generate(prompt, 5)
    assert y.shape == (2, 8)
    assert y[:, :3].tolist() == prompt.tolist() == before


def test_no_new_tokens_give_the_prompt():
    assert gpt().generate(ids(), 0).tolist() == ids().tolist()


def test_the_whole_context_can_be_filled():
    assert gpt().generate(ids(2, 4), CONTEXT - 4).shape == (2, CONTEXT)


class Scripted(tt.GPT):
    """A model that writes token `script[position][row]` next, whatever it reads, and counts its forward passes."""

    def __init__(self, script):
        super().__init__(config())
        self.script, self.calls = script, 0

    def forward(self, ids, cache=None):
        self.calls += 1
        logits = np.zeros((*ids.shape, V), np.float32)
        for row in range(len(ids)):
            logits[row, -1, self.script[self.calls - 1][row]] = 100.0
        return tt.tensor(logits)


def test_streaming_yields_one_token_at_a_time_and_works_no_further():
    model = Scripted([[4], [2], [7]])
    stream = model.stream(ids(1), 3)
    assert model.calls == 0
    for calls, token in enumerate([4, 2, 7], start=1):
        assert next(stream).tolist() == [token]
        assert model.calls == calls
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("use_cache", [True, False])
def test_streamed_tokens_are_the_generated_ones(use_cache):
    model, settings = gpt(), {"use_cache": use_cache, "top_k": 5}
    streamed = list(model.stream(ids(), 5, generator=tt.Generator(3), **settings))
    whole = model.generate(ids(), 5, generator=tt.Generator(3), **settings)
    assert np.stack(streamed, axis=1).tolist() == whole[:, 4:].tolist()


def test_a_stop_token_is_the_last_one():
    model = Scripted([[4], [9], [7]])
    assert model.generate(tt.tensor([[1]]), 3, stop_tokens=[9]).tolist() == [[1, 4, 9]]
    assert model.calls == 2


def test_a_sequence_that_stopped_repeats_its_stop_token_while_others_go_on():
    model = Scripted([[4, 9, 3], [8, 1, 3], [5, 6, 9], [0, 0, 0]])
    y = model.generate(tt.tensor([[1], [2], [3]]), 4, stop_tokens=(9, 8))
    assert y.tolist() == [[1, 4, 8, 8], [2, 9, 9, 9], [3, 3, 3, 9]]
    assert model.calls == 3


def test_a_stop_token_in_the_prompt_stops_nothing():
    assert Scripted([[4], [5]]).generate(tt.tensor([[9]]), 2, stop_tokens=[9]).tolist() == [[9, 4, 5]]


@pytest.mark.parametrize("training", [True, False])
def test_generation_has_no_dropout_and_leaves_the_mode_as_it_was(training):
    model = gpt(dropout=0.5).train(training)
    y = model.generate(ids(), 5, temperature=0)
    assert y.tolist() == greedy(gpt(), ids().numpy(), 5).tolist()
    assert {module.training for module in model.modules()} == {training}


def test_the_mode_is_as_it_was_between_two_tokens_and_after_leaving_early():
    model = gpt(dropout=0.5)
    stream = model.stream(ids(), 5)
    next(stream)
    assert {module.training for module in model.modules()} == {True}
    model.h[1].eval()
    next(stream)
    stream.close()
    assert [block.training for block in model.h] == [True, False]
    assert model.training


def test_two_streams_take_turns_on_one_model():
    model, prompts = gpt(dropout=0.5), (ids(1, 4), ids(2, 3))
    alone = [np.stack(list(gpt().stream(prompt, 6, temperature=0))).tolist() for prompt in prompts]
    streams, written = [model.stream(prompt, 6, temperature=0) for prompt in prompts], ([], [])
    for _ in range(6):
        for stream, tokens in zip(streams, written):
            tokens.append(next(stream).tolist())
            model(ids())  # as training would, between two tokens
    assert list(written) == alone
    assert {module.training for module in model.modules()} == {True}


def test_an_error_in_the_middle_leaves_the_mode_as_it_was():
    model = gpt()
    with pytest.raises(IndexError, match="embedding needs ids"):
        model.generate(tt.tensor([[V + 5]]), 2)
    assert {module.training for module in model.modules()} == {True}


def test_generation_leaves_no_graph_and_no_gradient():
    model = gpt()
    y = model.generate(ids(), 3)
    assert not y.requires_grad
    assert y.grad_fn is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_are_recorded_between_streamed_tokens():
    model = gpt()
    for _ in model.stream(ids(), 2):
        assert model.wte(tt.tensor([0])).requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature needs a number of at least 0, but got -0.1"),
        ({"temperature": math.nan}, "temperature needs a number of at least 0, but got nan"),
        ({"temperature": math.inf}, "temperature needs a number of at least 0, but got inf"),
        ({"top_k": 0}, "top_k needs an integer of at least 1, but got 0"),
        ({"top_k": 2.5}, "top_k needs an integer of at least 1, but got 2.5"),
        ({"top_p": 0}, "top_p needs a number above 0 and at most 1, but got 0"),
        ({"top_p": 1.01}, "top_p needs a number above 0 and at most 1, but got 1.01"),
        ({"top_p": math.nan}, "top_p needs a number above 0 and at most 1, but got nan"),
        ({"temperature": None}, "temperature needs a number of at least 0, but got None"),
        ({"temperature": True}, "temperature needs a number of at least 0, but got True"),
        ({"temperature": 10**400}, "temperature needs a number of at least 0, but got 1000"),
        ({"top_p": "0.9"}, "top_p needs a number above 0 and at most 1, but got '0.9'"),
        ({"stop_tokens": 5}, r"stop_tokens needs a list of token ids, such as \[1\], but got 5"),
        ({"stop_tokens": None}, "stop_tokens needs a list of token ids.* but got None"),
        ({"stop_tokens": [1, 2.5]}, r"stop_tokens needs a list of token ids.* but got \[1, 2.5\]"),
        ({"stop_tokens": [True]}, r"stop_tokens needs a list of token ids.* but got \[True\]"),
        ({"stop_tokens": "12"}, "stop_tokens needs a list of token ids.* but got '12'"),
    ],
)
def test_sampling_settings_out_of_range_are_refused_before_anything_runs(settings, message):
    model = Scripted([])
    for start in (model.generate, model.stream):
        with pytest.raises(ValueError, match=message):
            start(ids(), 1, **settings)
    assert model.calls == 0


@pytest.mark.parametrize("new", [-1, 2.5, None, True, "3"])
def test_a_number_of_tokens_that_is_none_is_refused_before_anything_runs(new):
    model = Scripted([])
    for start in (model.generate, model.stream):
        with pytest.raises(ValueError, match=rf"max_new_tokens needs an integer of at least 0, but got {new!r}"):
            start(ids(), new)
    assert model.calls == 0


@pytest.mark.parametrize("new", [CONTEXT - 3, 1000])
def test_a_number_of_tokens_that_does_not_fit_is_refused_before_anything_runs(new):
    model = Scripted([])
    for start in (model.generate, model.stream):
        with pytest.raises(ValueError, match=rf"A prompt of 4 and {new} new tokens .* n_positions={CONTEXT}"):
            start(ids(), new)
    assert model.calls == 0


@pytest.mark.parametrize("shape", [(3,), (2, 0)])
def test_a_prompt_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"GPT needs ids of shape \(batch, time\) with at least one position"):
        gpt().generate(tt.zeros(shape, dtype=tt.int64), 1)


# ---- choosing a token


LOGITS = np.array([0.0, 1.5, -1.0, 1.0, 0.3], np.float32)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def frequencies(draws=40_000, **settings):
    """How often each of the tokens of LOGITS is chosen."""
    chosen = sample(np.tile(LOGITS, (draws, 1)), generator=tt.Generator(0), **settings)
    assert chosen.shape == (draws,)
    return np.bincount(chosen, minlength=len(LOGITS)) / draws


def assert_drawn_from(counted, p, draws=40_000):
    """Pearson's chi-square stays below its 99.99th percentile, and nothing without probability was drawn."""
    assert_close(counted, p, rtol=0, atol=0.02, what="how often each token is chosen")
    assert [token for token in np.flatnonzero(counted).tolist() if p[token] == 0] == []
    possible = p > 0
    chi_square = draws * np.sum((counted - p)[possible] ** 2 / p[possible])
    assert chi_square < {5: 23.5, 4: 21.1, 3: 18.4, 2: 15.1, 1: 1e-6}[possible.sum()]


@pytest.mark.exercise("ex-13-9", points=4)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_frequencies_follow_the_softmax_of_the_logits_over_the_temperature(temperature):
    assert_drawn_from(frequencies(temperature=temperature), softmax(LOGITS / temperature))


@pytest.mark.exercise("ex-13-9", points=4)
@pytest.mark.parametrize(("k", "kept"), [(2, [1, 3]), (3, [1, 3, 4]), (5, range(5)), (99, range(5))])
def test_top_k_keeps_the_k_most_likely_in_proportion(k, kept):
    p = np.zeros(5)
    p[list(kept)] = softmax(LOGITS[list(kept)])
    assert_drawn_from(frequencies(top_k=k), p)


@pytest.mark.exercise("ex-13-9", points=4)
@pytest.mark.parametrize(
    ("p_needed", "kept"), [(0.4, [1]), (0.5, [1, 3]), (0.8, [1, 3, 4]), (0.95, [0, 1, 3, 4]), (1.0, range(5))]
)
def test_top_p_keeps_the_fewest_that_reach_it_in_proportion(p_needed, kept):
    p = np.zeros(5)
    p[list(kept)] = softmax(LOGITS[list(kept)])
    reached = np.sort(softmax(LOGITS)[list(kept)])
    assert reached.sum() >= p_needed - 1e-6 > reached[1:].sum() - 2e-6  # without the least likely, too little
    assert_drawn_from(frequencies(top_p=p_needed), p)


@pytest.mark.exercise("ex-13-9", points=4)
def test_top_p_counts_after_temperature_and_top_k():
    flat = softmax(LOGITS[[1, 3, 4]] / 2.0)  # of the three kept by top_k, the first two do not reach 0.8
    assert flat[:2].sum() < 0.8
    p = np.zeros(5)
    p[[1, 3, 4]] = flat
    assert_drawn_from(frequencies(temperature=2.0, top_k=3, top_p=0.8), p)


@pytest.mark.exercise("ex-13-9", points=4)
def test_rows_are_drawn_independently_from_their_own_logits():
    logits = np.tile(np.array([[50.0, 0, 0], [0, 0, 50.0], [0, 0, 0]]), (1000, 1))
    chosen = sample(logits, generator=tt.Generator(0)).reshape(1000, 3)
    assert np.unique(chosen[:, :2], axis=0).tolist() == [[0, 2]]
    assert np.unique(chosen[:, 2]).tolist() == [0, 1, 2]


@pytest.mark.exercise("ex-13-9", points=4)
def test_a_forbidden_token_is_never_drawn():
    logits = np.tile(np.array([-np.inf, 0.0, 0.0, -np.inf]), (2000, 1))
    assert set(sample(logits, temperature=5.0, generator=tt.Generator(0))) == {1, 2}


@pytest.mark.parametrize("offset", [-1e30, 1e4])
def test_huge_logits_do_not_overflow(offset):
    assert sample(np.array([[offset, offset, -np.inf]], np.float32), generator=tt.Generator(0))[0] in (0, 1)


@pytest.mark.exercise("ex-13-9", points=4)
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 1}, {"top_p": 1e-12}], ids=str)
def test_cold_or_narrow_sampling_takes_the_most_likely(settings):
    logits = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    assert sample(logits, generator=tt.Generator(0), **settings).tolist() == logits.argmax(-1).tolist()


def test_a_temperature_next_to_zero_is_cold_without_a_warning():
    logits = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    chosen = sample(logits, temperature=1e-300, generator=tt.Generator(0))
    assert chosen.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_no_numbers_are_refused(temperature):
    with pytest.raises(ValueError, match=r"(?i)nan"):
        sample(np.array([[1.0, math.nan, 2.0]]), temperature=temperature)


# ---- the loss at the next token


class Bigram(tt.Module):
    """Logits that depend on the token itself alone, from a table."""

    def __init__(self, table):
        self.table = tt.tensor(table)

    def forward(self, ids, key_padding_mask=None):
        return self.table[ids]


@pytest.mark.exercise("ex-13-8", points=2)
@pytest.mark.parametrize("pad_id", [None, 0])
def test_the_loss_is_the_mean_surprise_at_the_tokens_that_follow(pad_id):
    table = np.random.default_rng(0).standard_normal((5, 5))
    surprise = np.log(np.exp(table).sum(-1, keepdims=True)) - table
    ids = np.array([[1, 2, 4, 3], [3, 1, 0, 0]])
    pairs = [(a, b) for a, b in zip(ids[:, :-1].flat, ids[:, 1:].flat) if pad_id is None or b != pad_id]
    loss, count = tt.next_token_loss(Bigram(table), tt.tensor(ids), pad_id)
    assert count == len(pairs)
    assert loss.item() == pytest.approx(np.mean([surprise[pair] for pair in pairs]), rel=1e-12)
