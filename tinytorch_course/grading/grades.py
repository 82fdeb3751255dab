"""grade.json: what was found about one submission. Every other format is made from it.

It is written after every exercise, so that a killed run loses nothing.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .. import files

SCHEMA = 1
NAME = "grade.json"
STATUSES = {  # of an exercise, in words
    "passed": "passed",
    "partial": "partly right",
    "failed": "not yet",
    "not_attempted": "not attempted",
    "syntax_error": "cannot be tried",
    "timeout": "took too long",
    "memory": "took too much memory",
    "crashed": "crashed",
    "tampered": "interfered with its tests",
}


@dataclass
class TestGrade:
    """One test, with its share of the exercise's points. A hidden one has no name and no message."""

    id: str
    points: float
    score: float = 0.0
    seconds: float = 0.0
    message: str = ""


@dataclass
class ExerciseGrade:
    """One exercise of one submission.

    message: why, in a sentence. failure: what the first failing test says, as `explain` gives it, without a picture.
    mistake: the typical mistake that it was recognised as. fingerprint: of the answer (`plagiarism`).
    """

    id: str
    title: str
    points: int
    score: float
    status: str
    message: str = ""
    tests: list = field(default_factory=list)
    failure: dict | None = None
    mistake: str = ""
    seconds: float = 0.0
    fingerprint: dict = field(default_factory=dict)


@dataclass
class Grade:
    """What is known of one submission. It is whole when every exercise of its lesson is in it.

    student: the name of what lies in the folder of submissions, without its ending. policy: what was asked of it, as
    far as it matters to the points. provenance: {target of an exercise: "student", "reference" or "stub"}.
    flags: sentences for the instructor's eyes only; notes: those that the student may read, too.
    """

    student: str
    file: str
    submission_sha256: str
    lesson: str
    course_version: str
    policy: dict
    provenance: dict = field(default_factory=dict)
    exercises: list = field(default_factory=list)
    max_score: int = 0
    notes: list = field(default_factory=list)
    flags: list = field(default_factory=list)
    complete: bool = False

    @property
    def score(self):
        return round(sum(exercise.score for exercise in self.exercises), 2)

    @property
    def seconds(self):
        return sum(exercise.seconds for exercise in self.exercises)

    def write(self, folder):
        """Write grade.json into a folder: all of it, or nothing."""
        content = {"schema": SCHEMA, **asdict(self), "score": self.score, "seconds": round(self.seconds, 2)}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        text = text.encode("utf-8", "backslashreplace").decode()  # half a character, as JSON spells it
        files.write(Path(folder) / NAME, text)


def read(folder):
    """The Grade in a folder, or None where there is none that can be read."""
    try:
        content = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            return None
        for derived in ("score", "seconds"):
            del content[derived]
        content["exercises"] = [
            ExerciseGrade(**given | {"tests": [TestGrade(**test) for test in given["tests"]]})
            for given in content["exercises"]
        ]
        return Grade(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
