"""The gate of the milestone of 1998: convolution reads the same digits better, with fewer parameters."""

import shutil

import pytest
from running import MILESTONES, is_png, load_script, read_metrics, run, whole_run

import tinytorch as tt

SCRIPT = MILESTONES / "04_1998_cnn" / "lecun_cnn.py"
OF_1986 = MILESTONES / "03_1986_mlp" / "rumelhart_mlp.py"
OF_A_MODEL = {
    "loss_initial", "loss_final", "train_accuracy", "test_accuracy", "test_mistakes", "parameters", "seconds",
    "images_per_second",
}  # fmt: skip
METRICS = OF_A_MODEL | {f"mlp_{name}" for name in OF_A_MODEL}
METRICS |= {"data", "fewer_mistakes", "fewer_parameters", "steps", "peak_memory_mb", "seed"}

script = load_script(SCRIPT)


trained = whole_run(SCRIPT)


def test_the_run_reaches_its_gates(trained):
    process, out = trained
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    found = read_metrics(out)
    assert found.keys() == METRICS
    assert found["test_accuracy"] > found["mlp_test_accuracy"] >= 0.95
    assert found["parameters"] < found["mlp_parameters"]
    assert found["fewer_mistakes"] == found["mlp_test_mistakes"] - found["test_mistakes"]


@pytest.mark.parametrize("name", ["features.png", "loss.png"])
def test_the_pictures_are_pngs(trained, name):
    assert is_png(trained[1] / name)


def test_the_mlp_is_that_of_1986_number_for_number(tmp_path):
    """Two scripts, each to be read alone: this keeps them the same where they say the same."""
    run(SCRIPT, tmp_path / "1998", "--train-only", "--steps", 40, "--seed", 5)
    run(OF_1986, tmp_path / "1986", "--train-only", "--steps", 40, "--seed", 5)
    new, old = read_metrics(tmp_path / "1998"), read_metrics(tmp_path / "1986")
    for name in ("loss_initial", "loss_final", "train_accuracy", "test_accuracy", "parameters"):
        assert new[f"mlp_{name}"] == pytest.approx(old[name], rel=1e-12)


def test_resume_ends_as_if_nothing_had_happened(tmp_path):
    """The first run ends before the CNN has begun: its checkpoints are taken away."""
    run(SCRIPT, tmp_path / "whole", "--train-only", "--steps", 20)
    out = tmp_path / "stopped"
    run(SCRIPT, out, "--train-only", "--steps", 20)
    shutil.rmtree(out / "checkpoints" / "cnn")
    (out / "metrics.json").unlink()
    resumed = run(SCRIPT, out, "--train-only", "--resume")
    assert resumed.returncode in (0, 1), resumed.stderr
    for name in ("mlp_loss_final", "loss_final", "test_mistakes"):
        assert read_metrics(out)[name] == read_metrics(tmp_path / "whole")[name]


@pytest.mark.parametrize("side", [8, 28])
def test_each_image_gets_ten_scores_with_fewer_parameters_than_the_mlp_has(side):
    images = tt.randn(3, 1, side, side)
    mlp, cnn = script.build_mlp(side), script.build_cnn(side)
    assert mlp(images).shape == cnn(images).shape == (3, 10)
    assert sum(p.numel() for p in cnn.parameters()) < sum(p.numel() for p in mlp.parameters())


def test_a_run_that_misses_its_gate_says_so_and_fails(tmp_path):
    process = run(SCRIPT, tmp_path, "--train-only", "--steps", 10)
    assert process.returncode == 1
    assert "Not reached: the gate is that the CNN reads 95 % of the test digits rightly" in process.stdout
    assert f"This run was 10 steps; the milestone is made for {script.STEPS}." in process.stdout
    assert not (tmp_path / "features.png").exists()


def test_the_same_seed_gives_the_same_loss_and_another_does_not(tmp_path):
    losses = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(SCRIPT, tmp_path / name, "--train-only", "--steps", 20, "--seed", seed)
        losses.append(read_metrics(tmp_path / name)["loss_final"])
    assert losses[0] == losses[1] != losses[2]
