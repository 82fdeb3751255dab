"""Module 13: the transformer, from its parts to GPT-2's shape (Radford et al. 2019; Vaswani et al. 2017).

Letters: B batch, T time, C channels (n_embd), V vocabulary.
"""

import dataclasses
import math

import numpy as np

from . import device as devices
from .activations import gelu
from .attention import KVCache, MultiHeadAttention
from .autograd import no_grad
from .embeddings import Embedding
from .layers import Dropout, Linear, Module, ModuleList, Parameter, evaluating, require_positive
from .losses import cross_entropy
from .tensor import Tensor, cat, ones, op, randn, tensor, zeros

# ---- layer normalisation (Ba et al. 2016, arXiv:1607.06450)


def layer_norm_composed(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """`layer_norm` in primitive operations."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    y = centred / ((centred * centred).mean(dims, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Shift and scale the last axes to mean 0 and variance 1, then by `weight` and `bias` of that shape."""
    normalized_shape = tuple(normalized_shape)
    if x.shape[-len(normalized_shape) :] != normalized_shape:
        raise ValueError(f"layer_norm needs inputs that end in {normalized_shape}, but got shape {x.shape}.")
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and given.shape != normalized_shape:
            raise ValueError(f"layer_norm needs a {name} of shape {normalized_shape}, but got {given.shape}.")
    return _layer_norm(x, weight, bias, n=math.prod(normalized_shape), eps=eps)


@op
def _layer_norm(x, weight, bias, *, n, eps):
    mean = np.full(n, 1 / n, x.dtype, like=x)  # a product with it is the mean of each row, faster than np.mean
    rows = x.reshape(-1, n)
    normal = rows - (rows @ mean)[:, None]
    inverse = 1 / np.sqrt((normal * normal) @ mean + eps)[:, None]  # 1 / standard deviation
    normal *= inverse
    y = normal if weight is None else normal * weight.reshape(-1)
    y = y if bias is None else y + bias.reshape(-1)

    def grad_x(g):
        d = g.reshape(-1, n)
        d = d * weight.reshape(-1) if weight is not None else d
        dx = d - (d @ mean)[:, None]
        dx -= normal * ((d * normal) @ mean)[:, None]
        dx *= inverse
        return dx.reshape(x.shape)

    def grad_weight(g):
        return np.einsum("ij,ij->j", g.reshape(-1, n), normal).reshape(weight.shape)

    def grad_bias(g):
        return (np.ones(len(rows), g.dtype, like=g) @ g.reshape(-1, n)).reshape(bias.shape)

    return y.reshape(x.shape), (grad_x, grad_weight, grad_bias)


class LayerNorm(Module):
    """`layer_norm` over the last axes, `normalized_shape` (an integer or a tuple); weight starts at 1, bias at 0."""

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        require_positive(**{f"normalized_shape[{i}]": size for i, size in enumerate(shape)})
        self.normalized_shape, self.eps = shape, eps
        self.weight = Parameter(ones(*shape)) if elementwise_affine else None
        self.bias = Parameter(zeros(*shape)) if elementwise_affine and bias else None

    def forward(self, x):
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}"


# ---- the parts of a GPT


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT, with the names of Hugging Face's GPT-2 configuration.

    n_positions: the longest sequence; n_inner: width inside the MLP (default 4 n_embd); tie_word_embeddings: the
    output head is the token embedding. Raises ValueError, naming the field, for sizes that cannot be.
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

    def __post_init__(self):
        sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        require_positive(**{name: getattr(self, name) for name in sizes})
        if self.n_inner is not None:
            require_positive(n_inner=self.n_inner)
        if self.n_embd % self.n_head:
            raise ValueError(f"GPTConfig needs n_embd divisible by n_head, but got {self.n_embd} and {self.n_head}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig needs dropout of at least 0 and below 1, but got {self.dropout}.")


class MLP(Module):
    """Two linear layers with GELU between them, on each position alone: (B, T, C) to (B, T, C)."""

    def __init__(self, n_embd, n_inner=None, dropout=0.0, generator=None):
        self.c_fc = Linear(n_embd, n_inner or 4 * n_embd, generator=generator)
        self.c_proj = Linear(n_inner or 4 * n_embd, n_embd, generator=generator)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(gelu(self.c_fc(x), approximate="tanh")))


