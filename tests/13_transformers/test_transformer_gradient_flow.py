"""A gate: every parameter of attention, layer normalisation, MLP and a whole GPT gets a finite, non-zero gradient.

One of them has a true gradient of zero: the bias of the keys. Added to every key, it moves all scores of a query by
the same amount, which softmax does not feel. What arrives there is the rounding of a sum that cancels, so the tests
ask that it arrives, is finite, and is as tiny beside its neighbour, the bias of the queries, as rounding is.
"""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.testing import assert_close

B, T, E, HEADS, V = 2, 6, 16, 4, 13
PADDING = np.arange(T) >= np.array([[T], [4]])
ATTENDED = {
    "free": {},
    "causal": {"is_causal": True},
    "causal_mask": {"attn_mask": np.triu(np.ones((T, T), bool), 1)},
    "padding": {"key_padding_mask": PADDING},
    "causal_padding": {"key_padding_mask": PADDING, "is_causal": True},
}
every_mask = pytest.mark.parametrize("masks", ATTENDED.values(), ids=ATTENDED)
both_precisions = pytest.mark.parametrize("dtype", [tt.float32, tt.float64], ids=str)


def normal(*shape, seed=0, dtype=tt.float32):
    return tt.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def as_tensors(masks):
    return {name: tt.tensor(value) if isinstance(value, np.ndarray) else value for name, value in masks.items()}


def assert_gradients_flow(module, dtype=tt.float32):
    """A finite gradient of its own shape on every parameter; non-zero, except for keys' biases."""
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing, f"no gradient reached {missing}"
    for name, parameter in module.named_parameters():
        values = gradients[name].numpy()
        assert values.shape == parameter.shape, name
        assert values.dtype == parameter.dtype, name
        assert np.isfinite(values).all(), name
        if name.endswith("k_proj.bias"):
            beside = np.abs(gradients[name.replace("k_proj", "q_proj")].numpy()).max()
            assert np.abs(values).max() < 100 * np.finfo(values.dtype).eps * beside, name
        else:
            assert np.abs(values).max() > 1e-6, name  # well above rounding


@both_precisions
@every_mask
def test_every_parameter_of_attention_gets_a_gradient(masks, dtype):
    attention = tt.MultiHeadAttention(E, HEADS, generator=tt.Generator(0)).to(dtype=dtype)
    assert len(list(attention.parameters())) == 8
    x = normal(B, T, E, dtype=dtype).requires_grad_()
    attention(x, **as_tensors(masks)).backward(normal(B, T, E, seed=1, dtype=dtype))
    assert_gradients_flow(attention, dtype)
    assert np.abs(x.grad.data).min(axis=-1).min() > 0  # every position, also a padded one, which still asks


@every_mask
def test_gradients_flow_through_returned_weights_too(masks):
    attention = tt.MultiHeadAttention(E, HEADS, generator=tt.Generator(0))
    y, weights = attention(normal(B, T, E), **as_tensors(masks), need_weights=True)
    ((y * normal(B, T, E, seed=1)).sum() + (weights * normal(*weights.shape, seed=2)).sum()).backward()
    assert_gradients_flow(attention)


def test_the_bias_of_the_keys_does_not_matter():
    attention = tt.MultiHeadAttention(E, HEADS, generator=tt.Generator(0)).to(dtype=tt.float64)
    x = normal(B, T, E, dtype=tt.float64)
    before = attention(x, is_causal=True)
    attention.k_proj.bias.data[...] = normal(E, seed=3).data
    assert_close(attention(x, is_causal=True), before, 1e-12, 1e-13)
    attention.q_proj.bias.data[...] = normal(E, seed=3).data
    assert np.abs(attention(x, is_causal=True).data - before.data).max() > 1e-2


@both_precisions
def test_every_parameter_of_layer_norm_gets_a_gradient(dtype):
    norm = tt.LayerNorm(E).to(dtype=dtype)
    assert len(list(norm.parameters())) == 2
    norm(normal(B, T, E, dtype=dtype)).backward(normal(B, T, E, seed=1, dtype=dtype))
    assert_gradients_flow(norm, dtype)
    assert (norm.weight.grad.data != 0).all()
    assert (norm.bias.grad.data != 0).all()


@both_precisions
def test_every_parameter_of_the_mlp_gets_a_gradient(dtype):
    mlp = tt.MLP(E, generator=tt.Generator(0)).to(dtype=dtype)
    assert len(list(mlp.parameters())) == 4
    mlp(normal(B, T, E, dtype=dtype)).backward(normal(B, T, E, seed=1, dtype=dtype))
    assert_gradients_flow(mlp, dtype)


def gpt(dtype=tt.float32, **changes):
    settings = {"vocab_size": V, "n_positions": T, "n_embd": E, "n_layer": 2, "n_head": HEADS, **changes}
    return tt.GPT(tt.GPTConfig(initializer_range=0.2, **settings), generator=tt.Generator(0)).to(dtype=dtype)


def language_loss(model, key_padding_mask=None):
    tokens = np.random.default_rng(0).integers(0, V, (B, T + 1))
    targets = tokens[:, 1:] if key_padding_mask is None else np.where(PADDING, -100, tokens[:, 1:])
    logits = model(tt.tensor(tokens[:, :-1]), key_padding_mask)
    return tt.cross_entropy(logits.flatten(0, 1), tt.tensor(targets.reshape(-1)))


@both_precisions
@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
def test_all_37_parameters_of_a_gpt_get_a_gradient(padding, dtype):
    model = gpt(dtype)
    groups = {"wte": 0, "wpe": 0, "h.0": 0, "h.1": 0, "ln_f": 0, "lm_head": 0}
    for name, _ in model.named_parameters():
        groups[next(group for group in groups if name.startswith(group))] += 1
    assert groups == {"wte": 1, "wpe": 1, "h.0": 16, "h.1": 16, "ln_f": 2, "lm_head": 1}
    assert sum(groups.values()) == 37
    language_loss(model, None if padding is None else tt.tensor(padding)).backward()
    assert_gradients_flow(model, dtype)


def test_a_tied_gpt_has_one_tensor_less_and_all_learn():
    model = gpt(tie_word_embeddings=True)
    assert len(list(model.parameters())) == 36
    language_loss(model).backward()
    assert_gradients_flow(model)


def test_gradients_are_those_of_finite_differences_along_one_direction():
    model = gpt(tt.float64)
    loss = language_loss(model)
    loss.backward()
    direction = {name: normal(*p.shape, seed=i).data for i, (name, p) in enumerate(model.named_parameters())}
    slope = sum(np.sum(p.grad.data * direction[name]) for name, p in model.named_parameters())
    losses = []
    for sign in (1, -1):
        moved = gpt(tt.float64)
        moved.load_state_dict({name: p.data + sign * 1e-5 * direction[name] for name, p in model.named_parameters()})
        losses.append(language_loss(moved).item())
    assert_close(slope, (losses[0] - losses[1]) / 2e-5, 1e-6, 1e-6)


def test_an_optimizer_step_changes_every_parameter_and_lowers_the_loss():
    model = gpt(tt.float64)
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    optimizer = tt.SGD(model.parameters(), lr=0.1)
    first = language_loss(model)
    first.backward()
    optimizer.step()
    unchanged = [name for name, p in model.named_parameters() if np.array_equal(p.data, before[name])]
    assert set(unchanged) <= {"h.0.attn.k_proj.bias", "h.1.attn.k_proj.bias"}
    assert language_loss(model).item() < first.item()
