"""The probes of lesson 14 on seeds that everybody knows, beside plain NumPy."""

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt


def named(settings, arrays):
    return {f"{name}_{settings}": array for name, array in arrays.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


# ---- the scan


def scanned(u, delta, A, B, C, D=None, z=None, initial_state=None, starts=None, *, g):
    """One sequence and one channel at a time: the outputs, and the gradients by the adjoint recursion."""
    (batch, time, channels), given = u.shape, (u, delta, A, B, C, D, z, initial_state)
    y, to = np.zeros(u.shape), [None if x is None else np.zeros(x.shape) for x in given]
    for b, e in np.ndindex(batch, channels):
        decay = np.exp(np.outer(delta[b, :, e], A[e]))  # (T, N)
        if starts is not None:
            decay[starts[b]] = 0
        h = [np.zeros(len(A[e])) if initial_state is None else initial_state[b, e]]
        for t in range(time):
            h.append(decay[t] * h[-1] + delta[b, t, e] * u[b, t, e] * B[b, t])
            y[b, t, e] = h[-1] @ C[b, t] + (0 if D is None else D[e] * u[b, t, e])
        adjoint = np.zeros(len(A[e]))
        for t in reversed(range(time)):
            incoming = g[b, t, e]
            if z is not None:
                s = sigmoid(z[b, t, e])
                to[6][b, t, e] = incoming * y[b, t, e] * s * (1 + z[b, t, e] * (1 - s))
                incoming = incoming * z[b, t, e] * s
            if D is not None:
                to[5][e] += incoming * u[b, t, e]
                to[0][b, t, e] += incoming * D[e]
            adjoint = adjoint + incoming * C[b, t]
            to[4][b, t] += incoming * h[t + 1]
            to[3][b, t] += adjoint * delta[b, t, e] * u[b, t, e]
            to[0][b, t, e] += delta[b, t, e] * (adjoint @ B[b, t])
            kept = adjoint * decay[t] * h[t]  # the gradient of delta A
            to[1][b, t, e] += u[b, t, e] * (adjoint @ B[b, t]) + kept @ A[e]
            to[2][e] += delta[b, t, e] * kept
            adjoint = adjoint * decay[t]
        if initial_state is not None:
            to[7][b, e] = adjoint
    y = y if z is None else y * z * sigmoid(z)
    found = [gradient for gradient in to if gradient is not None]
    return {"output": y, **{f"gradient_{i}": gradient for i, gradient in enumerate(found)}}


def states_along_a_sequence(u, delta, A, B, C, D, z, initial_state, starts, g):
    return {
        **scanned(u, delta, A, B, C, D, z, initial_state, starts, g=g),
        **named("of_one_document", scanned(u, delta, A, B, C, g=g)),
        **named("without_a_gate", scanned(u, delta, A, B, C, D, g=g)),
    }


# ---- the parts of a mixer


def first_step_sizes(n, usual, small, large, seed):
    settings = {
        "unless_told": (1e-3, 0.1, 1e-4),
        "from_other_to_other": (usual, 300 * usual, usual / 10),
        "with_a_floor_between": (usual, 300 * usual, 20 * usual),
        "of_small_ones": (small, 10 * small, small / 10),
        "of_large_ones": (large, 200 * large, small),
    }
    share = np.random.Generator(np.random.PCG64(seed)).random(n, dtype=np.float32).astype(float)
    found = {}
    for name, (low, high, floor) in settings.items():
        dt = np.maximum(low * (high / low) ** share, floor)
        found[f"bias_{name}"] = np.where(dt > 30, dt, np.log(np.expm1(np.minimum(dt, 30)))).astype(np.float32)
    return found


def chosen(u, state, rank):
    """Step sizes, B and C."""
    low, B, C = np.split(u @ state["x_proj.weight"].T, [rank, (rank + len(state["x_proj.weight"])) // 2], axis=-1)
    return softplus(low @ state["dt_proj.weight"].T + state["dt_proj.bias"]), B, C


def what_a_token_chooses(sizes, state, norm, x, padding, documents):
    u = np.concatenate([x] * (sizes["inner"] // sizes["width"]), axis=-1).astype(float)
    return dict(zip(("delta", "B", "C"), (y.astype(np.float32) for y in chosen(u, state, sizes["rank"]))))


def convolved(x, weight, bias=None, documents=None, g=None):
    """One tap at one place at a time, and where its gradient goes."""
    y = np.zeros(x.shape) + (0 if bias is None else bias)
    to_x, to_weight = np.zeros(x.shape), np.zeros(weight.shape)
    for b, t, j in np.ndindex(len(x), x.shape[1], weight.shape[2]):
        source = t - (weight.shape[2] - 1 - j)
        if source >= 0 and (documents is None or documents[b, source] == documents[b, t]):
            y[b, t] += weight[:, 0, j] * x[b, source]
            if g is not None:
                to_x[b, source] += weight[:, 0, j] * g[b, t]
                to_weight[:, 0, j] += x[b, source] * g[b, t]
    to_bias = {} if g is None or bias is None else {"gradient_2": g.sum((0, 1))}
    return {"output": y, "gradient_0": to_x, "gradient_1": to_weight, **to_bias}


def the_last_few_tokens(x, weight, bias, documents, g):
    return {
        **convolved(x, weight, bias, documents, g),
        **named("of_one_document", convolved(x, weight, g=g)),
        **named("of_one_token", convolved(x[:, :1], weight, bias, g=g[:, :1])),
    }


def mixed(x, state, rank, padding=None, documents=None):
    """A mixer, whose padding says nothing and changes nothing."""
    says = 1 if padding is None else ~padding[..., None]
    xi, z = np.split(x @ state["in_proj.weight"].T, 2, axis=-1)
    u = convolved(xi * says, state["conv1d.weight"], state["conv1d.bias"], documents)["output"]
    u = u * sigmoid(u) * says
    delta, B, C = chosen(u, state, rank)
    starts = None if documents is None else np.diff(documents, axis=1, prepend=documents[:, :1]) != 0
    A = -np.exp(state["A_log"].astype(float))
    y = scanned(u, delta * says, A, B, C, state["D"], z, starts=starts, g=np.zeros(u.shape))["output"]
    return y @ state["out_proj.weight"].T


def block(sizes, state, norm, x, padding, documents):
    x = x.astype(float)
    normal = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * norm
    whole = x + mixed(normal, state, sizes["rank"])
    found = {
        "stream": whole,
        "stream_with_padding": x + mixed(normal, state, sizes["rank"], padding),
        "stream_of_documents": x + mixed(normal, state, sizes["rank"], documents=documents),
        "stream_before_a_cut": whole[:, :2],
        "stream_behind_a_cut": whole[:, 2:],
    }
    return {name: y.astype(np.float32) for name, y in found.items()}


# ---- the scan in other orders of the work


def paths(a):
    """(T, T, ...): how what is written at step s acts on the state at step t."""
    time = range(len(a))
    return np.array([[np.prod(a[s + 1 : t + 1], axis=0) * (s <= t) for s in time] for t in time])


def states(a, b):
    return np.einsum("ts...,s...->t...", paths(a), b)


def way_back(a, b, g):
    h, adjoint = states(a, b), np.einsum("ts...,t...->s...", paths(a), g)
    before = np.concatenate([np.zeros_like(b[:1]), h[:-1]])
    return {"output": h, "gradient_0": adjoint * before, "gradient_1": adjoint}


def the_way_back(a, b, g):
    whole = way_back(a, b, g)
    return {
        **whole,
        **named("by_another_scan", whole),
        **named("of_one_step", way_back(a[:1], b[:1], g[:1])),
        "times_scanned": 2,
    }


def states_by_a_tree(sequences, chunk):
    found = {}
    for time, (a, b) in sequences.items():
        found |= named(f"of_{time}_steps", {"states": states(a, b), "decays_after_it": a, "written_after_it": b})
    return found


def states_by_chunks(sequences, chunk):
    found = {}
    for time, (a, b) in sequences.items():
        h = states(a, b)
        found |= named(f"of_{time}_steps", {"states": h, "states_in_short_chunks": h, "decays_after_it": a})
    return found


# ---- one more token


def one_token_after_the_other(sizes, state, norm, x, padding, documents):
    """Each sequence alone, with the window as a list of inputs."""
    batch, inner, numbers, taps = len(x), sizes["inner"], sizes["state"], sizes["taps"]
    windows = np.resize(x, (batch, taps - 1, inner)).astype(float)
    held = np.resize(x[:, ::-1], (batch, inner, numbers)).astype(float)
    found = {}
    for t in range(3):
        xi, z = np.split(x[:, t].astype(float) @ state["in_proj.weight"].T, 2, axis=-1)
        windows = np.concatenate([windows, xi[:, None]], axis=1)
        u = (windows * state["conv1d.weight"][:, 0].T).sum(1) + state["conv1d.bias"]
        u = u * sigmoid(u)
        delta, B, C = chosen(u, state, sizes["rank"])
        decay = np.exp(-delta[..., None] * np.exp(state["A_log"].astype(float)))
        held, windows = decay * held + (delta * u)[..., None] * B[:, None], windows[:, 1:]
        y = np.einsum("ben,bn->be", held, C) + state["D"] * u
        outcome = {
            "output": (y * z * sigmoid(z) @ state["out_proj.weight"].T)[:, None],
            "window": windows,
            "state": held,
        }
        outcome = {name: array.astype(np.float32) for name, array in outcome.items()}
        found |= named(f"of_token_{t}", {**outcome, "length": 6 + t})
    return found


# ---- Mamba-2


def decays_between_steps(mild, strong, g):
    found = {}
    for name, total in {"mild": mild, "strong": strong, "of_one_step": mild[:, :1]}.items():
        size = total.shape[-1]
        y, gradient = np.zeros((*total.shape, size)), np.zeros(total.shape)
        for row, i, j in np.ndindex(y.shape):
            if i >= j:
                y[row, i, j] = np.exp(total[row, i] - total[row, j])
                gradient[row, i] += g[row, i, j] * y[row, i, j]
                gradient[row, j] -= g[row, i, j] * y[row, i, j]
        found |= named(name, {"output": y, "gradient_0": gradient})
    return found


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
