"""What `pytest` needs to test a submission: `pytest tests/05_autograd --submission alice.zip`.

The root conftest.py takes its hooks from here. Which tinytorch is tested is decided before any test is collected: it is
imported at once, and the run ends where it came from another place than it should.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from . import build
from .lessons import ROOT, read_lessons
from .runner import exercises_of
from .submissions import SubmissionError, read


def pytest_addoption(parser):
    group = parser.getgroup("tinytorch")
    group.addoption("--submission", metavar="PATH", help="test what a student handed in: .py, .ipynb, zip or folder")
    group.addoption("--package", metavar="DIR", help="test the package DIR/tinytorch")


def pytest_configure(config):
    config.pluginmanager.register(Gate(config), "tinytorch-gate")


class Gate:
    """One run of pytest: what it tests, and what came of each exercise."""

    def __init__(self, config):
        self.config = config
        path = config.getoption("submission") or os.environ.get("TINYTORCH_SUBMISSION")
        package = config.getoption("package")
        self.outcomes, self.theirs, self.submission = {}, [], None
        if path:
            package = self._built(path)
        self.package = Path(package or ROOT)
        if package or "tinytorch" not in sys.modules:
            try:
                build.import_from(self.package)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
                raise pytest.UsageError(f"{self.package}/tinytorch cannot be imported. {said}") from error

    def _built(self, path):
        """A package of the submission's answers in the reference."""
        lessons = read_lessons()
        try:
            self.submission = read(path, lessons)
        except SubmissionError as error:
            raise pytest.UsageError(str(error)) from error
        tested = _lessons_of(self.config, lessons) or {exercise.lesson for exercise in self.submission.answers}
        self.folder = tempfile.TemporaryDirectory(prefix="tinytorch-submission-")
        changed, theirs, notes = build.of_submission(self.submission.answers, lessons, max(tested, default=""))
        self.theirs = [e.id for lesson in lessons for e in lesson.exercises if e in theirs]
        self.submission.notes += notes
        return build.write(changed, self.folder.name)

    # ---- what is said

    def pytest_report_header(self):
        if self.submission is None:
            return f"tinytorch: {'the reference' if self.package == ROOT else self.package}"
        theirs = (
            f"{', '.join(self.theirs)} student, rest reference" if self.theirs else "nothing student, all reference"
        )
        return [f"grading: {self.submission.path} ({theirs})", *(f"  note: {note}" for note in self.submission.notes)]

    def pytest_runtest_logreport(self, report):
        skipped = report.skipped and report.when == "setup"  # by a mark; in the test itself it is no pass
        for id in getattr(report, "exercises", ()) if not skipped else ():
            outcome = self.outcomes.setdefault(id, {})
            if report.passed:
                outcome.setdefault(report.nodeid, "")
            else:
                crash = getattr(report.longrepr, "reprcrash", None)
                outcome[report.nodeid] = crash.message.partition("\n")[0] if crash else report.outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        report.exercises = exercises_of(item)
        return report

    def pytest_terminal_summary(self, terminalreporter):
        if self.submission is not None and self.outcomes:
            terminalreporter.section("points")
            for line in table(self.outcomes, self.theirs):
                terminalreporter.line(line)

    def pytest_sessionfinish(self, session):
        missing = set(self.outcomes) - set(self.theirs)
        if self.submission is not None and missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED  # the reference passed in their place

    def pytest_unconfigure(self):
        if self.submission is not None:
            self.folder.cleanup()


def table(outcomes, theirs):
    """The lines of the closing table: exercise, points, got, why."""
    exercises = {exercise.id: exercise for lesson in read_lessons() for exercise in lesson.exercises}
    rows, sums = [("exercise", "points", "got", "why")], [0, 0]
    for id, exercise in exercises.items():
        if id in outcomes:
            failed = [why for why in outcomes[id].values() if why]
            why = f"{len(failed)} of {len(outcomes[id])} tests: {failed[0]}" if failed else ""
            why = why if id in theirs else "not attempted"
            got = 0 if why else exercise.points
            sums = [sums[0] + exercise.points, sums[1] + got]
            rows.append((f"{id} {exercise.title}", str(exercise.points), str(got), why[:90]))
    rows.append(("all", str(sums[0]), str(sums[1]), ""))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    sides = (str.ljust, str.rjust, str.rjust, str.ljust)
    return ["  ".join(side(c, w) for side, c, w in zip(sides, row, widths)).rstrip() for row in rows]


def _lessons_of(config, lessons):
    """The numbers of the lessons whose folders of tests were named."""
    named = {Path(argument.partition("::")[0]).absolute() for argument in config.args}
    folders = {lesson.number: ROOT / "tests" / lesson.folder for lesson in lessons}
    return {number for number, folder in folders.items() if any(folder in (path, *path.parents) for path in named)}
