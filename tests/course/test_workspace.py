"""The student's folder: nothing in it is lost, whatever happens."""

import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from tinytorch_course import build, commands, files
from tinytorch_course.answers import Answer, AnswerError
from tinytorch_course.workspace import Workspace, WorkspaceError

ADD = "def __add__(x, y):\n    return x + y\n"
WRONG = "def __add__(x, y):\n    return x - y\n"


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "my_course", copies=())


@pytest.fixture
def first(workspace):
    return workspace.lessons[0].exercises[0]


def answer(text):
    return Answer("ex-01-1", text)


# ---- making one


def test_a_new_one_has_everything_to_work_with(tmp_path):
    made = Workspace.create(tmp_path / "a" / "my_course")
    for path in ("notebooks", "work", "milestones/05_2017_transformer/vaswani_copilot.py", "tests/05_autograd"):
        assert (made.folder / path).exists(), path
    assert [lesson.number for lesson in made.lessons][:2] == ["01", "02"]


def test_making_it_again_changes_nothing_of_the_students(tmp_path):
    made = Workspace.create(tmp_path)
    script = made.folder / "milestones/05_2017_transformer/vaswani_copilot.py"
    script.write_text("mine")
    made.save(made.lessons[0].exercises[0], answer(ADD))
    again = Workspace.create(tmp_path)
    assert script.read_text() == "mine"
    assert again.answer(again.lessons[0].exercises[0]).text == ADD


def test_a_folder_that_is_none_says_how_to_make_one(tmp_path):
    with pytest.raises(WorkspaceError, match=r"is no workspace of the course. `tinytorch init"):
        Workspace(tmp_path)
    assert Workspace.find(tmp_path) is None


def test_it_is_found_from_every_folder_inside(workspace):
    inside = workspace.folder / "notebooks" / "deep"
    inside.mkdir(parents=True)
    assert Workspace.find(inside).folder == workspace.folder


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "my_course").write_text("a file")
    with pytest.raises(WorkspaceError, match="cannot be made into a workspace"):
        Workspace.create(tmp_path / "my_course")
    assert (tmp_path / "my_course").read_text() == "a file"


def test_without_a_clone_it_says_so(tmp_path):
    with pytest.raises(WorkspaceError, match="works from a clone of the repository"):
        Workspace.create(tmp_path / "my_course", root=tmp_path)


# ---- copies


@pytest.fixture
def course(tmp_path):
    """A course of one file, and a workspace with its copy: (file of the course, the copy, update)."""
    root = tmp_path / "course"
    (root / "modules").mkdir(parents=True)
    (root / "notebooks").mkdir()
    original = root / "notebooks" / "01_tensor.ipynb"
    original.write_text("one")
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    patterns = ("notebooks/*.ipynb",)
    made = Workspace.create(tmp_path / "my_course", root=root, copies=patterns)
    copy = made.folder / "notebooks" / "01_tensor.ipynb"
    return SimpleNamespace(original=original, copy=copy, update=lambda: made.copy(patterns))


def test_an_untouched_copy_is_brought_up_to_date(course):
    course.original.write_text("two")
    assert course.update() == {"notebooks/01_tensor.ipynb": "updated"}
    assert course.copy.read_text() == "two"
    assert course.update() == {}


def test_a_changed_copy_is_kept_and_the_new_one_put_beside(course):
    course.copy.write_text("mine")
    assert course.update() == {}
    course.original.write_text("two")
    assert course.update() == {"notebooks/01_tensor.ipynb": "kept yours"}
    assert course.copy.read_text() == "mine"
    assert course.copy.with_name("01_tensor.new.ipynb").read_text() == "two"
    assert course.update() == {}


def test_a_copy_that_was_deleted_comes_back(course):
    course.copy.unlink()
    assert course.update() == {"notebooks/01_tensor.ipynb": "new"}
    assert course.copy.read_text() == "one"


# ---- answers and versions


def test_what_is_saved_is_there_and_every_version_is_kept(workspace, first):
    for text in (WRONG, ADD, ADD):
        workspace.save(first, answer(text))
    assert workspace.answer(first).text == ADD
    kept = workspace.versions(first)
    assert [version.number for version in kept] == [1, 2]
    assert workspace.kept(first, kept[0].id).text == WRONG


