"""What is made of a Grade: each format is read back by another tool, whatever a student put into it."""

import csv
import io
import json
import re
import sys
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image

from tinytorch_course import checking, messages
from tinytorch_course.grading import feedback, formats, grades, summary
from tinytorch_course.grading.grades import STATUSES, ExerciseGrade, Grade
from tinytorch_course.lessons import read_lessons

LESSON = read_lessons()[4]
FIRST = LESSON.exercises[0]
ALL = [*STATUSES, "passed"]  # of the lesson's ten exercises
EVIL = "</pre></td><script>alert(1)</script>\n`````\n\n# big\n[x](javascript:a) ![i](http://evil.example) <img src=x>"
NAMES = [
    'a, "b"\nc', "עברית", "\u202egnp.exe", "=cmd|' /C calc'!A0", "-e", "@x", "\t=1", "<script>alert(1)</script>",
    "\udcff\udcfe", "\x1b[2J\x07\x9b2J", "\u732b\N{CAT FACE}", "x" * 250, "..", "a/../../b",
]  # fmt: skip
each_name = pytest.mark.parametrize("name", NAMES, ids=ascii)


def failure(**given):
    texts = dict.fromkeys(("test", "error", "message", "called", "printed", "expected", "got", "place", "cause"), "")
    said = {"test": "sums are right", "error": "AssertionError", "message": "no", "called": "f(x)", "expected": "[10]"}
    said |= {"got": "[11]", "place": "1 of 1 differ", "cause": "one too many"}
    return texts | {"picture": None, "yours": {"line": 2, "text": "return x + 1"}} | said | given


def graded(exercise, status, **given):
    points = {"passed": exercise.points, "partial": exercise.points / 4}.get(status, 0)
    tests = [
        grades.TestGrade("t.py::a", 0.5, 0.5, 0.25),
        grades.TestGrade("t.py::b", 0.5, 0.5 if status == "passed" else 0.0),
    ]
    if status in ("failed", "partial"):
        given = {"failure": failure(), "message": "1 of 2 tests do not pass: no", "tests": tests} | given
    elif status != "passed":
        given = {"message": "not attempted" if status == "not_attempted" else f"Reason of {status}."} | given
    return ExerciseGrade(exercise.id, exercise.title, exercise.points, float(points), status, seconds=0.5, **given)


def grade(student="alice", statuses=ALL, given=None, **more):
    """A Grade with these statuses; given: of the exercises that did not pass."""
    exercises = [
        graded(exercise, status, **(given or {} if status not in ("passed", "not_attempted") else {}))
        for exercise, status in zip(LESSON.exercises, statuses)
    ]
    known = {"policy": {}, "max_score": 22, "complete": True, "exercises": exercises}
    return Grade(student, f"{student}.py", "0" * 64, "05", "1", **known | more)


EVIL_FAILURE = failure(
    **dict.fromkeys(("message", "got", "called", "place", "test", "printed"), EVIL), yours={"line": 1, "text": EVIL}
)
EVIL_GRADE = grade(EVIL, given={"message": EVIL, "mistake": EVIL, "failure": EVIL_FAILURE}, notes=[EVIL])


def table(given):
    return list(csv.DictReader(io.StringIO(formats.csv_text(given, LESSON), newline="")))


# ---- CSV


def test_the_csv_has_a_row_a_student_and_a_column_an_exercise():
    first, second = table([grade(notes=["a note"]), grade("bob", ["passed"] * 10)])
    ids = [exercise.id for exercise in LESSON.exercises]
    assert list(first) == ["student", "file", "score", "max_score", *ids, "status", "notes"]
    assert (first["student"], first["file"], first["max_score"], first["notes"]) == (
        "alice",
        "alice.py",
        "22",
        "a note",
    )
    assert [first[id] for id in ids] == ["1", "0.25", "0", "0", "0", "0", "0", "0", "0", "5"] and first[
        "score"
    ] == "6.25"
    assert first["status"].startswith("1 partial, 1 failed, 1 not attempted, 1 syntax error, 1 timeout")
    assert (second["score"], second["status"]) == ("22", "all passed")


def test_a_run_that_was_stopped_leaves_cells_empty_and_says_so():
    [row] = table([grade(statuses=["passed"], complete=False)])
    assert (row["ex-05-1"], row["ex-05-2"], row["status"]) == ("1", "", "stopped before its end")


