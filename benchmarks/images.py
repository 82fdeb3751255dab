"""Classifiers of images and a convolution alone: tinytorch beside PyTorch's eager mode, in one run.

    python benchmarks/images.py

Both train the same network from the same weights on the same batch with Adam, or take one convolution forward and
back. They take turns, many times, with the same number of threads, and the median times are compared as a ratio: below
1, tinytorch is faster.
"""

from typing import NamedTuple

import numpy as np
from peers import FRAMEWORKS, compare, median_times

import tinytorch as tt

BATCH = 64


class Case(NamedTuple):
    """Images, the name of what is done with them, and how often in a row before the other framework has its turn."""

    name: str
    run: str
    shape: tuple
    steps: int
    target: float


CASES = [
    Case("digits, MLP 64-128-10, B=64", "perceptron", (BATCH, 64), 100, 0.8),
    Case("digits, 8x8: conv 8, pool, conv 16, pool, linear, B=64", "network", (BATCH, 1, 8, 8), 50, 1.2),
    Case("conv2d alone: (32, 16, 28, 28), 32 filters 3x3", "convolution", (32, 16, 28, 28), 3, 2.0),
]


def layers(nn, run):
    """The model of a case from the layers of a library, tinytorch or torch.nn, which have the same names."""
    if run == "convolution":
        return nn.Conv2d(16, 32, 3, padding=1)
    if run == "perceptron":
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def step(framework, case):
    """A function that does the work of a case once, and returns a number that both frameworks must agree on."""
    tt.device.keep_freed_memory()  # as the Trainer does
    tt.manual_seed(0)
    model, random = layers(tt, case.run), np.random.default_rng(0)
    images = random.standard_normal(case.shape, np.float32)
    labels = random.integers(0, 10, BATCH)
    if framework == "tinytorch":
        library, loss_fn, optimizers = tt, tt.cross_entropy, tt
    else:
        import torch

        twin = layers(torch.nn, case.run)
        twin.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})
        model, library, loss_fn, optimizers = twin, torch, torch.nn.functional.cross_entropy, torch.optim
    if case.run == "convolution":
        g = library.tensor(random.standard_normal((32, 32, 28, 28), np.float32))
        return forward_and_back(model, library.tensor(images).requires_grad_(), g)
    return training_step(model, library.tensor(images), library.tensor(labels), loss_fn, optimizers.Adam)


def training_step(model, images, labels, loss_fn, optimizer):
    optimizer = optimizer(model.parameters())

    def train():
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def forward_and_back(model, images, g):
    def run():
        images.grad = None
        model.zero_grad()
        model(images).backward(g)
        return model.weight.grad.detach().numpy()[0, 0, 0, 0]

    return run


def measure_speed(rounds):
    """Rows (name, our milliseconds, theirs, at most)."""
    for case in CASES:
        ours, theirs = median_times([step(framework, case) for framework in FRAMEWORKS], case.steps, rounds)
        yield case.name, ours * 1e3, theirs * 1e3, case.target


if __name__ == "__main__":
    compare(__file__, __doc__, measure_speed)
