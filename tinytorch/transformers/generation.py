"""Writing with a language model: choose a token from the logits, feed it back, and so on."""

import numbers
import sys

import numpy as np

from .. import device as devices
from ..autograd import no_grad
from ..layers import evaluating, require_positive
from ..tensor import Tensor, cat, tensor, zeros_like


class Generation:
    """The part of a language model that writes.

    The rest has config.vocab_size, config.n_positions (None: no limit), forward(ids, key_padding_mask=, cache=), and
    new_cache(), which is any object that forward knows how to go on from.
    """

    def generate(self, ids, max_new_tokens, use_cache=True, **sampling):
        """ids (B, T) and what follows, (B, T + new), as `stream` samples it and with what it raises."""
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
        *,
        repetition_penalty=1.0,
        key_padding_mask=None,
    ):
        """Yield the next token of each sequence, a NumPy array (B,), until `max_new_tokens` or all have stopped.

        ids (B, T). temperature 0 is greedy; top_k and top_p limit the choice, see `sample`. A sequence stops after
        yielding one of `stop_tokens`, and repeats it while others go on. Dropout is off while the model computes;
        between two tokens each module is in the mode that it was in.
        repetition_penalty: above 1, tokens that are there already become less likely, see `penalised`.
        key_padding_mask (B, T): prompts of unequal length are padded on the left; true at the padding.
        Raises ValueError where T + max_new_tokens exceeds n_positions, for a setting out of range or of another kind,
        and for padding elsewhere.
        """
        check_sampling(temperature, top_k, top_p, repetition_penalty)
        stop_tokens = _tokens(stop_tokens)
        require_room(self.config.n_positions, ids.shape[-1], max_new_tokens)
        if key_padding_mask is not None:
            _require_padding_on_the_left(ids, key_padding_mask)
        settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
        return self._stream(ids, key_padding_mask, max_new_tokens, use_cache, stop_tokens, repetition_penalty, settings)

    def _stream(self, ids, padding, max_new_tokens, use_cache, stop_tokens, repetition_penalty, settings):
        cache = self.new_cache() if use_cache else None
        inside, stopped, last, seen = list(self.modules()), np.zeros(len(ids), bool), None, None
        for _ in range(max_new_tokens):
            masks = {} if padding is None else {"key_padding_mask": padding}
            with evaluating(self, inside), no_grad():  # not around the yield: what happens there is the caller's
                logits = devices.to_numpy(self(ids, cache=cache, **masks)[:, -1].data)
            if repetition_penalty != 1:
                seen = _tokens_in(ids, padding, self.config.vocab_size) if seen is None else seen
                logits = penalised(logits, seen, repetition_penalty)
            new = sample(logits, **settings)
            last = new if last is None else np.where(stopped, last, new)
            yield last
            if stop_tokens:
                stopped |= np.isin(last, stop_tokens)
                if stopped.all():
                    return
            if seen is not None:
                seen[np.arange(len(last)), last] = True
            step = Tensor(last[:, None]).to(ids.device)
            ids = step if use_cache else cat([ids, step], dim=1)
            if padding is not None:  # it covers what is in the cache, too
                padding = cat([padding, zeros_like(step, dtype=bool)], dim=1)


def require_room(n_positions, length, max_new_tokens):
    """Raise ValueError unless a prompt of `length` and what is to follow fit into n_positions (None: no limit)."""
    if not _is_integer(max_new_tokens) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens needs an integer of at least 0, but got {max_new_tokens!r}.")
    if n_positions is not None and length + max_new_tokens > n_positions:
        raise ValueError(
            f"A prompt of {length} and {max_new_tokens} new tokens need to fit into n_positions={n_positions}. "
            "Shorten the prompt or ask for fewer tokens."
        )


def _tokens(stop_tokens):
    """A list of the ids in `stop_tokens`. Raises ValueError for what is none."""
    tokens = list(stop_tokens) if np.iterable(stop_tokens) else [None]
    if not all(map(_is_integer, tokens)):
        raise ValueError(f"stop_tokens needs a list of token ids, such as [1], but got {stop_tokens!r}.")
    return tokens


def _is_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _require_padding_on_the_left(ids, mask):
    if mask.shape != ids.shape or mask.dtype != bool:
        raise ValueError(
            f"key_padding_mask needs booleans of the shape of ids, {ids.shape}, but got {mask.dtype} of {mask.shape}."
        )
    padded = devices.to_numpy(mask.data)
    if padded[:, -1].any() or (padded[:, 1:] & ~padded[:, :-1]).any():
        raise ValueError(
            "Generation goes on behind the last column, so padding needs to be on the left of each prompt, but "
            "key_padding_mask is true behind a token. Move the padding to the front."
        )


