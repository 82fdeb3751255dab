"""The rules by which gradients change parameters, and the clipping of gradients."""

import math

import numpy as np

from ..tensor import Tensor
from .optimizer import Optimizer


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
        """Change p, and the velocity where there is momentum, in place; g is a scratch copy of the gradient.

        All are arrays of one shape. `step` counts the steps from 1: at the first, the velocity becomes g undampened.
        """
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
        """Change p and the running means m of the gradient and v of its square in place; g is a scratch copy.

        All are arrays of one shape; m and v start at 0. `step` counts the steps from 1. Where `self.decoupled`, weight
        decay acts on p before the step, otherwise it is a part of the gradient.
        """
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


def _gradients(parameters, max_norm):
    """The gradients to be clipped, as arrays: of one parameter or several, without those that have none."""
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_ needs max_norm above 0, but got {max_norm}.")
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [parameter.grad.data for parameter in parameters if parameter.grad is not None]


def clip_grad_norm_(parameters, max_norm):
    """Scale all gradients so that their joint length is at most `max_norm`. Returns the length before, a tensor.

    Gradients within the limit, and those whose length is no finite number, stay as they are.
    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    grads = _gradients(parameters, max_norm)
    norm = math.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads))
    if max_norm < norm < math.inf:
        for grad in grads:
            grad *= max_norm / (norm + 1e-6)
    return Tensor(norm)


def decay_groups(model, weight_decay):
    """Two groups for an optimizer: matrices and larger tensors decay, biases and the scales of norms do not.

    Decay pulls towards 0, which is no natural place for a scale (as in the first GPT, Radford et al. 2018, section 4).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
