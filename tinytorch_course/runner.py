"""A process that runs the tests of one exercise against a build, and writes down what happened, line by line.

It is started early and waits for its job, so that a check only pays for the tests: `python -m tinytorch_course.runner`
reads the job as one line of JSON from its standard input.
"""

import importlib.util
import json
import os
import re
import sys
import threading
import warnings
from pathlib import Path

import pytest

from . import live
from .answers import Answer
from .checking import Job
from .explain import explain
from .lessons import Exercise, Wrong

MOST_COMPARED = 8  # tests, to recognise a typical mistake by how they fail
NO_FAULTS = ("UserWarning", "DeprecationWarning", "FutureWarning")  # in an answer; in our own tests they are errors
# what tests import, and knows nothing of tinytorch
PRELOADED = ("numpy.testing", "safetensors.numpy", "tqdm", "hypothesis")


def main():
    for name in PRELOADED:
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    line = sys.stdin.readline()
    if line.strip():
        job = Job(**json.loads(line))
        end = threading.Timer(job.limit + 30, os._exit, [1])  # whoever started it may be gone
        end.daemon = True
        end.start()
        run(job)


def run(job):
    """Run the tests of a job in this process, which must not have imported tinytorch."""
    os.chdir(Path(job.record).parent)  # for files that an answer writes
    with open(job.record, "a", encoding="utf-8") as record:
        run_tests(job.build, job.root, job.files, Checking(job.exercise, job.answer, record))


def run_tests(package, root, files, plugin):
    """Run the tests that the plugin selects, in the present folder, with the package imported from its own folder."""
    os.environ |= {"MPLBACKEND": "Agg", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    settings = ["-c", str(Path(root) / "pyproject.toml"), "--rootdir", root, "--color=no", "--tb=no", "-rN"]
    settings += ["--basetemp", str(Path.cwd() / "tmp")]  # shared with no other check
    settings += [f"-Wdefault::{category}" for category in NO_FAULTS]
    sys.path[:0] = [package, root]
    try:
        with warnings.catch_warnings(action="ignore"):  # a backslash in a docstring is no fault
            importlib.import_module("tinytorch")
    except Exception as error:
        plugin.write(event="not imported", message=f"{type(error).__name__}: {error}")
        return
    status = pytest.main(["-q", "-p", "no:cacheprovider", *settings, *files], plugins=[plugin])
    plugin.write(event="end", status=int(status))


class Checking:
    """The pytest plugin: selects the exercise's tests, explains the first failure, and recognises typical mistakes."""

    def __init__(self, exercise, answer, record):
        """The exercise and the answer (None for a hole) as dicts; record: an open file for the events."""
        wrong = tuple(Wrong(**wrong) for wrong in exercise["wrong"])
        self.exercise, self.record = Exercise(**exercise | {"wrong": wrong}), record
        self.answer = Answer(**answer) if answer else None
        self.gates, self.compared, self.failed, self.replaying = set(), None, {}, False

    def write(self, **event):
        self.record.write(json.dumps(event) + "\n")
        self.record.flush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        items[:] = kept = [item for item in items if self.exercise.id in exercises_of(item)]
        self.gates = {item.nodeid for item in kept}
        imported = getattr(sys.modules.get("tinytorch"), "__file__", None)
        self.write(event="start", tests=len(kept), imported=imported)

    def pytest_collectreport(self, report):
        if report.failed:
            self.write(event="not collected", message=str(report.longrepr)[-3000:])

    def pytest_runtest_logstart(self, nodeid, location):
        if not self.replaying and nodeid in self.gates:
            self.write(event="test", test=nodeid)

    def pytest_runtest_setup(self):
        """Every run of a test draws the same numbers, so that two failures can be compared."""
        sys.modules["tinytorch"].manual_seed(0)

    def pytest_assertrepr_compare(self, config, op, left, right):
        if op == "==":
            self.compared = left, right

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.failed and item.nodeid in self.gates:
            student = (self.exercise.file, self.exercise.qualname)
            report.explained = explain(item, call.excinfo, self.compared, student) | {"printed": report.capstdout}
        self.compared = None
        return report

    def pytest_runtest_logreport(self, report):
        if report.nodeid not in self.gates:
            return
        seconds = round(report.duration, 3)
        if report.failed:
            if not self.replaying:
                said = f"{report.explained['error']}: {report.explained['message']}"[:300]
                failure = None if self.failed else report.explained
                self.write(event="failed", test=report.nodeid, seconds=seconds, said=said, failure=failure)
            self.failed.setdefault(report.nodeid, _trace(report.explained))
        elif report.skipped and report.when == "call":  # not by a mark, but from within
            self.failed.setdefault(report.nodeid, ["", "skipped", "", "", ""])
            if not self.replaying:
                self.write(event="evaded", test=report.nodeid)
        elif not self.replaying and (report.when == "call" or report.skipped):
            self.write(event=report.outcome, test=report.nodeid, seconds=seconds)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session):
        result = yield
        if self.failed and self.answer:
            self.recognise([item for item in session.items if item.nodeid in self.failed][:MOST_COMPARED])
        return result

    def recognise(self, items):
        """Run the tests that failed with each typical mistake in the answer's place: which one fails in the same way?

        The one that does so for the most tests, from the first one on; none, where the first already differs.
        """
        mine = [self.failed[item.nodeid] for item in items]
        best, most = None, 0
        for wrong in self.exercise.wrong:
            live.install(self.exercise, Answer(self.exercise.id, wrong.code.strip("\n") + "\n"))
            alike = 0
            while alike < len(items) and self.again(items[alike]) == mine[alike]:
                alike += 1
            if alike > most:
                best, most = wrong, alike
        if best:
            self.write(event="recognised", name=best.name, message=best.message)

    def again(self, item):
        """How a test fails now, or None."""
        self.failed = {}
        self.replaying = True
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return self.failed.get(item.nodeid)


def exercises_of(item):
    """The ids of the exercises that a test gates. Comparisons with PyTorch are for those who have it, and gate none."""
    if item.get_closest_marker("oracle"):
        return []
    return [mark.args[0] for mark in item.iter_markers("exercise")]


def _trace(failure):
    """By what a failure is compared with another one: what it says, without addresses in memory."""
    said = [failure[key] or "" for key in ("error", "message", "expected", "got", "place")]
    return [re.sub(r"0x[0-9a-f]{6,}", "0x", text) for text in said]


if __name__ == "__main__":
    main()
