"""Module 12: attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

Letters: B batch, H heads, H' heads of keys and values, L queries, S keys, D width of a head, E width of the model.
"""

import functools
import math
import operator

import numpy as np

from . import autograd
from . import device as devices
from .activations import shifted_exp, softmax
from .layers import Linear, Module, Parameter, dropout, dropout_mask, require_positive, require_probability, uniform
from .tensor import Tensor, op, where, wrap, zeros


def _require_mask(name, mask, kinds):
    if mask.dtype.kind not in kinds:
        wanted = "booleans or floats" if "f" in kinds else "booleans"
        raise TypeError(f"{name} needs {wanted}, but got {mask.dtype}. Compare, as in mask != 0, or convert it.")


def _require_causal(window, is_causal):
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
        _require_mask("attn_mask", attn_mask, "bf")
    if window is not None:
        require_positive(window=window)
        _require_causal(window, is_causal)
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


class KVCache:
    """The keys and values of one attention layer for the positions so far, in buffers that never move.

    `append` takes those of the new positions, (B, H, L, D), and returns all so far, (B, H, S, D). For inference only.
    `capacity` is how many positions there is room for, `length` how many there are; `keys` and `values` are the
    buffers, arrays (B, H, capacity, D), or None before the first `append`.
    """

    def __init__(self, capacity):
        require_positive(capacity=capacity)
        self.capacity = capacity
        self.length = 0
        self.keys = self.values = None

    def append(self, key, value):
        _require_room(self, key, value)
        batch, heads, new, width = key.shape
        end = self.length + new
        if self.keys is None:
            self.keys = np.empty((batch, heads, self.capacity, width), key.dtype, like=key.data)
            self.values = np.empty_like(self.keys)
        self.keys[:, :, self.length : end] = key.data
        self.values[:, :, self.length : end] = value.data
        self.length = end
        return wrap(self.keys[:, :, :end]), wrap(self.values[:, :, :end])


def _require_room(cache, key, value):
    """Raise unless `cache` can go on with key and value: no graph, as many sequences and heads as before, and room."""
    if autograd.grad_mode.enabled and (key.requires_grad or value.requires_grad):
        raise RuntimeError("A KVCache keeps no graph. Generate inside no_grad().")
    batch, heads, new, width = key.shape
    before = None if cache.keys is None else cache.keys.shape
    if before is not None and (batch, heads, width) != (*before[:2], before[3]):
        raise ValueError(
            f"The cache goes on with keys of shape {before[:2]} + (new, {before[3]}), but got {key.shape}. "
            "Use a new cache for other sequences."
        )
    end = cache.length + new
    if end > cache.capacity:
        raise ValueError(f"The cache holds {cache.capacity} positions, but {end} are needed.")


