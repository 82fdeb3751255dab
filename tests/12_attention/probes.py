"""What the grader asks the answers to lesson 12, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import gradients, probe, refusal


def named(settings, arrays):
    """The arrays of one of several calls."""
    return {f"{name}_{settings}": array for name, array in arrays.items()}


def visible_keys(rng):
    """Queries that stand behind a few keys."""
    start, time = int(rng.integers(2, 5)), rng.integers(3, 6)
    return {
        "q": rng.standard_normal((rng.integers(1, 4), time, 2)),
        "k": rng.standard_normal((start + time, 2)),
        "start": start,
        "window": int(rng.integers(1, 4)),
    }


@probe("ex-12-1", visible_keys)
def what_a_position_sees(tt, q, k, start, window):
    from tinytorch.attention import _causal

    return {
        "from_the_start_on": _causal(q, k),
        "behind_others": _causal(q, k, start=start),
        "in_a_window": _causal(q, k, window),
        "in_a_window_behind_others": _causal(q, k, window, start),
    }


# ---- one attention


def shared_keys(rng):
    """Queries whose heads share keys, or do not, and the gradient of the weights."""
    batch, shared, group = rng.integers(1, 4, 3)
    length, keys, width = rng.integers(2, 6, 3)
    return {
        "query": rng.standard_normal((batch, shared * group, length, width)),
        "key": rng.standard_normal((batch, shared, keys, width)),
        "scale": rng.uniform(0.1, 3),
        "g": rng.standard_normal((batch, shared * group, length, keys)),
    }


@probe("ex-12-2", shared_keys)
def weights_without_a_mask(tt, query, key, scale, g):
    from tinytorch.attention import attention_weights

    usual = gradients(tt, lambda q, k: attention_weights(q, k, enable_gqa=True), query, key, g=g)
    scaled = gradients(tt, lambda q, k: attention_weights(q, k, scale=scale, enable_gqa=True), query, key, g=g)
    return usual | named("with_a_scale", scaled)


def masks(rng):
    """A boolean and a float mask, with which one query of one sequence sees nothing, and others only some keys."""
    batch, heads = rng.integers(1, 4, 2)
    time, width = int(rng.integers(3, 6)), rng.integers(2, 5)
    mask = rng.random((batch, 1, time, time)) < 0.6
    mask[..., 0], mask[..., 1] = True, False
    mask[0, 0, rng.integers(2, time)] = False
    return {
        "query": rng.standard_normal((batch, heads, time, width)),
        "key": rng.standard_normal((batch, heads, time, width)),
        "mask": mask,
        "added": np.where(mask, rng.standard_normal((batch, heads, time, time)), -np.inf),
        "window": int(rng.integers(1, time)),
        "g": rng.standard_normal((batch, heads, time, time)),
    }


@probe("ex-12-2", masks)
def weights_under_masks(tt, query, key, mask, added, window, g):
    from tinytorch.attention import attention_weights

    settings = {
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": tt.Tensor(mask)},
        "float": {"attn_mask": tt.Tensor(added)},
        "window": {"is_causal": True, "window": window},
        "boolean_and_window": {"attn_mask": tt.Tensor(mask), "is_causal": True, "window": window},
        "float_and_causal": {"attn_mask": tt.Tensor(added), "is_causal": True},
    }
    found = {}
    for name, given in settings.items():
        arrays = gradients(tt, lambda q, k: attention_weights(q, k, **given), query, key, g=g)
        found |= named(name, arrays)
    return found


def attended(rng):
    """`shared_keys` with values, a mask and what dropout needs."""
    drawn = shared_keys(rng)
    *lead, length, keys = drawn.pop("g").shape
    batch, shared, *_ = drawn["key"].shape
    width = rng.integers(1, 5)
    mask = rng.random((length, keys)) < 0.5
    mask[:, 0], mask[0, 1] = True, False
    return {
        **drawn,
        "value": rng.standard_normal((batch, shared, keys, width)),
        "mask": mask,
        "p": rng.uniform(0.2, 0.6),
        "window": int(rng.integers(1, length + 1)),
        "seed": int(rng.integers(2**31)),
        "g": rng.standard_normal((*lead, length, width)),
    }


@probe("ex-12-3", attended)
def attention(tt, query, key, value, mask, scale, p, window, seed, g):
    from tinytorch.attention import scaled_dot_product_attention_composed

    def masked(q, k, v):
        settings = {"dropout_p": p, "enable_gqa": True, "generator": tt.Generator(seed)}
        return scaled_dot_product_attention_composed(q, k, v, tt.Tensor(mask), **settings)

    def causal(q, k, v):
        settings = {"is_causal": True, "scale": scale, "enable_gqa": True, "window": window}
        return scaled_dot_product_attention_composed(q, k, v, **settings)

    found = named("with_a_mask_and_dropout", gradients(tt, masked, query, key, value, g=g))
    return found | named("in_a_window", gradients(tt, causal, query, key, value, g=g))


# ---- heads


def wide(rng):
    """x (B, T, E) for a few heads, and gradients of (B, T, E) and of (B, H, T, D)."""
    batch, width = rng.integers(1, 4, 2)
    time, heads = (int(n) for n in rng.integers(2, 5, 2))
    return {
        "wide": rng.standard_normal((batch, time, heads * width)),
        "split": rng.standard_normal((batch, heads, time, width)),
    }


@probe("ex-12-4", wide)
def split_into_heads(tt, wide, split):
    from tinytorch.attention import split_heads

    return gradients(tt, lambda x: split_heads(x, split.shape[1]), wide, g=split)


@probe("ex-12-5", wide)
def join_the_heads(tt, wide, split):
    from tinytorch.attention import join_heads

    return gradients(tt, join_heads, split, g=wide)


def few_heads(rng):
    """x (..., H', S, D), and the gradient of several copies of each head."""
    heads, copies = rng.integers(2, 5, 2)
    lead, others = rng.integers(1, 4, rng.integers(3)), rng.integers(1, 4, 2)
    return {
        "x": rng.standard_normal((*lead, heads, *others)),
        "g": rng.standard_normal((*lead, heads * copies, *others)),
    }


@probe("ex-12-6", few_heads)
def heads_that_share_keys(tt, x, g):
    from tinytorch.attention import _repeat_heads

    return gradients(tt, lambda x: _repeat_heads(x, g.shape[-3]), x, g=g)


# ---- the layer


def forbidden(rng):
    """Queries behind a few keys, and masks of the layer: true where attention is forbidden."""
    batch, heads, start = rng.integers(1, 4, 3)
    time = rng.integers(2, 5)
    keys = start + time
    padding = np.arange(keys) >= rng.integers(1, keys, (batch, 1))
    mask = rng.random((time, keys)) < 0.4
    mask[0, 0] = True
    return {
        "q": rng.standard_normal((batch, heads, time, 2)),
        "k": rng.standard_normal((batch, heads, keys, 2)),
        "padding": padding,
        "mask": mask,
        "added": rng.standard_normal((heads, time, keys)),
        "window": int(rng.integers(1, 4)),
    }


@probe("ex-12-7", forbidden)
def one_mask_out_of_all(tt, q, k, padding, mask, added, window):
    layer, narrow = (tt.MultiHeadAttention(4, 2, window=w) for w in (None, window))
    q, k, padding, mask, added = (tt.Tensor(array) for array in (q, k, padding, mask, added))
    masks = {
        "padding": layer._visible(q, k, padding, None, False),
        "boolean": layer._visible(q, k, None, mask, False),
        "float": layer._visible(q, k, None, added, False),
        "causal": layer._visible(q, k, None, None, True),
        "window": narrow._visible(q, k, None, None, True),
        "padding_and_boolean": layer._visible(q, k, padding, mask, False),
        "padding_and_float": layer._visible(q, k, padding, added, False),
        "all_and_boolean": narrow._visible(q, k, padding, mask, True),
        "all_and_float": narrow._visible(q, k, padding, added, True),
    }
    shape = (*q.shape[:3], k.shape[2])
    found = {name: np.broadcast_to(mask.numpy(), shape) for name, mask in masks.items()}
    return {**found, "none": layer._visible(q, k, None, None, False) is None}


def projections(rng):
    """Sizes of a layer whose heads share keys, the numbers of its projections, and three inputs."""
    shared, group, half = (int(n) for n in rng.integers(1, 4, 3))
    width, embed = 2 * half, 2 * half * shared * group
    state = {}
    for name, size in ("q_proj", embed), ("k_proj", shared * width), ("v_proj", shared * width):
        state[f"{name}.weight"] = rng.standard_normal((size, embed)).astype(np.float32)
        state[f"{name}.bias"] = rng.standard_normal(size).astype(np.float32)
    batch, time, keys = rng.integers(1, 5, 3)
    return {
        "query": rng.standard_normal((batch, time, embed)),
        "key": rng.standard_normal((batch, keys, embed)),
        "value": rng.standard_normal((batch, keys, embed)),
        "heads": (shared * group, shared),
        "state": state,
    }


def layer(tt, heads, state, window=None, rotary=None):
    """A layer with these numbers in its projections."""
    embed = state["q_proj.weight"].shape[0]
    layer = tt.MultiHeadAttention(embed, heads[0], num_kv_heads=heads[1], window=window, rotary=rotary)
    for name, array in state.items():
        projection, parameter = name.split(".")
        getattr(getattr(layer, projection), parameter).data[...] = array
    return layer


@probe("ex-12-8", projections)
def heads_of_three_inputs(tt, query, key, value, heads, state):
    q, k, v, unseen = layer(tt, heads, state)._heads(tt.Tensor(query), tt.Tensor(key), tt.Tensor(value), None)
    return {"queries": q, "keys": k, "values": v, "unseen": unseen}


def chunks(rng):
    """A sequence that comes in parts, and a window that does not reach back to its beginning."""
    drawn = projections(rng)
    sizes = [int(n) for n in rng.integers(1, 4, 3)]
    shape = (len(drawn["query"]), sum(sizes), drawn["query"].shape[-1])
    x, window = rng.standard_normal(shape), int(rng.integers(1, 3))
    return {"x": x, "sizes": sizes, "heads": drawn["heads"], "state": drawn["state"], "window": window}


@probe("ex-12-8", chunks)
def heads_behind_a_cache(tt, x, sizes, heads, state, window):
    found, width = {}, x.shape[-1] // heads[0]
    for reach, w in ("without_a_window", None), ("with_a_window", window):
        attention, cache = layer(tt, heads, state, w, tt.Rotary(width)), tt.KVCache(x.shape[1])
        with tt.no_grad():
            for i, part in enumerate(np.split(x, np.cumsum(sizes)[:-1], axis=1)):
                part = tt.Tensor(part)
                q, k, v, unseen = attention._heads(part, part, part, cache)
                arrays = {"queries": q, "keys": k, "values": v, "unseen": unseen}
                found |= named(f"of_part_{i}_{reach}", arrays)
    return found


def kept(rng):
    """Keys and values that come in parts, and a little more room than they need."""
    sizes = [int(n) for n in rng.integers(1, 4, 3)]
    shape = (*rng.integers(1, 4, 2), sum(sizes), rng.integers(1, 4))
    return {
        "keys": rng.standard_normal(shape),
        "values": rng.standard_normal(shape),
        "sizes": sizes,
        "room": int(rng.integers(1, 4)),
    }


@probe("ex-12-9", kept)
def cache(tt, keys, values, sizes, room):
    cache = tt.KVCache(keys.shape[2] + room)
    found = {"empty": [cache.keys is None, cache.values is None], "lengths": [cache.capacity, cache.length]}
    ends, parts = np.cumsum(sizes), []
    for i, (start, end) in enumerate(zip(ends - sizes, ends)):
        parts.append(cache.append(tt.Tensor(keys[:, :, start:end]), tt.Tensor(values[:, :, start:end])))
        found[f"length_after_part_{i}"] = cache.length
    for i, (k, v) in enumerate(parts):  # views of buffers that never move, so that all of them still hold
        found |= {f"keys_up_to_part_{i}": k, f"values_up_to_part_{i}": v}
    found["shapes_of_the_buffers"] = [cache.keys.shape, cache.values.shape]
    one = keys[:, :, :1]
    refused = {
        "without_room": tt.Tensor(np.repeat(one, room + 1, axis=2)),
        "other_sequences": tt.Tensor(np.repeat(one, 2, axis=0)),
        "with_a_graph": tt.Tensor(one, requires_grad=True),
    }
    found |= {name: refusal(cache.append, more, more) for name, more in refused.items()}
    return found | {"length_after_refusals": cache.length, "no_capacity": refusal(tt.KVCache, 0)}
