"""A check: what it finds in good, wrong, hanging, crashing and unfinished answers."""

import subprocess
import sys

import numpy as np
import pytest

from tinytorch_course import checking, diagnosis, heatmap, messages, report
from tinytorch_course.answers import Answer
from tinytorch_course.lessons import ROOT
from tinytorch_course.workspace import Workspace

ADD, RELU_RULE = "ex-01-1", "ex-05-3"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("course") / "my_course", copies=())


@pytest.fixture(scope="module")
def spare():
    made = checking.Spare()
    yield made
    made.close()


@pytest.fixture
def check(workspace, spare):
    """check(body) checks ex-01-1, `__add__`, with this body; check(text, id) another exercise."""
    exercises = {exercise.id: exercise for lesson in workspace.lessons for exercise in lesson.exercises}

    def check(text, id=ADD, **settings):
        text = text if id != ADD else f"def __add__(x, y):\n    {text}\n"
        return checking.check(workspace, exercises[id], Answer(id, text), "the test", spare, **settings)

    return check


def test_a_right_answer_passes_with_its_points(check):
    result = check("return x + y")
    assert (result.status, result.score, result.failure) == ("passed", 1.0, None)
    assert result.tests == result.passed_tests > 5
    assert type(result.score) is float


def test_a_wrong_one_shows_expected_beside_yours_and_the_first_difference(check):
    result = check("return x + 2 * y")
    assert (result.status, result.score) == ("failed", 0.0)
    failure = result.failure
    assert failure["expected"] != failure["got"]
    assert "tt." in failure["called"]
    text = messages.as_text(result, width=80)
    assert "expected" in text and "yours" in text and "checked   the test, version" in text


def test_an_error_shows_the_line_of_the_student(check):
    result = check("z = x + y\n    return z.no_such_name")
    assert result.failure["error"] == "AttributeError"
    assert result.failure["yours"] == {"line": 3, "text": "return z.no_such_name"}


def test_what_was_printed_is_shown(check):
    result = check("print('here I am', x.shape)\n    return x - y")
    assert "here I am" in result.failure["printed"] and "here I am" in messages.as_text(result)


def test_an_endless_loop_is_ended_and_named(check):
    result = check("while True: pass", limit=4)
    assert result.status == "timeout"
    assert "No end after 4 seconds, in " in result.message and "loop that never ends" in result.message
    assert result.seconds < 15


@pytest.mark.parametrize(
    "body",
    [
        "import os; os._exit(0)",
        "import os; os._exit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "raise KeyboardInterrupt",
    ],
)
def test_an_answer_that_ends_python_does_not_pass(check, body):
    result = check(body)
    assert result.status == "crashed" and "Python itself ended" in result.message


@pytest.mark.parametrize(
    "body", ["raise SystemExit(0)", "return 1 / 0", "return", "assert False, 'why'", "return f(x)"]
)
def test_no_other_end_passes_either(check, body):
    assert check(body).status in ("failed", "unusable")


def test_warnings_and_standard_error_cost_nothing(check):
    assert check("import sys; print('noise', file=sys.stderr)\n    return x + y").passed


