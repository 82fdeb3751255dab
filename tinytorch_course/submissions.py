"""Submissions: what a student handed in, in whatever form, read as text; nothing of it is run."""

import contextlib
import io
import lzma
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
TOO_MANY = "Of {} files, {} were read. Hand in the notebook, or work/, alone."
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
        in_order = sorted(texts, key=lambda name: (_kind(name) != ".py", lesson.folder not in name, name))
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
            found.notes += [why] if _kind(name) == ".py" else []  # a notebook may have cells that are no Python
        else:
            sound.append(piece.text)
    return "\n\n".join(sound) if len(sound) > 1 else "".join(sound)


def _pieces(path, notes):
    """(name, pieces of Python) of each file of a submission: cells of a notebook, or the text of a Python file."""
    for name, content in _contents(path, notes):
        try:
            inside = _of_zip(content, name, notes) if _kind(name) == ".zip" else [(name, content)]
        except SubmissionError as error:
            if path.is_file():
                raise
            notes.append(str(error))
            continue
        if _kind(name) == ".zip" and path.is_dir():
            inside = [(f"{name}/{inner}", found) for inner, found in inside]  # another file may have that name
        for inner, found in inside:
            if (pieces := _python(inner, found, notes)) is not None:
                yield inner, pieces


def _contents(path, notes):
    """(name, bytes) of each file that may have answers in it."""
    if not (path.exists() or path.is_symlink()):
        raise SubmissionError(f"There is no submission at {path}.")
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise SubmissionError(f"{path.name} is no submission: it is a link, or no file at all.")
    files = files_of(path)
    if path.is_file() and not files:
        raise SubmissionError(f"{path} is no submission: it needs to be a .py or .ipynb file, a zip, or a folder.")
    if len(files) > MOST_FILES:
        notes.append(TOO_MANY.format(len(files), MOST_FILES))
    for file in files[:MOST_FILES]:
        name = path.name if file == path else file.relative_to(path).as_posix()
        with file.open("rb") as stream:
            content = stream.read(LARGEST_ZIP + 1 if _kind(name) == ".zip" else LARGEST + 1)
        content = _small(content, name, notes)
        if content is not None:
            yield name, content


def files_of(path):
    """The files that may have answers in them, those first that lie highest: the student's, not an environment's."""
    path = Path(path)
    if not path.is_dir():
        return [path] if _kind(path.name) in KINDS and path.is_file() and not path.is_symlink() else []
    inside = path / "work" if (path / ".tinytorch").is_dir() else path
    files = [file for file in below(inside) if _kind(file.name) in KINDS and _is_plain(file, path)]
    return sorted(files, key=lambda file: (len(file.parts), file))


def _kind(name):
    return PurePosixPath(name).suffix.lower()


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
            names = [(entry, PurePosixPath(entry.filename)) for entry in archive.infolist()]
            wanted = [(entry, inner) for entry, inner in names if _is_wanted(inner)]
            if len(wanted) > MOST_FILES:
                notes.append(TOO_MANY.format(len(wanted), MOST_FILES))
            for entry, inner in wanted[:MOST_FILES]:
                with archive.open(entry) as stream:
                    text = _small(stream.read(LARGEST + 1), inner.as_posix(), notes)
                found += [(inner.as_posix(), text)] if text is not None else []
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise SubmissionError(f"{name} cannot be read as a zip: {error}.") from error
    return found


def _is_wanted(inner):
    """Whether a name in a zip is that of Python, and in no hidden folder."""
    return _kind(inner) in KINDS[:2] and not any(part.startswith((".", "__")) for part in inner.parts)


def _small(content, name, notes):
    largest = LARGEST_ZIP if _kind(name) == ".zip" else LARGEST
    if len(content) > largest:
        notes.append(f"{name} is larger than {largest / 1e6:.0f} MB, and was not read.")
        return None
    return content


def _python(name, content, notes):
    """The pieces of Python in a file, or None where it has none."""
    try:
        text = content.decode("utf-8-sig")
        if _kind(name) == ".ipynb":
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
