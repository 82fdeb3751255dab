"""The workspace: the folder in which a student works, and everything that is kept there.

    notebooks/ milestones/ tests/   copies to work with, and docs/, which tests read
    work/05_autograd.py             the ledger: what the student wrote in a lesson, and nothing else
    .tinytorch/progress.json        what was solved
    .tinytorch/backups/ex-05-2/     every version of an answer that was ever run or checked
    .tinytorch/build/               packages `tinytorch` with the student's functions in them

The ledger is the truth; notebooks only feed it.
"""

import contextlib
import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from . import answers, files, notebooks
from .answers import AnswerError
from .lessons import ROOT, read_lessons
from .record import Progress

HIDDEN = ".tinytorch"
COPIED = (
    "notebooks/*.ipynb", "milestones/*/*.py", "docs/pipeline.md", "tests/[0-9]*/*.py", "tests/conftest.py",
    "tests/catalogue.py", "tests/golden_folders.py", "tests/golden/pretrained/*/*", "tests/probing.py",
    "tests/running.py", "tests/strict_array.py",
)  # fmt: skip
CONFTEST = '''"""The tests run on what you wrote in work/; what is open in lessons that you have begun is a hole."""

import sys
from pathlib import Path

from tinytorch_course import build
from tinytorch_course.workspace import Workspace

PACKAGE = build.of_work(Workspace(Path(__file__).parent))
sys.path.insert(0, str(PACKAGE))


def pytest_report_header():
    return f"tinytorch: what you wrote, in {PACKAGE}"
'''


class WorkspaceError(RuntimeError):
    """A folder that is no workspace, or cannot be used as one."""


@dataclass(frozen=True)
class Version:
    """One version of an answer that is kept: where, and when it was first seen."""

    path: Path
    number: int
    id: str

    @property
    def time(self):
        return self.path.stat().st_mtime


