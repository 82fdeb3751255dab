"""The layers within each position of a transformer: GPT-2's MLP, and Llama's, whose hidden layer is a product.

Letters: B batch, T time, C channels (n_embd).
"""

from ..activations import gelu, silu, stable_sigmoid
from ..layers import Dropout, Linear, Module
from ..tensor import op


class MLP(Module):
    """Two linear layers with GELU between them, on each position alone: (B, T, C) to (B, T, C)."""

    def __init__(self, n_embd, n_inner=None, dropout=0.0, bias=True, *, generator=None):
        n_inner = n_inner or 4 * n_embd
        self.c_fc = Linear(n_embd, n_inner, bias, generator=generator)
        self.c_proj = Linear(n_inner, n_embd, bias, generator=generator)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        """x (B, T, C), through n_inner channels and GELU in its tanh form, to (B, T, C), with dropout at the end."""
        return self.dropout(self.c_proj(gelu(self.c_fc(x), approximate="tanh")))


def swiglu_composed(gate, up):
    """`swiglu` in primitive operations, on tensors of one shape: how far `gate` opens, times `up`."""
    return silu(gate) * up


@op
def swiglu(gate, up):
    """silu(gate) * up, element by element: one projection decides how much of the other passes."""
    s = stable_sigmoid(gate)
    opened = gate * s

    def grad_gate(g):  # the slope of gate * s is s (1 + gate (1 - s))
        d = 1 - s
        d *= gate
        d += 1
        d *= s
        d *= up
        d *= g
        return d

    return opened * up, (grad_gate, lambda g: g * opened)


class SwiGLU(Module):
    """An MLP whose hidden layer is a product, silu(gate) * up (Shazeer 2020, arXiv:2002.05202): (B, T, C) to (B, T, C).

    n_inner: the width inside, by default 8/3 n_embd, so that three matrices have as many weights as the MLP's two.
    """

    def __init__(self, n_embd, n_inner=None, dropout=0.0, bias=False, *, generator=None):
        n_inner = n_inner or 8 * n_embd // 3
        self.gate_proj = Linear(n_embd, n_inner, bias, generator=generator)
        self.up_proj = Linear(n_embd, n_inner, bias, generator=generator)
        self.down_proj = Linear(n_inner, n_embd, bias, generator=generator)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        """x (B, T, C), through n_inner channels of which one half opens the other, to (B, T, C), with dropout last."""
        return self.dropout(self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x))))
