"""The activation functions of module 02 as layers."""

from .. import activations
from .module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return activations.relu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x):
        return activations.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x):
        return x.tanh()


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x):
        return activations.silu(x)


class GELU(Module):
    """x times the normal distribution function of x: exact, or in its tanh form."""

    def __init__(self, approximate="none"):
        self.approximate = approximate

    def forward(self, x):
        return activations.gelu(x, self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`."""

    def __init__(self, dim=-1):
        self.dim = dim

    def forward(self, x):
        return activations.softmax(x, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"
