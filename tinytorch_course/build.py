"""Builds: the whole package `tinytorch` with a student's answers, holes, or the reference at each exercise."""

import ast
import contextlib
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import holes
from .answers import Answer, AnswerError, problem, segments
from .lessons import ROOT

PACKAGE = "tinytorch"
KEPT = 20  # builds in a workspace; older ones are removed
A_DAY = 24 * 3600  # seconds


def spliced(source, exercise, answer):
    """The source of the exercise's file with the answer in its place, and its helpers above."""
    source = holes.splice(source, exercise.qualname, answer.text)
    if not answer.helpers:
        return source
    outermost = exercise.qualname.partition(".")[0]
    node = holes.find(source, outermost)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = holes.split_lines(source)
    lines.insert(first - 1, f"{answer.helpers}\n\n\n")
    return "".join(lines)


def write(changed, folder, root=ROOT):
    """Make a package in which some files differ from the reference: `folder`/<hash>/tinytorch. Returns `folder`/<hash>.

    changed: {"tinytorch/file.py": source}. The same content is made once.
    """
    place = Path(folder) / _name(changed, root)
    if place.exists():
        os.utime(place)
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as made:
        try:  # with what is compiled: it stays valid
            shutil.copytree(root / PACKAGE, Path(made) / PACKAGE, ignore=shutil.ignore_patterns(".*"))
        except shutil.Error as error:
            raise OSError(f"{folder} has no room for a build of the framework: {error.args[0][0][2]}.") from error
        for file, source in changed.items():
            path = Path(made) / file
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                compiled.unlink()  # it holds what was changed
            path.unlink()  # not written into: what is compiled is only taken as fresh for the old one's time
            path.write_text(source, encoding="utf-8", newline="\n")
        whole = Path(made) / "whole"
        whole.mkdir()
        os.rename(Path(made) / PACKAGE, whole / PACKAGE)
        try:
            os.rename(whole, place)
        except OSError:  # made at the same time by another process
            if not place.exists():
                raise
    _remove_old(place.parent)
    return place


def import_from(package):
    """Import `package`/tinytorch in the place of any other one. Returns `package`.

    Raises what importing it raises, and ImportError where it came from elsewhere; then none is imported.
    """
    forget_imported()
    sys.path.insert(0, str(package))
    try:
        imported = importlib.import_module(PACKAGE).__file__
        if not Path(imported).is_relative_to(package):
            raise ImportError(f"{PACKAGE} came from {imported}, and not from {package}")
    except BaseException:
        sys.path.remove(str(package))
        forget_imported()
        raise
    return package


def forget_imported():
    """Make Python import tinytorch anew the next time."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def sources(root=ROOT):
    """{file: source} of the reference."""
    paths = sorted((root / PACKAGE).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _name(changed, root):
    content = hashlib.sha256()
    for file, text in (sources(root) | changed).items():
        content.update(f"{file} {len(text)}\n{text}".encode())
    return content.hexdigest()[:16]


def _remove_old(folder):
    """Remove builds that were not used for long, and what killed processes left. Others may be doing the same."""
    used = sorted(((_last_use(path), path) for path in folder.iterdir()), reverse=True)
    builds = [path for _, path in used if path.name[0] != "."]
    left = [path for when, path in used if path.name[0] == "." and time.time() - when > A_DAY]
    for path in builds[KEPT:] + left:
        shutil.rmtree(path, ignore_errors=True)


def _last_use(path):
    """When a build was used last, or now where somebody has just removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


# ---- the build of a submission


def of_submission(answers_, lessons, upto, root=ROOT):
    """({file: source}, the exercises that are the student's in it, notes); everything else is the reference.

    answers_: {exercise: Answer}. upto: the number of the last lesson; exercises of later ones do not count.
    """
    changed, usable, notes = {}, {}, []
    newest = {e.target: e for lesson in lessons if lesson.number <= upto for e in lesson.exercises}
    for exercise in newest.values():
        if answer := answers_.get(exercise):
            wrong = problem(exercise, answer)
            if wrong:
                notes.append(f"{exercise.id}: {wrong}")
            else:
                usable[exercise] = answer
    chosen = _without_clashes(usable, [])
    notes += [
        f"{e.id}: a helper has the name of another exercise's, with another text" for e in usable if e not in chosen
    ]
    for exercise, answer in chosen.items():
        changed[exercise.file] = spliced(changed.get(exercise.file, exercise.source(root)), exercise, answer)
    return changed, list(chosen), notes


# ---- the builds of a workspace


