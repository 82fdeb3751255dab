"""A warden: the process that starts sandboxed processes, watches them, ends them, and says what came of each.

It never runs a student's code. What that code needs and what knows nothing of tinytorch (NumPy, pytest) it has loaded
before, so that each new process is a copy of it and begins at once. It reads a task from each line of its standard
input, and answers with a line: `python -m tinytorch_course.grading.warden`.
"""

import base64
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import select
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from .sandbox import Limits, enter

LARGEST_OUTPUT = 25_000_000  # bytes that come back from one process
LARGEST_SCRATCH = 100_000_000  # bytes of all files that it writes
LARGEST_FILE = 50_000_000
KEPT = 4000  # bytes of what it says on its standard error
PATIENCE = 0.25  # seconds between two looks at what is going on
PRELOADED = (
    "numpy", "safetensors.numpy", "tqdm", "matplotlib", "threadpoolctl", "hypothesis.strategies", "pytest", "pyseccomp",
)  # fmt: skip
KEPT_VARIABLES = ("PATH", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHASHSEED")


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    ended: "well", or why it was ended or ended by itself: "timeout", "output" (too much was written), "crashed".
    output: what it wrote for us; said: the last of its standard error.
    """

    ended: str
    output: bytes = b""
    said: str = ""
    seconds: float = 0.0


# ---- in the process that asks


class Warden:
    """A warden's process, and the way to it. One task at a time. A context manager."""

    def __init__(self):
        self.process, self.closed = None, False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def run(self, task, seconds):
        """The Outcome of a task: {"kind": ..., "limits": ..., ...}; it is ended after so many seconds.

        Raises InterruptedError after `close`.
        """
        if self.closed:
            raise InterruptedError("The grading was stopped.")
        if self.process is None:
            self.process = _start()
        process, answer = self.process, None
        late = threading.Timer(seconds + 30, _kill, [process.pid])  # the warden itself does not answer
        late.start()
        try:
            process.stdin.write(json.dumps(task | {"seconds": seconds}) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline() or "null")
        except (OSError, ValueError):  # it was ended in the middle of a line
            pass
        finally:
            late.cancel()
        if answer is None:
            self.process = None
            _end(process)
            if self.closed:
                raise InterruptedError("The grading was stopped.")
            return Outcome("crashed", said="The process that watches over it was ended, too.")
        return Outcome(**answer | {"output": base64.b64decode(answer["output"])})

    def close(self):
        """End the process and what it watches over, also from another thread."""
        self.closed = True
        if self.process:
            _end(self.process)


def _end(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        _kill(process.pid)
        process.wait()
    process.stdin.close()
    process.stdout.close()


def _start():
    variables = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "tinytorch_course.grading.warden"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=variables | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        start_new_session=True,
    )


def _kill(pid):
    """End a process and all of its group."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


# ---- in the warden's process


def main():
    for name in PRELOADED:
        if importlib.util.find_spec(name.partition(".")[0]):
            with contextlib.suppress(RuntimeError):  # pyseccomp where there is no libseccomp
                importlib.import_module(name)
    importlib.import_module("tinytorch_course.grading.tasks")
    gc.freeze()  # a collection in a copy of this process need not go through all of that
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # not before what it watches over has ended
    asked_by = os.getppid()
    while _one_task(asked_by):
        pass


def _one_task(asked_by):
    """Do a task in a copy of this process: no later one finds anything of it in memory. False after the last one."""
    running, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_copy()
    os.close(held)
    try:
        while not select.select([running], [], [], PATIENCE)[0]:  # until the copy has ended
            if os.getppid() != asked_by:
                sys.exit()
    except SystemExit:
        os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(running)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _in_copy():
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what loses its parent becomes our child
            ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG: it ends with the warden
        if line := sys.stdin.readline():
            print(json.dumps(_run(json.loads(line), os.getppid())), flush=True)
            os._exit(0)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(1)


def _run(task, asked_by):
    started = time.monotonic()
    folder, pid = Path(tempfile.mkdtemp(prefix="tinytorch-grading-")), None
    try:
        scratch = folder / "scratch"
        scratch.mkdir()
        folder.chmod(0o711)  # for another user to get to the scratch folder, and not to see what else is there
        output, said = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(task, scratch, output[1], said[1])
        os.close(output[1])
        os.close(said[1])
        answer = _watch(pid, output[0], said[0], scratch, started + task["seconds"], asked_by)
        pid = None
    finally:
        if pid:
            _kill(pid)
        _remove(folder)
    return answer | {"seconds": round(time.monotonic() - started, 3)}


def _remove(folder):
    """Remove a folder that somebody has filled."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # it is very deep, or has folders in it that cannot be listed
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, folder], stderr=subprocess.DEVNULL)


