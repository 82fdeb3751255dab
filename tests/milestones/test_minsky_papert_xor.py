"""The gate of the milestone of 1969: one layer cannot, two layers can."""

import math

import pytest
from running import MILESTONES, is_png, load_script, read_metrics, run, whole_run

import tinytorch as tt

SCRIPT = MILESTONES / "02_1969_xor" / "minsky_papert_xor.py"
METRICS = {
    "one_layer_loss", "one_layer_accuracy", "one_layer_mistakes", "loss_initial", "loss_final", "two_layer_accuracy",
    "steps", "seconds", "steps_per_second", "peak_memory_mb", "parameters", "seed",
}  # fmt: skip

script = load_script(SCRIPT)


trained = whole_run(SCRIPT)


def test_the_four_points_are_exclusive_or():
    assert [[int(a) ^ int(b)] for a, b in script.POINTS.tolist()] == script.XOR.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_for_any_seed_one_layer_is_left_at_ln_2_and_two_layers_learn_it(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["xor", "--train-only", "--seed", str(seed), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script.milestone.run(script.main, script.__doc__, steps=script.STEPS, out="unused")
    found = read_metrics(tmp_path)
    assert ended.value.code == 0, capsys.readouterr().out
    assert found["one_layer_accuracy"] <= 0.75
    assert found["one_layer_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert found["two_layer_accuracy"] == 1.0
    assert found["loss_final"] < 0.05


def test_no_line_gets_more_than_three_points_right():
    """Whatever the weights: many lines in all directions, and never four."""
    tt.manual_seed(0)
    answers = script.POINTS @ tt.randn(2, 5000) + tt.randn(5000) > 0  # (4, lines)
    right = (answers == (script.XOR > 0.5)).float().mean(dim=0)
    assert right.max().item() == 0.75


def test_the_run_reaches_its_gates(trained):
    process, out = trained
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    found = read_metrics(out)
    assert found.keys() == METRICS
    assert found["one_layer_mistakes"] == round(4 * (1 - found["one_layer_accuracy"])) >= 1
    assert found["steps"] == script.STEPS


@pytest.mark.parametrize("name", ["xor.png", "loss.png"])
def test_the_pictures_are_pngs(trained, name):
    assert is_png(trained[1] / name)


def test_a_run_that_misses_its_gate_says_so_and_fails_and_resume_ends_as_if_it_had_never_stopped(tmp_path, trained):
    process = run(SCRIPT, tmp_path, "--train-only", "--steps", 2)
    assert process.returncode == 1
    assert "Not reached: the gate is that two layers get all four points right" in process.stdout
    assert f"This run was 2 steps; the milestone is made for {script.STEPS}." in process.stdout
    assert not (tmp_path / "xor.png").exists()
    resumed = run(SCRIPT, tmp_path, "--train-only", "--resume", "--steps", script.STEPS)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    for name in ("one_layer_loss", "loss_final"):
        assert read_metrics(tmp_path)[name] == read_metrics(trained[1])[name]


def test_the_same_seed_gives_the_same_loss_and_another_does_not(tmp_path, trained):
    for name, seed in (("same", 0), ("other", 1)):
        run(SCRIPT, tmp_path / name, "--train-only", "--seed", seed)
    losses = [read_metrics(out)["loss_final"] for out in (trained[1], tmp_path / "same", tmp_path / "other")]
    assert losses[0] == losses[1] != losses[2]
