"""What a kernel sees: its settings for each axis, the places where it stands, and the windows under it there."""

import numpy as np

from ..tensor import cat, full, stack

BLOCK = 16  # images that `fill` copies at a time: a line of the cache holds 16 numbers of float32

# ---- settings


def per_axis(name, value, axes, least=1):
    """A setting as one integer for each axis: 3 means (3, 3). Raises ValueError for others, and below `least`."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    fine = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least for v in values)
    if len(values) != axes or not fine:
        several = f", or {axes} of them" if axes > 1 else ""
        raise ValueError(f"{name} needs an integer of at least {least}{several}, but got {value!r}.")
    return values


def paddings(padding, kernel, stride, dilation):
    """How much (before, after) each axis gets: as many as it says, 'valid' (none) or 'same' (what keeps the size)."""
    if padding == "same":
        if any(step != 1 for step in stride):
            raise ValueError(f"padding='same' needs stride 1, as no other keeps the size, but got stride {stride}.")
        extra = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple((n // 2, n - n // 2) for n in extra)
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f"padding needs integers, 'same' or 'valid', but got {padding!r}.")
    return tuple((p, p) for p in per_axis("padding", 0 if padding == "valid" else padding, len(kernel), least=0))


def require_room(name, x, kernel, pads, dilation):
    """Raise unless x is floating point, of shape (B, C, ...) with an axis per axis of the kernel, and large enough."""
    if x.ndim != len(kernel) + 2:
        wanted = "(B, C, W)" if len(kernel) == 1 else "(B, C, H, W)"
        raise ValueError(f"{name} needs inputs of shape {wanted}, but got {x.shape}. One alone becomes x.unsqueeze(0).")
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs floating point inputs, but got {x.dtype}. Convert them with x.float().")
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    sizes = tuple(size + sum(pad) for size, pad in zip(x.shape[2:], pads))
    if any(size < span for size, span in zip(sizes, spans)):
        raise ValueError(
            f"{name} needs inputs at least as large as the span of its kernel, {spans}, but got {sizes}, padding "
            "included. Use a smaller kernel, more padding, or fewer layers that shrink what goes through."
        )


# ---- arrays


def batch_last(x):
    """(B, C, H, W) as (C, H, W, B), a view."""
    return x.transpose(*range(1, x.ndim), 0)


def batch_first(x):
    """(C, H, W, B) as (B, C, H, W), a view."""
    return x.transpose(-1, *range(x.ndim - 1))


def fill(y, x):
    """y[...] = x for arrays (C, H, W, B).

    Where images lie one after another, they come a few at a time: sizes are mostly powers of two, and reading one place
    of many images in turn would throw each line out of the processor's cache before it is used up.
    """
    step = BLOCK if x.strides[-1] > x.strides[0] else x.shape[-1] or 1
    for i in range(0, x.shape[-1], step):
        y[..., i : i + step] = x[..., i : i + step]


def packed(x):
    """x (C, H, W, B) with its elements in this order in memory, too; x itself where they are."""
    if x.strides[-1] <= x.strides[0]:
        return np.ascontiguousarray(x, like=x)
    y = np.empty_like(x, order="C")
    fill(y, x)
    return y


def padded(x, pads, value=0):
    """x (C, H, W, B) with `value` around it; x itself where nothing is to be added."""
    if not any(map(any, pads)):
        return x
    sizes = [size + sum(pad) for size, pad in zip(x.shape[1:], pads)]
    y = np.full_like(x, value, order="C", shape=(len(x), *sizes, x.shape[-1]))
    fill(inside(y, pads), x)
    return y


def inside(y, pads):
    """The view of y (C, H, W, B) without its padding."""
    return y[(slice(None), *(slice(before, size - after) for size, (before, after) in zip(y.shape[1:], pads)))]


def places(kernel, size, stride, dilation=1):
    """For each element of a kernel along an axis of length `size`: where it stands, all its places as one slice."""
    room = size - dilation * (kernel - 1)
    return [slice(i * dilation, i * dilation + room, stride) for i in range(kernel)]


def seen(x, kernel, stride):
    """For each element of the kernel: what it sees of x (C, H, W, B), a view with one value for each of its places."""
    by_axis = [places(*settings) for settings in zip(kernel, x.shape[1:], stride)]
    return [x[(slice(None), *(axis[i] for axis, i in zip(by_axis, element)))] for element in np.ndindex(*kernel)]


# ---- tensors, for the composed twins: the windows one by one


def surrounded(x, pads, value=0.0):
    """x (B, C, H, W) with `value` around it."""
    for axis, pad in enumerate(pads, start=2):
        shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in pad]
        before, after = (full(shape, value, x.dtype, device=x.device) for shape in shapes)
        x = cat([before, x, after], dim=axis)
    return x


def at_each_place(function, x, kernel, stride, dilation=(1, 1)):
    """function(window) -> (B, F) of the window (B, C, kh, kw) under the kernel, at each place: (B, F, H_out, W_out)."""
    (tall, wide), (down, right) = (d * (k - 1) + 1 for k, d in zip(kernel, dilation)), stride
    rows = []
    for top in range(0, x.shape[2] - tall + 1, down):
        row = []
        for left in range(0, x.shape[3] - wide + 1, right):
            row.append(function(x[:, :, top : top + tall : dilation[0], left : left + wide : dilation[1]]))
        rows.append(stack(row, dim=-1))
    return stack(rows, dim=2)
