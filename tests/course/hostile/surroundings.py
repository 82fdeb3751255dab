"""Answers that reach for what is outside of their process. Nobody imports this file: see `__init__`.

Should the sandbox fail, each does little harm: it ends by itself, and reaches only for the folder of the test, for new
files, and for processes that the test has started.
"""

from . import attack
from .helpers import tried

CANARY = None
PORT = None
KERNEL = None


# ---- the disk


@attack("crashed", says="far more than there is room for")
def fills_the_disk_with_files():
    import os
    import time

    for i in range(40):
        with open(f"file{i}", "wb") as file:
            file.write(bytes(10**7))
    time.sleep(1)
    os._exit(0)


@attack("crashed", says="far more than there is room for")
def fills_the_disk_with_files_that_have_no_name():
    import os
    import time

    for i in range(20):
        descriptor = os.open(f"file{i}", os.O_CREAT | os.O_WRONLY)  # and never closed
        os.unlink(f"file{i}")
        os.write(descriptor, bytes(20_000_000))
    time.sleep(1)
    os._exit(0)


@attack("failed", "crashed")
def fills_the_disk_with_one_file():
    with open("file", "wb") as file:
        for _ in range(500):
            file.write(bytes(10**6))


@attack("failed", "crashed")
def makes_a_file_with_a_hole():
    with open("file", "wb") as file:
        file.truncate(10**12)


@attack("crashed", "timeout")
def makes_many_empty_files():
    import os
    import time

    for i in range(26_000):
        os.close(os.open(str(i), os.O_CREAT))
    time.sleep(1)
    raise ValueError("ESCAPED: 26000 files")


@attack("crashed")
def hides_files_below_1500_folders():
    import os
    import time

    for _ in range(1500):
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
    with open("hidden", "wb") as file:
        file.write(bytes(1000))
    time.sleep(1)
    os._exit(0)


@attack("crashed", "failed")
def makes_folders_that_nobody_can_list():
    import os

    os.mkdir("closed", 0o300)
    with open("closed/hidden", "wb") as file:
        file.write(bytes(1000))
    os._exit(0)


@attack("failed", says="nothing could be done")
def fills_memory_that_is_nobodys():
    import os

    tried(memfd=lambda: os.memfd_create("hostile"))


# ---- everything else


@attack("failed", says="nothing could be done")
def opens_sockets():
    import socket

    def send(family, kind, address):
        with socket.socket(family, kind) as opened:
            opened.settimeout(1)
            opened.connect(address)
            opened.send(b"hostile")

    tried(
        tcp=lambda: send(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PORT)),
        udp=lambda: send(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", PORT)),
        unix=lambda: send(socket.AF_UNIX, socket.SOCK_DGRAM, f"{CANARY}/listener"),
        abstract=lambda: send(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0hostile{PORT}"),
    )


@attack("failed", says="nothing could be done")
def sends_through_half_a_pair_of_sockets():
    import ctypes
    import socket
    import struct

    def send(address):
        """sendmmsg(2) with an address: a socket of a pair can send elsewhere, too."""
        keep = [ctypes.create_string_buffer(text) for text in (struct.pack("H", socket.AF_UNIX) + address, b"hostile")]
        places = [ctypes.addressof(buffer) for buffer in keep]
        part = ctypes.create_string_buffer(struct.pack("PN", places[1], 7))
        layout = struct.pack("PIxxxxPNPNiI", places[0], 2 + len(address), ctypes.addressof(part), 1, 0, 0, 0, 0)
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        assert ctypes.CDLL(None).sendmmsg(pair[0].fileno(), layout + bytes(16), 1, 0) == 1

    tried(path=lambda: send(f"{CANARY}/listener\0".encode()), abstract=lambda: send(f"\0hostile{PORT}".encode()))


@attack("failed", says="nothing could be done")
def writes_elsewhere():
    import os
    import tempfile
    from pathlib import Path

    import tinytorch_course

    root = Path(tinytorch_course.__file__).parents[1]
    places = [CANARY, f"{CANARY}/../out", f"{CANARY}/../submissions", "/tmp", "/dev/shm", "/root", root, root / "tests"]
    places += [Path(__file__).parent, Path(tempfile.__file__).parent, ".."]
    acts = {str(place): lambda place=place: Path(place, f"hostile{PORT}").write_text("x") for place in places}
    files = [f"{CANARY}/mine.txt", root / "conftest.py", __file__, f"/proc/{os.getppid()}/oom_score_adj"]
    acts |= {str(file): lambda file=file: os.close(os.open(file, os.O_WRONLY | os.O_APPEND)) for file in files}
    tried(**acts)


@attack("failed", says="nothing could be done")
def changes_files_elsewhere():
    import os
    import shutil

    mine = f"{CANARY}/mine.txt"
    os.chmod(mine, 0o777)
    os.utime(mine, (1, 1))
    tried(
        delete=lambda: os.unlink(mine),
        folder=lambda: shutil.rmtree(CANARY),
        move=lambda: os.rename(mine, "mine.txt"),
        replace=lambda: os.rename(os.open("new", os.O_CREAT) and "new", mine),
        link=lambda: os.link(mine, "mine.txt"),
        empty=lambda: os.truncate(mine, 0),
    )


@attack("failed", says="nothing could be done")
def plants_links_in_its_folder():
    import os

    if not os.path.islink("link"):
        os.symlink(CANARY, "link")
        os.symlink(CANARY, "tmp")  # pytest's own folder, which is removed when all is over
    tried(
        write=lambda: open("link/mine.txt", "a").close(),
        read=lambda: open("tmp/mine.txt").close(),
        list=lambda: os.listdir("link"),
        make=lambda: os.mkdir("tmp/made"),
    )


@attack("failed", says="nothing could be done")
def signals_to_others():
    import os

    os.setpgid(0, 0) if os.getpgid(0) != os.getpid() else None
    warden = os.getppid()
    tried(
        kill=lambda: os.kill(warden, 9),
        stop=lambda: os.kill(warden, 19),
        group=lambda: os.killpg(os.getpgid(warden), 15),
        everybody=lambda: os.kill(-1, 0),
        handle=lambda: os.pidfd_open(warden),
    )


@attack("failed", says="nothing could be done")
def leaves_a_daemon_behind():
    import os
    import subprocess
    import threading
    import time

    def daemon(start):
        if start() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)

    tried(
        fork=lambda: daemon(os.fork),
        forkpty=lambda: daemon(lambda: os.forkpty()[0]),
        spawn=lambda: os.posix_spawn("/bin/sleep", ["sleep", "60"], {}),
        subprocess=lambda: subprocess.Popen(["sleep", "60"], start_new_session=True),
        timer=lambda: os.execv("/bin/sleep", ["sleep", "60"]) if threading.active_count() > 99 else 1 / 0,
    )


