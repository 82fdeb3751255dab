"""Mamba: training steps, the scan, generation and memory beside PyTorch and limits, in one run.

    python benchmarks/mamba.py

Training is compared with `mambapy`, a Mamba in PyTorch, with its parallel and with its sequential scan: the same
weights, the same tokens, Adam. The two take turns, many times, with one thread, and the median times are compared as a
ratio: below 1, tinytorch is faster. Where the other column is a limit or another way of our own, the name says so.
Memory is how far the peak lies above what was held before, each in a process of its own (Linux only).
"""

import functools
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peers import adam_step, compare, median_times

import tinytorch as tt
from tinytorch.mamba import blelloch_scan, selective_scan_by, sequential_scan, ssd_composed, two_level_scan
from tinytorch_course.milestone import peak_memory_mb


class Case(NamedTuple):
    """A model and a batch; `steps` are taken in a row before the other has its turn."""

    name: str
    config: tt.MambaConfig
    batch: int
    time: int
    steps: int
    target: float  # beside the sequential scan; beside the parallel one it is 0.4


class Memory(NamedTuple):
    """How the memory of the scan is measured: that of the process, or what NumPy asks for."""

    name: str
    traced: bool


TRAINING = [
    Case("step, 2 layers, width 32, N=8, B=4, T=128", tt.MambaConfig.tiny(), 4, 128, 10, 0.1),
    Case("step, 4 layers, width 64, N=16, B=4, T=256", tt.MambaConfig.small(), 4, 256, 3, 0.05),
]
MEDIUM = Case("step, preset medium, B=4, T=256", tt.MambaConfig.medium(), 4, 256, 1, None)
SCAN = (4, 512, 128, 16)  # B, T, E, N
MEMORY = [
    Memory("scan forward and back; a loop that keeps all states and decays", False),
    Memory("arrays of the scan (tracemalloc); all states and decays, nothing else", True),
]
NO_TARGET = "-"


# ---- the two sides of a training step


def training_step(case, scan=None):
    """A function that takes one step and returns the loss: ours, or that of mambapy with this `scan`."""
    model = tt.Mamba(case.config, tt.Generator(0))
    return adam_step(model, case.batch, case.time, torch_twin(model, scan) if scan else None)


def torch_twin(model, scan):
    """The same language model, with the same weights, of the layers of mambapy."""
    import torch
    from mambapy.mamba import Mamba, MambaConfig, RMSNorm

    config = model.config
    layers = MambaConfig(config.d_model, config.n_layers, d_state=config.d_state, pscan=scan == "parallel")
    twin = torch.nn.Sequential()
    twin.add_module("embeddings", torch.nn.Embedding(config.vocab_size, config.d_model))
    twin.add_module("mamba", Mamba(layers))
    twin.add_module("norm_f", RMSNorm(config.d_model, config.layer_norm_epsilon))
    twin.add_module("lm_head", torch.nn.Linear(config.d_model, config.vocab_size, bias=False))
    twin.lm_head.weight = twin.embeddings.weight
    weights = {name.replace("backbone.layers", "mamba.layers"): value for name, value in model.state_dict().items()}
    twin.load_state_dict(
        {name.replace("backbone.", ""): torch.tensor(value.numpy()) for name, value in weights.items()}
    )
    return twin


# ---- the scan alone


def scan_inputs(shape):
    """u, delta, A, B, C as arrays, as they are in a model that begins to learn, and a gradient of the output."""
    batch, time, channels, state = shape
    random = np.random.default_rng(0)
    u, g = random.standard_normal((2, batch, time, channels), np.float32)
    delta = np.exp(random.uniform(np.log(1e-3), np.log(1e-1), u.shape)).astype(np.float32)
    A = -np.broadcast_to(np.arange(1, state + 1, dtype=np.float32), (channels, state))
    B, C = random.standard_normal((2, batch, time, state), np.float32)
    return [u, delta, A.copy(), B, C], g


def forward_and_back(tensor, scan, inputs, g):
    """A function that takes a scan forward and back and returns the gradients, which all scans must agree on."""
    inputs, g = [tensor(x).requires_grad_() for x in inputs], tensor(g)

    def run():
        for x in inputs:
            x.grad = None
        scan(*inputs).backward(g)
        return [np.linalg.norm(x.grad.detach().numpy()) for x in inputs]

    return run


def torch_loop(u, delta, A, B, C, unbound=False):
    """The scan as a loop over time in PyTorch, as mambapy writes it: each step takes its part with an index.

    The way back through an index fills a whole array with zeros at every step; `unbound` takes the parts all at once.
    """
    import torch

    decay = torch.exp(delta.unsqueeze(-1) * A)  # (B, T, E, N)
    written = (delta * u).unsqueeze(-1) * B.unsqueeze(2)
    if unbound:
        decay, written = decay.unbind(1), written.unbind(1)
    h, states = torch.zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[1]):
        at = t if unbound else (slice(None), t)
        h = decay[at] * h + written[at]
        states.append(h)
    return (torch.stack(states, dim=1) @ C.unsqueeze(-1)).squeeze(-1)  # (B, T, E)


def keeping_all(scan):
    """A scan on raw arrays as a selective scan, which keeps all states and decays."""
    return functools.partial(selective_scan_by, scan)


