"""Builds: the whole package `tinytorch` with a student's answers, holes, or the reference at each exercise."""

import ast
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from . import holes
from .lessons import ROOT

PACKAGE = "tinytorch"
KEPT = 20  # builds in a workspace; older ones are removed


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
        shutil.copytree(root / PACKAGE, Path(made) / PACKAGE)  # with what is compiled: it stays valid
        for file, source in changed.items():
            path = Path(made) / file
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


def _name(changed, root):
    content = hashlib.sha256()
    for path in sorted((root / PACKAGE).rglob("*.py")):
        file = path.relative_to(root).as_posix()
        text = changed[file].encode() if file in changed else path.read_bytes()
        content.update(f"{file} {len(text)}\n".encode() + text)
    return content.hexdigest()[:16]


def _remove_old(folder):
    builds = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: -path.stat().st_mtime)
    for path in builds[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


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