class Block(Module):
    """Attention across positions, then the MLP within each; both read a normalised copy and add to the stream."""

    def __init__(self, config, generator=None):
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = MultiHeadAttention(config.n_embd, config.n_head, config.dropout, generator=generator)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config.n_embd, config.n_inner, config.dropout, generator)
        self.dropout = Dropout(config.dropout)

    def forward(self, x, key_padding_mask=None, cache=None):
        attended = self.attn(self.ln_1(x), key_padding_mask=key_padding_mask, is_causal=True, cache=cache)
        x = x + self.dropout(attended)
        return x + self.mlp(self.ln_2(x))


class GPT(Module):
    """A language model of GPT-2's shape: ids (B, T) to logits (B, T, V), each position seeing those up to itself.

    Weights start as in GPT-2: N(0, 0.02), the projections into the residual stream smaller by sqrt(2 n_layer).
    """

    def __init__(self, config, generator=None):
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd, generator=generator)
        self.wpe = Embedding(config.n_positions, config.n_embd, generator=generator)
        self.dropout = Dropout(config.dropout)
        self.h = ModuleList(Block(config, generator) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, generator=generator)
        self._initialise(generator)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight

    def _initialise(self, generator):
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                parameter.data[...] = 0
            elif parameter.ndim == 2:
                std = self.config.initializer_range
                if name.endswith(("out_proj.weight", "c_proj.weight")):
                    std /= math.sqrt(2 * self.config.n_layer)
                parameter.data[...] = randn(*parameter.shape, generator=generator).data * std

    def forward(self, ids, key_padding_mask=None, cache=None):
        """Logits (B, T, V) for ids (B, T).

        key_padding_mask (B, T): true at padding, which is never attended to. cache: from `new_cache`; ids then go on
        where the cache ends. Raises ValueError for other shapes and for more than n_positions positions.
        """
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"GPT needs ids of shape (batch, time) with at least one position, but got {ids.shape}.")
        start = cache[0].length if cache else 0
        end = start + ids.shape[1]
        if end > self.config.n_positions:
            raise ValueError(
                f"This GPT sees n_positions={self.config.n_positions} positions, but got a sequence of {end}. "
                "Shorten it, or build the model with more positions."
            )
        x = self.wte(ids) + self.wpe.weight[start:end]  # (B, T, C)
        x = self.dropout(x)
        for i, block in enumerate(self.h):
            x = block(x, key_padding_mask, cache[i] if cache else None)
        return self.lm_head(self.ln_f(x))  # (B, T, V)

    def num_parameters(self):
        return sum(parameter.numel() for parameter in self.parameters())

    def new_cache(self):
        """An empty KVCache for each layer."""
        return [KVCache(self.config.n_positions) for _ in self.h]

    def generate(self, ids, max_new_tokens, use_cache=True, **sampling):
        """ids (B, T) and what follows, (B, T + new), as `stream` samples it."""
        new = [Tensor(step[:, None]).to(ids.device) for step in self.stream(ids, max_new_tokens, use_cache, **sampling)]
        return cat([ids, *new], dim=1)

    def stream(
        self,
        ids,
        max_new_tokens,
        use_cache=True,
        temperature=1.0,
        top_k=None,
        top_p=None,
        stop_tokens=(),
        generator=None,
    ):
        """Yield the next token of each sequence, a NumPy array (B,), until `max_new_tokens` or all have stopped.

        ids (B, T). temperature 0 is greedy; top_k and top_p limit the choice, see `sample`. A sequence stops after
        yielding one of `stop_tokens`, and repeats it while others go on. Dropout is off meanwhile.
        Raises ValueError where T + max_new_tokens exceeds n_positions, or a setting is out of range.
        """
        check_sampling(temperature, top_k, top_p)
        if max_new_tokens < 0 or ids.shape[-1] + max_new_tokens > self.config.n_positions:
            raise ValueError(
                f"A prompt of {ids.shape[-1]} and {max_new_tokens} new tokens need to fit into "
                f"n_positions={self.config.n_positions}. Shorten the prompt or ask for fewer tokens."
            )
        return self._stream(ids, max_new_tokens, use_cache, temperature, top_k, top_p, stop_tokens, generator)

    def _stream(self, ids, max_new_tokens, use_cache, temperature, top_k, top_p, stop_tokens, generator):
        cache = self.new_cache() if use_cache else None
        stopped, last, stop_tokens = np.zeros(len(ids), bool), None, np.array(list(stop_tokens), int)
        with evaluating(self):
            for _ in range(max_new_tokens):
                with no_grad():  # not around the yield: what the caller does there is recorded
                    logits = self(ids, cache=cache)[:, -1]
                new = sample(devices.to_numpy(logits.data), temperature, top_k, top_p, generator)
                last = new if last is None else np.where(stopped, last, new)
                yield last
                stopped |= (last[:, None] == stop_tokens).any(axis=1)
                if stopped.all():
                    return
                step = Tensor(last[:, None]).to(ids.device)
                ids = step if use_cache else cat([ids, step], dim=1)


