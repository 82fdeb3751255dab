"""Training steps, generation and memory of tinytorch beside PyTorch's eager mode, in one run.

    python benchmarks/training.py

Both train the same GPT from the same weights on the same tokens with Adam. They take turns, many times, with the same
number of threads, and the median times are compared as a ratio: below 1, tinytorch is faster. Memory is how far the
peak of five steps lies above what was held before, each in a process of its own (Linux only).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from peers import FRAMEWORKS, adam_step, compare, median_times

import tinytorch as tt
from tinytorch_course.milestone import peak_memory_mb


class Case(NamedTuple):
    """A model and a batch; `steps` are taken in a row before the other framework has its turn."""

    name: str
    config: tt.GPTConfig
    batch: int
    time: int
    steps: int
    target: float


CASES = [
    Case("1 layer, width 32, 4 heads, B=1, T=64", tt.GPTConfig(80, 64, 32, 1, 4), 1, 64, 40, 0.6),
    Case("2 layers, width 32, 8 heads, B=1, T=127", tt.GPTConfig(80, 127, 32, 2, 8), 1, 127, 40, 0.8),
    Case("2 layers, width 32, 8 heads, B=16, T=64", tt.GPTConfig(80, 64, 32, 2, 8), 16, 64, 10, 1.2),
    Case("4 layers, width 128, 4 heads, B=8, T=128", tt.GPTConfig(80, 128, 128, 4, 4), 8, 128, 3, 1.3),
]
COPILOT = tt.GPTConfig(58, 64, 64, 2, 4)  # greedy generation: 12 tokens, and 50 more


def training_step(framework, case):
    """A function that takes one step and returns the loss."""
    model = tt.GPT(case.config, tt.Generator(0))
    return adam_step(model, case.batch, case.time, torch_twin(model) if framework == "torch" else None)


def torch_twin(model):
    """The same model, with the same weights, in PyTorch."""
    import torch
    import torch_gpt

    twin = torch_gpt.GPT(model.config)
    twin.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})
    return twin


def generation(framework):
    """A function that generates, with the cache, and returns the tokens as a list."""
    model, prompt, new = tt.GPT(COPILOT, tt.Generator(0)).eval(), np.arange(2, 14)[None], 50
    if framework == "tinytorch":
        return lambda: model.generate(tt.tensor(prompt), new, temperature=0).tolist()
    import torch

    twin = torch_twin(model).eval()
    return lambda: twin.generate(torch.tensor(prompt), new).tolist()


def measure_speed(rounds):
    """Rows (name, our milliseconds, theirs, at most)."""
    for case in CASES:
        ours, theirs = median_times([training_step(f, case) for f in FRAMEWORKS], case.steps, rounds)
        yield case.name, ours * 1e3, theirs * 1e3, case.target
        if case is CASES[0]:
            yield "the same, and right the 10 steps/s that the original TinyTorch publishes", ours * 1e3, 100.0, 0.033
    ours, theirs = median_times([generation(f) for f in FRAMEWORKS], 3, rounds)
    yield "greedy generation, copilot's model, 50 tokens", ours * 1e3, theirs * 1e3, 1.0


def measure_memory(framework, case):
    """MB that five steps need at their peak beyond what is held before them."""
    step = training_step(framework, case)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    before = peak_memory_mb()
    for _ in range(5):
        step()
    return peak_memory_mb() - before


if __name__ == "__main__":
    compare(__file__, __doc__, measure_speed, measure_memory, CASES)
