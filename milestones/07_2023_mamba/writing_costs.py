"""What each token costs a model that writes: the time it takes, and the memory of all that came before.

A transformer looks back at every token, so both grow; Mamba's state is of one size (arXiv:2312.00752, section 3.1).
"""

import time
from typing import NamedTuple

import numpy as np

import tinytorch as tt

TOKENS = 8192


class Costs(NamedTuple):
    """Of each token of a text: the seconds it took, and the bytes remembered after it.

    beside: the seconds of the first tokens of another text, written in turns with the last ones of this: whatever else
    the computer does meanwhile, it does to both.
    """

    seconds: np.ndarray
    remembered: np.ndarray
    beside: np.ndarray


def measure(model):
    """Let the model write TOKENS tokens. Returns the Costs."""
    start = tt.zeros(1, 1, dtype=tt.int64, device=next(model.parameters()).device)
    (cache, token), (cache_beside, token_beside) = ((model.new_cache(), start) for _ in range(2))
    seconds, remembered, beside = [], [], []
    for i in range(TOKENS):
        if i >= TOKENS - TOKENS // 16:
            token_beside, took = write(model, token_beside, cache_beside)
            beside.append(took)
        token, took = write(model, token, cache)
        seconds.append(took)
        remembered.append(sum(map(bytes_of, cache)))
    return Costs(*map(np.array, (seconds, remembered, beside)))


def write(model, token, cache):
    """The most likely token behind `token`, (1, 1), and the seconds that it took."""
    began = time.perf_counter()
    with tt.no_grad():
        token = model(token, cache=cache)[:, -1].argmax(dim=-1, keepdim=True)
    return token, time.perf_counter() - began


def bytes_of(cache):
    """Bytes that one layer remembers. Of a KVCache, those in use: it has room for all that may come."""
    if isinstance(cache, tt.KVCache):
        return (cache.keys.nbytes + cache.values.nbytes) * cache.length / cache.capacity
    return cache.nbytes


def pace(seconds):
    """Milliseconds for a token, as the fastest tenth of them: other work on the computer makes none faster."""
    return 1e3 * float(np.quantile(seconds, 0.1))


def describe(costs):
    """Time and memory of the first tokens and of the last."""
    first, last = pace(costs.beside), pace(costs.seconds[-len(costs.beside) :])
    return {
        "token_ms_first": first,
        "token_ms_last": last,
        "pace_kept": first / last,
        "cache_kb_first": costs.remembered[0] / 1e3,
        "cache_kb_last": costs.remembered[-1] / 1e3,
        "memory_kept": costs.remembered[0] / costs.remembered[-1],
    }


def show(costs):
    """Print what a token costs after 128, 256, ... others. costs: {name: Costs}."""
    print("\nwriting a token" + "".join(f"{name:>24}" for name in costs))
    length = TOKENS // 64
    while length <= TOKENS:
        before = slice(length * 3 // 4, length)
        cells = (f"{pace(c.seconds[before]):9.2f} ms {c.remembered[length - 1] / 1e3:8,.0f} KB" for c in costs.values())
        print(f"after {length:>9,}" + "".join(f"{cell:>24}" for cell in cells))
        length *= 2
    print()


def draw(costs, path):
    """Draw both over the length of the text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    time_axes, memory_axes = figure.subplots(1, 2)
    span = max(1, TOKENS // 32)
    starts = np.arange(0, TOKENS, span)
    for name, each in costs.items():
        time_axes.plot(starts + span / 2, [pace(each.seconds[i : i + span]) for i in starts], label=name)
        memory_axes.plot(np.arange(1, TOKENS + 1), each.remembered / 1e3, label=name)
    time_axes.set(xlabel="tokens so far", ylabel="ms", title="time of the next token", ylim=(0, None))
    memory_axes.set(xlabel="tokens so far", ylabel="KB", title="memory of what came before", ylim=(0, None))
    for axes in (time_axes, memory_axes):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)
