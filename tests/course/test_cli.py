"""The command `tinytorch`, as it is typed."""

import subprocess
import sys
import threading

import pytest

from tinytorch_course import cli
from tinytorch_course.answers import HEADER
from tinytorch_course.workspace import Workspace

RIGHT = '@course.exercise("ex-01-1")\ndef __add__(x, y):\n    return x + y\n'
WRONG = RIGHT.replace("x + y", "x - y")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workspace in the current folder's my_course."""
    monkeypatch.chdir(tmp_path)
    return Workspace.create("my_course", copies=()).folder


@pytest.fixture
def run(capsys):
    """run("check", "ex-01-1"): (status, what was printed, what was complained)."""

    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as usage:
            status = usage.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def write(folder, text, lesson="01_tensor"):
    (folder / "work" / f"{lesson}.py").write_text(HEADER.format(title="T", number="01") + "\n\n" + text)


def test_init_makes_a_folder_and_says_how_to_begin(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    status, said, _ = run("init")
    assert status == 0 and "jupyter lab my_course/notebooks/01_tensor.ipynb" in said
    assert (tmp_path / "my_course" / "tests" / "05_autograd").is_dir()
    assert "nothing of yours was changed" in run("init")[1]


def test_outside_of_a_workspace_it_says_how_to_make_one(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    for command in (["check"], ["progress"], ["hint", "ex-01-1"], ["skip", "01"], ["update"], ["submit", "01"]):
        status, _, complaint = run(*command)
        assert status == 1 and "Make one with `tinytorch init`" in complaint


def test_check_without_names_checks_what_has_changed(folder, run):
    assert run("check")[1].startswith("Nothing has changed")
    write(folder, WRONG)
    status, said, _ = run("check")
    assert status == 1 and "ex-01-1 Add: not yet" in said and "work/01_tensor.py, version 1" in said
    write(folder, RIGHT)
    assert run("check")[0] == 0
    assert run("check")[1].startswith("Nothing has changed")
    assert run("check", "ex-01-1")[0] == 0


def test_check_of_a_lesson_shows_what_is_open(folder, run):
    write(folder, RIGHT)
    status, said, _ = run("check", "01")
    assert status == 1 and "1 of 8 pass." in said and "ex-01-8 Cut into a number of pieces: still open" in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["check", "ex-99-1"], "There is no exercise or lesson 'ex-99-1'"),
        (["hint", "05"], "is a whole lesson. Name one exercise, such as ex-05-1"),
        (["skip", "nonsense"], "There is no lesson 'nonsense'"),
        (["skip", "01-99"], "There is no lesson '01-99'"),
        (["submit", "01"], "There is nothing to submit"),
        (["-C", "nowhere", "progress"], "is no workspace"),
        (["build-notebooks", "--solution"], "name a folder with --out"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(folder, run, command, says):
    status, _, complaint = run(*command)
    assert status == 1 and says in complaint and "Traceback" not in complaint


def test_wrong_usage_ends_with_2(folder, run):
    assert run()[0] == run("no-such-command")[0] == run("hint")[0] == 2


def test_hints_come_one_after_the_other(folder, run):
    said = [run("hint", "ex-01-1")[1] for _ in range(4)]
    assert [line[:11] for line in said] == ["Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3", "Hint 3 of 3"]
    assert "3" in next(line for line in run("progress")[1].splitlines() if line.startswith("01"))


def test_solution_reset_and_undo(folder, run):
    assert "def __add__(x, y):" in run("solution", "ex-01-1")[1]
    write(folder, RIGHT)
    assert "is open again" in run("reset", "ex-01-1")[1]
    assert "return x + y" not in (folder / "work" / "01_tensor.py").read_text()
    assert "return x + y" in run("undo", "ex-01-1")[1]
    assert "return x + y" in (folder / "work" / "01_tensor.py").read_text()


def test_skipped_lessons_are_marked_in_the_table(folder, run):
    assert "Skipped: 01, 02, 03, 04" in run("skip", "01-04")[1]
    rows = [line for line in run("progress")[1].splitlines() if line[:2].isdigit()]
    assert [row.endswith("skipped") for row in rows] == [True] * 4 + [False] * (len(rows) - 4)


def test_progress_says_how_much_is_the_students(folder, run):
    assert "0% of the framework that you run is yours (0 of " in run("progress")[1]


def test_doctor_finds_what_is_wrong(folder, run):
    status, said, _ = run("doctor")
    assert "can be written to" in said and status == (1 if "FAIL" in said else 0)
    write(folder, RIGHT + "\n\n" + RIGHT)
    assert "ex-01-1 more than once" in run("doctor")[1]
    write(folder, "def f(:\n")
    status, said, _ = run("doctor")
    assert status == 1 and "FAIL  work/01_tensor.py is not yet Python" in said
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "notebooks" / "torn.ipynb").write_text("{")
    assert "torn.ipynb cannot be read as a notebook" in run("doctor")[1]


def test_doctor_outside_of_a_workspace_looks_at_the_installation(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    assert "There is no workspace here" in run("doctor")[1] and "numpy" in run("doctor")[1]


def test_a_ledger_in_the_middle_of_an_edit_is_a_sentence(folder, run):
    write(folder, "def f(:\n")
    status, said, _ = run("check")
    assert status == 1 and "work/01_tensor.py is not yet Python: line" in said


def test_notebooks_are_built_where_asked(tmp_path, run):
    assert run("build-notebooks", "05", "--solution", "--out", tmp_path)[0] == 0
    assert "heapq.heappop" in (tmp_path / "05_autograd.ipynb").read_text()


def test_watch_checks_what_is_saved_until_it_is_stopped(folder):
    command = [sys.executable, "-u", "-m", "tinytorch_course", "watch", "01"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        seen, killer = [], threading.Timer(60, process.kill)
        killer.start()
        for line in process.stdout:
            seen.append(line)
            if line.startswith("Watching"):
                write(folder, WRONG)
            elif "not yet" in line:
                write(folder, RIGHT)
            elif "passed" in line:
                break
        killer.cancel()
        process.kill()
    assert "passed" in seen[-1], seen


def test_as_a_module_it_is_the_same_command():
    said = subprocess.run([sys.executable, "-m", "tinytorch_course", "--help"], capture_output=True, text=True).stdout
    for command in ("init", "check", "watch", "hint", "reset", "undo", "skip", "solution", "progress", "doctor"):
        assert f"    {command} " in said
