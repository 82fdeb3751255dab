"""Grading one submission: read it, then one exercise after the other."""

import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .. import build
from . import GradingError, grades, probes, verdict
from .grades import ExerciseGrade, Grade, TestGrade

READING = 60  # seconds to read a submission


@dataclass(frozen=True)
class Handed:
    """What somebody handed in: the student's name, and where it is."""

    student: str
    path: Path


class Grader:
    """Grades submissions of a lesson by a Plan. Its packages are made in `folder`, its grades written into `out`."""

    def __init__(self, plan, folder, out):
        self.plan, self.folder, self.out = plan, Path(folder), Path(out)
        self.lesson, self.policy = plan.lesson, plan.policy

    def grade(self, handed, grade, warden):
        """Fill a Grade, which may hold some exercises already, and write it after each one."""
        place = self.out / handed.student
        outcome = warden.run(self.plan.reading(handed.path), READING)
        exercises = self._read(outcome, grade)
        done = {exercise.id for exercise in grade.exercises}
        for exercise in self.lesson.exercises:
            if exercise.id not in done:
                entry = exercises.get(exercise.id)
                grade.exercises.append(self._graded(exercise, entry, grade, warden))
                grade.write(place)
        grade.complete = True
        grade.write(place)

    def _read(self, outcome, grade):
        """{exercise id: what the task "read" found}, with notes and provenance put into the grade."""
        if outcome.ended != "well":
            why = "took too long to read" if outcome.ended == "timeout" else "could not be read"
            grade.notes = [f"The submission {why}: is it a notebook or Python file of the course?"]
            found = {"exercises": {}, "earlier": [], "notes": grade.notes}
        else:
            found = json.loads(outcome.output)
        grade.notes = [verdict.shortened(note) for note in found["notes"]]
        usable = {id for id, entry in found["exercises"].items() if "changed" in entry}
        grade.provenance = dict.fromkeys(found["earlier"], "student") | {
            exercise.target: "student" if exercise.id in usable else "stub" for exercise in self.lesson.exercises
        }
        return found["exercises"]

    def _graded(self, exercise, entry, grade, warden):
        """The ExerciseGrade of one exercise."""
        graded = ExerciseGrade(exercise.id, exercise.title, exercise.points, 0.0, "not_attempted")
        if entry is None:
            graded.message = "not attempted"
            return graded
        if "fault" in entry:
            graded.status, graded.message = "syntax_error", verdict.shortened(entry["fault"])
            return graded
        graded.fingerprint = entry["fingerprint"]
        grade.flags += entry["flags"]
        place = tempfile.mkdtemp(dir=self.folder)
        try:
            package = build.write(entry["changed"], place)
            _let_read(place)
            self._run(exercise, entry["answer"], package, graded, grade, warden)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return graded

    def _run(self, exercise, answer, package, graded, grade, warden):
        """Run the tests, and with --strict the probes, of all folders, until something is not as it should be."""
        graded.status = "passed"
        gates = self.plan.gates[exercise.id]
        for gate in gates:
            if graded.status == "passed" or self.policy.partial:
                self._run_gate(gate, answer, package, graded, grade, warden)
        share = graded.points / max(1, sum(len(gate.passes) for gate in gates))
        for test in graded.tests:
            test.points, test.score = round(share, 4), round(share, 4) if test.score else 0.0
        passed = sum(1 for test in graded.tests if test.score)
        if graded.status == "passed":
            graded.score = float(graded.points)
        elif self.policy.partial and graded.status != "tampered" and passed:
            graded.status, graded.score = "partial", round(share * passed, 2)

    def _run_gate(self, gate, answer, package, graded, grade, warden):
        if gate.passes:
            outcome = warden.run(self.plan.tests(gate, answer, package), self.policy.timeout)
            status, message, found = verdict.judged(gate, outcome)
            graded.seconds = round(graded.seconds + outcome.seconds, 3)
            graded.tests += [
                TestGrade("" if gate.hidden else test, 0.0, float(test in found.passed),
                          found.passed.get(test, found.seconds.get(test, 0.0)),
                          "" if gate.hidden else found.failed.get(test, ""))
                for test in gate.passes
            ]  # fmt: skip
            self._note(gate, status, message, graded, grade)
            if not gate.hidden and graded.failure is None:
                graded.failure, graded.mistake = found.failure, found.mistake
        if gate.expected and graded.status == "passed":
            outcome = warden.run(self.plan.probe(gate, package), self.policy.timeout)
            graded.seconds = round(graded.seconds + outcome.seconds, 3)
            self._note(gate, *self._probed(gate, outcome), graded, grade)

    def _probed(self, gate, outcome):
        """(status, message) of a run of the probes."""
        if outcome.ended == "timeout":
            return "timeout", "On other inputs than those of the tests it does not come to an end."
        if outcome.ended != "well":
            return "crashed", "On other inputs than those of the tests Python itself ended."
        try:
            different = probes.differences(gate.expected, probes.unpack(outcome.output))
        except ValueError as error:
            return "tampered", f"What its probes wrote is no arrays: {error}"
        if different:
            return "failed", f"The tests pass, but on other inputs the result is another one: {different[0]}"
        return "passed", ""

    def _note(self, gate, status, message, graded, grade):
        """Take down what a gate says, the first time that one does not pass."""
        if status == "passed" or graded.status not in ("passed", "failed"):
            return
        message = verdict.shortened(message)
        if status == "tampered":
            grade.flags.append(f"{gate.exercise.id}: {message}")
        if graded.status == "passed" or status != "failed":
            graded.status, graded.message = status, "A hidden test does not pass." if gate.hidden else message