def complete(model, tokenizer, prompt, show=None, temperature=0.0, max_new_tokens=None, **sampling):
    """`prompt` and what the model writes after it, until the end token, `max_new_tokens` or the end of its context.

    show: called with each piece of text as it is written. sampling: the settings of `Generation.stream`. Raises
    ValueError for a prompt that is empty, unknown to the tokenizer, or longer than the context, and as `stream` does.
    """
    written = []
    for piece in pieces(model, tokenizer, prompt, max_new_tokens, temperature=temperature, **sampling):
        written.append(piece)
        if show:
            show(piece)
    return prompt + "".join(written)


def pieces(model, tokenizer, prompt, max_new_tokens=None, on_token=None, **sampling):
    """An iterator over what `complete` writes, piece by piece: a character of several tokens comes when it is whole.

    on_token: called after each token.
    """
    ids, limit = tokenizer.encode(prompt), model.config.n_positions
    if not ids or (limit is not None and len(ids) > limit):
        most = "at least 1 token" if limit is None else f"1 to {limit} tokens"
        raise ValueError(f"A prompt needs {most}, but this one has {len(ids)}.")
    if max_new_tokens is None and limit is None:
        raise ValueError("This model has no longest text. Pass max_new_tokens, so that it comes to an end.")
    batch = tensor([ids], device=next(iter(model.parameters())).device)
    room = limit - len(ids) if max_new_tokens is None else max_new_tokens
    return _pieces(model.stream(batch, room, stop_tokens=[tokenizer.end_id], **sampling), tokenizer, on_token)


def _pieces(stream, tokenizer, on_token):
    new, written, shown = [], "", 0
    for (token,) in stream:
        if on_token:
            on_token()
        new.append(token)
        written = tokenizer.decode(new)
        if ends_whole(written):
            yield written[shown:]
            shown = len(written)
    if shown < len(written):
        yield written[shown:]


def ends_whole(text):
    """Whether the last character of a decoded text is all there: until then U+FFFD stands for it, see BPETokenizer."""
    return not text.endswith("\ufffd")


# ---- choosing the next token


def check_sampling(temperature, top_k, top_p, repetition_penalty=1.0):
    """Raise ValueError for settings of `sample` and `penalised` that are out of range, or no numbers."""
    if not (_is_number(temperature) and 0 <= temperature <= sys.float_info.max):
        raise ValueError(f"temperature needs a number of at least 0, but got {temperature!r}.")
    if top_k is not None:
        require_positive(top_k=top_k)
    if top_p is not None and not (_is_number(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p needs a number above 0 and at most 1, but got {top_p!r}.")
    if not (_is_number(repetition_penalty) and 0 < repetition_penalty <= sys.float_info.max):
        raise ValueError(f"repetition_penalty needs a number above 0 (1 is none), but got {repetition_penalty!r}.")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _tokens_in(ids, padding, vocab_size):
    """(B, V) booleans: the tokens of each row of ids (B, T), without its padding."""
    tokens = devices.to_numpy(ids.data)
    real = np.ones(tokens.shape, bool) if padding is None else ~devices.to_numpy(padding.data)
    seen = np.zeros((len(tokens), vocab_size), bool)
    seen[np.nonzero(real)[0], tokens[real]] = True
    return seen


def penalised(logits, seen, penalty):
    """Logits (B, V) with those of the tokens `seen`, (B, V) booleans, divided by `penalty` if positive, else times it.

    A `penalty` above 1 makes these tokens less likely (Keskar et al. 2019, arXiv:1909.05858, section 4.1, who divide
    all; a negative logit has to be multiplied, as transformers does). The result is of float64.
    """
    penalty = min(max(penalty, 1e-30), 1e30)  # decides all; with more than that the result would not be finite
    logits = logits.astype(np.float64)
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def _require_numbers(logits):
    if not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError(
            "sample needs logits whose largest is a number in each row, but got NaN or infinity. Did training diverge?"
        )


def sample(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    """One token (B,) for each row of logits (B, V), NumPy arrays; temperature 0 takes the most likely.

    top_k keeps the k most likely; top_p then keeps the fewest whose probabilities sum to at least p (nucleus sampling,
    Holtzman et al. 2020, arXiv:1904.09751). Raises ValueError where the largest logit of a row is NaN or infinite.
    """
    _require_numbers(logits)
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
    draws = devices.generator_or_default(generator).random(len(p))[:, None]
    place = np.minimum((np.cumsum(p, axis=-1) <= draws).sum(axis=-1), (p > 0).sum(axis=-1) - 1)
    return np.take_along_axis(order, place[:, None], axis=-1)[:, 0]
