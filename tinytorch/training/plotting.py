"""Looking at a training run."""

import numpy as np


def plot_loss(history, path=None, title="loss"):
    """Draw training loss, its running mean, and held-out loss over the steps; save a PNG at `path` if given.

    Returns the matplotlib figure. Raises ValueError for a history without a step.
    """
    from matplotlib.figure import Figure  # drawn without pyplot: no window, no global state

    if not history["step"]:
        raise ValueError("plot_loss needs at least one step to draw, but the history is empty. Train first.")
    figure = Figure(figsize=(7, 4), layout="constrained", dpi=120)
    axes = figure.subplots()
    steps, loss = np.array(history["step"]), np.array(history["loss"])
    window = max(1, len(loss) // 50)
    axes.plot(steps, loss, color="tab:blue", alpha=0.3, linewidth=1, label="training, each step")
    mean = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    axes.plot(steps[window - 1 :], mean, color="tab:blue", label=f"training, mean of {window}")
    if history["eval_step"]:
        axes.plot(history["eval_step"], history["eval_loss"], "o-", color="tab:orange", markersize=4, label="held out")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if np.min(loss) < 0 else 0)
    axes.grid(alpha=0.3)
    axes.legend()
    if path is not None:
        figure.savefig(path)
    return figure
