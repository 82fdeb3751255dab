"""What a notebook calls: `course.start`, `@course.exercise`, `course.check`, `course.hint`, `course.progress`.

A session belongs to one kernel and one lesson. It puts the lesson's build first on the path, installs what the student
writes in the running framework, and checks it in a process of its own.
"""

import atexit
import builtins
import contextlib
import linecache
import os
import shutil
import sys
import tempfile
from pathlib import Path

from . import answers, build, checking, commands, live, notebooks, report
from .answers import AnswerError
from .workspace import Workspace

_session = None  # of this kernel


class Shown(str):
    """Text that a notebook shows as it is."""

    def __repr__(self):
        return str(self)


class Session:
    """One kernel at work on one lesson."""

    def __init__(self, workspace, lesson, package):
        self.workspace, self.lesson, self.package = workspace, lesson, package
        self.exercises = {exercise.id: exercise for exercise in lesson.exercises}
        self.spare = checking.Spare()
        self.cells = {}  # {exercise: the version of its answer in the cell that was run last}
        atexit.register(self.spare.close)

    def exercise(self, id):
        """The exercise with this id. Raises ValueError with those that there are."""
        if id not in self.exercises:
            raise ValueError(f"Lesson {self.lesson.number} has no exercise {id!r}. It has {', '.join(self.exercises)}.")
        return self.exercises[id]

    def save(self, exercise, answer):
        """Put an answer into the ledger, and say where that changes other answers."""
        before = self._others(exercise)
        self.workspace.save(exercise, answer)
        self.cells[exercise.id] = answer.version
        changed = [id for id, other in self._others(exercise).items() if other != before.get(id)]
        if changed:
            print(f"This changes a helper that {', '.join(changed)} uses, too: check that again.")

    def _others(self, exercise):
        """The answers to the lesson's other exercises, by id; none where the ledger cannot be read."""
        with contextlib.suppress(AnswerError):
            return {other.id: self.workspace.answer(other) for other in self.lesson.exercises if other != exercise}
        return {}

    def check(self, exercise):
        """Check what stands in the ledger, or what a cell defined without the decorator."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.package)  # it is in use: not one of the old builds
        words, advice = self._which(exercise)
        result = checking.check(self.workspace, exercise, checked=words, spare=self.spare)
        result.advice += advice
        return result

    def _which(self, exercise):
        """(where the text that will be checked stands, what is to be said of others); saves what lost its decorator."""
        try:
            answer = self.workspace.answer(exercise)
        except AnswerError:  # the check will say so
            return "", []
        words = "the cell that you ran" if answer and self.cells.get(exercise.id) == answer.version else ""
        bare = _bare_definition(exercise) if self.workspace.is_alone(exercise) else None
        if bare is None or bare.is_stub or (answer and answer.version == bare.version):
            return words, []
        if answer:
            line = f'@course.exercise("{exercise.id}")'
            return words, [f"A newer cell defines {exercise.name} without {line}: not checked."]
        self.workspace.save(exercise, bare)
        return f"the cell that defines {exercise.name} (it had lost its @course.exercise line)", []


def start(number):
    """Begin a lesson in this kernel: course.start("05"). Run it again as often as you like.

    Finds the workspace that the notebook is in, or makes one beside it; while nbgrader runs the notebook, one that is
    thrown away. Raises RuntimeError where another tinytorch is already imported: it would be tested in place of yours.
    """
    global _session
    imported = getattr(sys.modules.get("tinytorch"), "__file__", None)
    if imported and _session and Path(imported).is_relative_to(_session.package):
        if _session.lesson.number != number:
            raise RuntimeError(
                f"This kernel is at work on lesson {_session.lesson.number}. Restart it to begin lesson {number}."
            )
        return _greeting(_session)
    if imported:
        raise RuntimeError(
            f"tinytorch was imported before course.start, from {imported}: that one, not yours, would be tested. "
            "Restart the kernel, and run this cell first."
        )
    workspace = _workspace()
    lessons = {lesson.number: lesson for lesson in workspace.lessons}
    if number not in lessons:
        raise ValueError(f"There is no lesson {number!r}. There are {', '.join(lessons)}, as strings.")
    try:
        package = build.import_from(build.of_lesson(workspace, number))
    except Exception as error:  # whatever a student's helper may raise
        print(
            "What you wrote keeps the framework from being imported, and is left out until you run its cell again. "
            f"{type(error).__name__}: {error}"
        )
        package = build.import_from(build.of_lesson(workspace, number, without_answers=True))
    _session = Session(workspace, lessons[number], package)
    return _greeting(_session)


def _workspace():
    """The workspace that the notebook is in, or one beside it, which is made where it is missing."""
    if _in_nbgrader():
        folder = tempfile.mkdtemp(prefix="tinytorch-nbgrader-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Workspace.create(folder, copies=())
    found = Workspace.find() or Workspace.find("my_course")
    if found is None:
        found = Workspace.create("my_course", copies=())
        print(f"A workspace was made in {found.folder}.")
    return found


def _in_nbgrader():
    return "NBGRADER_EXECUTION" in os.environ


def _greeting(session):
    progress, lesson = session.workspace.progress(), session.lesson
    done = sum(progress.has_passed(exercise) for exercise in lesson.exercises)
    return Shown(
        f"Lesson {lesson.number}, {lesson.title}: {done} of {len(lesson.exercises)} exercises done.\n"
        f"What you write is kept in {session.workspace.ledger(lesson)}."
    )


def current():
    if _session is None:
        raise RuntimeError(
            'No lesson was begun in this kernel. Run the first cell of the notebook, such as course.start("05"). '
            "(A file in work/ is not run: `tinytorch check` checks it.)"
        )
    return _session


def exercise(id):
    """A decorator: the function (or class) below it is your answer. It is saved, and runs in the framework at once."""
    session = current()
    target, frame = session.exercise(id), sys._getframe(1)
    text = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    line = frame.f_lineno

    def take(definition):
        try:
            answer = answers.find(text, target, "This cell", others=_cells(), line=line)
            if answer is None:
                raise AnswerError(
                    f'The answer to {id} was not found in this cell. It needs @course.exercise("{id}"), with the id '
                    "written out, at the left margin, in a cell without %%magic."
                )
            if answer.is_stub:
                return _left_open(session, target, definition)
            session.save(target, answer)
        except AnswerError as error:
            print(error)
            return definition
        except OSError as error:
            print(f"{id} runs, but is NOT saved, and is not what will be checked. {error.strerror or error}")
        problem = answers.problem(target, answer)
        if problem:
            print(f"{id} is saved, but not put to use: {problem}")
            return definition
        return _as_in_the_notebook(target, live.install(target, answer))

    return take


def _left_open(session, exercise, definition):
    """A cell in which nothing was written: it changes nothing."""
    if session.workspace.answer(exercise) is not None:
        print(
            f"This cell is empty, and what you wrote for {exercise.id} before is kept. To begin anew: "
            f'course.reset("{exercise.id}").'
        )
    return _as_in_the_notebook(exercise, definition)


def _as_in_the_notebook(exercise, definition):
    """What the name means in the notebook: a method called sum or split must not hide Python's own."""
    return getattr(builtins, exercise.name, definition) if "." in exercise.qualname else definition