def _child(task, scratch, output, said):
    """The sandboxed process; it does not come back."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for source, place in ((nothing, 0), (nothing, 1), (said, 2), (output, 3)):
            os.dup2(source, place)  # the pipes' own numbers are above these
        os.closerange(4, 1024)
        variables = {"HOME": str(scratch), "TMPDIR": str(scratch), "MPLCONFIGDIR": str(scratch)}
        os.environ.update(variables)
        os.chdir(scratch)
        tempfile.tempdir, sys.dont_write_bytecode = None, True
        tasks = sys.modules["tinytorch_course.grading.tasks"]
        limits = Limits(**task["limits"] | {"seconds": round(task["seconds"]) + 5, "file": LARGEST_FILE})
        task["missing"] = enter(limits, scratch)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: it ends with the warden
        tasks.KINDS[task["kind"]](task, 3)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _watch(pid, output, said, scratch, deadline, asked_by):
    """Wait for a process, and end it where it takes too long or writes too much, or nobody asks for it any more.

    What it has started ends with it.
    """
    found, selector = {output: bytearray(), said: bytearray()}, selectors.DefaultSelector()
    for pipe in found:
        selector.register(pipe, selectors.EVENT_READ)
    looked, ended, status = time.monotonic(), None, None
    while status is None:
        _read(selector, found, said, PATIENCE)
        now = time.monotonic()
        if now > looked + PATIENCE:
            looked, full = now, _size(scratch, pid) > LARGEST_SCRATCH
            ended = "timeout" if now > deadline else "output" if full else None
        if len(found[output]) > LARGEST_OUTPUT:
            ended = "output"
        if os.getppid() != asked_by:
            sys.exit()
        if ended:
            _kill(pid)
        status = _status(pid, wait=ended is not None)
    _kill(pid)
    _end_children()
    _read(selector, found, said, 0)
    selector.close()
    for pipe in found:
        os.close(pipe)
    return {
        "ended": ended or _how(status),
        "output": base64.b64encode(found[output][:LARGEST_OUTPUT]).decode(),
        "said": found[said].decode(errors="replace"),
    }


def _read(selector, found, said, patience):
    """Read what there is in the pipes, or comes within so many seconds; at the end of both, wait no longer."""
    for key, _ in selector.select(patience if selector.get_map() else 0.001):
        content = os.read(key.fd, 1 << 20)
        found[key.fd] += content
        if not content:
            selector.unregister(key.fd)
    del found[said][:-KEPT]


def _status(pid, wait):
    """The exit status of a process, or None while it runs."""
    ended, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _how(status):
    return "well" if status == 0 else "timeout" if status == -signal.SIGXCPU else "crashed"


def _size(folder, pid):
    """Bytes of all files below a folder, and of those without a name that a process has open.

    No more than is allowed is counted. A folder that cannot be looked into is too much.
    """
    total, waiting = _open_bytes(pid), [os.fspath(folder)]
    while waiting and total <= LARGEST_SCRATCH:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += 4096 + entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if total > LARGEST_SCRATCH:
                        break
        except FileNotFoundError:  # it is being changed
            continue
        except OSError:
            return LARGEST_SCRATCH + 1
    return total


def _open_bytes(pid):
    total = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{name}")
                total += 0 if status.st_nlink else status.st_blocks * 512
    return total


def _end_children():
    """End what a process has started and left behind, also in a session of its own."""
    with contextlib.suppress(ChildProcessError):  # there is none any more
        while os.waitpid(-1, os.WNOHANG)[0] or _kill_children():
            time.sleep(0.001)


def _kill_children():
    import psutil  # hardly ever needed: where processes cannot be forbidden

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    return True


if __name__ == "__main__":
    main()