# ---- learning from text and writing it


def next_token_loss(model, ids, pad_id):
    """(mean loss, count): the surprise at each next token of ids (B, T), and how many tokens that is the mean of.

    Padding on the right is neither attended to nor counted.
    """
    inputs, targets = ids[:, :-1], ids[:, 1:]  # (B, T - 1)
    logits = model(inputs, key_padding_mask=inputs == pad_id)  # (B, T - 1, V)
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad_id)
    return loss, (targets != pad_id).sum().item()


def complete(model, tokenizer, prompt, show=None, temperature=0.0, **sampling):
    """`prompt` and what the model writes after it, until the end token or the end of its context.

    show: called with each piece of text as it is written. sampling: the settings of `GPT.stream`. Raises ValueError for
    a prompt that is empty, unknown to the tokenizer, or longer than the context.
    """
    ids = tokenizer.encode(prompt)
    if not 0 < len(ids) <= model.config.n_positions:
        raise ValueError(f"A prompt needs 1 to {model.config.n_positions} tokens, but this one has {len(ids)}.")
    batch = tensor([ids], device=model.wte.weight.device)
    room = model.config.n_positions - len(ids)
    text = prompt
    for (token,) in model.stream(batch, room, stop_tokens=[tokenizer.end_id], temperature=temperature, **sampling):
        piece = tokenizer.decode([token])
        text += piece
        if show:
            show(piece)
    return text


# ---- choosing the next token


def check_sampling(temperature, top_k, top_p):
    """Raise ValueError for settings of `sample` out of range."""
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature needs a number of at least 0, but got {temperature}.")
    if top_k is not None:
        require_positive(top_k=top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p needs a number above 0 and at most 1, but got {top_p}.")


def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    """One token for each row of logits (B, V), NumPy arrays; temperature 0 takes the most likely.

    top_k keeps the k most likely; top_p then keeps the fewest whose probabilities sum to at least p (nucleus sampling,
    Holtzman et al. 2020, arXiv:1904.09751).
    """
    if np.isnan(logits).any():
        raise ValueError("sample got NaN among the logits. Was the model trained with a loss that became NaN?")
    if temperature == 0:
        return np.argmax(logits, axis=-1)
    order = np.argsort(-logits, axis=-1, kind="stable")
    ordered = np.take_along_axis(logits, order, axis=-1).astype(np.float64)
    with np.errstate(over="ignore"):  # at a temperature next to 0 all but the first become exp(-inf)
        p = np.exp((ordered - ordered[:, :1]) / temperature)
    if top_k is not None:
        p[:, top_k:] = 0
    p /= p.sum(axis=-1, keepdims=True)
    if top_p is not None:
        p[np.cumsum(p, axis=-1) - p >= top_p] = 0
        p /= p.sum(axis=-1, keepdims=True)
    draws = (generator or devices.default_generator).random(len(p))[:, None]
    place = np.minimum((np.cumsum(p, axis=-1) <= draws).sum(axis=-1), (p > 0).sum(axis=-1) - 1)
    return np.take_along_axis(order, place[:, None], axis=-1)[:, 0]
