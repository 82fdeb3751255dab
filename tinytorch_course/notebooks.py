"""Notebooks, made from lessons: prose and demos from `lesson.md`, holes from the framework's own source."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from . import answers, holes
from .lessons import ROOT, LessonError

STUB = "# YOUR CODE HERE", "raise NotImplementedError()"  # as nbgrader leaves it
KINDS = ("student", "solution", "nbgrader-source")
FENCE = re.compile(r"^(```+)(.*)$")
EXERCISE = re.compile(r"^<!-- exercise (\S+) -->$")


@dataclass(frozen=True)
class Part:
    """A piece of a lesson. kind: "prose", "demo" (Python to be run) or "exercise" (text is its id)."""

    kind: str
    text: str


def parts(lesson, root=ROOT):
    """The pieces of a lesson's prose, in order. Raises LessonError unless each exercise comes once, and in order."""
    found, prose, demo, fence = [], [], None, None

    def end_of_prose():
        if text := "\n".join(prose).strip():
            found.append(Part("prose", text))
        prose.clear()

    for line in lesson.prose(root).splitlines():
        mark, exercise = FENCE.match(line), EXERCISE.match(line)
        if fence:
            if line == fence:
                if demo is None:
                    prose.append(line)
                else:
                    found.append(Part("demo", "\n".join(demo)))
                fence = demo = None
            else:
                (prose if demo is None else demo).append(line)
        elif mark:
            fence = mark[1]
            if mark[2] == "python":
                end_of_prose()
                demo = []
            else:
                prose.append(line)
        elif exercise:
            end_of_prose()
            found.append(Part("exercise", exercise[1]))
        else:
            prose.append(line)
    end_of_prose()
    if fence:
        raise LessonError(f"{lesson.folder}/lesson.md needs a closing {fence} for the last block of code.")
    shown = [part.text for part in found if part.kind == "exercise"]
    wanted = [exercise.id for exercise in lesson.exercises]
    if shown != wanted:
        raise LessonError(f"{lesson.folder}/lesson.md needs the exercises {wanted}, in this order, but has {shown}.")
    return found


def answer_cell(exercise, kind="student", root=ROOT):
    """The source of the cell in which an exercise is solved."""
    text = exercise.solution(root)
    if kind == "student":
        text = holes.cut(text, exercise.name, *STUB)
    elif kind == "nbgrader-source":
        text = holes.marked(text, exercise.name, "### BEGIN SOLUTION", "### END SOLUTION")
    return f'@course.exercise("{exercise.id}")\n{text}'.rstrip("\n")


def notebook(lesson, kind="student", root=ROOT):
    """The notebook of a lesson (nbformat 4.5). The same lesson gives the same notebook, byte for byte.

    kind: "student" with holes, "solution", or "nbgrader-source", from which nbgrader makes the student's version.
    """
    import nbformat.v4 as v4

    exercises = {exercise.id: exercise for exercise in lesson.exercises}
    beginning, *rest = parts(lesson, root)
    cells = [v4.new_markdown_cell(beginning.text)]
    cells.append(v4.new_code_cell(f'import tinytorch_course as course\n\ncourse.start("{lesson.number}")'))
    for part in rest:
        if part.kind == "prose":
            cells.append(v4.new_markdown_cell(part.text))
        elif part.kind == "demo":
            cells.append(v4.new_code_cell(part.text))
        else:
            cells += _exercise_cells(exercises[part.text], kind, root)
    cells.append(v4.new_markdown_cell("## Where you are"))
    cells.append(v4.new_code_cell("course.progress()"))
    for number, cell in enumerate(cells):
        if "nbgrader" not in cell.metadata:
            cell["id"] = f"cell-{lesson.number}-{number:03}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}, nbformat_minor=5
    )


def _exercise_cells(exercise, kind, root):
    """The cell to write in and the cell that checks it, with nbgrader's metadata (schema 3)."""
    import nbformat.v4 as v4

    heading = f"### {exercise.id}: {exercise.title} ({exercise.points} {'point' if exercise.points == 1 else 'points'})"
    title = v4.new_markdown_cell(heading, id=f"title-{exercise.id}")
    common = {"schema_version": 3, "task": False, "cell_type": "code"}
    answer = v4.new_code_cell(answer_cell(exercise, kind, root), id=exercise.id)
    answer.metadata["nbgrader"] = {
        **common, "grade": False, "grade_id": exercise.id, "locked": False, "solution": True,
    }  # fmt: skip
    check = v4.new_code_cell(f'course.check("{exercise.id}")', id=f"check-{exercise.id}")
    check.metadata["nbgrader"] = {
        **common,
        "grade": True,
        "grade_id": f"check-{exercise.id}",
        "locked": True,
        "points": exercise.points,
        "solution": False,
    }
    return [title, answer, check]


def read_code(path):
    """The Python in the file of a notebook, as `code_of`. Raises ValueError where it is none."""
    return code_of(Path(path).read_text(encoding="utf-8"), path)


def code_of(text, name):
    """The code cells of a notebook's file, one after the other, without magics and cells that are no Python."""
    return "\n\n".join(source for source in cells_of(text, name) if not answers.fault(source, name))


def cells_of(text, name):
    """The code cells of a notebook's file, without magics. Raises ValueError where it is none."""
    try:
        cells = json.loads(text)["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} cannot be read as a notebook: {error!r}") from error
    return [_without_magics(source) for source in sources]


def _without_magics(source):
    """A cell without the lines that only IPython understands."""
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))


def text(built):
    """What stands in the file of a notebook."""
    import nbformat

    return nbformat.writes(built) + "\n"


def build(lessons, folder, kind="student", root=ROOT):
    """Write the notebooks of lessons into a folder. Returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for lesson in lessons:
        path = folder / f"{lesson.folder}.ipynb"
        path.write_text(text(notebook(lesson, kind, root)), encoding="utf-8")
        paths.append(path)
    return paths