def _shell():
    """IPython's shell, where this runs in one."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _cells():
    """The cells that were run in this kernel, the newest first."""
    shell = _shell()
    return list(reversed(shell.user_ns["In"])) if shell else []


def _bare_definition(exercise):
    """The answer in the newest cell that defines a function of the exercise's name, if it has lost its decorator."""
    cells = _cells()
    for number, text in enumerate(cells):
        if exercise.name in text:
            with contextlib.suppress(AnswerError):
                found = answers.find(text, exercise, "", by_name=True, others=cells[number + 1 :])
                if found:
                    return None if f'exercise("{exercise.id}")' in text else found
    return None


def check(id):
    """Check an exercise: course.check("ex-05-2"). Shows what was expected beside yours, and the likely cause.

    While nbgrader runs the notebook, the result is shown, and what is returned is the score, a number of points.
    """
    session = current()
    result = session.check(session.exercise(id))
    if _in_nbgrader():
        print(result)
        return result.score
    return result


def hint(id):
    """The next hint of an exercise, of three."""
    session = current()
    return Shown(commands.hint(session.workspace, session.exercise(id)))


def solution(id):
    """The reference's answer. It is noted that you looked; nothing else changes."""
    session = current()
    return Shown(commands.solution(session.workspace, session.exercise(id)))


def reset(id):
    """Begin an exercise anew: what you wrote leaves the ledger, and is kept for course.undo."""
    session = current()
    target = session.exercise(id)
    said = commands.reset(session.workspace, target)
    session.cells.pop(id, None)
    live.install(target, build.unwritten(session.workspace, target))
    if shell := _shell():
        shell.set_next_input(notebooks.answer_cell(target))
    return Shown(said)


def undo(id):
    """Bring back what you had before, in the ledger and in the running framework."""
    session = current()
    target = session.exercise(id)
    said = commands.undo(session.workspace, target)
    answer = session.workspace.answer(target)
    if answer and answers.problem(target, answer) is None:
        live.install(target, answer)
    return Shown(said)


def progress():
    """The table of what is done."""
    return report.of(current().workspace)