@attack("failed", says="nothing could be done")
def leaves_something_in_the_kernel():
    import ctypes
    from multiprocessing import shared_memory

    libc = ctypes.CDLL(None, use_errno=True)

    def made(name, *arguments):
        assert getattr(libc, name)(*arguments) >= 0

    tried(
        segment=lambda: made("shmget", 0, 4096, 0o1600),
        queue=lambda: made("msgget", 0, 0o1600),
        semaphores=lambda: made("semget", 0, 1, 0o1600),
        posix_queue=lambda: made("mq_open", b"/hostile", 0o102, 0o600, None),
        key=lambda: made("syscall", 248, b"user", b"hostile", b"x", 1, -3),
        memory=lambda: shared_memory.SharedMemory("hostile", create=True, size=8).unlink(),
    )


@attack("failed", says="nothing could be done")
def removes_what_others_have_in_the_kernel():
    """KERNEL: numbers of a segment of memory, a semaphore and a queue, which belong to the same user."""
    import ctypes

    libc = ctypes.CDLL(None)

    def done(name, *arguments):
        assert getattr(libc, name)(*arguments) == 0

    segment, semaphore, queue = KERNEL
    tried(
        message=lambda: done("msgsnd", queue, b"\1" + bytes(7) + b"hostile", 7, 0o4000),
        segment=lambda: done("shmctl", segment, 0, None),
        semaphore=lambda: done("semctl", semaphore, 0, 0),
        queue=lambda: done("msgctl", queue, 0, None),
    )


@attack("failed", says="nothing could be done")
def takes_more_than_its_share():
    import ctypes
    import os
    import resource

    libc, warden = ctypes.CDLL(None), os.getppid()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]

    def traced():
        assert libc.ptrace(16, warden, 0, 0) == 0

    tried(
        memory=lambda: resource.setrlimit(resource.RLIMIT_AS, (hard + 1, hard + 1)),
        time=lambda: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6)),
        of_others=lambda: resource.prlimit(warden, resource.RLIMIT_CPU, (9, 9)),
        first=lambda: os.nice(-5),
        all_processors=lambda: os.sched_setaffinity(warden, {0}),
        tracing=traced,
        reading=lambda: os.open(f"/proc/{warden}/mem", os.O_RDONLY),
        root=lambda: os.chroot("."),
    )
