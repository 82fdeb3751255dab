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

FRAMEWORKS = ("tinytorch", "torch")


def compare(script, description, measure_speed, measure_memory=None, cases=()):
    """The command line of a benchmark: print tables of what it measures.

    `measure_speed(rounds)` yields rows (name, our milliseconds, theirs, at most); it runs in a new process for each
    number of threads. `measure_memory(framework, case)` returns the MB of one of the `cases`, in a process of its own.
    """
    options = parse_arguments(description)
    if importlib.util.find_spec("torch") is None:
        print('Skipped: PyTorch is not installed here. To compare with it, pip install -e ".[oracle]".')
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
        print_head(f"{threads} thread{'s' * (threads > 1)}")
        rows = in_new_process(script, "--speed", threads, "--rounds", options.rounds, threads=threads)
        for name, *numbers in rows:
            print_row(name, *numbers, unit="ms")
    if measure_memory is not None and sys.platform == "linux":
        print_head("peak memory of a step")
        for i, case in enumerate(cases):
            ours, theirs = (in_new_process(script, "--memory", framework, i, threads=1) for framework in FRAMEWORKS)
            print_row(case.name, ours, theirs, 1.5, unit="MB")


def parse_arguments(description):
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="how often each framework has its turn (default 15)")
    parser.add_argument("--speed", type=int, help=argparse.SUPPRESS)  # what the new processes are told
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


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


def print_head(what):
    print(f"\n| {what} | tinytorch | PyTorch | ratio | at most |\n|---|--:|--:|--:|--:|", flush=True)


def print_row(name, ours, theirs, target, unit):
    print(f"| {name} | {ours:.2f} {unit} | {theirs:.2f} {unit} | **{ours / theirs:.2f}** | {target} |", flush=True)
