"""What the grader asks the answers to lesson 14, beside the reference, on inputs that nobody knows before."""

import numpy as np

from tinytorch_course.grading.probes import gradients, probe


def named(settings, arrays):
    """The arrays of one of several calls."""
    return {f"{name}_{settings}": array for name, array in arrays.items()}


# ---- the scan


def sequences(rng):
    """All that a selective scan takes, and the gradient of its output."""
    batch, channels, state = (int(n) for n in rng.integers(1, 4, 3))
    time = int(rng.integers(3, 7))
    starts = rng.random((batch, time)) < 0.3
    starts[0, 1] = True
    return {
        "u": rng.standard_normal((batch, time, channels)),
        "delta": rng.uniform(0.2, 2, (batch, time, channels)),
        "A": -rng.uniform(0.2, 2, (channels, state)),
        "B": rng.standard_normal((batch, time, state)),
        "C": rng.standard_normal((batch, time, state)),
        "D": rng.standard_normal(channels),
        "z": rng.standard_normal((batch, time, channels)),
        "initial_state": rng.standard_normal((batch, channels, state)),
        "starts": starts,
        "g": rng.standard_normal((batch, time, channels)),
    }


@probe("ex-14-1", sequences)
def states_along_a_sequence(tt, u, delta, A, B, C, D, z, initial_state, starts, g):
    from tinytorch.mamba import selective_scan_composed as scan

    of_documents = gradients(
        tt, lambda *x: scan(*x, starts=tt.Tensor(starts)), u, delta, A, B, C, D, z, initial_state, g=g
    )
    plain = gradients(tt, scan, u, delta, A, B, C, g=g)
    ungated = gradients(tt, scan, u, delta, A, B, C, D, g=g)
    return of_documents | named("of_one_document", plain) | named("without_a_gate", ungated)


# ---- the parts of a mixer


def ranges(rng):
    """Step sizes of all orders of magnitude, and a seed."""
    return {
        "n": int(rng.integers(5, 9)),
        "usual": 10 ** rng.uniform(-4, -2),
        "small": 10 ** rng.uniform(-7, -6),
        "large": rng.uniform(0.5, 2),
        "seed": int(rng.integers(2**31)),
    }


@probe("ex-14-2", ranges)
def first_step_sizes(tt, n, usual, small, large, seed):
    from tinytorch.mamba.model import step_size_bias

    settings = {
        "unless_told": (),
        "from_other_to_other": (usual, 300 * usual, usual / 10),
        "with_a_floor_between": (usual, 300 * usual, 20 * usual),
        "of_small_ones": (small, 10 * small, small / 10),
        "of_large_ones": (large, 200 * large, small),
    }
    return {f"bias_{name}": step_size_bias(n, *given, generator=tt.Generator(seed)) for name, given in settings.items()}


def filled(module, state):
    """The module with these numbers as its parameters."""
    for name, parameter in module.named_parameters():
        parameter.data[...] = state[name]
    return module


def mixer_state(rng, sizes):
    """Numbers for a MambaMixer of these sizes."""
    width, inner, numbers, taps, rank = (sizes[name] for name in ("width", "inner", "state", "taps", "rank"))
    shapes = {
        "in_proj.weight": (2 * inner, width),
        "conv1d.weight": (inner, 1, taps),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 2 * numbers, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "A_log": (inner, numbers),
        "D": (inner,),
        "out_proj.weight": (width, inner),
    }
    state = {
        name: rng.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) > 1 else 1) for name, shape in shapes.items()
    }
    return {name: array.astype(np.float32) for name, array in state.items()}


def mixers(rng):
    """The sizes and numbers of a mixer, and a stream for it."""
    width, expand, numbers, taps, rank = (int(n) for n in rng.integers(2, 5, 5))
    sizes = {"width": width, "inner": expand * width, "state": numbers, "taps": taps, "rank": rank}
    shape = (int(rng.integers(1, 4)), int(rng.integers(4, 8)))
    documents = np.cumsum(rng.random(shape) < 0.3, axis=1)
    documents[0, 2:] += 1
    return {
        "sizes": sizes,
        "state": mixer_state(rng, sizes),
        "norm": rng.uniform(0.5, 1.5, width).astype(np.float32),
        "x": rng.standard_normal((*shape, width)).astype(np.float32),
        "padding": rng.random(shape) < 0.3,
        "documents": documents,
    }


def configured(tt, sizes):
    return tt.MambaConfig(
        d_model=sizes["width"],
        d_state=sizes["state"],
        d_conv=sizes["taps"],
        expand=sizes["inner"] // sizes["width"],
        dt_rank=sizes["rank"],
        n_layers=1,
        vocab_size=3,
    )


