"""Learning-rate schedules. `lr_at(step, base_lr)` is a closed form, so that a run can take up at any step."""

import bisect
import math

from ..layers import require_positive


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
        """The rate after `step` steps: a factor of gamma for each whole `step_size` of them."""
        return base_lr * self.gamma ** (step // self.step_size)


class ConstantLR(LRScheduler):
    """base_lr * factor for `total_iters` steps, base_lr from then on."""

    def __init__(self, optimizer, factor=1 / 3, total_iters=5):
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return base_lr * (self.factor if step < self.total_iters else 1)


class ExponentialLR(LRScheduler):
    """base_lr * gamma ** step."""

    def __init__(self, optimizer, gamma):
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return base_lr * self.gamma**step


class MultiStepLR(LRScheduler):
    """base_lr * gamma ** (number of milestones reached)."""

    def __init__(self, optimizer, milestones, gamma=0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return base_lr * self.gamma ** bisect.bisect_right(self.milestones, step)


class PolynomialLR(LRScheduler):
    """base_lr * (1 - step / total_iters) ** power, and 0 from `total_iters` on."""

    def __init__(self, optimizer, total_iters=5, power=1.0):
        require_positive(total_iters=total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        return base_lr * (1 - min(step / self.total_iters, 1)) ** self.power


class LinearLR(LRScheduler):
    """From start_factor to end_factor times base_lr in `total_iters` equal steps: a warm-up."""

    def __init__(self, optimizer, start_factor=1 / 3, end_factor=1.0, total_iters=5):
        require_positive(total_iters=total_iters)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        """The rate after `step` steps: on a line from start_factor to end_factor, where it stays."""
        done = min(step / self.total_iters, 1)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


def _falling_cosine(done):
    """Half a cosine from 1 to 0, as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base_lr down to eta_min in T_max steps (Loshchilov and Hutter, arXiv:1608.03983)."""

    def __init__(self, optimizer, T_max, eta_min=0.0):
        require_positive(T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        """The rate after `step` steps: base_lr at 0, eta_min at T_max, half a cosine between them."""
        return self.eta_min + (base_lr - self.eta_min) * _falling_cosine(step / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosines that start again: the first takes T_0 steps, each next one T_mult times as many (arXiv:1608.03983)."""

    def __init__(self, optimizer, T_0, T_mult=1, eta_min=0.0):
        require_positive(T_0=T_0, T_mult=T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        length = self.T_0
        while step >= length:
            step, length = step - length, length * self.T_mult
        return self.eta_min + (base_lr - self.eta_min) * _falling_cosine(step / length)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr in the first `pct_start` of the steps, then down to next to nothing.

    Both ways along half a cosine; the end is max_lr / (div_factor * final_div_factor). Unlike PyTorch's default,
    momentum stays as it is. Source: Smith and Topin, arXiv:1708.07120.
    """

    def __init__(self, optimizer, max_lr, total_steps, pct_start=0.3, div_factor=25.0, final_div_factor=1e4):
        require_positive(total_steps=total_steps)
        if not 0 <= pct_start < 1:
            raise ValueError(f"OneCycleLR needs pct_start of at least 0 and below 1, but got {pct_start}.")
        self.max_lr, self.total_steps = max_lr, total_steps
        self.lowest, self.last = max_lr / div_factor, max_lr / div_factor / final_div_factor
        self.peak = pct_start * total_steps - 1
        super().__init__(optimizer)

    def lr_at(self, step, base_lr):
        if step < self.peak:
            return self.max_lr + (self.lowest - self.max_lr) * _falling_cosine(step / self.peak)
        done = min(1, (step - self.peak) / (self.total_steps - 1 - self.peak))
        return self.last + (self.max_lr - self.last) * _falling_cosine(done)


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
        """The rate of the schedule whose turn it is, asked with the steps since its turn began, at its milestone."""
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


class ReduceLROnPlateau:
    """Multiplies the rates by `factor` where a metric has not improved for more than `patience` steps.

    Call `step(metric)` after each evaluation. mode: 'min' where lower is better, 'max' where higher is. An improvement
    is one by more than `threshold` of the best (a fraction). After a reduction, `cooldown` steps are not counted.
    """

    def __init__(self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, cooldown=0, min_lr=0.0):
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau needs mode='min' or 'max', but got {mode!r}.")
        if not 0 <= factor < 1:
            raise ValueError(f"ReduceLROnPlateau needs a factor of at least 0 and below 1, but got {factor}.")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.cooldown, self.min_lr = threshold, cooldown, min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_steps = self.resting = 0

    def step(self, metric):
        """Take note of a metric (a number), and lower the rates where it has stood still for too long."""
        metric = float(metric)
        if self.mode == "min":
            improved = metric < self.best * (1 - self.threshold)
        else:
            improved = metric > self.best * (1 + self.threshold)
        if improved:
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.resting:
            self.resting, self.bad_steps = self.resting - 1, 0
        if self.bad_steps > self.patience:
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] * self.factor, self.min_lr)
            self.resting, self.bad_steps = self.cooldown, 0

    def get_last_lr(self):
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        return {"best": self.best, "bad_steps": self.bad_steps, "resting": self.resting}

    def load_state_dict(self, state_dict):
        self.best, self.bad_steps = state_dict["best"], state_dict["bad_steps"]
        self.resting = state_dict["resting"]
