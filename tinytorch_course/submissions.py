"""Submissions: what a student handed in, in whatever form, read as text; nothing of it is run."""

import contextlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from . import answers, notebooks
from .answers import AnswerError

LARGEST = 5_000_000  # bytes of one file: a notebook with pictures has less
LARGEST_ZIP = 50_000_000  # of a zip, packed: a small file can hold a large one, which is then not read to its end
MOST_FILES = 500
KINDS = (".py", ".ipynb", ".zip")
MARK = re.compile(r"""exercise\(\s*["'](ex-\d+-\d+)["']""")
BEGINS = re.compile(r"(?=^(?:@|def |class |import |from |\w+ *=))", re.MULTILINE)  # a statement at the left margin


class SubmissionError(ValueError):
    """Something that cannot be read as a submission, with the reason."""


class Piece(NamedTuple):
    """A cell of a notebook, or a Python file, or a part of one; `above` it there are so many lines."""

    text: str
    where: str
    above: int = 0


@dataclass
class Submission:
    """The answers of one student, {exercise: Answer}, and what is to be said of how they were read.

    faults: {id of an exercise: why what is there cannot be used}, of those without an answer.
    """

    path: Path
    answers: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    faults: dict = field(default_factory=dict)


def read(path, lessons):
    """The Submission at a path: a .py or .ipynb file, a zip, a folder, or a workspace of the course.

    Of several texts with an answer to an exercise, Python files count before notebooks, and those named as the lesson
    before others. Raises SubmissionError where nothing can be read.
    """
    path, found = Path(path), Submission(Path(path))
    texts = {name: _sound(pieces, name, found) for name, pieces in _pieces(path, found.notes)}
    for lesson in lessons:
        in_order = sorted(texts, key=lambda name: (not name.endswith(".py"), lesson.folder not in name, name))
        names = [exercise.name for exercise in lesson.exercises]
        for exercise in lesson.exercises:
            for name in in_order:
                alone = names.count(exercise.name) == 1 and lesson.folder in name
                if exercise.id not in texts[name] and not (alone and exercise.name in texts[name]):
                    continue  # parsing a notebook a hundred times takes seconds
                try:
                    answer = answers.find(texts[name], exercise, name, by_name=alone)
                except AnswerError as error:
                    found.faults.setdefault(exercise.id, str(error))
                    continue
                if answer and not answer.is_stub:
                    found.answers[exercise] = answer
                    break
    answered = {exercise.id for exercise in found.answers}
    found.faults = {id: why for id, why in found.faults.items() if id not in answered}
    found.notes = list(dict.fromkeys([*found.notes, *found.faults.values()]))
    return found


def _sound(pieces, name, found):
    """The text of the pieces that are Python. Of the others it is kept to which exercises they belong."""
    sound = []
    for piece in pieces:
        if why := answers.fault(*piece):
            found.faults |= dict.fromkeys(MARK.findall(piece.text), why)
            found.notes += [why] if name.endswith(".py") else []  # a notebook may have cells that are no Python
        else:
            sound.append(piece.text)
    return "\n\n".join(sound) if len(sound) > 1 else "".join(sound)


def _pieces(path, notes):
    """(name, pieces of Python) of each file of a submission: cells of a notebook, or the text of a Python file."""
    for name, content in _contents(path, notes):
        try:
            inside = _of_zip(content, name, notes) if name.endswith(".zip") else [(name, content)]
        except SubmissionError as error:
            if name == path.name:
                raise
            notes.append(str(error))
            continue
        for inner, found in inside:
            if (pieces := _python(inner, found, notes)) is not None:
                yield inner, pieces


def _contents(path, notes):
    """(name, bytes) of each file that may have answers in it."""
    if not (path.exists() or path.is_symlink()):
        raise SubmissionError(f"There is no submission at {path}.")
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise SubmissionError(f"{path.name} is no submission: it is a link, or no file at all.")
    if path.is_dir():
        inside = path / "work" if (path / ".tinytorch").is_dir() else path
        files = [file for file in below(inside) if file.suffix in KINDS and _is_plain(file, path)]
        files.sort(key=lambda file: (len(file.parts), file))  # the student's own lie higher than an environment's
        if len(files) > MOST_FILES:
            notes.append(f"Of {len(files)} files, {MOST_FILES} were read. Hand in the notebook, or work/, alone.")
        found = [(file, file.relative_to(path).as_posix()) for file in files[:MOST_FILES]]
    elif path.suffix in KINDS:
        found = [(path, path.name)]
    else:
        raise SubmissionError(f"{path} is no submission: it needs to be a .py or .ipynb file, a zip, or a folder.")
    for file, name in found:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_ZIP + 1 if name.endswith(".zip") else LARGEST + 1)
        content = _small(content, name, notes)
        if content is not None:
            yield name, content


def below(folder, deepest=20):
    """All that lies below a folder, as deep as anybody would put it; links are not followed."""
    waiting = [(Path(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        with contextlib.suppress(OSError):  # it cannot be listed
            for path in sorted(place.iterdir()):
                yield path
                if depth < deepest and path.is_dir() and not path.is_symlink():
                    waiting.append((path, depth + 1))


def _is_plain(file, folder):
    """Whether a file is one of the submission's own: no link, and in no hidden folder."""
    parts = file.relative_to(folder).parts
    return file.is_file() and not file.is_symlink() and not any(part.startswith((".", "__")) for part in parts)


def _of_zip(content, name, notes):
    """(name, bytes) of what may have answers in a zip. It is read in memory: no name in it ever becomes a path."""
    found = []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist()[:MOST_FILES]:
                inner = PurePosixPath(entry.filename)
                if inner.suffix not in KINDS[:2] or any(part.startswith((".", "__")) for part in inner.parts):
                    continue
                with archive.open(entry) as stream:
                    text = _small(stream.read(LARGEST + 1), inner.as_posix(), notes)
                found += [(inner.as_posix(), text)] if text is not None else []
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise SubmissionError(f"{name} cannot be read as a zip: {error}.") from error
    return found


def _small(content, name, notes):
    largest = LARGEST_ZIP if name.endswith(".zip") else LARGEST
    if len(content) > largest:
        notes.append(f"{name} is larger than {largest / 1e6:.0f} MB, and was not read.")
        return None
    return content


def _python(name, content, notes):
    """The pieces of Python in a file, or None where it has none."""
    try:
        text = content.decode("utf-8-sig")
        if name.endswith(".ipynb"):
            return [Piece(cell, f"{name}, cell {i},") for i, cell in enumerate(notebooks.cells_of(text, name), 1)]
    except (ValueError, RecursionError) as error:
        notes.append(f"{name} cannot be read: {error}.")
        return None
    return _blocks(text, name) if answers.fault(text, name) else [Piece(text, name)]


def _blocks(text, name):
    """A Python file in pieces, one for each statement at the left margin: a mistake in one spares the others."""
    blocks, above = [], 0
    for part in BEGINS.split(text):
        before = blocks[-1].text if blocks else ""
        if before.startswith("@") and "\ndef " not in before and "\nclass " not in before:
            blocks[-1] = blocks[-1]._replace(text=before + part)  # the decorator, and below it what it decorates
        else:
            blocks.append(Piece(part, name, above))
        above += part.count("\n")
    return blocks
