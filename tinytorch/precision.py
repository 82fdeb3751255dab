"""Module 17: training with numbers of 16 bits (Micikevicius et al. 2018, arXiv:1710.03740), as PyTorch's torch.amp.

Simulated: NumPy has no fast products of 16-bit matrices, so the numbers are those of the low type, but lie in float32.
What is shown is what the type does to training; there is neither speed nor memory to gain.
"""

import contextlib
import math

import numpy as np

from .tensor import LOW_TYPES, autocast_mode, from_bfloat16_bits, round_to, to_bfloat16_bits

__all__ = ["GradScaler", "autocast", "from_bfloat16_bits", "round_to", "to_bfloat16_bits"]

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # that a scale can be


@contextlib.contextmanager
def autocast(dtype="bfloat16"):
    """Round what goes into products of matrices, and what comes out of them, to `dtype`: `with autocast("float16"):`.

    Concerns linear layers, matmul, einsum, convolutions and attention, with float32 inputs; their gradients are rounded
    too, although `backward` runs outside. All else (softmax, norms, losses, the selective scan, the optimizer and its
    weights) stays float32; `ssd` is made of products of matrices, and does not. Simulated: the numbers are those of the
    low type, the arrays are float32, so it costs time and saves no memory.
    dtype: "bfloat16", "float16", or "float32" or None, which switch it off, also inside another one.
    Holds for the thread that enters it. Raises ValueError for other types.
    """
    if dtype not in (*LOW_TYPES, "float32", None):
        raise ValueError(f"autocast needs 'bfloat16', 'float16', or 'float32' for none, but got {dtype!r}.")
    before = autocast_mode.dtype
    autocast_mode.dtype = dtype if dtype in LOW_TYPES else None
    try:
        yield
    finally:
        autocast_mode.dtype = before


class GradScaler:
    """Scales the loss up, so that its gradients do not vanish in float16, which ends at 6e-8; then scales them down.

    As torch.amp.GradScaler, in each step::

        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # before clipping, which needs the true length; left out where nothing is clipped
        clip_grad_norm_(parameters, 1.0)
        if scaler.step(optimizer):  # not where a gradient is infinite or NaN
            schedule.step()
        scaler.update()

    Where a gradient is not finite, the step is skipped and the scale multiplied by `backoff_factor`; after
    `growth_interval` good steps in a row, by `growth_factor`. So it overflows now and then, which is how it finds the
    largest scale that works: `with np.errstate(over="ignore", invalid="ignore"):` around backward() keeps NumPy quiet.
    enabled=False makes it pass everything through.
    Raises ValueError for factors that do not grow or shrink. Source: Micikevicius et al. 2018, section 3.2.
    """

    def __init__(self, init_scale=2.0**16, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True):
        if not 0 < init_scale < math.inf or not 1 < growth_factor < math.inf or not 0 < backoff_factor < 1:
            raise ValueError(
                "GradScaler needs init_scale above 0, growth_factor above 1 and backoff_factor between 0 and 1, but "
                f"got {init_scale}, {growth_factor} and {backoff_factor}."
            )
        if isinstance(growth_interval, bool) or not isinstance(growth_interval, int) or growth_interval < 1:
            raise ValueError(f"growth_interval needs an integer of at least 1, but got {growth_interval!r}.")
        self._scale, self._enabled = float(init_scale), bool(enabled)
        self._growth_factor, self._backoff_factor = float(growth_factor), float(backoff_factor)
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._finite = {}  # {optimizer: whether its gradients, unscaled since the last update, are all finite}
        self._stepped = set()

    def is_enabled(self):
        return self._enabled

    def get_scale(self):
        """The factor that losses are multiplied by; 1.0 where the scaler is not enabled."""
        return self._scale if self._enabled else 1.0

    def scale(self, loss):
        """The loss, a tensor, times the scale."""
        return loss * self._scale if self._enabled else loss

    def unscale_(self, optimizer):
        """Divide the gradients of the optimizer's parameters by the scale, in place. Returns whether all are finite.

        Raises RuntimeError where that was done since the last update.
        """
        if not self._enabled:
            return True
        if optimizer in self._stepped:
            raise RuntimeError("unscale_() comes before step(), and was called after it. Call update() in between.")
        if optimizer in self._finite:
            raise RuntimeError("unscale_() was called a second time for this optimizer. Call update() in between.")
        gradients = _gradients(optimizer)
        if not gradients:
            raise ValueError("No parameter of this optimizer has a gradient. Call scale(loss).backward() first.")
        finite = True
        for gradient in gradients:
            gradient /= self._scale
            finite = finite and bool(np.all(np.isfinite(gradient)))
        self._finite[optimizer] = finite
        return finite

    def step(self, optimizer):
        """Unscale, where that is still to be done, and let the optimizer step if all gradients are finite.

        Returns whether it stepped: a schedule goes on only then. Raises RuntimeError for a second step without update.
        """
        if not self._enabled:
            optimizer.step()
            return True
        if optimizer in self._stepped:
            raise RuntimeError("step() was called a second time for this optimizer. Call update() after each step().")
        finite = self._finite[optimizer] if optimizer in self._finite else self.unscale_(optimizer)
        self._stepped.add(optimizer)
        if finite:
            optimizer.step()
        return finite

    def update(self, new_scale=None):
        """Adapt the scale to what the gradients were since the last update, or set it to `new_scale`.

        Raises RuntimeError where no gradients were unscaled, and FloatingPointError where not even a scale of 2**-126
        made them finite: then the cause is not the scale.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            if not 0 < new_scale < math.inf:
                raise ValueError(f"update needs a new_scale above 0, but got {new_scale}.")
            self._scale = float(new_scale)
        elif not self._finite:
            raise RuntimeError("update() needs to know how the gradients were. Call step(optimizer) before it.")
        elif all(self._finite.values()):
            self._grow()
        else:
            self._back_off()
        self._finite, self._stepped = {}, set()

    def _grow(self):
        self._growth_tracker += 1
        if self._growth_tracker == self._growth_interval:
            self._growth_tracker = 0
            if self._scale * self._growth_factor <= LARGEST:
                self._scale *= self._growth_factor

    def _back_off(self):
        if self._scale * self._backoff_factor < SMALLEST:
            raise FloatingPointError(
                f"Gradients are not finite even with a scale of {self._scale:.3g}: it is not the scale that makes them "
                "so. Look for NaN or infinity in the data, the weights and the loss."
            )
        self._scale *= self._backoff_factor
        self._growth_tracker = 0

    def state_dict(self):
        """What a checkpoint needs to go on, in PyTorch's names; empty where the scaler is not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict):
        """Go on from a `state_dict`. Raises KeyError, and changes nothing, where it is of no enabled scaler."""
        if not self._enabled:
            return
        if missing := self.state_dict().keys() - state_dict.keys():
            raise KeyError(
                f"The state dict of a GradScaler lacks {sorted(missing)}. Was it saved from one with enabled=False?"
            )
        self._scale = float(state_dict["scale"])
        self._growth_factor = float(state_dict["growth_factor"])
        self._backoff_factor = float(state_dict["backoff_factor"])
        self._growth_interval = int(state_dict["growth_interval"])
        self._growth_tracker = int(state_dict["_growth_tracker"])


def _gradients(optimizer):
    """The arrays of all gradients of an optimizer's parameters."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter.grad.data for parameter in parameters if parameter.grad is not None]
