"""One configuration makes GPT-2, Llama and what lies between; each sees the past only, with and without a cache."""

import itertools
import math
import sys

import numpy as np
import pytest
import strict_array

import tinytorch as tt
from tinytorch.testing import assert_close

V, CONTEXT = 11, 12

SHAPES = {
    "llama": {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False},
    "grouped": {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False, "n_kv_head": 2},
    "mistral": {
        "norm": "rms_norm",
        "positions": "rotary",
        "mlp": "swiglu",
        "bias": False,
        "n_kv_head": 1,
        "head_dim": 6,
        "sliding_window": 3,
        "rope_theta": 50.0,
    },
    "gpt2_in_a_window": {"sliding_window": 4},
    "gpt2_without_biases": {"bias": False},
    "gpt2_that_turns": {"positions": "rotary", "n_kv_head": 1},
    "gpt2_with_swiglu": {"mlp": "swiglu"},
    "gpt2_with_rms_norm": {"norm": "rms_norm"},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def config(**changes):
    return tt.GPTConfig(**{"vocab_size": V, "n_positions": CONTEXT, "n_embd": 16, "n_layer": 2, "n_head": 4, **changes})


def gpt(seed=0, **changes):
    """A small GPT whose weights are large enough that its choices are clear."""
    return tt.GPT(config(initializer_range=0.3, **changes), generator=tt.Generator(seed))


def ids(batch=2, time=9, seed=0):
    return tt.tensor(np.random.default_rng(seed).integers(0, V, (batch, time)))


# ---- the configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "batch_norm"}, r"norm to be one of \['layer_norm', 'rms_norm'\], but got 'batch_norm'"),
        ({"positions": "sinus"}, r"positions to be one of \['learned', 'rotary'\], but got 'sinus'"),
        ({"mlp": "relu"}, r"mlp to be one of \['gelu', 'swiglu'\], but got 'relu'"),
        ({"n_kv_head": 3}, "n_head divisible by n_kv_head, but got 4 and 3"),
        ({"n_kv_head": 0}, "n_kv_head needs an integer of at least 1, but got 0"),
        ({"head_dim": -1}, "head_dim needs an integer of at least 1, but got -1"),
        ({"sliding_window": 0}, "sliding_window needs an integer of at least 1, but got 0"),
        ({"positions": "rotary", "head_dim": 5}, "heads of even width, but .*head_dim=5"),
        ({"positions": "rotary", "n_embd": 12}, "heads of even width, but n_embd=12, n_head=4"),
        ({"rope_theta": 0.0}, "rope_theta above 0, but got 0.0"),
        ({"rope_theta": math.nan}, "rope_theta above 0, but got nan"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_presets_have_the_sizes_of_their_models():
    small, large = tt.GPTConfig.gpt2(), tt.GPTConfig.llama()
    c = small.n_embd
    block = 2 * c + 4 * (c * c + c) + 2 * c + (4 * c * c + 4 * c) + (4 * c * c + c)
    assert small.vocab_size * c + small.n_positions * c + small.n_layer * block + 2 * c == 124_439_808
    c = large.n_embd
    block = 2 * c + 4 * c * c + 3 * c * large.n_inner
    assert 2 * large.vocab_size * c + large.n_layer * block + c == 6_738_415_616
    assert (large.norm, large.positions, large.mlp, large.bias) == ("rms_norm", "rotary", "swiglu", False)


def test_presets_can_be_changed():
    changed = tt.GPTConfig.llama(vocab_size=V, n_embd=24, n_layer=1, n_head=2)
    assert (changed.n_embd, changed.n_layer, changed.n_inner, changed.norm) == (24, 1, None, "rms_norm")
    assert tt.GPTConfig.gpt2(n_layer=2, tie_word_embeddings=False) == tt.GPTConfig(50257, n_layer=2)


# ---- the model


def test_parameters_of_a_llama_are_those_of_its_parts():
    model = gpt(**SHAPES["grouped"])
    names = {name: parameter.shape for name, parameter in model.named_parameters()}
    block = {
        "ln_1.weight": (16,),
        "attn.q_proj.weight": (16, 16),
        "attn.k_proj.weight": (8, 16),
        "attn.v_proj.weight": (8, 16),
        "attn.out_proj.weight": (16, 16),
        "ln_2.weight": (16,),
        "mlp.gate_proj.weight": (42, 16),
        "mlp.up_proj.weight": (42, 16),
        "mlp.down_proj.weight": (16, 42),
    }
    blocks = {f"h.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    assert names == {"wte.weight": (V, 16), **blocks, "ln_f.weight": (16,), "lm_head.weight": (V, 16)}
    assert model.state_dict().keys() == names.keys()


def test_without_biases_no_linear_layer_or_norm_has_one():
    assert [name for name, _ in gpt(bias=False).named_parameters() if name.endswith("bias")] == []


@pytest.mark.exercise("ex-13-6", points=2)
def test_projections_into_the_stream_start_smaller():
    model = tt.GPT(config(n_embd=96, n_layer=3, **SHAPES["llama"]), tt.Generator(0))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            residual = name.endswith(("out_proj.weight", "down_proj.weight"))
            assert_close(parameter.data.std(), 0.02 / math.sqrt(6) if residual else 0.02, rtol=0.05, what=name)


@every_shape
@pytest.mark.parametrize("pieces", [[1] * 9, [9], [5, 1, 1, 1, 1], [2, 7], [6, 3]])
@tt.no_grad()
def test_cached_logits_are_the_uncached_ones(shape, pieces):
    model, tokens = gpt(**shape), ids()
    cache, ends = model.new_cache(), list(itertools.accumulate(pieces))
    logits = [model(tokens[:, end - length : end], cache=cache) for length, end in zip(pieces, ends)]
    assert_close(tt.cat(logits, dim=1), model(tokens), 1e-4, 1e-5)


@every_shape
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 4}], ids=str)
def test_the_same_seed_gives_the_same_text_with_and_without_a_cache(shape, settings):
    model = gpt(**shape)
    texts = [
        model.generate(ids(2, 3), 9, use_cache=use_cache, generator=tt.Generator(1), **settings).tolist()
        for use_cache in (True, False)
    ]
    assert texts[0] == texts[1]


