"""Mamba-2: with one decay for a whole head, the scan becomes products of matrices (Dao and Gu 2024, arXiv:2405.21060).

Letters: B batch, T time, H heads, P channels of a head, N numbers of state for each of them, G groups of heads that
share B and C, S steps in a chunk.
"""

import math

import numpy as np

from ..activations import silu, softplus
from ..convolutions import Conv1d
from ..layers import Linear, Module, Parameter, require_positive
from ..tensor import Tensor, cat, ones, rand, stack, zeros
from ..transformers import RMSNorm, rms_norm
from .convolution import causal_conv1d
from .model import step_size_bias


def ssd_composed(x, delta, A, B, C):
    """`ssd` as the recurrence it is: h_t = exp(delta_t A) h_(t-1) + delta_t x_t B_t and y_t = h_t C_t in each head."""
    batch, time, heads, width = x.shape
    B, C = (_for_each_head(y, heads) for y in (B, C))
    h = zeros(batch, heads, width, B.shape[-1], dtype=x.dtype, device=x.device)
    outputs = []
    for t in range(time):
        decay = (delta[:, t] * A).exp().reshape(batch, heads, 1, 1)
        h = decay * h + (delta[:, t].unsqueeze(-1) * x[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(2)  # (B, H, P, N)
        outputs.append((h * C[:, t].unsqueeze(2)).sum(-1))  # (B, H, P)
    return stack(outputs, dim=1)


def ssd(x, delta, A, B, C, chunk_size=32):
    """The scan with one decay for each head, in chunks: within a chunk it is attention with a decaying mask.

    x (B, T, H, P); delta (B, T, H), above 0; A (H,), below 0; B, C (B, T, G, N), each for H / G neighbouring heads.
    Returns (B, T, H, P). Raises ValueError for shapes that do not fit. Source: arXiv:2405.21060, section 6, listing 1.
    """
    _require_fit(x, delta, A, B, C)
    require_positive(chunk_size=chunk_size)
    batch, time, heads, width = x.shape
    chunks, missing = -(-time // chunk_size), -time % chunk_size

    def in_chunks(y):  # (B, T, H, n) to (B, H, chunks, S, n); what is missing at the end has step size 0
        end = zeros(batch, missing, *y.shape[2:], dtype=y.dtype, device=y.device)
        y = cat([y, end], dim=1) if missing else y
        return y.reshape(batch, chunks, chunk_size, heads, y.shape[-1]).permute(0, 3, 1, 2, 4)

    written = in_chunks(delta.unsqueeze(-1) * x)  # (B, H, chunks, S, P)
    B, C = (in_chunks(_for_each_head(y, heads)) for y in (B, C))  # (B, H, chunks, S, N)
    log_decay = in_chunks((delta * A).unsqueeze(-1)).squeeze(-1)  # (B, H, chunks, S)
    total = log_decay.cumsum(-1)  # the log of the decay from the beginning of the chunk
    within = _decays_between(total) * (C @ B.transpose(-1, -2))  # (B, H, chunks, S, S)
    y = within @ written
    until_end = (total[..., -1:] - total).exp().unsqueeze(-1)
    summaries = (until_end * written).transpose(-1, -2) @ B  # (B, H, chunks, P, N): what each chunk adds to the state
    states = _across_chunks(total[..., -1].exp(), summaries)  # (B, H, chunks, P, N): the state before each chunk
    y = y + total.exp().unsqueeze(-1) * (C @ states.transpose(-1, -2))  # (B, H, chunks, S, P)
    return y.permute(0, 2, 3, 1, 4).reshape(batch, chunks * chunk_size, heads, width)[:, :time]


def _for_each_head(y, heads):
    """(B, T, G, N) to (B, T, H, N): each group for its H / G heads."""
    batch, time, groups, state = y.shape
    if groups == heads:
        return y
    return y.unsqueeze(3).expand(batch, time, groups, heads // groups, state).reshape(batch, time, heads, state)


def _decays_between(total):
    """exp(total_i - total_j) for i >= j, and 0 above: (..., S) to (..., S, S).

    The differences above the diagonal are positive and could overflow: they go before exp is taken. Quotients of two
    exponentials would overflow below it, too.
    """
    size = total.shape[-1]
    later = np.triu(np.ones_like(total.data, shape=(size, size), dtype=bool), 1)
    return (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(Tensor(later), -math.inf).exp()


def _across_chunks(decay, summaries):
    """The state before each chunk (B, H, chunks, P, N): the loop over time that is left, one step for each chunk."""
    state = zeros(*summaries[:, :, 0].shape, dtype=summaries.dtype, device=summaries.device)
    states = []
    for c in range(summaries.shape[2]):
        states.append(state)
        state = decay[:, :, c].unsqueeze(-1).unsqueeze(-1) * state + summaries[:, :, c]
    return stack(states, dim=2)


def _require_fit(x, delta, A, B, C):
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"ssd needs x of shape (batch, time, heads, width), none of them 0, but got {x.shape}.")
    batch, time, heads, _ = x.shape
    for name, given, shape in (("delta", delta, (batch, time, heads)), ("A", A, (heads,))):
        if given.shape != shape:
            raise ValueError(f"ssd with x {x.shape} needs {name} of shape {shape}, but got {given.shape}.")
    for name, given in (("B", B), ("C", C)):
        fits = given.ndim == 4 and given.shape[:2] == (batch, time) and given.shape == B.shape
        if not fits or given.shape[2] == 0 or heads % given.shape[2]:
            raise ValueError(
                f"ssd with x {x.shape} needs {name} of shape ({batch}, {time}, groups, N), as many groups as divide "
                f"{heads} heads, but got {given.shape}."
            )


class Mamba2Mixer(Module):
    """Mamba-2's mixer, beside MambaMixer: (B, T, C) to (B, T, C). Source: arXiv:2405.21060, section 7, figure 6.

    Inside are expand * d_model channels in heads of head_dim, each head with one decay; `n_groups` groups of heads
    share B and C (d_state numbers each). Parameters are those of Hugging Face's Mamba2Mixer. Raises ValueError for
    sizes that do not divide.
    """

    def __init__(
        self, d_model, d_state=64, d_conv=4, expand=2, head_dim=32, n_groups=1, chunk_size=32, *, generator=None
    ):
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand}
        require_positive(**sizes, head_dim=head_dim, n_groups=n_groups, chunk_size=chunk_size)
        inner = expand * d_model
        heads = inner // head_dim
        if inner % head_dim or heads % n_groups:
            raise ValueError(
                f"Mamba2Mixer needs expand * d_model = {inner} divisible by head_dim, and its heads by n_groups, but "
                f"got head_dim={head_dim} and n_groups={n_groups}."
            )
        self.heads, self.head_dim, self.n_groups, self.d_state = heads, head_dim, n_groups, d_state
        self.chunk_size = chunk_size
        convolved = inner + 2 * n_groups * d_state
        self.in_proj = Linear(d_model, inner + convolved + heads, bias=False, generator=generator)
        self.conv1d = Conv1d(convolved, convolved, d_conv, groups=convolved, generator=generator)
        self.dt_bias = Parameter(step_size_bias(heads, generator=generator))
        self.A_log = Parameter((1 + 15 * rand(heads, generator=generator)).log())
        self.D = Parameter(ones(heads))
        self.norm = RMSNorm(inner, eps=1e-5)
        self.out_proj = Linear(inner, d_model, bias=False, generator=generator)

    def forward(self, x):
        """x (B, T, C) to (B, T, C), in chunks of `chunk_size` steps."""
        batch, time, _ = x.shape
        inner, groups = self.heads * self.head_dim, self.n_groups * self.d_state
        z, convolved, delta = self.in_proj(x).split([inner, inner + 2 * groups, self.heads], dim=-1)
        convolved = silu(causal_conv1d(convolved, self.conv1d.weight, self.conv1d.bias))
        u, B, C = convolved.split([inner, groups, groups], dim=-1)
        u = u.reshape(batch, time, self.heads, self.head_dim)
        B, C = (y.reshape(batch, time, self.n_groups, self.d_state) for y in (B, C))
        delta = softplus(delta + self.dt_bias)  # (B, T, H)
        y = ssd(u, delta, -self.A_log.exp(), B, C, self.chunk_size) + self.D.unsqueeze(-1) * u  # (B, T, H, P)
        return self.out_proj(self._normalise(y.reshape(batch, time, inner) * silu(z)))

    def _normalise(self, y):
        """y (B, T, E) with a mean square of 1 in each group of heads, times the weight of the norm."""
        batch, time, inner = y.shape
        size = inner // self.n_groups
        y = rms_norm(y.reshape(batch, time, self.n_groups, size), (size,), eps=self.norm.eps)
        return self.norm.weight * y.reshape(batch, time, inner)