def test_helpers_are_kept_with_a_version(workspace, first):
    helped = Answer("ex-01-1", "def __add__(x, y):\n    return plus(x, y)\n", "def plus(x, y):\n    return x + y")
    version = workspace.save(first, helped)
    assert workspace.kept(first, version.id) == helped == workspace.answer(first)


def test_reset_and_undo_walk_through_the_versions(workspace, first):
    assert "still open" in commands.reset(workspace, first)
    assert "no earlier version" in commands.undo(workspace, first)
    workspace.save(first, answer(WRONG))
    workspace.save(first, answer(ADD))
    assert "is open again" in commands.reset(workspace, first) and workspace.answer(first) is None
    commands.undo(workspace, first)
    assert workspace.answer(first).text == ADD
    commands.undo(workspace, first)
    assert workspace.answer(first).text == WRONG
    assert "no earlier version" in commands.undo(workspace, first)


def test_what_an_editor_wrote_into_the_ledger_is_read_by_id_or_by_name(workspace, first):
    ledger = workspace.ledger(workspace.lessons[0])
    ledger.parent.mkdir(exist_ok=True)
    ledger.write_text(f'import tinytorch_course as course\n\n@course.exercise("ex-01-1")\n{ADD}')
    assert workspace.answer(first).text == ADD
    ledger.write_text(ADD)
    assert workspace.answer(first).text == ADD


def test_a_name_that_two_exercises_share_is_only_found_by_id(workspace):
    data = workspace.lessons[7]
    shuffled = next(exercise for exercise in data.exercises if exercise.qualname == "RandomSampler.__iter__")
    workspace.ledger(data).write_text("def __iter__(self):\n    return iter([1])\n")
    assert workspace.answer(shuffled) is None


def test_a_ledger_that_is_no_python_is_not_written_over(workspace, first):
    workspace.save(first, answer(ADD))
    ledger = workspace.ledger(workspace.lessons[0])
    broken = ledger.read_text().replace("return x + y", "return x +")
    ledger.write_text(broken)
    with pytest.raises(AnswerError, match="is not yet Python: line"):
        workspace.save(first, answer(WRONG))
    assert ledger.read_text() == broken
    assert workspace.kept(first, answer(WRONG).version).text == WRONG


def test_what_was_typed_into_a_ledger_is_kept_before_it_is_written_over(workspace, first):
    workspace.save(first, answer(ADD))
    ledger = workspace.ledger(workspace.lessons[0])
    ledger.write_text(ledger.read_text().replace("return x + y", "return y + x"))
    workspace.save(first, answer(WRONG))
    assert [workspace.kept(first, version.id).text for version in workspace.versions(first)] == [
        ADD, ADD.replace("x + y", "y + x"), WRONG,
    ]  # fmt: skip


def test_undo_of_a_broken_ledger_puts_it_aside_and_makes_it_anew(workspace, first):
    workspace.save(first, answer(ADD))
    ledger = workspace.ledger(workspace.lessons[0])
    ledger.write_text("def f(:\n")
    assert "made anew from the backups" in commands.undo(workspace, first)
    assert workspace.answer(first).text == ADD
    assert (ledger.parent / "01_tensor.broken.py").read_text() == "def f(:\n"


@pytest.mark.parametrize("content", [b"# \xe9\n", "# é".encode("utf-16")])
def test_a_ledger_in_another_encoding_is_named(workspace, first, content):
    workspace.ledger(workspace.lessons[0]).write_bytes(content)
    with pytest.raises(AnswerError, match="is not in UTF-8"):
        workspace.answer(first)


def test_a_byte_order_mark_is_passed_over(workspace, first):
    workspace.ledger(workspace.lessons[0]).write_bytes(b"\xef\xbb\xbf" + ADD.encode())
    assert workspace.answer(first).text == ADD


def test_helpers_of_one_name_in_two_versions_do_not_meet_in_one_build(workspace):
    sigmoid, silu = workspace.lessons[1].exercises[1:3]
    first = Answer(sigmoid.id, "def stable_sigmoid(x):\n    return helper(x)\n", "def helper(x):\n    return 1")
    second = Answer(silu.id, "def silu_composed(x):\n    return helper(x)\n", "def helper(x):\n    return 2")
    version = workspace.save(sigmoid, first)
    with workspace.changing() as progress:
        progress.passed(sigmoid, version.id)
    made = source(build.to_check(workspace, silu, second), silu)
    assert "return 2" in made and "return 1\n" not in made and made.count("def helper") == 1


