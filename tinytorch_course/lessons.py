"""Lessons: the exercises of each module, as `modules/NN_name/lesson.toml` names them."""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from . import holes

ROOT = Path(__file__).parents[1]  # the folder of modules/ and tinytorch/
STAGES = (None, "forward")


class LessonError(ValueError):
    """A lesson.toml that does not say what it must."""


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer: the whole function, as a student would hand it in.

    `message` is what is said to a student whose answer fails in the same way.
    """

    name: str
    code: str
    message: str = ""


@dataclass(frozen=True)
class Exercise:
    """One hole. `file` and `qualname` say where; `stage` "forward" asks for an operation's output without its rule.

    `hints` go from a nudge to a recipe.
    """

    id: str
    title: str
    file: str
    qualname: str
    points: int
    stage: str | None = None
    wrong: tuple = ()
    hints: tuple = ()

    @property
    def name(self):
        """What the function is called where it is defined: `__add__` of `Arithmetic.__add__`."""
        return self.qualname.rpartition(".")[2]

    @property
    def lesson(self):
        """The number of its module, "05" of "ex-05-2"."""
        return self.id.split("-")[1]

    @property
    def target(self):
        return f"{self.file}::{self.qualname}"

    @property
    def message(self):
        """What the hole says."""
        return f"{self.id}: {self.qualname} is yours to write."

    def source(self, root=ROOT):
        return (root / self.file).read_text(encoding="utf-8")

    def with_hole(self, source):
        """The source of the file, with the target cut out of it."""
        return holes.cut(source, self.qualname, f'raise NotImplementedError("{self.message}")')

    def hole(self, root=ROOT):
        """The text of the function or class with nothing in it, at the left margin."""
        return holes.extract(self.with_hole(self.source(root)), self.qualname)

    def solution(self, root=ROOT):
        """The reference's text of the function or class, at the left margin."""
        stage = holes.forward_only if self.stage == "forward" else holes.extract
        return stage(self.source(root), self.qualname)


@dataclass(frozen=True)
class Lesson:
    """One module of the course. `requires` are the numbers of the modules that come before it."""

    folder: str
    title: str
    requires: tuple
    exercises: tuple

    @property
    def number(self):
        return self.folder[:2]

    def prose(self, root=ROOT):
        """The text of lesson.md."""
        return (root / "modules" / self.folder / "lesson.md").read_text(encoding="utf-8")


def read_lessons(root=ROOT):
    """All lessons of a checkout, in the order of their numbers."""
    return [read_lesson(path) for path in sorted((root / "modules").glob("[0-9][0-9]_*/lesson.toml"))]


def lessons_of(lessons, names):
    """The lessons of numbers and ranges: ["01-04", "07"]. Raises LessonError for what there is not."""
    known = {lesson.number: lesson for lesson in lessons}
    found = []
    for name in names:
        first, _, last = name.partition("-") if name[:2].isdecimal() else (name, "", "")
        first, last = first[:2], (last or first)[:2]
        named = [lesson for number, lesson in known.items() if first <= number <= last]
        if not named or first not in known or last not in known:
            raise LessonError(f"There is no lesson {name!r}. There are {', '.join(known)}; 01-04 is the first four.")
        found += named
    return found


def read_lesson(path):
    """The lesson that a file describes. Raises LessonError, naming the file and what is wrong in it."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LessonError(f"{path} cannot be read as TOML: {error}.") from error
    _require_keys(path, "the lesson", content, {"title": str, "requires": list, "exercise": list}, {})
    exercises = tuple(_exercise(path, given) for given in content["exercise"])
    return Lesson(path.parent.name, content["title"], tuple(content["requires"]), exercises)


def _exercise(path, given):
    what = f"exercise {given.get('id', 'without id')}"
    optional = {"stage": str, "wrong": list, "hints": list}
    _require_keys(path, what, given, {"id": str, "title": str, "target": str, "points": int}, optional)
    prefix = f"ex-{path.parent.name[:2]}-"
    if not (given["id"].startswith(prefix) and given["id"].removeprefix(prefix).isdecimal()):
        raise LessonError(f"{path}: {what} needs an id of this module, such as {prefix}1.")
    file, separator, qualname = given["target"].partition("::")
    if not (separator and file.endswith(".py") and qualname):
        raise LessonError(f"{path}: {what} needs a target such as tinytorch/file.py::name, not {given['target']!r}.")
    if not 1 <= given["points"] <= 5:
        raise LessonError(f"{path}: {what} needs 1 to 5 points, but has {given['points']}.")
    if given.get("stage") not in STAGES:
        raise LessonError(f"{path}: {what} needs stage 'forward' or none, but has {given['stage']!r}.")
    wrong = tuple(_wrong(path, what, answer, qualname) for answer in given.get("wrong", ()))
    hints = tuple(given.get("hints", ()))
    if not all(isinstance(hint, str) and hint.strip() for hint in hints):
        raise LessonError(f"{path}: {what} needs hints that are sentences.")
    return Exercise(given["id"], given["title"], file, qualname, given["points"], given.get("stage"), wrong, hints)


def _wrong(path, what, answer, qualname):
    what = f"a wrong answer of {what}"
    _require_keys(path, what, answer, {"name": str, "code": str}, {"message": str})
    name = qualname.rpartition(".")[2]
    try:
        defined = [getattr(node, "name", None) for node in ast.parse(answer["code"]).body]
    except SyntaxError as error:
        raise LessonError(f"{path}: {what}, {answer['name']!r}, is no Python: {error}.") from error
    if defined != [name]:
        raise LessonError(f"{path}: {what}, {answer['name']!r}, needs to define {name} and nothing else.")
    return Wrong(answer["name"], answer["code"], answer.get("message", ""))


def _require_keys(path, what, given, needed, optional):
    for name, kind in needed.items():
        if not isinstance(given.get(name), kind):
            raise LessonError(f"{path}: {what} needs {name}, of type {kind.__name__}.")
    known = needed | optional
    for name, value in given.items():
        if name not in known:
            raise LessonError(f"{path}: {what} has {name!r}, which means nothing here. Known are {sorted(known)}.")
        if not isinstance(value, known[name]):
            raise LessonError(f"{path}: {what} needs {name} of type {known[name].__name__}.")