@each_name
def test_no_name_breaks_the_csv_or_becomes_a_formula(name):
    row, following = table([grade(name, notes=["=1+1"]), grade("bob")])
    assert following["student"] == "bob" and row["notes"] == "'=1+1"
    assert not row["student"].startswith(tuple("=+-@\t\r"))
    if name.isprintable() and name[0].isalnum():
        assert row["student"] == name
    formats.csv_text([grade(name)], LESSON).encode("utf-8")


def test_what_is_no_unicode_stays_visible_and_a_formula_readable():
    rows = table([grade("\udcffname"), grade("=1")])
    assert [row["student"] for row in rows] == ["\\udcffname", "'=1"]


# ---- Gradescope

TOP = {"score": (int, float), "execution_time": (int, float), "output": str, "output_format": str, "visibility": str,
       "stdout_visibility": str, "tests": list, "extra_data": dict}  # fmt: skip
TEST = {"score": (int, float), "max_score": (int, float), "status": str, "name": str, "number": str, "output": str,
        "output_format": str, "tags": list, "visibility": str, "extra_data": dict}  # fmt: skip


@pytest.mark.parametrize("one", [grade(), EVIL_GRADE, *map(grade, NAMES)], ids=lambda one: ascii(one.student)[:20])
def test_gradescope_gets_the_keys_and_types_that_it_knows(one):
    content = json.loads(formats.gradescope_text([one], LESSON))
    for given, known in [(content, TOP), *((test, TEST) for test in content["tests"])]:
        assert given.keys() == known.keys()
        assert [key for key, kind in known.items() if not isinstance(given[key], kind)] == []
    assert {test["status"] for test in content["tests"]} == {"passed", "failed"}
    assert {test["output_format"] for test in content["tests"]} <= {"text", "html", "simple_format", "md", "ansi"}


def test_gradescope_gets_the_points_of_each_exercise():
    content = json.loads(formats.gradescope_text([grade(flags=["secret flag"])], LESSON))
    assert content["score"] == 6.25 == sum(test["score"] for test in content["tests"])
    assert [test["max_score"] for test in content["tests"]] == [exercise.points for exercise in LESSON.exercises]
    assert [test["number"] for test in content["tests"]] == [f"5.{i}" for i in range(1, 11)]
    assert [test["status"] for test in content["tests"]] == ["passed", *["failed"] * 8, "passed"]
    assert [test["output"] == "" for test in content["tests"]] == [True, *[False] * 8, True]
    assert (content["execution_time"], content["stdout_visibility"]) == (5.0, "hidden")
    assert content["extra_data"]["flags"] == ["secret flag"]
    assert "secret flag" not in json.dumps(content | {"extra_data": {}})


def test_gradescope_of_a_class_is_an_object_and_of_a_stopped_run_is_whole():
    content = json.loads(formats.gradescope_text([grade("a"), grade("b", ["passed"], complete=False)], LESSON))
    assert list(content) == ["a", "b"] and content["b"]["score"] == 1
    assert len(content["b"]["tests"]) == 10 and "the run was stopped" in content["b"]["tests"][9]["output"]


def test_gradescopes_visibility_is_that_of_everything():
    content = formats.gradescope(grade(), LESSON, "after_published")
    assert {content["visibility"], *(test["visibility"] for test in content["tests"])} == {"after_published"}
    with pytest.raises(ValueError, match="needs to be one of visible, hidden"):
        formats.gradescope(grade(), LESSON, "shown")


# ---- JUnit


def suites(given):
    return ElementTree.fromstring(formats.junit_text(given, LESSON).encode("utf-8")).findall("testsuite")


def properties(element):
    return {each.get("name"): each.get("value") for each in element.find("properties")}


def test_junit_has_a_suite_a_student_and_a_case_an_exercise():
    first, second = suites([grade(), grade("bob", ["passed"] * 10)])
    counts = {key: int(first.get(key)) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 10, "failures": 2, "errors": 5, "skipped": 1}
    for kind, key in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert len(first.findall(f"testcase/{kind}")) == counts[key] and not second.findall(f"testcase/{kind}")
    cases = first.findall("testcase")
    assert properties(cases[1]) == {"exercise": "ex-05-2", "points": "1", "score": "0.25"}
    assert "one too many" in cases[2].find("failure").text and cases[0].get("time") == "0.500"
    assert formats.junit_text([], LESSON).startswith("<?xml version='1.0' encoding='utf-8'?>")
    assert properties(first) == {"score": "6.25", "max_score": "22"}


@each_name
def test_no_text_breaks_the_xml(name):
    [suite] = suites([grade(name, given={"message": f"\x00\x0b{name}\ufffe", "mistake": name}, notes=[name])])
    assert len(suite.findall("testcase")) == 10
    assert suite.get("name") == feedback.clean(name) and ("\udcff" in name) == ("\\udcff" in suite.get("name"))


