"""A class of hostile students, graded by the command line, and the world around it before and after."""

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tinytorch_course.lessons import ROOT

from . import files, names, submissions

KINDS = ("endings", "surroundings", "cheats", "thefts")
FORMATS = ("csv", "junit", "gradescope", "plagiarism")
SECONDS = 6  # for an exercise


class Listeners:
    """Sockets to which nothing comes, unless a sandbox has a hole."""

    def __init__(self, folder):
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.others = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, *[socket.AF_UNIX] * 2)]
        addresses = ("127.0.0.1", self.port), str(folder / "listener"), f"\0hostile{self.port}"
        for listener, address in zip(self.others, addresses):
            listener.bind(address)
        for listener in (self.tcp, *self.others):
            listener.setblocking(False)

    def heard(self):
        """What came, of all of them."""
        found = []
        for hear in (self.tcp.accept, *(other.recv for other in self.others)):
            try:
                found.append(hear() if hear == self.tcp.accept else hear(100))
            except BlockingIOError:
                continue
        return found

    def close(self):
        for listener in (self.tcp, *self.others):
            listener.close()


class Class:
    """A class of submissions in a folder, how grading it ended, and the world around it before and after."""

    def __init__(self, base, only=None, *options):
        self.base, self.folder, self.out, self.canary = base, base / "submissions", base / "out", base / "canary"
        for folder in (self.folder, self.out, self.canary, base / "tmp"):
            folder.mkdir()
        (self.canary / "mine.txt").write_text("mine")
        self.listeners = Listeners(self.canary)
        libc = ctypes.CDLL(None)
        self.kernel = libc.shmget(0, 4096, 0o1600), libc.semget(0, 1, 0o1600), libc.msgget(0, 0o1600)
        self.attacks, self.files, self.honest = {}, {}, {}
        self._hand_in(only)
        self.before, started = self.world(), time.monotonic()
        self.ran = self._grade(*options)
        self.seconds = time.monotonic() - started
        self.error = self.ran.stderr.strip().rpartition("\n")[2] if self.ran.returncode else ""
        self.after, self.heard = self.world(), self.listeners.heard()
        self.listeners.close()
        found = [json.loads(path.read_text()) for path in self.out.glob("05_autograd/*/grade.json")]
        self.grades = {grade["file"]: grade for grade in found}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        libc, (segment, semaphore, queue) = ctypes.CDLL(None), self.kernel
        libc.shmctl(segment, 0, None), libc.semctl(semaphore, 0, 0), libc.msgctl(queue, 0, None)
        subprocess.run(["rm", "-rf", self.folder], check=True)  # it is too deep for those who clean up after pytest

    def of(self, file):
        """What was found about a file. Raises AssertionError where nothing was."""
        assert file in self.grades, f"{file} was not graded. {self.error[-300:]}"
        return self.grades[file]

    def _hand_in(self, only):
        for kind in KINDS:
            given = {"CANARY": str(self.canary), "PORT": self.listeners.port, "KERNEL": self.kernel}
            for student, text, attacks in submissions(kind, only, **given):
                files.python(self.folder, f"{student}.py", text)
                self.attacks |= {attack.name: (f"{student}.py", id) for id, attack in attacks.items()}
        for name, (make, *_) in files.MADE.items():
            if only is None or name in only:
                self.files[name] = make(self.folder)
        if only is None:
            self.honest = names.make(self.folder)

    def _grade(self, *options):
        """The command that grades the class. It has an end."""
        command = [sys.executable, "-m", "tinytorch_course", "grade", "05", str(self.folder), "--out", str(self.out)]
        command += ["--timeout", str(SECONDS), "--memory", "1500", "--jobs", "4", *options]
        command += [f"--{name}={self.base / name}" for name in FORMATS] + ["--feedback", str(self.base / "feedback")]
        environment = os.environ | {"TMPDIR": str(self.base / "tmp"), "PATH": f"{os.environ['PATH']}:{self.base}"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)

    def world(self):
        """{what: how it is}, of all that an answer must not change."""
        places = [self.canary, self.base, ROOT, ROOT / "tests", Path("/tmp"), Path("/dev/shm"), Path.home()]
        tables = [Path("/proc/sysvipc", name).read_text().splitlines() for name in ("shm", "msg", "sem")]
        return {
            "the canary": [_status(path) for path in [self.canary, *sorted(self.canary.iterdir())]],
            "its text": (self.canary / "mine.txt").read_text(),
            "new files": [str(path) for place in places for path in place.glob(f"*hostile{self.listeners.port}*")],
            "the repository": [(ROOT / name).read_text() for name in ("conftest.py", "tinytorch/__init__.py")],
            "the kernel": [line.split()[:4] for table in tables for line in table],  # of queues with what is in them
            "processes": self.processes(),
            "folders of the grader": self.left_behind(),
        }

    def processes(self):
        """Command lines of the processes that were started from this class's grading."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.base) in process.environ().get("PATH", ""):
                    found.append(process.cmdline())
            except psutil.Error:  # it has ended, or is somebody else's
                continue
        return found

    def left_behind(self):
        """Folders of the grader that nobody is in any more."""
        folders = [path for place in (Path("/tmp"), self.base / "tmp") for path in place.glob("tinytorch-*-*")]
        return [str(path) for path in folders if (path / "scratch").exists() and not self._in_use(path)]

    @staticmethod
    def _in_use(folder):
        """Whether a process, maybe of somebody else's grading, has it for its own."""
        for process in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if os.readlink(process).startswith(str(folder)):
                    return True
            except OSError:
                continue
        return False


def _status(path):
    """What can be changed of a file without writing into it."""
    found = path.lstat()
    return path.name, found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_size, found.st_mtime
