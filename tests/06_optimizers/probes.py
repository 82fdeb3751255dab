"""What the grader asks the answers to lesson 06, beside the reference, on inputs that nobody knows before."""

import math

import numpy as np

from tinytorch_course.grading.probes import probe

# ---- rules


def course(rng, **settings):
    """Starting values, the gradients of each step (None where a parameter is passed by), and settings."""
    n, m = rng.integers(2, 5, 2)
    shapes = [(n, m), (1,), (m,)]
    gradients = [[rng.standard_normal(shape) for shape in shapes] for _ in range(5)]
    gradients[0][1] = gradients[3][2] = None
    return {"values": [rng.standard_normal(shape) for shape in shapes], "gradients": gradients, "settings": settings}


def trajectory(tt, rule, values, gradients, settings):
    """The parameters after each step, and what the optimizer then remembers of them."""
    parameters, found = [tt.Parameter(value) for value in values], {}
    optimizer = rule(parameters, **settings)
    for step, of_step in enumerate(gradients, 1):
        for parameter, g in zip(parameters, of_step):
            parameter.grad = None if g is None else tt.Tensor(g)
        optimizer.step()
        found |= {f"parameter_{i}_after_step_{step}": p.data.copy() for i, p in enumerate(parameters)}
    for i, state in optimizer.state_dict()["state"].items():
        found |= {f"{name}_{i}": array for name, array in state.items() if name != "step"}
    return found


def plain(rng):
    return course(rng, lr=rng.uniform(0.01, 0.5), weight_decay=rng.uniform(0.1, 0.5))


@probe("ex-06-1", plain)
def descent_with_weight_decay(tt, values, gradients, settings):
    return trajectory(tt, tt.SGD, values, gradients, settings)


def dampened(rng):
    lr, momentum, dampening = rng.uniform(0.01, 0.5), rng.uniform(0.5, 0.95), rng.uniform(0.1, 0.9)
    return course(rng, lr=lr, momentum=momentum, dampening=dampening)


@probe("ex-06-1", dampened)
def descent_with_dampened_momentum(tt, values, gradients, settings):
    return trajectory(tt, tt.SGD, values, gradients, settings)


def nesterov(rng):
    lr, momentum, weight_decay = rng.uniform(0.01, 0.5), rng.uniform(0.5, 0.95), rng.uniform(0.1, 0.5)
    return course(rng, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=True)


@probe("ex-06-1", nesterov)
def descent_with_momentum_of_nesterov(tt, values, gradients, settings):
    return trajectory(tt, tt.SGD, values, gradients, settings)


def adaptive(rng):
    """A large eps, so that its place is seen; and an element whose gradient is always 0."""
    betas = float(rng.uniform(0.5, 0.9)), float(rng.uniform(0.6, 0.99))
    settings = {"lr": rng.uniform(0.01, 0.5), "betas": betas, "eps": rng.uniform(0.01, 0.1)}
    inputs = course(rng, **settings, weight_decay=rng.uniform(0.1, 0.5))
    for of_step in inputs["gradients"]:
        of_step[0][0, 0] = 0
    return inputs


@probe("ex-06-2", adaptive)
def adam(tt, values, gradients, settings):
    return trajectory(tt, tt.Adam, values, gradients, settings)


@probe("ex-06-2", adaptive)
def adam_without_decay(tt, values, gradients, settings):
    return trajectory(tt, tt.Adam, values, gradients, {**settings, "weight_decay": 0.0})


@probe("ex-06-2", adaptive)
def adam_with_decoupled_decay(tt, values, gradients, settings):
    return trajectory(tt, tt.AdamW, values, gradients, settings)


# ---- clipping and decay


def lengths(rng):
    """Gradients, of which the last is short, and a limit: below and above their joint length, and without an end."""
    gradients = [rng.standard_normal((2, 3)), rng.standard_normal(()), 1e-3 * rng.standard_normal(4)]
    norm = math.sqrt(sum(np.sum(g * g) for g in gradients))
    return {"gradients": gradients, "limits": [norm * rng.uniform(0.2, 0.9), norm * rng.uniform(1.1, 2), math.inf]}


def clipped(tt, gradients, limit):
    """What comes of the gradients of parameters among which one has none."""
    parameters = [tt.Parameter(np.zeros(np.shape(g))) for g in [*gradients, 0.0]]
    for parameter, g in zip(parameters, gradients):
        parameter.grad = tt.Tensor(g.copy())
    norm = tt.clip_grad_norm_(parameters, limit)
    found = {f"gradient_{i}": parameter.grad for i, parameter in enumerate(parameters[:-1])}
    return found | {"norm": norm, "a_tensor": isinstance(norm, tt.Tensor), "none": parameters[-1].grad is None}


@probe("ex-06-3", lengths)
def gradients_clipped(tt, gradients, limits):
    results = [clipped(tt, gradients, limit) for limit in limits]
    return {f"{name}_at_limit_{i}": value for i, found in enumerate(results) for name, value in found.items()}


@probe("ex-06-3", lambda rng: {"g": rng.standard_normal((2, 3)), "i": int(rng.integers(3)), "limit": rng.uniform()})
def gradients_without_a_finite_length(tt, g, i, limit):
    g[1, i] = math.inf
    return clipped(tt, list(g), limit)


