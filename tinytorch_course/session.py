"""What a notebook calls: `course.start`, `@course.exercise`, `course.check`, `course.hint`, `course.progress`.

A session belongs to one kernel and one lesson. It puts the lesson's build first on the path, installs what the student
writes in the running framework, and checks it in a process of its own.
"""

import atexit
import builtins
import contextlib
import inspect
import linecache
import sys
import types
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
        self.sources = {}  # {exercise: where its newest text came from}
        atexit.register(self.spare.close)

    def exercise(self, id):
        """The exercise with this id. Raises KeyError with those that there are."""
        if id not in self.exercises:
            raise KeyError(f"Lesson {self.lesson.number} has no exercise {id!r}. It has {', '.join(self.exercises)}.")
        return self.exercises[id]

    def check(self, exercise):
        """Check what stands in the ledger, or what a cell defined without the decorator."""
        where = self.sources.get(exercise.id, "")
        if self.workspace.is_alone(exercise) and self.workspace.answer(exercise) is None:
            cell = _cell_that_defines(exercise)
            if cell and not cell.is_stub:
                self.workspace.save(exercise, cell)
                where = f"the cell that defines {exercise.name} (it had lost its @course.exercise line)"
        return checking.check(self.workspace, exercise, checked=where, spare=self.spare)


def start(number):
    """Begin a lesson in this kernel: course.start("05"). Run it again as often as you like.

    Finds the workspace that the notebook is in, or makes one beside it. Raises RuntimeError where another tinytorch is
    already imported: it would be tested in the place of yours.
    """
    global _session
    workspace = Workspace.find()
    made = workspace is None
    if made:
        workspace = Workspace.create(Path("my_course"), copies=())
    lessons = {lesson.number: lesson for lesson in workspace.lessons}
    if number not in lessons:
        raise ValueError(f"There is no lesson {number!r}. There are {', '.join(lessons)}, as strings.")
    lesson = lessons[number]
    imported = getattr(sys.modules.get("tinytorch"), "__file__", None)
    if imported and _session and Path(imported).is_relative_to(_session.package):
        if _session.lesson.number != number:
            raise RuntimeError(
                f"This kernel is at work on lesson {_session.lesson.number}. Restart it to begin lesson {number}."
            )
        return _greeting(_session, made)
    if imported:
        raise RuntimeError(
            f"tinytorch was imported before course.start, from {imported}: that one, not yours, would be tested. "
            "Restart the kernel, and run this cell first."
        )
    package = build.of_lesson(workspace, number)
    sys.path.insert(0, str(package))
    _session = Session(workspace, lesson, package)
    return _greeting(_session, made)


def _greeting(session, made):
    progress, lesson = session.workspace.progress(), session.lesson
    done = sum(progress.has_passed(exercise) for exercise in lesson.exercises)
    where = session.workspace.ledger(lesson)
    begin = f"A workspace was made in {session.workspace.folder}.\n" if made else ""
    return Shown(
        f"{begin}Lesson {lesson.number}, {lesson.title}: {done} of {len(lesson.exercises)} exercises done.\n"
        f"What you write is kept in {where}."
    )


def current():
    if _session is None:
        number = "05"
        raise RuntimeError(f'No lesson was begun in this kernel. Run the first cell: course.start("{number}").')
    return _session


def exercise(id):
    """A decorator: the function (or class) below it is your answer. It is saved, and runs in the framework at once."""
    session = current()
    target, frame = session.exercise(id), sys._getframe(1)
    names, line = frame.f_globals, frame.f_lineno
    text = "".join(linecache.getlines(frame.f_code.co_filename, names))

    def take(definition):
        try:
            answer = answers.find(text, target, "This cell", lookup=lambda name: _helper(names, name), line=line)
            if answer is None:
                raise AnswerError(f"The source of {target.name} was not found. Write it in a cell of its own.")
            if answer.is_stub:
                return _left_open(session, target, definition)
            session.workspace.save(target, answer)
        except AnswerError as error:
            print(error)
            return definition
        except OSError as error:
            print(f"{id} runs, but is not saved, and stays in this cell alone. {error.strerror}")
        session.sources[id] = "the cell that you ran"
        problem = answers.problem(target, answer)
        if problem:
            print(f"{id} is saved, but not put to use: {problem}")
            return definition
        installed = live.install(target, answer)
        # a method called sum or split must not take the place of Python's own in the notebook
        return getattr(builtins, target.name, installed) if "." in target.qualname else installed

    return take


def _left_open(session, exercise, definition):
    """A cell in which nothing was written: it changes nothing."""
    if session.workspace.answer(exercise) is not None:
        print(
            f"This cell is empty, and what you wrote for {exercise.id} before is kept. To begin anew: "
            f'course.reset("{exercise.id}").'
        )
    return getattr(builtins, exercise.name, definition) if "." in exercise.qualname else definition


def _helper(names, name):
    """The source of something that the notebook defines and an answer uses: a function, a constant or an import."""
    value = names.get(name)
    if isinstance(value, types.ModuleType):
        allowed = value.__name__.split(".")[0] in answers.ALLOWED
        return f"import {value.__name__} as {name}\n" if allowed else None
    if isinstance(value, (types.FunctionType, type)) and value.__module__ == "__main__":
        try:
            return inspect.cleandoc("\n" + inspect.getsource(value)) + "\n"
        except (OSError, TypeError):
            return None
    if callable(value) and getattr(value, "__module__", None) and hasattr(value, "__qualname__"):
        allowed = value.__module__.split(".")[0] in answers.ALLOWED and "." not in value.__qualname__
        return f"from {value.__module__} import {value.__qualname__} as {name}\n" if allowed else None
    if isinstance(value, (bool, int, float, str)):
        return f"{name} = {value!r}\n"
    return None


def _shell():
    """IPython's shell, where this runs in one."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _cell_that_defines(exercise):
    """The answer in the newest cell that defines a function of the exercise's name, if it has lost its decorator."""
    shell = _shell()
    for text in reversed(shell.user_ns["In"] if shell else []):
        if exercise.name not in text:
            continue
        with contextlib.suppress(AnswerError):
            found = answers.find(text, exercise, "", by_name=True, lookup=lambda name: _helper(shell.user_ns, name))
            if found:
                return None if f'exercise("{exercise.id}")' in text else found
    return None


def check(id):
    """Check an exercise: course.check("ex-05-2"). Shows what was expected beside yours, and the likely cause."""
    session = current()
    return session.check(session.exercise(id))


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
