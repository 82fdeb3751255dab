"""Attention looks where it may and nowhere else, one head or many, at once or token by token."""

import math
import re

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.attention import (
    _causal,
    _repeat_heads,
    attention_weights,
    join_heads,
    scaled_dot_product_attention_composed,
    split_heads,
)
from tinytorch.testing import assert_close, check_grad

B, H, L, S, D = 2, 3, 4, 5, 6


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def queries_keys_values(lead=(B, H), scale=1.0):
    return [normal(*lead, n, d, seed=i, scale=scale) for i, (n, d) in enumerate([(L, D), (S, D), (S, D + 1)])]


def float32(array):
    return tt.tensor(array.astype(np.float32))


def boolean_mask():
    """(B, 1, L, S), true where a query may look; each query sees something."""
    visible = np.random.default_rng(7).random((B, 1, L, S)) < 0.6
    visible[..., 0] = True
    return visible


def blind_mask():
    """As `boolean_mask`, but query 2 of the first sequence sees nothing."""
    visible = boolean_mask()
    visible[0, :, 2] = False
    return visible


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "boolean": {"attn_mask": boolean_mask()},
    "blind": {"attn_mask": blind_mask()},
    "boolean_and_causal": {"attn_mask": np.tril(np.ones((L, S), bool), 1) & (np.arange(S) > 0), "is_causal": True},
    "float": {"attn_mask": normal(L, S, seed=8)},
    "float_per_head": {"attn_mask": normal(B, H, L, S, seed=8)},
    "float_with_infinity": {"attn_mask": np.where(boolean_mask(), 0.5, -np.inf)},
    "float_and_causal": {"attn_mask": normal(L, S, seed=8), "is_causal": True},
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def as_tensors(mask):
    return {name: tt.tensor(value) if isinstance(value, np.ndarray) else value for name, value in mask.items()}


def attention_by_definition(q, k, v, attn_mask=None, is_causal=False, scale=None):
    """One query at a time: softmax of its scores over the keys that it may see."""
    lead = q.shape[:-2]
    added = np.zeros((*lead, L, S))
    if attn_mask is not None:
        added = added + (np.where(attn_mask, 0, -np.inf) if attn_mask.dtype == bool else attn_mask)
    y = np.zeros((*lead, L, v.shape[-1]))
    for *place, i in np.ndindex(*lead, L):
        place = tuple(place)
        seen = [j for j in range(S) if added[place][i, j] > -np.inf and (j <= i or not is_causal)]
        scores = [q[place][i] @ k[place][j] * (scale or 1 / math.sqrt(D)) + added[place][i, j] for j in seen]
        total = sum(map(math.exp, scores))
        for j, score in zip(seen, scores):
            y[place][i] += math.exp(score) / total * v[place][j]
    return y


# ---- one attention


@pytest.mark.exercise("ex-12-2", points=4)
@every_mask
@pytest.mark.parametrize("function", [tt.scaled_dot_product_attention, scaled_dot_product_attention_composed])
def test_values_are_those_of_the_definition(function, mask):
    arrays = queries_keys_values()
    y = function(*map(tt.tensor, arrays), **as_tensors(mask))
    assert_close(y, attention_by_definition(*arrays, **mask), 1e-12, 1e-13)


@pytest.mark.parametrize("lead", [(), (B,), (B, H, 2)])
def test_any_leading_axes_will_do(lead):
    arrays = queries_keys_values(lead)
    y = tt.scaled_dot_product_attention(*map(tt.tensor, arrays), scale=0.3)
    assert_close(y, attention_by_definition(*arrays, scale=0.3), 1e-12, 1e-13)


@pytest.mark.exercise("ex-12-2", points=4)
@pytest.mark.exercise("ex-12-3", points=1)
@every_mask
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_fused_is_composed(mask, size):
    leaves, outputs = [], []
    for function in (tt.scaled_dot_product_attention, scaled_dot_product_attention_composed):
        tensors = [tt.tensor(array, requires_grad=True) for array in queries_keys_values(scale=size)]
        given = as_tensors(mask)
        if "attn_mask" in given and given["attn_mask"].dtype != bool:
            tensors.append(given["attn_mask"].requires_grad_())
        outputs.append(function(*tensors[:3], **given))
        outputs[-1].backward(normal(B, H, L, D + 1, seed=9))
        leaves.append(tensors)
    assert_close(*outputs, 1e-11, 1e-12)
    for fused, composed in zip(*leaves):
        assert_close(fused.grad, composed.grad, 1e-9, 1e-10)


@pytest.mark.parametrize("mask", [m for name, m in MASKS.items() if "infinity" not in name])
def test_gradients_are_those_of_finite_differences(mask):
    arrays, settings = queries_keys_values(), dict(mask)
    attn_mask = settings.pop("attn_mask", None)
    if attn_mask is not None:
        arrays.append(attn_mask)
    check_grad(lambda *inputs: tt.scaled_dot_product_attention(*inputs, **settings), *arrays)


def test_queries_are_shared_by_broadcasting():
    q, k, v = queries_keys_values()
    whole = tt.scaled_dot_product_attention(*map(tt.tensor, (np.broadcast_to(q[:1, :1], q.shape), k, v)))
    assert_close(tt.scaled_dot_product_attention(*map(tt.tensor, (q[0, 0], k, v))), whole, 1e-13, 1e-13)
    check_grad(tt.scaled_dot_product_attention, q[:1, :1], k, v)


def seen(attn_mask=None, is_causal=False):
    """(B, H, L, S), true where a query may look."""
    visible = np.ones((B, H, L, S), bool)
    if attn_mask is not None:
        visible &= attn_mask if attn_mask.dtype == bool else attn_mask > -np.inf
    return np.tril(visible) if is_causal else visible


