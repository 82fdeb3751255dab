"""Running the milestones' scripts as a user runs them, and reading what they leave behind."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

MILESTONES = Path(__file__).parents[1] / "milestones"


def load_script(script):
    """A script as a module, without running it: its folder's name is none that `import` could take.

    What lies beside it can be imported, as when Python runs it.
    """
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(script.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(script.parent))
    return module


def run(script, out, *arguments, **settings):
    """The finished process of a script with its results in `out`, without a terminal."""
    return subprocess.run(
        [sys.executable, script, "--out", out, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **settings,
    )


def whole_run(script, *arguments):
    """A fixture for a module of tests: one whole run of a script, (its process, its folder)."""

    @pytest.fixture(scope="module")
    def trained(tmp_path_factory):
        out = tmp_path_factory.mktemp(script.stem)
        return run(script, out, *arguments), out

    return trained


def read_metrics(out):
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
