"""Module 12: attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

Letters: B batch, H heads, L queries, S keys, D width of a head, E width of the model = H D.
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


def attention_weights(query, key, attn_mask=None, is_causal=False, scale=None):
    """softmax(query @ key.T * scale) in primitive operations: (..., L, D) and (..., S, D) give (..., L, S).

    Masks are those of `scaled_dot_product_attention`. A query that may see no key gets weights of zero.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ key.transpose(-1, -2) * scale  # (..., L, S)
    visible = None
    if attn_mask is not None and attn_mask.dtype != bool:
        scores = scores + attn_mask
    elif attn_mask is not None:
        visible = attn_mask
    if is_causal:
        causal = Tensor(_lower_triangle(query.data, key.data))
        visible = causal if visible is None else visible & causal
    if visible is None:
        return softmax(scores)
    return softmax(scores.masked_fill(~visible, -1e30)).masked_fill(~visible, 0.0)


def scaled_dot_product_attention_composed(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, generator=None
):
    """`scaled_dot_product_attention` in primitive operations."""
    weights = attention_weights(query, key, attn_mask, is_causal, scale)
    return dropout(weights, dropout_p, generator=generator) @ value


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, generator=None
):
    """softmax(query @ key.T * scale) @ value, in one operation.

    query (..., L, D), key (..., S, D) and value (..., S, Dv) give (..., L, Dv). `attn_mask` broadcasts to (..., L, S):
    booleans (true: may attend) or floats that are added to the scores. `is_causal` lets query i see keys 0 to i.
    `scale` is 1/sqrt(D) by default. `dropout_p` drops weights, whatever the mode: pass 0 in evaluation. A query that
    may see no key gives zeros. Raises ValueError for shapes that do not fit.
    """
    fits = all(x.ndim >= 2 for x in (query, key, value))
    if not fits or query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(
            "attention needs query (..., L, D), key (..., S, D) and value (..., S, Dv), but got "
            f"{query.shape}, {key.shape} and {value.shape}."
        )
    if attn_mask is not None:
        _require_mask("attn_mask", attn_mask, "bf")
    require_probability(dropout_p)
    keep = None
    if dropout_p:
        shape = np.broadcast_shapes(query.shape[:-2], key.shape[:-2]) + (query.shape[-2], key.shape[-2])
        keep = devices.to_device(dropout_mask(shape, dropout_p, query.dtype, generator), query.device)
    return _attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale, keep=keep)


@op
def _attention(q, k, v, mask=None, *, is_causal=False, scale=None, keep=None):
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    q = q * scale
    scores = np.matmul(q, k.swapaxes(-1, -2))  # (..., L, S)
    visible = _lower_triangle(q, k) if is_causal else None
    if mask is not None and mask.dtype == bool:
        visible = mask if visible is None else visible & mask
    elif mask is not None:
        scores = scores + mask
    p, _ = shifted_exp(scores, visible=visible, out=scores)
    total = np.matmul(p.reshape(-1, p.shape[-1]), np.ones(p.shape[-1], p.dtype, like=p)).reshape(p.shape[:-1] + (1,))
    if mask is not None:
        total[total == 0] = 1  # no key in sight
    kept = p if keep is None else p * keep
    y = _product(kept, v, q)
    y /= total  # weights are p / total, but dividing the (L, Dv) result is cheaper than dividing (L, S) weights

    def rule(g):  # dS = P * (g @ v.T - rowsum(g * y)) with P = p / total, dividing g instead of p
        g = g / total
        ds = np.matmul(g, v.swapaxes(-1, -2))  # (..., L, S)
        if keep is not None:
            ds *= keep
        ds -= np.einsum("...d,...d->...", g, y)[..., None]
        ds *= p
        dq = _product(ds, k, q)
        dq *= scale
        return dq, _product(ds.swapaxes(-1, -2), q, k), _product(kept.swapaxes(-1, -2), g, v), ds

    return y, rule


def _product(a, b, like):
    """a @ b with the memory layout of `like`: where heads were split without a copy, they are joined without one."""
    if a.shape[:-2] == b.shape[:-2] == like.shape[:-2]:
        return np.matmul(a, b, out=np.empty_like(like, shape=(*like.shape[:-1], b.shape[-1])))
    return np.matmul(a, b)


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


def _lower_triangle(q, k):
    """(L, S) booleans: query i sees keys 0 to i."""
    return np.arange(q.shape[-2], like=q)[:, None] >= np.arange(k.shape[-2], like=q)


