"""What the grader takes from a submission: for each exercise the file of the framework with the answer in its place.

It runs in a process of its own, as everything that touches a submission: its text may be made to break who reads it.
"""

import ast
import contextlib
import hashlib
import os
from pathlib import Path

from .. import answers, build, submissions
from ..answers import Answer
from ..lessons import read_lessons
from .fingerprints import fingerprint

SUSPECT = {
    "builtins", "ctypes", "gc", "importlib", "inspect", "marshal", "multiprocessing", "os", "pathlib", "pickle",
    "pytest", "resource", "runpy", "shutil", "signal", "site", "socket", "subprocess", "sys", "tempfile", "threading",
    "tinytorch_course", "torch", "unittest", "urllib",
}  # fmt: skip
SUSPECT_NAMES = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "open", "vars"}


def prepared(path, number, prior):
    """What there is for each exercise of a lesson, ready for JSON: {"notes": [...], "exercises": {id: {...}}}, and
    "earlier", the targets in earlier lessons that are the student's.

    An exercise that was attempted has either "fault" (why it cannot be tried) or "answer", "changed" ({file: source} of
    the package in which it is tried), "fingerprint" and "flags". prior: "student" puts the answers to earlier lessons
    into that package, too.
    """
    lessons = [lesson for lesson in read_lessons() if lesson.number <= number]
    lesson = lessons[-1]
    try:
        found = submissions.read(path, lessons if prior == "student" else [lesson])
    except submissions.SubmissionError as error:
        return {"notes": [str(error)], "exercises": {}, "earlier": []}
    before = {exercise: answer for exercise, answer in found.answers.items() if exercise.lesson < number}
    earlier, used, notes = build.of_submission(before, lessons, number)
    exercises = {
        exercise.id: _prepared(exercise, found.answers[exercise], earlier)
        for exercise in lesson.exercises
        if exercise in found.answers
    }
    mine = {exercise.id for exercise in lesson.exercises}
    exercises |= {id: {"fault": why} for id, why in found.faults.items() if id in mine}
    return {"notes": found.notes + notes, "exercises": exercises, "earlier": [exercise.target for exercise in used]}


def _prepared(exercise, answer, earlier):
    if why := answers.problem(exercise, answer):
        return {"fault": why}
    source = earlier.get(exercise.file, exercise.source())
    return {
        "answer": {"exercise": exercise.id, "text": answer.text, "helpers": answer.helpers},
        "changed": earlier | {exercise.file: build.spliced(source, exercise, answer)},
        "fingerprint": fingerprint(f"{answer.helpers}\n\n{answer.text}"),
        "flags": [f"{exercise.id} {flag}" for flag in suspects(answer)],
    }


def suspects(answer: Answer):
    """What an answer to an exercise has hardly any use for: flagged for the instructor's eyes, and not forbidden."""
    found = set()
    for node in ast.walk(ast.parse(f"{answer.helpers}\n{answer.text}")):
        if isinstance(node, ast.Import):
            found |= {f"imports {alias.name}" for alias in node.names if alias.name.partition(".")[0] in SUSPECT}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in SUSPECT:
            found.add(f"imports {node.module}")
        elif isinstance(node, ast.Name) and node.id in SUSPECT_NAMES:
            found.add(f"uses {node.id}")
        elif isinstance(node, ast.Attribute) and node.attr in ("__globals__", "__subclasses__", "__code__", "f_back"):
            found.add(f"uses {node.attr}")
        elif isinstance(node, ast.Attribute) and _is_testing(node.value):
            found.add("uses numpy.testing")
    return sorted(found)


def _is_testing(node):
    """Whether it is `np.testing`."""
    names = ("np", "numpy")
    return isinstance(node, ast.Attribute) and node.attr == "testing" and getattr(node.value, "id", None) in names


def sha256(path):
    """The checksum of what a submission is read from, whatever its other files are."""
    checksum, path = hashlib.sha256(), Path(path)
    for file in submissions.files_of(path)[: submissions.MOST_FILES]:
        checksum.update(os.fsencode(file.relative_to(path)))
        with contextlib.suppress(OSError), file.open("rb") as stream:  # what cannot be read has no answers
            checksum.update(stream.read(submissions.LARGEST_ZIP))
    return checksum.hexdigest()
