"""Every exercise as a student meets it: open, with each typical wrong answer, and solved. Run through real checks."""

import functools
from concurrent.futures import ProcessPoolExecutor

import ablation
import pytest

from tinytorch_course import build, checking
from tinytorch_course.answers import Answer, problem
from tinytorch_course.lessons import ROOT, read_lessons

LESSONS = read_lessons()
AT_A_TIME = 2  # processes

pytestmark = pytest.mark.slow
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)


def checked(jobs, builds):
    """The results of checks of (exercise, what the student wrote, or None for the hole).

    Each has a new process, which is the copy of one that has loaded NumPy and pytest before.
    """
    prepared = []
    for exercise, text in jobs:
        source = exercise.source()
        answer = Answer(exercise.id, text.strip("\n") + "\n") if text else None
        changed = build.spliced(source, exercise, answer) if text else exercise.with_hole(source)
        place = builds / str(len(prepared))  # of its own: old builds in one place are removed
        prepared.append((exercise, answer, build.write({exercise.file: changed}, place), ROOT))
    settings = {"mp_context": ablation.PROCESSES, "max_tasks_per_child": 1, "initializer": ablation.silence}
    with ProcessPoolExecutor(AT_A_TIME, **settings) as pool:
        return list(pool.map(functools.partial(checking.run, isolated=False), *zip(*prepared)))


@each_lesson
def test_an_open_exercise_fails_with_the_words_of_its_hole(lesson, tmp_path):
    results = checked([(exercise, None) for exercise in lesson.exercises], tmp_path)
    said = {result.exercise.id: (result.status, (result.failure or {}).get("message", "")) for result in results}
    wanted = {exercise.id: exercise.message for exercise in lesson.exercises}
    assert {id: text for id, (status, text) in said.items() if status != "failed" or wanted[id] not in text} == {}


@each_lesson
def test_a_typical_wrong_answer_fails_with_its_own_message(lesson, tmp_path):
    wrong = [(exercise, answer) for exercise in lesson.exercises for answer in exercise.wrong]
    results = checked([(exercise, answer.code) for exercise, answer in wrong], tmp_path)
    assert {
        (exercise.id, answer.name): (result.status, result.mistake)
        for (exercise, answer), result in zip(wrong, results)
        if (result.status, result.mistake) != ("failed", answer.message)
    } == {}


@each_lesson
def test_a_typical_wrong_answer_is_not_turned_away_before_it_is_tried(lesson):
    wrong = [(exercise, answer) for exercise in lesson.exercises for answer in exercise.wrong]
    problems = [problem(exercise, Answer(exercise.id, answer.code.strip("\n") + "\n")) for exercise, answer in wrong]
    assert [text for text in problems if text] == []


@each_lesson
def test_the_reference_passes(lesson, tmp_path):
    results = checked([(exercise, exercise.solution()) for exercise in lesson.exercises], tmp_path)
    assert [str(result) for result in results if not result.passed] == []