def test_an_empty_ledger_has_no_answers(workspace, first):
    workspace.ledger(workspace.lessons[0]).write_text("")
    assert workspace.answer(first) is None
    workspace.save(first, answer(ADD))
    assert workspace.answer(first).text == ADD


def test_a_full_disk_leaves_what_was_there(workspace, first, monkeypatch):
    workspace.save(first, answer(ADD))
    before = {path: path.read_bytes() for path in workspace.folder.rglob("*") if path.is_file()}

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written \(No space left on device\). What it held before is"):
        workspace.save(first, answer(WRONG))
    assert {path: path.read_bytes() for path in workspace.folder.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named(workspace, first):
    folder = workspace.folder / "work"
    folder.chmod(0o500)
    with pytest.raises(OSError, match=str(folder)):
        workspace.save(first, answer(ADD))


def test_many_that_write_at_once_lose_nothing(workspace):
    exercises = workspace.lessons[0].exercises

    def work(exercise):
        own = Workspace(workspace.folder)
        for i in range(5):
            own.save(exercise, Answer(exercise.id, f"def {exercise.name}(x):\n    return {i}\n"))

    threads = [threading.Thread(target=work, args=(exercise,)) for exercise in exercises]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("return 4" in workspace.answer(exercise).text for exercise in exercises)
    assert all(len(workspace.versions(exercise)) == 5 for exercise in exercises)


# ---- progress


def test_a_progress_file_that_cannot_be_read_is_kept_aside(workspace, first, capsys):
    path = workspace.folder / ".tinytorch" / "progress.json"
    path.write_text("{torn")
    assert workspace.progress().exercises == {}
    assert path.with_name("progress.unreadable.json").read_text() == "{torn"
    assert "It is kept as progress.unreadable.json" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 2}', '{"format": 1, "exercises": [], "skipped": 3}', "7"])
def test_what_is_no_progress_is_refused_in_whatever_way_it_is_none(workspace, content, capsys):
    (workspace.folder / ".tinytorch" / "progress.json").write_text(content)
    assert workspace.progress().skipped == []
    assert "cannot be read" in capsys.readouterr().out


# ---- what runs


def passes(workspace, exercise, text):
    version = workspace.save(exercise, Answer(exercise.id, text))
    with workspace.changing() as progress:
        progress.passed(exercise, version.id)


def source(package, exercise):
    return (package / exercise.file).read_text(encoding="utf-8")


def test_earlier_exercises_are_the_students_where_they_pass_and_else_the_reference(workspace):
    sigmoid, silu = workspace.lessons[1].exercises[1:3]
    passes(workspace, sigmoid, "def stable_sigmoid(x):\n    return mine(x)\n")
    workspace.save(silu, Answer(silu.id, "def silu_composed(x):\n    return wrong(x)\n"))
    made = source(build.of_lesson(workspace, "03"), sigmoid)
    assert "return mine(x)" in made and "wrong(x)" not in made
    assert made == source(build.of_all(workspace), sigmoid)


def test_a_version_that_passed_stays_in_use_while_a_newer_one_does_not(workspace):
    sigmoid = workspace.lessons[1].exercises[1]
    passes(workspace, sigmoid, "def stable_sigmoid(x):\n    return mine(x)\n")
    workspace.save(sigmoid, Answer(sigmoid.id, "def stable_sigmoid(x):\n    return broken(x)\n"))
    assert "return mine(x)" in source(build.of_lesson(workspace, "03"), sigmoid)


def test_in_its_own_lesson_an_answer_is_used_as_it_is_and_an_open_one_is_a_hole(workspace):
    sigmoid, silu = workspace.lessons[1].exercises[1:3]
    workspace.save(sigmoid, Answer(sigmoid.id, "def stable_sigmoid(x):\n    return x * 7\n"))
    made = source(build.of_lesson(workspace, "02"), sigmoid)
    assert "return x * 7" in made and silu.message in made


def test_later_lessons_are_the_reference(workspace):
    sigmoid = workspace.lessons[1].exercises[1]
    passes(workspace, sigmoid, "def stable_sigmoid(x):\n    return x * 7\n")
    assert source(build.of_lesson(workspace, "01"), sigmoid) == sigmoid.source()