@pytest.mark.exercise("ex-12-2", points=4)
@every_mask
def test_weights_sum_to_one_where_anything_is_seen_and_are_zero_elsewhere(mask):
    q, k, _ = queries_keys_values()
    weights = attention_weights(tt.tensor(q), tt.tensor(k), **as_tensors(mask))
    assert ((weights.data > 0) == seen(**mask)).all()
    assert_close(weights.sum(-1), seen(**mask).any(-1).astype(float), 1e-12, 1e-12)


BLIND = {
    "boolean": blind_mask(),
    "float64": np.where(blind_mask(), 0.0, -np.inf),
    "float32": np.where(blind_mask(), 1.0, -np.inf).astype(np.float32),
}


@pytest.mark.parametrize("mask", BLIND.values(), ids=BLIND)
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_a_query_that_sees_nothing_gives_zeros_and_finite_gradients(mask, size):
    q, k, v = (tt.tensor(array, requires_grad=True) for array in queries_keys_values(scale=size))
    y = tt.scaled_dot_product_attention(q, k, v, tt.tensor(mask))
    assert not y.data[0, :, 2].any()
    y.backward(normal(*y.shape))
    assert all(np.isfinite(leaf.grad.data).all() for leaf in (q, k, v))
    assert not q.grad.data[0, :, 2].any()
    assert q.grad.data[1].any()


@pytest.mark.exercise("ex-12-1", points=2)
@pytest.mark.parametrize(
    ("settings", "visible"),
    [
        ({}, [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]),
        ({"start": 3}, [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
        ({"start": 3, "window": 2}, [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]),
    ],
    ids=["from_the_start_on", "behind_three", "behind_three_with_a_window"],
)
def test_two_queries_see_of_five_keys_those_up_to_their_own_position(settings, visible):
    assert _causal(np.zeros((2, 1)), np.zeros((5, 1)), **settings).astype(int).tolist() == visible


@pytest.mark.exercise("ex-12-1", points=2)
def test_the_future_does_not_change_the_past():
    q, k, v = queries_keys_values()
    before = tt.scaled_dot_product_attention(*map(tt.tensor, (q, k, v)), is_causal=True)
    k[..., 2:, :], v[..., 2:, :] = 1e6, -1e6
    after = tt.scaled_dot_product_attention(*map(tt.tensor, (q, k, v)), is_causal=True)
    assert_close(after[..., :2, :], before[..., :2, :], 1e-12, 1e-12)
    assert not np.isclose(after.data[..., 2:, :], before.data[..., 2:, :]).any()


def test_the_past_sends_no_gradient_into_the_future():
    q, k, v = (tt.tensor(array, requires_grad=True) for array in queries_keys_values())
    tt.scaled_dot_product_attention(q, k, v, is_causal=True)[..., :2, :].sum().backward()
    for leaf in (k, v):
        assert leaf.grad.data[..., :2, :].any()
        assert not leaf.grad.data[..., 2:, :].any()


def test_the_order_of_keys_does_not_matter_without_a_mask():
    q, k, v = queries_keys_values()
    order = [3, 0, 4, 2, 1]
    y = tt.scaled_dot_product_attention(*map(tt.tensor, (q, k, v)))
    assert_close(
        tt.scaled_dot_product_attention(*map(tt.tensor, (q, k[..., order, :], v[..., order, :]))), y, 1e-12, 1e-12
    )


def test_one_vector_added_to_all_keys_changes_nothing():
    q, k, v = queries_keys_values()  # every score of a query moves by the same amount, which softmax does not feel
    y = tt.scaled_dot_product_attention(*map(tt.tensor, (q, k, v)))
    assert_close(tt.scaled_dot_product_attention(*map(tt.tensor, (q, k + normal(D, seed=5), v))), y, 1e-12, 1e-12)


@pytest.mark.parametrize("size", [1e4, 1e15])
def test_huge_scores_choose_one_key_without_overflow(size):
    q, k = np.array([[size]], np.float32), np.array([[0.0], [1.0], [-1.0]], np.float32)
    v = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    leaves = [tt.tensor(array, requires_grad=True) for array in (q, k, v)]
    y = tt.scaled_dot_product_attention(*leaves)
    assert_close(y, [[3.0, 4.0]], 0, 0)
    y.sum().backward()
    assert all(np.isfinite(leaf.grad.data).all() for leaf in leaves)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mask", [MASKS["none"], MASKS["boolean"], MASKS["causal"]])
def test_dtype_is_kept(dtype, mask):
    leaves = [tt.tensor(array.astype(dtype), requires_grad=True) for array in queries_keys_values()]
    y = tt.scaled_dot_product_attention(*leaves, **as_tensors(mask))
    y.sum().backward()
    assert {tensor.dtype for tensor in (y, *(leaf.grad for leaf in leaves))} == {np.dtype(dtype)}


@every_mask
def test_inputs_and_incoming_gradients_are_left_alone(mask):
    arrays = queries_keys_values()
    leaves = [tt.tensor(array, requires_grad=True) for array in arrays]
    given, g = as_tensors(mask), tt.tensor(normal(B, H, L, D + 1, seed=9))
    tt.scaled_dot_product_attention(*leaves, **given).backward(g)
    for leaf, array in zip([*leaves, g], [*arrays, normal(B, H, L, D + 1, seed=9)]):
        assert_close(leaf, array, 0, 0)
    if "attn_mask" in given:
        assert_close(given["attn_mask"], mask["attn_mask"], 0, 0)


# ---- dropout of weights


@pytest.mark.exercise("ex-12-3", points=1)
@pytest.mark.parametrize("mask", [MASKS["none"], MASKS["causal"], MASKS["blind"]], ids=["none", "causal", "blind"])
def test_fused_dropout_is_composed_from_the_same_seed(mask):
    gradients = []
    for function in (tt.scaled_dot_product_attention, scaled_dot_product_attention_composed):
        leaves = [tt.tensor(array, requires_grad=True) for array in queries_keys_values()]
        y = function(*leaves, dropout_p=0.4, generator=tt.Generator(3), **as_tensors(mask))
        y.backward(normal(*y.shape, seed=9))
        gradients.append([y, *(leaf.grad for leaf in leaves)])
    for fused, composed in zip(*gradients):
        assert_close(fused, composed, 1e-11, 1e-12)


def test_dropout_leaves_the_mean_and_scales_what_it_keeps():
    n, p = 20_000, 0.25
    q, k, v = tt.zeros(n, 1, 1), tt.zeros(n, 2, 1), tt.ones(n, 2, 1)
    y = tt.scaled_dot_product_attention(q, k, v, dropout_p=p, generator=tt.Generator(0)).numpy().ravel()
    assert_close(np.unique(y), [0.0, 0.5 / (1 - p), 1 / (1 - p)])
    assert abs(y.mean() - 1) < 5 * y.std() / math.sqrt(n)


@pytest.mark.parametrize("p", [-0.5, 1.5, math.nan])
def test_dropout_that_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        tt.scaled_dot_product_attention(*map(tt.tensor, queries_keys_values()), dropout_p=p)


# ---- what makes no sense


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 4, 6), (2, 5, 7), (2, 5, 6)],  # widths of queries and keys
        [(2, 4, 6), (2, 5, 6), (2, 4, 6)],  # numbers of keys and values
        [(6,), (5, 6), (5, 6)],
        [(4, 6), (6,), (5, 6)],
        [(4, 6), (5, 6), (6,)],
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes):
    came = rf"\({shapes[0][0]},.*\({shapes[1][0]},.*\({shapes[2][0]},"
    with pytest.raises(ValueError, match=rf"query \(\.\.\., L, D\), key \(\.\.\., S, D\) .* but got {came}"):
        tt.scaled_dot_product_attention(*map(tt.zeros, shapes))


