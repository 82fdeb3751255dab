"""Every exercise as a student meets it: open, with each typical wrong answer, and solved. Run through real checks."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tinytorch_course import build, checking
from tinytorch_course.answers import Answer, problem
from tinytorch_course.lessons import ROOT, read_lessons

LESSONS = read_lessons()
AT_A_TIME = 2  # processes

pytestmark = pytest.mark.slow
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)


def check(exercise, text, builds):
    """The result of a check. text: what the student wrote, or None for the hole."""
    source = exercise.source()
    answer = Answer(exercise.id, text.strip("\n") + "\n") if text else None
    changed = build.spliced(source, exercise, answer) if text else exercise.with_hole(source)
    return checking.run(exercise, answer, build.write({exercise.file: changed}, builds), ROOT)


def in_parallel(function, jobs):
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return [fault for fault in pool.map(function, jobs) if fault]


@each_lesson
def test_an_open_exercise_fails_with_the_words_of_its_hole(lesson, tmp_path):
    def fault(exercise):
        result = check(exercise, None, tmp_path)
        said = result.failure["message"] if result.failure else result.message
        if result.status != "failed" or exercise.message not in said:
            return f"{exercise.id} is {result.status}, and says {said}"

    assert in_parallel(fault, lesson.exercises) == []


@each_lesson
def test_a_typical_wrong_answer_fails_with_its_own_message(lesson, tmp_path):
    def fault(job):
        exercise, wrong = job
        result = check(exercise, wrong.code, tmp_path)
        if problem(exercise, Answer(exercise.id, wrong.code.strip("\n") + "\n")):
            return f"{exercise.id}, {wrong.name!r}, is turned away before it is tried"
        if result.status != "failed" or not wrong.message or result.mistake != wrong.message:
            return f"{exercise.id}, {wrong.name!r}: {result.status}, and is told: {result.mistake!r}"

    jobs = [(exercise, wrong) for exercise in lesson.exercises for wrong in exercise.wrong]
    assert in_parallel(fault, jobs) == []


@each_lesson
def test_the_reference_passes(lesson, tmp_path):
    def fault(exercise):
        result = check(exercise, exercise.solution(), tmp_path)
        if not result.passed:
            return f"{exercise.id}: {result}"

    assert in_parallel(fault, lesson.exercises) == []
