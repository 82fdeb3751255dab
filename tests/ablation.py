"""Run tests against a copy of tinytorch in which some files are different."""

import json
import multiprocessing
import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest

from tinytorch_course.runner import PRELOADED

ROOT = Path(__file__).parents[1]
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
PROCESSES = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:  # what takes longest to import, and knows nothing of tinytorch, is imported once for all runs
    PROCESSES.set_forkserver_preload([*PRELOADED, "tinytorch_course.runner"])


def run(folder, paths, *options, changed=None, limit=300):
    """The record that `gate_plugin` made of a run of pytest in a process of its own, with what it imported checked.

    folder: an empty one to work in. changed: {file: source} of what is different in the copy that is tested.
    """
    shutil.copytree(ROOT / "tinytorch", folder / "tinytorch")
    for file, source in (changed or {}).items():
        (folder / file).unlink()  # not written into: the compiled file beside it is only fresh for the old one's time
        (folder / file).write_text(source, encoding="utf-8")
    process = PROCESSES.Process(target=_pytest, args=(folder, [*options, *map(str, paths)]))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"The tests of {paths} took longer than {limit} seconds.")
    if not (folder / "record.json").exists():
        raise RuntimeError(f"pytest left no record: {(folder / 'output.txt').read_text()[-2000:]}")
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    if record["imported"] is not None and not Path(record["imported"]).is_relative_to(folder):
        raise RuntimeError(f"The tests ran against {record['imported']}, not against the copy in {folder}.")
    return record


def silence(path=os.devnull):
    """Let all that this process prints, and what it starts, go into a file."""
    with open(path, "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


def _pytest(folder, arguments):
    """Run pytest in the copy's folder, in a process that has not imported tinytorch yet."""
    assert "tinytorch" not in sys.modules
    silence(folder / "output.txt")
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(ROOT), str(ROOT / "tests")]
    with warnings.catch_warnings():
        pytest.main(
            [
                "-q",
                f"--package={folder}",
                "-p",
                "gate_plugin",
                "-p",
                "no:cacheprovider",
                f"--record={folder / 'record.json'}",
                *arguments,
            ]
            + ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before
        )


def plan(folder):
    """{exercise: its points and tests} from the markers of all tests, and what could not be collected."""
    found = run(folder, [ROOT / "tests"], "--collect-only", "--exercises-only")
    gates = {}
    for test, marks in found["tests"].items():
        for name, settings in marks:
            gate = gates.setdefault(name, {"points": set(), "tests": []})
            gate["points"].add(settings.get("points"))
            gate["tests"].append(test)
    return gates, found["not_collected"]