def _let_read(folder):
    """Let every user read a package: its files have the rights of the reference's, which may be closed to others."""
    for path in (Path(folder), *Path(folder).rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def new_grade(handed, lesson, policy, version, checksum):
    """A Grade with nothing in it yet."""
    points = sum(exercise.points for exercise in lesson.exercises)
    return Grade(handed.student, display(handed.path.name), checksum, lesson.number, version, policy, max_score=points)


def display(name):
    """A file's name as text that every file can hold: names need be no Unicode."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def handed_in(folder):
    """The submissions in a folder, one for each thing that lies there. Raises GradingError where there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise GradingError(
            f"{folder} needs to be a folder with one file or folder for each student. One submission alone is graded "
            "with --single."
        )
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__MACOSX"))]
    if not paths:
        raise GradingError(f"{folder} is empty: it needs one file (zip, .ipynb, .py) or folder for each student.")
    return [Handed(name, path) for name, path in zip(_names(paths), paths)]


def alone(path):
    """The one submission at a path."""
    path = Path(path).absolute()
    return Handed(_names([path])[0], path)


def _names(paths):
    """A name for each path: without its ending where that is clear, and different also where case does not count."""
    short = [_folder_name(path.name if path.is_dir() else path.stem) for path in paths]
    whole = [_folder_name(path.name) for path in paths]
    same = Counter(map(_folded, short)) + Counter(_folded(b) for a, b in zip(short, whole) if a != b)
    names = [a if same[_folded(a)] == 1 else b for a, b in zip(short, whole)]
    taken = set()
    for i, name in enumerate(names):
        others, number = taken | set(map(_folded, names[i + 1 :])), 1
        while _folded(names[i]) in (others if number > 1 else taken):
            number += 1
            names[i] = f"{name} ({number})"
        taken.add(_folded(names[i]))
    return names


def _folder_name(name):
    """A file's name as one of a folder, which may be too long where each of its bytes is spelled out."""
    text = display(name)
    return text if len(text.encode()) <= 200 else f"{text[:50]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"


def _folded(name):
    return unicodedata.normalize("NFC", name).casefold()


def read_grade(out, handed, fresh):
    """The grade that is there, of the same submission, version and policy; or else a new one."""
    found = grades.read(Path(out) / handed.student)
    same = found and (found.submission_sha256, found.course_version, found.policy, found.lesson) == (
        fresh.submission_sha256, fresh.course_version, fresh.policy, fresh.lesson,
    )  # fmt: skip
    return found if same else fresh
