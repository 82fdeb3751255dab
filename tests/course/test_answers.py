"""What a student wrote is found, with what it uses, in cells and ledgers, and put into a ledger without loss."""

import functools
import math

import numpy as np
import pytest

from tinytorch_course import answers
from tinytorch_course.answers import Answer, AnswerError
from tinytorch_course.lessons import Exercise

RELU = Exercise("ex-02-1", "The rectifier", "tinytorch/activations.py", "relu", 1, "forward")
SUM = Exercise("ex-05-4", "The rule of a sum", "tinytorch/tensor/reductions.py", "Reductions.sum", 2)
CELL = """
@course.exercise("ex-02-1")
def relu(x):
    return np.maximum(x, 0)
"""
LEDGER = answers.HEADER.format(title="Activations", number="02")


def find(text, exercise=RELU, **settings):
    return answers.find(text, exercise, "the cell", **settings)


# ---- in a cell


def test_the_definition_below_the_decorator_is_the_answer():
    assert find(CELL) == Answer("ex-02-1", "def relu(x):\n    return np.maximum(x, 0)\n")


def test_of_several_the_last_one_counts_unless_a_line_says_which():
    twice = CELL + CELL.replace("0)", "1)")
    assert "maximum(x, 1)" in find(twice).text
    assert "maximum(x, 0)" in find(twice, line=3).text


def test_another_exercise_is_not_taken_for_it():
    assert find(CELL.replace("02-1", "02-2")) is None


def test_without_the_decorator_it_is_found_by_name_where_that_is_asked_for():
    bare = "def relu(x):\n    return x\n"
    assert find(bare) is None
    assert find(bare, by_name=True).text == bare
    assert find('@course.exercise("ex-99-9")\n' + bare, by_name=True) is None


def test_a_definition_of_another_name_is_refused():
    with pytest.raises(AnswerError, match="needs a definition of relu, but rectifier is under its name"):
        find(CELL.replace("def relu", "def rectifier"))


def test_what_is_no_python_says_the_line():
    with pytest.raises(AnswerError, match=r"the cell is not yet Python: line 2, .*\n +def relu\(x:"):
        find('@course.exercise("ex-02-1")\ndef relu(x:\n    return x\n')


def test_comments_and_formatting_of_the_definition_stay():
    body = "def relu(x):\n    # the larger one\n    return np.maximum( x,0 )  # of both\n"
    assert find(f'@course.exercise("ex-02-1")\n{body}').text == body


# ---- what it uses


def test_helpers_constants_and_allowed_imports_come_along_in_an_order_that_works():
    cell = (
        "import bisect\nimport os\nTWO = 2\ndef half(x):\n    return x / TWO\n\n"
        "def quarter(x):\n    return half(half(x)) * bisect.bisect([0], 0)\n\nunused = 3\n"
        + CELL.replace("np.maximum(x, 0)", "quarter(x)")
    )
    helpers = find(cell).helpers
    assert helpers.startswith("import bisect\n") and "import os" not in helpers and "unused" not in helpers
    space = {}
    exec(helpers + "\nresult = quarter(8)", space)
    assert space["result"] == 2


def test_names_of_the_file_are_not_taken_along():
    assert find("import numpy as np\n" + CELL).helpers == ""


def test_a_helper_with_a_name_that_the_file_has_is_refused():
    cell = "def stable_sigmoid(x):\n    return x\n" + CELL.replace("np.maximum(x, 0)", "stable_sigmoid(x)")
    with pytest.raises(AnswerError, match=r"helper called stable_sigmoid, but tinytorch/activations.py already has"):
        find(cell)


def test_helpers_that_stand_in_other_cells_are_found_the_newest_first():
    cells = ["TWO = 2\n", "%%time\nTWO = 7", "def half(x):\n    return x / TWO\n", "TWO = 3\n"]
    helpers = find(CELL.replace("np.maximum(x, 0)", "half(x)"), others=cells).helpers
    assert helpers == "TWO = 2\n\ndef half(x):\n    return x / TWO"