def to_check(workspace, exercise, answer):
    """The package in which an answer is tried: beside it, what passed up to its lesson, and else the reference."""
    return _write_for(
        workspace, _changed(workspace, lambda other: answer if other == exercise else None, exercise.lesson)
    )


def of_lesson(workspace, number, without_answers=False):
    """The package to work with in a lesson: its answers as they are, and holes where there are none yet.

    without_answers: holes everywhere in the lesson.
    """
    choose = _as_written(workspace, {number})
    if without_answers:
        choose = lambda exercise: unwritten(workspace, exercise) if exercise.lesson == number else None
    return _write_for(workspace, _changed(workspace, choose, number))


def of_work(workspace):
    """The same for all lessons that were begun."""
    begun = {lesson.number for lesson in workspace.lessons if workspace.ledger(lesson).exists()}
    return _write_for(workspace, _changed(workspace, _as_written(workspace, begun), max(begun, default="")))


def of_all(workspace):
    """The package for everything else: all that passed, and the reference for what did not."""
    return _write_for(workspace, _changed_by_all(workspace))


def share(workspace):
    """(lines of code that are the student's, lines of code of the framework that runs)."""
    progress, own = workspace.progress(), 0
    for exercise in {e.target: e for lesson in workspace.lessons for e in lesson.exercises}.values():
        answer = workspace.passing(exercise, progress)
        own += lines_of_code(f"{answer.helpers}\n{answer.text}") if answer else 0
    return own, sum(map(lines_of_code, (sources(workspace.root) | _changed_by_all(workspace)).values()))


def unwritten(workspace, exercise):
    """What runs in a lesson while an exercise is open: a hole, or what an earlier lesson made of it."""
    earlier = [
        other
        for lesson in workspace.lessons
        for other in lesson.exercises
        if other.target == exercise.target and lesson.number < exercise.lesson
    ]
    if not earlier:
        return Answer(exercise.id, exercise.hole(workspace.root))
    without_rule = holes.forward_only(exercise.source(workspace.root), exercise.qualname)
    return workspace.passing(earlier[-1]) or Answer(exercise.id, without_rule)


def _as_written(workspace, numbers):
    """For `_changed`: in these lessons the answer as it is, or what runs while there is none."""

    def choose(exercise):
        if exercise.lesson not in numbers:
            return None
        with contextlib.suppress(AnswerError):
            answer = workspace.answer(exercise)
            if answer and problem(exercise, answer) is None:
                return answer
        return unwritten(workspace, exercise)

    return choose


def _changed_by_all(workspace):
    return _changed(workspace, lambda exercise: None, workspace.lessons[-1].number)


def _changed(workspace, choose, upto):
    """{file: source} of what differs from the reference.

    choose(exercise): an Answer, or None for the one that passed, or else the reference.
    """
    progress, changed = workspace.progress(), {}
    newest = {  # of several exercises on one target, the last one up to this lesson counts
        exercise.target: exercise
        for lesson in workspace.lessons
        for exercise in lesson.exercises
        if lesson.number <= upto
    }
    chosen = {exercise: choose(exercise) for exercise in newest.values()}
    passed = {exercise: workspace.passing(exercise, progress) for exercise in chosen if chosen[exercise] is None}
    for exercise, answer in _without_clashes(chosen | passed, [e for e in chosen if chosen[e]]).items():
        source = changed.get(exercise.file, exercise.source(workspace.root))
        changed[exercise.file] = spliced(source, exercise, answer)
    return changed


def _without_clashes(answers_, first):
    """The answers, less those with a helper of the name of another one's in the same file; `first` come first."""
    helpers, kept = {}, {}
    for exercise in sorted(answers_, key=lambda exercise: exercise not in first):
        if answer := answers_[exercise]:
            own = {(exercise.file, name): text for names, text in segments(answer.helpers) for name in names}
            if all(helpers.get(key, text) == text for key, text in own.items()):
                helpers |= own
                kept[exercise] = answer
    return {exercise: kept[exercise] for exercise in answers_ if exercise in kept}


def _write_for(workspace, changed):
    return write(changed, workspace.builds, workspace.root)


def lines_of_code(source):
    """How many lines of a file are code: not empty, no comments, no docstrings."""
    tree, lines = ast.parse(source), set()
    documented = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    docstrings = {id(n.body[0]) for n in ast.walk(tree) if isinstance(n, documented) and ast.get_docstring(n)}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and id(node) not in docstrings:
            lines |= set(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(tree):
        if id(node) in docstrings:
            lines -= set(range(node.lineno, node.end_lineno + 1))
    text = holes.split_lines(source)
    return sum(1 for number in lines if (line := text[number - 1].strip()) and not line.startswith("#"))
