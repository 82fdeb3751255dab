"""The probes of lesson 06 on seeds that everybody knows, beside plain NumPy."""

import math

import numpy as np
import pytest
from probing import assert_agrees, each_probe

import tinytorch as tt

# ---- rules: each running mean as the weighted sum over all gradients so far


def trajectory(rule, values, gradients, settings):
    """`rule(p, gs, settings)`: a parameter after a step, and what is remembered; gs has its gradients up to now."""
    found = {}
    for i, p in enumerate(values):
        gs, remembered = [], {}
        for step, of_step in enumerate(gradients, 1):
            if of_step[i] is not None:
                gs.append(of_step[i])
                p, remembered = rule(p, gs, **settings)
            found[f"parameter_{i}_after_step_{step}"] = p
        found |= {f"{name}_{i}": array for name, array in remembered.items()}
    return found


def sgd(p, gs, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    gs[-1] = g = gs[-1] + weight_decay * p
    if not momentum:
        return p - lr * g, {}
    weights = [(1 - dampening if i else 1) * momentum ** (len(gs) - 1 - i) for i in range(len(gs))]
    velocity = sum(weight * g for weight, g in zip(weights, gs))
    return p - lr * (g + momentum * velocity if nesterov else velocity), {"momentum_buffer": velocity}


def descent(values, gradients, settings):
    return trajectory(sgd, values, gradients, settings)


descent_with_weight_decay = descent_with_dampened_momentum = descent_with_momentum_of_nesterov = descent


def moments(p, gs, lr, betas, eps, weight_decay, decoupled=False):
    """Corrected for their start at 0, the running means are averages whose weights add up to 1."""
    if not decoupled:
        gs[-1] = gs[-1] + weight_decay * p
    recent, long = ([beta ** (len(gs) - 1 - i) for i in range(len(gs))] for beta in betas)
    mean = np.average(gs, axis=0, weights=recent)
    size = np.average(np.square(gs), axis=0, weights=long)
    shrunk = p - lr * weight_decay * p if decoupled else p
    remembered = {"exp_avg": mean * sum(recent) * (1 - betas[0]), "exp_avg_sq": size * sum(long) * (1 - betas[1])}
    return shrunk - lr * mean / (np.sqrt(size) + eps), remembered


def adam(values, gradients, settings):
    return trajectory(moments, values, gradients, settings)


def adam_without_decay(values, gradients, settings):
    return trajectory(moments, values, gradients, {**settings, "weight_decay": 0.0})


def adam_with_decoupled_decay(values, gradients, settings):
    return trajectory(moments, values, gradients, {**settings, "decoupled": True})


# ---- clipping and decay


def clipped(gradients, factor, norm):
    found = {f"gradient_{i}": factor * g for i, g in enumerate(gradients)}
    return found | {"norm": np.float32(norm), "a_tensor": True, "none": True}


def gradients_clipped(gradients, limits):
    norm = np.linalg.norm(np.concatenate([np.ravel(g) for g in gradients]))
    results = [clipped(gradients, factor, norm) for factor in (limits[0] / (norm + 1e-6), 1, 1)]
    return {f"{name}_at_limit_{i}": value for i, found in enumerate(results) for name, value in found.items()}


def gradients_without_a_finite_length(g, i, limit):
    g[1, i] = math.inf
    return clipped(g, 1, math.inf)


def groups_of_what_decays(shapes, frozen, weight_decay):
    wanted = [name for name in sorted(shapes) if name not in frozen]
    decaying = [name for name in wanted if len(shapes[name]) > 1]
    return {
        "decaying": decaying,
        "spared": [name for name in wanted if name not in decaying],
        "rates_of_decay": [weight_decay, 0.0],
    }


# ---- schedules


def rates_in_stairs(lr, step_size, gamma):
    return {"rate_at_each_step": np.repeat([lr, lr * gamma, lr * gamma**2, lr * gamma**3], step_size)}


def rates_on_a_line(lr, start_factor, end_factor, total_iters):
    rising = np.linspace(start_factor, end_factor, total_iters + 1)
    return {"rate_at_each_step": lr * np.append(rising, np.full(total_iters + 1, end_factor))}


def rates_on_half_a_cosine(lr, T_max, eta_min):
    share = np.cos(np.linspace(0, np.pi / 2, T_max + 1)) ** 2
    return {"rate_at_each_step": share * lr + (1 - share) * eta_min}


def rates_of_one_schedule_after_another(lr, milestones, lines):
    found = []
    for begins, ends, (a, b) in zip([0, *milestones], [*milestones, milestones[-1] + 4], lines):
        found += [lr * (a + b * step) for step in range(ends - begins)]
    return {"rate_at_each_step": found}


def a_plateau(better, metrics, lrs, settings):
    """Bad steps are those since `since`: the last improvement, reduction or step of rest."""
    rates, best, since, rests_until = [np.array(lrs)], None, 0, -1
    for step, metric in enumerate(metrics):
        if best is None or better(metric, best, settings["threshold"]):
            best, since = metric, step
        if step <= rests_until:
            since = step
        lowered = rates[-1]
        if step - since > settings["patience"]:
            lowered = np.maximum(lowered * settings["factor"], settings["min_lr"])
            since, rests_until = step, step + settings["cooldown"]
        rates.append(lowered)
    return {"rates": rates[1:], "best": best}


def a_plateau_where_lower_is_better(metrics, lrs, settings):
    return a_plateau(lambda new, best, share: (best - new) / best > share, metrics, lrs, settings)


def a_plateau_where_higher_is_better(metrics, lrs, settings):
    metrics = [1 / metric for metric in metrics]
    return a_plateau(lambda new, best, share: (new - best) / best > share, metrics, lrs, settings)


@each_probe(__file__)
@pytest.mark.parametrize("seed", range(3))
def test_a_probe_agrees_with_plain_numpy(probe, seed):
    assert_agrees(probe, tt, globals()[probe.name], seed)
