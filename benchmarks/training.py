"""Training steps, generation and memory of tinytorch beside PyTorch's eager mode, in one run.

    python benchmarks/training.py

Both train the same GPT from the same weights on the same tokens with Adam. They take turns, many times, with the same
number of threads, and the median times are compared as a ratio: below 1, tinytorch is faster. Memory is how far the
peak of five steps lies above what was held before, each in a process of its own (Linux only).
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
FRAMEWORKS = ("tinytorch", "torch")


def training_step(framework, case):
    """A function that takes one step and returns the loss."""
    model = tt.GPT(case.config, tt.Generator(0))
    ids = tt.Generator(1).integers(0, case.config.vocab_size, (case.batch, case.time + 1))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if framework == "tinytorch":
        tt.device.keep_freed_memory()  # as the Trainer does
        loss_fn, optimizer = tt.cross_entropy, tt.Adam(model.parameters())
        inputs, targets = tt.tensor(inputs), tt.tensor(targets)
    else:
        import torch

        model = torch_twin(model)
        loss_fn, optimizer = torch.nn.functional.cross_entropy, torch.optim.Adam(model.parameters())
        inputs, targets = torch.tensor(inputs), torch.tensor(targets)

    def step():
        optimizer.zero_grad()
        loss = loss_fn(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


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


def median_times(functions, steps, rounds):
    """Median seconds of each function, which take turns, `steps` calls at a time. Both must do the same work."""
    np.testing.assert_allclose(functions[0](), functions[1](), rtol=1e-4)
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times):
            for _ in range(steps):
                began = time.perf_counter()
                function()
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def measure_speed(threads, rounds):
    """Rows (name, our time, their time, unit) for this process's number of threads."""
    import torch

    torch.set_num_threads(threads)
    for case in CASES:
        ours, theirs = median_times([training_step(f, case) for f in FRAMEWORKS], case.steps, rounds)
        yield case.name, ours * 1e3, theirs * 1e3, case.target
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


def in_new_process(*arguments, threads):
    """What this script prints, as JSON, when it runs with these arguments and a pinned number of threads."""
    pinned = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **pinned}, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def processor():
    """The name of the processor, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="how often each framework has its turn (default 15)")
    parser.add_argument("--speed", type=int, help=argparse.SUPPRESS)  # what the new processes are told
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        print('Skipped: PyTorch is not installed here. To compare with it, pip install -e ".[oracle]".')
        return
    if options.speed:
        print(json.dumps(list(measure_speed(options.speed, options.rounds))))
        return
    if options.memory:
        print(json.dumps(measure_memory(options.memory[0], CASES[int(options.memory[1])])))
        return
    versions = f"NumPy {np.__version__}, PyTorch {importlib.metadata.version('torch')}"
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.date.today()}, {machine}, {versions}")
    for threads in options.threads:
        print_head(f"{threads} thread{'s' * (threads > 1)}")
        rows = in_new_process("--speed", threads, "--rounds", options.rounds, threads=threads)
        for name, *numbers in rows:
            print_row(name, *numbers, unit="ms")
    if sys.platform == "linux":
        print_head("peak memory of a step")
        for i, case in enumerate(CASES):
            ours, theirs = (in_new_process("--memory", framework, i, threads=1) for framework in FRAMEWORKS)
            print_row(case.name, ours, theirs, 1.5, unit="MB")


def print_head(what):
    print(f"\n| {what} | tinytorch | PyTorch | ratio | at most |\n|---|--:|--:|--:|--:|", flush=True)


def print_row(name, ours, theirs, target, unit):
    print(f"| {name} | {ours:.2f} {unit} | {theirs:.2f} {unit} | **{ours / theirs:.2f}** | {target} |", flush=True)


if __name__ == "__main__":
    main()
