"""Hostile submissions, all of one class: none gets what it did not earn, or takes it from others, or gets out.

The class is handed in and graded as an instructor does it, by the command line. What it should come to stands beside
each attack (`hostile`).
"""

import csv
import html.parser
import io
import json
import os
import sys
import time
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from course import hostile
from course.hostile import classroom, files, names
from course.hostile.classroom import Class

from tinytorch_course.grading import grader, grades, probes, verdict
from tinytorch_course.grading.warden import Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel has less to offer")
ATTACKS = {attack.name: attack for kind in classroom.KINDS for attack in hostile.read(kind)[0]}
CORE = (
    "exits_at_once", "never_ends", "takes_10_gb_at_once", "exits_when_imported", "says_half_a_character",
    "sends_through_half_a_pair_of_sockets", "writes_elsewhere", "silences_our_comparisons",
    "forges_a_record_without_canaries", "writes_numbers_that_are_none", "syntax_error_in_a_cell",
    "link_to_the_reference",
)  # fmt: skip


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """Some of the attacks, as they are graded while students still work."""
    with Class(tmp_path_factory.mktemp("core"), CORE) as graded:
        yield graded


@pytest.fixture(scope="module")
def everybody(tmp_path_factory):
    """All of them, graded for points that count."""
    with Class(tmp_path_factory.mktemp("class"), None, "--strict") as graded:
        yield graded


def assert_attack_fails(graded, attack, strict):
    """It came to what it should, and its neighbour has its points."""
    file, id = graded.attacks[attack.name]
    exercises = {exercise["id"]: exercise for exercise in graded.of(file)["exercises"]}
    found, neighbour = exercises[id], exercises[hostile.NEIGHBOUR]
    assert (neighbour["status"], neighbour["score"]) == ("passed", 1)
    assert "ESCAPED" not in found["message"]
    assert attack.says in found["message"]
    asked_more = found["message"].startswith(("The tests pass, but", "On other inputs", "What its probes"))
    assert ("passed" if asked_more else found["status"]) in attack.statuses, found["message"]
    assert not strict or (found["status"] in (attack.strict or attack.statuses) and found["score"] == 0)


def assert_file_is_read(graded, name):
    _, score, says = files.MADE[name]
    grade = graded.of(graded.files[name])
    said = [*grade["notes"], *(exercise["message"] for exercise in grade["exercises"])]
    assert (grade["score"], grade["complete"]) == (score, True), said
    assert any(says in text for text in said), said


@pytest.mark.parametrize("name", [name for name in CORE if name in ATTACKS])
def test_an_attack_costs_its_exercise_alone(core, name):
    assert_attack_fails(core, ATTACKS[name], strict=False)


