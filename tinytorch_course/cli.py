"""The command `tinytorch`."""

import argparse
import sys
import time
from pathlib import Path

from . import checking, commands, notebooks, report
from .answers import AnswerError
from .grading import GradingError
from .grading.cli import add_commands
from .lessons import ROOT, LessonError, lessons_of, read_lessons
from .workspace import Workspace, WorkspaceError

FOLDER = "my_course"


def main(argv=None):
    """Run a command. Returns the exit status: 0, 1 where something is not as it should be, 2 for wrong usage."""
    options = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal need not know every character
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        print(f"tinytorch: {error.strerror or error}{place}", file=sys.stderr)
        return 1
    except (WorkspaceError, AnswerError, LessonError, GradingError) as error:
        print(f"tinytorch: {error}", file=sys.stderr)
        return 1


def parser():
    whole = argparse.ArgumentParser(prog="tinytorch", description="The course: exercises, checks, hints, progress.")
    whole.add_argument(
        "-C", "--workspace", type=Path, metavar="DIR", help=f"your folder (default: here, or ./{FOLDER})"
    )
    commands_ = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help):
        made = commands_.add_parser(name, help=help, description=help)
        made.set_defaults(run=run)
        return made

    command("init", init, "make your folder of the course").add_argument(
        "folder", nargs="?", type=Path, default=FOLDER, help=f"where to (default: {FOLDER})"
    )
    check = command("check", check_, "check exercises: all that you have changed, or those named")
    check.add_argument("what", nargs="*", metavar="EXERCISE|LESSON", help="such as ex-05-2, or 05 for a whole lesson")
    watch = command("watch", watch_, "check whatever you save, until Ctrl-C")
    watch.add_argument("what", nargs="*", metavar="LESSON", help="such as 05 (default: all)")
    for name, run, help in (
        ("hint", commands.hint, "the next hint of an exercise"),
        ("reset", commands.reset, "begin an exercise anew; what you had is kept"),
        ("undo", commands.undo, "bring back what you had before"),
        ("solution", commands.solution, "the reference's answer to an exercise"),
    ):
        command(name, _on_exercise(run), help).add_argument("exercise", metavar="EXERCISE")
    command("skip", skip, "begin behind lessons").add_argument("lessons", metavar="LESSONS", help="such as 01-04")
    command("progress", progress, "what is done, and how much of the framework is yours")
    command("doctor", doctor, "look for what is wrong with this installation or your folder")
    command("update", update, "bring the copies of notebooks and tests up to date; nothing of yours is replaced")
    command("submit", submit, "pack a lesson for handing in").add_argument("lesson", metavar="LESSON")
    build = command("build-notebooks", build_notebooks, "make the notebooks from the lessons")
    build.add_argument("lessons", nargs="*", metavar="LESSON", help="such as 05 (default: all)")
    build.add_argument("--out", type=Path, metavar="DIR", help="where to (default: notebooks/ for the students' ones)")
    kind = build.add_mutually_exclusive_group()
    kind.add_argument("--solution", action="store_const", dest="kind", const="solution", help="with the answers")
    kind.add_argument(
        "--nbgrader-source", action="store_const", dest="kind", const="nbgrader-source", help="with nbgrader's markers"
    )
    add_commands(command)
    return whole


def workspace_of(options):
    """The workspace that is meant. Raises WorkspaceError where there is none."""
    if options.workspace:
        return Workspace(options.workspace)
    found = Workspace.find() or (Workspace(FOLDER) if (Path(FOLDER) / ".tinytorch").is_dir() else None)
    if found is None:
        raise WorkspaceError(
            "There is no workspace here. Make one with `tinytorch init`, go into one, or name it: "
            f"tinytorch -C {FOLDER} ..."
        )
    return found


def exercises_of(workspace, names):
    """The exercises that are named, by their ids or by lessons. Raises WorkspaceError for what there is not."""
    found = []
    for name in names:
        named = [
            exercise
            for lesson in workspace.lessons
            for exercise in lesson.exercises
            if name in (exercise.id, lesson.number, lesson.folder)
        ]
        if not named:
            raise WorkspaceError(
                f"There is no exercise or lesson {name!r}. They are called ex-05-2 or 05, for example."
            )
        found += named
    return found


def _on_exercise(run):
    def on_exercise(options):
        workspace = workspace_of(options)
        named = exercises_of(workspace, [options.exercise])
        if len(named) > 1:
            raise WorkspaceError(f"{options.exercise} is a whole lesson. Name one exercise, such as {named[0].id}.")
        print(run(workspace, named[0]))

    return on_exercise


