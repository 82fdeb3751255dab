"""nbgrader's own commands on a lesson: the instructor's notebook, the students' one, three submissions, grades."""

import csv
import importlib.util
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tinytorch_course import notebooks, submissions
from tinytorch_course.lessons import ROOT, read_lessons

if importlib.util.find_spec("nbgrader") is None:
    pytest.skip("needs `pip install nbgrader`", allow_module_level=True)

import nbformat

pytestmark = pytest.mark.slow
LESSON = read_lessons()[4]
NAME = f"{LESSON.folder}.ipynb"
EXERCISES = {exercise.id: exercise for exercise in LESSON.exercises}
POINTS = {exercise.id: float(exercise.points) for exercise in LESSON.exercises}
TALKING, WRONG, TWICE, *OPEN = "ex-05-1", "ex-05-2", "ex-05-3", "ex-05-4", "ex-05-6", "ex-05-8", "ex-05-10"
SCORES = {
    "solved": POINTS,
    "half": {id: 0.0 if id in (WRONG, *OPEN) else points for id, points in POINTS.items()},
    "untouched": dict.fromkeys(POINTS, 0.0),
}
OPTIONS = ["--OverwriteCells.add_missing_cells=True", "--Execute.timeout=90"]  # as in the instructors' guide
each_student = pytest.mark.parametrize("student", SCORES)


def answer(id, code):
    return f'@course.exercise("{id}")\n{code.strip()}'


def solve(notebook, ids):
    """Write the reference's answers into a released notebook."""
    for cell in notebook.cells:
        if cell.id in ids:
            cell.source = answer(cell.id, EXERCISES[cell.id].solution())


def half_solve(notebook):
    """Half of it right: one answer talks on standard error and has lost its check, one comes after a first try."""
    solve(notebook, set(POINTS) - {WRONG, *OPEN})
    cells = {cell.id: cell for cell in notebook.cells}
    said = '    import sys\n\n    print("Adding up.", file=sys.stderr)\n    return'
    cells[TALKING].source = cells[TALKING].source.replace("    return", said)
    cells[WRONG].source = answer(WRONG, EXERCISES[WRONG].wrong[0].code)
    first_try = nbformat.v4.new_code_cell(answer(TWICE, EXERCISES[TWICE].wrong[0].code))
    notebook.cells.insert(notebook.cells.index(cells[TWICE]), first_try)
    notebook.cells.remove(cells[f"check-{TALKING}"])


class Course:
    """A folder with nbgrader's course in it."""

    def __init__(self, folder, runtime):
        self.folder = folder
        for name in ("students", "config", "tmp"):
            (folder / name).mkdir()
        self.environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # nbgrader calls alembic
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder / "no_home"),
            "TMPDIR": str(folder / "tmp"),
            "IPYTHONDIR": runtime,
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_RUNTIME_DIR": runtime,
            "OMP_NUM_THREADS": "1",
        }
        sockets = ["--KernelManager.transport=ipc", f"--KernelManager.ip={runtime}/ipc"]
        self.kernel = [] if sys.platform == "win32" else sockets  # no network

    def run(self, *command):
        """Run a module of Python's as a command. Returns what it said."""
        command = [sys.executable, "-m", *map(str, command)]
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, encoding="utf-8"
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout + ran.stderr

    def released(self):
        return nbformat.read(self.folder / "release" / "05" / NAME, as_version=4)

    def submit(self, student, path):
        target = self.folder / "submitted" / student / "05" / NAME
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)

    def table(self, query):
        with sqlite3.connect(self.folder / "gradebook.db") as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The course after all of nbgrader's steps, from the lesson to the feedback."""
    with tempfile.TemporaryDirectory(prefix="k") as runtime:  # a socket's path must be short
        course = Course(tmp_path_factory.mktemp("course"), runtime)
        course.run("tinytorch_course", "build-notebooks", "05", "--nbgrader-source", "--out", "source/05")
        course.run("nbgrader", "generate_assignment", "05")
        course.submit("untouched", course.folder / "release" / "05" / NAME)
        for student, work in (("solved", lambda notebook: solve(notebook, POINTS)), ("half", half_solve)):
            notebook, path = course.released(), course.folder / "students" / student / NAME
            work(notebook)
            path.parent.mkdir()
            nbformat.write(notebook, path)
            if student == "half":  # with what it showed, as Jupyter saves it
                run = ["nbconvert", "--to", "notebook", "--inplace", "--execute", "--allow-errors"]
                course.run(*run, *course.kernel, path)
            course.submit(student, path)
        course.run("nbgrader", "autograde", "05", *OPTIONS, *course.kernel)
        course.run("nbgrader", "generate_feedback", "05")
        yield course


def test_the_released_notebook_is_the_one_for_students(course):
    released, ours = course.released(), notebooks.notebook(LESSON)
    nbformat.validate(released)
    assert [(cell.id, cell.cell_type, cell.source) for cell in released.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in ours.cells
    ]
    for cell, own in zip(released.cells, ours.cells):
        metadata = dict(cell.metadata.get("nbgrader", {}))
        metadata.pop("checksum", None)
        assert metadata == own.metadata.get("nbgrader", {})


def test_the_gradebook_has_the_lessons_points(course):
    rows = course.table("SELECT name, max_score FROM base_cell JOIN grade_cells USING (id)")
    assert dict(rows) == {f"check-{id}": points for id, points in POINTS.items()}


@each_student
def test_each_exercise_gets_its_points(course, student):
    rows = course.table(
        "SELECT base_cell.name, grade.auto_score, grade.needs_manual_grade FROM grade "
        "JOIN base_cell ON base_cell.id = grade.cell_id "
        "JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id "
        "JOIN submitted_assignment ON submitted_assignment.id = submitted_notebook.assignment_id "
        f"WHERE student_id = '{student}'"
    )
    assert {name.removeprefix("check-"): (score, manual) for name, score, manual in rows} == {
        id: (score, 0) for id, score in SCORES[student].items()
    }


def test_the_grades_can_be_exported(course):
    course.run("nbgrader", "export", "--to", "grades.csv")
    with open(course.folder / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert rows == {student: (sum(scores.values()), sum(POINTS.values())) for student, scores in SCORES.items()}


class Text(HTMLParser):
    """The words of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)
        self.words = " ".join(" ".join(self.found).split())

    def handle_data(self, data):
        self.found.append(data)


@each_student
def test_the_feedback_shows_the_score_and_what_the_checks_say(course, student):
    words = Text((course.folder / "feedback" / student / "05" / f"{LESSON.folder}.html").read_text("utf-8")).words
    total, most = re.search(r"\(Score: ([\d.]+) / ([\d.]+)\)", words).groups()
    assert (float(total), float(most)) == (sum(SCORES[student].values()), sum(POINTS.values()))
    for id, score in SCORES[student].items():
        assert (f"{id} {EXERCISES[id].title}: passed" in words) == bool(score)
    assert ("You multiply the gradient of x by x" in words) == (student == "half")
    assert (EXERCISES["ex-05-10"].message in words) == (student != "solved")


@each_student
def test_what_nbgrader_collected_can_be_graded_without_running_the_notebooks(course, student):
    """The folder submitted/ is one of submissions as it stands."""
    found = submissions.read(course.folder / "submitted" / student, [LESSON])
    attempted = {id for id, score in SCORES[student].items() if score or (student, id) == ("half", WRONG)}
    assert {exercise.id for exercise in found.answers} == attempted
    assert found.notes == []
    if student != "untouched":
        assert "g * (x > 0)" in found.answers[EXERCISES[TWICE]].text
