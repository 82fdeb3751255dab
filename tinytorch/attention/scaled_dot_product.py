"""Scaled dot-product attention, step by step and as one operation (Vaswani et al. 2017, arXiv:1706.03762, 3.2.1).

Letters: B batch, H heads, H' heads of keys and values, L queries, S keys, D width of a head, E width of the model.
"""

import math

import numpy as np

from .. import device as devices
from ..activations import shifted_exp, softmax
from ..layers import dropout, dropout_mask, require_positive, require_probability
from ..tensor import Tensor, op


def require_mask(name, mask, kinds):
    """Raise TypeError unless the mask is of one of these kinds: "b" booleans, "f" floats."""
    if mask.dtype.kind not in kinds:
        wanted = "booleans or floats" if "f" in kinds else "booleans"
        raise TypeError(f"{name} needs {wanted}, but got {mask.dtype}. Compare, as in mask != 0, or convert it.")


def require_causal(window, is_causal):
    """Raise ValueError for a window where attention is not causal."""
    if window is not None and not is_causal:
        raise ValueError(f"window={window} narrows causal attention: pass is_causal=True too.")


def attention_weights(query, key, attn_mask=None, is_causal=False, scale=None, enable_gqa=False, window=None):
    """softmax(query @ key.T * scale) in primitive operations: (..., L, D) and (..., S, D) give (..., L, S).

    Masks are those of `scaled_dot_product_attention`. A query that may see no key gets weights of zero.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    key = _repeat_heads(key, query.shape[-3]) if enable_gqa else key
    scores = query @ key.transpose(-1, -2) * scale  # (..., L, S)
    visible = None
    if attn_mask is not None and attn_mask.dtype != bool:
        scores = scores + attn_mask
        visible = scores != -math.inf
    elif attn_mask is not None:
        visible = attn_mask
    if is_causal:
        causal = Tensor(_causal(query.data, key.data, window))
        visible = causal if visible is None else visible & causal
    if visible is None:
        return softmax(scores)
    return softmax(scores.masked_fill(~visible, -1e30)).masked_fill(~visible, 0.0)


def _repeat_heads(x, num_heads):
    """(..., H', S, D) to (..., num_heads, S, D): each head as often as query heads share it."""
    *lead, heads, time, width = x.shape
    return x.unsqueeze(-3).expand(*lead, heads, num_heads // heads, time, width).flatten(-4, -3)


def scaled_dot_product_attention_composed(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    window=None,
    generator=None,
):
    """`scaled_dot_product_attention` in primitive operations: the weights, with dropout, times the values."""
    weights = attention_weights(query, key, attn_mask, is_causal, scale, enable_gqa, window)
    value = _repeat_heads(value, query.shape[-3]) if enable_gqa else value
    return dropout(weights, dropout_p, generator=generator) @ value


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    window=None,
    generator=None,
):
    """softmax(query @ key.T * scale) @ value, in one operation.

    query (..., L, D), key (..., S, D) and value (..., S, Dv) give (..., L, Dv). `attn_mask` broadcasts to (..., L, S):
    booleans (true: may attend) or floats that are added to the scores. `is_causal` lets query i see keys 0 to i, and
    `window` of those the last `window`, i - window + 1 to i (Beltagy et al. 2020, arXiv:2004.05150, section 3.1).
    `scale` is 1/sqrt(D) by default. `dropout_p` drops weights, whatever the mode: pass 0 in evaluation.
    `enable_gqa`: key and value may have fewer heads (axis -3) than query, H' for H; head h then reads key head
    h // (H / H') (Ainslie et al. 2023, arXiv:2305.13245; with one head for all, Shazeer 2019, arXiv:1911.02150).
    A query that may see no key gives zeros. Raises ValueError for shapes or settings that do not fit.
    """
    _require_shapes(query, key, value, enable_gqa)
    if attn_mask is not None:
        require_mask("attn_mask", attn_mask, "bf")
    if window is not None:
        require_positive(window=window)
        require_causal(window, is_causal)
    require_probability(dropout_p)
    keep = None
    if dropout_p:
        lead = query.shape[:-2] if enable_gqa else np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        shape = (*lead, query.shape[-2], key.shape[-2])
        keep = devices.to_device(dropout_mask(shape, dropout_p, query.dtype, generator), query.device)
    return _attention(query, key, value, attn_mask, is_causal=is_causal, window=window, scale=scale, keep=keep)


def _require_shapes(query, key, value, enable_gqa):
    q, k, v = query.shape, key.shape, value.shape
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise ValueError(
            f"attention needs query (..., L, D), key (..., S, D) and value (..., S, Dv), but got {q}, {k} and {v}."
        )
    if q[:-2] == k[:-2] == v[:-2] and (len(q) > 2 or not enable_gqa):
        return
    if enable_gqa and not (len(q) == len(k) > 2 and q[:-3] == k[:-3] and k[:-2] == v[:-2] and q[-3] % k[-3] == 0):
        raise ValueError(
            "enable_gqa needs query (..., H, L, D), key (..., H', S, D) and value (..., H', S, Dv) with H a multiple "
            f"of H', but got {q}, {k} and {v}."
        )
    if not enable_gqa and any(len(q) == len(x) > 2 and 1 < x[-3] < q[-3] for x in (k, v)):
        raise ValueError(
            f"attention needs as many heads (axis -3) in query {q}, key {k} and value {v}. Pass enable_gqa=True if "
            "several query heads share a key head."
        )


@op
def _attention(q, k, v, mask=None, *, is_causal=False, window=None, scale=None, keep=None):
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    q = q * scale
    scores = _product(q, k.swapaxes(-1, -2))  # (..., L, S)
    visible = _causal(q, k, window) if is_causal else None
    if mask is not None and mask.dtype == bool:
        visible = mask if visible is None else visible & mask
    elif mask is not None:
        scores = scores + mask
    p, _ = shifted_exp(scores, visible=visible, out=scores)
    total = np.matmul(p.reshape(-1, p.shape[-1]), devices.filled(p, p.shape[-1], 1)).reshape(p.shape[:-1] + (1,))
    if mask is not None or window is not None:
        total[total == 0] = 1  # no key in sight
    kept = p if keep is None else p * keep
    y = _product(kept, v, like=q)
    y /= total  # weights are p / total, but dividing the (L, Dv) result is cheaper than dividing (L, S) weights

    def rule(g):  # dS = P * (g @ v.T - rowsum(g * y)) with P = p / total, dividing g instead of p
        g = g / total
        ds = _product(g, v.swapaxes(-1, -2))  # (..., L, S)
        if keep is not None:
            ds *= keep
        ds -= np.einsum("...d,...d->...", g, y)[..., None]
        ds *= p
        dq = _product(ds, k, like=q)
        dq *= scale
        return dq, _product_over_queries(ds, q, k), _product_over_queries(kept, g, v), ds

    return y, rule


def _product(a, b, like=None):
    """a @ b, where several query heads of a may share a head of b: they are then the rows of one product.

    With `like`, in its memory layout: where heads were split without a copy, they are joined without one.
    """
    if _shared(a, b):
        return np.matmul(_side_by_side(a, b), b).reshape(*a.shape[:-1], b.shape[-1])
    if like is not None and a.shape[:-2] == b.shape[:-2] == like.shape[:-2]:
        return np.matmul(a, b, out=np.empty_like(like, shape=(*like.shape[:-1], b.shape[-1])))
    return np.matmul(a, b)


def _product_over_queries(a, b, like):
    """a.T @ b: (..., L, S) and (..., L, D) give (..., S, D), summed over the query heads that share a head of `like`.

    In the memory layout of `like`.
    """
    if _shared(a, like) and a.shape[:-1] == b.shape[:-1]:
        a, b = _side_by_side(a, like), _side_by_side(b, like)
    return _product(a.swapaxes(-1, -2), b, like)


def _shared(a, b):
    """Whether b has fewer heads (axis -3) than a, all other leading axes being the same."""
    return a.ndim == b.ndim > 2 and a.shape[-3] > b.shape[-3] and a.shape[:-3] == b.shape[:-3]


def _side_by_side(x, shared):
    """(..., H, L, D) to (..., H', H / H' L, D): the queries of all heads that read the same head of `shared`."""
    heads, kept = x.shape[-3], shared.shape[-3]
    return x.reshape(*x.shape[:-3], kept, heads // kept * x.shape[-2], x.shape[-1])


@op
def split_heads(x, num_heads):
    """(B, T, E) to (B, H, T, D): each head gets its own D of the E channels. No element moves."""
    batch, time, width = x.shape
    y = x.reshape(batch, time, num_heads, width // num_heads).swapaxes(1, 2)
    return y, lambda g: g.swapaxes(1, 2).reshape(batch, time, width)


@op
def join_heads(x):
    """(B, H, T, D) to (B, T, E): the way back from `split_heads`."""
    batch, heads, time, width = x.shape
    y = x.swapaxes(1, 2).reshape(batch, time, heads * width)
    return y, lambda g: g.reshape(batch, time, heads, width).swapaxes(1, 2)


def _causal(q, k, window=None, start=0):
    """(L, S) booleans: query i, at position start + i, sees the keys up to there, or the last `window` of them."""
    rows = np.arange(start, start + q.shape[-2], like=q)[:, None]
    columns = np.arange(k.shape[-2], like=q)
    visible = rows >= columns
    return visible if window is None else visible & (rows - window < columns)
