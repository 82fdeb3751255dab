"""The gate of the milestone of 1957: the rule converges, and no later than the theorem says."""

import pytest
from running import MILESTONES, is_png, load_script, read_metrics, run, whole_run

import tinytorch as tt

SCRIPT = MILESTONES / "01_1957_perceptron" / "rosenblatt_perceptron.py"
METRICS = {
    "loss_initial", "loss_final", "corrections", "most_corrections", "train_accuracy", "test_accuracy", "steps",
    "seconds", "steps_per_second", "peak_memory_mb", "parameters", "seed",
}  # fmt: skip

script = load_script(SCRIPT)


trained = whole_run(SCRIPT)


# ---- the rule


def test_a_right_answer_changes_nothing_and_a_wrong_one_moves_the_weights_by_the_input():
    perceptron = script.Perceptron(2)
    point = tt.tensor([0.5, -2.0])
    assert perceptron.correct(point, tt.tensor(-1.0))  # a score of 0 is no answer
    assert (perceptron.weight.tolist(), perceptron.bias.tolist()) == ([-0.5, 2.0], [-1.0])
    assert not perceptron.correct(point, tt.tensor(-1.0))
    assert (perceptron.weight.tolist(), perceptron.bias.tolist()) == ([-0.5, 2.0], [-1.0])


@pytest.mark.parametrize("seed", range(10))
def test_for_any_seed_it_separates_the_points_within_novikoffs_bound(seed):
    tt.manual_seed(seed)
    line = script.random_line()
    points, signs = script.draw_points(script.POINTS, line)
    perceptron = script.Perceptron(2)
    script.learn(perceptron, points, signs, script.STEPS)
    corrections = round(sum(perceptron.history["loss"]) * len(points))
    assert perceptron.history["loss"][-1] == 0
    assert 0 < corrections <= script.most_corrections(points, signs, line) < script.STEPS
    assert script.accuracy(perceptron, points, signs) == 1
    assert script.accuracy(perceptron, *script.draw_points(script.FRESH, line)) >= 0.95


def test_points_are_as_many_as_asked_for_of_both_classes_and_keep_their_distance():
    line = tt.tensor([0.6, 0.8]), 0.1
    points, signs = script.draw_points(500, line)
    distance = points @ line[0] + line[1]
    assert points.shape == (500, 2) and signs.shape == (500,)
    assert (distance * signs).min().item() >= script.MARGIN
    assert sorted(set(signs.tolist())) == [-1.0, 1.0]
    assert points.abs().max().item() <= 1


def test_the_bound_of_a_case_worked_out_by_hand():
    points, signs = tt.tensor([[1.0, 0.0], [-0.5, 1.0]]), tt.tensor([1.0, -1.0])
    # the longest input is (-0.5, 1, 1), of squared length 2.25; the nearest is 0.5 from the line x_0 = 0
    assert script.most_corrections(points, signs, (tt.tensor([1.0, 0.0]), 0.0)) == 9


# ---- the script


def test_the_run_reaches_its_gates(trained):
    process, out = trained
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stderr == ""
    found = read_metrics(out)
    assert found.keys() == METRICS
    assert found["train_accuracy"] == 1
    assert found["test_accuracy"] >= 0.95
    assert found["loss_final"] == 0 < found["loss_initial"]
    assert found["corrections"] <= found["most_corrections"]


@pytest.mark.parametrize("name", ["line.png", "loss.png"])
def test_the_pictures_are_pngs(trained, name):
    assert is_png(trained[1] / name)


def test_a_run_that_misses_its_gate_says_so_and_fails(tmp_path, trained):
    process = run(SCRIPT, tmp_path, "--train-only", "--steps", 4)
    assert process.returncode == 1
    assert "Not reached: the gate is that all points that it learned from are on the right side" in process.stdout
    assert f"This run was 4 steps; the milestone is made for {script.STEPS}." in process.stdout
    assert not (tmp_path / "line.png").exists()
    resumed = run(SCRIPT, tmp_path, "--resume", "--steps", script.STEPS)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    same = ("loss_initial", "corrections", "train_accuracy", "test_accuracy", "steps")
    assert [read_metrics(tmp_path)[name] for name in same] == [read_metrics(trained[1])[name] for name in same]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(tmp_path):
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(SCRIPT, tmp_path / name, "--train-only", "--seed", seed)
        metrics = read_metrics(tmp_path / name)
        found.append((metrics["corrections"], metrics["steps"], metrics["test_accuracy"]))
    assert found[0] == found[1] != found[2]
