"""The transformer that writes: its blocks, and the whole, which is GPT-2, Llama or between, as its configuration says.

Letters: B batch, T time, C channels (n_embd), V vocabulary.
"""

import dataclasses
import math

import numpy as np

from ..attention import KVCache, MultiHeadAttention
from ..embeddings import Embedding, Rotary
from ..layers import Dropout, Linear, Module, ModuleList, require_positive
from ..losses import cross_entropy
from ..tensor import Tensor, randn
from ..training import Recomputable
from .feedforward import MLP, SwiGLU
from .formats import FORMATS
from .generation import Generation
from .norms import LayerNorm, RMSNorm
from .pretrained import Pretrained


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT, with the names of Hugging Face's GPT-2 configuration. The defaults are GPT-2's.

    n_positions: the longest sequence; n_inner: width inside the MLP (default 4 n_embd, or 8/3 n_embd for "swiglu",
    which then has as many weights); layer_norm_epsilon: of either norm; tie_word_embeddings: the output head is the
    token embedding; n_kv_head: heads of keys and values (default n_head); head_dim: width of a head (default
    n_embd / n_head); norm: "layer_norm" or "rms_norm"; positions: "learned" vectors, or "rotary" angles of base
    rope_theta; mlp: "gelu" or "swiglu"; bias: of linear layers and of layer_norm; sliding_window: how many positions
    each one sees, itself among them (default all before it). Raises ValueError, naming the field, for what cannot be.
    """

    vocab_size: int
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    dropout: float = 0.0
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    n_kv_head: int | None = None
    head_dim: int | None = None
    norm: str = "layer_norm"
    positions: str = "learned"
    rope_theta: float = 10000.0
    mlp: str = "gelu"
    bias: bool = True
    sliding_window: int | None = None

    def __post_init__(self):
        sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        require_positive(**{name: getattr(self, name) for name in sizes})
        given = {name: getattr(self, name) for name in ("n_inner", "n_kv_head", "head_dim", "sliding_window")}
        require_positive(**{name: size for name, size in given.items() if size is not None})
        choices = {"norm": NORMS, "positions": ("learned", "rotary"), "mlp": MLPS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"GPTConfig needs {name} to be one of {list(known)}, but got {getattr(self, name)!r}.")
        if self.n_embd % self.n_head:
            raise ValueError(f"GPTConfig needs n_embd divisible by n_head, but got {self.n_embd} and {self.n_head}.")
        if self.n_kv_head and self.n_head % self.n_kv_head:
            raise ValueError(
                f"GPTConfig needs n_head divisible by n_kv_head, but got {self.n_head} and {self.n_kv_head}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig needs dropout of at least 0 and below 1, but got {self.dropout}.")
        for name in ("layer_norm_epsilon", "initializer_range"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"GPTConfig needs {name} of at least 0 and finite, but got {getattr(self, name)}.")
        if self.positions == "rotary" and (self.head_dim or self.n_embd // self.n_head) % 2:
            raise ValueError(
                f"Rotary positions need heads of even width, but n_embd={self.n_embd}, n_head={self.n_head} and "
                f"head_dim={self.head_dim} make an odd one."
            )
        if not 0 < self.rope_theta < math.inf:
            raise ValueError(f"GPTConfig needs rope_theta above 0, but got {self.rope_theta}.")

    @classmethod
    def gpt2(cls, **changes):
        """GPT-2's smallest model (Radford et al. 2019), 124 million parameters, with `changes`: gpt2(n_layer=2)."""
        return cls(**{"vocab_size": 50257, "tie_word_embeddings": True, **changes})

    @classmethod
    def llama(cls, **changes):
        """Llama 2's smallest model (Touvron et al. 2023, arXiv:2307.09288), 7 billion parameters, with `changes`."""
        shape = {"vocab_size": 32000, "n_positions": 4096, "n_embd": 4096, "n_layer": 32, "n_head": 32}
        parts = {"norm": "rms_norm", "positions": "rotary", "mlp": "swiglu", "bias": False}
        inner = {} if "n_embd" in changes else {"n_inner": 11008}
        return cls(**{**shape, **parts, **inner, **changes})


NORMS = {"layer_norm": LayerNorm, "rms_norm": RMSNorm}
MLPS = {"gelu": MLP, "swiglu": SwiGLU}


def norm_of(config):
    """The normalisation that a GPTConfig asks for."""
    if config.norm == "rms_norm":
        return RMSNorm(config.n_embd, config.layer_norm_epsilon)
    return LayerNorm(config.n_embd, config.layer_norm_epsilon, bias=config.bias)


class Block(Recomputable, Module):
    """Attention across positions, then the MLP within each; both read a normalised copy and add to the stream.

    rotary: the Rotary of the model, where positions are angles.
    """

    def __init__(self, config, generator=None, rotary=None):
        self.ln_1 = norm_of(config)
        self.attn = MultiHeadAttention(
            config.n_embd,
            config.n_head,
            config.dropout,
            config.bias,
            num_kv_heads=config.n_kv_head,
            head_dim=config.head_dim,
            window=config.sliding_window,
            rotary=rotary,
            generator=generator,
        )
        self.ln_2 = norm_of(config)
        self.mlp = MLPS[config.mlp](config.n_embd, config.n_inner, config.dropout, config.bias, generator=generator)
        self.dropout = Dropout(config.dropout)

    def forward(self, x, key_padding_mask=None, cache=None, attn_mask=None):
        """The stream x (B, T, C) with what causal attention and the MLP add to it, (B, T, C).

        Masks and cache are those of MultiHeadAttention. What comes out of attention goes through dropout.
        """
        masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}
        attended = self.attn(self.ln_1(x), **masks, is_causal=True, cache=cache)
        x = x + self.dropout(attended)
        return x + self.mlp(self.ln_2(x))