@pytest.mark.parametrize("name", [name for name in CORE if name in files.MADE])
def test_what_is_strange_is_read_as_far_as_it_goes(core, name):
    assert_file_is_read(core, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_gets_points_that_count(everybody, name):
    assert_attack_fails(everybody, ATTACKS[name], strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", files.MADE)
def test_whatever_is_handed_in_is_read_as_far_as_it_goes(everybody, name):
    assert_file_is_read(everybody, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*names.HONEST, "honest_folder"])
def test_honest_work_in_any_style_has_its_points(everybody, name):
    assert everybody.of(name)["score"] == everybody.honest[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", names.NAMES, ids=ascii)
def test_whatever_a_file_is_called_it_is_graded(everybody, name):
    assert everybody.of(grader.display(name))["complete"]


# ---- the world around


def assert_nothing_has_changed(graded, what):
    for _ in range(20):  # what was killed last may take a moment to go
        if graded.before[what] == graded.after[what]:
            break
        time.sleep(0.1)
        graded.after = graded.world()
    assert graded.before[what] == graded.after[what]


WORLD = ("the canary", "its text", "new files", "the repository", "the kernel", "processes", "folders of the grader")
each_part = pytest.mark.parametrize("what", WORLD)


@each_part
def test_nothing_outside_changes(core, what):
    assert_nothing_has_changed(core, what)
    assert core.heard == []


@pytest.mark.slow
@each_part
def test_nothing_outside_changes_whatever_they_try(everybody, what):
    assert_nothing_has_changed(everybody, what)
    assert everybody.heard == []


# ---- what an instructor and a student read


class Markup(html.parser.HTMLParser):
    """Collects what could do more than be read."""

    def __init__(self):
        super().__init__()
        self.active = []

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "iframe", "img", "object", "link", "base", "form") or any(
            name.startswith("on") or (name == "href" and not value.startswith("#")) for name, value in attributes
        ):
            self.active.append((tag, attributes))


@pytest.fixture(params=["core", pytest.param("everybody", marks=pytest.mark.slow)])
def graded(request):
    return request.getfixturevalue(request.param)


def test_every_submission_has_a_row_and_a_grade_of_its_own(graded):
    count = len(os.listdir(graded.folder))
    assert len(list(graded.out.glob("05_autograd/*/grade.json"))) == count
    rows = list(csv.DictReader(io.StringIO((graded.base / "csv").read_text())))
    assert len(rows) == len({row["student"] for row in rows}) == count
    assert sum(float(row["score"]) for row in rows) == sum(grade["score"] for grade in graded.grades.values())
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


def test_all_other_formats_can_be_read(graded):
    count = len(os.listdir(graded.folder))
    assert len(ElementTree.parse(graded.base / "junit").getroot()) == count
    found = json.loads((graded.base / "gradescope").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert len(found) == count
    for path in graded.out.glob("05_autograd/*/grade.json"):
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_pages_hold_nothing_but_text(graded):
    pages = list((graded.base / "feedback").glob("*.html"))
    assert len(pages) == len(os.listdir(graded.folder))
    for page in pages:
        markup = Markup()
        markup.feed(page.read_text())
        assert markup.active == []


def test_the_terminal_gets_no_control_characters(graded):
    said = graded.ran.stdout + graded.ran.stderr
    assert not set(said) & ({chr(i) for i in range(32)} - {"\n", "\t", "\r"} | {"\x7f", "\u202e"})


# ---- what comes out of a sandbox can hold anything

PASSED = '{"event": "passed", "test": "a", "seconds": %s}'
FAILED = '{"event": "failed", "test": "a", "seconds": 0, "said": "x", "failure": {"yours": {"line": %s, "text": "a"}}}'
RECORDS = [
    PASSED % ("1" * 400), PASSED % ("1" * 5000), PASSED % "1e999", PASSED % "NaN", PASSED % "[]", PASSED % "null",
    FAILED % "1e999", FAILED % '"x"', "[" * 100_000, "null", '{"event": {}}', '{"event": "canary"}', "\x00", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record[:60])
def test_a_forged_record_is_no_trouble(record):
    content = record.encode("utf-8", "surrogatepass")
    gate = type("Gate", (), {"passes": ["a"], "canaries": ["b"]})
    status, _, found = verdict.judged(gate, Outcome("well", content + b"\n"))
    assert status != "passed"
    assert all(np.isfinite([*found.passed.values(), *found.seconds.values()])), "JSON has no such numbers"


def npy(header, content=b"", version=1):
    size = len(header).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin-1") + content


def npz(content, times=1):
    """A zip in which so many entries are one array."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", content)
        archive.filelist *= times
    return file.getvalue()


def array(dtype="'<f8'", shape="()"):
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"


HEADERS = [
    "{'descr': (", "'''", "(" * 3000, "-" * 9000 + "1", "\x00", "1L", array("()"), array("[]"), array("'O'"),
    array("'<U0'", f"({10**18},)"), array(shape=f"(0, {10**30})"), array("'<U999999999999'", "(0,)"), array("((),)"),
]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:60])
@pytest.mark.filterwarnings("ignore:Reading")
def test_arrays_that_are_none_are_refused(header, version):
    with pytest.raises(ValueError):
        probes.unpack(npz(npy(header, bytes(8), version)))


def test_arrays_with_any_bytes_changed_are_read_or_refused():
    whole, rng = probes.pack({"a.x": np.arange(6.0), "a.s": np.array(["ab", "c"])}), np.random.default_rng(0)
    for _ in range(2000):
        content = bytearray(whole)
        for place in rng.integers(len(content), size=3):
            content[place] = rng.integers(256)
        try:
            probes.differences({"a.x": np.zeros(6), "a.s": np.array(["ab", "c"])}, probes.unpack(bytes(content)))
        except ValueError:
            continue


def test_one_array_named_a_thousand_times_is_refused_at_once():
    content, started = npz(npy(array("'<f8'", "(1000000,)"), bytes(8_000_000)), 1000), time.monotonic()
    with pytest.raises(ValueError):
        probes.unpack(content)
    assert time.monotonic() - started < 2


def test_a_grade_with_half_a_character_is_written_and_read(tmp_path):
    grade = grades.Grade("alice", "a.py", "", "05", "", {}, notes=["\ud800", "\x00\u202e"])
    grade.write(tmp_path)
    assert len(grades.read(tmp_path).notes) == 2
