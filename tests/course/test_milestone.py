"""The command line that all milestones share."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import tinytorch as tt
from tinytorch_course import milestone


def options(out, *arguments):
    return milestone.read_options("What it does.\nMore.", 100, out, list(map(str, arguments)))


def test_defaults(tmp_path):
    found = options(tmp_path / "run")
    assert (found.steps, found.seed, found.device, found.out) == (100, 0, "cpu", tmp_path / "run")
    assert not found.train_only and not found.resume


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", 0], "--steps needs at least 1, but got 0"),
        (["--steps", "many"], "--steps: invalid int value: 'many'"),
        (["--seed", -1], "--seed needs 0 or more, but got -1"),
        (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["--resume"], "--resume found no run"),
    ],
)
def test_options_that_cannot_be_end_in_a_sentence_and_change_nothing(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        options(tmp_path / "run", *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(tt.device.is_cuda_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_ends_in_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        options(tmp_path, "--device", "cuda")
    assert "needs CuPy and an NVIDIA GPU" in capsys.readouterr().err


def test_an_out_that_cannot_be_written_to_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        options(tmp_path, "--out", tmp_path / "file" / "run")
    assert "--out needs a folder that can be written to" in capsys.readouterr().err


def test_resume_takes_steps_and_seed_from_the_run_that_it_goes_on_with(tmp_path):
    options(tmp_path, "--steps", 7, "--seed", 3)
    found = options(tmp_path, "--resume")
    assert (found.steps, found.seed) == (7, 3)
    assert options(tmp_path, "--resume", "--steps", 9).steps == 9


def test_resume_refuses_another_seed(tmp_path, capsys):
    options(tmp_path, "--seed", 3)
    with pytest.raises(SystemExit):
        options(tmp_path, "--resume", "--seed", 4)
    assert "a run of seed 3, so --seed 4 cannot be kept" in capsys.readouterr().err


CORPORA = {"corpus": {"small": "a few lines", "large": "a library"}}


def choice(out, *arguments):
    steps = {"small": 10, "large": 20}
    arguments = list(map(str, arguments))
    return milestone.read_options("", lambda options: steps[options.corpus], out, arguments, CORPORA)


def test_a_script_may_offer_choices_on_which_the_steps_depend(tmp_path):
    found = choice(tmp_path)
    assert (found.corpus, found.steps, found.default_steps) == ("small", 10, 10)
    found = choice(tmp_path, "--corpus", "large", "--steps", 3)
    assert (found.corpus, found.steps, found.default_steps) == ("large", 3, 20)


def test_choices_are_explained_and_checked(tmp_path, capsys):
    with pytest.raises(SystemExit):
        choice(tmp_path, "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "small: a few lines; large: a library (default small)" in said
    assert "how long to train (default depends on the other options)" in said
    with pytest.raises(SystemExit):
        choice(tmp_path, "--corpus", "huge")
    assert "--corpus: invalid choice: 'huge'" in capsys.readouterr().err


def test_resume_keeps_the_choices_of_the_run_and_refuses_others(tmp_path, capsys):
    choice(tmp_path, "--corpus", "large", "--steps", 5)
    found = choice(tmp_path, "--resume")
    assert (found.corpus, found.steps, found.default_steps) == ("large", 5, 20)
    assert choice(tmp_path, "--resume", "--corpus", "large").corpus == "large"
    with pytest.raises(SystemExit):
        choice(tmp_path, "--resume", "--corpus", "small")
    assert "goes on with a run of corpus large, so --corpus small cannot be kept" in capsys.readouterr().err


def test_a_record_from_before_there_was_a_choice_means_the_default(tmp_path):
    (tmp_path / "run.json").write_text('{"seed": 1, "steps": 4}')
    assert choice(tmp_path, "--resume").corpus == "small"


@pytest.mark.parametrize("corpus", ["huge", 3, None, []])
def test_a_record_with_another_choice_is_refused(corpus, tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"seed": 1, "steps": 4, "corpus": corpus}))
    with pytest.raises(SystemExit):
        choice(tmp_path, "--resume")
    assert "is not the record of a run" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seed": 1}', '{"seed": "x", "steps": 2}'])
def test_resume_refuses_a_record_that_is_none(content, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(SystemExit):
        options(tmp_path, "--resume")
    assert "is not the record of a run" in capsys.readouterr().err
    assert (tmp_path / "run.json").read_text() == content


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    milestone.write_json(path, {"loss": 1.0})

    def fail(*names):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        milestone.write_json(path, {"loss": 2.0})
    assert json.loads(path.read_text()) == {"loss": 1.0}


@pytest.mark.parametrize(("score", "status"), [(0.9, 0), (0.8, 0), (0.79, 1), (float("nan"), 1)])
def test_the_status_is_1_where_a_gate_is_not_met(score, status, tmp_path, capsys):
    history = {"step": [1], "loss": [1.0], "eval_step": [], "eval_loss": []}
    gates = [milestone.Gate("score", 0.8, "the score is at least 0.8")]
    metrics = {"score": score, "steps": 1200, "corpus": "a library"}
    found = milestone.report(options(tmp_path), SimpleNamespace(history=history), metrics, gates)
    assert found == status
    said = capsys.readouterr().out
    assert ("Not reached: the gate is that the score is at least 0.8" in said) == bool(status)
    assert "1,200" in said and "corpus  a library" in said
    assert {"metrics.json", "loss.png"} <= {path.name for path in tmp_path.iterdir()}


def test_peak_memory_sees_an_array_that_was_used_and_freed():
    program = """
import numpy as np
from tinytorch_course.milestone import peak_memory_mb
before = peak_memory_mb()
np.ones(50_000_000 // 8).sum()
print(peak_memory_mb() - before)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) == pytest.approx(50, abs=10)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (tt.CheckpointError("No checkpoint."), 1, "error: No checkpoint.\n"),
        (FloatingPointError("The loss became nan."), 1, "error: The loss became nan.\n"),
        (tt.TrainingFailed("The loss rose."), 1, "error: The loss rose.\n"),
        (OSError("disk full"), 1, "error: disk full\n"),
        (tt.TrainingInterrupted("Stopped after step 3."), 130, "Stopped after step 3.\n"),
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C.\n"),
    ],
)
def test_what_a_user_can_put_right_ends_in_one_sentence(error, status, said, tmp_path, capsys, monkeypatch):
    def main(options):
        raise error

    monkeypatch.setattr("sys.argv", ["milestone.py"])
    with pytest.raises(SystemExit) as stopped:
        milestone.run(main, "What it does.", steps=1, out=tmp_path)
    assert stopped.value.code == status
    assert capsys.readouterr().err == said


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["milestone.py"])
    with pytest.raises(ZeroDivisionError):
        milestone.run(lambda options: 1 / 0, "What it does.", steps=1, out=tmp_path)


def test_a_new_run_is_never_resumed_from_an_older_one(tmp_path):
    options(tmp_path, "--seed", 1)
    tt.Checkpoints(tmp_path / "checkpoints").save(60, {}, {})
    (tmp_path / "metrics.json").write_text("{}")
    options(tmp_path, "--seed", 2)
    assert tt.Checkpoints(tmp_path / "checkpoints").list() == []
    assert len(tt.Checkpoints(tmp_path / "checkpoints-previous").list()) == 1
    assert not (tmp_path / "metrics.json").exists()
