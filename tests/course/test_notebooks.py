"""Notebooks: made from the lessons, the same each time, valid, and what is committed is what is made."""

import json

import pytest

from tinytorch_course import holes, notebooks
from tinytorch_course.lessons import ROOT, LessonError, read_lesson, read_lessons

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebook'")

LESSONS = read_lessons()
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)
each_kind = pytest.mark.parametrize("kind", notebooks.KINDS)


@each_lesson
def test_what_is_committed_is_what_the_lesson_makes(lesson):
    committed = (ROOT / "notebooks" / f"{lesson.folder}.ipynb").read_text(encoding="utf-8")
    same = committed == notebooks.text(notebooks.notebook(lesson))
    assert same, f"notebooks/{lesson.folder}.ipynb is out of date: run `tinytorch build-notebooks`"


def test_no_notebook_is_without_a_lesson():
    committed = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert committed == {lesson.folder for lesson in LESSONS}


@each_kind
@each_lesson
def test_a_notebook_is_valid_and_has_no_outputs(lesson, kind):
    made = notebooks.notebook(lesson, kind)
    nbformat.validate(made)
    assert (made.nbformat, made.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in made.cells if cell.cell_type == "code")


@each_kind
@each_lesson
def test_nbgraders_metadata_are_complete(lesson, kind):
    marked = [cell for cell in notebooks.notebook(lesson, kind).cells if "nbgrader" in cell.metadata]
    by_id = {cell.metadata.nbgrader["grade_id"]: cell for cell in marked}
    assert len(by_id) == len(marked) == 2 * len(lesson.exercises)
    for exercise in lesson.exercises:
        answer, check = by_id[exercise.id], by_id[f"check-{exercise.id}"]
        common = {"schema_version": 3, "task": False, "cell_type": "code"}
        assert answer.metadata.nbgrader == {
            **common, "grade": False, "locked": False, "solution": True, "grade_id": exercise.id,
        }  # fmt: skip
        assert check.metadata.nbgrader == {
            **common, "grade": True, "locked": True, "solution": False, "grade_id": f"check-{exercise.id}",
            "points": exercise.points,
        }  # fmt: skip


@each_lesson
def test_each_exercise_is_a_cell_to_write_in_and_a_cell_that_checks(lesson):
    sources = [cell.source for cell in notebooks.notebook(lesson).cells if cell.cell_type == "code"]
    assert sources[0] == f'import tinytorch_course as course\n\ncourse.start("{lesson.number}")'
    assert sources[-1] == "course.progress()"
    for exercise in lesson.exercises:
        place = sources.index(notebooks.answer_cell(exercise))
        assert sources[place + 1] == f'course.check("{exercise.id}")'
        assert "raise NotImplementedError()" in sources[place]


@each_lesson
def test_a_notebook_for_students_holds_no_solution(lesson):
    shown = "\n".join(cell.source for cell in notebooks.notebook(lesson).cells)
    for exercise in lesson.exercises:
        solution = exercise.solution()
        docstring = holes.handout(solution, exercise.name) or ""
        body = [line.strip() for line in solution.splitlines()[1:] if len(line.strip()) > 12]
        body = [line for line in body if line not in docstring and not line.startswith(('"""', "#"))]
        assert not all(line in shown for line in body) or len(body) < 2, exercise.id


@each_lesson
def test_nbgrader_strips_its_source_to_our_stubs(lesson):
    preprocessors = pytest.importorskip("nbgrader.preprocessors", reason="needs `pip install nbgrader`")
    stripped, _ = preprocessors.ClearSolutions().preprocess(notebooks.notebook(lesson, "nbgrader-source"), {})
    cells = {cell.id: cell.source for cell in stripped.cells}
    for exercise in lesson.exercises:
        if isinstance(holes.find(exercise.solution(), exercise.name), holes.ast.FunctionDef):
            assert cells[exercise.id] == notebooks.answer_cell(exercise)
        else:  # of a class nbgrader leaves the body empty, and we an __init__ that raises
            assert "raise NotImplementedError()" in cells[exercise.id]


# ---- what a lesson.md must be

TOML = """
title = "T"
requires = []

[[exercise]]
id = "ex-05-1"
title = "Undo broadcasting"
target = "tinytorch/autograd.py::unbroadcast"
points = 2
"""


@pytest.fixture
def lesson_of(tmp_path):
    """lesson_of(prose): (the lesson with this text, its root)."""

    def write(prose):
        folder = tmp_path / "modules" / "05_autograd"
        folder.mkdir(parents=True)
        (folder / "lesson.toml").write_text(TOML, encoding="utf-8")
        (folder / "lesson.md").write_text(prose, encoding="utf-8")
        return read_lesson(folder / "lesson.toml"), tmp_path

    return write


def kinds(lesson, root):
    return [(part.kind, part.text) for part in notebooks.parts(lesson, root)]


def test_prose_demos_and_exercises_become_parts(lesson_of):
    prose = "# T\n\nWhy.\n\n```python\nx = 1\n\nx\n```\n\nMore:\n\n```text\n<!-- exercise ex-05-9 -->\n```\n"
    prose += "<!-- exercise ex-05-1 -->\nEnd.\n"
    assert kinds(*lesson_of(prose)) == [
        ("prose", "# T\n\nWhy."),
        ("demo", "x = 1\n\nx"),
        ("prose", "More:\n\n```text\n<!-- exercise ex-05-9 -->\n```"),
        ("exercise", "ex-05-1"),
        ("prose", "End."),
    ]


def test_a_longer_fence_may_hold_a_shorter_one(lesson_of):
    prose = "# T\n\n````md\n```python\nx\n```\n````\n\n<!-- exercise ex-05-1 -->\n"
    assert kinds(*lesson_of(prose))[0] == ("prose", "# T\n\n````md\n```python\nx\n```\n````")


@pytest.mark.parametrize(
    ("prose", "says"),
    [
        ("# T\n", r"needs the exercises \['ex-05-1'\], in this order, but has \[\]"),
        ("# T\n\n<!-- exercise ex-05-1 -->\n\n<!-- exercise ex-05-1 -->\n", "but has"),
        ("# T\n\n<!-- exercise ex-05-2 -->\n", "but has"),
        ("# T\n\n<!-- exercise ex-05-1 -->\n\n```python\nx = 1\n", "needs a closing ```"),
    ],
)
def test_what_is_wrong_with_a_lesson_is_said(lesson_of, prose, says):
    lesson, root = lesson_of(prose)
    with pytest.raises(LessonError, match=says):
        notebooks.parts(lesson, root)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"cells": [{}]}', "{torn"])
def test_what_is_no_notebook_is_named(tmp_path, content):
    path = tmp_path / "n.ipynb"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"n\.ipynb cannot be read as a notebook"):
        notebooks.read_code(path)


def test_lines_of_a_cell_may_be_a_list_or_a_string(tmp_path):
    path = tmp_path / "n.ipynb"
    cells = [{"cell_type": "code", "source": ["a\n", "b"]}, {"cell_type": "markdown", "source": "c"}]
    path.write_text(json.dumps({"cells": [*cells, {"cell_type": "code", "source": "d"}]}))
    assert notebooks.read_code(path) == "a\nb\n\nd"


def test_magics_and_what_is_no_python_are_left_out(tmp_path):
    path = tmp_path / "n.ipynb"
    sources = ["%matplotlib inline\nx = 1", "!pip list", "def f(:", "y = 2"]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": source} for source in sources]}))
    assert notebooks.read_code(path).split() == ["x", "=", "1", "y", "=", "2"]