def test_an_operation_whose_rule_is_open_still_works_forward(workspace):
    """In lesson 05 the forward pass is the student's from lesson 01, or the reference's without its rule."""
    forward, rule = workspace.lessons[0].exercises[0], workspace.lessons[4].exercises[0]
    assert rule.target == forward.target
    assert "return x + y\n" in source(build.of_lesson(workspace, "05"), rule)
    passes(workspace, forward, "def __add__(x, y):\n    return y + x\n")
    assert "return y + x\n" in source(build.of_lesson(workspace, "05"), rule)
    assert source(build.of_all(workspace), rule) == rule.source()


def test_a_check_runs_on_the_answer_and_the_reference_beside_it(workspace):
    sigmoid, silu = workspace.lessons[1].exercises[1:3]
    workspace.save(silu, Answer(silu.id, "def silu_composed(x):\n    return wrong(x)\n"))
    made = source(
        build.to_check(workspace, sigmoid, Answer(sigmoid.id, "def stable_sigmoid(x):\n    return x * 7\n")), sigmoid
    )
    assert "return x * 7" in made and "wrong(x)" not in made and "NotImplementedError" not in made


def test_the_share_counts_the_lines_that_pass(workspace):
    own, lines = build.share(workspace)
    assert own == 0 and lines > 4000
    passes(
        workspace, workspace.lessons[1].exercises[1], "def stable_sigmoid(x):\n    # why\n    y = x * 7\n    return y\n"
    )
    assert build.share(workspace)[0] == 3


def test_pytest_in_the_workspace_tests_what_the_student_wrote(tmp_path):
    made = Workspace.create(tmp_path / "my_course")
    sigmoid = made.lessons[1].exercises[1]
    passes(made, sigmoid, "def stable_sigmoid(x):\n    return x * 7\n")
    command = [sys.executable, "-m", "pytest", "tests/02_activations", "-k", "sigmoid", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=made.folder, capture_output=True, text=True)
    assert ran.returncode == 1 and "failed" in ran.stdout and str(made.folder) in ran.stdout


@pytest.mark.slow
def test_a_new_workspace_has_what_its_tests_import_and_read(tmp_path):
    made = Workspace.create(tmp_path / "my_course")
    command = [sys.executable, "-m", "pytest", "tests", "-k", "test_pretrained or documented_examples"]
    ran = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=made.folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


# ---- notebooks


def notebook(workspace, name, *cells):
    content = {"cells": [{"cell_type": "code", "source": cell} for cell in cells], "nbformat": 4}
    path = workspace.folder / "notebooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_renamed_notebook_is_found_by_its_first_cell(workspace):
    path = notebook(workspace, "homework.ipynb", 'import tinytorch_course as course\n\ncourse.start("01")')
    assert workspace.notebooks(workspace.lessons[0]) == [path]
    assert workspace.notebooks(workspace.lessons[1]) == []


def test_what_was_saved_in_a_notebook_but_never_run_is_found(workspace, first):
    begin = 'course.start("01")'
    path = notebook(workspace, "01.ipynb", begin, "%matplotlib inline", f'@course.exercise("ex-01-1")\n{ADD}')
    assert workspace.in_notebooks(first) == (path, answer(ADD))
    workspace.save(first, answer(ADD))
    assert workspace.in_notebooks(first) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"cells": [{}]}', 'course.start(\\"01\\")'])
def test_a_torn_notebook_is_passed_over(workspace, first, content):
    notebook(workspace, "01.ipynb").write_text(content)
    assert workspace.in_notebooks(first) is None


# ---- handing in


def test_a_submission_holds_the_work_and_what_it_is(workspace, first, tmp_path):
    import zipfile

    with pytest.raises(WorkspaceError, match="nothing to submit"):
        commands.submit(workspace, workspace.lessons[0])
    passes(workspace, first, ADD)
    commands.submit(workspace, workspace.lessons[0])
    with zipfile.ZipFile(workspace.folder / "submissions" / "01_tensor.zip") as archive:
        assert sorted(archive.namelist()) == ["submission.json", "work/01_tensor.py"]
        assert ADD in archive.read("work/01_tensor.py").decode()
        assert json.loads(archive.read("submission.json"))["passed_here"] == ["ex-01-1"]