HELPERS = {
    "a number that has no name": "import math\nNEG = -math.inf",
    "numpy's": "NEG = -np.inf",
    "an import": "from math import inf as NEG",
    "a private module's function": "from functools import reduce as NEG",
    "a lambda": "NEG = lambda v: v",
    "with a type": "NEG: float = 0.5",
    "one of two": "NEG, POS = 0, 1",
    "a computed one": "import numpy as np\nTABLE = np.arange(3)\nNEG = TABLE.sum()",
    "a default of another": "ZERO = 0\ndef NEG(v, z=ZERO):\n    return v + z",
    "a class and its base": "class Base:\n    pass\nclass NEG(Base):\n    pass",
    "cached": "import functools\n@functools.lru_cache\ndef NEG():\n    return 1",
    "recursive": "def NEG(n):\n    return 1 if n < 2 else n * NEG(n - 1)",
    "a name that its lambda hides": "def clip(v):\n    return v\ndef NEG(v):\n    return (lambda clip: clip)(clip(v))",
    "one of python's names": "def abs(v):\n    return v\nNEG = abs",
}


@pytest.mark.parametrize("helper", HELPERS.values(), ids=HELPERS)
def test_every_kind_of_helper_comes_along_in_an_order_that_works(helper):
    cell = CELL.replace("np.maximum(x, 0)", "NEG")
    answer = find(cell, others=[helper])
    assert answers.problem(RELU, answer) is None
    space = {"np": np, "math": math, "functools": functools}  # the file has these
    exec(f"{answer.helpers}\nresult = NEG", space)
    assert "result" in space
    ledger = answers.with_answer(LEDGER, answer)
    assert find(ledger) == answer
    assert answers.with_answer(ledger, answer) == ledger


def test_what_was_computed_with_the_framework_does_not_go_into_it():
    answer = find(CELL.replace("np.maximum(x, 0)", "x + y"), others=["import tinytorch as tt\ny = tt.ones(2)"])
    assert "uses y, which" in answers.problem(RELU, answer)


def test_names_of_the_framework_are_not_imported_into_itself():
    with pytest.raises(
        AnswerError, match=r"would go round in a circle: write `import tinytorch as tt`, and tt\.Tensor"
    ):
        find(CELL.replace("np.maximum(x, 0)", "Tensor(x)"), others=["from tinytorch import Tensor"])


def test_a_helper_of_another_cell_with_a_name_that_the_file_has_is_refused_too():
    with pytest.raises(AnswerError, match="already has something of this name"):
        find(CELL.replace("np.maximum(x, 0)", "stable_sigmoid(x)"), others=["def stable_sigmoid(x):\n    return 0"])


def test_another_exercise_is_no_helper():
    other = '@course.exercise("ex-02-2")\ndef stable_sigmoid(x):\n    return 0'
    assert find(CELL.replace("np.maximum(x, 0)", "stable_sigmoid(x)"), others=[other]).helpers == ""


@pytest.mark.parametrize("decorator", ["functools.cache", "tt.no_grad()"])
def test_other_decorators_are_refused(decorator):
    with pytest.raises(AnswerError, match=r"leave only @course\.exercise there"):
        find(CELL.replace("def relu", f"@{decorator}\ndef relu"))


def test_the_frameworks_own_decorators_may_be_copied():
    assert find(CELL.replace("def relu", "@op\ndef relu")) == find(CELL)


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x1c", "\f"])
def test_separators_that_are_no_ends_of_line_for_python_change_nothing(separator):
    text = f"def relu(x):\n    # a{separator}b\n    return np.maximum(x, 0)\n"
    assert find(f'@course.exercise("ex-02-1")\n{text}').text == text


# ---- what keeps it from being tried


@pytest.mark.parametrize(
    ("exercise", "text", "says"),
    [
        (RELU, "def relu(x, y):\n    return x\n", r"needs the signature\n    relu\(x\)\nbut has\n    relu\(x, y\)"),
        (SUM, "def sum(x, dim=0, keepdim=False):\n    return x\n", r"dim=None, keepdim=False"),
        (RELU, "class relu:\n    pass\n", "needs to be a function"),
        (RELU, "def relu(x):\n    return np.maximun(slope * x, 0)\n", "uses slope, which tinytorch/activations.py"),
    ],
)
def test_a_problem_says_what_is_needed_and_what_came(exercise, text, says):
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(answers.problem(exercise, Answer(exercise.id, text)))


