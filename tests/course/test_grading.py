"""Grading: honest work gets its points, nothing is run twice, and what went wrong is said in one row a student."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from tinytorch_course import notebooks
from tinytorch_course.grading import GradingError, batch, grader, grades, reading, verdict
from tinytorch_course.grading.plan import Gate, Policy
from tinytorch_course.grading.warden import Outcome
from tinytorch_course.lessons import ROOT, read_lessons

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs Linux or macOS")
LESSONS = read_lessons()
WHOLE = LESSONS[4]
ADD, MUL, RELU, *_ = WHOLE.exercises
LESSON = dataclasses.replace(WHOLE, exercises=(ADD, MUL, RELU))  # three exercises take seconds
HEAD = "import numpy as np\n\nimport tinytorch_course as course\n"
TYPICAL = {wrong.name: wrong for wrong in MUL.wrong}["each input its own"]


def work(**answers):
    """A ledger with answers: text, or True for the reference's."""
    text = HEAD
    for exercise in (ADD, MUL, RELU):
        if answer := answers.get(exercise.id.replace("-", "_")):
            text += f'\n\n@course.exercise("{exercise.id}")\n{exercise.solution() if answer is True else answer}'
    return text


ALL = dict.fromkeys(("ex_05_1", "ex_05_2", "ex_05_3"), True)


def hand_in(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return grader.handed_in(folder)


def graded(submissions, out, **options):
    said = []
    policy = Policy(**{"timeout": 20} | options)
    return batch.grade(submissions, LESSON, policy, out, jobs=2, say=said.append), said


@pytest.fixture(scope="module")
def a_class(tmp_path_factory):
    """{student: Grade} of one of each kind."""
    folder = tmp_path_factory.mktemp("class") / "submissions"
    never = MUL.solution().replace("\n    ", '\n    print("wait")\n    while True:\n        pass\n    ', 1)
    hand_in(
        folder,
        honest=work(**ALL),
        one=work(ex_05_2=True),
        typical=work(ex_05_1=True, ex_05_2=TYPICAL.code),
        broken=work(**ALL).replace("def __mul__(", "def __mul__((", 1),
        signature=work(**ALL).replace("def relu(x)", "def relu(x, y)").replace("def relu(input)", "def relu(x, y)"),
        nothing="x = 1\n",
        warns="import warnings\n" + work(**ALL).replace("def __mul__", "import sys\n\n\ndef __mul__", 0),
        suspect=work(ex_05_2=MUL.solution().rstrip("\n").replace("\n    ", "\n    import os\n    ", 1) + "\n"),
    )
    (folder / "never.py").write_text(work(ex_05_2=never, ex_05_1=True))
    (folder / "letter.pdf").write_text("%PDF")
    (folder / "empty").mkdir()
    found, _ = graded(grader.handed_in(folder), folder.parent / "out", strict=True, timeout=6)
    return {grade.student: grade for grade in found}


def statuses(grade):
    return [exercise.status for exercise in grade.exercises]


@pytest.mark.parametrize(
    ("student", "wanted", "score"),
    [
        ("honest", ["passed", "passed", "passed"], 3),
        ("one", ["not_attempted", "passed", "not_attempted"], 1),
        ("typical", ["passed", "failed", "not_attempted"], 1),
        ("broken", ["passed", "syntax_error", "passed"], 2),
        ("signature", ["passed", "passed", "syntax_error"], 2),
        ("never", ["passed", "timeout", "not_attempted"], 1),
        ("nothing", ["not_attempted"] * 3, 0),
        ("letter", ["not_attempted"] * 3, 0),
        ("empty", ["not_attempted"] * 3, 0),
    ],
)
def test_every_student_gets_a_row_with_a_reason(a_class, student, wanted, score):
    grade = a_class[student]
    assert statuses(grade) == wanted
    assert (grade.score, grade.max_score, grade.complete) == (score, 3, True)
    assert all(exercise.message for exercise in grade.exercises if exercise.status != "passed")


def test_a_typical_mistake_is_recognised_and_shown_with_its_values(a_class):
    failed = a_class["typical"].exercises[1]
    assert failed.mistake == TYPICAL.message
    assert failed.failure["expected"] and failed.failure["got"] and failed.failure["picture"] is None
    assert {test.score for test in failed.tests} == {0, 1} or {test.score > 0 for test in failed.tests} == {True, False}


def test_a_mistake_in_one_place_of_a_file_costs_this_exercise(a_class):
    assert "broken.py is not yet Python: line" in a_class["broken"].exercises[1].message


def test_where_everything_came_from_is_said(a_class):
    assert a_class["one"].provenance == {ADD.target: "stub", MUL.target: "student", RELU.target: "stub"}
    assert any("is no submission" in note for note in a_class["letter"].notes)


def test_what_is_hardly_ever_needed_is_flagged_and_costs_nothing(a_class):
    assert a_class["suspect"].flags == ["ex-05-2 imports os"]
    assert a_class["suspect"].score == 1


def test_grade_json_is_what_was_returned_and_what_the_course_says(a_class, tmp_path):
    a_class["typical"].write(tmp_path)
    assert grades.read(tmp_path) == a_class["typical"]
    content = json.loads((tmp_path / "grade.json").read_text())
    assert content["schema"] == 1 and content["score"] == 1 and content["max_score"] == 3
    assert {"course_version", "submission_sha256", "lesson", "policy", "provenance", "notes", "flags"} < content.keys()
    assert {"id", "title", "points", "score", "status", "tests"} < content["exercises"][0].keys()
    assert content["exercises"][1]["tests"][0].keys() == {"id", "points", "score", "seconds", "message"}


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 2}', "[]", '{"schema": 1, "exercises": [{}]}'])
def test_a_grade_that_cannot_be_read_is_none(tmp_path, content):
    assert grades.read(tmp_path) is None
    (tmp_path / "grade.json").write_text(content)
    assert grades.read(tmp_path) is None