def axes(rng):
    """Names, in a new order, for parameters of 0 to 4 axes; and which of them are frozen."""
    names = rng.permutation(
        ["weight", "bias", "scale", "shift", "kernel", "table", "norm", "embedding", "gain", "gate"]
    )
    ndims = [0, 1, 1, 2, 2, 3, 4, *rng.integers(0, 3, 2)]
    return {
        "shapes": {str(name): (2,) * int(ndim) for name, ndim in zip(names, ndims)},
        "frozen": [str(names[1]), str(names[3])],
        "weight_decay": rng.uniform(),
    }


@probe("ex-06-4", axes)
def groups_of_what_decays(tt, shapes, frozen, weight_decay):
    class Mixed(tt.Module):
        def __init__(self):
            for name, shape in shapes.items():
                setattr(self, name, tt.Parameter(np.zeros(shape), requires_grad=name not in frozen))

    model = Mixed()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decaying, spared = tt.decay_groups(model, weight_decay)
    return {
        "decaying": sorted(names[parameter] for parameter in decaying["params"]),
        "spared": sorted(names[parameter] for parameter in spared["params"]),
        "rates_of_decay": [decaying["weight_decay"], spared["weight_decay"]],
    }


# ---- schedules


def sgd(tt, *rates):
    return tt.SGD([{"params": [tt.Parameter(np.zeros(1))], "lr": lr} for lr in rates])


def rates(schedule, base_lr, steps):
    return {"rate_at_each_step": [schedule.lr_at(step, base_lr) for step in range(steps)]}


def stairs(rng):
    return {"lr": rng.uniform(), "step_size": int(rng.integers(2, 6)), "gamma": rng.uniform(0.1, 0.9)}


@probe("ex-06-5", stairs)
def rates_in_stairs(tt, lr, step_size, gamma):
    return rates(tt.StepLR(sgd(tt, lr), step_size, gamma), lr, 4 * step_size)


def line(rng):
    start, end = rng.uniform(0.05, 1, 2)
    return {"lr": rng.uniform(), "start_factor": start, "end_factor": end, "total_iters": int(rng.integers(1, 9))}


@probe("ex-06-6", line)
def rates_on_a_line(tt, lr, start_factor, end_factor, total_iters):
    return rates(tt.LinearLR(sgd(tt, lr), start_factor, end_factor, total_iters), lr, 2 * total_iters + 2)


def half_a_cosine(rng):
    return {"lr": rng.uniform(0.5, 1), "T_max": int(rng.integers(2, 12)), "eta_min": rng.uniform(0.1, 0.4)}


@probe("ex-06-7", half_a_cosine)
def rates_on_half_a_cosine(tt, lr, T_max, eta_min):
    return rates(tt.CosineAnnealingLR(sgd(tt, lr), T_max, eta_min), lr, T_max + 1)


def sequence(rng):
    """Lines with their height and slope, and milestones of which two are the same."""
    milestones = np.cumsum(rng.integers(1, 5, 3)).tolist()
    return {"lr": rng.uniform(), "milestones": [*milestones, milestones[-1]], "lines": rng.uniform(0.1, 1, (5, 2))}


@probe("ex-06-8", sequence)
def rates_of_one_schedule_after_another(tt, lr, milestones, lines):
    optimizer = sgd(tt, lr)
    schedules = [tt.LambdaLR(optimizer, lambda step, a=a, b=b: a + b * step) for a, b in lines]
    return rates(tt.SequentialLR(optimizer, schedules, milestones), lr, milestones[-1] + 4)


def plateaus(rng):
    """Metrics: as many bad ones as are forgiven, twice; some at random, with ties; and a long plateau at the end.

    The lowest rate is above what the first group would come to.
    """
    patience = int(rng.integers(1, 4))
    walk = 0.4 * np.cumprod(rng.choice([0.8, 0.95, 1.0, 1.1], 25))
    settings = {"patience": patience, "cooldown": int(rng.integers(3)), "threshold": rng.uniform(0.01, 0.15)}
    return {
        "metrics": [1.0] * (1 + patience) + [0.5] * (1 + patience) + walk.tolist() + [walk[-1]] * 20,
        "lrs": [rng.uniform(0.1, 0.2), rng.uniform(1, 2)],
        "settings": {**settings, "factor": rng.uniform(0.3, 0.7), "min_lr": rng.uniform(0.08, 0.1)},
    }


def rates_of_each_group(tt, mode, metrics, lrs, settings):
    schedule, found = tt.ReduceLROnPlateau(sgd(tt, *lrs), mode, **settings), []
    for metric in metrics:
        schedule.step(metric)
        found.append(schedule.get_last_lr())
    return {"rates": found, "best": schedule.best}


@probe("ex-06-9", plateaus)
def a_plateau_where_lower_is_better(tt, metrics, lrs, settings):
    return rates_of_each_group(tt, "min", metrics, lrs, settings)


@probe("ex-06-9", plateaus)
def a_plateau_where_higher_is_better(tt, metrics, lrs, settings):
    return rates_of_each_group(tt, "max", [1 / metric for metric in metrics], lrs, settings)