class Workspace:
    """A student's folder. Raises WorkspaceError where there is none."""

    def __init__(self, folder, root=ROOT):
        self.folder, self.root = Path(os.path.abspath(folder)), root
        if not (self.folder / HIDDEN).is_dir():
            raise WorkspaceError(
                f"{self.folder} is no workspace of the course. `tinytorch init {self.folder.name}` makes one."
            )

    @classmethod
    def find(cls, start="."):
        """The workspace that a path is in, or None."""
        start = Path(os.path.abspath(start))
        folder = next((f for f in (start, *start.parents) if (f / HIDDEN).is_dir()), None)
        return cls(folder) if folder else None

    @classmethod
    def create(cls, folder, root=ROOT, copies=COPIED):
        """Make a workspace. What is already in the folder stays; files of a copy's name are not replaced."""
        folder = Path(folder)
        if not (root / "modules").is_dir():
            raise WorkspaceError(
                f"The course is not at {root}: it works from a clone of the repository, installed with "
                "`pip install -e .`, not from a wheel."
            )
        try:
            for name in (HIDDEN, "notebooks", "work") if copies else (HIDDEN, "work"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"{folder} cannot be made into a workspace: {error.strerror}.") from error
        workspace = cls(folder, root)
        files.write(folder / HIDDEN / ".gitignore", "build/\n*.lock\n")
        workspace.copy(copies)
        return workspace

    # ---- copies of the course's files

    def copy(self, patterns=COPIED):
        """Copy the course's files, or bring copies up to date. Returns {path: what was done}.

        A copy that the student changed is kept, and the new version is put beside it.
        """
        done = {}
        with self.changing() as progress:
            for relative, content in self._originals(patterns):
                path, checksum = self.folder / relative, _checksum(content)
                known = progress.originals.get(relative)
                present = _checksum(path.read_bytes()) if path.exists() else None
                if present is None:
                    what = "new"
                elif checksum in (present, known):
                    what = None  # it is the newest, or the student's version of what has not changed
                elif known == present:
                    what = "updated"
                else:
                    what = "kept yours"
                if what == "kept yours":
                    path = path.with_name(f"{path.stem}.new{path.suffix}")
                if what:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    done[relative] = what
                progress.originals[relative] = checksum
        return done

    def _originals(self, patterns):
        """(path in the workspace, content) of each file to copy."""
        for pattern in patterns:
            for path in sorted(self.root.glob(pattern)):
                yield path.relative_to(self.root).as_posix(), path.read_bytes()
        if patterns:
            settings = (self.root / "pyproject.toml").read_text(encoding="utf-8")
            yield "pyproject.toml", re.search(r"^\[tool\.pytest.*?(?=^\[|\Z)", settings, re.M | re.S)[0].encode()
            yield "conftest.py", CONFTEST.encode()

    # ---- progress

    @property
    def builds(self):
        """Where packages with the student's answers are made."""
        return self.folder / HIDDEN / "build"

    @functools.cached_property
    def lessons(self):
        return read_lessons(self.root)

    @contextlib.contextmanager
    def changing(self):
        """The progress, to be changed: one process at a time, written at the end."""
        try:
            lock = FileLock(self.folder / HIDDEN / "workspace.lock").acquire(timeout=20)
        except Timeout as error:
            raise WorkspaceError(f"Another program has been changing {self.folder} for 20 seconds. Stop it.") from error
        with lock:
            progress = self.progress()
            yield progress
            progress.write(self.folder / HIDDEN / "progress.json")

    def progress(self):
        """What progress.json holds. A file that cannot be read is put aside, and all is open again."""
        path = self.folder / HIDDEN / "progress.json"
        try:
            return Progress.read(path)
        except FileNotFoundError:
            return Progress()
        except ValueError as error:
            aside = _unused(path.with_name("progress.unreadable.json"))
            path.rename(aside)
            print(f"{path} cannot be read ({error}). It is kept as {aside.name}; check your exercises again.")
            return Progress()

    # ---- answers

    def ledger(self, lesson):
        return self.folder / "work" / f"{lesson.folder}.py"

    def ledger_text(self, lesson):
        try:
            return self.ledger(lesson).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return answers.HEADER.format(title=lesson.title, number=lesson.number)
        except UnicodeDecodeError as error:
            raise AnswerError(f"{self.ledger(lesson)} is not in UTF-8: save it as UTF-8 in your editor.") from error

    def answer(self, exercise):
        """What stands in the ledger for an exercise, or None. Raises AnswerError where that cannot be read."""
        lesson = self.lesson_of(exercise)
        where, alone = f"work/{lesson.folder}.py", self.is_alone(exercise)
        answer = answers.find(self.ledger_text(lesson), exercise, where, by_name=alone)
        return None if answer is None or answer.is_stub else answer

    def is_alone(self, exercise):
        """Whether no other exercise of its lesson has a function of the same name."""
        names = [other.name for other in self.lesson_of(exercise).exercises]
        return names.count(exercise.name) == 1

    def lesson_of(self, exercise):
        return next(lesson for lesson in self.lessons if lesson.number == exercise.lesson)

    def save(self, exercise, answer):
        """Put an answer into the ledger, and keep it as a version. Returns the Version."""
        with self.changing():
            self._keep_present(exercise)
            version = self.keep(exercise, answer)
            self._put(exercise, answer)
        return version

    def _keep_present(self, exercise):
        """Keep what an editor wrote into the ledger before it is written over."""
        with contextlib.suppress(AnswerError):
            present = self.answer(exercise)
            if present and self.kept(exercise, present.version) is None:
                self.keep(exercise, present)

    def put(self, exercise, answer):
        """Put an answer into the ledger that is kept as a version already."""
        with self.changing():
            self._keep_present(exercise)
            self._put(exercise, answer)

    def _put(self, exercise, answer):
        lesson = self.lesson_of(exercise)
        text = self.ledger_text(lesson)
        new = answers.with_answer(text, answer)
        if new != text:
            files.write(self.ledger(lesson), new)

    def remake_ledger(self, lesson):
        """Put a ledger aside, and write a new one of the newest versions of its exercises. Returns what was done."""
        ledger = self.ledger(lesson)
        with self.changing():
            aside = _unused(ledger.with_suffix(".broken.py"))
            ledger.rename(aside)
            for exercise in lesson.exercises:
                if versions := self.versions(exercise):
                    self._put(exercise, self.kept(exercise, versions[-1].id))
        return f"work/{ledger.name} could not be read. It is kept as work/{aside.name}, and made anew from the backups."

    def remove(self, exercise):
        """Take an answer out of the ledger; its versions are kept. Returns the Version that was taken out, or None."""
        lesson, version = self.lesson_of(exercise), None
        with self.changing() as progress:
            answer = self.answer(exercise)
            if answer:
                version = self.keep(exercise, answer)
                files.write(self.ledger(lesson), answers.without_answer(self.ledger_text(lesson), exercise.id))
            progress.of(exercise).passed = None
        return version

    def notebooks(self, lesson):
        """The student's notebooks that begin this lesson, whatever they are called."""
        begins = re.compile(rf"course\.start\(\\?['\"]{lesson.number}\\?['\"]")
        paths = sorted(self.folder.glob("notebooks/*.ipynb"))
        return [path for path in paths if begins.search(path.read_text(encoding="utf-8", errors="replace"))]

    def in_notebooks(self, exercise):
        """(path, Answer) of a saved notebook that has an answer which was never run or checked, or None."""
        seen = {version.id for version in self.versions(exercise)}
        for path in self.notebooks(self.lesson_of(exercise)):
            with contextlib.suppress(ValueError):  # no notebook, or no Python
                answer = answers.find(notebooks.read_code(path), exercise, path.name, by_name=self.is_alone(exercise))
                if answer and not answer.is_stub and answer.version not in seen:
                    return path, answer
        return None

    # ---- versions

    def versions(self, exercise):
        """All that were kept, oldest first."""
        found = []
        for path in (self.folder / HIDDEN / "backups" / exercise.id).glob("[0-9]*-*.py"):
            number, _, id = path.stem.partition("-")
            found.append(Version(path, int(number), id))
        return sorted(found, key=lambda version: version.number)

    def keep(self, exercise, answer):
        """Keep a version of an answer, unless it is the newest already."""
        kept = self.versions(exercise)
        if kept and kept[-1].id == answer.version:
            return kept[-1]
        number = kept[-1].number + 1 if kept else 1
        path = self.folder / HIDDEN / "backups" / exercise.id / f"{number:04}-{answer.version}.py"
        files.write(path, answer.entry)
        return Version(path, number, answer.version)

    def kept(self, exercise, id):
        """The answer of a version, or None where it is gone."""
        for version in reversed(self.versions(exercise)):
            if version.id == id:
                return answers.find(version.path.read_text(encoding="utf-8"), exercise, str(version.path))
        return None

    def passing(self, exercise, progress=None):
        """The student's answer that passed last, or None."""
        record = (progress or self.progress()).exercises.get(exercise.id)
        return self.kept(exercise, record.passed) if record and record.passed else None


def _checksum(content):
    return hashlib.sha256(content).hexdigest()


def _unused(path):
    """A path like this one that does not exist yet."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