class KVCache:
    """The keys and values of one attention layer for the positions so far, in buffers that never move.

    `append` takes those of the new positions, (B, H, L, D), and returns all so far, (B, H, S, D). For inference only.
    """

    def __init__(self, capacity):
        require_positive(capacity=capacity)
        self.capacity = capacity
        self.length = 0
        self.keys = self.values = None

    def append(self, key, value):
        if autograd.grad_mode.enabled and (key.requires_grad or value.requires_grad):
            raise RuntimeError("A KVCache keeps no graph. Generate inside no_grad().")
        batch, heads, new, width = key.shape
        if self.keys is not None and (batch, heads, width) != (*self.keys.shape[:2], self.keys.shape[3]):
            raise ValueError(
                f"The cache goes on with keys of shape {self.keys.shape[:2]} + (new, {self.keys.shape[3]}), but got "
                f"{key.shape}. Use a new cache for other sequences."
            )
        end = self.length + new
        if end > self.capacity:
            raise ValueError(f"The cache holds {self.capacity} positions, but {end} are needed.")
        if self.keys is None:
            self.keys = np.empty((batch, heads, self.capacity, width), key.dtype, like=key.data)
            self.values = np.empty_like(self.keys)
        self.keys[:, :, self.length : end] = key.data
        self.values[:, :, self.length : end] = value.data
        self.length = end
        return wrap(self.keys[:, :, :end]), wrap(self.values[:, :, :end])


class MultiHeadAttention(Module):
    """H attentions side by side, each on its own projection of width E / H: (B, L, E) to (B, L, E).

    Queries, keys and values have projections of their own. Initialised as torch.nn.MultiheadAttention, whose state
    dict (with the three stacked in `in_proj_weight`) loads too.
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, generator=None):
        require_positive(embed_dim=embed_dim, num_heads=num_heads)
        require_probability(dropout)
        if embed_dim % num_heads:
            raise ValueError(
                f"MultiHeadAttention needs embed_dim divisible by num_heads, but got {embed_dim} and {num_heads}."
            )
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Linear(embed_dim, embed_dim, bias, generator) for _ in range(4)
        )
        for proj in (self.q_proj, self.k_proj, self.v_proj):  # Glorot and Bengio 2010, over all three stacked
            bound = math.sqrt(6 / (embed_dim + 3 * embed_dim))
            proj.weight = Parameter(uniform((embed_dim, embed_dim), bound, generator))
        for proj in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            proj.bias = Parameter(zeros(embed_dim)) if bias else None

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
        is_causal: position i sees 0 to i. need_weights: return (output, weights (B, H, L, S)).
        cache: a KVCache; the new positions then also see those in it.
        """
        key = query if key is None else key
        value = key if value is None else value
        for x in (query, key, value):
            if x.ndim != 3 or x.shape[-1] != self.embed_dim:
                raise ValueError(
                    f"MultiHeadAttention({self.embed_dim}, {self.num_heads}) needs inputs of shape "
                    f"(batch, time, {self.embed_dim}), but got {x.shape}."
                )
        if attn_mask is not None:
            _require_mask("attn_mask", attn_mask, "bf")
        if key_padding_mask is not None:
            _require_mask("key_padding_mask", key_padding_mask, "b")
            expected = (len(key), key.shape[1] + (cache.length if cache is not None else 0))
            if key_padding_mask.shape != expected:
                raise ValueError(f"key_padding_mask needs shape {expected}, but got {key_padding_mask.shape}.")
        q = split_heads(self.q_proj(query), self.num_heads)  # (B, H, L, D)
        k = split_heads(self.k_proj(key), self.num_heads)  # (B, H, S, D)
        v = split_heads(self.v_proj(value), self.num_heads)
        if cache is not None:
            k, v = cache.append(k, v)
        mask = self._visible(q, k, key_padding_mask, attn_mask, is_causal and cache is not None)
        is_causal = is_causal and cache is None
        dropped = self.dropout if self.training else 0.0
        if need_weights:
            weights = dropout(attention_weights(q, k, mask, is_causal), dropped)
            return self.out_proj(join_heads(weights @ v)), weights
        return self.out_proj(join_heads(scaled_dot_product_attention(q, k, v, mask, dropped, is_causal)))

    @staticmethod
    def _visible(q, k, key_padding_mask, attn_mask, causal_after_cache):
        """One mask for `scaled_dot_product_attention` (true: may attend) out of all that were given, or None."""
        masks = []
        if key_padding_mask is not None:
            masks.append(~key_padding_mask.reshape(len(key_padding_mask), 1, 1, -1))  # (B, 1, 1, S)
        if causal_after_cache and q.shape[-2] > 1:
            masks.append(Tensor(np.tri(q.shape[-2], k.shape[-2], k.shape[-2] - q.shape[-2], dtype=bool)).to(q.device))
        if attn_mask is not None and attn_mask.dtype == bool:
            masks.append(~attn_mask)
        visible = functools.reduce(operator.and_, masks) if masks else None
        if attn_mask is None or attn_mask.dtype == bool:
            return visible
        return attn_mask if visible is None else where(visible, attn_mask, -math.inf)

    def adapt_state_dict(self, state_dict, prefix=""):
        for kind in ("weight", "bias"):
            stacked = state_dict.pop(f"{prefix}in_proj_{kind}", None)
            if stacked is not None:
                for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
                    state_dict[f"{prefix}{name}.{kind}"] = stacked[i * self.embed_dim : (i + 1) * self.embed_dim]
        return state_dict

    def extra_repr(self):
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
