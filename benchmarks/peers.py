"""What the benchmarks beside PyTorch share: turns and medians, processes of their own, the command line, the tables."""

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

import numpy as np

import tinytorch as tt

FRAMEWORKS = ("tinytorch", "torch")


def compare(
    script,
    description,
    measure_speed,
    measure_memory=None,
    cases=(),
    threads=(1, 2),
    other="PyTorch",
    most=1.5,
    needs=(),
):
    """The command line of a benchmark: print tables of what it measures.

    `measure_speed(rounds)` yields rows (name, our milliseconds, theirs, at most); it runs in a new process for each
    number of threads. `measure_memory(framework, case)` returns the MB of one of the `cases`, in a process of its own;
    at `most` so much of the other's is good. `other` stands above the column of what tinytorch is compared with, and
    `needs` are libraries that it takes beside PyTorch.
    """
    options = parse_arguments(description, threads)
    missing = [name for name in ("torch", *needs) if importlib.util.find_spec(name) is None]
    if missing:
        print(f'Skipped: {", ".join(missing)} not installed here. To compare with it, pip install -e ".[oracle]".')
        return
    if options.speed:
        import torch

        torch.set_num_threads(options.speed)
        print(json.dumps(list(measure_speed(options.rounds))))
        return
    if options.memory:
        print(json.dumps(measure_memory(options.memory[0], cases[int(options.memory[1])])))
        return
    versions = f"NumPy {np.__version__}, PyTorch {importlib.metadata.version('torch')}"
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.date.today()}, {machine}, {versions}")
    for threads in options.threads:
        print_head(f"{threads} thread{'s' * (threads > 1)}", other)
        rows = in_new_process(script, "--speed", threads, "--rounds", options.rounds, threads=threads)
        for name, *numbers in rows:
            print_row(name, *numbers, unit="ms")
    if measure_memory is not None and sys.platform == "linux":
        print_head("peak memory", other)
        for i, case in enumerate(cases):
            ours, theirs = (in_new_process(script, "--memory", framework, i, threads=1) for framework in FRAMEWORKS)
            print_row(case.name, ours, theirs, most, unit="MB")


def parse_arguments(description, threads):
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=list(threads))
    parser.add_argument("--rounds", type=int, default=15, help="how often each framework has its turn (default 15)")
    parser.add_argument("--speed", type=int, help=argparse.SUPPRESS)  # what the new processes are told
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def adam_step(model, batch, time, twin=None):
    """A function that makes a step of Adam on random tokens, of `model` or its PyTorch `twin`, and returns the loss."""
    ids = tt.Generator(1).integers(0, model.config.vocab_size, (batch, time + 1))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if twin is None:
        tt.device.keep_freed_memory()  # as the Trainer does
        loss_fn, optimizer = tt.cross_entropy, tt.Adam(model.parameters())
        inputs, targets = tt.tensor(inputs), tt.tensor(targets)
    else:
        import torch

        model = twin
        loss_fn, optimizer = torch.nn.functional.cross_entropy, torch.optim.Adam(model.parameters())
        inputs, targets = torch.tensor(inputs), torch.tensor(targets)

    def step():
        optimizer.zero_grad()
        loss = loss_fn(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def median_times(functions, steps, rounds):
    """Median seconds of each function, which take turns, `steps` calls at a time. All must do the same work.

    `steps` is a number, or one for each function.
    """
    first, *others = [function() for function in functions]
    for result in others:
        np.testing.assert_allclose(first, result, rtol=1e-4)
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken, calls in zip(functions, times, np.broadcast_to(steps, len(functions))):
            for _ in range(calls):
                began = time.perf_counter()
                function()
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def in_new_process(script, *arguments, threads):
    """What a script prints, as JSON, when it runs with these arguments and a pinned number of threads."""
    pinned = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **pinned}, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def processor():
    """The name of the processor, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def print_head(what, other):
    print(f"\n| {what} | tinytorch | {other} | ratio | at most |\n|---|--:|--:|--:|--:|", flush=True)


def print_row(name, ours, theirs, target, unit):
    print(f"| {name} | {ours:.2f} {unit} | {theirs:.2f} {unit} | **{ours / theirs:.2f}** | {target} |", flush=True)