@pytest.mark.parametrize("shape", [(L, S - 1), (S, L), (B + 1, 1, L, S)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"attention cannot work with.*bool"):
        tt.scaled_dot_product_attention(*map(tt.tensor, queries_keys_values()), tt.ones(shape) > 0)


def test_a_mask_of_integers_is_refused_as_it_could_mean_both():
    with pytest.raises(TypeError, match=r"bool.*int64"):
        tt.scaled_dot_product_attention(*map(tt.tensor, queries_keys_values()), tt.tensor(np.tri(L, S, dtype=int)))


# ---- many heads


E = 12


def module(seed=0, **settings):
    """A MultiHeadAttention of width 12 with 3 heads, its biases shaken so that they count."""
    attention = tt.MultiHeadAttention(E, H, generator=tt.Generator(seed), **settings)
    for name, parameter in attention.named_parameters():
        if name.endswith("bias"):
            parameter.data[...] = normal(E, seed=len(name), scale=0.3)
    return attention


def stream(time=S, seed=0, batch=B):
    return float32(normal(batch, time, E, seed=seed))


FUTURE = np.triu(np.ones((S, S), bool), 1)
PADDING = np.arange(S) >= np.array([[S], [3]])  # the second sequence has three tokens


def heads_by_definition(attention, query, key, value, visible):
    """Each head alone, on its own rows of the projections: (B, L, E), and its weights (B, H, L, S)."""
    width = E // H
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in attention.state_dict().items()}
    q, k, v = (
        x.numpy() @ state[f"{name}_proj.weight"].T + state[f"{name}_proj.bias"]
        for name, x in zip("qkv", (query, key, value))
    )
    heads, weights = [], []
    for h in range(H):
        part = slice(h * width, (h + 1) * width)
        scores = np.exp(q[..., part] @ k[..., part].swapaxes(1, 2) / math.sqrt(width)) * visible
        weights.append(scores / scores.sum(-1, keepdims=True))
        heads.append(weights[-1] @ v[..., part])
    y = np.concatenate(heads, -1) @ state["out_proj.weight"].T + state["out_proj.bias"]
    return y, np.stack(weights, 1)


@pytest.mark.exercise("ex-12-4", points=2)
def test_split_heads_gives_each_head_its_own_channels():
    x = tt.tensor([[[0, 1, 2, 3], [4, 5, 6, 7]]])
    assert split_heads(x, 2).tolist() == [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]


@pytest.mark.exercise("ex-12-5", points=1)
def test_join_heads_puts_the_channels_of_all_heads_side_by_side():
    x = tt.tensor([[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]])
    assert join_heads(x).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7]]]


@pytest.mark.exercise("ex-12-4", points=2)
def test_split_heads_brings_every_gradient_back_to_its_place():
    check_grad(lambda x: split_heads(x, 2), normal(2, 3, 4))


@pytest.mark.exercise("ex-12-5", points=1)
def test_join_heads_brings_every_gradient_back_to_its_place():
    check_grad(join_heads, normal(2, 2, 3, 4))


@pytest.mark.exercise("ex-12-7", points=3)
def test_what_one_of_two_masks_forbids_is_forbidden():
    attention = tt.MultiHeadAttention(4, 2, generator=tt.Generator(0))
    padding, mask = tt.tensor([[False, False, True]]), tt.tensor([[False, True, False]] * 3)
    x = tt.tensor(normal(1, 3, 4), dtype=tt.float32)
    _, weights = attention(x, key_padding_mask=padding, attn_mask=mask, need_weights=True)
    assert_close(weights, np.broadcast_to([1.0, 0.0, 0.0], (1, 2, 3, 3)), 0, 0)


