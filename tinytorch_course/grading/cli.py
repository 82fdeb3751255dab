"""The instructors' commands: `tinytorch grade` and `tinytorch gradescope-zip`."""

import os
import signal
import sys
from pathlib import Path

from .. import files
from ..lessons import ROOT, lessons_of, read_lessons
from . import GradingError


def add_commands(command):
    """Add them to the command `tinytorch`; command(name, run, help) makes a parser."""
    grade_ = command("grade", grade, "grade what a class handed in for a lesson")
    grade_.add_argument("lesson", metavar="LESSON", help="such as 05")
    grade_.add_argument("submissions", type=Path, help="a folder with one file or folder for each student")
    grade_.add_argument("--single", action="store_true", help="SUBMISSIONS is the submission of one student")
    grade_.add_argument("--out", type=Path, default=Path("grades"), metavar="DIR", help="for the grades (%(default)s)")
    grade_.add_argument("--fresh", action="store_true", help="grade again what was graded and has not changed")
    formats = grade_.add_argument_group("what is written beside DIR/NN_name/<student>/grade.json")
    formats.add_argument("--csv", type=Path, metavar="FILE", help="a row a student, a column an exercise")
    formats.add_argument("--gradescope", type=Path, metavar="FILE", help="Gradescope's results.json")
    formats.add_argument("--junit", type=Path, metavar="FILE", help="JUnit's XML")
    formats.add_argument("--feedback", type=Path, metavar="DIR", help="a page of HTML and of Markdown for each student")
    formats.add_argument("--plot", type=Path, metavar="FILE", help="a picture (PNG) of the points and the exercises")
    formats.add_argument("--plagiarism", type=Path, metavar="FILE", help="answers that are alike")
    rules = grade_.add_argument_group("what is asked")
    rules.add_argument("--strict", action="store_true", help="the probes have to agree, too: for points that count")
    rules.add_argument("--partial", action="store_true", help="each test gives its share of an exercise's points")
    rules.add_argument(
        "--prior", choices=("reference", "student"), default="reference", help="whose the earlier lessons are"
    )
    rules.add_argument("--tests", type=Path, metavar="DIR", help="hidden tests of your own, beside the public ones")
    limits = grade_.add_argument_group("limits")
    limits.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="submissions at a time")
    limits.add_argument("--timeout", type=float, default=30, metavar="S", help="seconds for an exercise (%(default)s)")
    limits.add_argument("--memory", type=int, default=3000, metavar="MB", help="for an exercise (%(default)s)")
    zip_ = command("gradescope-zip", make_zip, "make the autograder of a lesson for Gradescope")
    zip_.add_argument("lesson", metavar="LESSON", help="such as 05")
    zip_.add_argument("--out", type=Path, metavar="FILE", help="default: autograder_NN.zip")
    zip_.add_argument("--strict", action="store_true", help="the probes have to agree, too")
    zip_.add_argument("--tests", type=Path, metavar="DIR", help="hidden tests of your own")


def grade(options):
    if not hasattr(os, "fork"):
        raise GradingError("Grading needs Linux or macOS: on Windows, run it in WSL.")
    _check(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing is left behind
    from . import batch, feedback, formats, grader, plagiarism, summary
    from .plan import Policy

    lesson = _lesson(options)
    policy = Policy(
        options.prior, options.strict, options.partial, options.timeout, options.memory,
        options.tests and options.tests.resolve(),
    )  # fmt: skip
    if options.single:
        handed = [grader.alone(options.submissions)]
    else:
        handed = grader.handed_in(options.submissions.resolve())
    grades = batch.grade(handed, lesson, policy, options.out, options.jobs, options.fresh, say=_say)
    for path, text in (
        (options.csv, formats.csv_text),
        (options.gradescope, formats.gradescope_text),
        (options.junit, formats.junit_text),
        (options.plagiarism, plagiarism.report),
    ):
        if path:
            files.write(path, text(grades, lesson))
    for one in grades if options.feedback else ():
        feedback.write(one, lesson, options.feedback)
    if options.plot:
        summary.plot(grades, lesson, options.plot)
    print(summary.text(grades, lesson))


def _say(line):
    print(line, file=sys.stderr, flush=True)


def _lesson(options):
    [lesson] = lessons_of(read_lessons(), [options.lesson[:2]])
    return lesson


def _check(options):
    """Raise GradingError for options that make no sense, before anything is graded."""
    for name, least in (("jobs", 1), ("timeout", 1), ("memory", 500)):
        if not getattr(options, name) >= least:
            raise GradingError(f"--{name} needs to be at least {least}, but is {getattr(options, name):g}.")
    if options.strict and options.partial:
        raise GradingError("--strict gives the points of an exercise or none: leave --partial out.")
    if options.tests and not options.tests.is_dir():
        raise GradingError(f"--tests needs a folder of tests, but {options.tests} is none.")
    if not options.submissions.exists():
        raise GradingError(f"There is nothing at {options.submissions}.")
    if not (ROOT / "tests").is_dir():
        raise GradingError("Grading needs the tests, which are in a clone of the course: pip install -e . there.")


def make_zip(options):
    from . import gradescope_zip

    lesson = _lesson(options)
    path = options.out or Path(f"autograder_{lesson.number}.zip")
    gradescope_zip.build(lesson, path, strict=options.strict, tests=options.tests)
    print(f"{path}: upload it as the autograder of the assignment.")
