"""Submissions: what a student handed in, in whatever form, read as text; nothing of it is run."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from . import answers, notebooks
from .answers import AnswerError

LARGEST = 5_000_000  # bytes of one file: a notebook with pictures has less
MOST_FILES = 500
KINDS = (".py", ".ipynb")


class SubmissionError(ValueError):
    """Something that cannot be read as a submission, with the reason."""


@dataclass
class Submission:
    """The answers of one student, {exercise: Answer}, and what is to be said of how they were read."""

    path: Path
    answers: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def read(path, lessons):
    """The Submission at a path: a .py or .ipynb file, a zip, a folder, or a workspace of the course.

    Of several texts with an answer to an exercise, Python files count before notebooks, and those named as the lesson
    before others. Raises SubmissionError where nothing can be read.
    """
    path, found = Path(path), Submission(Path(path))
    texts = {name: text for name, text in _texts(path, found.notes).items() if text is not None}
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
                    found.notes.append(str(error))
                    continue
                if answer and not answer.is_stub:
                    found.answers[exercise] = answer
                    break
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _texts(path, notes):
    """{name: the Python in it} of each file of a submission."""
    if not path.exists():
        raise SubmissionError(f"There is no submission at {path}.")
    if path.is_dir():
        inside = path / "work" if (path / ".tinytorch").is_dir() else path
        files = [file for file in sorted(inside.rglob("*")) if file.suffix in KINDS and _is_plain(file, path)]
        contents = {file.relative_to(path).as_posix(): file for file in files[:MOST_FILES]}
        return {name: _python(name, _read(file, name, notes), notes) for name, file in contents.items()}
    if path.suffix == ".zip":
        return _of_zip(path, notes)
    if path.suffix in KINDS:
        return {path.name: _python(path.name, _read(path, path.name, notes), notes)}
    raise SubmissionError(f"{path} is no submission: it needs to be a .py or .ipynb file, a zip, or a folder.")


def _is_plain(file, folder):
    """Whether a file is one of the submission's own: no link, and in no hidden folder."""
    parts = file.relative_to(folder).parts
    return file.is_file() and not file.is_symlink() and not any(part.startswith((".", "__")) for part in parts)


def _of_zip(path, notes):
    texts = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist()[:MOST_FILES]:
                name = PurePosixPath(entry.filename)
                if name.suffix not in KINDS or any(part.startswith((".", "__")) for part in name.parts):
                    continue
                with archive.open(entry) as file:  # read here and nowhere else: no path of the zip is ever written to
                    content = file.read(LARGEST + 1)
                texts[name.as_posix()] = _python(name.as_posix(), _small(content, name, notes), notes)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise SubmissionError(f"{path} cannot be read as a zip: {error}.") from error
    return texts


def _read(file, name, notes):
    with file.open("rb") as stream:
        return _small(stream.read(LARGEST + 1), name, notes)


def _small(content, name, notes):
    if len(content) > LARGEST:
        notes.append(f"{name} is larger than {LARGEST / 1e6:.0f} MB, and was not read.")
        return None
    return content


def _python(name, content, notes):
    """The Python text of a file, or None where it has none."""
    if content is None:
        return None
    try:
        text = content.decode("utf-8-sig")
        return notebooks.code_of(text, name) if name.endswith(".ipynb") else text
    except (ValueError, RecursionError) as error:
        notes.append(f"{name} cannot be read: {error}.")
        return None
