"""The selective scan: a recurrence whose coefficients are chosen by what is read (Gu and Dao 2023, arXiv:2312.00752).

With h a state of N numbers for each of E channels, one step at time t is

    h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t        section 2, equations 1 to 4, and algorithm 2
    y_t = C_t h_t + D u_t,  times silu(z_t) where there is a gate

Letters: B batch, T time, E channels, N numbers of state for each channel. A (E, N) and D (E) are weights; u, delta
and z (B, T, E), and B and C (B, T, N), are computed from the input. The letters A, B, C, D are the paper's.
"""

import numpy as np

from ..activations import silu, stable_sigmoid
from ..tensor import Tensor, op, stack, zeros

BLOCK = 1 << 17  # numbers of state in a block of steps: such buffers stay in the processor's cache


def selective_scan_composed(u, delta, A, B, C, D=None, z=None, initial_state=None, starts=None):
    """`selective_scan` in primitive operations: the recurrence, one step after the other."""
    batch, time, channels = u.shape
    h = initial_state
    if h is None:
        h = zeros(batch, channels, A.shape[1], dtype=u.dtype, device=u.device)  # (B, E, N)
    outputs = []
    for t in range(time):
        decay = (delta[:, t].unsqueeze(-1) * A).exp()  # (B, E, N)
        if starts is not None:
            decay = decay.masked_fill(starts[:, t].reshape(batch, 1, 1), 0.0)
        written = (delta[:, t] * u[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(1)  # (B, E, N)
        h = decay * h + written
        outputs.append((h * C[:, t].unsqueeze(1)).sum(-1))  # (B, E)
    y = stack(outputs, dim=1)  # (B, T, E)
    y = y if D is None else y + D * u
    return y if z is None else y * silu(z)


def selective_scan(u, delta, A, B, C, D=None, z=None, initial_state=None, starts=None, *, return_last_state=False):
    """Let a state of N numbers for each channel run along a sequence, and read it at every step.

    u, delta, z (B, T, E); A (E, N), usually below 0; B, C (B, T, N); D (E,); initial_state (B, E, N), zeros where left
    out. starts (B, T): true where a new document begins, before which the state is forgotten. Returns y (B, T, E), or
    (y, h_T (B, E, N)) with `return_last_state`; no gradient flows through that h_T.
    Of the states, every 4th to 64th is kept: the backward pass computes the others again (section 3.3.2).
    Raises ValueError for shapes that do not fit. Source: arXiv:2312.00752, algorithm 2.
    """
    _require_fit(u, delta, A, B, C, D, z, initial_state, starts)
    last = np.empty_like(u.data, shape=(u.shape[0], *A.shape), dtype=np.float64) if return_last_state else None
    starts = starts.data if isinstance(starts, Tensor) else starts
    y = _selective_scan(u, delta, A, B, C, D, z, initial_state, starts=starts, last_state=last)
    return (y, Tensor(last, dtype=y.dtype)) if return_last_state else y


@op
def _selective_scan(u, delta, A, B, C, D, z, initial_state, *, starts, last_state):
    scan = _Blocks(u, delta, A, B, C, initial_state, starts)
    y, kept = scan.forward()
    if last_state is not None:
        last_state[...] = kept[-1].swapaxes(1, 2)
    if D is not None:
        y += D * u
    s = None if z is None else stable_sigmoid(z)

    def rule(g):
        grad_z = None
        if z is not None:
            grad_z = g * y * s * (1 + z * (1 - s))
            g = g * (z * s)
        grad_D = None if D is None else np.einsum("bte,bte->e", g, u)
        grad_u, grad_delta, *others = scan.backward(g, kept)
        if D is not None:
            grad_u += g * D
        grad_A, grad_B, grad_C, grad_state = others
        return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_state

    return (y if z is None else y * (z * s)), rule


class _Blocks:
    """The recurrence on raw arrays, in blocks of steps, both ways.

    The state is (B, N, E) here: the channels last, as they are many and N is small. Only the state at the beginning of
    each block is kept. What a block needs (the decays, the states) lives in buffers that the next block uses again; so
    the last block is still there when the way back begins with it.

    An outer product of N and E numbers is one of matrices (N, 2) and (2, E) here, with zeros for the second of each:
    NumPy leaves that to BLAS, which takes a third of the time of `multiply` and its many short rows.
    """

    def __init__(self, u, delta, A, B, C, initial_state, starts):
        self.shape = self.batch, time, _ = u.shape
        self.u, self.delta, self.B, self.C = (_rows(x) for x in (u, delta, B, C))
        self.A = A.T.astype(np.result_type(*(x.dtype for x in (u, delta, A, B, C))), order="C")  # (N, E)
        self.initial_state = initial_state
        self.kept_on = None if starts is None else 1 - _rows(starts[:, :, None].astype(u.dtype))  # (T, B, 1, 1)
        self.steps = max(4, min(64, time, BLOCK // (self.batch * A.size)))
        self.blocks = [slice(t, min(t + self.steps, time)) for t in range(0, time, self.steps)]

    def _empty(self, *shape):
        return np.empty_like(self.A, shape=shape)

    def _buffer(self, steps):
        return self._empty(steps, self.batch, *self.A.shape)  # (steps, B, N, E)

    def _pairs(self):
        """A buffer (steps, B, 2, E) for rows, each above one of zeros."""
        return _above_zeros(self._empty(self.steps, self.batch, 1, self.A.shape[1]))

    def _buffers(self):
        """What `_run` fills."""
        return self._pairs(), *(self._buffer(self.steps) for _ in range(3))

    def _run(self, block, h, written, decay, carried, states):
        """Run through a block from the state h, and fill what comes after it, for each step of the block.

        written: delta u, above zeros; decay: exp(delta A); carried: decay_t h_(t-1); states: h_t.
        """
        np.multiply(self.delta[block], self.A, out=decay)
        np.exp(decay, out=decay)
        if self.kept_on is not None:
            decay *= self.kept_on[block]
        np.multiply(self.delta[block], self.u[block], out=written[:, :, :1])
        np.matmul(_above_zeros(self.B[block]).swapaxes(2, 3), written, out=states)  # (n, B, N, 2) @ (n, B, 2, E)
        for decay_t, carried_t, state in zip(decay, carried, states):
            np.multiply(decay_t, h, out=carried_t)
            state += carried_t
            h = state

    def forward(self):
        """(y (B, T, E) without D and gate, the states before each block and after the last)."""
        self.last = self._buffers()
        kept = self._buffer(len(self.blocks) + 1)
        kept[0] = 0 if self.initial_state is None else self.initial_state.swapaxes(1, 2)
        y = self._empty(*self.shape)
        for i, block in enumerate(self.blocks):
            buffers = _cut(self.last, block)
            self._run(block, kept[i], *buffers)
            states = buffers[-1]
            kept[i + 1] = states[-1]
            np.matmul(self.C[block], states, out=_rows(y)[block])  # (n, B, 1, N) @ (n, B, N, E)
        return y, kept

    def backward(self, g, kept):
        """Gradients for u, delta, A, B, C and the initial state, given that of y, g (B, T, E).

        `adjoint` is the gradient of a state: what its own output asks of it, and what it carries on to the next one,
        adjoint_t = g_t C_t + decay_(t+1) adjoint_(t+1). So it runs through time backwards, as the state ran forwards.
        """
        last, self.last = self.last, None  # the last block is there once; then others are written over it
        buffers = *(last or self._buffers()), self._pairs(), self._buffer(self.steps)
        grad_u, grad_delta = (self._empty(*self.shape) for _ in range(2))
        grad_B, grad_C = (self._empty(*self.shape[:2], len(self.A)) for _ in range(2))
        grad_A = np.zeros_like(self.A)
        ahead = np.zeros_like(kept[0])  # decay_(t+1) adjoint_(t+1)
        for i, block in reversed(list(enumerate(self.blocks))):
            written, decay, carried, states, asked, adjoint = _cut(buffers, block)
            if last is None:
                self._run(block, kept[i], written, decay, carried, states)
            last = None
            g_block, delta = _rows(g)[block], self.delta[block]  # (n, B, 1, E)
            asked[:, :, :1] = g_block
            np.matmul(_above_zeros(self.C[block]).swapaxes(2, 3), asked, out=adjoint)
            for decay_t, adjoint_t in zip(decay[::-1], adjoint[::-1]):
                adjoint_t += ahead
                np.multiply(decay_t, adjoint_t, out=ahead)
            np.matmul(states, g_block.swapaxes(2, 3), out=_columns(grad_C)[block])
            np.matmul(adjoint, written[:, :, :1].swapaxes(2, 3), out=_columns(grad_B)[block])
            grad_written = np.matmul(self.B[block], adjoint)  # (n, B, 1, E)
            carried *= adjoint  # the gradient of delta A; states - written, in its place, would cancel
            grad_decay = np.einsum("tbne,ne->tbe", carried, self.A)[:, :, None]
            grad_A += np.einsum("tbne,tbe->ne", carried, delta[:, :, 0])
            _rows(grad_u)[block] = grad_written * delta
            _rows(grad_delta)[block] = grad_written * self.u[block] + grad_decay
        return grad_u, grad_delta, grad_A.T, grad_B, grad_C, ahead.swapaxes(1, 2)


def _cut(buffers, block):
    """Buffers as long as a block: the last one may be shorter."""
    return [x[: block.stop - block.start] for x in buffers]


def _rows(x):
    """A view (T, B, 1, E) of x (B, T, E): at each step, a row."""
    return x.swapaxes(0, 1)[:, :, None]


def _above_zeros(x):
    """Rows x (n, B, 1, N), each above one of zeros: (n, B, 2, N)."""
    return np.concatenate([x, np.zeros_like(x)], axis=2)


def _columns(x):
    """A view (T, B, N, 1) of x (B, T, N): at each step, a column."""
    return x.swapaxes(0, 1)[..., None]


def _require_fit(u, delta, A, B, C, D, z, initial_state, starts):
    """Raise ValueError, naming the argument, for a shape that does not fit u (B, T, E) and A (E, N)."""
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"selective_scan needs u of shape (batch, time, channels), none of them 0, but got {u.shape}.")
    batch, time, channels = u.shape
    if A.ndim != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"selective_scan with u {u.shape} needs A of shape ({channels}, N), but got {A.shape}.")
    if starts is not None and starts.dtype != bool:
        raise ValueError(
            f"selective_scan needs starts of booleans, true where a document begins, but got {starts.dtype}. From the "
            "numbers of documents: true where one differs from that before it."
        )
    state = A.shape[1]
    expected = {
        "delta": (delta, u.shape),
        "B": (B, (batch, time, state)),
        "C": (C, (batch, time, state)),
        "D": (D, (channels,)),
        "z": (z, u.shape),
        "initial_state": (initial_state, (batch, channels, state)),
        "starts": (starts, (batch, time)),
    }
    for name, (given, shape) in expected.items():
        if given is not None and tuple(given.shape) != tuple(shape):
            raise ValueError(
                f"selective_scan with u {u.shape} and A {A.shape} needs {name} of shape {shape}, but got {given.shape}."
            )