@pytest.mark.exercise("ex-12-4", points=2)
@pytest.mark.exercise("ex-12-5", points=1)
@pytest.mark.exercise("ex-12-8", points=3)
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    ("masks", "visible"),
    [
        ({}, np.ones((1, S, S))),
        ({"is_causal": True}, ~FUTURE[None]),
        ({"attn_mask": FUTURE}, ~FUTURE[None]),
        ({"attn_mask": np.where(FUTURE, -np.inf, 0.0).astype(np.float32)}, ~FUTURE[None]),
        ({"key_padding_mask": PADDING}, ~PADDING[:, None]),
        ({"key_padding_mask": PADDING, "is_causal": True}, ~PADDING[:, None] & ~FUTURE),
        ({"key_padding_mask": PADDING, "attn_mask": FUTURE}, ~PADDING[:, None] & ~FUTURE),
        (
            {"key_padding_mask": PADDING, "attn_mask": np.log(2) * FUTURE.astype(np.float32)},
            ~PADDING[:, None] * (1.0 + FUTURE),  # adding log 2 to a score doubles its weight
        ),
    ],
    ids=["none", "flag", "boolean", "float", "padding", "padding_flag", "padding_boolean", "padding_float"],
)
def test_heads_are_those_of_the_definition(masks, visible, need_weights):
    attention, x = module(), stream()
    expected, expected_weights = heads_by_definition(attention, x, x, x, visible)
    y = attention(x, **as_tensors(masks), need_weights=need_weights)
    if need_weights:
        y, weights = y
        assert_close(weights, expected_weights, 1e-4, 1e-6)
    assert_close(y, expected, 1e-4, 1e-5)


@pytest.mark.exercise("ex-12-8", points=3)
def test_queries_may_look_at_another_sequence():
    attention, x, memory, values = module(), stream(4), stream(5, seed=1), stream(5, seed=2)
    assert_close(attention(x, memory, values), heads_by_definition(attention, x, memory, values, 1)[0], 1e-4, 1e-5)
    assert_close(attention(x, memory), attention(x, memory, memory), 0, 0)


@pytest.mark.exercise("ex-12-7", points=3)
def test_a_mask_of_its_own_for_each_head():
    attention, x = module(), stream()
    forbidden = np.random.default_rng(1).random((B, H, S, S)) < 0.5
    forbidden[..., 0] = False
    _, weights = attention(x, attn_mask=tt.tensor(forbidden), need_weights=True)
    assert not weights.data[forbidden].any()
    assert weights.data[~forbidden].all()


def test_weights_are_per_head_sum_to_one_and_come_beside_the_same_output():
    attention, x = module(), stream()
    y, weights = attention(x, is_causal=True, need_weights=True)
    assert weights.shape == (B, H, S, S)
    assert_close(weights.sum(-1), np.ones((B, H, S)))
    assert_close(y, attention(x, is_causal=True), 1e-5, 1e-6)


def test_parameters_are_four_projections():
    names = [f"{kind}_proj.{part}" for kind in ("q", "k", "v", "out") for part in ("weight", "bias")]
    assert [name for name, _ in module().named_parameters()] == names
    without = tt.MultiHeadAttention(E, H, bias=False)
    assert [name for name, _ in without.named_parameters()] == names[::2]
    assert without(stream()).shape == (B, S, E)


def test_starts_as_glorot_and_bengio_without_biases():
    weights = tt.MultiHeadAttention(60, 3, generator=tt.Generator(0)).state_dict()
    for name, bound in {
        "q": math.sqrt(6 / 240),
        "k": math.sqrt(6 / 240),
        "v": math.sqrt(6 / 240),
        "out": 60**-0.5,
    }.items():
        values = weights[f"{name}_proj.weight"].numpy()
        assert 0.99 * bound < np.abs(values).max() <= bound
        assert_close(values.std(), bound / math.sqrt(3), rtol=0.05)
        assert not weights[f"{name}_proj.bias"].numpy().any()


def test_a_state_dict_with_stacked_projections_is_taken_apart():
    attention = module()
    stacked = {"in_proj_weight": normal(3 * E, E), "in_proj_bias": normal(3 * E)}
    out = {"out_proj.weight": normal(E, E, seed=1), "out_proj.bias": normal(E, seed=1)}
    attention.load_state_dict({**stacked, **out})
    for i, proj in enumerate((attention.q_proj, attention.k_proj, attention.v_proj)):
        assert_close(proj.weight, stacked["in_proj_weight"][i * E : (i + 1) * E])
        assert_close(proj.bias, stacked["in_proj_bias"][i * E : (i + 1) * E])
    assert_close(attention.out_proj.weight, out["out_proj.weight"])


def test_causal_attention_does_not_see_the_future():
    attention, x = module(), stream()
    changed = tt.tensor(np.where(np.arange(S)[:, None] < 3, x.data, 1e3).astype(np.float32))
    assert_close(attention(changed, is_causal=True)[:, :3], attention(x, is_causal=True)[:, :3], 1e-5, 1e-6)


@pytest.mark.exercise("ex-12-7", points=3)
def test_padded_keys_change_nothing_and_learn_nothing():
    attention, x, padding = module(), stream(), tt.tensor(PADDING)
    changed = x.data.copy()
    changed[PADDING] = 1e3
    first, second = (attention(x, tt.tensor(keys), key_padding_mask=padding) for keys in (x.data, changed))
    assert_close(first, second, 1e-5, 1e-6)
    keys = tt.tensor(x.data, requires_grad=True)
    attention(x, keys, key_padding_mask=padding).sum().backward()
    assert not keys.grad.data[PADDING].any()
    assert keys.grad.data[~PADDING].all()


