"""What a sandboxed process does. Each task takes its description (from JSON) and writes what it found to a file."""

import contextlib
import importlib
import json
import os
import socket
import sys
import warnings
from pathlib import Path

import pytest

from .. import runner
from . import probes, reading

CANARIES = Path(__file__).with_name("canaries.py")


def tests(task, output):
    """Run the tests of an exercise, and the canaries; the output is the runner's events, a line of JSON each."""
    with open(output, "w", encoding="utf-8") as record:
        plugin = Grading(task["exercise"], task["answer"], record, task["files"])
        runner.run_tests(task["package"], task["root"], [*task["arguments"], str(CANARIES)], plugin)


class Folder(pytest.Directory):
    """A folder in which pytest goes straight to the tests: what else is there, it may not be able to read."""

    def __init__(self, wanted, **settings):
        super().__init__(**settings)
        self.wanted = wanted

    def collect(self):
        for path in self.wanted:
            if path.parent == self.path and path.is_dir():
                yield self.ihook.pytest_collect_directory(path=path, parent=self)
            elif path.parent == self.path:
                yield from self.ihook.pytest_collect_file(file_path=path, parent=self)


class Grading(runner.Checking):
    """The runner's plugin, with canaries before and after the tests."""

    def __init__(self, exercise, answer, record, files):
        super().__init__(exercise, answer, record)
        files = [*map(Path, files), CANARIES]
        self.wanted = sorted({path for file in files for path in (file, *file.parents)})

    def pytest_collect_directory(self, path, parent):
        return Folder.from_parent(parent, path=path, wanted=self.wanted)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        birds = [item for item in items if item.path == CANARIES]
        super().pytest_collection_modifyitems(config, items)
        before = [item for item in birds if "before" in item.callspec.params.values()]
        items[:] = [*before, *items, *(item for item in birds if item not in before)]

    def pytest_runtest_logreport(self, report):
        super().pytest_runtest_logreport(report)
        if report.nodeid not in self.gates and report.when == "call":
            self.write(event="canary", test=report.nodeid.partition("::")[2], outcome=report.outcome)

    def recognise(self, items):
        self.write(event="tests done")  # what follows is only for the feedback
        super().recognise(items)


def probe(task, output):
    """Run the probes of an exercise; the output is an .npz file."""
    sys.path.insert(0, task["package"])
    with warnings.catch_warnings(action="ignore"):
        tt = importlib.import_module("tinytorch")
        chosen = [p for p in probes.load(task["file"]) if p.exercise == task["exercise"]]
        content = probes.pack(probes.collect(chosen, tt, task["seed"]))
    with open(output, "wb") as file:
        file.write(content)


def read(task, output):
    """Read a submission; the output is `reading.prepared` as JSON."""
    with open(output, "w", encoding="utf-8") as file:
        json.dump(reading.prepared(task["path"], task["lesson"], task["prior"]), file)


def attempt(task, output):
    """Try what a student's code should not be able to do; the output is JSON: what could be done, in words.

    What the sandbox itself says that it could not limit comes first: a try may fail for another reason.
    """
    attempts = {
        "reading the reference": lambda: open(task["reference"]).close(),
        "writing outside of its folder": lambda: os.close(os.open(task["elsewhere"], os.O_WRONLY)),
        "the network": lambda: socket.socket().close(),
        "starting processes": lambda: os.fork() or os._exit(0),
        "signals to other processes": lambda: os.kill(os.getppid(), 0),
    }
    done = list(task["missing"])
    for what, act in attempts.items():
        with contextlib.suppress(OSError):
            act()
            done.append(what)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(done, file)


KINDS = {"tests": tests, "probe": probe, "read": read, "attempt": attempt}