class GPT(Generation, Pretrained, Module):
    """A language model: ids (B, T) to logits (B, T, V), each position seeing those up to itself.

    Weights start as in GPT-2: N(0, 0.02), the projections into the residual stream smaller by sqrt(2 n_layer). They are
    read from and written as those of GPT-2, Llama and Mistral (Llama with a sliding window).
    """

    config_class, formats = GPTConfig, FORMATS

    def __init__(self, config, generator=None):
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd, generator=generator)
        learned = config.positions == "learned"
        self.wpe = Embedding(config.n_positions, config.n_embd, generator=generator) if learned else None
        self.dropout = Dropout(config.dropout)
        head_dim = config.head_dim or config.n_embd // config.n_head
        rotary = None if learned else Rotary(head_dim, config.rope_theta)
        self.h = ModuleList(Block(config, generator, rotary) for _ in range(config.n_layer))
        self.ln_f = norm_of(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, generator=generator)
        self._initialise(generator)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight

    def _initialise(self, generator):
        """Give every parameter its first value, in place and in the order of `named_parameters`.

        Biases are 0. Matrices come from N(0, initializer_range), those that write into the stream from one that is
        smaller by sqrt(2 n_layer). Weights of norms stay 1.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                parameter.data[...] = 0
            elif parameter.ndim == 2:
                std = self.config.initializer_range
                if name.endswith(("out_proj.weight", "c_proj.weight", "down_proj.weight")):
                    std /= math.sqrt(2 * self.config.n_layer)
                parameter.data[...] = randn(*parameter.shape, generator=generator).data * std

    def forward(self, ids, key_padding_mask=None, cache=None, documents=None):
        """Logits (B, T, V) for ids (B, T).

        key_padding_mask (B, T): true at padding, which is never attended to; positions count from the first token
        behind padding on the left. cache: from `new_cache`; ids then go on where the cache ends, and key_padding_mask
        covers what is in it, too. documents (B, T): the number of the document that a position belongs to, where rows
        hold several; none sees another, and positions count from the beginning of each. Raises ValueError for other
        shapes, for more than n_positions positions, and for documents with a cache.
        """
        positions, attn_mask = self._places(ids, key_padding_mask, cache, documents)
        x = self.wte(ids)  # (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe(positions)
        x = self.dropout(x)
        for i, block in enumerate(self.h):
            x = block(x, key_padding_mask, cache[i] if cache else None, attn_mask)
        return self.lm_head(self.ln_f(x))  # (B, T, V)

    def _places(self, ids, key_padding_mask, cache, documents):
        """The position of each of ids, (T,) or (B, T), and what of the past is forbidden, (B, 1, T, T), or None."""
        start, end = self._span(ids, cache)
        positions = np.arange(start, end, like=ids.data)
        if key_padding_mask is not None and key_padding_mask.shape != (len(ids), end):
            raise ValueError(f"key_padding_mask needs shape {(len(ids), end)}, but got {key_padding_mask.shape}.")
        if key_padding_mask is not None and key_padding_mask.data[:, 0].any():
            padding = np.cumprod(key_padding_mask.data, axis=1).sum(axis=1, keepdims=True)  # on the left, (B, 1)
            positions = np.maximum(positions - padding, 0)  # (B, T)
        if documents is None:
            return Tensor(positions), None
        require_documents(documents, ids, cache)
        same = documents.data[:, :, None] == documents.data[:, None, :]  # (B, T, T)
        within = np.tril(same).sum(axis=-1) - 1  # how many of the document came before, (B, T)
        return Tensor(np.minimum(positions, within)), Tensor(~same[:, None])

    def _span(self, ids, cache):
        """(start, end) of the positions of ids (B, T), behind those in the cache. Raises ValueError as `forward`."""
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"GPT needs ids of shape (batch, time) with at least one position, but got {ids.shape}.")
        start = cache[0].length if cache else 0
        end = start + ids.shape[1]
        if end > self.config.n_positions:
            raise ValueError(
                f"This GPT sees n_positions={self.config.n_positions} positions, but got a sequence of {end}. "
                "Shorten it, or build the model with more positions."
            )
        return start, end

    def new_cache(self):
        """An empty KVCache for each layer."""
        return [KVCache(self.config.n_positions) for _ in self.h]


def require_documents(documents, ids, cache):
    """Raise ValueError unless documents (B, T) say of each of ids which document of its row it belongs to."""
    if documents.shape != ids.shape or documents.dtype.kind not in "iu" or cache:
        raise ValueError(
            f"documents needs integers of the shape of ids, {ids.shape}, and no cache, but got {documents.dtype} "
            f"of {documents.shape}{' with a cache' if cache else ''}. Generate from one document a row."
        )
    if (documents.data[:, 1:] < documents.data[:, :-1]).any():
        raise ValueError(
            "documents needs numbers that do not fall along a row, as 0, 0, 1, 1, 2: a document is in one piece. Count "
            "them up from left to right."
        )


# ---- learning from text


def next_token_loss(model, ids, pad_id=None):
    """(mean loss, count): the surprise at each next token of ids (B, T), and how many tokens that is the mean of.

    Padding on the right is neither attended to nor counted; without a `pad_id` there is none. The loss is a tensor, the
    count a number.
    """
    inputs, targets = ids[:, :-1], ids[:, 1:]  # (B, T - 1)
    if pad_id is None:
        return cross_entropy(model(inputs).flatten(0, 1), targets.flatten()), targets.numel()
    logits = model(inputs, key_padding_mask=inputs == pad_id)  # (B, T - 1, V)
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad_id)
    return loss, (targets != pad_id).sum().item()
