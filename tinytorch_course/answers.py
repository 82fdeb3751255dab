"""Answers: what a student wrote for an exercise, and the ledger, the plain Python file in which it is kept.

A ledger holds functions under `@course.exercise("ex-05-2")`, and beside them the helper functions, constants and
imports that these use. It is only read, never run: what an exercise needs is taken out of it by name.
"""

import ast
import builtins
import functools
import hashlib
import symtable
from dataclasses import dataclass

from . import holes

ALLOWED = {
    "bisect", "collections", "contextlib", "copy", "dataclasses", "functools", "heapq", "itertools", "json", "math",
    "numpy", "operator", "random", "re", "statistics", "string", "time", "tinytorch", "typing", "warnings",
}  # fmt: skip
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
KEPT = {
    "op",
    "numpy_names",
    "staticmethod",
    "classmethod",
    "property",
}  # decorators of the framework, as copied from it
HEADER = '''"""{title}: what you wrote in lesson {number}. The notebook saves here; any editor may."""

import tinytorch_course as course
'''


class AnswerError(ValueError):
    """A student's text that cannot be used, with the reason and the likely fix."""


@dataclass(frozen=True)
class Answer:
    """What a student wrote for one exercise: the text of the function or class, and of the helpers that it uses."""

    exercise: str
    text: str
    helpers: str = ""

    @property
    def version(self):
        """A name for exactly this text."""
        return hashlib.sha256(self.entry.encode()).hexdigest()[:12]

    @property
    def entry(self):
        """How it stands in a ledger."""
        before = f"{self.helpers}\n\n" if self.helpers else ""
        return f'{before}@course.exercise("{self.exercise}")\n{self.text}'

    @property
    def is_stub(self):
        """Whether nothing was written yet: below the docstring there is only the NotImplementedError."""
        return _is_stub(ast.parse(self.text).body[0])


def _is_stub(node):
    body = node.body[1:] if ast.get_docstring(node) else node.body
    if isinstance(node, ast.ClassDef):
        return len(body) == 1 and isinstance(body[0], ast.FunctionDef) and _is_stub(body[0])
    raised = body[0].exc if len(body) == 1 and isinstance(body[0], ast.Raise) else None
    return getattr(getattr(raised, "func", raised), "id", None) == "NotImplementedError"