def measure_scans(rounds):
    """Rows of the scan of SCAN beside others, forward and back."""
    import torch

    inputs, g = scan_inputs(SCAN)
    ours = forward_and_back(tt.tensor, tt.selective_scan, inputs, g)
    name = f"scan forward and back, (B, T, E, N) = {SCAN}"
    for other, scan, target in [
        ("a loop over time in PyTorch", torch_loop, 0.04),
        ("the same loop, unbound", functools.partial(torch_loop, unbound=True), NO_TARGET),
    ]:
        theirs = forward_and_back(torch.tensor, scan, inputs, g)
        yield row(f"{name}; {other}", ours, theirs, (5, 1), few(rounds), target)
    for other, scan in [
        ("tinytorch, a loop that keeps all", sequential_scan),
        ("tinytorch, as a tree (Blelloch)", blelloch_scan),
        ("tinytorch, in two levels", two_level_scan),
    ]:
        theirs = forward_and_back(tt.tensor, keeping_all(scan), inputs, g)
        yield row(f"{name}; {other}", ours, theirs, 1, rounds, NO_TARGET)
    yield from measure_ssd(rounds)


def measure_ssd(rounds):
    """Rows of Mamba-2's scan, by chunk, beside its recurrence, forward and back."""
    batch, time, heads, width, state = shape = (2, 512, 4, 32, 16)
    random = np.random.default_rng(0)
    x, g = random.standard_normal((2, batch, time, heads, width), np.float32)
    delta = random.uniform(1e-3, 1e-1, (batch, time, heads)).astype(np.float32)
    B, C = random.standard_normal((2, batch, time, 1, state), np.float32)
    inputs = [x, delta, -np.arange(1, heads + 1, dtype=np.float32), B, C]
    theirs = forward_and_back(tt.tensor, ssd_composed, inputs, g)
    for chunk in (16, 32, 64, 128):
        ours = forward_and_back(tt.tensor, functools.partial(tt.ssd, chunk_size=chunk), inputs, g)
        name = f"Mamba-2, chunks of {chunk}, (B, T, H, P, N) = {shape}"
        yield row(f"{name}; tinytorch, its loop", ours, theirs, (5, 1), few(rounds), NO_TARGET)


# ---- limits


def next_token(model, length):
    """A function that generates one more token behind `length` of them, and returns the shape of what it yields."""
    ids = tt.tensor(tt.Generator(1).integers(0, model.config.vocab_size, (1, length)))
    stream = model.stream(ids, 1_000_000, temperature=0)
    return lambda: next(stream).shape


def measure_limits(rounds):
    """Rows of what needs to be below a number of milliseconds."""
    small, medium = (tt.Mamba(config, tt.Generator(0)).eval() for config in (tt.MambaConfig.small(), MEDIUM.config))
    near, far = median_times([next_token(small, 100), next_token(small, 4000)], 50, rounds)
    yield "a token, preset small, behind 100; 400 tokens/s", near * 1e3, 1e3 / 400, 1.0
    yield "a token, preset small, behind 4,000; behind 100", far * 1e3, near * 1e3, 1.1
    prompt = tt.tensor(np.arange(2, 14)[None])
    (hundred,) = median_times([lambda: medium.generate(prompt, 100, temperature=0).shape], 1, rounds)
    yield "100 tokens, preset medium; 1 s", hundred * 1e3, 1e3, 1.0
    (step,) = median_times([training_step(MEDIUM)], 2, few(rounds))
    limit = MEDIUM.batch * MEDIUM.time  # ms, at 1,000 tokens a second
    yield f"{MEDIUM.name}; 1,000 tokens/s", step * 1e3, limit, 1.0


# ---- all of it


def few(rounds):
    """How many turns what takes seconds has."""
    return max(3, rounds // 5)


def row(name, ours, theirs, steps, rounds, target):
    ours, theirs = median_times([ours, theirs], steps, rounds)
    return name, ours * 1e3, theirs * 1e3, target


def measure_speed(rounds):
    """Rows (name; the other, our milliseconds, those of the other, at most)."""
    for case in TRAINING:
        for scan, steps, turns, most in [
            ("parallel", case.steps, rounds, 0.4),
            ("sequential", (case.steps, 1), few(rounds), case.target),
        ]:
            ours, theirs = training_step(case), training_step(case, scan)
            yield row(f"{case.name}; mambapy, {scan}", ours, theirs, steps, turns, most)
    yield from measure_scans(rounds)
    yield from measure_limits(rounds)


def measure_memory(framework, case):
    """MB that the scan of a case needs at its peak, forward and back, beyond what is held before it."""
    scan = tt.selective_scan if framework == "tinytorch" else keeping_all(sequential_scan)
    if case.traced and framework != "tinytorch":
        return 2 * np.prod(SCAN) * np.dtype(np.float32).itemsize / 1e6
    run = forward_and_back(tt.tensor, scan, *scan_inputs(SCAN))
    if case.traced:
        tracemalloc.start()
        run()
        return tracemalloc.get_traced_memory()[1] / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    before = peak_memory_mb()
    run()
    return peak_memory_mb() - before


if __name__ == "__main__":
    told = {"threads": [1], "other": "the other", "most": 0.25, "needs": ["mambapy"]}
    compare(__file__, __doc__, measure_speed, measure_memory, MEMORY, **told)
