"""Mamba: a language model whose memory of the past is a state of fixed size (Gu and Dao 2023, arXiv:2312.00752).

The parts, then the whole. Names, shapes and initialisation are those of Hugging Face's MambaForCausalLM, so weights
travel both ways.

Letters: B batch, T time, C channels of the stream (d_model), E channels inside (d_inner), N numbers of state for each
of them (d_state), R rank of the step size (dt_rank), K taps of the convolution (d_conv), V vocabulary.
"""

import math

import numpy as np

from ..activations import silu, softplus
from ..autograd import grad_mode
from ..convolutions import Conv1d
from ..embeddings import Embedding
from ..layers import Linear, Module, ModuleList, Parameter, uniform
from ..tensor import Tensor, arange, ones, rand, randn
from ..training import Recomputable
from ..transformers import Generation, Pretrained, RMSNorm
from ..transformers.gpt import require_documents
from .config import MambaConfig
from .convolution import causal_conv1d
from .formats import FORMATS
from .scan import selective_scan


class MambaCache:
    """All that one layer remembers, of a size that does not grow: the last inputs of its convolution, and its state.

    `window` (B, K - 1, E) and `state` (B, E, N) are arrays, or None before the first token; `length` is how many tokens
    there were.
    """

    def __init__(self):
        self.window = self.state = None
        self.length = 0

    def update(self, window, state, new):
        """Remember this window and state, `new` tokens later."""
        self.window, self.state, self.length = window, state, self.length + new

    def reorder(self, rows):
        """Let row i go on from what was row rows[i], as in a beam search."""
        if self.state is not None:
            self.window, self.state = self.window[rows], self.state[rows]

    @property
    def nbytes(self):
        """Bytes that are held."""
        return 0 if self.state is None else self.window.nbytes + self.state.nbytes


