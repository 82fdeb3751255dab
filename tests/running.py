"""Running scripts as a user runs them, alone or on several ranks, and reading what they leave behind."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tinytorch as tt

MILESTONES = Path(__file__).parents[1] / "milestones"
LAUNCHER = ("PMI", "PMIX", "OMPI", "MPI", "WORLD_SIZE", "RANK", "LOCAL_RANK")


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


def run_ranks(n, script, *arguments, timeout=120, **env):
    """The finished process of a script on n ranks, of which the first that fails ends all.

    Skips the test where there is no mpiexec. All processes end within `timeout` seconds, or the test fails.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    mpiexec = shutil.which("mpiexec", path=places)
    if mpiexec is None:
        pytest.skip("there is no mpiexec: install the extra mpi")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER)}
    clean |= {"PYTHONPATH": str(Path(tt.__file__).parents[1]), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [mpiexec, "-n", n, sys.executable, "-W", "error", "-m", "mpi4py", script, *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**clean, **env}, timeout=timeout
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
