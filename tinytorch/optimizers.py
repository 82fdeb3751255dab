"""Module 06: optimizers, gradient clipping and learning-rate schedules, with PyTorch's names, defaults and state.

An optimizer lays the parameters of a group side by side in one buffer, and each `Parameter.data` becomes a view into
it: an update is a handful of array expressions, however many parameters there are.
"""

import bisect
import itertools
import math

import numpy as np

from . import device as devices
from .layers import _zero_grad, require_positive
from .tensor import Tensor

BLOCK = 1 << 15  # elements updated at a time, so that the passes of one update stay in the processor's cache


class FlatParameters:
    """Parameters of one dtype and device side by side in one buffer, with their gradients and optimizer state."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.ends = list(itertools.accumulate(parameter.numel() for parameter in parameters))
        self.starts = [0, *self.ends[:-1]]
        self.steps = [0] * len(parameters)
        self.state = {}
        self.adopt()

    def adopt(self):
        """Copy the parameters into a new buffer and make them views of it."""
        self.data = np.concatenate([parameter.data.reshape(-1) for parameter in self.parameters])
        for parameter, start, end in zip(self.parameters, self.starts, self.ends):
            parameter.data = self.data[start:end].reshape(parameter.shape)
        self.views = [parameter.data for parameter in self.parameters]
        self.grad = np.empty_like(self.data)

    def is_foreign(self):
        """Whether somebody gave a parameter an array of another dtype or device."""
        kind = (self.data.dtype, devices.device_of(self.data))
        return any((parameter.dtype, parameter.device) != kind for parameter in self.parameters)

    def buffer(self, name):
        """The state called `name`, one number per element, zeros at first."""
        if name not in self.state:
            self.state[name] = np.zeros_like(self.data)
        return self.state[name]

    def runs(self):
        """Gather the gradients; yield (step, slice) for each stretch of neighbours that have one and the same age."""
        if any(parameter.data is not view for parameter, view in zip(self.parameters, self.views)):
            self.adopt()  # somebody assigned a new array
        fresh = [parameter.grad is not None for parameter in self.parameters]
        for i in itertools.compress(range(len(fresh)), fresh):
            parameter = self.parameters[i]
            if parameter.grad.shape != parameter.shape:
                raise ValueError(f"A parameter of shape {parameter.shape} has a gradient of {parameter.grad.shape}.")
            self.grad[self.starts[i] : self.ends[i]] = parameter.grad.data.reshape(-1)
            self.steps[i] += 1
        for (has_grad, step), run in itertools.groupby(range(len(fresh)), key=lambda i: (fresh[i], self.steps[i])):
            if has_grad:
                run = list(run)
                yield step, slice(self.starts[run[0]], self.ends[run[-1]])


class Optimizer:
    """The frame of an optimizer: groups of parameters with settings, and `update` for one stretch of numbers.

    `params`: parameters, or dicts {"params": [...], "lr": ...} whose settings differ by group.
    """

    def __init__(self, params, **defaults):
        params = list(params)
        if not params:
            raise ValueError("An optimizer needs parameters, but got none. Pass model.parameters().")
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        everything = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in everything:
            if not (isinstance(parameter, Tensor) and parameter.is_leaf and parameter.dtype.kind == "f"):
                raise TypeError(f"An optimizer needs floating point leaves as parameters, but got {parameter!r}.")
        if len(set(everything)) < len(everything):
            raise ValueError("A parameter was given twice. Give each to one group, once.")
        for group in self.param_groups:
            self.check(group)
        self._flats = [_by_kind(group["params"]) for group in self.param_groups]

    def check(self, group):
        """Raise ValueError for settings out of range."""
        for name in ("lr", "weight_decay", "eps", "momentum"):
            if group.get(name, 0) < 0 or not math.isfinite(group.get(name, 0)):
                raise ValueError(f"{type(self).__name__} needs {name} of at least 0, but got {group[name]}.")

    def zero_grad(self, set_to_none=True):
        """Forget the gradients, or fill them with zeros."""
        _zero_grad((parameter for group in self.param_groups for parameter in group["params"]), set_to_none)

    def step(self):
        """Change every parameter that has a gradient."""
        if any(flat.is_foreign() for flats in self._flats for flat in flats):
            saved = self.state_dict()
            self._flats = [_by_kind(group["params"]) for group in self.param_groups]
            self.load_state_dict(saved)
        for group, flats in zip(self.param_groups, self._flats):
            for flat in flats:
                for step, run in flat.runs():
                    state = [flat.buffer(name) for name in self.state_names(group)]
                    for start in range(run.start, run.stop, BLOCK):
                        block = slice(start, min(start + BLOCK, run.stop))
                        self.update(group, step, flat.data[block], flat.grad[block], *(s[block] for s in state))

    def state_names(self, group):
        """The names of the numbers that are kept per element."""
        return ()

    def update(self, group, step, p, g, *state):
        """Change p, and the state, in place. g is a scratch copy of the gradient that may be overwritten."""
        raise NotImplementedError(f"{type(self).__name__} needs an update method.")

    # ---- saving and loading, in PyTorch's form

    def state_dict(self):
        """{"state": {number: {name: array}}, "param_groups": [{settings, "params": [numbers]}]}."""
        state, groups, number = {}, [], itertools.count()
        for group, flats in zip(self.param_groups, self._flats):
            numbers = {parameter: next(number) for parameter in group["params"]}
            for flat in flats:
                for parameter, step, start, end in zip(flat.parameters, flat.steps, flat.starts, flat.ends):
                    if step:
                        saved = {
                            name: buffer[start:end].reshape(parameter.shape) for name, buffer in flat.state.items()
                        }
                        state[numbers[parameter]] = {"step": step, **saved}
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append({**settings, "params": list(numbers.values())})
        return {"state": state, "param_groups": groups}

    def check_state_dict(self, state_dict):
        """Raise ValueError, with what differs, where `state_dict` is of other parameters or another optimizer."""
        saved = [len(group["params"]) for group in state_dict["param_groups"]]
        own = [len(group["params"]) for group in self.param_groups]
        if saved != own:
            raise ValueError(f"The optimizer has groups of {own} parameters, but the state dict has {saved}.")
        for name in ("amsgrad", "maximize"):
            if any(group.get(name) for group in state_dict["param_groups"]):
                raise ValueError(f"{type(self).__name__} cannot go on with a state dict that has {name}=True.")
        state = _entries(state_dict)
        if foreign := state.keys() - set(range(sum(own))):
            raise ValueError(f"The optimizer has {sum(own)} parameters, but the state dict has numbers {foreign}.")
        number = itertools.count()
        for group, theirs in zip(self.param_groups, state_dict["param_groups"]):
            wanted = set(self.state_names({**group, **theirs}))
            for parameter, i in zip(group["params"], number):
                given = state.get(i, {}).keys() - {"step"}
                if i in state and given != wanted:
                    raise ValueError(
                        f"{type(self).__name__} keeps {sorted(wanted)} for each parameter, but the state dict has "
                        f"{sorted(given)} for number {i}. Is it of another optimizer?"
                    )
                for name in given:
                    if np.shape(state[i][name]) != parameter.shape:
                        raise ValueError(
                            f"Parameter {i} has shape {parameter.shape}, but its {name} has {np.shape(state[i][name])}."
                        )

    def load_state_dict(self, state_dict):
        """Take over the state and settings of `state_dict`, ours or PyTorch's with arrays for tensors.

        Raises ValueError, and changes nothing, where it is of other parameters or of another optimizer.
        """
        self.check_state_dict(state_dict)
        state, number = _entries(state_dict), itertools.count()
        for group, theirs, flats in zip(self.param_groups, state_dict["param_groups"], self._flats):
            group.update({name: value for name, value in theirs.items() if name != "params"})
            numbers = {parameter: next(number) for parameter in group["params"]}
            for flat in flats:
                flat.state.clear()
                for i, parameter in enumerate(flat.parameters):
                    entries = dict(state.get(numbers[parameter], {}))
                    flat.steps[i] = int(entries.pop("step", bool(entries)))  # PyTorch's SGD keeps no count
                    for name, value in entries.items():
                        flat.buffer(name)[flat.starts[i] : flat.ends[i]] = np.asarray(value).reshape(-1)


def _entries(state_dict):
    """{number: {name: array}} without the entries that PyTorch leaves as None."""
    return {
        int(number): {name: value for name, value in entries.items() if value is not None}
        for number, entries in state_dict["state"].items()
    }


def _by_kind(parameters):
    """One buffer for each dtype and device among the parameters."""
    kinds = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return [FlatParameters(same) for same in kinds.values()]


class SGD(Optimizer):
    """p -= lr * g, with momentum (Polyak 1964; Nesterov 1983 where asked for) and L2 weight decay."""

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        if nesterov and (momentum <= 0 or dampening):
            raise ValueError("Nesterov's momentum needs momentum > 0 and dampening = 0.")
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    def state_names(self, group):
        return ("momentum_buffer",) if group["momentum"] else ()

    def update(self, group, step, p, g, velocity=None):
        if group["weight_decay"]:
            g += group["weight_decay"] * p
        if velocity is not None:
            velocity *= group["momentum"]
            velocity += g if step == 1 else (1 - group["dampening"]) * g
            g = g + group["momentum"] * velocity if group["nesterov"] else velocity
        p -= group["lr"] * g


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1), with L2 weight decay in the gradient."""

    decoupled = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def check(self, group):
        super().check(group)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"{type(self).__name__} needs two betas in [0, 1), but got {group['betas']}.")

    def state_names(self, group):
        return "exp_avg", "exp_avg_sq"

    def update(self, group, step, p, g, m, v):
        lr, (beta1, beta2) = group["lr"], group["betas"]
        if group["weight_decay"] and self.decoupled:
            p *= 1 - lr * group["weight_decay"]
        elif group["weight_decay"]:
            g += group["weight_decay"] * p
        m *= beta1
        scratch = g * (1 - beta1)
        m += scratch
        v *= beta2
        np.square(g, out=scratch)
        scratch *= 1 - beta2
        v += scratch
        np.sqrt(v, out=scratch)
        scratch /= math.sqrt(1 - beta2**step)
        scratch += group["eps"]
        np.divide(m, scratch, out=scratch)
        scratch *= lr / (1 - beta1**step)
        p -= scratch


