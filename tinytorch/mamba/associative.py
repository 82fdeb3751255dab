"""The same recurrence as an associative operation: other orders of the work, one result.

One step h -> a h + b is the pair (a, b). Two steps after one another are again such a step,

    (a1, b1) then (a2, b2)  =  (a1 a2, a2 b1 + b2),

and brackets may be moved. So a tree of pairs gives every state in about 2 log2(T) rounds of large array expressions
(Blelloch 1990, "Prefix sums and their applications"), and chunks can run side by side. On a processor with few cores
the plain loop wins; on a GPU, where T small launches cost more than the numbers, the tree does.

The scans here work on raw arrays with time as the first axis: a and b (T, ...) give h (T, ...) with
h_t = a_t h_(t-1) + b_t, beginning from 0.
"""

import numpy as np

from ..activations import silu
from ..layers import require_positive
from ..tensor import op


def sequential_scan(a, b):
    """The recurrence as it is written: T steps."""
    h = np.empty_like(b)
    h[0] = b[0]
    for t in range(1, len(b)):
        h[t] = a[t] * h[t - 1] + b[t]
    return h


def blelloch_scan(a, b):
    """The recurrence as a tree: pairs are joined on the way up, and the missing states filled in on the way down.

    Works in place on copies, for any length: 2 T pairs are joined in all.
    """
    a, b = a.copy(), b.copy()
    time, k = len(b), 1

    def absorb(later, earlier):
        """Join each pair at `later` with the one at `earlier` that ends where it begins."""
        n = len(b[later])
        b[later] += a[later] * b[earlier][:n]
        a[later] *= a[earlier][:n]

    while k < time:  # up: the pair at 2k - 1, 4k - 1, ... comes to stand for 2k steps
        absorb(slice(2 * k - 1, None, 2 * k), slice(k - 1, None, 2 * k))
        k *= 2
    while k >= 1:  # down: the pair k places behind a complete one becomes complete
        absorb(slice(3 * k - 1, None, 2 * k), slice(2 * k - 1, None, 2 * k))
        k //= 2
    return b


def two_level_scan(a, b, chunk=16):
    """The recurrence in chunks side by side: `chunk` steps over all chunks at once, then one step for each chunk.

    Only products of decays are taken, never quotients, so that nothing overflows however long the sequence.
    """
    require_positive(chunk=chunk)
    time = len(b)
    chunks = -(-time // chunk)
    a, b = (_in_chunks(x, chunks, chunk) for x in (a, b))  # (chunks, chunk, ...)
    h, decay = b.copy(), a.copy()  # the states that begin from 0 in each chunk, and the decay since its beginning
    for t in range(1, chunk):
        h[:, t] += a[:, t] * h[:, t - 1]
        decay[:, t] *= decay[:, t - 1]
    for c in range(1, chunks):
        h[c] += decay[c] * h[c - 1, -1]
    return h.reshape(chunks * chunk, *h.shape[2:])[:time]


def _in_chunks(x, chunks, chunk):
    padded = np.zeros_like(x, shape=(chunks * chunk, *x.shape[1:]))
    padded[: len(x)] = x
    return padded.reshape(chunks, chunk, *x.shape[1:])


@op
def recurrence(a, b, *, scan=sequential_scan):
    """h_t = a_t h_(t-1) + b_t from h = 0, by any of the scans above: a and b (T, ...) give h (T, ...).

    The way back is the same recurrence from the end: the gradient of a state is what its own output asks of it, and
    what it hands on to the next one, adjoint_t = g_t + a_(t+1) adjoint_(t+1).
    """
    h = scan(a, b)

    def rule(g):
        following = np.concatenate([a[1:], np.zeros_like(a[:1])])  # a_(t+1), and 0 behind the last
        adjoint = scan(following[::-1], g[::-1])[::-1]
        before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])  # h_(t-1), and 0 before the first
        return adjoint * before, adjoint

    return h, rule


def selective_scan_by(scan, u, delta, A, B, C, D=None, z=None):
    """`selective_scan` by any of the scans above, from a state of 0; keeps all states and decays for the way back.

    Shapes are those of `selective_scan`: u, delta, z (B, T, E), A (E, N), B, C (B, T, N), D (E,) give (B, T, E).
    """
    u_t, delta_t, B_t, C_t = (x.transpose(0, 1) for x in (u, delta, B, C))  # (T, B, ...)
    decay = (delta_t.unsqueeze(-1) * A).exp()  # (T, B, E, N)
    h = recurrence(decay, (delta_t * u_t).unsqueeze(-1) * B_t.unsqueeze(2), scan=scan)
    y = (h * C_t.unsqueeze(2)).sum(-1).transpose(0, 1)  # (B, T, E)
    y = y if D is None else y + D * u
    return y if z is None else y * silu(z)
