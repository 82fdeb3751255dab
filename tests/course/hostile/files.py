"""Submissions that attack whoever reads them, by what they are rather than by what they do.

Each function makes one below a folder, and returns its name there. submission(score, says): the points that it gets
with --strict, and a part of what is said of it.
"""

import io
import json
import os
import zipfile

from tinytorch_course.lessons import ROOT

from . import HEAD, HONEST, NEIGHBOUR

ANSWER = HEAD + HONEST.format(student="nobody")
MUL = '\n\n@course.exercise("ex-05-2")\ndef __mul__(x, y):\n    '
RIGHT = "return x * y, (lambda g: g * y, lambda g: g * x)\n"
MADE = {}  # {name of a function: (function, score, says)}


def submission(score, says=""):
    """Decorator: the function makes a submission."""
    return lambda function: MADE.setdefault(function.__name__, (function, score, says))[0]


def python(folder, name, text=ANSWER):
    """Write a file, text or bytes; returns its name."""
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    return name


def notebook(*cells):
    return json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]})


def zipped(*entries):
    """The bytes of a zip of (name or ZipInfo, content)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def linked(target, number):
    """An entry of a zip that is a link."""
    entry = zipfile.ZipInfo(f"{number}/05_autograd.py")
    entry.external_attr = 0o120777 << 16
    return entry, str(target)


# ---- zips


@submission(1, "is larger than 5 MB")
def zip_with_a_bomb(folder):
    return python(folder, "bomb.zip", zipped(("bomb.py", bytes(200_000_000)), ("05.py", ANSWER)))


@submission(1)
def zip_in_zips(folder):
    content = zipped(("bomb.py", bytes(20_000_000)))
    for _ in range(20):
        content = zipped(("more.zip", content), ("05.py", ANSWER))
    return python(folder, "nested.zip", content)


@submission(1)
def zip_of_100000_entries(folder):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("05.py", ANSWER)
        archive.writestr("notes.txt", "")
        archive.filelist += archive.filelist[1:] * 100_000  # the same file, named again and again
    return python(folder, "entries.zip", content.getvalue())


@submission(1)
def zip_with_paths_to_elsewhere(folder):
    names = ["../../hostile.py", "/tmp/hostile.py", "C:\\hostile.py", "a/../../hostile.py", "con.py", "05.py"]
    return python(folder, "paths.zip", zipped(*((name, ANSWER) for name in names)))


@submission(0)
def zip_with_links(folder):
    return python(folder, "links.zip", zipped(linked("/etc/passwd", 1), linked("../honest.py", 2)))


@submission(0, "cannot be read as a zip")
def zip_that_is_cut_off(folder):
    return python(folder, "cut.zip", zipped(("05.py", ANSWER))[:-30])


@submission(0, "cannot be read as a zip")
def zip_with_a_password(folder):
    content = bytearray(zipped(("05.py", ANSWER)))
    for header, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + place] |= 1
    return python(folder, "password.zip", bytes(content))


@submission(0, "be read")
def zip_with_a_name_in_no_encoding(folder):
    content = zipped(("\N{GREEK SMALL LETTER PI}.py", ANSWER))
    return python(folder, "encoding.zip", content.replace("\N{GREEK SMALL LETTER PI}".encode(), b"\xff\xff"))


# ---- files


@submission(1)
def notebook_of_10000_cells(folder):
    return python(folder, "cells.ipynb", notebook(*["x = 1"] * 10_000, ANSWER))


@submission(0, "is larger than 5 MB")
def notebook_of_100_mb(folder):
    os.truncate(os.path.join(folder, python(folder, "large.ipynb", "{")), 100_000_000)
    return "large.ipynb"


@submission(0, "cannot be read")
def notebook_that_is_nested(folder):
    return python(folder, "nested.ipynb", "[" * 100_000)


@submission(1)
def notebook_with_half_a_character(folder):
    return python(folder, "surrogate.ipynb", notebook('x = "\ud800"', ANSWER))


@submission(0, "cannot be read")
def text_in_utf_16(folder):
    return python(folder, "utf16.py", ANSWER.encode("utf-16"))


@submission(0)
def text_of_null_bytes(folder):
    return python(folder, "null.py", bytes(1000))


@submission(0, "cannot be read")
def text_in_latin_1(folder):
    return python(folder, "latin1.py", f"# \xe9\n{ANSWER}".encode("latin-1"))


@submission(0, "is no submission")
def letter(folder):
    return python(folder, "letter.pdf", "%PDF")


@submission(1)
def nested_parentheses(folder):
    return python(folder, "parentheses.py", f"{ANSWER}{MUL}return {'(' * 10_000}{')' * 10_000}\n")


@submission(1)
def long_sum(folder):
    return python(folder, "sum.py", f"{ANSWER}{MUL}return {'1+' * 2_400_000}1\n")


@submission(1)
def sum_that_is_just_short_enough(folder):
    return python(folder, "deep.py", f"{ANSWER}{MUL}return x{'.a' * 900}{'+1' * 900}{'(' * 150}{')' * 150}\n")


@submission(1)
def long_name(folder):
    return python(folder, "name.py", f"{ANSWER}{MUL}{'x' * 1_000_000} = 1\n    return x\n")


@submission(2)
def many_definitions(folder):
    return python(folder, "many.py", ANSWER + f"{MUL}return 1\n" * 5000 + MUL + RIGHT)


@submission(1)
def syntax_error_in_one_exercise(folder):
    return python(folder, "syntax.py", f"{ANSWER}{MUL}return ((x\n")


@submission(1, "is not yet Python")
def syntax_error_in_a_cell(folder):
    return python(folder, "syntax.ipynb", notebook(ANSWER, f"{MUL}return ((x\n"))


@submission(1)
def exercise_of_another_lesson(folder):
    other = HONEST.format(student="nobody").replace(NEIGHBOUR, "ex-02-1").replace("return", "raise 1;")
    return python(folder, "other.py", ANSWER + other)


@submission(1, "has the decorator")
def hostile_decorators(folder):
    above = "\n\n@exit()\n@course.exercise('ex-05-2')\n@(lambda f: exit())\ndef __mul__(x, y):\n    "
    return python(folder, "decorators.py", ANSWER + above + RIGHT)


@submission(1, "needs the signature")
def hostile_defaults(folder):
    return python(folder, "defaults.py", (ANSWER + MUL + RIGHT).replace("(x, y)", "(x, y=exit())"))


@submission(1)
def hostile_annotations(folder):
    return python(folder, "annotations.py", (ANSWER + MUL + RIGHT).replace("(x, y)", "(x: exit(), y)"))


@submission(1, "needs to be a function")
def class_for_a_function(folder):
    return python(folder, "class.py", ANSWER + MUL.replace("def __mul__(x, y)", "class __mul__") + "x = 1\n")


# ---- folders


@submission(1)
def folder_with_odd_things(folder):
    python(folder, "odd/05.py")
    for name in (b"odd/caf\xe9.py", "odd/.git/05_autograd.py", "odd/__pycache__/05_autograd.py", "odd/a.png"):
        python(folder, name, b"\xff\x00")
    os.mkfifo(os.path.join(folder, "odd/pipe.py"))
    os.mkdir(os.path.join(folder, "odd/folder.py"))
    return "odd"


@submission(0)
def folder_with_links(folder):
    os.makedirs(os.path.join(folder, "links"))
    targets = [
        "/etc/passwd",
        "../honest.py",
        ROOT / "tinytorch" / "activations.py",
        "..",
        ".",
        "/dev/zero",
        "missing.py",
    ]
    for i, target in enumerate(targets):
        os.symlink(target, os.path.join(folder, "links", f"05_autograd_{i}.py"))
    return "links"


@submission(0)
def workspace_that_is_a_link(folder):
    os.makedirs(os.path.join(folder, "workspace", ".tinytorch"))
    os.symlink("../honest_folder", os.path.join(folder, "workspace", "work"))
    return "workspace"


@submission(0)
def folder_1200_deep(folder):
    before = os.getcwd()
    try:
        os.chdir(folder)
        for name in ("deep", *"d" * 1200):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.chdir(before)
    return "deep"


@submission(0)
def folder_of_nothing(folder):
    os.mkdir(os.path.join(folder, "nothing"))
    return "nothing"


# ---- links and pipes in the place of a submission


@submission(0)
def link_to_the_reference(folder):
    os.symlink(ROOT / "tinytorch" / "activations.py", os.path.join(folder, "05_autograd.py"))
    return "05_autograd.py"


@submission(0)
def link_to_another_student(folder):
    os.symlink("honest.py", os.path.join(folder, "thief.py"))
    return "thief.py"


@submission(0)
def link_to_itself(folder):
    os.symlink("loop.py", os.path.join(folder, "loop.py"))
    return "loop.py"


@submission(0)
def pipe_for_a_file(folder):
    os.mkfifo(os.path.join(folder, "pipe.py"))
    return "pipe.py"