def test_what_is_left_in_the_environment_is_not_seen_by_the_tests(check, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    assert check("return x + y").passed


def test_what_cannot_be_shown_is_a_failure_all_the_same(check):
    result = check("class Odd:\n        def __repr__(self):\n            raise KeyError\n    return Odd()")
    assert result.status == "failed"
    result = check("class Odd(Exception):\n        def __str__(self):\n            raise KeyError\n    raise Odd")
    assert result.status == "failed" and "cannot be shown" in result.failure["message"]


@pytest.mark.parametrize(
    "skip", ["unittest.SkipTest('no')", "pytest.skip.Exception('no')", "pytest.xfail.Exception('')"]
)
def test_skipping_its_own_tests_does_not_pass(check, skip):
    module = skip.partition(".")[0]
    result = check(f"import {module}\n    if np.size(x) > 3: raise {skip}\n    return x + y")
    assert result.status == "failed"
    assert "skipped" in result.message


@pytest.mark.filterwarnings("ignore")
def test_a_backslash_in_a_docstring_is_no_fault(check):
    assert check('"""\\sigma \\max"""\n    return x + y').passed


def test_what_an_answer_writes_stays_out_of_the_clone(check):
    assert check("open('written.txt', 'w').close()\n    return x + y").passed
    assert not (ROOT / "written.txt").exists()


def test_a_typical_mistake_is_recognised_by_how_it_fails(check, workspace):
    text = "def relu(x):\n    y = np.maximum(x, 0)\n    return y, lambda gradient: x * gradient  # my way\n"
    result = check(text, RELU_RULE)
    assert "multiply g by the input" in result.mistake


def test_a_wrong_gradient_is_drawn_in_red(check):
    result = check("def relu(x):\n    return np.maximum(x, 0), lambda g: 7 * g * (x > 0)\n", RELU_RULE)
    assert "#c62828" in result.failure["picture"] and "input 0" in result.failure["picture"]
    assert result.failure["cause"] == "Everything is 7 times as large as it should be: a factor is missing or too many."
    assert result.failure["picture"] in messages.as_html(result)


IN_A_BROWSER = """
import tinytorch_course as course
from tinytorch_course import checking

checking.can_start_processes = lambda: False
course.start("01")
import tinytorch as tt

before = tt.__file__
found = []
"""
CELL = """
@course.exercise("ex-01-1")
def __add__(x, y):
    return {}

found.append(course.check("ex-01-1").status)
"""
END = """
print("found", *found, tt.__file__ == before, (tt.ones(1) + tt.ones(1)).item())
"""


def test_without_processes_it_runs_in_this_one_and_puts_everything_back(tmp_path):
    script = tmp_path / "browser.py"
    script.write_text(IN_A_BROWSER + "".join(CELL.format(body) for body in ("x + y", "x - y", "x + y")) + END)
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert "found passed failed passed True 2.0" in ran.stdout, ran.stdout + ran.stderr


def test_what_passed_is_kept_and_counts(check, workspace):
    check("return x + y")
    exercise = workspace.lessons[0].exercises[0]
    assert workspace.passing(exercise).text == "def __add__(x, y):\n    return x + y\n"
    first = report.of(workspace).rows[0]
    assert (first.done, first.points) == (1, 1)


def test_the_score_of_a_note_for_nbgrader_is_a_plain_number(check):
    assert repr(check("return x + y").score) == "1.0"


# ---- the likely cause


@pytest.mark.parametrize(
    ("expected", "got", "cause"),
    [
        ([1.0, 2.0], None, "None came"),
        (np.ones((2, 3)), np.ones((3, 2)), "transposed"),
        (np.ones((2, 1)), np.ones(2), "only axes of length 1 differ"),
        (np.ones((2, 6)), np.ones((3, 4)), "other axes"),
        (np.ones((3, 1)), np.ones((3, 4)), "sum over the axes along which the input was broadcast"),
        (np.ones(4), np.ones((3, 4)), "sum over the axes along which the input was broadcast"),
        (np.ones(3), np.float64(3), "reduced to one number"),
        (np.ones(3), np.ones(5), "Its shape is (5,), and needs to be (3,)"),
        ([1.0, 2.0], [np.nan, 2.0], "overflowed"),
        ([1.0, 2.0], [0.0, 0.0], "All of it is 0"),
        ([1.0, 2.0], [-1.0, -2.0], "The sign is wrong"),
        ([1.0, 2.0], [2.0, 4.0], "twice as large"),
        ([1.0, 2.0], [0.5, 1.0], "add up, do not overwrite"),
        (np.ones((3, 5)), np.ones((3, 5)) / 5, "divided by 5, the length of an axis"),
        (np.ones((3, 5)), np.ones((3, 5)) * 3, "times 3, the length of an axis"),
        ([1.0, 2.0], [1.7, 3.4], "1.7 times as large"),
        ([1.0, 2.0, 4.0], [1.5, 2.5, 4.5], "off by the same 0.5"),
        ([[1.0, 2.0], [3.0, 5.0]], [[1.0, 3.0], [2.0, 5.0]], "transposed"),
        ([1.0, 2.0, 5.0], [5.0, 1.0, 2.0], "right numbers at the wrong places"),
        ([1.0, 2.0, 5.0], [1.001, 2.0, 5.003], "within 1 %"),
        ([1.0, 2.0, 5.0], [1.0, 2.0, 9.0], "Only the last one"),
        ([1.0, 2.0, 5.0], [7.0, 2.0, 5.0], "Only the first one"),
        ([1.0, 2.0, 5.0], [1.0, 7.0, 9.0], "The first one is right"),
        (np.ones(2, np.float32), np.ones(2), "of type float64 instead of float32"),
    ],
)
def test_the_likely_cause_of_a_difference(expected, got, cause):
    assert cause in diagnosis.of_values(expected, got)


@pytest.mark.parametrize(
    ("expected", "got"), [("abc", "abd"), ([[1], [2, 3]], [1]), (object(), 1), ([1.0, 2.0], [3.0, 1.0]), (4.0, 2.0)]
)
def test_where_nothing_is_recognised_nothing_is_claimed(expected, got):
    assert diagnosis.of_values(expected, got) is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RecursionError("maximum"), "without end"),
        (UnboundLocalError("cannot access"), "before it gets a value"),
        (TypeError("unsupported operand type(s) for +: 'NoneType' and 'int'"), "a return missing"),
        (ValueError("assignment destination is read-only"), "not its own"),
        (ValueError("operands could not be broadcast together"), "Two shapes do not fit"),
        (RuntimeWarning("overflow encountered in exp"), "shift the numbers"),
    ],
)
def test_the_likely_cause_of_an_error(error, cause):
    assert cause in diagnosis.of_error(error)


def test_an_unknown_error_has_no_cause():
    assert diagnosis.of_error(KeyError("x")) is None


# ---- what is shown


def test_two_arrays_side_by_side_mark_what_differs():
    svg = heatmap.side_by_side(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 5.0]]))
    assert svg.count("<rect") == 1 + 8 and svg.count(heatmap.RED) == 1
    assert heatmap.side_by_side(np.ones(3), np.array([np.nan, np.inf, 1.0])).count(heatmap.RED) == 2


@pytest.mark.parametrize(
    ("expected", "got"),
    [(None, np.ones(3)), (np.ones(3), np.ones(4)), (np.ones((2, 2, 2)),) * 2, (np.ones(99),) * 2, (np.array("a"),) * 2],
)
def test_what_is_no_small_pair_of_arrays_has_no_picture(expected, got):
    assert heatmap.side_by_side(expected, got) is None


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_plain_text_fits_a_terminal_of_any_width(check, width):
    result = check("return x - y")
    prose = [line for line in messages.as_text(result, width).splitlines() if line.startswith("  test")]
    assert prose and all(len(line) <= max(width, 40) for line in prose)


def test_html_shows_code_as_text_and_not_as_html(check):
    result = check("print('<b>bold</b>')\n    return x - y")
    assert "&lt;b&gt;bold" in messages.as_html(result) and "<b>bold" not in messages.as_html(result)
