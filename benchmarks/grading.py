"""Grading a class of 60 in lesson 05: how long it takes, with and without --strict.

    python benchmarks/grading.py

The class is made from the lesson: solved notebooks, notebooks in which one exercise has a typical mistake, some that
stop half way, one that never ends, one that is no Python, and one that is untouched. Every exercise of every notebook
runs in a process of its own, two at a time.
"""

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from tinytorch_course import notebooks
from tinytorch_course.grading import batch, grader
from tinytorch_course.grading.plan import Policy
from tinytorch_course.lessons import read_lessons

STUDENTS, JOBS = 60, 2
LESSON = read_lessons()[4]
WRONG = [(exercise, wrong.code) for exercise in LESSON.exercises for wrong in exercise.wrong]


def notebook(answers):
    """The lesson's notebook with answers in it: {exercise: text}."""
    built = notebooks.notebook(LESSON, "student")
    for cell in built.cells:
        for exercise, text in answers.items():
            if cell.id == exercise.id:
                cell.source = f'@course.exercise("{exercise.id}")\n{text.strip()}'
    return notebooks.text(built)


def hand_in(folder):
    """Write the notebooks of a class into a folder."""
    solved = {exercise: exercise.solution() for exercise in LESSON.exercises}
    works = [solved | {exercise: code} for exercise, code in WRONG]
    works += [dict(list(solved.items())[:n]) for n in range(4, 10)]
    endless = solved[LESSON.exercises[5]].splitlines()[0] + "\n    while True:\n        pass\n"
    works += [{}, solved | {LESSON.exercises[5]: endless}, solved | {LESSON.exercises[1]: "def __mul__(x, y:"}]
    works += [solved] * (STUDENTS - len(works))
    for i, answers in enumerate(works):
        (folder / f"student_{i:02}.ipynb").write_text(notebook(answers), encoding="utf-8")


def main():
    with tempfile.TemporaryDirectory() as folder:
        submissions = Path(folder) / "submissions"
        submissions.mkdir()
        hand_in(submissions)
        for strict in (False, True):
            began = time.perf_counter()
            policy = dataclasses.replace(Policy(), strict=strict, timeout=10)
            grades = batch.grade(
                grader.handed_in(submissions), LESSON, policy, Path(folder) / str(strict), JOBS, say=lambda line: None
            )
            seconds = time.perf_counter() - began
            full = sum(grade.score == grade.max_score for grade in grades)
            exercises = sum(exercise.status != "not_attempted" for grade in grades for exercise in grade.exercises)
            print(
                f"{'--strict' if strict else 'tests':<10}{len(grades)} students, {exercises} answers, {full} with all "
                f"points: {seconds:.0f} s, {1000 * seconds / exercises:.0f} ms an answer"
            )


if __name__ == "__main__":
    sys.exit(main())
