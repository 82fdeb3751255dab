"""The probes of lesson 07 on seeds that everybody knows, beside plain NumPy."""

import itertools
import math

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt

# ---- evaluation


def evaluation(w, targets, weights):
    loss = np.average(np.mean((w - targets) ** 2, axis=1), weights=weights)
    return {
        "loss_True": loss,
        "modes_after_True": [True, False],
        "loss_False": loss,
        "modes_after_False": [False, False],
        "modes_and_graphs": np.full((2 * len(targets), 3), False),
        "no_gradient": True,
    }


def evaluation_that_fails(w, targets, weights):
    return {"without_batches": "ValueError", "a_broken_loss": "KeyError", "training_after": True}


def losses_with_and_without_a_weight(value, weight, batch):
    return {
        "losses": [value * batch] * 6,
        "weights": [1, weight, math.ceil(weight), weight, float(np.float32(weight)), weight],
        "kinds": ["float"] * 6,
    }


def losses_that_are_refused(value, weight, batch):
    return {"outcomes": ["TypeError"] * 4 + ["ValueError"] * 4}


# ---- batches without end


def passes_without_end(batches, seed):
    rng, n = np.random.default_rng(seed), len(batches)
    orders = np.repeat([rng.permutation(n) for _ in range(3)], n, axis=0)[: 2 * n + 2]
    taken = np.arange(2 * n + 2) % n
    return {
        "batches": [batches[order[i]] for order, i in zip(orders, taken)],
        "taken": taken + 1,
        "orders_from_what_is_kept": orders,
    }


def passes_over_a_list(batches, seed):
    n = len(batches)
    rows = [*zip(batches, range(1, n + 1)), (batches[0], 1), (batches[1], 2)]
    return {"batches_and_taken": rows, "nothing_began": True}


def a_loader_that_is_used_up(batches, seed):
    return {"batches": batches, "used_up": "ValueError", "empty": "ValueError"}


# ---- one step


def trained(w, targets, weights, stale, lr, settings):
    """Each step as one large batch: (w - t) ** 2 averaged over its targets t."""
    batches, found = itertools.cycle(zip(targets, weights)), []
    for step in range(4):
        ts, shares = zip(*itertools.islice(batches, settings["accumulate"]))
        loss = np.average([np.mean((w - t) ** 2) for t in ts], weights=shares) + 1.5
        g = np.average([2 / len(w) * (w - t) for t in ts], axis=0, weights=shares)
        norm, rate = np.linalg.norm(g), lr / (1 + step)
        w = w - rate * g * min(1, settings.get("clip_norm", math.inf) / (norm + 1e-6))
        found.append((loss, w, rate, norm))
    losses, ws, rates, norms = zip(*found)
    history = {"step": [1, 2, 3, 4], "loss": losses, "lr": rates, "grad_norm": np.float32(norms)}
    return {"losses": losses, "weights_after_each_step": ws, "other": 0.5, "count": 4, **history}


steps_of_several_batches = steps_that_are_clipped = trained


def steps_that_are_refused(w, targets, weights):
    found = {}
    for name in ("loss", "gradient"):
        found[f"outcome_{name}"] = "FloatingPointError"
        found[f"weights_{name}"] = w
        found[f"counts_{name}"] = [0, 0, 0]
    return found


# ---- checkpoints


def the_best_up_to_each_checkpoint(scores, torn, steps):
    competing = [i for i, score in enumerate(scores) if i != torn and score is not None and score == score]
    names = ["none"]
    for until in (steps[-1], *steps):
        earlier = [i for i in competing if steps[i] <= until]
        best = min(earlier, key=lambda i: scores[i], default=None)  # the first of equals
        names.append("none" if best is None else f"step-{steps[best]:08d}")
    return {"names": names}


def the_newest_whole_checkpoint(steps, w, file):
    return {
        "w": w[::-1],
        "notes": steps[::-1],
        "said_so": [False, *[True, True], *[True, True, True]],
        "all_torn": "CheckpointError",
        "empty": "CheckpointError",
    }


def a_checkpoint_that_is_named(steps, w, file):
    return {"w": w[1], "note": steps[1], "torn": "CheckpointError"}


# ---- going on


def never_stopped(w, batches, seeds, stop):
    """The run of the first trainer, whole."""
    noise, order = map(np.random.default_rng, seeds[0])
    w, velocity, found, waiting = w[0], 0, [], []
    for step in range(stop + len(batches) + 1):
        waiting = waiting or [batches[i] for i in order.permutation(len(batches))]
        away = w - waiting.pop(0) - noise.standard_normal(w.shape)
        g, rate = 2 / len(w) * away, 0.1 / (1 + step)
        velocity = 0.9 * velocity + g
        w = w - rate * velocity
        found.append((np.mean(away**2), rate, np.linalg.norm(g)))
    losses, rates, norms = zip(*found)
    return {
        "resumed_at": [stop, stop],
        "step": np.arange(1, len(found) + 1),
        "loss": losses,
        "lr": rates,
        "grad_norm": np.float32(norms),
        "weights": w,
        "random_numbers": [noise.random(), order.random()],
    }


a_run_that_stops_within_a_pass = a_run_that_stops_between_passes = never_stopped


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