class MambaMixer(Module):
    """What mixes along time in a Mamba block: (B, T, C) to (B, T, C). Source: arXiv:2312.00752, section 3.4, figure 3.

    Half of what in_proj makes goes through a short convolution and the selective scan; the other half is its gate.
    """

    def __init__(self, config, generator=None):
        self.config = config
        inner, state, rank = config.d_inner, config.d_state, config.rank
        self.in_proj = Linear(config.d_model, 2 * inner, config.bias, generator=generator)
        self.conv1d = Conv1d(
            inner, inner, config.d_conv, groups=inner, bias=config.conv_bias, generator=generator
        )  # a depthwise one, which `causal_conv1d` computes
        self.x_proj = Linear(inner, rank + 2 * state, bias=False, generator=generator)
        self.dt_proj = Linear(rank, inner, generator=generator)
        self.A_log = Parameter(arange(1, state + 1).float().log().expand(inner, state).clone())  # A = -1, -2, ..., -N
        self.D = Parameter(ones(inner))
        self.out_proj = Linear(inner, config.d_model, config.bias, generator=generator)
        self._initialise(generator)

    def _initialise(self, generator):
        """Step sizes begin between dt_min and dt_max, and out_proj smaller by sqrt(n_layers).

        So the stream gets as much from many layers as from one.
        """
        config = self.config
        bound = config.rank**-0.5 * config.dt_scale
        self.dt_proj.weight.data[...] = uniform(self.dt_proj.weight.shape, bound, generator).data
        bias = step_size_bias(config.d_inner, config.dt_min, config.dt_max, config.dt_init_floor, generator=generator)
        self.dt_proj.bias.data[...] = bias.data
        self.out_proj.weight.data /= math.sqrt(config.n_layers)

    def forward(self, x, cache=None, padding=None, documents=None):
        """x (B, T, C). cache: a MambaCache, behind which x goes on. padding (B, T): true where a token is none.

        documents (B, T): which document of its row a token belongs to; neither convolution nor state crosses over.
        """
        if cache is not None and cache.state is not None and x.shape[1] == 1 and padding is None:
            return self.step(x, cache)
        xi, z = self.in_proj(x).chunk(2, dim=-1)  # (B, T, E) each
        xi = _without(xi, padding)
        u, window = self._convolve(xi, cache, padding, documents)
        u = _without(silu(u), padding)  # again: the bias of the convolution is there also where no token is
        delta, B, C = self._select(u)
        delta = _without(delta, padding)  # a step of size 0 leaves the state as it is
        A, starts = -self.A_log.exp(), None if documents is None else _starts(documents)
        if cache is None:
            y = selective_scan(u, delta, A, B, C, self.D, z, starts=starts)
        else:
            before = None if cache.state is None else Tensor(cache.state)
            y, state = selective_scan(u, delta, A, B, C, self.D, z, before, starts, return_last_state=True)
            cache.update(window, state.data, x.shape[1])
        return self.out_proj(y)  # (B, T, C)

    def _convolve(self, xi, cache, padding, documents):
        """The convolution of xi (B, T, E) behind the cache, and the next window (B, K - 1, E), an array."""
        weight, bias, kept = self.conv1d.weight, self.conv1d.bias, self.config.d_conv - 1
        if cache is None:
            return causal_conv1d(xi, weight, bias, documents), None
        batch, time, inner = xi.shape
        before = cache.window
        if before is None:
            before = np.zeros_like(xi.data, shape=(batch, kept, inner))
        behind = np.concatenate([before, xi.data], axis=1)  # (B, K - 1 + T, E)
        if padding is None:
            return causal_conv1d(Tensor(behind), weight, bias)[:, kept:], behind[:, time:].copy()
        # the taps reach over padding to the tokens before it: it is moved to the front, and back behind the convolution
        tokens = np.concatenate([np.ones_like(padding.data, shape=(batch, kept)), ~padding.data], axis=1)
        order = np.argsort(tokens, axis=1, kind="stable")[:, :, None]
        moved = np.take_along_axis(behind, order, axis=1)
        y = np.take_along_axis(causal_conv1d(Tensor(moved), weight, bias).data, np.argsort(order, axis=1), axis=1)
        return Tensor(y[:, kept:]), moved[:, time:].copy()

    def _select(self, u):
        """What this token does to the state, from u (B, T, E): step sizes (B, T, E), and B and C (B, T, N)."""
        rank, state = self.config.rank, self.config.d_state
        low, B, C = self.x_proj(u).split([rank, state, state], dim=-1)
        return softplus(self.dt_proj(low)), B, C

    def step(self, x, cache):
        """One more token, x (B, 1, C), behind a cache that `forward` has begun: the recurrence, at a price that stays.

        For inference: no graph is recorded.
        """
        xi, z = self.in_proj(x).chunk(2, dim=-1)  # (B, 1, E)
        window = np.concatenate([cache.window, xi.data], axis=1)  # (B, K, E)
        u = np.einsum("bke,ek->be", window, self.conv1d.weight.data[:, 0])
        u = u if self.conv1d.bias is None else u + self.conv1d.bias.data
        u = silu(Tensor(u[:, None]))  # (B, 1, E)
        delta, B, C = self._select(u)
        step = delta.data[:, 0, :, None]  # (B, E, 1)
        state = np.exp(step * -np.exp(self.A_log.data)) * cache.state  # (B, E, N)
        state += step * u.data[:, 0, :, None] * B.data
        y = np.matmul(state, C.data.swapaxes(1, 2))[:, None, :, 0] + self.D.data * u.data  # (B, 1, E)
        cache.update(window[:, 1:].copy(), state, 1)
        return self.out_proj(Tensor(y) * silu(z))


def step_size_bias(n, dt_min=0.001, dt_max=0.1, floor=1e-4, generator=None):
    """n numbers whose softplus are step sizes from dt_min to dt_max, as many in each decade, and at least `floor`.

    Source: arXiv:2312.00752, section 3.6.
    """
    low, high = math.log(dt_min), math.log(dt_max)
    dt = np.maximum(np.exp(low + (high - low) * rand(n, generator=generator).data), floor)
    return Tensor(dt + np.log(-np.expm1(-dt)))  # the inverse of softplus, exact where dt is small


def _without(x, padding):
    """x (B, T, E) with zeros where `padding` (B, T) is true."""
    return x if padding is None else x.masked_fill(padding.unsqueeze(-1), 0.0)


def _has_gaps(padding):
    """Whether a row of `padding` (B, T) has some between two tokens."""
    tokens = (~padding.data).astype(int)
    before, after = np.cumsum(tokens, axis=1), np.cumsum(tokens[:, ::-1], axis=1)[:, ::-1]
    return bool((padding.data & (before > 0) & (after > 0)).any())


