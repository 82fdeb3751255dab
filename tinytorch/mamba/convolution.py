"""A causal convolution along time, each channel on its own: what a Mamba sees of the last tokens before it scans."""

import numpy as np

from ..tensor import Tensor, cat, op, zeros


def causal_conv1d_composed(x, weight, bias=None, documents=None):
    """`causal_conv1d` in primitive operations: the sum of the sequence, shifted to later places, times each tap."""
    batch, time, channels = x.shape
    width = weight.shape[-1]
    padded = cat([zeros(batch, width - 1, channels, dtype=x.dtype, device=x.device), x], dim=1)
    y = 0
    for j in range(width):
        earlier = padded[:, j : j + time]  # the token that is width - 1 - j places before
        if documents is not None:
            earlier = earlier.masked_fill(_foreign(documents, width - 1 - j), 0.0)
        y = y + weight[:, 0, j] * earlier
    return y if bias is None else y + bias


def _foreign(documents, shift):
    """(B, T, 1) booleans: whether the token `shift` places before is of another document."""
    foreign = np.zeros_like(documents.data, dtype=bool)
    if shift < documents.shape[1]:
        foreign[:, shift:] = documents.data[:, shift:] != documents.data[:, : documents.shape[1] - shift]
    return Tensor(foreign[:, :, None])


def causal_conv1d(x, weight, bias=None, documents=None):
    """y_t = bias + sum_j weight_j x_(t - K + 1 + j): a convolution whose last tap is on the token itself.

    x (B, T, E), with zeros before it; weight (E, 1, K), one kernel of K taps for each channel; bias (E,). documents
    (B, T): a tensor of which document of its row a token belongs to; no tap reaches into another. Returns (B, T, E).
    Raises ValueError for shapes that do not fit. Source: Gu and Dao 2023, arXiv:2312.00752, section 3.4.
    """
    _require_fit(x, weight, bias, documents)
    return _causal_conv1d(x, weight, bias, documents=documents.data if isinstance(documents, Tensor) else documents)


@op
def _causal_conv1d(x, weight, bias, *, documents):
    time, width = x.shape[1], weight.shape[-1]
    taps = weight[:, 0].T.copy()  # (K, E): the numbers of a tap side by side
    shifts = [(j, width - 1 - j) for j in range(width) if width - 1 - j < time]  # (tap, how far back it reaches)

    def reaching(values, shift):
        """What of values (B, T - shift, E) passes between tokens of one document that far apart."""
        if documents is None or shift == 0:
            return values
        return values * (documents[:, shift:] == documents[:, :-shift])[:, :, None]

    y = x * taps[-1]
    for j, shift in shifts[:-1]:
        y[:, shift:] += reaching(x[:, :-shift] * taps[j], shift)
    if bias is not None:
        y += bias

    def grad_x(g):
        dx = g * taps[-1]
        for j, shift in shifts[:-1]:
            dx[:, :-shift] += reaching(g[:, shift:] * taps[j], shift)
        return dx

    def grad_weight(g):
        dw = np.zeros_like(weight)
        for j, shift in shifts:
            dw[:, 0, j] = np.einsum("bte,bte->e", reaching(g[:, shift:], shift), x[:, : time - shift])
        return dw

    return y, (grad_x, grad_weight, lambda g: np.einsum("bte->e", g))


def _require_fit(x, weight, bias, documents):
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"causal_conv1d needs x of shape (batch, time, channels), none of them 0, but got {x.shape}.")
    channels = x.shape[2]
    if weight.ndim != 3 or weight.shape[:2] != (channels, 1) or weight.shape[2] == 0:
        raise ValueError(
            f"causal_conv1d needs a weight of shape ({channels}, 1, taps), one kernel for each channel, but got "
            f"{weight.shape}."
        )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"causal_conv1d needs a bias of shape ({channels},), but got {bias.shape}.")
    if documents is not None and tuple(documents.shape) != tuple(x.shape[:2]):
        raise ValueError(f"causal_conv1d needs documents of shape {x.shape[:2]}, but got {documents.shape}.")
