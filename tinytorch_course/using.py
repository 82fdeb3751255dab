"""`--using my_course/`: a milestone's script, run again on the framework that the student wrote."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from . import build, report
from .workspace import Workspace, WorkspaceError

CHILD = "TINYTORCH_USING"  # set for the process that runs on the student's framework


def folder_of_the_student(argv, imported):
    """The folder after `--using`, or the workspace that the script lies in; None for the framework that runs already.

    imported: the file of the tinytorch that this process has imported.
    """
    if CHILD in os.environ:
        return None
    folder, _ = _split(argv)
    inside = Workspace.find(Path(argv[0]).parent)
    if folder is None and inside and not Path(imported).is_relative_to(inside.folder):
        return inside.folder
    return folder


def run_on_theirs(folder, argv):
    """Run the script in a process whose tinytorch is the student's, and say how much of it is. Returns its status."""
    try:
        workspace = Workspace(folder)
        package = build.of_all(workspace)
        print(f"Using {folder}: {report.of(workspace).share}", flush=True)
    except (WorkspaceError, OSError) as error:
        print(f"error: --using: {error}", file=sys.stderr)
        return 2
    paths = [str(package), str(workspace.root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), CHILD: str(package)}
    process = subprocess.Popen([sys.executable, argv[0], *_split(argv)[1]], env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the other process got the signal, too: it saves, and ends by itself
            continue


def _split(argv):
    """The folder after `--using` or None, and all other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--using", type=Path)
    known, others = parser.parse_known_args(argv[1:])
    return known.using, others
