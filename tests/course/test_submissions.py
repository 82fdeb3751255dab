"""Submissions in every form are read, and never run; `pytest --submission` tests what it says it tests."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tinytorch_course import notebooks, submissions
from tinytorch_course.answers import HEADER, Answer
from tinytorch_course.lessons import ROOT, read_lessons
from tinytorch_course.submissions import SubmissionError, read
from tinytorch_course.workspace import Workspace

LESSONS = read_lessons()
LESSON = LESSONS[4]
MUL = LESSON.exercises[1]
RIGHT = "def __mul__(x, y):\n    return x * y, (lambda g: g * y, lambda g: g * x)\n"
WRONG = RIGHT.replace("lambda g: g * x", "lambda g: g * y")
LEDGER = HEADER.format(title="T", number="05") + f'\n\n@course.exercise("{MUL.id}")\n'


def python_file(folder, text):
    path = folder / "alice.py"
    path.write_text(LEDGER + text, encoding="utf-8")
    return path


def notebook(folder, text):
    cells = [f'@course.exercise("{MUL.id}")\n{text}', "%matplotlib inline", "def broken(:"]
    path = folder / "homework (1).ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}))
    return path


def archive(folder, text):
    path = folder / "alice.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.write(python_file(folder, text), "work/05_autograd.py")
    return path


def folder_of_files(folder, text):
    inside = folder / "alice, O'Neil \N{GREEK SMALL LETTER PI}"
    inside.mkdir()
    python_file(inside, text)
    return inside


def workspace(folder, text):
    made = Workspace.create(folder / "my_course", copies=())
    made.save(MUL, Answer(MUL.id, text))
    return made.folder


FORMS = [python_file, notebook, archive, folder_of_files, workspace]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


@each_form
def test_every_form_is_read(form, tmp_path):
    found = read(form(tmp_path, RIGHT), LESSONS)
    assert {exercise.id: answer.text for exercise, answer in found.answers.items()} == {MUL.id: RIGHT}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)
@pytest.mark.parametrize("kind", ["student", "solution"])
def test_a_solved_notebook_has_all_answers_and_an_untouched_one_none(lesson, kind, tmp_path):
    [path] = notebooks.build([lesson], tmp_path, kind)
    found = read(path, LESSONS)
    assert [e.id for e in found.answers] == ([e.id for e in lesson.exercises] if kind == "solution" else [])
    assert found.notes == []


def test_python_files_count_before_notebooks(tmp_path):
    notebook(tmp_path, WRONG)
    python_file(tmp_path, RIGHT)
    assert read(tmp_path, LESSONS).answers[MUL].text == RIGHT


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"\xff\xfe\x00", "cannot be read"),
        (b'@course.exercise("ex-05-2")\ndef f(:\n', "is not yet Python"),
        (b"x = 1\n" * 1_000_000, "is larger than 5 MB"),
    ],
)
def test_what_cannot_be_read_is_noted_and_the_rest_counts(tmp_path, content, note):
    python_file(tmp_path, RIGHT)
    (tmp_path / "05_autograd.py").write_bytes(content)
    found = read(tmp_path, LESSONS)
    assert MUL in found.answers and any(note in said for said in found.notes)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"cells": [{}]}', "[" * 100_000])
def test_a_notebook_that_is_none_is_noted(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    assert "cannot be read" in read(tmp_path, LESSONS).notes[0]


def test_what_is_no_submission_is_refused(tmp_path):
    with pytest.raises(SubmissionError, match="There is no submission at"):
        read(tmp_path / "missing", LESSONS)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SubmissionError, match=r"needs to be a \.py or \.ipynb file, a zip, or a folder"):
        read(tmp_path / "a.txt", LESSONS)
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(SubmissionError, match="cannot be read as a zip"):
        read(tmp_path / "a.zip", LESSONS)


def test_an_empty_folder_has_no_answers(tmp_path):
    assert read(tmp_path, LESSONS).answers == {}


def test_a_zip_is_read_in_memory_whatever_its_names_say(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../escaped.py", LEDGER + RIGHT)
        file.writestr("/absolute.py", "x = 1")
        file.writestr("bomb.py", b"#" * 300_000_000)
        link = zipfile.ZipInfo("link.py")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    found = read(inside / "a.zip", LESSONS)
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "a.zip"]
    assert any("bomb.py is larger" in note for note in found.notes)


def test_links_in_a_folder_are_not_followed(tmp_path):
    secret = python_file(tmp_path, RIGHT)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "05_autograd.py").symlink_to(secret)
    assert read(folder, LESSONS).answers == {}


def test_of_very_many_files_the_first_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "MOST_FILES", 3)
    for i in range(9):
        (tmp_path / f"{i}.py").write_text('@course.exercise("ex-05-2")\ndef f(:')
    said, *others = read(tmp_path, LESSONS).notes
    assert said == "Of 9 files, 3 were read. Hand in the notebook, or work/, alone." and len(others) == 3


def test_a_zip_with_many_other_files_is_searched_to_its_end(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for i in range(600):
            file.writestr(f".git/objects/{i}.py", "")
            file.writestr(f"pictures/{i}.png", "")
        file.writestr("work/05_autograd.py", LEDGER + RIGHT)
    assert MUL in read(tmp_path / "a.zip", LESSONS).answers


def test_files_of_one_name_in_several_zips_do_not_hide_each_other(tmp_path):
    python_file(tmp_path, RIGHT).rename(tmp_path / "05_autograd.py")
    for name in ("handout.zip", "Handout2.ZIP"):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("05_autograd.py", LEDGER + MUL.hole())
    assert read(tmp_path, LESSONS).answers[MUL].text == RIGHT


# ---- pytest on a submission

TEST = "tests/05_autograd/test_gradient_flow.py"


def run(*command, cwd=ROOT, **environment):
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment
    return subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=cwd, env=environment, capture_output=True, text=True
    )


PYTEST = shutil.which("pytest", path=os.path.dirname(sys.executable)) or "pytest"
INVOCATIONS = {
    "pytest": ([PYTEST, TEST], ROOT, {}),
    "python -m pytest": ([sys.executable, "-m", "pytest", TEST], ROOT, {}),
    "python -P -m pytest": ([sys.executable, "-P", "-m", "pytest", TEST], ROOT, {}),
    "from the folder of the tests": ([PYTEST, "test_gradient_flow.py"], ROOT / "tests" / "05_autograd", {}),
    "from elsewhere": ([PYTEST, str(ROOT / TEST)], ROOT.parent, {}),
    "PYTHONSAFEPATH": ([PYTEST, TEST], ROOT, {"PYTHONSAFEPATH": "1"}),
    "importlib": ([PYTEST, TEST, "--import-mode=importlib"], ROOT, {}),
    "prepend": ([PYTEST, TEST, "--import-mode=prepend"], ROOT, {}),
}
each_invocation = pytest.mark.parametrize(("command", "cwd", "environment"), INVOCATIONS.values(), ids=INVOCATIONS)


@pytest.fixture
def another_checkout(tmp_path):
    """A folder with another tinytorch, which must not be what is tested."""
    for package in ("tinytorch", "tinytorch_course"):
        (tmp_path / "another" / package).mkdir(parents=True)
        (tmp_path / "another" / package / "__init__.py").write_text("raise RuntimeError('the other checkout')")
    return tmp_path / "another"


@pytest.mark.slow
@pytest.mark.parametrize("other", [False, True], ids=["alone", "beside another checkout"])
@each_invocation
def test_every_way_to_call_pytest_tests_what_it_says(command, cwd, environment, other, another_checkout, tmp_path):
    environment |= {"PYTHONPATH": str(another_checkout)} if other else {}
    ran = run(*command, cwd=cwd, **environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "tinytorch: the reference" in ran.stdout
    ran = run(*command, "--submission", str(python_file(tmp_path, WRONG)), cwd=cwd, **environment)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert f"alice.py ({MUL.id} student, rest reference)" in ran.stdout


@pytest.mark.slow
@each_form
def test_the_table_says_exercise_points_got_and_why(form, tmp_path):
    ran = run(PYTEST, "tests/05_autograd", "--submission", str(form(tmp_path, RIGHT)))
    assert ran.returncode == 1  # the others were not attempted
    assert f"{MUL.id} The rule of multiplication               1    1\n" in ran.stdout
    assert "ex-05-10 The way back                            5    0  not attempted" in ran.stdout
    assert "all                                             22    1" in ran.stdout


def test_a_wrong_answer_gets_nothing_and_a_reason(tmp_path):
    ran = run(PYTEST, TEST, TINYTORCH_SUBMISSION=str(python_file(tmp_path, WRONG)))
    assert ran.returncode == 1
    [row] = [line for line in ran.stdout.splitlines() if line.startswith(f"{MUL.id} The rule of multiplication  ")]
    assert " 0  " in row and "tests: AssertionError" in row


def test_a_submission_that_breaks_the_import_ends_the_run_with_a_sentence(tmp_path):
    text = "def __mul__(x, y, g=1 / 0):\n    return x * y\n"
    ran = run(PYTEST, TEST, "--submission", str(python_file(tmp_path, text)))
    assert ran.returncode == 1 and "ex-05-2: __mul__ needs the signature" in ran.stdout
    path = tmp_path / "bob.py"
    path.write_text("BAD = 1 / 0\n\n\n" + LEDGER + RIGHT.replace("return x * y,", "return x * y + BAD,"))
    ran = run(PYTEST, TEST, "--submission", str(path))
    assert ran.returncode == 4 and "cannot be imported. ZeroDivisionError" in ran.stderr


def test_what_is_no_submission_is_a_usage_error(tmp_path):
    ran = run(PYTEST, TEST, "--submission", str(tmp_path / "missing.zip"))
    assert ran.returncode == 4 and "There is no submission at" in ran.stderr