def parse(text, where, above=0):
    """The syntax tree. Raises AnswerError, with the line (counted with those above the text) and what Python says."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        line = (error.text or "").strip()[:200]
        raise AnswerError(
            f"{where} is not yet Python: line {error.lineno + above}, {error.msg}.\n    {line}"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; thousands of nested parentheses
        raise AnswerError(f"{where} is no text that Python can read: {error}.") from error


def fault(text, where, above=0):
    """Why a text is no Python, as a sentence; None where it is."""
    try:
        parse(text, where, above)
    except AnswerError as error:
        return str(error)


def exercise_of(node):
    """The id in `@course.exercise("ex-05-2")` above a definition, or None."""
    for decorator in getattr(node, "decorator_list", ()):
        if isinstance(decorator, ast.Call) and len(decorator.args) == 1:
            name = getattr(decorator.func, "attr", getattr(decorator.func, "id", None))
            if name == "exercise" and isinstance(decorator.args[0], ast.Constant):
                return decorator.args[0].value
    return None


def find(text, exercise, where, by_name=False, others=(), line=None):
    """The answer to an exercise in a text (a ledger, or a cell), or None. The last of several counts.

    by_name: also take a definition without the decorator that has the exercise's name.
    others: texts in which helpers may stand, too, the newest first.
    line: the number of a line of the one that is meant, where the text has several.
    Raises AnswerError for what is no Python, and for what cannot be the exercise's function or class.
    """
    tree = parse(text, where)
    found = [node for node in tree.body if exercise_of(node) == exercise.id]
    if not found and by_name:
        bare = [node for node in tree.body if isinstance(node, DEFINITIONS) and not exercise_of(node)]
        found = [node for node in bare if node.name == exercise.name]
    if not found:
        return None
    node = next((node for node in found if line and _span(node).start < line <= _span(node).stop), found[-1])
    if node.name != exercise.name:
        raise AnswerError(f"{exercise.id} needs a definition of {exercise.name}, but {node.name} is under its name.")
    strange = {ast.unparse(decorator) for decorator in node.decorator_list if not _is_course(decorator)} - KEPT
    if strange:
        raise AnswerError(
            f"{exercise.id} has the decorator {', '.join(sorted(strange))}. The framework keeps its own decorators "
            f"above {exercise.name}: leave only @course.exercise there."
        )
    own = "".join(holes.split_lines(text)[node.lineno - 1 : node.end_lineno]).rstrip("\n") + "\n"
    return Answer(exercise.id, own, _helpers(own, exercise, [text, *others]))


def _is_course(decorator):
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "exercise"


def _helpers(own, exercise, texts):
    """The text of what an answer uses and the exercise's file does not know, each after what it uses itself."""
    known, seen, order = names_of(exercise.source()), {exercise.name}, []

    def visit(name):
        if name in seen:
            return
        seen.add(name)
        statement, segment = _provided(name, texts)
        defined = isinstance(statement, DEFINITIONS)
        if name in known and defined:
            raise AnswerError(
                f"{exercise.id} uses a helper called {name}, but {exercise.file} already has something of this name. "
                "Give the helper another one."
            )
        if statement is None or name in known or (name in dir(builtins) and not defined):
            return
        if isinstance(statement, ast.ImportFrom) and statement.module.split(".")[0] == "tinytorch":
            raise AnswerError(
                f"{exercise.id} uses {name} of `{segment.strip()}`. In the framework's own files that would go "
                f"round in a circle: write `import tinytorch as tt`, and tt.{name} inside the function."
            )
        if not isinstance(statement, DEFINITIONS) and _free(segment) & {"tt", "tinytorch"}:
            return  # a value that was computed in the notebook, with the framework that is being written
        for other in sorted(_free(segment)):
            visit(other)
        if segment not in order:
            order.append(segment)

    for name in sorted(_free(own)):
        visit(name)
    return "\n".join(order).rstrip("\n")


def _provided(name, texts):
    """The newest statement that makes a name, and its text; (None, "") where there is none."""
    for text in texts:
        for statement in reversed(_statements(text)):
            if not exercise_of(statement) and name in _provides(statement):
                return statement, _segment(holes.split_lines(text), statement)
    return None, ""


@functools.lru_cache(maxsize=1000)  # the cells of a notebook are gone through for each name
def _statements(text):
    """The statements of a text, none where it is no Python."""
    try:
        return parse(text, "").body
    except AnswerError:
        return []


