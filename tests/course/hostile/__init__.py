"""Hostile answers, and the submissions that they are handed in as.

The functions in `endings`, `surroundings`, `cheats` and `thefts` are never imported and never called: the body of each
is put below the signature of an exercise. Statements without `@attack` beside them, and those in `helpers`, go along.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

SIGNATURES = {  # exercises of lesson 05, and how an answer to them begins
    "ex-05-1": "def __add__(x, y):\n",
    "ex-05-2": "def __mul__(x, y):\n",
    "ex-05-5": "def accumulate_grad(self, g):\n",
    "ex-05-6": "def unbroadcast(g, shape):\n",
}
NEIGHBOUR = "ex-05-3"
HONEST = f"""

@course.exercise("{NEIGHBOUR}")
def relu(x):
    return np.maximum(x, 0), lambda g: np.where(x > 0, g, 0)  # belongs to {{student}}
"""
HEAD = "import contextlib\n\nimport numpy as np\n\nimport tinytorch_course as course\n"


def attack(*statuses, says="", constant="", strict=None):
    """Marks a function as an answer that attacks.

    statuses: what the exercise may come to; strict: with --strict, where that is something else. says: a part of the
    message. constant: what CONSTANT is, as text; it is worked out when the answer is imported.
    """
    return lambda function: function


@dataclass(frozen=True)
class Attack:
    """One of them. arguments: the names that its body uses; an attack without any fits every signature."""

    name: str
    arguments: str
    body: str
    statuses: tuple
    says: str = ""
    constant: str = ""
    strict: tuple = ()

    def exercises(self):
        """Those whose answer it can be."""
        return [id for id, signature in SIGNATURES.items() if f"({self.arguments}" in signature]


def read(name):
    """(the Attacks, the text of their helpers) in a file beside this one."""
    text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    attacks, helpers, lines = [], [], text.splitlines(keepends=True)
    for node in ast.parse(text).body[1:]:
        decorator = next(iter(getattr(node, "decorator_list", ())), None)
        if decorator:
            given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords}
            body = "".join(lines[node.body[0].lineno - 1 : node.end_lineno])
            statuses = tuple(map(ast.literal_eval, decorator.args))
            attacks.append(Attack(node.name, ast.unparse(node.args), body, statuses, **given))
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            helpers.append("".join(lines[node.lineno - 1 : node.end_lineno]))
    return attacks, "\n\n".join(helpers)


def submissions(name, only=None, **constants):
    """Yield (student, text of a .py file, {exercise: Attack}): the attacks in a file, some at a time, and a neighbour.

    only: names of attacks; without, all of the file. constants: the values of those that are None in the file.
    """
    waiting, helpers = read(name)
    waiting = [one for one in waiting if only is None or one.name in only]
    helpers = f"{read('helpers')[1]}\n\n{helpers}"
    for constant, value in constants.items():
        helpers = helpers.replace(f"{constant} = None", f"{constant} = {value!r}")
    number = 0
    while waiting:
        chosen = {}
        for one in list(waiting):
            if free := [id for id in one.exercises() if id not in chosen]:
                chosen[free[-1]] = one
                waiting.remove(one)
        number += 1
        student = f"{name}_{number}"
        answers = [_answer(id, one) for id, one in chosen.items()]
        text = HEAD + helpers.replace("STUDENT = None", f"STUDENT = {student!r}") + "".join(answers)
        yield student, text + HONEST.format(student=student), chosen


def _answer(id, one):
    own = f"CONSTANT_{id[-1]}"
    before = f"\n\n{own} = {one.constant}\n" if one.constant else ""
    return f'{before}\n\n@course.exercise("{id}")\n{SIGNATURES[id]}{one.body.replace("CONSTANT", own)}'
