"""The grades of a class as CSV, as JUnit's XML and as Gradescope's results.json: pure functions from Grades to text."""

import csv
import io
import json
from collections import Counter
from xml.etree import ElementTree

from .. import messages
from . import feedback
from .feedback import clean, in_order, number

FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a spreadsheet would run, or strip to get there
VISIBILITIES = ("visible", "hidden", "after_due_date", "after_published")


def status(grade):
    """In a few words, for an instructor: "all passed", or "2 failed, 1 not attempted"."""
    counted = Counter(graded.status for graded in grade.exercises if graded.status != "passed")
    found = [f"{count} {name.replace('_', ' ')}" for name, count in counted.items()]
    found += [] if grade.complete else ["stopped before its end"]
    return ", ".join(found) or "all passed"


def csv_text(grades, lesson):
    """A row a student, a column an exercise. No cell of it is a formula."""
    ids = [exercise.id for exercise in lesson.exercises]
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["student", "file", "score", "max_score", *ids, "status", "notes"])
    for grade in grades:
        scores = {graded.id: number(graded.score) for graded in grade.exercises}
        table.writerow([
            _cell(grade.student), _cell(grade.file), number(grade.score), number(grade.max_score),
            *(scores.get(id, "") for id in ids), status(grade), _cell("\n".join(feedback.notes(grade))),
        ])  # fmt: skip
    return file.getvalue()


def _cell(text):
    text = clean(text)
    return f"'{text}" if text.startswith(FORMULA) else text


# ---- Gradescope


def gradescope(grade, lesson, visibility="visible"):
    """What Gradescope reads from results.json, as a dict. visibility: of all of it, for the student."""
    if visibility not in VISIBILITIES:
        raise ValueError(f"Gradescope's visibility needs to be one of {', '.join(VISIBILITIES)}, not {visibility!r}.")
    known = ("lesson", "course_version", "submission_sha256", "policy", "provenance", "complete")
    notes = [f"- {feedback.inline(note)}" for note in feedback.notes(grade)]
    return {
        "score": grade.score,
        "execution_time": round(grade.seconds, 2),
        "output": "\n\n".join([feedback.inline(feedback.opening(grade, lesson)), "\n".join(notes)]).strip(),
        "output_format": "md",
        "visibility": visibility,
        "stdout_visibility": "hidden",
        "tests": [_gradescope_test(*pair, visibility) for pair in in_order(grade, lesson)],
        "extra_data": {name: getattr(grade, name) for name in known} | {"flags": list(map(clean, grade.flags))},
    }


def _gradescope_test(exercise, graded, visibility):
    return {
        "score": graded.score,
        "max_score": graded.points,
        "status": "passed" if graded.status == "passed" else "failed",  # it knows no other
        "name": f"{exercise.title}: {messages.TITLES[graded.status]}",
        "number": f"{int(exercise.lesson)}.{exercise.id.rpartition('-')[2]}",
        "output": feedback.body(exercise, graded),
        "output_format": "md",
        "tags": [graded.status],
        "visibility": visibility,
        "extra_data": {"exercise": exercise.id, "status": graded.status, "seconds": round(graded.seconds, 2)},
    }


def gradescope_text(grades, lesson, visibility="visible"):
    """The results.json of one submission; of several, an object {student: what its results.json would be}."""
    found = {clean(grade.student): gradescope(grade, lesson, visibility) for grade in grades}
    content = found if len(grades) != 1 else next(iter(found.values()))
    return json.dumps(content, indent=1) + "\n"  # all of it ASCII: no text can keep it from being written


# ---- JUnit

ELEMENTS = {"failed": "failure", "partial": "failure", "not_attempted": "skipped"}  # all others: error


def junit_text(grades, lesson):
    """A testsuite a student, a testcase an exercise, as pytest writes them; points and score are properties."""
    root = ElementTree.Element("testsuites", name=f"tinytorch {lesson.number}")
    for grade in grades:
        pairs = in_order(grade, lesson)
        found = Counter(ELEMENTS.get(graded.status, "error") for _, graded in pairs if graded.status != "passed")
        counts = {"failures": found["failure"], "errors": found["error"], "skipped": found["skipped"]}
        counts = {name: str(count) for name, count in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", name=clean(grade.student), tests=str(len(pairs)), **counts,
                                       time=f"{grade.seconds:.3f}")  # fmt: skip
        _properties(suite, score=number(grade.score), max_score=number(grade.max_score))
        for pair in pairs:
            _junit_case(suite, *pair)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode("utf-8") + "\n"


def _junit_case(suite, exercise, graded):
    case = ElementTree.SubElement(suite, "testcase", classname=suite.get("name"),
                                  name=f"{exercise.id} {exercise.title}", time=f"{graded.seconds:.3f}")  # fmt: skip
    _properties(case, exercise=exercise.id, points=number(graded.points), score=number(graded.score))
    if graded.status != "passed":
        found = feedback.result(exercise, graded)
        element = ElementTree.SubElement(case, ELEMENTS.get(graded.status, "error"))
        element.set("message", found.mistake or found.message or messages.TITLES[graded.status])
        element.text = messages.as_text(found, width=100)


def _properties(parent, **given):
    properties = ElementTree.SubElement(parent, "properties")
    for name, value in given.items():
        ElementTree.SubElement(properties, "property", name=name, value=value)
