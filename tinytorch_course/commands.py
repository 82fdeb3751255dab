"""What a student can ask for, in a notebook as well as in a terminal: each returns what is to be said."""

import hashlib
import importlib.util
import json
import platform
import shutil
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import answers, files, notebooks
from .answers import AnswerError
from .workspace import WorkspaceError


def hint(workspace, exercise):
    """The next of an exercise's hints; the last one again when there are no more."""
    if not exercise.hints:
        return f"{exercise.id} has no hints."
    with workspace.changing() as progress:
        record = progress.of(exercise)
        record.hints = min(record.hints + 1, len(exercise.hints))
        number = record.hints
    return f"Hint {number} of {len(exercise.hints)} for {exercise.id}: {exercise.hints[number - 1]}"


def solution(workspace, exercise):
    """The reference's answer."""
    with workspace.changing() as progress:
        progress.of(exercise).solution_seen = True
    return exercise.solution(workspace.root)


def reset(workspace, exercise):
    """Take an answer out of the ledger."""
    taken = workspace.remove(exercise)
    if taken is None:
        return f"{exercise.id} is still open: there is nothing to take back."
    return (
        f"{exercise.id} is open again. What you had is kept as version {taken.number}; "
        f'course.undo("{exercise.id}"), or `tinytorch undo {exercise.id}`, brings it back.\n'
        "The cell of your notebook is as it was: begin it anew from\n\n" + notebooks.answer_cell(exercise)
    )


def undo(workspace, exercise):
    """Put the version before the present one into the ledger; after a reset, the newest one.

    A ledger that is no Python is put aside, and made anew from the newest versions of all its exercises.
    """
    try:
        now = workspace.answer(exercise)
    except AnswerError:
        return workspace.remake_ledger(workspace.lesson_of(exercise))
    kept = workspace.versions(exercise)
    places = [i for i, version in enumerate(kept) if now and version.id == now.version]
    earlier = kept[: places[-1]] if places else kept
    if not earlier:
        return f"There is no earlier version of {exercise.id}."
    answer = workspace.kept(exercise, earlier[-1].id)
    workspace.put(exercise, answer)
    return f"Version {earlier[-1].number} of {exercise.id} is back in your work:\n\n{answer.text}".rstrip("\n")


def skip(workspace, lessons):
    """Begin behind these lessons: what is open in them is the reference's."""
    with workspace.changing() as progress:
        progress.skipped = sorted({*progress.skipped, *(lesson.number for lesson in lessons)})
    skipped = ", ".join(lesson.number for lesson in lessons)
    return f"Skipped: {skipped}. What you have not written there is the reference's. You can still do them at any time."


def update(workspace):
    """Bring the copies of the course's files up to date."""
    done = workspace.copy()
    lines = [f"{what}: {path}" for path, what in done.items() if what != "kept yours"]
    for path, what in done.items():
        if what == "kept yours":
            lines.append(f"kept yours: {path}. You changed it; the new one is beside it, with .new in its name.")
    return "\n".join(lines) or "Everything is up to date."


def submit(workspace, lesson):
    """Pack what was written for a lesson into submissions/NN_name.zip."""
    ledger, warning = workspace.ledger(lesson), ""
    if not ledger.exists() and not any(workspace.in_notebooks(exercise) for exercise in lesson.exercises):
        raise WorkspaceError(f"There is nothing to submit: no exercise of lesson {lesson.number} has been written yet.")
    try:
        workspace.answer(lesson.exercises[0])
    except AnswerError as error:
        warning = f"\nIt is packed as it is, but {error}"
    content = {}
    for path in filter(Path.exists, [ledger, *workspace.notebooks(lesson)]):
        content[path.relative_to(workspace.folder).as_posix()] = path.read_bytes()
    progress = workspace.progress()
    summary = {
        "format": 1,
        "lesson": lesson.number,
        "passed_here": [exercise.id for exercise in lesson.exercises if progress.has_passed(exercise)],
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    }
    content["submission.json"] = (json.dumps(summary, indent=1) + "\n").encode()
    path = workspace.folder / "submissions" / f"{lesson.folder}.zip"
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".writing")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    beside.replace(path)
    passed = f"{len(summary['passed_here'])} of {len(lesson.exercises)}"
    return f"{path}: {', '.join(content)}. {passed} exercises pass here.{warning}"


def doctor(workspace):
    """[(whether it is well, what was looked at, what to do)]; without a workspace (None), of the installation alone."""
    found = [_python(), *(_package(name) for name in ("numpy", "pytest", "hypothesis", "matplotlib", "ipykernel"))]
    installed = importlib.util.find_spec("tinytorch")
    found.append((installed is not None, "the package tinytorch is installed", "pip install -e . in the clone"))
    free = shutil.disk_usage(workspace.folder if workspace else ".").free / 1e6
    found.append((free > 200, f"{free:,.0f} MB of disk are free", "make room: builds and backups need some"))
    if workspace is None:
        return found
    found.append(_writable(workspace))
    for lesson in workspace.lessons:
        if workspace.ledger(lesson).exists():
            found.append(_ledger(workspace, lesson))
    for path in sorted((workspace.folder / "notebooks").glob("*.ipynb")):
        try:
            notebooks.read_code(path)
        except ValueError as error:
            found.append((False, str(error), "open it in Jupyter's text editor, or copy it anew: tinytorch update"))
    return found


def _python():
    well = sys.version_info >= (3, 11)
    return well, f"Python {platform.python_version()}", "install Python 3.11 or newer"


def _package(name):
    try:
        return True, f"{name} {version(name)}", ""
    except PackageNotFoundError:
        return False, f"{name} is missing", 'pip install -e ".[notebook]" in the clone'


def _writable(workspace):
    path = workspace.folder / ".tinytorch" / "doctor"
    try:
        files.write(path, "")
        path.unlink()
        return True, f"{workspace.folder} can be written to", ""
    except OSError as error:
        return False, str(error), "give yourself the right to write there, or move the folder"


def _ledger(workspace, lesson):
    where = f"work/{lesson.folder}.py"
    try:
        tree = answers.parse(workspace.ledger_text(lesson), where)
    except AnswerError as error:
        return False, str(error), "mend the line; `tinytorch undo` brings an earlier version of an exercise back"
    ids = [id for node in tree.body if (id := answers.exercise_of(node))]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        return False, f"{where} has {', '.join(twice)} more than once; the last one counts", "delete the others"
    unknown = sorted(set(ids) - {exercise.id for exercise in lesson.exercises})
    if unknown:
        return False, f"{where} has {', '.join(unknown)}, which this lesson does not have", "correct the id"
    return True, f"{where}: {len(ids)} exercises", ""