def test_a_short_sequence_is_itself_inside_a_padded_batch():
    attention, x = module(), stream()
    y = attention(x, key_padding_mask=tt.tensor(PADDING), is_causal=True)
    assert_close(y[1:, :3], attention(x[1:, :3], is_causal=True), 1e-5, 1e-6)


def test_a_sequence_of_padding_only_gives_the_output_bias():
    attention, x = module(), stream()
    x.requires_grad_()
    y = attention(x, key_padding_mask=tt.tensor([[True] * S, [False] * S]))
    assert_close(y[0], np.tile(attention.out_proj.bias.data, (S, 1)), 1e-6, 1e-7)
    y.backward(normal(B, S, E).astype(np.float32))
    assert not x.grad.data[0].any()
    assert all(np.isfinite(parameter.grad.data).all() for parameter in attention.parameters())


def test_dropout_is_active_in_training_only():
    attention, x = module(dropout=0.5), stream()
    assert not np.allclose(attention(x).data, attention(x).data)
    assert_close(attention.eval()(x), module()(x), 1e-6, 1e-7)


@pytest.mark.parametrize(("embed_dim", "num_heads"), [(10, 3), (4, 8)])
def test_a_width_that_heads_cannot_share_is_refused(embed_dim, num_heads):
    with pytest.raises(ValueError, match=f"embed_dim divisible by num_heads, but got {embed_dim} and {num_heads}"):
        tt.MultiHeadAttention(embed_dim, num_heads)


@pytest.mark.parametrize("name", ["embed_dim", "num_heads"])
@pytest.mark.parametrize("size", [0, -2, 1.5])
def test_sizes_that_cannot_be_are_refused(name, size):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, but got {size}"):
        tt.MultiHeadAttention(**{"embed_dim": 4, "num_heads": 2, name: size})


@pytest.mark.parametrize("shape", [(S, E), (E,), (1, B, S, E), (B, S, E - 1)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"needs inputs of shape \(batch, time, 12\), but got \("):
        module()(tt.zeros(shape))


@pytest.mark.parametrize("place", ["key", "value"])
@pytest.mark.parametrize("shape", [(S, E), (B, S, E + 1)])
def test_keys_and_values_of_another_shape_are_refused(place, shape):
    with pytest.raises(ValueError, match=r"(12|shape).*but got.*\("):
        module()(stream(), **{"key": stream(), "value": stream(), place: tt.zeros(shape)})


@pytest.mark.parametrize("shape", [(B, S - 1), (B, 1), (B + 1, S), (1, S), (S,), (B, S, 1)])
def test_a_padding_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=rf"key_padding_mask.*{re.escape(str(shape))}"):
        module()(stream(), key_padding_mask=tt.zeros(shape) > 0)


@pytest.mark.parametrize("name", ["key_padding_mask", "attn_mask"])
def test_integer_masks_are_refused(name):
    mask = PADDING if name == "key_padding_mask" else FUTURE
    with pytest.raises(TypeError, match="bool"):
        module()(stream(), **{name: tt.tensor(mask.astype(np.int64))})


# ---- the cache


@tt.no_grad()
def cached(attention, x, pieces, **masks):
    """The output of a causal attention that is given `x` in pieces of these lengths."""
    cache, outputs, start = tt.KVCache(capacity=8), [], 0
    for length in pieces:
        end = start + length
        padding = {name: tt.tensor(mask[:, :end]) for name, mask in masks.items()}
        outputs.append(attention(x[:, start:end], is_causal=True, cache=cache, **padding))
        start = end
    assert cache.length == x.shape[1]
    return tt.cat(outputs, dim=1)


@pytest.mark.exercise("ex-12-1", points=2)
@pytest.mark.exercise("ex-12-8", points=3)
@pytest.mark.parametrize("pieces", [[1, 1, 1, 1, 1], [5], [3, 1, 1], [2, 3], [1, 4]])
@pytest.mark.parametrize("masks", [{}, {"key_padding_mask": PADDING}], ids=["no_mask", "padding"])
def test_cached_is_uncached(pieces, masks):
    attention, x = module(), stream()
    expected = attention(x, is_causal=True, **as_tensors(masks))
    assert_close(cached(attention, x, pieces, **masks), expected, 1e-5, 1e-6)


@pytest.mark.exercise("ex-12-9", points=4)
@tt.no_grad()
def test_a_cache_returns_all_so_far_and_keeps_its_own_copy():
    cache = tt.KVCache(4)
    pieces = [(float32(normal(B, H, n, D, seed=n)), float32(normal(B, H, n, D, seed=n + 9))) for n in (1, 2)]
    for key, value in pieces:
        keys, values = cache.append(key, value)
    before = keys.numpy().copy(), values.numpy().copy()
    assert_close(before[0], tt.cat([key for key, _ in pieces], dim=2), 0, 0)
    assert_close(before[1], tt.cat([value for _, value in pieces], dim=2), 0, 0)
    pieces[0][0].data[...] = 99
    assert_close(cache.append(*(tt.ones(B, H, 1, D),) * 2)[0][:, :, :3], before[0], 0, 0)


@pytest.mark.exercise("ex-12-9", points=4)
@tt.no_grad()
def test_a_full_cache_refuses_more_and_stays_as_it_was():
    cache = tt.KVCache(3)
    two = tt.ones(B, H, 2, D)
    cache.append(two, two)
    with pytest.raises(ValueError, match="The cache holds 3 positions, but 4 are needed"):
        cache.append(two, two)
    assert cache.length == 2
    one = tt.zeros(B, H, 1, D)
    assert cache.append(one, one)[0].shape == (B, H, 3, D)