# ---- again


@pytest.mark.slow
def test_what_has_not_changed_is_not_run_again(tmp_path):
    folder = tmp_path / "class"
    first, _ = graded(hand_in(folder, alice=work(ex_05_1=True), bob=work(ex_05_2=True)), tmp_path / "out")
    (folder / "bob.py").write_text(work(ex_05_2=True, ex_05_3=True))
    second, said = graded(hand_in(folder, carol=work(ex_05_1=True)), tmp_path / "out")
    assert said[0] == "1 of 3 are graded already, and have not changed."
    assert [grade.score for grade in second] == [1, 2, 1]
    assert second[0] == first[0]  # to the last millisecond
    third, said = graded(grader.handed_in(folder), tmp_path / "out")
    assert said == ["3 of 3 are graded already, and have not changed."] and third == second
    _, said = graded(grader.handed_in(folder)[:1], tmp_path / "out", timeout=21)  # other rules
    assert "graded already" not in said[0]


def test_what_is_half_graded_is_graded_to_its_end(tmp_path):
    submissions = hand_in(tmp_path / "class", alice=work(**ALL))
    [whole], _ = graded(submissions, tmp_path / "out")
    half = dataclasses.replace(whole, exercises=whole.exercises[:2], complete=False)
    half.exercises[0].seconds = 1234.5
    half.write(tmp_path / "out" / LESSON.folder / "alice")
    [again], _ = graded(submissions, tmp_path / "out")
    assert again.exercises[0].seconds == 1234.5 and [exercise.id for exercise in again.exercises] == [
        exercise.id for exercise in LESSON.exercises
    ]
    assert again.complete and again.score == 3