@probe("ex-14-3", mixers)
def what_a_token_chooses(tt, sizes, state, norm, x, padding, documents):
    layer = filled(tt.MambaMixer(configured(tt, sizes)), state)
    u = np.tile(x, sizes["inner"] // sizes["width"])
    delta, B, C = layer._select(tt.Tensor(u))
    return {"delta": delta, "B": B, "C": C}


def texts(rng):
    """A sequence of several documents, the taps of a kernel for each channel, and the gradient of the output."""
    batch, channels = (int(n) for n in rng.integers(1, 4, 2))
    time, width = (int(n) for n in rng.integers(5, 9, 2))
    documents = np.cumsum(rng.random((batch, time)) < 0.3, axis=1)
    documents[0, 2:] += 1
    return {
        "x": rng.standard_normal((batch, time, channels)),
        "weight": rng.standard_normal((channels, 1, width - 3)),
        "bias": rng.standard_normal(channels),
        "documents": documents,
        "g": rng.standard_normal((batch, time, channels)),
    }


@probe("ex-14-4", texts)
def the_last_few_tokens(tt, x, weight, bias, documents, g):
    from tinytorch.mamba import causal_conv1d_composed as convolution

    of_documents = gradients(tt, lambda *y: convolution(*y, tt.Tensor(documents)), x, weight, bias, g=g)
    plain = gradients(tt, convolution, x, weight, g=g)
    short = gradients(tt, convolution, x[:, :1], weight, bias, g=g[:, :1])
    return of_documents | named("of_one_document", plain) | named("of_one_token", short)


@probe("ex-14-5", mixers)
def block(tt, sizes, state, norm, x, padding, documents):
    layer = filled(
        tt.MambaBlock(configured(tt, sizes)),
        {"norm.weight": norm} | {f"mixer.{name}": array for name, array in state.items()},
    )
    x, cache = tt.Tensor(x), tt.mamba.MambaCache()
    found = {"stream": layer(x), "stream_with_padding": layer(x, padding=tt.Tensor(padding))}
    found["stream_of_documents"] = layer(x, documents=tt.Tensor(documents))
    with tt.no_grad():
        found["stream_before_a_cut"] = layer(x[:, :2], cache)
        found["stream_behind_a_cut"] = layer(x[:, 2:], cache)
    return found


# ---- the scan in other orders of the work


def pairs(rng):
    """Decays and what is written at each step, and the gradient of the states."""
    shape = (int(rng.integers(6, 20)), *(int(n) for n in rng.integers(1, 4, 2)))
    return {"a": rng.uniform(0.2, 1, shape), "b": rng.standard_normal(shape), "g": rng.standard_normal(shape)}


@probe("ex-14-6", pairs)
def the_way_back(tt, a, b, g):
    from tinytorch.mamba import recurrence

    scanned = []

    def scan(a, b):
        scanned.append(len(b))
        h = b.copy()
        for t in range(1, len(b)):
            h[t] += a[t] * h[t - 1]
        return h

    by_another = gradients(tt, lambda a, b: recurrence(a, b, scan=scan), a, b, g=g)
    one_step = gradients(tt, recurrence, a[:1], b[:1], g=g[:1])
    return {
        **gradients(tt, recurrence, a, b, g=g),
        **named("by_another_scan", by_another),
        **named("of_one_step", one_step),
        "times_scanned": np.array(len(scanned)),
    }


def decays(rng):
    """Decays, some of them next to nothing, and what is written: sequences of several lengths."""
    found = {}
    for time in (1, 2, 3, int(rng.integers(4, 9)), 16, int(rng.integers(17, 50))):
        a = rng.uniform(0.2, 1, (time, 4))
        a[:, 1] = 10 ** rng.uniform(-60, -20)
        a[rng.random((time, 4)) < 0.1] = 0
        found[time] = a, rng.standard_normal((time, 4))
    return {"sequences": found, "chunk": int(rng.integers(2, 6))}


@probe("ex-14-7", decays)
def states_by_a_tree(tt, sequences, chunk):
    found = {}
    for time, (a, b) in sequences.items():
        h = tt.mamba.blelloch_scan(a, b)
        found |= named(f"of_{time}_steps", {"states": h, "decays_after_it": a.copy(), "written_after_it": b.copy()})
    return found


@probe("ex-14-8", decays)
def states_by_chunks(tt, sequences, chunk):
    found = {}
    for time, (a, b) in sequences.items():
        usual, shorter = tt.mamba.two_level_scan(a, b), tt.mamba.two_level_scan(a, b, chunk)
        found |= named(
            f"of_{time}_steps", {"states": usual, "states_in_short_chunks": shorter, "decays_after_it": a.copy()}
        )
    return found


# ---- one more token


@probe("ex-14-9", mixers)
def one_token_after_the_other(tt, sizes, state, norm, x, padding, documents):
    layer, found = filled(tt.MambaMixer(configured(tt, sizes)), state), {}
    inner = sizes["inner"]
    cache = tt.mamba.MambaCache()
    window = np.resize(x, (len(x), sizes["taps"] - 1, inner)).astype(np.float32)
    cache.update(window, np.resize(x[:, ::-1], (len(x), inner, sizes["state"])).astype(np.float32), 5)
    with tt.no_grad():
        for t in range(3):
            y = layer.step(tt.Tensor(x[:, t : t + 1]), cache)
            held = {"window": cache.window.copy(), "state": cache.state.copy(), "length": np.array(cache.length)}
            found |= named(f"of_token_{t}", {"output": y, **held})
    return found


# ---- Mamba-2


def totals(rng):
    """Sums of logarithms of decays: mild ones, and such that exp of a difference the wrong way round is inf."""
    shape = (int(rng.integers(1, 4)), int(rng.integers(3, 8)))
    return {
        "mild": np.cumsum(-rng.uniform(0.1, 1, shape), -1),
        "strong": np.cumsum(-rng.uniform(400, 1000, shape), -1),
        "g": rng.standard_normal((*shape, shape[-1])),
    }


@probe("ex-14-10", totals)
def decays_between_steps(tt, mild, strong, g):
    from tinytorch.mamba.mamba2 import _decays_between

    found = {"mild": mild, "strong": strong, "of_one_step": mild[:, :1]}
    result = {}
    for name, total in found.items():
        size = total.shape[-1]
        result |= named(name, gradients(tt, _decays_between, total, g=g[:, :size, :size]))
    return result