@every_shape
@pytest.mark.parametrize("place", [1, 5, 8])
def test_a_token_changes_no_logits_before_it(shape, place):
    model, before = gpt(**shape), ids()
    after = before.numpy().copy()
    after[:, place] = (after[:, place] + 1) % V
    changed = np.abs(model(tt.tensor(after)).data - model(before).data).max(axis=(0, 2))
    assert (changed[:place] < 1e-5).all()
    assert (changed[place : place + 3] > 1e-4).all()


@pytest.mark.parametrize("window", [1, 2, 3])
def test_each_layer_sees_one_window_further(window):
    model, before = gpt(sliding_window=window, **SHAPES["llama"]), ids()
    after = before.numpy().copy()
    after[:, 1] = (after[:, 1] + 1) % V
    changed = np.abs(model(tt.tensor(after)).data - model(before).data).max(axis=(0, 2))
    reach = 1 + 2 * (window - 1)  # two layers
    assert (changed[1 : reach + 1] > 1e-6).all()
    assert (changed[reach + 1 :] == 0).all()


def test_positions_matter_to_rotary_models_too():
    logits = gpt(**SHAPES["llama"])(tt.tensor([[5, 3, 7, 1], [3, 5, 7, 1]])).data[:, -1]
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_padding_in_front_changes_nothing_where_positions_are_distances():
    model, tokens = gpt(**SHAPES["grouped"]), ids(1, 5)
    padded = tt.cat([tt.tensor([[0, 0, 0]]), tokens], dim=1)
    padding = tt.tensor([[True] * 3 + [False] * 5])
    assert_close(model(padded, key_padding_mask=padding)[:, 3:], model(tokens), 1e-4, 1e-5)


@every_shape
def test_gradients_reach_every_parameter(shape):
    model, tokens = gpt(**shape), ids()
    loss, count = tt.next_token_loss(model, tokens)
    loss.backward()
    assert count == 16
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.data).all(), name
        if not name.endswith("k_proj.bias"):  # moves all scores of a query alike, where nothing turns
            assert np.abs(parameter.grad.data).max() > 1e-6, name


@every_shape
def test_every_shape_learns_a_line_by_heart(shape):
    model = tt.GPT(config(**shape), tt.Generator(0))
    tokens = tt.tensor([[1, 5, 1, 7, 2, 2, 9, 0, 4, 1]])
    optimizer = tt.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        loss, _ = tt.next_token_loss(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert model.generate(tokens[:, :1], 9, temperature=0).tolist() == tokens.tolist()


@every_shape
def test_a_model_in_float64_stays_there(shape):
    model, tokens = gpt(**shape), ids()
    expected = model(tokens)
    exact = model.to(tt.float64)(tokens)
    assert exact.dtype == tt.float64
    assert_close(exact, expected, 1e-3, 1e-4)


@every_shape
def test_a_model_trains_and_writes_on_a_device_as_on_the_cpu(shape, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_array)
    results = []
    for where in ("cpu", "cuda"):
        model, tokens = gpt(**shape).to(where), ids().to(where)
        loss, _ = tt.next_token_loss(model, tokens)
        loss.backward()
        gradient = model.h[0].attn.k_proj.weight.grad
        written = model.generate(tokens[:, :3], 6, temperature=0)
        assert {gradient.device, written.device} == {where}
        results.append((loss.item(), gradient.numpy(), written.tolist()))
    (loss, gradient, written), (loss_there, gradient_there, written_there) = results
    assert_close(loss_there, loss, 1e-5)
    assert_close(gradient_there, gradient, 1e-4, 1e-5)
    assert written_there == written