# ---- feedback


class Page(HTMLParser):
    """Raises for tags that do not close in turn; keeps the tags, the links and the text."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.words, self.folded = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "action", "srcset")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.folded if "details" in self.open else self.words).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def both(one):
    """What a student can read of a Grade, in either form."""
    return [feedback.markdown(one, LESSON), feedback.html(one, LESSON)]


@pytest.mark.parametrize("one", [grade(), EVIL_GRADE, *map(grade, NAMES)], ids=lambda one: ascii(one.student)[:20])
def test_the_page_is_one_file_without_scripts_and_links_to_elsewhere(one):
    source = feedback.html(one, LESSON)
    page = Page(source)
    known = {
        "html",
        "head",
        "body",
        "main",
        "meta",
        "title",
        "style",
        "h1",
        "bdi",
        "meter",
        "p",
        "table",
        "tr",
        "th",
        "td",
    }
    assert set(page.tags) <= known | {"ul", "li", "a", "section", "div", "pre", "details", "summary"}
    assert {link[0] for link in page.links} == {"#"} and "url(" not in source and "@import" not in source
    assert {link[1:] for link in page.links} == set(re.findall(r'section id="(.*?)"', source))
    source.encode("utf-8")


def test_what_a_student_wrote_is_shown_as_it_is():
    shown = Page(feedback.html(EVIL_GRADE, LESSON)).text
    assert shown.count(" ".join(EVIL.split())) > 20


def test_the_page_shows_each_exercise_with_expected_beside_yours_and_its_hints():
    page = Page(feedback.html(grade(notes=["a note"]), LESSON))
    for said in (
        "alice: 6.25 of 22 points",
        "a note",
        "0.25 of 1",
        "one too many",
        "line 2 of yours",
        "Reason of timeout.",
    ):
        assert said in page.text
    assert page.text.index("expected [10]") < page.text.index("yours [11]")
    assert all(f"{exercise.id} {exercise.title}" in page.text for exercise in LESSON.exercises)
    folded = " ".join(page.folded)
    assert all((hint in folded) == (i not in (0, 9)) for i, e in enumerate(LESSON.exercises) for hint in e.hints)
    assert not any(hint in page.text for exercise in LESSON.exercises for hint in exercise.hints)


def test_a_typical_mistake_is_said_before_the_general_cause():
    for page in both(grade(given={"mistake": "You add it twice."})):
        assert "You add it twice." in page and "one too many" not in page


def test_who_passed_everything_is_told_so_on_one_line_an_exercise():
    for page in both(grade(statuses=["passed"] * 10)):
        assert "All 10 exercises pass. Well done" in page
        assert page.count(f"{FIRST.id} {FIRST.title}") == 1 and FIRST.hints[0] not in page


def test_who_handed_in_nothing_is_asked_whether_it_is_the_right_file():
    for page in both(grade(statuses=["not_attempted"] * 10)):
        assert "Is it the file that you meant" in page and "tinytorch submit 05" in page


def student_facing(one):
    content = formats.gradescope(one, LESSON)
    return [*both(one), json.dumps([content["output"], content["tests"]]), formats.junit_text([one], LESSON)]


@pytest.mark.parametrize("public", [True, False])
def test_of_a_hidden_test_only_that_it_does_not_pass_is_shown(public):
    tests = [
        grades.TestGrade("t.py::a", 0.5, 0.5),
        grades.TestGrade("", 0.25, 0.0, 0, "secret message"),
        grades.TestGrade("", 0.25, 0.0),
    ]
    given = {"tests": tests, "message": "A hidden test does not pass.", "failure": None}
    if public:
        given = {"tests": [grades.TestGrade("t.py::b", 0.5), *tests], "message": "1 of 4 tests do not pass: no"}
    one = grade(statuses=["failed", *["passed"] * 9], given=given, flags=["secret flag"])
    for text in student_facing(one):
        assert "secret" not in text
    for page in both(one):
        assert "A hidden test does not pass" in page and f"1 of {1 + public} tests pass" in page


def test_how_tampering_was_noticed_is_not_told():
    one = grade(given={"message": "2 of 4 canaries did not fail."}, statuses=["tampered"], flags=["canaries"])
    for text in student_facing(one):
        assert "the tests did not run as they do" in text and "canaries" not in text


def test_no_solution_is_given_away():
    hints = "".join(hint for exercise in LESSON.exercises for hint in exercise.hints)
    last = [exercise.solution().splitlines()[-1].strip() for exercise in LESSON.exercises]
    telling = [line for line in last if line not in hints]
    assert len(telling) >= 8
    for page in both(grade(statuses=["failed"] * 10)):
        plain = unescape(page.replace("\\", ""))
        assert LESSON.exercises[1].hints[2] in plain and [line for line in telling if line in plain] == []


def test_a_record_with_nothing_in_it_can_be_shown():
    empty = dict.fromkeys(failure())
    for text in student_facing(grade(given={"failure": empty})):
        assert LESSON.exercises[2].title in text
    assert "None" not in formats.junit_text([grade(given={"failure": empty})], LESSON)
    picture = grade(given={"failure": failure(picture="<svg onload=alert(1)>")})
    assert "onload" not in feedback.html(picture, LESSON)


@pytest.mark.parametrize("long", ["x" * 10**6, "y\n" * 500_000, "`" * 10**6], ids=["one line", "many lines", "fences"])
def test_very_long_texts_are_shortened(long):
    one = grade(
        given={
            "message": long,
            "mistake": long,
            "failure": failure(message=long, got=long, yours={"line": 1, "text": long}),
        }
    )
    one.notes = [long] * 1000
    for page in both(one):
        assert len(page) < 250_000 and page.count("\n") < 2500 and "980 more notes" in page


# ---- Markdown


def blocks(text):
    """(what is outside of fenced blocks, the blocks), as CommonMark finds them."""
    outside, inside, fence = [], [], None
    for line in text.splitlines():
        if fence is None and (opened := re.fullmatch("(`{3,})text", line)):
            fence = opened[1]
            inside.append([])
        elif fence and re.fullmatch(f" {{0,3}}{fence}`*\\s*", line):
            fence = None
        else:
            (outside if fence is None else inside[-1]).append(line)
    assert fence is None
    return "\n".join(outside), ["\n".join(block) for block in inside]


def test_no_text_gets_out_of_its_block():
    outside, inside = blocks(feedback.markdown(EVIL_GRADE, LESSON))
    assert inside.count(EVIL) > 10
    headings = [line for line in outside.splitlines() if line.startswith("#")]
    assert len(headings) == 1 + 8 and not re.search(r"(?<!\\)<|(?<!\\)\]\(|https?://", outside)


@pytest.mark.parametrize("one", [grade(), EVIL_GRADE, *map(grade, NAMES)], ids=lambda one: ascii(one.student)[:20])
def test_another_parser_sees_the_same_and_no_markup_of_a_students(one):
    parser = pytest.importorskip("markdown_it", reason="needs markdown-it-py, which comes with myst-nb")
    tokens = parser.MarkdownIt("commonmark", {"html": True}).enable("table").parse(feedback.markdown(one, LESSON))
    kinds = [token.type for token in tokens] + [child.type for token in tokens for child in token.children or ()]
    assert not {"html_block", "html_inline", "link_open", "image", "code_inline", "blockquote_open"} & set(kinds)
    assert kinds.count("table_open") == 1 and kinds.count("tr_open") == 11 and kinds.count("heading_open") == 9
    assert kinds.count("fence") == len(blocks(feedback.markdown(one, LESSON))[1])
    words = " ".join("".join(c.content or " " for c in t.children or ()) for t in tokens)
    assert " ".join(feedback.clean(one.student).split()) in " ".join(words.split())


# ---- files


def test_every_student_has_two_files_of_their_own(tmp_path):
    taken = [feedback.file_name(name) for name in ("a/../../b", "x" * 250)]  # who is called like another's file
    names = [*NAMES, *taken, "alice", "alice.", "a:b", "a?b", "x" * 251, "a.md", "a", "\udcff", "\\udcff", ""]
    for name in names:
        for path in feedback.write(grade(name), LESSON, tmp_path / "feedback"):
            assert path.parent == tmp_path / "feedback" and len(path.name.encode()) < 200 and path.name[0] not in "-."
    assert len(list((tmp_path / "feedback").iterdir())) == 2 * len(names) == 2 * len(set(names))
    assert (tmp_path / "feedback" / "alice.md").read_text("utf-8") == feedback.markdown(grade(), LESSON)
    assert (tmp_path / "feedback" / "עברית.html").exists()


# ---- the terminal


class Terminal(io.StringIO):
    encoding = "utf-8"


@pytest.fixture
def a_class():
    return [grade(f"s{i}", ["passed"] * i + ["failed"] * (10 - i), {"mistake": "Twice."}) for i in range(1, 11)]


def test_the_summary_counts_the_class(a_class):
    lines = summary.text(a_class, LESSON, 100).splitlines()
    assert lines[0] == "Lesson 05, Automatic differentiation: 10 submissions, median 7, mean 8.9 of 22 points"
    bars = {name: line.count("█") for line in lines[1:9] for name in [line.split()[0]]}
    assert list(bars) == ["0-2", "3-5", "6-8", "9-11", "12-14", "15-17", "18-20", "21-22"]
    scores = np.cumsum([exercise.points for exercise in LESSON.exercises])
    counts = [sum(low <= score < low + 3 for score in scores) for low in range(0, 24, 3)]
    assert [int(re.findall(r"█ (\d+)$", line)[0]) if "█" in line else 0 for line in lines[1:9]] == counts
    assert list(bars.values()) == [50 * count // max(counts) for count in counts]
    assert "   10%  ex-05-10 The way back; most often (9): Twice." in lines and "needs a look" not in lines


@pytest.mark.parametrize("most", [1, 4, 7, 8, 22, 40])
def test_every_score_is_in_one_range_of_points(most):
    found = summary.bins([*range(most + 1), most - 0.5], most, 8)
    assert len(found) <= 8 and sum(count for *_, count in found) == most + 2
    assert [point for low, high, _ in found for point in range(low, high + 1)] == list(range(most + 1))


def test_who_needs_a_look_is_named_flagged_ones_first(a_class):
    crashed, empty = grade("carol", ["crashed", *["passed"] * 9]), grade("dan", ["not_attempted"] * 10)
    flagged = grade("mallory", ["passed"] * 10, flags=["ex-05-2 imports os"])
    _, look = summary.text([*a_class, crashed, empty, flagged], LESSON, 100).split("needs a look\n")
    assert look.splitlines() == [
        "  mallory: ex-05-2 imports os", "  carol: ex-05-1 crashed", "  dan: nothing attempted in dan.py",
    ]  # fmt: skip
    many = summary.text([empty] * 40, LESSON, 100)
    assert many.count("nothing attempted") == 12 and "and 28 more" in many


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_the_summary_fits_any_terminal_and_does_nothing_to_it(width, encoding, a_class, monkeypatch):
    monkeypatch.setattr(Terminal, "encoding", encoding)
    monkeypatch.setattr(sys, "stdout", Terminal())
    hostile = [grade(name, given={"mistake": EVIL}, flags=[name, EVIL]) for name in NAMES]
    said = summary.text([*a_class, *hostile], LESSON, width)
    said.encode(encoding)
    assert ("█" in said) == (encoding == "utf-8") and ("#" in said.split("hardest")[0]) == (encoding != "utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    if encoding == "utf-8":
        assert max(map(len, said.splitlines())) <= width


def test_no_submission_and_one_can_be_summed_up():
    assert "no submissions" in summary.text([], LESSON)
    assert "1 submission, median 22, mean 22 of 22 points" in summary.text(
        [grade(statuses=["passed"] * 10)], LESSON, 99
    )


# ---- the picture


@pytest.mark.parametrize(("students", "exercises"), [(1, 10), (2, 4), (60, 10), (500, 4)])
def test_the_picture_shows_what_became_of_each_exercise(students, exercises, tmp_path):
    statuses = ["passed", "partial", "failed", "not_attempted"]
    found = [grade(f"s{i}", [statuses[(i + k) % 4] for k in range(10)]) for i in range(students)]
    lesson = type(LESSON)(LESSON.folder, LESSON.title, (), LESSON.exercises[:exercises])
    summary.plot(found, lesson, tmp_path / "new" / "class.png")
    pixels = image.imread(tmp_path / "new" / "class.png")[..., :3]
    blue, orange = (np.isclose(pixels, colour, atol=0.02).all(-1).mean() for colour in (BLUE, ORANGE))
    assert pixels.shape[1] > 1000 and blue > 0.02 and orange > 0.02


BLUE, ORANGE = (31 / 255, 119 / 255, 180 / 255), (255 / 255, 127 / 255, 14 / 255)


def test_an_empty_class_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="needs at least one grade"):
        summary.plot([], LESSON, tmp_path / "class.png")


# ---- the words


def test_every_status_has_one_word():
    shown = {status: messages.headline(checking.Result(FIRST, status)) for status in STATUSES}
    assert all(f": {word}" in shown[status] for status, word in STATUSES.items())
    assert messages.TITLES["unusable"] == STATUSES["syntax_error"] and len(set(STATUSES.values())) == 9
