"""Texts in, texts out: a model and its tokenizer, alone or in batches, and how fast that was."""

import contextlib
import dataclasses
import time

import numpy as np

from ..layers import require_positive
from ..tensor import tensor
from ..transformers.generation import pieces, require_room


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

        The prompts are one batch, padded on the left. Greedily, each gets what it would get alone. Raises ValueError
        for no prompts, and for one that is empty or too long, before anything is written.
        """
        if isinstance(prompts, str):
            return self.generate([prompts], max_new_tokens, stop=stop, **sampling)[0]
        rows, stops = self._encoded(prompts, max_new_tokens), _stops(stop)
        self.statistics = GenerationStatistics(len(rows))
        with self.statistics.timed():
            written = self._batch(rows, max_new_tokens, stops, sampling)
        return [prompt + text for prompt, text in zip(prompts, written)]

    def generate_dynamic(self, prompts, batch_size=8, max_new_tokens=50, *, stop=(), **sampling):
        """As `generate`, for any number of prompts: batches of at most `batch_size`, of prompts alike in length.

        So there is little padding. The texts come back in the order of their prompts. A batch runs until its last row
        has ended; the place of a row that has ended before stays empty.
        """
        require_positive(batch_size=batch_size)
        rows, stops = self._encoded(prompts, max_new_tokens), _stops(stop)
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

        What could be the beginning of a stop text waits until it is known not to be one.
        """
        self._encoded([prompt], max_new_tokens)
        self.statistics = statistics = GenerationStatistics(prompts=1, batches=1)
        written = pieces(self.model, self.tokenizer, prompt, max_new_tokens, on_token=statistics.count, **sampling)
        return self._stream(written, _stops(stop), statistics)

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
        if isinstance(prompts, str):
            raise TypeError("generate_dynamic needs a list of prompts, but got one text. Use generate, or [text].")
        require_positive(max_new_tokens=max_new_tokens)
        if not prompts:
            raise ValueError("Generation needs at least one prompt, but got none.")
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
                    text = self.tokenizer.decode(new[i]) if stops or token == end else ""
                    if token == end or len(_before(text, stops)) < len(text):
                        texts[i] = _before(text, stops)
                if None not in texts:
                    break
        return [self.tokenizer.decode(ids) if text is None else text for ids, text in zip(new, texts)]

    def _on_the_left(self, rows):
        """ids (B, T) of the rows behind padding, and where it is, (B, T) booleans, or None where there is none."""
        longest, device = max(map(len, rows)), next(iter(self.model.parameters())).device
        ids = np.full((len(rows), longest), self.tokenizer.pad_id)
        for line, row in zip(ids, rows):
            line[longest - len(row) :] = row
        padding = np.arange(longest) < np.array([[longest - len(row)] for row in rows])
        return tensor(ids, device=device), tensor(padding, device=device) if padding.any() else None


def _stops(stop):
    stops = [stop] if isinstance(stop, str) else list(stop)
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