class MultiHeadAttention(Module):
    """H attentions side by side, each on its own projection of width D = E / H: (B, L, E) to (B, L, E).

    Queries, keys and values have projections of their own. Initialised as torch.nn.MultiheadAttention, whose state
    dict (with the three stacked in `in_proj_weight`) loads too.
    num_kv_heads: fewer heads for keys and values, each read by as many query heads, which makes the cache smaller;
    head_dim: another D; window: in causal attention a position sees the last `window` positions, itself among them;
    rotary: a Rotary(D), which turns queries and keys by their positions.
    """

    def __init__(
        self,
        embed_dim,
        num_heads,
        dropout=0.0,
        bias=True,
        *,
        num_kv_heads=None,
        head_dim=None,
        window=None,
        rotary=None,
        generator=None,
    ):
        require_positive(embed_dim=embed_dim, num_heads=num_heads)
        require_probability(dropout)
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(
                f"MultiHeadAttention needs embed_dim divisible by num_heads, but got {embed_dim} and {num_heads}."
            )
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.window, self.rotary = window, rotary
        self._require_settings()
        width, kv_width = num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Linear(*sizes, bias, generator=generator)
            for sizes in ((embed_dim, width), (embed_dim, kv_width), (embed_dim, kv_width), (width, embed_dim))
        )
        bound = math.sqrt(6 / (embed_dim + width + 2 * kv_width))  # Glorot and Bengio 2010, over all three stacked
        for proj in (self.q_proj, self.k_proj, self.v_proj):
            proj.weight = Parameter(uniform(proj.weight.shape, bound, generator))
        for proj in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            proj.bias = Parameter(zeros(proj.out_features)) if bias else None

    def _require_settings(self):
        require_positive(num_kv_heads=self.num_kv_heads, head_dim=self.head_dim)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"MultiHeadAttention needs num_heads divisible by num_kv_heads, but got {self.num_heads} and "
                f"{self.num_kv_heads}."
            )
        if self.window is not None:
            require_positive(window=self.window)
        if self.rotary is not None and self.rotary.dim != self.head_dim:
            raise ValueError(f"rotary needs heads of width {self.rotary.dim}, but they are {self.head_dim} wide.")

    def forward(
        self,
        query,
        key=None,
        value=None,
        *,
        key_padding_mask=None,
        attn_mask=None,
        is_causal=False,
        need_weights=False,
        cache=None,
    ):
        """Attend from `query` (B, L, E) to `key` and `value` (B, S, E), which are `query` itself where left out.

        Masks are those of torch.nn.MultiheadAttention: booleans are true where attention is *forbidden*.
        key_padding_mask (B, S); attn_mask (L, S) or what broadcasts to (B, H, L, S), boolean or added to the scores.
        is_causal: position i sees 0 to i, or what of it the window covers. need_weights: return (output, weights
        (B, H, L, S)). cache: a KVCache; the new positions follow those in it and see them too, as far as the window
        reaches (weights then have a column for each key within reach of any new position).
        """
        key = query if key is None else key
        value = key if value is None else value
        self._require_inputs(query, key, value, key_padding_mask, attn_mask, is_causal, cache)
        q, k, v, unseen = self._heads(query, key, value, cache)
        if unseen:
            key_padding_mask, attn_mask = _from(unseen, key_padding_mask), _from(unseen, attn_mask)
        mask = self._visible(q, k, key_padding_mask, attn_mask, is_causal and cache is not None)
        is_causal = is_causal and cache is None
        dropped = self.dropout if self.training else 0.0
        grouped, window = self.num_kv_heads < self.num_heads, self.window if is_causal else None
        if need_weights:
            weights = dropout(attention_weights(q, k, mask, is_causal, enable_gqa=grouped, window=window), dropped)
            v = _repeat_heads(v, self.num_heads) if grouped else v
            return self.out_proj(join_heads(weights @ v)), weights
        y = scaled_dot_product_attention(q, k, v, mask, dropped, is_causal, enable_gqa=grouped, window=window)
        return self.out_proj(join_heads(y))

    def _heads(self, query, key, value, cache):
        """Queries (B, H, L, D), keys and values (B, H', S, D), and how many of the cache no window reaches any more."""
        q = split_heads(self.q_proj(query), self.num_heads)
        k = split_heads(self.k_proj(key), self.num_kv_heads)
        v = split_heads(self.v_proj(value), self.num_kv_heads)
        if self.rotary is not None:
            start = cache.length if cache is not None else 0
            q, k = self.rotary(q, start), self.rotary(k, start)
        if cache is None:
            return q, k, v, 0
        k, v = cache.append(k, v)
        unseen = 0 if self.window is None else max(0, k.shape[-2] - q.shape[-2] - self.window + 1)
        return (q, k[:, :, unseen:], v[:, :, unseen:], unseen) if unseen else (q, k, v, 0)

    def _require_inputs(self, query, key, value, key_padding_mask, attn_mask, is_causal, cache):
        for x in (query,) if query is key is value else (query, key, value):
            if x.ndim != 3 or x.shape[-1] != self.embed_dim:
                raise ValueError(
                    f"MultiHeadAttention({self.embed_dim}, {self.num_heads}) needs inputs of shape "
                    f"(batch, time, {self.embed_dim}), but got {x.shape}."
                )
        _require_causal(self.window, is_causal)
        if attn_mask is not None:
            _require_mask("attn_mask", attn_mask, "bf")
        if key_padding_mask is not None:
            _require_mask("key_padding_mask", key_padding_mask, "b")
            expected = (len(key), key.shape[1] + (cache.length if cache is not None else 0))
            if key_padding_mask.shape != expected:
                raise ValueError(f"key_padding_mask needs shape {expected}, but got {key_padding_mask.shape}.")

    def _visible(self, q, k, key_padding_mask, attn_mask, causal_after_cache):
        """One mask for `scaled_dot_product_attention` (true: may attend) out of all that were given, or None."""
        masks = []
        if key_padding_mask is not None:
            masks.append(~key_padding_mask.reshape(len(key_padding_mask), 1, 1, -1))  # (B, 1, 1, S)
        if causal_after_cache and q.shape[-2] > 1:
            masks.append(Tensor(_causal(q.data, k.data, self.window, start=k.shape[-2] - q.shape[-2])))
        if attn_mask is not None and attn_mask.dtype == bool:
            masks.append(~attn_mask)
        visible = functools.reduce(operator.and_, masks) if masks else None
        if attn_mask is None or attn_mask.dtype == bool:
            return visible
        return attn_mask if visible is None else where(visible, attn_mask, -math.inf)

    def adapt_state_dict(self, state_dict, prefix=""):
        for kind in ("weight", "bias"):
            stacked, end = state_dict.pop(f"{prefix}in_proj_{kind}", None), 0
            for name in ("q_proj", "k_proj", "v_proj") if stacked is not None else ():
                start, end = end, end + getattr(self, name).out_features
                state_dict[f"{prefix}{name}.{kind}"] = stacked[start:end]
        return state_dict

    def extra_repr(self):
        settings = {"num_kv_heads": (self.num_kv_heads, self.num_heads), "window": (self.window, None)}
        settings["head_dim"] = self.head_dim, self.embed_dim // self.num_heads
        others = "".join(f", {name}={value}" for name, (value, usual) in settings.items() if value != usual)
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{others}"


def _from(first, mask):
    """What a mask (..., S) says of the keys from `first` on; one column stands for all."""
    return mask if mask is None or mask.shape[-1] == 1 else mask[..., first:]
