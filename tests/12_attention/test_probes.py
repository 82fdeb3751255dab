"""The probes of lesson 12 on seeds that everybody knows, beside plain NumPy."""

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def sees(queries, keys, start=0, window=None):
    """(L, S): whether the query at position start + i, counted in Python, sees key j."""
    window = start + queries + 1 if window is None else window
    return np.array([[0 <= start + i - j < window for j in range(keys)] for i in range(queries)])


def what_a_position_sees(q, k, start, window):
    queries, keys = q.shape[1], len(k)
    return {
        "from_the_start_on": sees(queries, keys),
        "behind_others": sees(queries, keys, start),
        "in_a_window": sees(queries, keys, 0, window),
        "in_a_window_behind_others": sees(queries, keys, start, window),
    }


# ---- one attention


def weights_of(query, key, visible=True, added=0.0, scale=None):
    """The exponentials of the scores where something is visible, each row divided by its sum."""
    scores = np.einsum("bhld,bhsd->bhls", query, key)
    scores = scores / query.shape[-1] ** 0.5 if scale is None else scores * scale
    weights = np.exp(scores + added) * visible
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def gradients_of_scores(weights, g, query, key, scale=None):
    """What g, the gradient of the weights, sends to query and key."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    ds = scale * weights * (g - np.sum(g * weights, -1, keepdims=True))
    return np.einsum("bhls,bhsd->bhld", ds, key), np.einsum("bhls,bhld->bhsd", ds, query)


def each_with_its_own(shared, heads):
    """(B, H, S, D): the key head of each query head."""
    group = heads // shared.shape[1]
    return np.stack([shared[:, h // group] for h in range(heads)], 1)


def summed(each, shared):
    """(B, H', S, D): the sum over the query heads that share a key head."""
    return each.reshape(len(each), shared.shape[1], -1, *shared.shape[2:]).sum(2)


def weights_without_a_mask(query, key, scale, g):
    keys, found = each_with_its_own(key, query.shape[1]), {}
    for name, given in ("", None), ("_with_a_scale", scale):
        weights = weights_of(query, keys, scale=given)
        to_query, to_key = gradients_of_scores(weights, g, query, keys, given)
        found |= {f"output{name}": weights, f"gradient_0{name}": to_query, f"gradient_1{name}": summed(to_key, key)}
    return found


def weights_under_masks(query, key, mask, added, window, g):
    time, found = query.shape[2], {}
    past, near = sees(time, time), sees(time, time, window=window)
    settings = {
        "causal": (past, 0),
        "boolean": (mask, 0),
        "float": (True, added),
        "window": (near, 0),
        "boolean_and_window": (mask & near, 0),
        "float_and_causal": (past, added),
    }
    for name, given in settings.items():
        weights = weights_of(query, key, *given)
        to_query, to_key = gradients_of_scores(weights, g, query, key)
        found |= {f"output_{name}": weights, f"gradient_0_{name}": to_query, f"gradient_1_{name}": to_key}
    return found


def attention(query, key, value, mask, scale, p, window, seed, g):
    heads, length, keys = *query.shape[1:3], key.shape[2]
    draws = np.random.Generator(np.random.PCG64(seed)).random((len(query), heads, length, keys), dtype=np.float32)
    settings = {
        "with_a_mask_and_dropout": (mask, None, (draws >= p) / (1 - p)),
        "in_a_window": (sees(length, keys, window=window), scale, 1),
    }
    k, v, found = each_with_its_own(key, heads), each_with_its_own(value, heads), {}
    for name, (visible, scale, keep) in settings.items():
        weights = weights_of(query, k, visible, scale=scale)
        to_query, to_key = gradients_of_scores(weights, keep * (g @ v.swapaxes(2, 3)), query, k, scale)
        to_value = np.einsum("bhls,bhld->bhsd", weights * keep, g)
        found[f"output_{name}"] = (weights * keep) @ v
        found[f"gradient_0_{name}"] = to_query
        found[f"gradient_1_{name}"] = summed(to_key, key)
        found[f"gradient_2_{name}"] = summed(to_value, value)
    return found


# ---- heads


def in_heads(x, heads):
    """(B, H, T, D): of the channels, each head has the next few."""
    return np.stack(np.split(x, heads, axis=-1), 1)


def side_by_side(x):
    """(B, T, E): the way back."""
    return np.concatenate([x[:, h] for h in range(x.shape[1])], -1)


def split_into_heads(wide, split):
    return {"output": in_heads(wide, split.shape[1]), "gradient_0": side_by_side(split)}


def join_the_heads(wide, split):
    return {"output": side_by_side(split), "gradient_0": in_heads(wide, split.shape[1])}


def heads_that_share_keys(x, g):
    copies = g.shape[-3] // x.shape[-3]
    return {"output": np.repeat(x, copies, axis=-3), "gradient_0": sum(g[..., i::copies, :, :] for i in range(copies))}


# ---- the layer


def one_mask_out_of_all(q, k, padding, mask, added, window):
    shape = (*q.shape[:3], k.shape[2])
    start = shape[3] - shape[2]
    real, allowed = ~np.broadcast_to(padding[:, None, None], shape), np.broadcast_to(~mask, shape)
    past, near = (np.broadcast_to(sees(*shape[2:], start, w), shape) for w in (None, window))
    return {
        "padding": real,
        "boolean": allowed,
        "float": np.broadcast_to(added, shape),
        "causal": past,
        "window": near,
        "padding_and_boolean": real & allowed,
        "padding_and_float": np.where(real, added, -np.inf),
        "all_and_boolean": real & near & allowed,
        "all_and_float": np.where(real & near, added, -np.inf),
        "none": True,
    }


def projected(x, name, heads, state):
    return in_heads(x @ state[f"{name}.weight"].T + state[f"{name}.bias"], heads)


def heads_of_three_inputs(query, key, value, heads, state):
    return {
        "queries": projected(query, "q_proj", heads[0], state),
        "keys": projected(key, "k_proj", heads[1], state),
        "values": projected(value, "v_proj", heads[1], state),
        "unseen": 0,
    }


def turned(x):
    """(B, H, T, D): channel i and channel i + D / 2 as a complex number, turned by its position's angle."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[2])[:, None] / 10_000 ** (np.arange(half) / half)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate((z.real, z.imag), -1)


def heads_behind_a_cache(x, sizes, heads, state, window):
    """As without a cache: all positions at once, of which each part has some queries and all keys in reach."""
    q, k = turned(projected(x, "q_proj", heads[0], state)), turned(projected(x, "k_proj", heads[1], state))
    v, found = projected(x, "v_proj", heads[1], state), {}
    for reach, w in ("without_a_window", x.shape[1]), ("with_a_window", window):
        for i, size in enumerate(sizes):
            end = sum(sizes[: i + 1])
            seen = sees(size, end, end - size, w)
            first = int(seen.any(0).argmax())  # the oldest key that any of the queries sees
            found[f"queries_of_part_{i}_{reach}"] = q[:, :, end - size : end]
            found[f"keys_of_part_{i}_{reach}"] = k[:, :, first:end]
            found[f"values_of_part_{i}_{reach}"] = v[:, :, first:end]
            found[f"unseen_of_part_{i}_{reach}"] = first
    return found


def cache(keys, values, sizes, room):
    capacity = sum(sizes) + room
    found = {"empty": [True, True], "lengths": [capacity, 0]}
    for i in range(len(sizes)):
        end = sum(sizes[: i + 1])
        found[f"length_after_part_{i}"] = end
        found |= {f"keys_up_to_part_{i}": keys[:, :, :end], f"values_up_to_part_{i}": values[:, :, :end]}
    found["shapes_of_the_buffers"] = [(*keys.shape[:2], capacity, keys.shape[3])] * 2
    found |= {"without_room": "ValueError", "other_sequences": "ValueError", "with_a_graph": "RuntimeError"}
    return found | {"length_after_refusals": sum(sizes), "no_capacity": "ValueError"}


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
