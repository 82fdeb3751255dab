"""What can go wrong while a model trains, and what is done about it."""

import dataclasses
import enum
import math

from ..layers import require_positive
from .fields import require_field, require_types


class FailureKind(enum.StrEnum):
    """What went wrong; each is the name of the field of FailureConfig that says what is done about it."""

    EXPLODING_GRADIENT = "exploding_gradient"
    NOT_FINITE = "not_finite"
    DIVERGENCE = "divergence"
    OUT_OF_MEMORY = "out_of_memory"
    CORRUPT_CHECKPOINT = "corrupt_checkpoint"


ACTIONS = {
    FailureKind.EXPLODING_GRADIENT: ("clip", "skip", "halve_lr", "reload", "raise"),
    FailureKind.NOT_FINITE: ("skip", "halve_lr", "reload", "raise"),
    FailureKind.DIVERGENCE: ("halve_lr", "skip", "reload", "raise"),
    FailureKind.OUT_OF_MEMORY: ("halve_batch", "skip", "raise"),
    FailureKind.CORRUPT_CHECKPOINT: ("reload", "raise"),
}


@dataclasses.dataclass(frozen=True)
class FailureConfig:
    """What is done about each kind of failure, and where it begins.

    "raise" ends training with the reason. "skip" leaves the step out. "halve_lr" leaves it out and goes on at half the
    learning rate. "reload" goes back to the newest whole checkpoint, and on from there at half the rate (of a corrupt
    checkpoint: takes the newest whole one in its place). "clip" makes the step with the gradient that max_grad_norm
    leaves of it. "halve_batch" computes the same step in pieces of half as many rows.
    max_gradient_norm: a longer gradient explodes. max_loss_rise: a loss that is higher than the lowest so far by more
    than this diverges. max_recoveries: how many steps may be given up before one succeeds that is further than they
    were; the next failure then ends training.
    """

    exploding_gradient: str = "clip"
    not_finite: str = "skip"
    divergence: str = "halve_lr"
    out_of_memory: str = "halve_batch"
    corrupt_checkpoint: str = "reload"
    max_gradient_norm: float = 100.0
    max_loss_rise: float = 100.0
    max_recoveries: int = 3

    def __post_init__(self):
        require_types(self)
        for kind, actions in ACTIONS.items():
            known = getattr(self, kind) in actions
            require_field(self, kind.value, known, f"one of {', '.join(actions)}")
        require_field(self, "max_gradient_norm", self.max_gradient_norm > 0, "above 0")
        require_field(self, "max_loss_rise", self.max_loss_rise > 0, "above 0")
        require_positive(max_recoveries=self.max_recoveries)


@dataclasses.dataclass(frozen=True)
class Failure:
    """One thing that went wrong: its kind, what happened in words, and the exception that "raise" raises."""

    kind: FailureKind
    message: str
    error: Exception


class TrainingFailed(RuntimeError):
    """Training that cannot go on: a failure whose action is "raise", or too many of them in a row."""


def find_failure(loss, norm, lowest, settings):
    """The Failure that the joint length of a gradient and the loss of a step show, or None where all is well.

    lowest: the lowest loss of a step so far. Both numbers are finite: what is not was found before.
    """
    if loss > lowest + settings.max_loss_rise:
        kind = FailureKind.DIVERGENCE
        message = (
            f"The loss is {loss:.4g}, more than {settings.max_loss_rise:g} above the lowest so far, {lowest:.4g}. "
            "Most likely the learning rate is too high."
        )
    elif norm > settings.max_gradient_norm:
        kind = FailureKind.EXPLODING_GRADIENT
        message = f"The gradient has the length {norm:.4g}, more than max_gradient_norm={settings.max_gradient_norm:g}."
    else:
        return None
    return Failure(kind, message, TrainingFailed(message))


class Recoveries:
    """Counts the steps that were given up one after another, and says when it is enough."""

    def __init__(self, limit):
        self.limit, self.story, self.furthest = limit, [], -math.inf

    def give_up(self, step, failure, action, hint):
        """Note that `step` was given up, and how.

        Raises TrainingFailed, with the story and a hint what to do, where it is once too often.
        """
        if len(self.story) == self.limit:
            raise TrainingFailed(
                f"{failure.message} That is once too often after max_recoveries={self.limit} steps in a row that were "
                f"given up. {' '.join(self.story)} {hint}"
            ) from failure.error
        self.story.append(f"Step {step} ({action}): {failure.message}")
        self.furthest = max(self.furthest, step)

    def succeed(self, step):
        """Note that `step` was made. Only a step further than those given up ends the row: reloading goes back."""
        if step > self.furthest:
            self.story.clear()
