"""1969, exclusive or: what one layer cannot do, and two layers can.

One layer draws one straight line, and no line has (0, 1) and (1, 0) on one side and (0, 0) and (1, 1) on the other.
M. Minsky and S. Papert, "Perceptrons" (MIT Press, 1969), proved more: to tell whether an odd number of n inputs is on,
a perceptron needs a unit that sees all n of them at once. That a second layer helps was known then; what was missing
was a rule to train it by. Here both networks are trained by the same code, with gradients.
"""

import math
import time

import numpy as np

import tinytorch as tt
from tinytorch_course import milestone

POINTS = tt.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = tt.tensor([[0.0], [1.0], [1.0], [0.0]])

STEPS = 400
GATES = [
    milestone.Gate("one_layer_mistakes", 1, "one layer gets at least one of the four points wrong"),
    milestone.Gate("one_layer_loss", 0.693, "one layer does no better than a guess, whose loss is ln 2"),
    milestone.Gate("two_layer_accuracy", 1.0, "two layers get all four points right"),
]


def loss_fn(model, batch):
    """The mean surprise at the four answers, in nats."""
    points, answers = (part.to(next(model.parameters()).device) for part in batch)
    return tt.binary_cross_entropy_with_logits(model(points), answers)


def train(name, model, options):
    """Train up to step `options.steps`. Returns the trainer and how many steps a second it took."""
    loader = tt.DataLoader(tt.TensorDataset(POINTS, XOR), batch_size=len(POINTS))
    optimizer = tt.Adam(model.parameters(), lr=0.05)
    checkpoints = tt.Checkpoints(options.out / "checkpoints" / name)
    trainer = tt.Trainer(model, optimizer, loader, loss_fn, checkpoints=checkpoints, checkpoint_every=100)
    if options.resume and checkpoints.list():
        trainer.resume()
    before, began = trainer.step, time.perf_counter()
    trainer.fit(options.steps)
    return trainer, (trainer.step - before) / (time.perf_counter() - began)


def probability(model, points):
    """How sure the model is, from 0 to 1, that exactly one of the two inputs is on."""
    with tt.no_grad():
        return tt.sigmoid(model(points.to(next(model.parameters()).device))).numpy()


def main(options):
    one_layer = tt.Linear(2, 1).to(options.device)
    two_layers = tt.Sequential(tt.Linear(2, 8), tt.Tanh(), tt.Linear(8, 1)).to(options.device)
    began = time.perf_counter()
    one, _ = train("one_layer", one_layer, options)
    two, steps_per_second = train("two_layers", two_layers, options)
    seconds = time.perf_counter() - began

    right = [(probability(model, POINTS) > 0.5) == (XOR.numpy() > 0.5) for model in (one_layer, two_layers)]
    metrics = {
        "one_layer_loss": one.evaluate(one.train_loader),
        "one_layer_accuracy": float(right[0].mean()),
        "one_layer_mistakes": int((~right[0]).sum()),
        "loss_initial": two.history["loss"][0],
        "loss_final": two.evaluate(two.train_loader),
        "two_layer_accuracy": float(right[1].mean()),
        "steps": two.step,
        "seconds": seconds,
        "steps_per_second": steps_per_second,
        "peak_memory_mb": milestone.peak_memory_mb(),
        "parameters": sum(p.numel() for p in two_layers.parameters()),
        "seed": options.seed,
    }
    if not options.train_only:
        draw({"one layer": one, "two layers": two}, options.out / "xor.png")
    return milestone.report(options, two, metrics, GATES)


def draw(trainers, path):
    """What each network answers on the whole plane, and how its loss fell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.9), layout="constrained", dpi=120)
    figure.get_layout_engine().set(wspace=0.06)
    *planes, losses = figure.subplots(1, 3)
    for axes, (name, trainer) in zip(planes, trainers.items()):
        image = draw_plane(axes, trainer.model)
        axes.set_title(f"{name}, loss {trainer.history['loss'][-1]:.2g}")
        losses.plot(trainer.history["step"], trainer.history["loss"], label=name)
    figure.colorbar(image, ax=planes, label="probability of 1")
    losses.axhline(math.log(2), color="black", linestyle=":", label="a guess: ln 2")
    losses.set(title="loss", xlabel="step", ylim=(0, None))
    losses.grid(alpha=0.3)
    losses.legend()
    figure.savefig(path)


def draw_plane(axes, model):
    """The probability as a colour, a line where it is 1/2, and the four points in the colour of the right answer."""
    steps = np.linspace(-0.5, 1.5, 200, dtype=np.float32)
    across, up = np.meshgrid(steps, steps)
    plane = probability(model, tt.tensor(np.stack([across, up], axis=-1))).squeeze(-1)
    image = axes.imshow(plane, cmap="coolwarm", vmin=0, vmax=1, extent=(-0.5, 1.5, -0.5, 1.5), origin="lower")
    axes.contour(across, up, plane, [0.5], colors="black", linewidths=1)
    for point, answer, p in zip(POINTS.tolist(), XOR.flatten().tolist(), probability(model, POINTS).flatten()):
        axes.plot(*point, "o", markersize=16, color="tab:red" if answer else "tab:blue", markeredgecolor="white")
        axes.annotate(
            f"{p:.2f}", point, (0, 16), textcoords="offset points", ha="center",
            bbox={"boxstyle": "round, pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )  # fmt: skip
    axes.set(xlabel="first input", ylabel="second input", xticks=[0, 1], yticks=[0, 1])
    return image


if __name__ == "__main__":
    milestone.run(main, __doc__, steps=STEPS, out="runs/minsky_papert_xor")
