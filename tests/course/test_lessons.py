"""Lessons: every exercise has a target that can be cut, tests in its module's folder, and wrong answers that fit."""

import ast
import re

import ablation
import pytest

from tinytorch_course import holes
from tinytorch_course.lessons import LessonError, read_lesson, read_lessons

LESSONS = read_lessons()
EXERCISES = [exercise for lesson in LESSONS for exercise in lesson.exercises]
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
KEPT = {"op", "property", "classmethod", "staticmethod", "numpy_names"}  # decorators that a student may look past


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """{exercise: its points and tests} from the markers of all tests, as pytest collects them."""
    found, not_collected = ablation.plan(tmp_path_factory.mktemp("plan"))
    assert not_collected == []
    return found


# ---- the lessons of the course


def test_the_first_fourteen_modules_have_a_lesson():
    assert [lesson.number for lesson in LESSONS] == [f"{number:02}" for number in range(1, 15)]
    assert len(EXERCISES) >= 70


def test_ids_are_unique():
    ids = [exercise.id for exercise in EXERCISES]
    assert [id for id in set(ids) if ids.count(id) > 1] == []


@each_lesson
def test_a_lesson_fits_into_the_course(lesson):
    assert lesson.title
    assert 4 <= len(lesson.exercises) <= 10
    assert [exercise.id for exercise in lesson.exercises] == [
        f"ex-{lesson.number}-{i}" for i in range(1, len(lesson.exercises) + 1)
    ]
    assert set(lesson.requires) <= {other.number for other in LESSONS if other.number < lesson.number}
    assert (ablation.ROOT / "tests" / lesson.folder).is_dir()


def decorator(node):
    return node.func.id if isinstance(node, ast.Call) else getattr(node, "id", ast.unparse(node))


@each_exercise
def test_a_target_is_explained_and_can_be_cut(exercise):
    source = exercise.source()
    node = holes.find(source, exercise.qualname)
    assert holes.handout(source, exercise.qualname)
    assert {decorator(d) for d in node.decorator_list} <= KEPT
    assert re.search(rf"NotImplementedError\(\"{exercise.id}: ", exercise.with_hole(source))
    assert max(len(line) for line in exercise.with_hole(source).splitlines()) <= 120
    if isinstance(node, ast.FunctionDef):
        assert node.end_lineno - node.lineno < 40


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e.stage], ids=lambda exercise: exercise.id)
def test_an_operation_that_begins_without_its_rule_gets_it_in_a_later_exercise(exercise):
    assert holes.forward_only(exercise.source(), exercise.qualname)
    later = [other for other in EXERCISES if other.target == exercise.target and other.id > exercise.id]
    assert [other.stage for other in later] == [None]


def test_no_other_target_comes_twice():
    targets = [exercise.target for exercise in EXERCISES if exercise.stage is None]
    assert [target for target in set(targets) if targets.count(target) > 1] == []


def shape(node):
    """The signature of a function, or those of the public methods of a class."""
    if isinstance(node, ast.FunctionDef):
        return ast.dump(node.args)
    return {n.name: ast.dump(n.args) for n in node.body if isinstance(n, ast.FunctionDef) and n.name[:1] != "_"}


@each_exercise
def test_wrong_answers_have_the_signature_of_the_target(exercise):
    assert 1 <= len(exercise.wrong) <= 4
    source = exercise.source()
    for wrong in exercise.wrong:
        own, theirs = holes.find(source, exercise.qualname), ast.parse(wrong.code).body[0]
        assert type(own) is type(theirs)
        assert shape(own) == shape(theirs), wrong.name
        assert holes.splice(source, exercise.qualname, wrong.code) != source, wrong.name


@each_exercise
def test_an_exercise_has_three_hints_and_two_to_four_wrong_answers_that_are_told_apart(exercise):
    assert len(set(exercise.hints)) == 3
    assert 2 <= len(exercise.wrong) <= 4
    assert all(len(wrong.message) > 30 for wrong in exercise.wrong)
    assert len({wrong.message for wrong in exercise.wrong}) == len(exercise.wrong)


@each_exercise
def test_an_exercise_is_explained_by_a_docstring_of_its_own(exercise):
    assert holes.ast.get_docstring(holes.find(exercise.source(), exercise.qualname))


# ---- the tests of each exercise


COMPARE = {"assert_close", "assert_allclose", "assert_array_equal", "assert_same"}
WRITTEN = {exercise.name for exercise in EXERCISES}


