"""Attention in many heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2).

Letters: B batch, H heads, H' heads of keys and values, L queries, S keys, D width of a head, E width of the model.
"""

import functools
import math
import operator

from ..layers import Linear, Module, Parameter, dropout, require_positive, require_probability, uniform
from ..tensor import Tensor, where, zeros
from .scaled_dot_product import (
    _causal,
    _repeat_heads,
    attention_weights,
    join_heads,
    require_causal,
    require_mask,
    scaled_dot_product_attention,
    split_heads,
)


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
        require_causal(self.window, is_causal)
        if attn_mask is not None:
            require_mask("attn_mask", attn_mask, "bf")
        if key_padding_mask is not None:
            require_mask("key_padding_mask", key_padding_mask, "b")
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
