"""1957, the perceptron: one unit learns from its mistakes to tell two kinds of points apart.

F. Rosenblatt described the perceptron in a report of 1957 (Cornell Aeronautical Laboratory 85-460-1) and a paper of
1958 (Psychological Review 65, 386-408). Its rule, as in his "Principles of Neurodynamics" (1962): an input that was
answered wrongly is added to the weights, or taken from them, and after a right answer nothing changes. There is no
gradient in it and no learning rate.

Where a line divides the classes, the rule finds one, and A. Novikoff (1962) proved how soon: it takes at most
(R / gamma)^2 corrections, if no input is longer than R and none is nearer to some dividing line than gamma.
"""

import math
import time

import tinytorch as tt
from tinytorch_course import milestone

POINTS, FRESH = 200, 1000
MARGIN = 0.05  # no point is nearer than this to the line that the classes were made with
STEPS = 1400  # passes over the points, at most: Novikoff's bound is 1308 or less, whatever the line
GATES = [
    milestone.Gate("train_accuracy", 1.0, "all points that it learned from are on the right side"),
    milestone.Gate("test_accuracy", 0.95, "95 % of fresh points are on the right side"),
]


class Perceptron(tt.Module):
    """One unit: its score of a point is positive on one side of a line and negative on the other."""

    def __init__(self, inputs):
        self.register_buffer("weight", tt.zeros(inputs))  # no Parameters: nothing here needs a gradient
        self.register_buffer("bias", tt.zeros(1))
        self.history = {"step": [], "loss": [], "line": [], "eval_step": [], "eval_loss": []}  # loss: mistakes a point

    def forward(self, x):
        return x @ self.weight + self.bias

    def correct(self, x, sign):
        """Rosenblatt's rule for one point, whose class is -1 or 1. Returns whether there was something to correct."""
        if sign * self(x) > 0:
            return False
        self.weight = self.weight + sign * x
        self.bias = self.bias + sign
        return True


def random_line():
    """(normal, offset) of a line near the middle of the square; a point x is normal . x + offset away from it."""
    angle, offset = tt.rand(2).tolist()
    return tt.tensor([math.cos(math.tau * angle), math.sin(math.tau * angle)]), 0.6 * offset - 0.3


def draw_points(count, line):
    """`count` points of the square from -1 to 1 that keep away from a line, and -1 or 1 for the side they are on."""
    normal, offset = line
    points = 2 * tt.rand(2 * count, 2) - 1
    distance = points @ normal + offset
    points = points[distance.abs() >= MARGIN][:count]
    return points, tt.where(points @ normal + offset > 0, 1.0, -1.0)


def most_corrections(points, signs, line):
    """Novikoff's (R / gamma)^2; the bias counts as the weight of a third input that is always 1."""
    normal, offset = line[0].to(points.device), line[1]
    longest = ((points**2).sum(dim=1) + 1).max()  # R^2
    nearest = (signs * (points @ normal + offset)).min() ** 2 / (1 + offset**2)  # gamma^2
    return int(longest / nearest)


def learn(perceptron, points, signs, passes):
    """Pass over the points until none is answered wrongly, for at most `passes` passes in all."""
    history = perceptron.history
    while len(history["step"]) < passes and history["loss"][-1:] != [0.0]:
        corrections = sum(perceptron.correct(x, sign) for x, sign in zip(points, signs))
        history["step"].append(len(history["step"]) + 1)
        history["loss"].append(corrections / len(points))
        history["line"].append(perceptron.weight.tolist() + perceptron.bias.tolist())


def accuracy(perceptron, points, signs):
    """The share of points that are on the right side."""
    return (signs * perceptron(points) > 0).float().mean().item()


def main(options):
    line = random_line()
    points, signs = (part.to(options.device) for part in draw_points(POINTS, line))
    fresh, fresh_signs = (part.to(options.device) for part in draw_points(FRESH, line))
    perceptron = Perceptron(2).to(options.device)

    checkpoints = tt.Checkpoints(options.out / "checkpoints")
    if options.resume:
        arrays, perceptron.history = checkpoints.load()
        perceptron.load_state_dict(arrays)
    else:
        checkpoints.set_aside()
    before = len(perceptron.history["step"])
    began = time.perf_counter()
    learn(perceptron, points, signs, options.steps)
    seconds = time.perf_counter() - began
    passes = len(perceptron.history["step"])
    checkpoints.save(passes, {name: part.numpy() for name, part in perceptron.state_dict().items()}, perceptron.history)

    metrics = {
        "loss_initial": perceptron.history["loss"][0],
        "loss_final": perceptron.history["loss"][-1],
        "corrections": round(sum(perceptron.history["loss"]) * POINTS),
        "most_corrections": most_corrections(points, signs, line),
        "train_accuracy": accuracy(perceptron, points, signs),
        "test_accuracy": accuracy(perceptron, fresh, fresh_signs),
        "steps": passes,
        "seconds": seconds,
        "steps_per_second": (passes - before) / seconds,
        "peak_memory_mb": milestone.peak_memory_mb(),
        "parameters": perceptron.weight.numel() + perceptron.bias.numel(),
        "seed": options.seed,
    }
    if not options.train_only:
        draw(perceptron.to("cpu"), points, signs, options.out / "line.png")
    return milestone.report(options, perceptron, metrics, GATES)


def draw(perceptron, points, signs, path):
    """The points, and the line after each pass over them: the paler, the earlier."""
    figure = tt.plot_decision_boundary(perceptron, points, signs)
    axes, lines = figure.axes[0], perceptron.history["line"]
    for number, (a, b, c) in enumerate(lines, start=1):
        if (a, b) != (0, 0):
            x, y = -c * a / (a * a + b * b), -c * b / (a * a + b * b)  # the line's point next to the origin
            axes.axline((x, y), (x - b, y + a), color="black", alpha=(number / len(lines)) ** 2, zorder=0.5)
    axes.set_title(f"the line after each of {len(lines)} passes")
    figure.savefig(path)


if __name__ == "__main__":
    milestone.run(main, __doc__, steps=STEPS, out="runs/rosenblatt_perceptron")