def called(node):
    """The names of tinytorch's functions that are called in an expression: of `tt`, or alone."""
    calls = [inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    bare = {func.id for func in calls if isinstance(func, ast.Name)}
    owned = {f.attr for f in calls if isinstance(f, ast.Attribute) and ast.unparse(f.value) in ("tt", "tt.Tensor")}
    return (bare | owned) & WRITTEN


@each_lesson
def test_what_is_expected_does_not_come_from_another_function_that_a_student_writes(lesson):
    """A function compared with itself (symmetry, aliases) is a property; another one would be an oracle."""
    faults = []
    for path in sorted((ablation.ROOT / "tests" / lesson.folder).glob("test_*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        comparing = [call for call in calls if ast.unparse(call.func) in COMPARE and len(call.args) > 1]
        strange = {call.lineno: called(call.args[1]) - called(call.args[0]) for call in comparing}
        faults += [f"{path.name}:{line}: {names}" for line, names in strange.items() if names]
    assert faults == []


SWALLOWS = (ast.Try, ast.TryStar)


@each_lesson
def test_no_gate_swallows_an_exception_or_asserts_nothing(lesson):
    faults = []
    for path in sorted((ablation.ROOT / "tests" / lesson.folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            swallows = isinstance(node, SWALLOWS) and node.handlers
            suppresses = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress")
            nothing = isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant)
            if swallows or suppresses or nothing:
                faults.append(f"{path.name}:{node.lineno}")
    assert faults == []


def test_every_marker_names_an_exercise_with_its_points(gates):
    points = {exercise.id: {exercise.points} for exercise in EXERCISES}
    assert {name: gate["points"] - {None} for name, gate in gates.items()} == {name: points.get(name) for name in gates}


def test_every_exercise_has_tests_in_the_folder_of_its_module(gates):
    folders = {f"tests/{lesson.folder}": lesson for lesson in LESSONS}
    astray, without = [], []
    for folder, lesson in folders.items():
        for exercise in lesson.exercises:
            tests = gates.get(exercise.id, {"tests": []})["tests"]
            astray += [test for test in tests if not test.startswith(f"{folder}/")]
            without += [] if tests else [exercise.id]
    assert (astray, without) == ([], [])


# ---- what a lesson.toml must say

GOOD = """
title = "T"
requires = []

[[exercise]]
id = "ex-05-1"
title = "E"
target = "tinytorch/autograd.py::unbroadcast"
points = 2

[[exercise.wrong]]
name = "W"
code = '''
def unbroadcast(g, shape):
    return g
'''
"""


def written(folder, text):
    path = folder / "05_autograd" / "lesson.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return path


def test_a_lesson_is_read_whole(tmp_path):
    lesson = read_lesson(written(tmp_path, GOOD))
    (exercise,) = lesson.exercises
    assert (lesson.number, lesson.title, lesson.requires) == ("05", "T", ())
    assert (exercise.file, exercise.qualname) == ("tinytorch/autograd.py", "unbroadcast")
    assert (exercise.points, exercise.stage) == (2, None)
    assert [(wrong.name, wrong.code) for wrong in exercise.wrong] == [
        ("W", "def unbroadcast(g, shape):\n    return g\n")
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("requires = []", "requires", "cannot be read as TOML"),
        ('title = "T"', "", "the lesson needs title, of type str"),
        ("points = 2", 'points = "2"', "exercise ex-05-1 needs points, of type int"),
        ("points = 2", "points = 9", "needs 1 to 5 points, but has 9"),
        ("points = 2", 'points = 2\nstage = "back"', "needs stage 'forward' or none, but has 'back'"),
        ("points = 2", "points = 2\nhint = 1", r"has 'hint', which means nothing here\. Known are"),
        ("points = 2", 'points = 2\nhints = "a"', "needs hints of type list"),
        ("ex-05-1", "ex-06-1", r"needs an id of this module, such as ex-05-1"),
        ("autograd.py::", "autograd.py:", "needs a target such as tinytorch/file.py::name"),
        ("return g\n", "return g g\n", "a wrong answer of exercise ex-05-1, 'W', is no Python"),
        ("def unbroadcast", "def broadcast", "'W', needs to define unbroadcast and nothing else"),
    ],
)
def test_what_is_wrong_in_a_lesson_is_said(tmp_path, old, new, message):
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(LessonError, match=message) as caught:
        read_lesson(path)
    assert str(path) in str(caught.value)