def _provides(statement):
    """The names that a statement makes, of those that may be carried over."""
    if isinstance(statement, DEFINITIONS):
        return [statement.name]
    if isinstance(statement, ast.Import):
        return [a.asname or a.name for a in statement.names if a.name.split(".")[0] in ALLOWED]
    if isinstance(statement, ast.ImportFrom):
        allowed = (statement.module or "").split(".")[0] in ALLOWED
        return [a.asname or a.name for a in statement.names] if allowed else []
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) and statement.value else targets
    parts = [part for t in targets for part in (t.elts if isinstance(t, (ast.Tuple, ast.List)) else [t])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _free(text):
    """The names that a text uses and does not make itself, as Python's own compiler sees them."""
    used, made, waiting = set(), set(), [symtable.symtable(text, "<text>", "exec")]
    top = waiting[0]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for symbol in table.get_symbols():
            if table is top or symbol.is_global():
                used |= {symbol.get_name()} if symbol.is_referenced() else set()
                made |= {symbol.get_name()} if symbol.is_assigned() or symbol.is_imported() else set()
    return used - made


def names_of(source):
    """What a file defines at its top level: functions, classes, constants and imports."""
    names = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, DEFINITIONS):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        else:
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def problem(exercise, answer):
    """What keeps an answer from being tried, as a sentence with the likely fix; None where nothing does."""
    written, wanted = (holes.find(text, exercise.name) for text in (answer.text, exercise.solution()))
    if type(written) is not type(wanted):
        kind = "class" if isinstance(wanted, ast.ClassDef) else "function"
        return f"{exercise.name} needs to be a {kind}."
    if isinstance(wanted, ast.FunctionDef):
        came, needed = signature(written), signature(wanted)
        if came != needed:
            return f"{exercise.name} needs the signature\n    {needed}\nbut has\n    {came}"
    helpers = names_of(answer.helpers) if answer.helpers else set()
    known = helpers | names_of(exercise.source()) | set(dir(builtins)) | {exercise.name, "__class__", "__file__"}
    unknown = sorted(_free(answer.text) - known)
    if unknown:
        some = ", ".join(unknown)
        return (
            f"{exercise.name} uses {some}, which {exercise.file} does not know. Is it misspelled? If it comes from the "
            "notebook, pass it in, compute it inside the function, or make it a helper function or a constant."
        )
    return None


def signature(node):
    """`name(arguments)` of a function's node, without annotations."""
    bare = ast.parse(f"def bare({ast.unparse(node.args)}): pass").body[0]  # without the body, which may be deep
    for argument in ast.walk(bare.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"{node.name}({ast.unparse(bare.args)})"


def with_answer(ledger, answer):
    """The ledger's text with this answer in the place of the old one, or behind all others."""
    for names, segment in segments(answer.helpers):
        ledger = _with_helper(ledger, names, segment)
    lines, spans = holes.split_lines(ledger), _spans(ledger, answer.exercise)
    entry = f'@course.exercise("{answer.exercise}")\n{answer.text}'
    if not spans:
        return f"{ledger.rstrip()}\n\n\n{entry}"
    lines[spans[-1]] = [entry]
    return without_lines(lines, spans[:-1])


def without_answer(ledger, id):
    """The ledger's text without what was written for an exercise."""
    return without_lines(holes.split_lines(ledger), _spans(ledger, id)).rstrip() + "\n"


def without_lines(lines, spans):
    for span in reversed(spans):
        del lines[span]
    return "".join(lines)


def _spans(ledger, id):
    """Where the definitions of an exercise stand, as slices of the ledger's lines."""
    return [_span(node) for node in parse(ledger, "The file of your answers").body if exercise_of(node) == id]


def _span(node):
    """The lines of a statement with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    return slice(first - 1, node.end_lineno)


def _segment(lines, statement):
    return "".join(lines[_span(statement)]).rstrip("\n") + "\n"


def segments(helpers):
    """(names, text) of each helper."""
    lines = holes.split_lines(helpers)
    return [(_provides(statement), _segment(lines, statement)) for statement in ast.parse(helpers).body]


def _with_helper(ledger, names, segment):
    """The ledger with a helper: in the place of the one of its name, or before the first answer."""
    lines, body = holes.split_lines(ledger), ast.parse(ledger).body
    for statement in body:
        if not exercise_of(statement) and set(names) & set(_provides(statement)):
            lines[_span(statement)] = [segment]
            return "".join(lines)
    if segment.startswith(("import ", "from ")):
        imports = [statement for statement in body if isinstance(statement, (ast.Import, ast.ImportFrom))]
        lines.insert(imports[-1].end_lineno if imports else 0, segment)
        return "".join(lines)
    places = [_span(statement).start for statement in body if exercise_of(statement)]
    if not places:
        return f"{ledger.rstrip()}\n\n\n{segment}"
    lines.insert(places[0], f"{segment}\n\n")
    return "".join(lines)
