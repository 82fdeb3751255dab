"""Builds: the package with a student's functions in it, whole, with everything else as it was."""

import ast
import json
import subprocess
import sys

import pytest

from tinytorch_course import answers, build, holes, notebooks
from tinytorch_course.answers import Answer
from tinytorch_course.lessons import ROOT, read_lessons

LESSONS = read_lessons()
EXERCISES = {exercise.id: exercise for lesson in LESSONS for exercise in lesson.exercises}
RELU = EXERCISES["ex-02-1"]


def test_reference_to_notebook_to_answers_to_package_is_the_same_byte_for_byte():
    """The solved notebooks hold, cell by cell, exactly what was cut out."""
    made = build.sources(ROOT)
    for lesson in LESSONS:
        cells = [cell.source for cell in notebooks.notebook(lesson, "solution").cells if cell.cell_type == "code"]
        for exercise in lesson.exercises:
            [cell] = [cell for cell in cells if f'course.exercise("{exercise.id}")' in cell]
            answer = answers.find(cell, exercise, "the cell")
            assert answers.problem(exercise, answer) is None
            if exercise.stage is None:
                cut = exercise.with_hole(made[exercise.file])
                made[exercise.file] = build.spliced(cut, exercise, answer)
    assert made == build.sources(ROOT)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_what_stands_in_the_notebook_to_begin_with_is_a_stub_that_fits(exercise):
    stub = answers.find(notebooks.answer_cell(exercise), exercise, "the cell")
    assert stub.is_stub and answers.problem(exercise, stub) is None


def test_helpers_stand_above_what_uses_them_and_nothing_else_changes():
    answer = Answer(RELU.id, "def relu(x):\n    return at_least(x, 0)\n", "def at_least(x, y):\n    return max(x, y)")
    source = RELU.source()
    made = build.spliced(source, RELU, answer)
    assert holes.find(made, "at_least").lineno < holes.find(made, "relu").lineno
    names = [getattr(node, "name", None) for node in ast.parse(source).body]
    assert [
        getattr(node, "name", None) for node in ast.parse(made).body if getattr(node, "name", "") != "at_least"
    ] == names


def test_a_build_is_made_once_and_holds_the_whole_package(tmp_path):
    changed = {RELU.file: RELU.with_hole(RELU.source())}
    first = build.write(changed, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*.py")}
    assert build.write(changed, tmp_path) == first != build.write({}, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.py")} == before
    assert (first / RELU.file).read_text(encoding="utf-8") == changed[RELU.file]
    assert {path.name for path in tmp_path.iterdir()} == {first.name, build.write({}, tmp_path).name}


def test_what_was_compiled_of_the_reference_is_not_taken_for_the_changed_file(tmp_path):
    place = build.write({RELU.file: RELU.with_hole(RELU.source())}, tmp_path)
    code = "import tinytorch as tt\ntry: tt.relu(tt.ones(1))\nexcept NotImplementedError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True).stdout
    assert said.strip() == RELU.message


def test_old_builds_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "KEPT", 2)
    source = RELU.source()
    made = [build.write({RELU.file: source + f"# {i}\n"}, tmp_path) for i in range(4)]
    assert {path.name for path in tmp_path.iterdir()} <= {path.name for path in made}
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_build_is_not_taken_for_one(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(build.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.write({}, tmp_path)
    assert list(tmp_path.iterdir()) == []


INSTALL_ALL = """
import json, sys
from tinytorch_course import live
from tinytorch_course.answers import Answer
from tinytorch_course.lessons import read_lessons

exercises = [exercise for lesson in read_lessons() for exercise in lesson.exercises if exercise.stage is None]
before = {}
for exercise in exercises:
    owner = live.module_of(exercise)
    for name in exercise.qualname.split("."):
        owner = getattr(owner, name)
    before[exercise.id] = owner
for exercise in exercises:
    live.install(exercise, Answer(exercise.id, exercise.solution()))
import tinytorch as tt
tt.manual_seed(0)
model = tt.GPT(tt.GPTConfig(vocab_size=11, n_positions=8, n_layer=1, n_head=2, n_embd=8))
loss, _ = tt.next_token_loss(model, tt.tensor([[1, 2, 3, 4]]))
loss.backward()
tt.SGD(model.parameters(), lr=0.1).step()
print(json.dumps([float(loss.item()), tt.__file__]))
"""


def test_all_answers_installed_in_a_running_framework_full_of_holes_make_the_reference(tmp_path):
    def result(place):
        run = subprocess.run([sys.executable, "-c", INSTALL_ALL], cwd=place, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        return json.loads(run.stdout)

    changed = {}
    for exercise in EXERCISES.values():
        if exercise.stage is None:
            changed[exercise.file] = exercise.with_hole(changed.get(exercise.file, exercise.source()))
    place = build.write(changed, tmp_path)
    loss, imported = result(place)
    assert imported.startswith(str(place))
    assert loss == result(ROOT)[0]


def test_lines_of_code_are_counted_without_comments_docstrings_and_empty_lines():
    function = 'def f(x):\n    """Doc\n    more."""\n    # why\n    y = (x +\n\n         1)\n    return y\n'
    assert build.lines_of_code(f'"""Doc."""\n\nimport os  # why\n\n\n{function}') == 5