def init(options):
    existed = (options.folder / ".tinytorch").is_dir()
    workspace = Workspace.create(options.folder)
    if existed:
        print(f"{workspace.folder} was a workspace already; nothing of yours was changed.")
        return
    print(
        f"Your folder of the course is {workspace.folder}.\n\n"
        f"Begin:      jupyter lab {options.folder}/notebooks/01_tensor.ipynb\n"
        f"Or:         write into {options.folder}/work/ in any editor, and let `tinytorch watch` check it\n"
        f"How far:    tinytorch progress"
    )


def check_(options):
    workspace = workspace_of(options)
    broken = []
    chosen = exercises_of(workspace, options.what) if options.what else _changed(workspace, broken)
    if not chosen and not broken:
        print("Nothing has changed since it passed. `tinytorch progress` shows what is open.")
    _take_from_notebooks(workspace, chosen)
    results = _checked(workspace, chosen)
    if len(results) > 1:
        print(f"\n{sum(result.passed for result in results)} of {len(results)} pass.")
    return 0 if all(result.passed for result in results) and not broken else 1


def _take_from_notebooks(workspace, chosen, replace=False):
    """What was written in a notebook and saved, but never run: taken where nothing else is there, or else said."""
    for exercise in chosen:
        if found := workspace.in_notebooks(exercise):
            path, answer = found
            present = workspace.answer(exercise)
            if present is None or (replace and workspace.kept(exercise, present.version)):
                workspace.save(exercise, answer)
                print(f"{exercise.id} is taken from {path.name}.")
            else:
                print(
                    f"{path.name} has another text for {exercise.id}, which was never run. To check it, run its cell."
                )


def _checked(workspace, chosen):
    spare, results = checking.Spare(), []
    try:
        for exercise in chosen:
            results.append(checking.check(workspace, exercise, spare=spare))
            print(results[-1], flush=True)
    finally:
        spare.close()
    return results


def _changed(workspace, broken):
    """The exercises whose present answer has not passed, or that only a notebook has.

    Ledgers that cannot be read are said and put into `broken`; the others can be checked.
    """
    progress, found = workspace.progress(), []
    for lesson in workspace.lessons:
        if workspace.ledger(lesson).exists() or workspace.notebooks(lesson):
            try:
                for exercise in lesson.exercises:
                    answer = workspace.answer(exercise)
                    new = answer.version != progress.of(exercise).passed if answer else workspace.in_notebooks(exercise)
                    found += [exercise] if new else []
            except AnswerError as error:
                print(error, flush=True)
                broken.append(lesson)
    return found


def watch_(options):
    workspace = workspace_of(options)
    lessons = lessons_of(workspace.lessons, options.what) if options.what else workspace.lessons
    print(f"Watching {workspace.folder / 'work'} and its notebooks. Ctrl-C stops.", flush=True)
    seen, checked = None, {}
    while True:
        now = {path: changed for path in _watched(workspace) if (changed := _time(path))}
        if now != seen:
            seen = now
            try:
                _take_from_notebooks(workspace, [e for lesson in lessons for e in lesson.exercises], replace=True)
                for exercise in [
                    e for e in _changed(workspace, []) if e.lesson in {lesson.number for lesson in lessons}
                ]:
                    version = workspace.answer(exercise).version
                    if checked.get(exercise.id) != version:
                        checked[exercise.id] = version
                        _checked(workspace, [exercise])
            except AnswerError as error:  # in the middle of an edit
                print(error, flush=True)
        time.sleep(0.3)


def _watched(workspace):
    return [path for pattern in ("work/*.py", "notebooks/*.ipynb") for path in workspace.folder.glob(pattern)]


def _time(path):
    """When a file was changed, or None where it is gone, as files of editors often are."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def skip(options):
    workspace = workspace_of(options)
    print(commands.skip(workspace, lessons_of(workspace.lessons, [options.lessons])))


def progress(options):
    print(report.of(workspace_of(options)))


def doctor(options):
    try:
        workspace = workspace_of(options)
    except WorkspaceError as error:
        print(error)
        workspace = None
    found = commands.doctor(workspace)
    for well, what, remedy in found:
        print(f"{'ok  ' if well else 'FAIL'}  {what}" + ("" if well else f"\n      -> {remedy}"))
    return 0 if all(well for well, _, _ in found) else 1


def update(options):
    print(commands.update(workspace_of(options)))


def submit(options):
    workspace = workspace_of(options)
    [lesson] = lessons_of(workspace.lessons, [options.lesson[:2]])
    print(commands.submit(workspace, lesson))


def build_notebooks(options):
    kind = options.kind or "student"
    if options.out is None and kind != "student":
        raise WorkspaceError("Notebooks with answers do not belong into notebooks/: name a folder with --out.")
    lessons = read_lessons()
    chosen = lessons_of(lessons, options.lessons) if options.lessons else lessons
    for path in notebooks.build(chosen, options.out or ROOT / "notebooks", kind):
        print(path)
