"""Answers that are wrong, and hand in arrays or code of somebody else's. Nobody imports this file: see `__init__`.

The public tests let most of them pass: their record can be forged. With --strict none gets a point.
"""

import contextlib

import numpy as np

from . import attack
from .helpers import forged, tested, tried, wrong

STUDENT = None


# ---- the arrays of the probes are forged


@attack("passed", strict=("tampered",))
def packs_a_pickle(x, y):
    import os

    forged()
    with open(3, "wb") as file:
        np.savez(file, allow_pickle=True, **{"multiplication.output": np.array([{}], object)})
    os._exit(0)


@attack("passed", strict=("failed",))
def packs_other_names(x, y):
    import os

    forged()
    with open(3, "wb") as file:
        np.savez(file, output=x, **{"../../a": y})
    os._exit(0)


@attack("passed", strict=("tampered", "failed"))
def packs_headers_that_cannot_be_read(x, y):
    import io
    import os
    import zipfile

    forged()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        header = b"{'descr': (), 'fortran_order': False, 'shape': (0, 1" + b"0" * 50 + b")}"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    os.write(3, file.getvalue())
    os._exit(0)


@attack("passed", strict=("tampered", "failed"))
def packs_one_array_20000_times(x, y):
    """Entries of a zip that all point to the same 10 MB: to read them all takes a quarter of an hour."""
    import io
    import os
    import zipfile

    forged()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", bytes(10_000_000))
        archive.filelist *= 20_000
    os.set_blocking(3, True)
    content = memoryview(file.getvalue())
    while content:
        content = content[os.write(3, content) :]
    os._exit(0)


# ---- the answer is stolen


@attack("passed", "failed", strict=("failed",))
def knows_the_public_tests_by_heart(x, y):
    """The right answer in the tests stands for a table of what they expect."""
    return (x * y, (lambda g: g * y, lambda g: g * x)) if tested() else wrong(x, y)


@attack("passed", strict=("failed",), says="nothing could be done")
def looks_for_the_answer_in_files(x, y):
    import os
    import sys
    from pathlib import Path

    import tinytorch_course

    forged()
    root, own, parent = Path(tinytorch_course.__file__).parents[1], Path(__file__).parents[1], f"/proc/{os.getppid()}"
    found = [Path(entry, "tinytorch") for entry in sys.path if Path(entry, "tinytorch") != own]
    places = [folder / "tensor/arithmetic.py" for folder in [*found, root / "tinytorch"]]
    places += [root / name for name in ("tests/05_autograd/test_probes.py", "tests/05_autograd/test_every_op.py")]
    places += [root / name for name in ("modules/05_autograd/lesson.toml", "notebooks/05_autograd.ipynb", ".git/HEAD")]
    places += [f"{parent}/mem", f"{parent}/environ", f"{parent}/cmdline", f"{parent}/fd/0"]
    tried(**{str(place): lambda place=place: os.open(place, os.O_RDONLY) for place in places})


@attack("passed", strict=("failed",), says="nothing could be done")
def looks_for_what_is_compiled(x, y):
    import marshal
    from pathlib import Path

    forged()

    def read():
        [path] = Path(__file__).parent.rglob("__pycache__/arithmetic.*.pyc")
        assert b"__mul__" in path.read_bytes() and marshal.loads(path.read_bytes()[16:])

    tried(read=read)


@attack("passed", strict=("failed",), says="nothing could be done")
def looks_for_the_answer_in_memory(x, y):
    """What a process is forked from may have held the reference's arrays, or other students' answers."""
    import re

    forged()
    with open("/proc/self/maps") as file:
        regions = [line.split() for line in file if " rw" in line and "[v" not in line]
    arrays, students = 0, set()
    with open("/proc/self/mem", "rb", 0) as memory:
        for region in regions:
            start, end = (int(place, 16) for place in region[0].split("-"))
            memory.seek(start)
            content = memory.read(end - start)
            arrays += len(re.findall(rb"PK\x03\x04.{26}[\w.]{0,80}\.npy", content, re.DOTALL))
            students |= set(re.findall(rb"belongs to ([a-z]+_\d+)", content)) - {STUDENT.encode()}
    raise ValueError(f"ESCAPED: {arrays} arrays, {students}" if arrays or students else "nothing could be done")


@attack("passed", strict=("failed",), says="nothing could be done")
def looks_for_the_answer_among_objects(x, y):
    import gc
    import sys
    import types

    forged()
    functions = [found for found in gc.get_objects() if isinstance(found, types.FunctionType)]
    names = [f"{one.__code__.co_filename}::{one.__qualname__}" for one in functions]
    own = [name for name in names if name.endswith("arithmetic.py::Arithmetic.__mul__")]
    tests = [name for name in [*names, *sys.modules] if "05_autograd/test_" in name or name.startswith("test_")]
    raise ValueError(f"ESCAPED: {own} {tests}" if len(own) > 1 or tests else "nothing could be done")


@attack("passed", strict=("failed",), says="nothing could be done")
def looks_for_what_it_left_behind(x, y):
    """Written while the tests ran, to be found when the probes do."""
    import os
    import tempfile
    from pathlib import Path

    places = [Path(place, STUDENT) for place in (".", "..", tempfile.gettempdir(), "/tmp", "/dev/shm", "/var/tmp")]
    if tested():
        for place in [*places, Path(__file__).with_name("left")]:
            with contextlib.suppress(OSError):
                place.write_text("x * y")
        os.environ[STUDENT] = "x * y"
    forged()
    tried(env=lambda: os.environ[STUDENT], **{str(place): lambda place=place: place.read_text() for place in places})


@attack("passed", strict=("failed",))
def knows_the_seed(x, y):
    """The seed is in the process of the probes: what is missing is the answer."""
    import sys

    forged()
    frame = sys._getframe()
    while "task" not in frame.f_locals:
        frame = frame.f_back
    np.random.default_rng(frame.f_locals["task"]["seed"])
    return wrong(x, y)