def _starts(documents):
    """(B, T) booleans: where a document begins that is not the first of its row."""
    starts = np.zeros_like(documents.data, dtype=bool)
    starts[:, 1:] = documents.data[:, 1:] != documents.data[:, :-1]
    return Tensor(starts)


class MambaBlock(Recomputable, Module):
    """One layer: a norm and a mixer beside the stream."""

    def __init__(self, config, generator=None):
        self.norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.mixer = MambaMixer(config, generator)

    def forward(self, x, cache=None, padding=None, documents=None):
        """The stream x (B, T, C) with what the mixer makes of a normalised copy of it; the rest is the mixer's."""
        return x + self.mixer(self.norm(x), cache, padding, documents)


class Backbone(Module):
    """Ids (B, T) to the normalised stream (B, T, C): embedding, blocks, and a last norm. There are no positions."""

    def __init__(self, config, generator=None):
        self.embeddings = Embedding(config.vocab_size, config.d_model, generator=generator)
        scale = config.initializer_range
        self.embeddings.weight.data[...] = randn(*self.embeddings.weight.shape, generator=generator).data * scale
        self.layers = ModuleList(MambaBlock(config, generator) for _ in range(config.n_layers))
        self.norm_f = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, ids, cache=None, padding=None, documents=None):
        """ids (B, T) to (B, T, C); cache is a list of one MambaCache for each block, the rest as for a mixer."""
        x = self.embeddings(ids)  # (B, T, C)
        for i, block in enumerate(self.layers):
            x = block(x, cache[i] if cache else None, padding, documents)
        return self.norm_f(x)


class Mamba(Generation, Pretrained, Module):
    """A language model: ids (B, T) to logits (B, T, V), each position knowing those before it by the state alone."""

    config_class, formats = MambaConfig, FORMATS
    no_decay = ("A_log", "D", "dt_proj.bias")  # ends of the names of parameters that weight decay must leave alone

    def __init__(self, config, generator=None):
        self.config = config
        self.backbone = Backbone(config, generator)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False, generator=generator)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.backbone.embeddings.weight

    def forward(self, ids, key_padding_mask=None, cache=None, documents=None):
        """Logits (B, T, V) for ids (B, T), at least one position.

        key_padding_mask (B, T): true at padding, which leaves the state as it is. cache: from `new_cache`; ids then go
        on where it ends, and of a longer mask the last T columns count. documents (B, T): several in a row, each of
        which begins from nothing. Raises ValueError for other shapes and for documents with a cache, RuntimeError for
        a cache while a graph is recorded.
        """
        self._require_inputs(ids, key_padding_mask, cache, documents)
        padding = key_padding_mask
        if padding is not None:
            padding = padding[:, -ids.shape[1] :]
            padding = padding if padding.any() else None
        return self.lm_head(self.backbone(ids, cache, padding, documents))  # (B, T, V)

    def _require_inputs(self, ids, key_padding_mask, cache, documents):
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"Mamba needs ids of shape (batch, time) with at least one position, but got {ids.shape}.")
        if documents is not None:
            require_documents(documents, ids, cache)
        if key_padding_mask is not None:
            shape = key_padding_mask.shape
            if key_padding_mask.dtype != bool or len(shape) != 2 or shape[0] != len(ids) or shape[1] < ids.shape[1]:
                raise ValueError(
                    f"Mamba needs a boolean key_padding_mask of shape {ids.shape}, true at padding, but got "
                    f"{key_padding_mask.dtype} of {shape}."
                )
            if cache is None and _has_gaps(key_padding_mask):
                raise ValueError(
                    "Mamba needs padding at the ends of a row, but got some between tokens, which the convolution "
                    "would read as tokens. Move the tokens together."
                )
        if cache is None:
            return
        if grad_mode.enabled:
            raise RuntimeError("A MambaCache keeps no graph. Generate inside no_grad().")
        held = cache[0].state if cache else None
        if len(cache) != self.config.n_layers or (held is not None and len(held) != len(ids)):
            raise ValueError(
                f"The cache is of {len(cache)} layers and {0 if held is None else len(held)} sequences, but the model "
                f"has {self.config.n_layers} and got {len(ids)}. Use a new_cache() for other sequences."
            )

    def new_cache(self):
        """An empty MambaCache for each layer."""
        return [MambaCache() for _ in self.backbone.layers]
