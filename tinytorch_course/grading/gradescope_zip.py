"""The autograder of a lesson for Gradescope: a zip with two scripts and the part of the course that grading needs.

Gradescope unpacks it into /autograder/source, runs setup.sh once, and run_autograder for each submission
(https://gradescope-autograders.readthedocs.io/en/latest/specs/).
"""

import io
import shlex
import stat
import zipfile
from pathlib import Path

from .. import files
from ..lessons import ROOT
from . import GradingError

SCRIPTS = Path(__file__).with_name("gradescope")
PROJECT = ("pyproject.toml", "README.md", "LICENSE", "conftest.py")  # pip reads the first three
HIDDEN = "hidden"  # the folder of an instructor's own tests in the zip
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes


def build(lesson, path, strict=False, tests=None, root=ROOT):
    """Write the zip to a path, all of it or nothing. Returns the path.

    strict: the probes have to agree, too. tests: a folder of hidden tests. Raises GradingError where there are none in
    it, and where the course's own are not there.
    """
    content = _course(lesson, Path(root))
    if tests:
        content |= _hidden(Path(tests))
    arguments = [lesson.number, *(["--strict"] if strict else [])]
    words = shlex.join(arguments) + (f' --tests "$root/source/{HIDDEN}"' if tests else "")
    for script in SCRIPTS.iterdir():
        text = script.read_text(encoding="utf-8")  # with the line ends of Linux, wherever it is made
        content[script.name] = text.replace("@ARGUMENTS@", words).encode()
    files.write(path, _packed(content))
    return Path(path)


def _course(lesson, root):
    """{name in the zip: bytes} of what grading a lesson reads."""
    tests = root / "tests"
    if not (tests / lesson.folder).is_dir():
        raise GradingError(
            f"The autograder needs the tests of lesson {lesson.number}, which are in a clone of the course: "
            "pip install -e . there."
        )
    paths = [root / name for name in PROJECT] + list(root.glob("modules/*/lesson.toml"))
    for folder in (root / "tinytorch", root / "tinytorch_course", tests / lesson.folder):
        paths += _files(folder)
    paths += [path for path in tests.glob("*.py") if not path.name.startswith("test_")]
    if any("golden_folders" in path.read_text(encoding="utf-8") for path in (tests / lesson.folder).glob("*.py")):
        paths += [path for path in _files(tests / "golden") if path.suffix != ".py"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _hidden(folder):
    if not list(folder.glob("test_*.py")):
        raise GradingError(f"--tests needs a folder with hidden tests, test_*.py, but {folder} has none.")
    return {f"{HIDDEN}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in _files(folder)}


def _files(folder):
    """All files below a folder, without caches and what is hidden."""
    inside = [path for path in folder.rglob("*") if path.is_file()]
    return [p for p in inside if not any(n.startswith((".", "__pycache__")) for n in p.relative_to(folder).parts)]


def _packed(content):
    """The bytes of a zip; the scripts in it can be run."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.create_system = 3  # Unix, wherever it is made: or else unpacking forgets the mode
            mode = 0o755 if (SCRIPTS / name).is_file() else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, data)
    return packed.getvalue()