@pytest.mark.exercise("ex-12-9", points=4)
@pytest.mark.parametrize("shape", [(1, H, 1, D), (B, 1, 1, D), (B, H, 1, 1)])
@tt.no_grad()
def test_a_cache_refuses_another_batch_or_another_layer(shape):
    cache = tt.KVCache(3)
    cache.append(tt.ones(B, H, 1, D), tt.ones(B, H, 1, D))
    with pytest.raises(ValueError, match=r"cache.*\("):
        cache.append(tt.ones(shape), tt.ones(shape))


def test_a_cache_refuses_to_keep_a_graph():
    attention, cache = module(), tt.KVCache(8)
    with pytest.raises(RuntimeError, match=r"A KVCache keeps no graph. Generate inside no_grad\(\)"):
        attention(stream(), cache=cache)
    assert cache.length == 0
    with tt.no_grad():
        attention(stream(), cache=cache)
    assert cache.length == S


@tt.no_grad()
def test_a_cache_takes_what_wants_gradients_inside_no_grad():
    key = tt.ones(B, H, 1, D, requires_grad=True)
    keys, _ = tt.KVCache(2).append(key, key)
    assert not keys.requires_grad


def test_a_cache_works_for_a_frozen_module_with_gradients_on():
    attention, cache = module().requires_grad_(False), tt.KVCache(8)
    assert_close(attention(stream(), is_causal=True, cache=cache), attention(stream(), is_causal=True), 1e-5, 1e-6)


@pytest.mark.parametrize("capacity", [0, -1, 2.5])
def test_a_capacity_that_cannot_be_is_refused(capacity):
    with pytest.raises(ValueError, match=f"capacity needs an integer of at least 1, but got {capacity}"):
        tt.KVCache(capacity)


# ---- heads that share keys and values


