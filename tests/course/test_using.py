"""`--using my_course/`: a milestone on the framework that the student wrote."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from running import MILESTONES

from tinytorch_course import build
from tinytorch_course.answers import Answer
from tinytorch_course.workspace import Workspace

SCRIPT = MILESTONES / "01_1957_perceptron" / "rosenblatt_perceptron.py"
COPILOT = MILESTONES / "05_2017_transformer" / "vaswani_copilot.py"


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "my_course", copies=())


def passes(workspace, id, text, helpers=""):
    [exercise] = [e for lesson in workspace.lessons for e in lesson.exercises if e.id == id]
    version = workspace.save(exercise, Answer(id, text, helpers))
    with workspace.changing() as progress:
        progress.passed(exercise, version.id)


def run(script, *arguments):
    command = [sys.executable, str(script), "--train-only", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=script.parent)


def test_it_says_how_much_is_the_students_and_reaches_the_gate(workspace, tmp_path):
    passes(workspace, "ex-05-2", "def __mul__(x, y):\n    return x * y, (lambda g: g * y, lambda g: g * x)\n")
    ran = run(SCRIPT, "--using", workspace.folder, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert "of the framework that you run is yours (2 of " in ran.stdout
    assert (tmp_path / "out" / "metrics.json").exists()


def test_what_runs_is_the_students(workspace, tmp_path):
    passes(workspace, "ex-05-2", "def __mul__(x, y):\n    raise RuntimeError('mine ran')\n")
    ran = run(SCRIPT, "--using", workspace.folder, "--out", tmp_path / "out")
    assert ran.returncode == 1 and "mine ran" in ran.stderr and str(workspace.folder) in ran.stderr


def test_a_script_that_lies_in_a_workspace_runs_on_it(workspace, tmp_path):
    passes(workspace, "ex-05-2", "def __mul__(x, y):\n    raise RuntimeError('mine ran')\n")
    script = workspace.folder / "milestones" / "01" / SCRIPT.name
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)
    assert "mine ran" in run(script, "--out", tmp_path / "out").stderr


def test_a_path_with_dots_in_it_starts_one_process_and_no_chain(workspace, tmp_path):
    folder = workspace.folder / "milestones" / "01"
    folder.mkdir(parents=True)
    shutil.copy(SCRIPT, folder)
    ran = run(workspace.folder / "work" / ".." / "milestones" / "01" / SCRIPT.name, "--out", tmp_path / "out")
    assert ran.returncode == 0 and ran.stdout.count("Using") == 1


def test_the_folder_that_is_named_wins_over_the_one_around_the_script(workspace, tmp_path):
    other = Workspace.create(tmp_path / "other", copies=())
    passes(other, "ex-05-2", "def __mul__(x, y):\n    raise RuntimeError('the other ran')\n")
    folder = workspace.folder / "milestones" / "01"
    folder.mkdir(parents=True)
    shutil.copy(SCRIPT, folder)
    ran = run(folder / SCRIPT.name, "--using", other.folder, "--out", tmp_path / "out")
    assert "the other ran" in ran.stderr and ran.stdout.count("Using") == 1


def test_an_abbreviated_option_is_refused_and_not_ignored(tmp_path):
    assert run(SCRIPT, "--usin", tmp_path, "--out", tmp_path / "out").returncode == 2


def test_what_did_not_pass_is_not_used(workspace, tmp_path):
    exercise = workspace.lessons[4].exercises[1]
    workspace.save(exercise, Answer(exercise.id, "def __mul__(x, y):\n    raise RuntimeError('mine ran')\n"))
    ran = run(SCRIPT, "--using", workspace.folder, "--out", tmp_path / "out")
    assert ran.returncode == 0 and "0% of the framework that you run is yours" in ran.stdout


def test_a_folder_that_is_no_workspace_is_refused(tmp_path):
    ran = run(SCRIPT, "--using", tmp_path, "--out", tmp_path / "out")
    assert ran.returncode == 2 and "error: --using:" in ran.stderr and "is no workspace" in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_ctrl_c_saves_and_ends_with_130(workspace, tmp_path):
    command = [sys.executable, "-u", str(COPILOT), "--train-only", "--using", str(workspace.folder)]
    command += ["--steps", "100000", "--out", str(tmp_path / "out")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, process_group=0, **pipes) as process:
        first = process.stdout.readline()
        while not list(tmp_path.glob("out/checkpoints/step-*")):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert "Using" in first
    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint


@pytest.mark.slow
def test_with_all_lessons_done_the_copilot_runs_on_the_students_framework(workspace, tmp_path):
    for lesson in workspace.lessons:
        for exercise in lesson.exercises:
            passes(workspace, exercise.id, exercise.solution())
    ran = run(COPILOT, "--using", workspace.folder, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    own, lines = build.share(workspace)
    assert own > 600 and f"({own:,} of {lines:,} lines of code)" in ran.stdout
