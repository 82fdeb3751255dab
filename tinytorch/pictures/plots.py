"""Plots, drawn with matplotlib. Every function returns the figure, and saves a PNG where it is given a path.

matplotlib is imported where something is drawn, and never pyplot: no window, no global state, nothing to close.
"""

import functools
import io
import math
from contextlib import nullcontext

import numpy as np

from .. import device as devices
from ..autograd import no_grad
from ..layers import Module, evaluating, require_positive
from ..tensor import Tensor

MOST_POINTS_AT_ONCE = 10_000


@functools.cache
def _figure_type():
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure that shows itself in Jupyter, which otherwise knows only those of pyplot."""

        def _repr_png_(self):
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return NotebookFigure


def _figure(width, height):
    return _figure_type()(figsize=(width, height), layout="constrained", dpi=120)


def _finished(figure, path):
    if path is not None:
        figure.savefig(path, format="png")
    return figure


def _array(what, values):
    """Numbers as a NumPy array, from a tensor on any device, an array, or a list of such of one shape."""
    if isinstance(values, Tensor):
        return devices.to_numpy(values.data)
    if isinstance(values, (list, tuple)):
        values = [_array(what, value) for value in values]
        if len({value.shape for value in values}) > 1:
            raise ValueError(f"{what} need one shape, but came in {sorted({value.shape for value in values})[:4]}.")
    return np.asarray(values)


def _require_finite(what, array):
    if not np.isfinite(array).all():
        raise ValueError(f"{what} with NaN or infinity cannot be drawn. Did the training diverge?")


def plot_loss(history, path=None, title="loss"):
    """Draw training loss, its running mean, and held-out loss over the steps; save a PNG at `path` if given.

    history: of a Trainer; or {name: history} of several, to compare them. Returns the matplotlib figure.
    Raises ValueError for a history without a step.
    """
    alone = "step" in history
    histories = {"training": history} if alone else history
    if not histories or not all(each["step"] for each in histories.values()):
        raise ValueError("plot_loss needs at least one step to draw, but the history is empty. Train first.")
    figure = _figure(7, 4)
    axes = figure.subplots()
    for number, (name, each) in enumerate(histories.items()):
        held_out = ("held out", "C1") if alone else (f"{name}, held out", f"C{number}")
        _draw_losses(axes, each, name, f"C{number}", *held_out)
    axes.set(xlabel="step", ylabel="loss", title=title)
    lowest = min(np.min(each["loss"]) for each in histories.values())
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if lowest < 0 else 0)
    axes.grid(alpha=0.3)
    axes.legend()
    return _finished(figure, path)


def _draw_losses(axes, history, name, color, held_out, color_held_out):
    steps, loss = np.array(history["step"]), np.array(history["loss"])
    window = max(1, len(loss) // 50)
    axes.plot(steps, loss, color=color, alpha=0.3, linewidth=1, label=f"{name}, each step")
    mean = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    axes.plot(steps[window - 1 :], mean, color=color, label=f"{name}, mean of {window}")
    if history["eval_step"]:
        points = {"color": color_held_out, "marker": "o", "markersize": 4}
        axes.plot(history["eval_step"], history["eval_loss"], label=held_out, **points)


# ---- attention


def plot_attention(weights, tokens=None, key_tokens=None, path=None):
    """Draw where each position looks: weights (L, S), or (H, L, S) with one panel for each head.

    tokens: L labels of the rows, the queries; key_tokens: S labels of the columns, by default `tokens` where L is S.
    Spaces and line ends among them are made visible. All heads share one scale of colours. Returns the figure.
    Raises ValueError for other shapes, an empty array, a wrong number of tokens, and weights that no softmax gives.
    """
    weights = _array("Attention weights", weights)
    if weights.ndim not in (2, 3) or weights.size == 0:
        raise ValueError(
            f"plot_attention needs weights (L, S) or (heads, L, S), none of them 0, but got shape {weights.shape}. "
            "Of a batch, pass one sequence: weights[0]."
        )
    weights = weights.astype(np.float64).reshape(-1, *weights.shape[-2:])  # (H, L, S)
    _require_finite("Attention weights", weights)
    if weights.min() < 0:
        raise ValueError(
            f"plot_attention needs weights of at least 0, but got {weights.min():.3g}. Pass them after softmax."
        )
    heads, rows, columns = weights.shape
    if key_tokens is None and rows == columns:
        key_tokens = tokens
    labels = [_labels("tokens", tokens, rows, "queries"), _labels("key_tokens", key_tokens, columns, "keys")]
    across = min(heads, 4)
    down = math.ceil(heads / across)
    side = [min(9, 1.3 + 0.24 * count) if any(labels) else 2.6 for count in (columns, rows)]
    figure = _figure(across * side[0] + 0.8, down * side[1] + 0.3)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for head, axes in enumerate(panels[:heads]):
        image = axes.imshow(weights[head], cmap="Blues", vmin=0, vmax=weights.max(), interpolation="nearest")
        if heads > 1:
            axes.set_title(f"head {head}", fontsize=9)
        _label_axes(axes, *labels)
    for axes in panels[heads:]:
        axes.remove()
    figure.colorbar(image, ax=list(panels[:heads]), shrink=0.8).set_label("weight", fontsize=8)
    return _finished(figure, path)


def _label_axes(axes, tokens, key_tokens):
    settings = {"fontsize": 8, "family": "monospace", "parse_math": False}  # "$" is a character like any other
    axes.tick_params(length=2, labelsize=8)
    axes.locator_params(integer=True)
    if tokens:
        axes.set_yticks(range(len(tokens)), tokens, **settings)
    if key_tokens:
        axes.set_xticks(range(len(key_tokens)), key_tokens, rotation=90, **settings)
    axes.set_xlabel("key", fontsize=8)
    axes.set_ylabel("query", fontsize=8)


_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥"}


def _labels(name, tokens, count, what):
    if tokens is None:
        return None
    tokens = [str(token) for token in tokens]
    if len(tokens) != count:
        raise ValueError(f"{name} needs one label for each of the {count} {what}, but got {len(tokens)}.")
    return ["".join(_VISIBLE.get(c, c) if c.isprintable() or c in _VISIBLE else repr(c)[1:-1] for c in token) or "''"
            for token in tokens]  # fmt: skip


# ---- states


def plot_states(states, tokens=None, path=None, title=None):
    """Draw what a recurrent model remembers: states (T, channels), time from left to right, a row for each channel.

    tokens: T labels, what was read at each step; spaces and line ends among them are made visible. Channels differ in
    size, so each is divided by its largest magnitude: white is 0, full red and full blue are its extremes. Returns the
    figure. Raises ValueError for other shapes, an empty array, a wrong number of tokens, and NaN or infinity.
    """
    states = _array("States", states)
    if states.ndim != 2 or states.size == 0:
        raise ValueError(
            f"plot_states needs states (T, channels), neither of them 0, but got shape {states.shape}. Of a batch, "
            "pass one sequence; of Mamba's states (T, E, N) some channels, or states.reshape(T, E * N)."
        )
    states = states.astype(np.float64)
    _require_finite("States", states)
    time, channels = states.shape
    labels = _labels("tokens", tokens, time, "steps")
    largest = np.abs(states).max(axis=0)
    relative = states / np.where(largest > 0, largest, 1)
    figure = _figure(min(12, max(4, 1.6 + 0.19 * time)), min(8, max(2.2, 1.2 + 0.16 * channels)))
    axes = figure.subplots()
    image = axes.imshow(relative.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.tick_params(length=2, labelsize=8)
    axes.locator_params(integer=True)
    if labels:
        turn = 90 if max(map(len, labels)) > 1 else 0  # longer ones would stand on each other
        axes.set_xticks(range(time), labels, rotation=turn, fontsize=8, family="monospace", parse_math=False)
    axes.set_xlabel("token" if labels else "step", fontsize=8)
    axes.set_ylabel("channel", fontsize=8)
    if title is not None:
        axes.set_title(title, fontsize=10, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.9)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("state / its largest", fontsize=8)
    return _finished(figure, path)


# ---- decision boundaries


def plot_decision_boundary(model, x, y, path=None, resolution=200, threshold=None):
    """Draw which class `model` gives to each point of the plane, and the points x (N, 2) with their classes y (N,).

    model: maps points (M, 2) to scores: (M, C), of which the highest wins and y counts from 0 to C - 1; or (M,) or
    (M, 1), which tell two classes apart, y being 0 and 1, or -1 and 1. Such a score means the second class where it is
    above `threshold`: by default 0, or 0.5 where all scores are between 0 and 1, as probabilities are. A module is
    evaluated in eval mode, without gradients, and is afterwards in the mode that it was in. resolution: points along
    each axis. Returns the figure. Raises ValueError for other shapes, classes, or scores that are not finite.
    """
    require_positive(resolution=resolution)
    x, y = _array("Points", x), _array("Classes", y)
    if x.ndim != 2 or x.shape[1] != 2 or len(x) == 0:
        raise ValueError(f"plot_decision_boundary needs points x of shape (N, 2), at least one, but got {x.shape}.")
    if y.shape not in [(len(x),), (len(x), 1)]:
        raise ValueError(f"plot_decision_boundary needs {len(x)} classes y, one for each point, but got {y.shape}.")
    _require_finite("Points", x)
    edges = [_edges(column, resolution) for column in x.T]
    middles = np.stack(np.meshgrid(*((edge[1:] + edge[:-1]) / 2 for edge in edges)), axis=-1)
    scores = _scores(model, middles.reshape(-1, 2))
    numbers, names = _class_numbers(y.reshape(-1), scores)
    if scores.shape[1] > 1:
        regions = scores.argmax(axis=1)
    else:
        if threshold is None:
            threshold = 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0
        regions = (scores[:, 0] > threshold).astype(int)
    figure = _figure(5.4, 4.4)
    _draw_regions(figure.subplots(), regions.reshape(resolution, resolution), edges, x, numbers, names)
    return _finished(figure, path)


def _edges(column, resolution):
    """The edges of `resolution` equal steps over the data and a margin around them."""
    low, high = float(column.min()), float(column.max())
    margin = 0.08 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, resolution + 1)


def _scores(model, points):
    """The scores (M, C) of the points, in batches; C is 1 where there is one score for each point."""
    parameter = next(model.parameters(), None) if isinstance(model, Module) else None
    dtype, device = (np.float32, "cpu") if parameter is None else (parameter.dtype, parameter.device)
    batches = []
    with evaluating(model) if isinstance(model, Module) else nullcontext(), no_grad():
        for start in range(0, len(points), MOST_POINTS_AT_ONCE):
            batch = points[start : start + MOST_POINTS_AT_ONCE].astype(dtype)
            scores = _array("Scores", model(Tensor(batch).to(device=device)))
            if scores.ndim not in (1, 2) or len(scores) != len(batch) or scores.size == 0:
                raise ValueError(
                    "plot_decision_boundary needs a model that maps points (M, 2) to scores (M,), (M, 1) or (M, C), "
                    f"but {batch.shape} gave {scores.shape}."
                )
            batches.append(scores.reshape(len(batch), -1))
    scores = np.concatenate(batches)
    _require_finite("Scores", scores)
    return scores


def _class_numbers(y, scores):
    """The class of each point counted from 0, and what each class is called."""
    found, classes = set(y.tolist()), scores.shape[1]
    count = max(classes, 2)
    if count == 2 and -1 in found and found <= {-1, 1}:
        return (y > 0).astype(int), ["-1", "1"]
    if not found <= set(range(count)):
        wanted = "0 and 1, or -1 and 1" if count == 2 else f"0 to {count - 1}"
        raise ValueError(
            f"The model gives {classes} {'score' if classes == 1 else 'scores'} for a point, so the classes y need to "
            f"be {wanted}, but got {sorted(found)[:8]}."
        )
    return y.astype(int), [str(number) for number in range(count)]


def _draw_regions(axes, regions, edges, x, numbers, names):
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = [colormaps["tab10"](number % 10) for number in range(len(names))]
    pale = ListedColormap([tuple(0.35 * c + 0.65 for c in color[:3]) for color in colors])
    extent = (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])
    axes.imshow(regions, cmap=pale, vmin=-0.5, vmax=len(names) - 0.5, extent=extent, origin="lower", aspect="auto",
                interpolation="nearest")  # fmt: skip
    for number, name in enumerate(names):
        if (numbers == number).any():
            points = x[numbers == number]
            axes.scatter(*points.T, s=22, color=colors[number], edgecolors="white", linewidths=0.7, label=name)
    axes.legend(title="class", fontsize=8, title_fontsize=8)
    axes.set(xlabel="$x_0$", ylabel="$x_1$", xlim=extent[:2], ylim=extent[2:])


# ---- images


def show_images(images, titles=None, columns=None, path=None, own_range=False):
    """Draw images side by side: (N, H, W) or (N, 1, H, W) in grey, or (N, 3, H, W) in colour.

    titles: N texts. columns: how many in a row. Grey images share the range of all of them, from black to white, so
    that they can be compared; with own_range each has its own. Colours are integers from 0 to 255 or floats from 0 to
    1. Returns the figure. Raises ValueError for other shapes, no image, numbers that are no colours or not finite.
    """
    images = _array("Images", images)
    if images.ndim not in (3, 4) or images.size == 0 or (images.ndim == 4 and images.shape[1] not in (1, 3)):
        raise ValueError(
            "show_images needs images (N, H, W), (N, 1, H, W) or (N, 3, H, W), none of them 0, but got shape "
            f"{images.shape}. One image is images[None]; channels that come last move with permute(0, 3, 1, 2)."
        )
    titles = [""] * len(images) if titles is None else [str(title) for title in titles]
    if len(titles) != len(images):
        raise ValueError(f"show_images needs one title for each of the {len(images)} images, but got {len(titles)}.")
    _require_finite("Images", images)
    if images.ndim == 4 and images.shape[1] == 3:
        images = _colours(images).transpose(0, 2, 3, 1)  # (N, H, W, 3)
    else:
        images = images.reshape(len(images), *images.shape[-2:]).astype(np.float64)
    if columns is None:
        columns = min(10, math.ceil(math.sqrt(len(images))))
    require_positive(columns=columns)
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    side = min(2.0, max(0.9, 10 / columns))  # inches
    figure = _figure(columns * side, rows * (side * images.shape[1] / images.shape[2] + (0.3 if any(titles) else 0)))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for image, title, axes in zip(images, titles, panels):
        within = image if own_range else images
        axes.imshow(image, cmap="gray", vmin=within.min(), vmax=within.max(), interpolation="nearest")
        axes.set_title(title, fontsize=8, parse_math=False)
    for axes in panels:
        axes.set_axis_off()
    return _finished(figure, path)


def _colours(images):
    """Floats from 0 to 1."""
    if images.dtype.kind in "iu":
        most, images = 255, images.astype(np.float64)
    else:
        most, images = 1, images.astype(np.float64)
    if images.min() < 0 or images.max() > most:
        raise ValueError(
            f"show_images needs colours from 0 to {most}, but got {images.min():.3g} to {images.max():.3g}. Undo the "
            "normalisation, or scale them: (x - x.min()) / (x.max() - x.min())."
        )
    return images / most
