"""Texts in, texts out: a model and its tokenizer, alone or in batches, and how fast that was."""

import contextlib
import dataclasses
import time

import numpy as np

from ..layers import require_positive
from ..tensor import tensor
from ..transformers.generation import ends_whole, pieces, require_room


@dataclasses.dataclass
class GenerationStatistics:
    """What the last call of a TextGenerator did: how much, and how long it took in seconds.

    tokens: all that were written, end tokens among them; seconds_to_first_token: until the first of the call was there,
    or None where nothing was written.
    """

    prompts: int = 0
    batches: int = 0
    tokens: int = 0
    seconds: float = 0.0
    seconds_to_first_token: float | None = None
    _started: float = dataclasses.field(default=0.0, init=False, repr=False, compare=False)

    @contextlib.contextmanager
    def timed(self):
        """Measure the time inside."""
        self._started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds = time.perf_counter() - self._started

    def count(self):
        """One more token was written."""
        self.tokens += 1
        if self.seconds_to_first_token is None:
            self.seconds_to_first_token = time.perf_counter() - self._started

    @property
    def tokens_per_second(self):
        """Tokens of all prompts together, over the time of the whole call."""
        return self.tokens / self.seconds if self.seconds else 0.0


class TextGenerator:
    """Writes on from prompts with a language model, a GPT or a Mamba, and the tokenizer that it was trained with.

    Every method takes the settings of `Generation.stream` (temperature, top_k, top_p, repetition_penalty, generator),
    max_new_tokens, and stop: a text or several, before the first of which the writing ends, as it does at the
    tokenizer's end token. `statistics` tells of the last call.
    """

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.statistics = GenerationStatistics()

    def generate(self, prompts, max_new_tokens=50, *, stop=(), **sampling):
        """Each prompt with what follows it: a text for a text, a list of texts for a list.

        The prompts are one batch, padded on the left. Greedily, each gets what it would get alone. Before anything is
        written, raises ValueError for no prompts, for one that is empty or too long, and for settings that cannot be,
        and TypeError for prompts that are no texts.
        """
        if isinstance(prompts, str):
            return self.generate([prompts], max_new_tokens, stop=stop, **sampling)[0]
        prompts, stops = _texts(prompts), _stops(stop)
        rows = self._encoded(prompts, max_new_tokens)
        self.statistics = GenerationStatistics(len(rows))
        with self.statistics.timed():
            written = self._batch(rows, max_new_tokens, stops, sampling)
        return [prompt + text for prompt, text in zip(prompts, written)]

    def generate_dynamic(self, prompts, batch_size=8, max_new_tokens=50, *, stop=(), **sampling):
        """As `generate`, for any number of prompts: batches of at most `batch_size`, of prompts alike in length.

        So there is little padding. The texts come back in the order of their prompts. A batch runs until its last row
        has ended; the place of a row that has ended before stays empty. Raises as `generate`, and TypeError for one
        text in place of a list.
        """
        require_positive(batch_size=batch_size)
        if isinstance(prompts, str):
            raise TypeError("generate_dynamic needs a list of prompts, but got one text. Use generate, or [text].")
        prompts, stops = _texts(prompts), _stops(stop)
        rows = self._encoded(prompts, max_new_tokens)
        order, texts = sorted(range(len(rows)), key=lambda i: len(rows[i])), [""] * len(rows)
        self.statistics = GenerationStatistics(len(rows))
        with self.statistics.timed():
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                written = self._batch([rows[i] for i in batch], max_new_tokens, stops, sampling)
                for i, text in zip(batch, written):
                    texts[i] = prompts[i] + text
        return texts

    def stream(self, prompt, max_new_tokens=50, *, stop=(), **sampling):
        """An iterator over the pieces of what follows `prompt`, as they are written.

        What could be the beginning of a stop text waits until it is known not to be one. Raises as `generate`.
        """
        (prompt,), stops = _texts([prompt]), _stops(stop)
        self._encoded([prompt], max_new_tokens)
        self.statistics = statistics = GenerationStatistics(prompts=1, batches=1)
        written = pieces(self.model, self.tokenizer, prompt, max_new_tokens, on_token=statistics.count, **sampling)
        return self._stream(written, stops, statistics)

    def _stream(self, written, stops, statistics):
        text = shown = ""
        with statistics.timed(), contextlib.closing(written):
            for piece in written:
                text += piece
                kept = _before(text, stops)
                safe = kept if len(kept) < len(text) else text[: len(text) - _waiting(text, stops)]
                if len(safe) > len(shown):
                    yield safe[len(shown) :]
                    shown = safe
                if len(kept) < len(text):
                    return
            if len(shown) < len(text):
                yield text[len(shown) :]

    def _encoded(self, prompts, max_new_tokens):
        """The ids of each prompt. Raises ValueError as `generate`."""
        rows = [self.tokenizer.encode(prompt) for prompt in prompts]
        for prompt, row in zip(prompts, rows):
            if not row:
                raise ValueError(f"Each prompt needs at least one token to go on from, but {prompt!r} has none.")
            require_room(self.model.config.n_positions, len(row), max_new_tokens)
        return rows

    def _batch(self, rows, max_new_tokens, stops, sampling):
        """What the model writes after each of these rows of ids, as texts."""
        self.statistics.batches += 1
        ids, padding = self._on_the_left(rows)
        end, new, texts = self.tokenizer.end_id, [[] for _ in rows], [None] * len(rows)
        stream = self.model.stream(ids, max_new_tokens, stop_tokens=[end], key_padding_mask=padding, **sampling)
        with contextlib.closing(stream):
            for step in stream:
                for i, token in enumerate(step.tolist()):
                    if texts[i] is not None:
                        continue
                    self.statistics.count()
                    new[i].append(token)
                    if stops or token == end:
                        text = self.tokenizer.decode(new[i])
                        kept = _before(text, stops)
                        if token == end or (ends_whole(text) and len(kept) < len(text)):  # as `stream`, which waits
                            texts[i] = kept
                if None not in texts:
                    break
        return [_before(self.tokenizer.decode(ids), stops) if text is None else text for ids, text in zip(new, texts)]

    def _on_the_left(self, rows):
        """ids (B, T) of the rows behind padding, and where it is, (B, T) booleans, or None where there is none."""
        longest, device = max(map(len, rows)), next(iter(self.model.parameters())).device
        ids = np.full((len(rows), longest), self.tokenizer.pad_id)
        for line, row in zip(ids, rows):
            line[longest - len(row) :] = row
        padding = np.arange(longest) < np.array([[longest - len(row)] for row in rows])
        return tensor(ids, device=device), tensor(padding, device=device) if padding.any() else None


def _texts(prompts):
    """A list of the prompts. Raises ValueError where there is none, TypeError for what is no text."""
    if not np.iterable(prompts):
        raise TypeError(f"Generation needs a text or a list of texts as prompts, but got {prompts!r}.")
    prompts = list(prompts)
    if not prompts:
        raise ValueError("Generation needs at least one prompt, but got none.")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"Generation needs prompts that are texts, but one is {prompt!r}.")
    return prompts


def _stops(stop):
    """A list of the stop texts. Raises ValueError for what is none, or empty."""
    stops = [stop] if isinstance(stop, str) or not np.iterable(stop) else list(stop)
    if not all(isinstance(text, str) for text in stops):
        raise ValueError(f"stop needs a text or a list of texts, () for none, but got {stop!r}.")
    if not all(stops):
        raise ValueError("stop needs texts of at least one character: an empty one is everywhere.")
    return stops


def _before(text, stops):
    """The text up to the first of `stops` in it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def _waiting(text, stops):
    """How many characters at the end of a text may turn out to be the beginning of one of `stops`."""
    lengths = range(1, max(map(len, stops), default=0))
    return max((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops) and n <= len(text)), default=0)
