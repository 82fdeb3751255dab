"""A pytest plugin that selects the tests of exercises and writes down what was collected and what failed."""

import json
import sys
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--exercises-only", action="store_true", help="only tests that gate an exercise")
    parser.addoption("--record", help="the file for the record, JSON")


def pytest_configure(config):
    config.pluginmanager.register(Recorder(config))


class Recorder:
    """What one run imported, collected and found."""

    def __init__(self, config):
        self.config = config
        self.record = {"imported": None, "tests": {}, "not_collected": [], "failed": {}}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        if config.getoption("exercises_only"):
            kept = [item for item in items if self.marks(item)]
            config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
            items[:] = kept
        for item in items:
            self.record["tests"][item.nodeid] = [[*mark.args, mark.kwargs] for mark in self.marks(item)]

    @staticmethod
    def marks(item):
        return list(item.iter_markers("exercise"))

    def pytest_collectreport(self, report):
        if report.failed:
            self.record["not_collected"].append([report.nodeid, str(report.longrepr)[-2000:]])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.record["failed"][report.nodeid] = str(report.longrepr)[-2000:]

    def pytest_sessionfinish(self):
        self.record["imported"] = getattr(sys.modules.get("tinytorch"), "__file__", None)
        Path(self.config.getoption("record")).write_text(json.dumps(self.record), encoding="utf-8")