def grouped_arrays(kv_heads=2, heads=6, lead=(B,)):
    shapes = [(heads, L, D), (kv_heads, S, D), (kv_heads, S, D + 1)]
    return [normal(*lead, *shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.exercise("ex-12-6", points=1)
def test_two_heads_for_six_are_each_repeated_three_times():
    x = tt.tensor([[[1]], [[2]]])
    assert _repeat_heads(x, 6).tolist() == [[[1]], [[1]], [[1]], [[2]], [[2]], [[2]]]


@pytest.mark.exercise("ex-12-6", points=1)
@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("lead", [(), (B,), (2, B)])
@pytest.mark.parametrize("function", [tt.scaled_dot_product_attention, scaled_dot_product_attention_composed])
def test_each_key_head_serves_neighbouring_query_heads(function, lead, kv_heads):
    q, k, v = grouped_arrays(kv_heads, lead=lead)
    repeated = [np.repeat(x, 6 // kv_heads, axis=-3) for x in (k, v)]
    expected = attention_by_definition(q, *repeated)
    assert_close(function(*map(tt.tensor, (q, k, v)), enable_gqa=True), expected, 1e-12, 1e-13)


@pytest.mark.parametrize("kv_heads", [1, 3])
@pytest.mark.parametrize(
    "mask",
    [
        {},
        {"is_causal": True},
        {"is_causal": True, "window": 2},
        {"attn_mask": blind_mask()},
        {"attn_mask": normal(B, 6, L, S, seed=8), "is_causal": True},
    ],
    ids=["none", "causal", "window", "blind", "float_per_head_and_causal"],
)
def test_shared_keys_add_up_the_gradients_of_all_their_readers(kv_heads, mask):
    arrays, settings, results = grouped_arrays(kv_heads), dict(mask), []
    attn_mask = settings.pop("attn_mask", None)
    if attn_mask is not None:
        arrays.append(attn_mask)
    for repeat in (False, True):
        leaves = [tt.tensor(x, requires_grad=x.dtype != bool) for x in arrays]
        q, k, v = leaves[:3]
        if repeat:
            k, v = (tt.stack([x] * (6 // kv_heads), dim=2).flatten(1, 2) for x in (k, v))
        y = tt.scaled_dot_product_attention(q, k, v, *leaves[3:], enable_gqa=not repeat, **settings)
        y.backward(normal(B, 6, L, D + 1, seed=9))
        results.append([y, *(leaf.grad for leaf in leaves if leaf.requires_grad)])
    for grouped, repeated in zip(*results):
        assert_close(grouped, repeated, 1e-11, 1e-12)


def test_gradients_of_shared_heads_are_those_of_finite_differences():
    check_grad(lambda *x: tt.scaled_dot_product_attention(*x, is_causal=True, enable_gqa=True), *grouped_arrays(2))


def test_dropout_of_shared_heads_is_that_of_repeated_ones():
    q, k, v = grouped_arrays(2)
    repeated = [np.repeat(x, 3, axis=-3) for x in (k, v)]
    outputs = [
        tt.scaled_dot_product_attention(
            *map(tt.tensor, arrays), dropout_p=0.4, enable_gqa=True, generator=tt.Generator(3)
        )
        for arrays in [(q, k, v), (q, *repeated)]
    ]
    assert_close(*outputs, 1e-12, 1e-12)


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, L, D), (3, S, D), (3, S, D)],  # 4 query heads cannot share 3
        [(2, L, D), (4, S, D), (4, S, D)],
        [(4, L, D), (2, S, D), (1, S, D)],  # keys and values of different heads
        [(L, D), (S, D), (S, D)],
        [(2, 4, L, D), (1, 2, S, D), (1, 2, S, D)],
        [(4, L, D), (2, 2, S, D), (2, 2, S, D)],
    ],
)
def test_heads_that_cannot_be_shared_are_refused(shapes):
    with pytest.raises(ValueError, match=r"enable_gqa needs query \(\.\.\., H, L, D\).*H a multiple of H'.*but got \("):
        tt.scaled_dot_product_attention(*map(tt.zeros, shapes), enable_gqa=True)


def test_different_numbers_of_heads_are_only_taken_where_asked_for():
    q, k, v = map(tt.tensor, grouped_arrays(2))
    with pytest.raises(ValueError, match=r"as many heads.*Pass enable_gqa=True"):
        tt.scaled_dot_product_attention(q, k, v)
    with pytest.raises(ValueError, match=r"as many heads.*Pass enable_gqa=True"):
        tt.scaled_dot_product_attention(q, q, tt.zeros(B, 2, L, D))


# ---- a window


@pytest.mark.exercise("ex-12-1", points=2)
@pytest.mark.parametrize("window", [1, 2, 3, 99])
@pytest.mark.parametrize("function", [tt.scaled_dot_product_attention, scaled_dot_product_attention_composed])
def test_a_window_is_the_mask_of_the_last_keys(function, window):
    arrays = queries_keys_values()
    distance = np.arange(L)[:, None] - np.arange(S)
    expected = attention_by_definition(
        *arrays, attn_mask=np.broadcast_to((distance < window), (B, 1, L, S)), is_causal=True
    )
    assert_close(function(*map(tt.tensor, arrays), is_causal=True, window=window), expected, 1e-12, 1e-13)


def test_what_left_the_window_neither_matters_nor_learns():
    q, k, v = (tt.tensor(array, requires_grad=True) for array in queries_keys_values())
    y = tt.scaled_dot_product_attention(q, k, v, is_causal=True, window=2)
    y[..., 3, :].sum().backward()
    for leaf in (k, v):
        assert leaf.grad.data[..., 2:4, :].any()
        assert not leaf.grad.data[..., [0, 1, 4], :].any()


@pytest.mark.parametrize("window", [0, -1, 1.5])
def test_a_window_that_cannot_be_is_refused(window):
    with pytest.raises(ValueError, match=f"window needs an integer of at least 1, but got {window}"):
        tt.scaled_dot_product_attention(*map(tt.tensor, queries_keys_values()), is_causal=True, window=window)
    with pytest.raises(ValueError, match=f"window needs an integer of at least 1, but got {window}"):
        tt.MultiHeadAttention(4, 2, window=window)


def test_a_window_needs_to_be_causal():
    with pytest.raises(ValueError, match="window=2 narrows causal attention: pass is_causal=True"):
        tt.scaled_dot_product_attention(*map(tt.tensor, queries_keys_values()), window=2)
    with pytest.raises(ValueError, match="window=2 narrows causal attention: pass is_causal=True"):
        module(window=2)(stream())


# ---- heads that share keys, windows and positions as angles, in the module


def wide(seed=0, **settings):
    """A MultiHeadAttention of width 12 with 6 heads, its biases shaken."""
    attention = tt.MultiHeadAttention(E, 6, generator=tt.Generator(seed), **settings)
    for name, parameter in attention.named_parameters():
        if name.endswith("bias"):
            parameter.data[...] = normal(*parameter.shape, seed=len(name), scale=0.3)
    return attention


KINDS = {
    "grouped": {"num_kv_heads": 2},
    "one_key_head": {"num_kv_heads": 1},
    "wide_heads": {"head_dim": 4, "num_kv_heads": 3},
    "window": {"window": 2},
    "rotary": {"rotary": tt.Rotary(2)},
    "neighbours": {"rotary": tt.Rotary(2, theta=50.0, interleaved=True)},
    "all": {"num_kv_heads": 2, "head_dim": 4, "window": 3, "rotary": tt.Rotary(4)},
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def test_shared_heads_are_plain_heads_with_equal_projections():
    shared, plain = wide(num_kv_heads=2), wide()
    state = shared.state_dict()
    for name in ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias"):
        rows = state[name].numpy()
        assert len(rows) == 4
        state[name] = np.repeat(rows.reshape(2, 2, -1), 3, axis=0).reshape(12, *rows.shape[1:])
    plain.load_state_dict(state)
    assert_close(shared(stream()), plain(stream()), 1e-5, 1e-6)
    shared_weights, plain_weights = (a(stream(), need_weights=True)[1] for a in (shared, plain))
    assert_close(shared_weights, plain_weights, 1e-5, 1e-6)


def test_rotated_heads_are_those_of_the_definition():
    attention, x = module(rotary=tt.Rotary(4, theta=100.0)), stream()
    q, k, v = (
        proj(x).reshape(B, S, H, 4).transpose(1, 2) for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    angles = tt.rotary_angles(S, 4, 100.0)
    y = tt.scaled_dot_product_attention(tt.rotary(q, *angles), tt.rotary(k, *angles), v, is_causal=True)
    expected = attention.out_proj(y.transpose(1, 2).reshape(B, S, E))
    assert_close(attention(x, is_causal=True), expected, 1e-5, 1e-6)


@every_kind
def test_weights_come_beside_the_same_output(kind):
    attention, x = wide(**kind), stream()
    y, weights = attention(x, is_causal=True, need_weights=True)
    assert weights.shape == (B, 6, S, S)
    assert_close(weights.sum(-1), np.ones((B, 6, S)))
    assert_close(y, attention(x, is_causal=True), 1e-5, 1e-6)


@pytest.mark.exercise("ex-12-8", points=3)
@every_kind
@pytest.mark.parametrize("pieces", [[1] * 7, [7], [4, 1, 1, 1], [2, 5], [3, 3, 1]])
@pytest.mark.parametrize("padded", [False, True])
def test_cached_is_uncached_for_every_kind_of_head(kind, pieces, padded):
    attention, x = wide(**kind), stream(time=7)
    padding = np.arange(7) < np.array([[0], [2]])  # in front, so that each position sees something
    masks = {"key_padding_mask": padding} if padded else {}
    expected = attention(x, is_causal=True, **as_tensors(masks))
    y = cached(attention, x, pieces, **masks)
    seen = slice(2, None) if padded else slice(None)
    assert_close(y[:, seen], expected[:, seen], 1e-5, 1e-6)


@tt.no_grad()
def test_a_mask_for_all_positions_so_far_is_cut_to_the_window():
    attention, x = wide(window=3, rotary=tt.Rotary(2)), stream(time=6)
    added = normal(6, 6, seed=3).astype(np.float32)
    expected, weights = attention(x, is_causal=True, attn_mask=tt.tensor(added), need_weights=True)
    cache = tt.KVCache(6)
    attention(x[:, :4], is_causal=True, attn_mask=tt.tensor(added[:4, :4]), cache=cache)
    y, cut = attention(x[:, 4:], is_causal=True, attn_mask=tt.tensor(added[4:]), cache=cache, need_weights=True)
    assert cut.shape == (B, 6, 2, 4)  # two positions with a window of three look at four keys
    assert_close(y, expected[:, 4:], 1e-5, 1e-6)
    assert_close(cut, weights[:, :, 4:, 2:], 1e-5, 1e-6)


@tt.no_grad()
def test_a_mask_of_one_column_stands_for_all_keys_in_the_window():
    attention, x, cache = wide(window=3, rotary=tt.Rotary(2)), stream(time=6), tt.KVCache(6)
    attention(x[:, :4], is_causal=True, cache=cache)
    one = tt.tensor(normal(2, 1).astype(np.float32))  # added to all scores of a query, which softmax does not feel
    assert_close(
        attention(x[:, 4:], is_causal=True, attn_mask=one, cache=cache), attention(x, is_causal=True)[:, 4:], 1e-5, 1e-6
    )


@tt.no_grad()
def test_the_cache_holds_the_shared_heads_after_their_rotation():
    attention, x, cache = wide(num_kv_heads=2, rotary=tt.Rotary(2)), stream(), tt.KVCache(8)
    for i in range(S):
        attention(x[:, i : i + 1], is_causal=True, cache=cache)
    keys = attention.k_proj(x).reshape(B, S, 2, 2).transpose(1, 2)
    assert cache.keys.shape == (B, 2, 8, 2)
    turned = (keys.data[..., 0] + 1j * keys.data[..., 1]) * np.exp(1j * np.arange(S))  # a pair of channels, one radian
    assert_close(cache.keys[:, :, :S], np.stack([turned.real, turned.imag], -1), 1e-5, 1e-6)


@every_kind
def test_every_parameter_of_every_kind_learns(kind):
    attention = wide(**kind)
    attention(stream(), is_causal=True).backward(normal(B, S, E).astype(np.float32))
    for name, parameter in attention.named_parameters():
        assert parameter.grad.shape == parameter.shape
        if name != "k_proj.bias":  # which moves all scores of a query alike, where nothing turns
            assert np.abs(parameter.grad.data).max() > 1e-4, name


@every_kind
def test_the_future_does_not_matter_to_any_kind(kind):
    attention, x = wide(**kind), stream()
    changed = tt.tensor(np.where(np.arange(S)[:, None] < 3, x.data, 1e3).astype(np.float32))
    assert_close(attention(changed, is_causal=True)[:, :3], attention(x, is_causal=True)[:, :3], 1e-5, 1e-6)


def test_shapes_and_bounds_follow_the_settings():
    attention = tt.MultiHeadAttention(60, 6, num_kv_heads=2, head_dim=8, generator=tt.Generator(0))
    shapes = {name: parameter.shape for name, parameter in attention.named_parameters()}
    assert shapes["q_proj.weight"] == (48, 60)
    assert shapes["k_proj.weight"] == shapes["v_proj.weight"] == (16, 60)
    assert shapes["out_proj.weight"] == (60, 48)
    assert shapes["k_proj.bias"] == (16,)
    bound = math.sqrt(6 / (60 + 48 + 16 + 16))
    for proj in (attention.q_proj, attention.k_proj, attention.v_proj):
        assert 0.97 * bound < np.abs(proj.weight.data).max() <= bound


def test_stacked_projections_are_taken_apart_where_keys_are_fewer():
    attention = wide(num_kv_heads=2)
    stacked = normal(12 + 4 + 4, E)
    attention.load_state_dict({**attention.state_dict(), "in_proj_weight": stacked})
    assert_close(attention.q_proj.weight, stacked[:12])
    assert_close(attention.k_proj.weight, stacked[12:16])
    assert_close(attention.v_proj.weight, stacked[16:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_kv_heads": 4}, "num_heads divisible by num_kv_heads, but got 6 and 4"),
        ({"num_kv_heads": 12}, "num_heads divisible by num_kv_heads, but got 6 and 12"),
        ({"num_kv_heads": 0}, "num_kv_heads needs an integer of at least 1, but got 0"),
        ({"head_dim": 0}, "head_dim needs an integer of at least 1, but got 0"),
        ({"rotary": tt.Rotary(4)}, "rotary needs heads of width 4, but they are 2 wide"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tt.MultiHeadAttention(E, 6, **settings)


def test_repr_names_what_is_unusual():
    assert repr(tt.MultiHeadAttention(12, 6)).startswith("MultiHeadAttention(embed_dim=12, num_heads=6\n")
    unusual = repr(tt.MultiHeadAttention(12, 6, num_kv_heads=2, head_dim=4, window=3, rotary=tt.Rotary(4)))
    assert "num_heads=6, num_kv_heads=2, window=3, head_dim=4\n" in unusual
    assert "(rotary): Rotary(4, theta=10000.0, interleaved=False)" in unusual