class AdamW(Adam):
    """Adam whose weight decay acts on the weights and not on the gradient (Loshchilov and Hutter, arXiv:1711.05101)."""

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)


def clip_grad_norm_(parameters, max_norm):
    """Scale all gradients so that their joint length is at most `max_norm`. Returns the length before, a tensor.

    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_ needs max_norm above 0, but got {max_norm}.")
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    grads = [parameter.grad.data for parameter in parameters if parameter.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads))
    if max_norm < norm < math.inf:
        for grad in grads:
            grad *= max_norm / (norm + 1e-6)
    return Tensor(norm)


# ---- schedules


class LRScheduler:
    """The frame of a schedule: `lr_at(step, base_lr)` says the rate; `step()` after each optimizer step applies it."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._apply()

    def lr_at(self, step, base_lr):
        raise NotImplementedError(f"{type(self).__name__} needs a method lr_at(step, base_lr).")

    def step(self):
        """Count one step and set the optimizer's learning rates."""
        self.last_epoch += 1
        self._apply()

    def _apply(self):
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = self.lr_at(self.last_epoch, base_lr)
            self.optimizer.check(group)

    def get_last_lr(self):
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def check_state_dict(self, state_dict):
        """Raise ValueError where the state belongs to an optimizer with other groups."""
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"The schedule is of {len(self.base_lrs)} groups, but the state dict of {len(state_dict['base_lrs'])}."
            )

    def load_state_dict(self, state_dict):
        self.check_state_dict(state_dict)
        self.last_epoch = state_dict["last_epoch"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._apply()


class LambdaLR(LRScheduler):
    """base_lr * lr_lambda(step)."""

    def __init__(self, optimizer, lr_lambda):
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return base_lr * self.lr_lambda(step)


class StepLR(LRScheduler):
    """base_lr * gamma ** (number of whole `step_size`s)."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        require_positive(step_size=step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return base_lr * self.gamma ** (step // self.step_size)


class LinearLR(LRScheduler):
    """From start_factor to end_factor times base_lr in `total_iters` equal steps: a warm-up."""

    def __init__(self, optimizer, start_factor=1 / 3, end_factor=1.0, total_iters=5):
        require_positive(total_iters=total_iters)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        done = min(step / self.total_iters, 1)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base_lr down to eta_min in T_max steps (Loshchilov and Hutter, arXiv:1608.03983)."""

    def __init__(self, optimizer, T_max, eta_min=0.0):
        require_positive(T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return self.eta_min + (base_lr - self.eta_min) * 0.5 * (1 + math.cos(math.pi * step / self.T_max))


class SequentialLR(LRScheduler):
    """One schedule after another, each starting anew at its milestone: a warm-up, then a cosine."""

    def __init__(self, optimizer, schedulers, milestones):
        if not schedulers:
            raise ValueError("SequentialLR needs at least one schedule, but got none.")
        if sorted(milestones) != list(milestones):
            raise ValueError(f"SequentialLR needs milestones in rising order, but got {milestones}.")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{len(schedulers)} schedules need {len(schedulers) - 1} milestones, not {len(milestones)}."
            )
        self.schedulers, self.milestones = schedulers, milestones
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        i = bisect.bisect_right(self.milestones, step)
        return self.schedulers[i].lr_at(step - (self.milestones[i - 1] if i else 0), base_lr)


def warmup_cosine(optimizer, warmup_steps, total_steps, eta_min=0.0):
    """The usual schedule of transformers: up in a line for `warmup_steps`, then down half a cosine until the end."""
    if not 0 < warmup_steps < total_steps:
        raise ValueError(f"warmup_cosine needs 0 < warmup_steps < total_steps, but got {warmup_steps}, {total_steps}.")
    warmup = LinearLR(optimizer, 1 / (warmup_steps + 1), 1.0, warmup_steps)
    return SequentialLR(
        optimizer, [warmup, CosineAnnealingLR(optimizer, total_steps - warmup_steps, eta_min)], [warmup_steps]
    )
