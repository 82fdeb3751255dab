"""A process that runs the tests of one exercise against a build, and writes down what happened, line by line.

It is started early and waits for its job, so that a check only pays for the tests: `python -m tinytorch_course.runner`
reads the job as one line of JSON from its standard input.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from . import live
from .answers import Answer
from .checking import Job
from .explain import explain
from .lessons import Exercise, Wrong

PRELOADED = ("numpy", "safetensors", "tqdm", "hypothesis")  # what tests import, and knows nothing of tinytorch


def main():
    for name in PRELOADED:
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    line = sys.stdin.readline()
    if line.strip():
        run(Job(**json.loads(line)))


def run(job):
    """Run the tests of a job in this process, which must not have imported tinytorch."""
    sys.path[:0] = [job.build, job.root]
    os.environ |= {"MPLBACKEND": "Agg", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    settings = ["-c", str(Path(job.root) / "pyproject.toml"), "--rootdir", job.root]
    with open(job.record, "a", encoding="utf-8") as record:
        plugin = Checking(job, record)
        status = pytest.main(["-q", "-p", "no:cacheprovider", *settings, *job.files], plugins=[plugin])
        plugin.write(event="end", status=int(status))


class Checking:
    """The pytest plugin: selects the exercise's tests, explains the first failure, and recognises typical mistakes."""

    def __init__(self, job, record):
        job.exercise["wrong"] = tuple(Wrong(**wrong) for wrong in job.exercise["wrong"])
        self.exercise, self.record, self.build = Exercise(**job.exercise), record, job.build
        self.answer = Answer(**job.answer) if job.answer else None
        self.compared, self.explained = None, False

    def write(self, **event):
        self.record.write(json.dumps(event) + "\n")
        self.record.flush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        wanted = self.exercise.id
        kept = [item for item in items if any(mark.args[0] == wanted for mark in item.iter_markers("exercise"))]
        items[:] = kept
        imported = getattr(sys.modules.get("tinytorch"), "__file__", None)
        self.write(event="start", tests=len(kept), imported=imported)

    def pytest_collectreport(self, report):
        if report.failed:
            self.write(event="not collected", message=str(report.longrepr)[-3000:])

    def pytest_runtest_logstart(self, nodeid, location):
        self.write(event="test", test=nodeid)

    def pytest_assertrepr_compare(self, config, op, left, right):
        if op == "==":
            self.compared = left, right

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.failed:
            student = (self.exercise.file, self.exercise.name)
            report.explained = explain(item, call.excinfo, self.compared, student) | {"printed": report.capstdout}
        self.compared = None
        return report

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.write(event="failed", test=report.nodeid, failure=report.explained if not self.explained else None)
            self.explained = True
        elif report.when == "call" or report.skipped:
            self.write(event=report.outcome, test=report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        before = self.explained
        result = yield
        if self.explained and not before and self.answer:
            self.recognise(item, nextitem)
        return result

    def recognise(self, item, nextitem):
        """Run the test that failed with each typical mistake in the answer's place: which one fails in the same way?"""
        from _pytest.runner import runtestprotocol  # as pytest-rerunfailures does; pytest has no public way

        def failure():
            item._initrequest()
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            return next((_trace(report.explained) for report in reports if report.failed), None)

        mine = failure()
        for wrong in self.exercise.wrong:
            live.install(self.exercise, Answer(self.exercise.id, wrong.code.strip("\n") + "\n"))
            if failure() == mine:
                self.write(event="recognised", name=wrong.name, message=wrong.message)
                break
        live.install(self.exercise, self.answer)


def _trace(failure):
    """By what a failure is compared with another one."""
    return [failure[key] for key in ("error", "message", "expected", "got")]


if __name__ == "__main__":
    main()