@pytest.mark.slow
def test_a_killed_run_goes_on_without_losing_or_repeating_a_grade(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "out"
    folder.mkdir()
    for name in ("alice", "bob"):
        (folder / name).mkdir()
        notebooks.build([WHOLE], folder / name, "solution")
    command = [sys.executable, "-m", "tinytorch_course", "grade", "05", str(folder), "--out", str(out), "--jobs", "1"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    place = out / WHOLE.folder / "alice"
    waited = time.monotonic() + 120
    while not (grades.read(place) and len(grades.read(place).exercises) > 3):
        assert time.monotonic() < waited and run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = grades.read(place).exercises
    ran = subprocess.run([*command, "--csv", str(tmp_path / "a.csv")], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    after = grades.read(place)
    assert after.exercises[: len(before)] == before  # with the same times: they were not run again
    assert [grades.read(out / WHOLE.folder / name).score for name in ("alice", "bob")] == [22, 22]
    assert (tmp_path / "a.csv").read_text().count("22") >= 2


def test_two_runs_into_one_folder_do_not_mix(tmp_path):
    submissions = hand_in(tmp_path / "class", alice=work())
    (tmp_path / "out" / LESSON.folder).mkdir(parents=True)
    with batch.FileLock(tmp_path / "out" / LESSON.folder / ".lock"), pytest.raises(GradingError, match="Another run"):
        graded(submissions, tmp_path / "out")


# ---- who handed in


def test_every_thing_in_the_folder_is_somebody(tmp_path):
    names = ["a.zip", "a.ipynb", "b.py", "c, \"d'é\n.py", "-e.py", "=f().py", ".hidden", "__MACOSX", "g.v2.py"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "h.i").mkdir()
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.py", os.O_CREAT))
    found = [handed.student for handed in grader.handed_in(tmp_path)]
    assert sorted(found) == sorted(["a.zip", "a.ipynb", "b", "c, \"d'é\n", "-e", "=f()", "g.v2", "h.i", "\\xff"])


def test_names_that_differ_in_case_alone_are_told_apart(tmp_path):
    for name in ("A", "a", "a (2)"):
        (tmp_path / name).mkdir(exist_ok=True)  # there are systems on which two of them are one
    found = [handed.student.casefold() for handed in grader.handed_in(tmp_path)]
    assert len(set(found)) == len(found) >= 2


def test_the_checksum_is_of_what_is_read(tmp_path):
    (tmp_path / ".venv").mkdir()
    for i in range(600):
        (tmp_path / ".venv" / f"{i}.py").touch()
    (tmp_path / "work.py").write_text("x = 1")
    before = reading.sha256(tmp_path)
    (tmp_path / ".venv" / "1.py").write_text("changed")
    assert reading.sha256(tmp_path) == before
    (tmp_path / "work.py").write_text("x = 2")
    assert reading.sha256(tmp_path) != before


def test_time_that_runs_out_after_the_tests_is_no_tampering():
    gate = Gate(MUL, ROOT, False, [], passes=["a"], canaries=["one"])
    record = b'{"event": "passed", "test": "a", "seconds": 1}\n'
    assert verdict.judged(gate, Outcome("timeout", record))[0] == "timeout"
    assert verdict.judged(gate, Outcome("well", record))[0] == "tampered"
    said = b'{"event": "failed", "test": "a", "seconds": 1, "said": "AssertionError: 1", "failure": null}\n'
    canary = b'{"event": "canary", "test": "one", "outcome": "failed"}\n{"event": "end", "status": 1}\n'
    assert verdict.judged(gate, Outcome("well", said + canary, "a MemoryError is mentioned"))[0] == "failed"


@pytest.mark.slow
def test_students_of_one_file_name_are_told_apart(tmp_path):
    for name, answers in (("alice", ALL), ("bob", {"ex_05_1": True})):
        (tmp_path / "class" / name).mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / "class" / name / "homework.zip", "w") as archive:
            archive.writestr("05_autograd.py", work(**answers))
    found, _ = graded(grader.handed_in(tmp_path / "class"), tmp_path / "out")
    assert [(grade.student, grade.score) for grade in found] == [("alice", 3), ("bob", 1)]


def test_a_folder_without_submissions_is_refused(tmp_path):
    with pytest.raises(GradingError, match="is empty: it needs one file"):
        grader.handed_in(tmp_path)
    with pytest.raises(GradingError, match="needs to be a folder with one file or folder for each student"):
        grader.handed_in(tmp_path / "missing")


# ---- what is asked


@pytest.mark.slow
def test_earlier_lessons_are_the_reference_s_or_the_student_s(tmp_path):
    earlier = LESSONS[2].exercises[0]
    text = work(**ALL) + f'\n\n@course.exercise("{earlier.id}")\n{earlier.solution()}'
    submissions = hand_in(tmp_path / "class", alice=text)
    [reference], _ = graded(submissions, tmp_path / "out")
    [own], _ = graded(submissions, tmp_path / "out", prior="student")
    assert earlier.target not in reference.provenance
    assert own.provenance[earlier.target] == "student"
    assert reference.score == own.score == 3


@pytest.mark.slow
def test_parts_of_the_points_where_that_is_asked(tmp_path):
    submissions = hand_in(tmp_path / "class", alice=work(ex_05_2=TYPICAL.code, ex_05_1=True))
    [grade], _ = graded(submissions, tmp_path / "out", partial=True)
    assert statuses(grade) == ["passed", "partial", "not_attempted"]
    assert 0 < grade.exercises[1].score < MUL.points
    share = sum(test.score > 0 for test in grade.exercises[1].tests) / len(grade.exercises[1].tests)
    assert grade.exercises[1].score == pytest.approx(MUL.points * share, abs=0.01)


HIDDEN = f"""
import numpy as np
import pytest

import tinytorch as tt


@pytest.mark.exercise("{MUL.id}")
def test_secret_of_large_numbers():
    x = tt.Tensor(np.full(3, 1e6), requires_grad=True)
    (x * x).sum().backward()
    assert x.grad.numpy().max() == 2e6, "the secret message"
"""
ONLY_SMALL = MUL.solution().replace("g * y", "g * y * (1 if np.max(np.abs(y)) < 1e5 else 2)")


def test_hidden_tests_count_and_say_nothing(tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "test_secret.py").write_text(HIDDEN)
    submissions = hand_in(tmp_path / "class", alice=work(ex_05_2=True), bob=work(ex_05_2=ONLY_SMALL))
    (alice, bob), _ = graded(submissions, tmp_path / "out", tests=tmp_path / "hidden")
    assert alice.exercises[1].status == "passed"
    assert (bob.exercises[1].status, bob.exercises[1].message) == ("failed", "A hidden test does not pass.")
    assert "secret" not in (tmp_path / "out" / LESSON.folder / "bob" / "grade.json").read_text()


HIDDEN_PROBE = f"""
import numpy as np

from tinytorch_course.grading.probes import gradients, probe


@probe("{MUL.id}", lambda rng: {{"x": 1e6 * rng.uniform(1, 2, 3)}})
def secret_of_large_numbers(tt, x):
    return gradients(tt, lambda a, b: a * b, x, x, g=np.ones(3))
"""


def test_hidden_probes_count_where_points_do_and_say_nothing(tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "probes.py").write_text(HIDDEN_PROBE)
    submissions = hand_in(tmp_path / "class", alice=work(ex_05_2=True), bob=work(ex_05_2=ONLY_SMALL))
    (alice, bob), _ = graded(submissions, tmp_path / "out", tests=tmp_path / "hidden", strict=True)
    assert alice.exercises[1].status == "passed"
    assert (bob.exercises[1].status, bob.exercises[1].message) == ("failed", "A hidden test does not pass.")


def test_a_folder_of_hidden_tests_without_any_is_refused(tmp_path):
    (tmp_path / "hidden").mkdir()
    with pytest.raises(GradingError, match=r"gates an exercise of lesson 05\. A hidden test is"):
        graded(hand_in(tmp_path / "class", alice=work(ex_05_1=True)), tmp_path / "out", tests=tmp_path / "hidden")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jobs", "0"], "--jobs needs to be at least 1, but is 0"),
        (["--timeout", "0"], "--timeout needs to be at least 1, but is 0"),
        (["--memory", "10"], "--memory needs to be at least 500, but is 10"),
        (["--strict", "--partial"], "leave --partial out"),
        (["--tests", "nowhere"], "--tests needs a folder of tests, but nowhere is none"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said, tmp_path, capsys):
    from tinytorch_course.cli import main

    hand_in(tmp_path / "class", alice="x = 1")
    assert main(["grade", "05", str(tmp_path / "class"), *options]) == 1
    assert said in capsys.readouterr().err


# ---- the whole course


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)
def test_solved_is_full_marks_and_untouched_is_none(lesson, tmp_path):
    for kind in ("solution", "student"):
        (tmp_path / "class" / kind).mkdir(parents=True)
        notebooks.build([lesson], tmp_path / "class" / kind, kind)
    submissions = grader.handed_in(tmp_path / "class")
    solved, untouched = batch.grade(submissions, lesson, Policy(strict=True), tmp_path / "out", jobs=2, say=str)
    assert [exercise.message for exercise in solved.exercises if exercise.status != "passed"] == []
    assert (solved.score, solved.flags) == (solved.max_score, [])
    assert untouched.score == 0 and set(statuses(untouched)) == {"not_attempted"}
