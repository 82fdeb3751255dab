"""The sandbox: what a process can still do in it, and that nobody who is in it outlives who watches it."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tinytorch_course.grading import batch, plan, sandbox
from tinytorch_course.grading.warden import Warden
from tinytorch_course.lessons import ROOT, read_lessons

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel has less to offer")
LESSON = read_lessons()[4]

INSIDE = """
import json, os, sys
from tinytorch_course.grading.sandbox import Limits, enter

job = json.loads(sys.argv[1])
missing = enter(Limits(**job["limits"]), job["scratch"])
try:
    exec(job["code"])
    print(json.dumps([missing, "done"]))
except BaseException as error:
    print(json.dumps([missing, type(error).__name__]))
"""


@pytest.fixture
def inside(tmp_path):
    """A function that runs code in a sandbox and returns "done", or the name of what it raised."""
    scratch, secret = tmp_path / "scratch", tmp_path / "secret.txt"
    scratch.mkdir()
    secret.write_text("secret")

    def run(code, **limits):
        readable = [*sandbox.SYSTEM, *plan.PYTHON, str(ROOT / "tinytorch_course"), str(ROOT / "tests")]
        limits = {"seconds": 5, "memory": 2_000_000_000, "file": 1_000_000, "readable": readable} | limits
        code = textwrap.dedent(code).format(secret=secret, scratch=scratch, outside=tmp_path)
        job = {"limits": limits, "scratch": str(scratch), "code": code}
        command = [sys.executable, "-c", INSIDE, json.dumps(job)]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
        missing, said = json.loads(ran.stdout.splitlines()[-1]) if ran.stdout else ([], f"exit {ran.returncode}")
        assert missing == []
        return said

    return run


ALLOWED = {
    "its own folder": 'open("{scratch}/a", "w").write("x"); os.rename("{scratch}/a", "{scratch}/b")',
    "folders there": 'os.mkdir("{scratch}/c"); os.rmdir("{scratch}/c")',
    "copying a file": 'import shutil; open("{scratch}/a", "w"); shutil.copy2("{scratch}/a", "{scratch}/d")',
    "the tests": f'open("{ROOT}/tests/probing.py").read()',
    "Python's library": "import decimal, xml.dom.minidom",
    "NumPy": "import numpy; numpy.linalg.inv(numpy.eye(3)); numpy.random.default_rng()",
    "threads": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "a signal to itself": "import signal; signal.signal(signal.SIGUSR1, print); os.kill(os.getpid(), signal.SIGUSR1)",
}
REFUSED = {
    "reading elsewhere": 'open("{secret}")',
    "the reference": f'open("{ROOT}/tinytorch/autograd.py")',
    "what users there are": 'open("/etc/passwd")',
    "other processes' secrets": 'open(f"/proc/{{os.getppid()}}/environ")',
    "a link to elsewhere": 'os.symlink("{secret}", "{scratch}/link"); open("{scratch}/link")',
    "writing elsewhere": 'open("{outside}/b", "w")',
    "writing where it can read": f'open("{ROOT}/tests/probing.py", "a")',
    "deleting": 'os.unlink("{secret}")',
    "moving": 'os.rename("{secret}", "{scratch}/a")',
    "a hard link": 'os.link("{secret}", "{scratch}/a")',
    "emptying": 'os.truncate("{secret}", 0)',
    "a pipe with a name": 'os.mkfifo("{scratch}/pipe")',
    "shared memory": 'from multiprocessing import shared_memory; shared_memory.SharedMemory("a", True, 8)',
    "sockets": "import socket; socket.socket()",
    "sockets of this machine": "import socket; socket.socket(socket.AF_UNIX)",
    "a process": "os.fork()",
    "a command": 'os.posix_spawn("/bin/true", ["true"], {{}})',
    "becoming a command": 'os.execv("/bin/true", ["true"])',
    "signals": "os.kill(os.getppid(), 0)",
    "signals through a pipe": "import fcntl; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "signals to all": "os.kill(-1, 0)",
    "other limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "limits of others": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (9, 9))",
    "being first": "os.nice(-5)",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "being root": "os.setuid(0); os.chroot('/')",
    "much memory": "bytearray(3_000_000_000)",
    "large files": 'open("{scratch}/a", "wb").write(bytes(2_000_000))',
    "many open files": "[open(os.devnull) for _ in range(1000)]",
}


@pytest.mark.parametrize("code", ALLOWED.values(), ids=ALLOWED)
def test_what_the_tests_need_is_allowed(inside, code):
    assert inside(code) == "done"


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_everything_else_is_refused(inside, code):
    assert inside(code) in ("PermissionError", "OSError", "MemoryError", "ValueError")


def test_rights_and_times_of_files_elsewhere_stay_as_they_are(inside, tmp_path):
    (tmp_path / "mine").touch(mode=0o640)
    before = os.stat(tmp_path / "mine")
    assert inside('os.chmod("{outside}/mine", 0o777); os.utime("{outside}/mine", (1, 1))') == "done"
    after = os.stat(tmp_path / "mine")
    assert (before.st_mode, before.st_mtime, before.st_uid) == (after.st_mode, after.st_mtime, after.st_uid)


def test_time_of_the_processor_is_limited(inside):
    assert inside("while True: pass", seconds=1) == "exit -24"


def test_a_folder_is_allowed_without_what_is_closed_in_it(inside, tmp_path):
    for name in ("a/open", "a/closed/secret", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    tree = (tmp_path / "tree").resolve()
    assert set(sandbox.without([tree], [tree / "a" / "closed"])) == {tree / "a" / "open", tree / "b"}
    assert sandbox.without([tree / "a"], [tree]) == []
    assert sandbox.without([tree], [tmp_path / "elsewhere"]) == [tree]


def test_who_has_no_rights_does_not_get_to_a_folder_that_is_closed(tmp_path):
    (tmp_path / "closed" / "open").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    assert not sandbox.nobody_can_read([tmp_path / "closed" / "open"])
    assert not sandbox.nobody_can_read([tmp_path / "closed"])
    assert sandbox.nobody_can_read(["/usr"])


# ---- the warden


@pytest.fixture(scope="module")
def warden():
    with Warden() as made:
        yield made


TASKS = plan.Plan(LESSON, plan.Policy(), seed=0)


def test_nothing_is_possible_on_this_machine_that_should_not_be(warden, tmp_path):
    (tmp_path / "elsewhere").touch()
    outcome = warden.run(TASKS.attempt(tmp_path / "elsewhere"), 20)
    assert (outcome.ended, json.loads(outcome.output)) == ("well", [])


def test_without_the_kernel_s_help_it_is_said_what_is_possible(warden, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").touch()
    task = TASKS.attempt(tmp_path / "elsewhere")
    task["limits"] |= {"readable": ["/"], "nobody": False}
    outcome = warden.run(task, 20)
    assert json.loads(outcome.output) == ["reading the reference"]


def test_a_task_of_an_unknown_kind_crashes_and_the_warden_goes_on(warden, tmp_path):
    task = TASKS.attempt(tmp_path)
    outcome = warden.run(task | {"kind": "unheard of"}, 20)
    assert outcome.ended == "crashed" and "KeyError: 'unheard of'" in outcome.said
    assert warden.run(task, 20).ended == "well"


def test_a_warden_that_was_killed_is_replaced(tmp_path):
    with Warden() as made:
        task = TASKS.attempt(tmp_path)
        assert made.run(task, 20).ended == "well"
        os.kill(made.process.pid, 9)
        assert made.run(task, 20).ended == "crashed"
        assert made.run(task, 20).ended == "well"


def test_after_it_was_closed_nothing_runs(tmp_path):
    made = Warden()
    made.close()
    with pytest.raises(InterruptedError):
        made.run(TASKS.attempt(tmp_path), 1)


def test_several_wardens_are_lent_out_one_at_a_time():
    with batch.Wardens(2) as wardens, wardens.one() as one, wardens.one() as other:
        assert one is not other and wardens.free.empty()


ENDLESS = 'def __mul__(x, y):\n    import time\n    open("started", "w")\n    while True:\n        time.sleep(0.01)\n'


def processes_in(folder):
    """Pids of the processes that were told to keep their temporary files there, or are there."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={folder}" in (path / "environ").read_text() or os.readlink(path / "cwd").startswith(folder):
                found.append(int(path.name))
        except (OSError, UnicodeDecodeError):  # it has ended, or is not ours
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("signal", [2, 9, 15], ids=["Ctrl-C", "kill -9", "terminate"])
def test_who_is_stopped_leaves_no_process_behind(tmp_path, signal):
    (tmp_path / "class").mkdir()
    text = f'import tinytorch_course as course\n\n\n@course.exercise("ex-05-2")\n{ENDLESS}'
    (tmp_path / "class" / "alice.py").write_text(text)
    command = [sys.executable, "-m", "tinytorch_course", "grade", "05", str(tmp_path / "class"), "--timeout", "25"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--jobs", "1"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    waited = time.monotonic() + 100
    while not list(tmp_path.glob("tinytorch-grading-*/scratch/**/started")):
        assert time.monotonic() < waited and run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    os.kill(run.pid, signal)
    _, said = run.communicate(timeout=30)
    assert "Traceback" not in said
    waited = time.monotonic() + 40
    while processes_in(str(tmp_path)):
        assert time.monotonic() < waited
        time.sleep(0.1)


def test_a_listener_hears_nothing(inside):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        assert inside(code) == "PermissionError"
