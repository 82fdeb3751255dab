"""A Mamba's parts and the whole: what a token chooses, one more token behind a cache, and rows of several texts."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.mamba import MambaCache
from tinytorch.mamba.model import step_size_bias
from tinytorch.testing import assert_close, check_grad

V, K = 11, 4


def config(**changes):
    return tt.MambaConfig(**{"d_model": 8, "d_state": 4, "n_layers": 2, "vocab_size": V, "d_conv": K, **changes})


def shaken(module, seed=0):
    """The module with parameters that all count."""
    rng = np.random.default_rng(seed)
    for name, parameter in module.named_parameters():
        noise = rng.standard_normal(parameter.shape)
        if name.endswith(("in_proj.weight", "x_proj.weight", "out_proj.weight", "embeddings.weight")):
            noise *= 2 / math.sqrt(parameter.shape[-1])
        parameter.data[...] += (0.4 * noise).astype(np.float32)
    return module


def mamba(seed=0, **changes):
    return shaken(tt.Mamba(config(**changes), tt.Generator(seed)), seed)


def mixer(**changes):
    return shaken(tt.MambaMixer(config(**changes), tt.Generator(0)))


def ids(batch=2, time=7, seed=0):
    return tt.tensor(np.random.default_rng(seed).integers(0, V, (batch, time)))


def stream(batch=2, time=7, seed=0):
    return tt.tensor(np.random.default_rng(seed).standard_normal((batch, time, 8)).astype(np.float32))


def numbers(module):
    """The arrays of a state dict, in float64."""
    return {name: tensor.numpy().astype(float) for name, tensor in module.state_dict().items()}


def silu(x):
    return x / (1 + np.exp(-x))


# ---- the configuration


PRESETS = {
    "tiny": (32, 8, 2, 100, 20_032),
    "small": (64, 16, 4, 1000, 194_816),
    "medium": (128, 32, 6, 5000, 1_413_376),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_sizes_and_its_number_of_parameters(name):
    width, state, layers, vocabulary, count = PRESETS[name]
    preset = getattr(tt.MambaConfig, name)()
    assert (preset.d_model, preset.d_state, preset.n_layers, preset.vocab_size) == (width, state, layers, vocabulary)
    assert tt.Mamba(preset).num_parameters() == count + width  # the last norm


def test_a_preset_can_be_changed():
    assert tt.MambaConfig.tiny(n_layers=3, dt_rank=5) == dataclasses.replace(
        tt.MambaConfig.tiny(), n_layers=3, dt_rank=5
    )


@pytest.mark.parametrize(
    "changes", [{}, {"bias": True}, {"conv_bias": False}, {"dt_rank": 3, "expand": 3, "d_conv": 2}]
)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_once_by_their_formula(changes, tied):
    model = mamba(tie_word_embeddings=tied, **changes)
    c, n, k = 8, 4, changes.get("d_conv", K)
    e, r = changes.get("expand", 2) * c, changes.get("dt_rank", 1)
    layer = 2 * e * c + e * k + e + e * (r + 2 * n) + r * e + e + e * n + e + c * e + c
    layer += 2 * e + c if changes.get("bias") else 0
    layer -= e if "conv_bias" in changes else 0
    assert model.num_parameters() == V * c * (1 if tied else 2) + 2 * layer + c


def test_defaults_are_those_of_the_paper():
    default = tt.MambaConfig()
    assert (default.d_model, default.d_state, default.d_conv, default.expand, default.n_layers) == (2048, 16, 4, 2, 24)
    assert (default.vocab_size, default.pad_token_id, default.d_inner, default.rank) == (50280, 0, 4096, 128)
    assert (default.dt_min, default.dt_max, default.dt_init_floor, default.layer_norm_epsilon) == (
        1e-3,
        0.1,
        1e-4,
        1e-5,
    )


@pytest.mark.parametrize(("width", "rank"), [(8, 1), (16, 1), (17, 2), (128, 8)])
def test_the_rank_of_the_step_size_is_a_sixteenth_rounded_up(width, rank):
    assert config(d_model=width).rank == rank
    assert config(d_model=width, dt_rank=5).rank == 5


@pytest.mark.parametrize("size", [0, -4, 2.5, "8", True])
@pytest.mark.parametrize("field", ["d_model", "d_state", "d_conv", "expand", "n_layers", "vocab_size", "dt_rank"])
def test_a_size_that_cannot_be_is_refused_by_name(field, size):
    with pytest.raises(ValueError, match=rf"{field} needs an integer of at least 1, but got {size!r}"):
        config(**{field: size})


@pytest.mark.parametrize("token", [-1, V, 1.0, None, True])
def test_a_token_for_padding_outside_the_vocabulary_is_refused(token):
    with pytest.raises(ValueError, match=rf"needs pad_token_id from 0 to vocab_size - 1 = {V - 1}, but got {token!r}"):
        config(pad_token_id=token)


@pytest.mark.parametrize("number", [0.0, -1.0, math.inf, math.nan, True, None, "1"])
@pytest.mark.parametrize(
    "field", ["dt_min", "dt_max", "dt_init_floor", "dt_scale", "layer_norm_epsilon", "initializer_range"]
)
def test_a_number_that_cannot_be_is_refused_by_name(field, number):
    with pytest.raises(ValueError, match=rf"needs {field} to be a number above 0, but got {number!r}"):
        config(**{field: number})


@pytest.mark.parametrize("field", ["bias", "conv_bias", "tie_word_embeddings"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_what_is_neither_true_nor_false_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"needs {field} to be True or False, but got {value!r}"):
        config(**{field: value})


def test_step_sizes_from_more_to_less_are_refused():
    with pytest.raises(ValueError, match=r"needs dt_min up to dt_max, but got 0\.2 and 0\.1"):
        config(dt_min=0.2)


# ---- how weights start


def softplus64(x):
    return np.log1p(np.exp(np.asarray(x, np.float64)))


@pytest.mark.exercise("ex-14-2", points=2)
def test_step_sizes_begin_in_their_range_and_as_many_in_each_decade():
    n = 20_000
    dt = softplus64(step_size_bias(n, 1e-3, 0.1, generator=tt.Generator(0)).data)
    assert 1e-3 * (1 - 1e-4) < dt.min() < 1.01e-3
    assert 0.099 < dt.max() < 0.1 * (1 + 1e-4)
    parts, _ = np.histogram(np.log(dt), 4, (math.log(1e-3 * (1 - 1e-4)), math.log(0.1 * (1 + 1e-4))))
    assert np.abs(parts / n - 0.25).max() < 0.015


@pytest.mark.exercise("ex-14-2", points=2)
@pytest.mark.parametrize("dt", [1e-6, 1e-4, 0.05, 1.0, 20.0, 100.0])
def test_softplus_brings_back_the_step_size_large_or_small(dt):
    bias = step_size_bias(5, dt, dt, floor=1e-9)
    assert bias.dtype == np.float32
    assert_close(softplus64(bias.data), np.full(5, dt), rtol=1e-5)


@pytest.mark.exercise("ex-14-2", points=2)
def test_no_step_size_begins_below_the_floor():
    dt = softplus64(step_size_bias(2000, 1e-3, 0.1, 1e-2, generator=tt.Generator(0)).data)
    assert_close(dt.min(), 1e-2, 1e-5)
    assert abs(np.mean(dt < 1.001e-2) - 0.5) < 0.05  # half of the logarithms are below


@pytest.mark.exercise("ex-14-2", points=2)
def test_the_same_seed_gives_the_same_step_sizes():
    one, same, other = (step_size_bias(9, generator=tt.Generator(seed)) for seed in (1, 1, 2))
    assert_close(one, same, 0, 0)
    assert not np.array_equal(one.data, other.data)


@pytest.mark.exercise("ex-14-2", points=2)
def test_weights_start_as_in_the_paper():
    shape = tt.MambaConfig(d_model=96, d_state=5, n_layers=4, vocab_size=200, dt_scale=0.5)
    model = tt.Mamba(shape, tt.Generator(0))
    inner, rank = 192, 6
    bounds = {
        "in_proj.weight": 96**-0.5,
        "conv1d.weight": K**-0.5,
        "conv1d.bias": K**-0.5,
        "x_proj.weight": inner**-0.5,
        "dt_proj.weight": 0.5 * rank**-0.5,
        "out_proj.weight": inner**-0.5 / 2,  # smaller by the root of the number of layers
    }
    for block in model.backbone.layers:
        values = numbers(block.mixer)
        for name, bound in bounds.items():
            assert 0.95 * bound < np.abs(values[name]).max() <= bound * (1 + 1e-6), name
            assert abs(values[name].std() - bound / math.sqrt(3)) < 0.1 * bound, name
        assert_close(values["A_log"], np.log([[1, 2, 3, 4, 5]] * inner), 1e-6, 1e-7)
        assert_close(values["D"], np.ones(inner), 0, 0)
        dt = softplus64(values["dt_proj.bias"])
        assert 0.999e-3 < dt.min() < 2e-3 < 0.05 < dt.max() < 0.1001
        assert_close(block.norm.weight, np.ones(96), 0, 0)
    assert_close(model.backbone.embeddings.weight.data.std(), 0.02, rtol=0.03)
    assert_close(model.backbone.norm_f.weight, np.ones(96), 0, 0)


def test_a_seed_decides_all_weights():
    one, same, other = (tt.Mamba(config(), tt.Generator(seed)) for seed in (1, 1, 2))
    for (name, first), second in zip(one.named_parameters(), same.parameters()):
        assert_close(first, second, 0, 0, what=name)
    assert not np.array_equal(one.lm_head.weight.data, other.lm_head.weight.data)


def test_what_weight_decay_must_leave_alone_is_named():
    names = [name for name, _ in mamba().named_parameters()]
    kept = {name.rpartition("mixer.")[2] for name in names if name.endswith(tt.Mamba.no_decay)}
    assert kept == {"A_log", "D", "dt_proj.bias"}
    assert len([name for name in names if name.endswith(tt.Mamba.no_decay)]) == 2 * 3


# ---- what a token chooses


@pytest.mark.exercise("ex-14-3", points=2)
@pytest.mark.parametrize("rank", [None, 3])
def test_step_size_b_and_c_are_parts_of_one_projection(rank):
    layer = mixer(dt_rank=rank)
    u, r = np.random.default_rng(0).standard_normal((2, 5, 16)).astype(np.float32), rank or 1
    delta, B, C = layer._select(tt.tensor(u))
    state = numbers(layer)
    made = u.astype(float) @ state["x_proj.weight"].T
    raw = made[..., :r] @ state["dt_proj.weight"].T + state["dt_proj.bias"]
    assert_close(delta, softplus64(raw), 1e-5, 1e-6)
    assert_close(B, made[..., r : r + 4], 1e-5, 1e-5)
    assert_close(C, made[..., r + 4 :], 1e-5, 1e-5)


@pytest.mark.exercise("ex-14-3", points=2)
def test_a_token_that_says_nothing_gets_the_step_sizes_of_the_beginning():
    layer = tt.MambaMixer(tt.MambaConfig(d_model=64), tt.Generator(0))
    delta, B, C = layer._select(tt.zeros(1, 1, 128))
    assert 0.999e-3 < float(delta.data.min()) < float(delta.data.max()) < 0.1001
    assert not B.data.any()
    assert not C.data.any()


# ---- the mixer and the block


def mixed_by_definition(layer, x):
    """The mixer in plain NumPy, one sequence and one step after the other."""
    state, none = numbers(layer), np.zeros(1)
    E, N = state["A_log"].shape
    R, A = state["dt_proj.weight"].shape[1], -np.exp(state["A_log"])
    y = np.zeros((*x.shape[:2], E))
    for b, sequence in enumerate(x.astype(float)):
        xz = sequence @ state["in_proj.weight"].T + state.get("in_proj.bias", none)
        padded = np.concatenate([np.zeros((K - 1, E)), xz[:, :E]])
        h = np.zeros((E, N))
        for t in range(len(sequence)):
            u = silu((padded[t : t + K] * state["conv1d.weight"][:, 0].T).sum(0) + state.get("conv1d.bias", none))
            low, B, C = np.split(state["x_proj.weight"] @ u, [R, R + N])
            delta = softplus64(state["dt_proj.weight"] @ low + state["dt_proj.bias"])
            h = np.exp(delta[:, None] * A) * h + np.outer(delta * u, B)
            y[b, t] = (h @ C + state["D"] * u) * silu(xz[t, E:])
    return y @ state["out_proj.weight"].T + state.get("out_proj.bias", none)


def normalised(x, norm):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * numbers(norm)["weight"]


@pytest.mark.exercise("ex-14-3", points=2)
@pytest.mark.parametrize("changes", [{}, {"bias": True, "conv_bias": False}, {"dt_rank": 3}], ids=str)
@pytest.mark.parametrize("time", [1, 3, 9])
def test_the_mixer_is_that_of_the_definition(changes, time):
    layer, x = mixer(**changes), stream(time=time)
    assert_close(layer(x), mixed_by_definition(layer, x.data), 1e-4, 1e-5)


def test_gradients_of_the_mixer_are_those_of_finite_differences():
    layer = mixer()
    state = numbers(layer)
    for name, parameter in layer.named_parameters():
        parameter.data = state[name]

    def at(x, A_log, dt_bias, conv):
        layer.A_log, layer.dt_proj.bias, layer.conv1d.weight = A_log, dt_bias, conv
        return layer(x)

    moved = (state[name] for name in ("A_log", "dt_proj.bias", "conv1d.weight"))
    check_grad(at, np.random.default_rng(0).standard_normal((2, 6, 8)), *moved)


@pytest.mark.exercise("ex-14-5", points=1)
def test_a_block_adds_to_the_stream_what_the_mixer_says_of_a_normalised_copy():
    block, x = shaken(tt.MambaBlock(config(), tt.Generator(0))), stream()
    expected = x.data + mixed_by_definition(block.mixer, normalised(x.data, block.norm))
    assert_close(block(x), expected, 1e-4, 1e-5)


@pytest.mark.exercise("ex-14-5", points=1)
def test_a_silent_mixer_makes_a_block_the_identity():
    block, x = tt.MambaBlock(config()), stream()
    block.mixer.out_proj.weight.data[...] = 0
    assert_close(block(x), x, 0, 0)


# ---- the whole


@pytest.mark.exercise("ex-14-5", points=1)
def test_the_whole_is_its_parts_one_after_the_other():
    model, tokens = mamba(), ids()
    state = numbers(model)
    x = state["backbone.embeddings.weight"][tokens.numpy()]
    for block in model.backbone.layers:
        x = x + mixed_by_definition(block.mixer, normalised(x, block.norm))
    assert_close(model(tokens), normalised(x, model.backbone.norm_f) @ state["lm_head.weight"].T, 1e-4, 1e-4)


@pytest.mark.parametrize("place", range(1, 7))
def test_a_token_changes_no_logits_before_it_and_all_from_it_on(place):
    model, before = mamba(), ids()
    after = before.numpy().copy()
    after[:, place] = (after[:, place] + 1) % V
    changed = np.abs(model(tt.tensor(after)).data - model(before).data).max(axis=(0, 2))
    assert [position for position in range(7) if changed[position] >= 1e-6] == list(range(place, 7))


def test_a_tied_head_is_the_embedding_and_an_untied_one_is_not():
    tied, untied = mamba(), mamba(tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.backbone.embeddings.weight
    assert "lm_head.weight" not in dict(tied.named_parameters())
    assert "lm_head.weight" in dict(untied.named_parameters())


def test_every_parameter_gets_a_gradient():
    model = mamba()
    tt.next_token_loss(model, ids())[0].backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.data.any()] == []


# ---- rows of several texts, and rows behind padding


def numbered(*lengths):
    return tt.tensor([np.repeat(np.arange(len(lengths)), lengths).tolist()])


@pytest.mark.exercise("ex-14-5", points=1)
@pytest.mark.parametrize("lengths", [(4, 5, 1), (1, 1, 8), (10,), (2, 3, 5)])
def test_packed_documents_get_the_logits_that_each_has_alone(lengths):
    model, tokens = mamba(), ids(1, 10)
    ends = list(itertools.accumulate(lengths))
    alone = [model(tokens[:, end - length : end]) for length, end in zip(lengths, ends)]
    assert_close(model(tokens, documents=numbered(*lengths)), tt.cat(alone, dim=1), 1e-4, 1e-5)


def test_gradients_of_packed_documents_are_those_of_each_alone():
    model, tokens = mamba(), ids(1, 10)
    g = np.random.default_rng(1).standard_normal((1, 10, V)).astype(np.float32)
    model(tokens, documents=numbered(4, 5, 1)).backward(g)
    packed = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for first, end in ((0, 4), (4, 9), (9, 10)):
        model(tokens[:, first:end]).backward(g[:, first:end])
    for name, parameter in model.named_parameters():
        scale = 1 + float(np.abs(parameter.grad.data).max())
        assert_close(packed[name], parameter.grad, atol=1e-5 * scale, what=name)


@pytest.mark.exercise("ex-14-5", points=1)
@pytest.mark.parametrize("padded", [1, 3, 9])
def test_padding_on_the_left_changes_nothing_for_the_text_behind_it(padded):
    model, text = mamba(), ids(2, 6)
    row = tt.cat([ids(2, padded, seed=5), text], dim=1)
    padding = tt.tensor([[True] * padded + [False] * 6] * 2)
    assert_close(model(row, key_padding_mask=padding)[:, padded:], model(text), 1e-4, 1e-5)


def test_padding_at_the_end_leaves_a_short_text_as_it_was_alone():
    model, text = mamba(), ids(2, 4)
    row, padding = tt.cat([text, ids(2, 3, seed=5)], dim=1), tt.tensor([[False] * 4 + [True] * 3] * 2)
    assert_close(model(row, key_padding_mask=padding)[:, :4], model(text), 1e-4, 1e-5)


def test_prompts_of_unequal_length_go_on_as_each_would_alone():
    model, (long, short) = mamba(), (ids(1, 6), ids(1, 3, seed=1))
    rows = tt.cat([long, tt.cat([tt.zeros(1, 3, dtype=tt.int64), short], dim=1)])
    padding = tt.tensor([[False] * 6, [True] * 3 + [False] * 3])
    for use_cache in (True, False):
        together = model.generate(rows, 8, use_cache=use_cache, temperature=0, key_padding_mask=padding)
        for row, prompt in zip(together.tolist(), (long, short)):
            assert row[6:] == model.generate(prompt, 8, temperature=0).tolist()[0][prompt.shape[1] :]


# ---- the cache


@pytest.mark.exercise("ex-14-9", points=4)
def test_a_step_is_the_definition_and_leaves_its_window_and_state_behind():
    layer, x = mixer(), stream(time=9)
    cache, whole = MambaCache(), MambaCache()
    with tt.no_grad():
        layer(x, whole)
        layer(x[:, :5], cache)
        steps = [layer.step(x[:, t : t + 1], cache) for t in range(5, 9)]
    assert_close(tt.cat(steps, dim=1), mixed_by_definition(layer, x.data)[:, 5:], 1e-4, 1e-5)
    assert_close(cache.window, whole.window, 1e-5, 1e-6)
    assert_close(cache.state, whole.state, 1e-4, 1e-5)
    assert cache.length == whole.length == 9


@pytest.mark.exercise("ex-14-9", points=4)
@pytest.mark.parametrize("prefix", [1, K - 1, K, 7, 64])
@pytest.mark.parametrize("changes", [{}, {"bias": True, "conv_bias": False}, {"d_conv": 1}], ids=str)
def test_one_token_after_the_other_is_the_whole_at_once(prefix, changes):
    model, tokens = mamba(**changes), ids(2, prefix + 6)
    cache, expected = model.new_cache(), model(tokens).detach()
    with tt.no_grad():
        logits = [model(tokens[:, :prefix], cache=cache)]
        logits += [model(tokens[:, t : t + 1], cache=cache) for t in range(prefix, prefix + 6)]
    assert_close(tt.cat(logits, dim=1), expected, atol=1e-5 * (1 + float(np.abs(expected.data).max())))
    assert [layer.length for layer in cache] == [prefix + 6] * 2


@pytest.mark.parametrize(
    "pieces",
    [
        *(pytest.param(pieces, marks=pytest.mark.exercise("ex-14-5", points=1)) for pieces in ([6], [1, 5], [2, 2, 2])),
        [5, 1],
        [1] * 6,
        [1, 1, 3, 1],
    ],
    ids=str,
)
@tt.no_grad()
def test_a_sequence_may_come_in_pieces_of_any_length(pieces):
    model, tokens = mamba(), ids(2, 6)
    cache, ends = model.new_cache(), list(itertools.accumulate(pieces))
    logits = [model(tokens[:, end - length : end], cache=cache) for length, end in zip(pieces, ends)]
    assert_close(tt.cat(logits, dim=1), model(tokens), 1e-4, 1e-5)


@pytest.mark.parametrize("pieces", [[3, 4], [2, 1, 4], [1] * 7])
@tt.no_grad()
def test_padding_counts_behind_a_cache_too(pieces):
    """The mask may cover all positions so far, or only the new ones."""
    model, tokens = mamba(), ids(2, 7)
    padding, ends = tt.tensor([[True, True, True] + [False] * 4, [False] * 7]), list(itertools.accumulate(pieces))
    for covers_all in (True, False):
        cache, logits = model.new_cache(), []
        for length, end in zip(pieces, ends):
            mask = padding[:, 0 if covers_all else end - length : end]
            logits.append(model(tokens[:, end - length : end], key_padding_mask=mask, cache=cache))
        assert_close(tt.cat(logits, dim=1), model(tokens, key_padding_mask=padding), 1e-4, 1e-5)


@tt.no_grad()
@pytest.mark.parametrize("places", [[5, 6], [2], [0, 3, 6]], ids=["right", "middle", "everywhere"])
def test_a_cache_goes_on_behind_padding_wherever_it_is(places):
    """The last K - 1 tokens are what the convolution remembers, not the last K - 1 columns."""
    model, tokens = mamba(), ids(1, 10)
    padding = np.zeros((1, 7), bool)
    padding[:, places] = True
    cache = model.new_cache()
    model(tokens[:, :7], key_padding_mask=tt.tensor(padding), cache=cache)
    behind = model(tokens[:, 7:], cache=cache)
    kept = np.delete(tokens.numpy(), places, axis=1)
    assert_close(behind, model(tt.tensor(kept))[:, -3:], 1e-4, 1e-5)


def test_padding_between_tokens_is_refused_without_a_cache():
    padding = np.zeros((2, 7), bool)
    padding[1, 3] = True
    with pytest.raises(ValueError, match="padding at the ends of a row, but got some between tokens"):
        mamba()(ids(), key_padding_mask=tt.tensor(padding))


@tt.no_grad()
def test_an_empty_cache_can_change_places_and_one_without_layers_is_refused():
    model = mamba()
    for layer in model.new_cache():
        layer.reorder([0, 0])
        assert layer.nbytes == 0
    with pytest.raises(ValueError, match="The cache is of 0 layers"):
        model(ids(), cache=[])


@tt.no_grad()
def test_rows_of_a_cache_can_change_places():
    model, tokens = mamba(), ids(3, 6)
    cache = model.new_cache()
    model(tokens[:, :5], cache=cache)
    for layer in cache:
        layer.reorder([2, 0, 0])
    chosen = tokens.numpy()[[2, 0, 0]]
    assert_close(model(tt.tensor(chosen[:, 5:]), cache=cache), model(tt.tensor(chosen))[:, 5:], 1e-4, 1e-5)


@pytest.mark.exercise("ex-14-9", points=4)
@tt.no_grad()
def test_a_cache_does_not_grow():
    model = mamba()
    cache, sizes = model.new_cache(), []
    assert [layer.nbytes for layer in cache] == [0, 0]
    for time in (1, 1, 1, 50, 1, 1):
        model(ids(2, time), cache=cache)
        sizes.append([layer.nbytes for layer in cache])
    assert sizes == [[4 * 2 * 16 * (K - 1 + 4)] * 2] * 6
    assert cache[0].window.base is None or cache[0].window.base.size < 2 * 16 * (K + 1)  # nor what it is a view of


@tt.no_grad()
def test_what_was_generated_before_stays_as_it_was():
    """A step makes a new state: who kept the old one, as a beam search does, still has it."""
    layer, x, cache = mixer(), stream(time=3), MambaCache()
    layer(x[:, :2], cache)
    window, state = cache.window, cache.state
    before = window.copy(), state.copy()
    layer(x[:, 2:], cache)
    assert_close(window, before[0], 0, 0)
    assert_close(state, before[1], 0, 0)


@pytest.mark.exercise("ex-14-9", points=4)
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 4}, {"repetition_penalty": 1.5}], ids=str)
def test_generation_is_the_same_with_and_without_a_cache(settings):
    model, texts = mamba(), []
    for use_cache in (True, False):
        texts.append(model.generate(ids(), 20, use_cache=use_cache, generator=tt.Generator(1), **settings).tolist())
    assert texts[0] == texts[1]


# ---- what makes no sense


@pytest.mark.parametrize("shape", [(4,), (), (1, 2, 3), (2, 0)])
def test_ids_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"needs ids of shape \(batch, time\) with at least one position, but got \("):
        mamba()(tt.zeros(shape, dtype=tt.int64))


@pytest.mark.parametrize("token", [V, -1])
def test_ids_outside_the_vocabulary_are_refused(token):
    with pytest.raises(IndexError, match=rf"ids from 0 to {V - 1}, but got"):
        mamba()(tt.tensor([[1, token]]))


@pytest.mark.parametrize(
    ("mask", "came"),
    [
        (np.zeros((2, 7)), r"float64 of \(2, 7\)"),
        (np.zeros((2, 6), bool), r"bool of \(2, 6\)"),
        (np.zeros((3, 7), bool), r"bool of \(3, 7\)"),
        (np.zeros(7, bool), r"bool of \(7,\)"),
    ],
)
def test_padding_that_does_not_fit_is_refused(mask, came):
    with pytest.raises(ValueError, match=rf"a boolean key_padding_mask of shape \(2, 7\), true at .* but got {came}"):
        mamba()(ids(), key_padding_mask=tt.Tensor(mask))


def test_documents_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"integers of the shape of ids, \(2, 7\), .* but got int64 of \(1, 7\)"):
        mamba()(ids(), documents=numbered(7))


def test_a_document_in_two_pieces_is_refused():
    with pytest.raises(ValueError, match="numbers that do not fall along a row"):
        mamba()(ids(), documents=tt.tensor([[0, 0, 1, 0, 0, 0, 0]] * 2))


@tt.no_grad()
def test_documents_behind_a_cache_are_refused():
    model = mamba()
    with pytest.raises(ValueError, match=r"no cache, but got int64 .* with a cache\. Generate from one document"):
        model(ids(1), cache=model.new_cache(), documents=numbered(7))


def test_a_cache_keeps_no_graph():
    model = mamba()
    with pytest.raises(RuntimeError, match=r"keeps no graph. Generate inside no_grad\(\)"):
        model(ids(), cache=model.new_cache())


@tt.no_grad()
def test_a_cache_of_other_sequences_or_layers_is_refused():
    model = mamba()
    cache = model.new_cache()
    model(ids(3), cache=cache)
    with pytest.raises(ValueError, match=r"of 2 layers and 3 sequences, but the model has 2 and got 2\. Use a new_cac"):
        model(ids(2), cache=cache)
    with pytest.raises(ValueError, match=r"of 2 layers and 0 sequences, but the model has 3 and got 2"):
        mamba(n_layers=3)(ids(2), cache=model.new_cache())
