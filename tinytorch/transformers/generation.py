"""Writing with a language model: choose a token from the logits, feed it back, and so on."""

import math

import numpy as np

from .. import device as devices
from ..autograd import no_grad
from ..layers import evaluating, require_positive
from ..tensor import Tensor, cat, tensor


class Generation:
    """The part of a language model that writes. The rest has config.n_positions, new_cache, forward(ids, cache=)."""

    def generate(self, ids, max_new_tokens, use_cache=True, **sampling):
        """ids (B, T) and what follows, (B, T + new), as `stream` samples it.

        All prompts have one length: padding would be read as text.
        """
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
                if stop_tokens.size:
                    stopped |= (last[:, None] == stop_tokens).any(axis=1)
                    if stopped.all():
                        return
                step = Tensor(last[:, None]).to(ids.device)
                ids = step if use_cache else cat([ids, step], dim=1)


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
    new, written, shown = [], "", 0
    for (token,) in model.stream(batch, room, stop_tokens=[tokenizer.end_id], temperature=temperature, **sampling):
        new.append(token)
        written = tokenizer.decode(new)
        if show and not written.endswith("\ufffd"):  # a character of several tokens waits for the last of them
            show(written[shown:])
            shown = len(written)
    if show and shown < len(written):
        show(written[shown:])
    return prompt + written


# ---- choosing the next token


def check_sampling(temperature, top_k, top_p):
    """Raise ValueError for settings of `sample` out of range."""
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature needs a number of at least 0, but got {temperature}.")
    if top_k is not None:
        require_positive(top_k=top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p needs a number above 0 and at most 1, but got {top_p}.")


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