@pytest.mark.parametrize(
    "body",
    [
        "y = [i for i in range(3) for j in range(i)]\n    return y",
        "import math\n    return math.pi",
        "try:\n        return x\n    except ValueError as error:\n        return error",
        "def inner(a, *rest, **more):\n        return a, rest, more\n    return inner",
        "return (lambda a: a)(x)",
        "if (n := len(x)) > 1:\n        return n",
        "match x:\n        case [first, *others]:\n            return first, others",
        "return __name__, super",
    ],
)
def test_local_names_are_known(body):
    assert answers.problem(RELU, Answer(RELU.id, f"def relu(x):\n    {body}\n")) is None


def test_annotations_do_not_change_a_signature():
    assert answers.problem(RELU, Answer(RELU.id, "def relu(x: int) -> int:\n    return x\n")) is None


@pytest.mark.parametrize(
    ("text", "stub"),
    [
        ('def relu(x):\n    """Doc."""\n    # YOUR CODE HERE\n    raise NotImplementedError()\n', True),
        ("def relu(x):\n    raise NotImplementedError\n", True),
        ("class Cache:\n    def __init__(self, *args):\n        raise NotImplementedError()\n", True),
        ("def relu(x):\n    x = 1\n    raise NotImplementedError()\n", False),
        ("def relu(x):\n    raise ValueError()\n", False),
        ("class Cache:\n    def __init__(self):\n        self.n = 0\n", False),
    ],
)
def test_a_stub_is_known_by_its_body(text, stub):
    assert Answer("ex-02-1", text).is_stub is stub


# ---- in a ledger


def test_answers_are_appended_replaced_and_taken_out():
    first, second = find(CELL), Answer("ex-02-2", "def stable_sigmoid(x):\n    return x\n")
    ledger = answers.with_answer(answers.with_answer(LEDGER, first), second)
    assert find(ledger) == first
    changed = Answer("ex-02-1", "def relu(x):\n    return x\n")
    replaced = answers.with_answer(ledger, changed)
    assert replaced == ledger.replace(first.text, changed.text)
    assert answers.without_answer(ledger, "ex-02-2") == answers.with_answer(LEDGER, first)


def test_everything_else_in_a_ledger_stays_as_the_student_has_it():
    ledger = LEDGER + "\n# my notes: why?\n\n\n" + CELL.strip() + "  # so\n\n\nscratch = [1,2]\n"
    replaced = answers.with_answer(ledger, Answer("ex-02-1", "def relu(x):\n    return x\n"))
    assert "# my notes: why?" in replaced and "scratch = [1,2]" in replaced


def test_helpers_are_put_once_and_before_the_answers():
    helped = find(
        "import bisect\ndef half(x):\n    return bisect.a(x / 2)\n" + CELL.replace("np.maximum(x, 0)", "half(x)")
    )
    ledger = answers.with_answer(answers.with_answer(LEDGER, find(CELL)), helped)
    assert answers.with_answer(ledger, helped) == ledger
    assert ledger.count("def half") == ledger.count("import bisect") == 1
    assert find(ledger) == helped
    other = Answer("ex-02-1", helped.text, helped.helpers.replace("/ 2", "/ 3"))
    assert find(answers.with_answer(ledger, other)) == other


def test_an_answer_that_stands_twice_is_replaced_once_and_the_other_one_goes():
    ledger = LEDGER + CELL + CELL
    assert answers.with_answer(ledger, find(CELL)).count("ex-02-1") == 1


def test_a_version_is_the_text_and_its_helpers():
    assert find(CELL).version == find(CELL).version != find(CELL.replace("0)", "1)")).version
    helped = Answer("ex-02-1", find(CELL).text, "TWO = 2")
    assert helped.version != find(CELL).version
