"""The plan of a lesson: which tests each exercise has to pass, as the reference passes them on this machine.

The reference goes through the same sandbox first. What it does not pass there would be nobody's fault, and is said
before anything is graded.
"""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..checking import gates_in
from ..lessons import ROOT
from . import GradingError, probes, verdict
from .sandbox import ITSELF, SYSTEM, without

PYTHON = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})


@dataclass(frozen=True)
class Policy:
    """What is asked of a submission. timeout: seconds for an exercise; memory: MB; tests: folder of hidden tests."""

    prior: str = "reference"
    strict: bool = False
    partial: bool = False
    timeout: float = 30
    memory: int = 3000
    tests: Path | None = None

    def summary(self):
        """As it stands in grade.json: everything that matters to the points."""
        hidden = checksum(sorted(self.tests.rglob("*.py"))) if self.tests else None
        return asdict(self) | {"tests": hidden}


@dataclass
class Gate:
    """The tests of one exercise in one folder, and what the reference does there.

    passes: ids of the tests that it passes. canaries: those that fail, as they must. expected: the probes' arrays.
    """

    exercise: object
    folder: Path
    hidden: bool
    files: list
    passes: list = field(default_factory=list)
    canaries: list = field(default_factory=list)
    expected: dict = field(default_factory=dict)

    def arguments(self):
        """For pytest: the files, or, as soon as they are known, the functions in them: collecting others takes time."""
        if self.hidden:
            return [str(self.folder)]  # the names of tests outside of pytest's own root begin there
        functions = dict.fromkeys(test.partition("[")[0] for test in self.passes)
        return [str(self.folder.parents[1] / function) for function in functions] or self.files


class Plan:
    """The gates of each exercise, and the tasks that a warden is given."""

    def __init__(self, lesson, policy, seed, closed=(), root=ROOT):
        """closed: what no answer may read, beside the course: other submissions, and the grades."""
        self.lesson, self.policy, self.seed, self.root = lesson, policy, seed, Path(root).resolve()
        self.python = self._python([self.root, *closed, *([policy.tests] if policy.tests else [])])
        folders = [(self.root / "tests" / lesson.folder, False)]
        folders += [(Path(policy.tests).resolve(), True)] if policy.tests else []
        self.gates = {
            exercise.id: [
                Gate(exercise, folder, hidden, [str(path) for path in gates_in(folder, exercise)])
                for folder, hidden in folders
            ]
            for exercise in lesson.exercises
        }

    def measure(self, wardens):
        """Run the reference, with one thread for each warden. Raises GradingError where it does not pass."""
        gates = [gate for of_exercise in self.gates.values() for gate in of_exercise]
        with ThreadPoolExecutor(len(wardens.all)) as pool:
            list(pool.map(lambda gate: self._measure(gate, wardens), gates))
        for gate in gates:
            if not (gate.hidden or gate.passes):
                raise GradingError(f"{gate.exercise.id} has no tests in {gate.folder} that could be graded.")
        if self.policy.tests and not any(gate.passes or gate.expected for gate in gates if gate.hidden):
            raise GradingError(
                f"No test in {self.policy.tests} gates an exercise of lesson {self.lesson.number}. A hidden test is a "
                f'test_*.py there with the marker @pytest.mark.exercise("{self.lesson.exercises[0].id}").'
            )

    def _measure(self, gate, wardens):
        with wardens.one() as warden:
            if gate.files:
                outcome = warden.run(self.tests(gate, None, self.root), 4 * self.policy.timeout)
                found = verdict.events_of(outcome)
                if set(found.canaries.values()) - {"failed"}:
                    found.faults.append("A canary, a test that has to fail, does not.")
                if outcome.ended != "well" or found.faults or found.failed or found.not_run:
                    raise GradingError(
                        f"On this machine the reference itself does not pass the tests of {gate.exercise.id} in "
                        f"{gate.folder}: {found.first_reason(outcome)}"
                    )
                gate.passes, gate.canaries = list(found.passed), list(found.canaries)
            if self.policy.strict:
                outcome = warden.run(self.probe(gate, self.root), 4 * self.policy.timeout)
                gate.expected = probes.unpack(outcome.output) if outcome.ended == "well" else {"!": outcome.said}
                raised = [f"{name} {said}" for name, said in gate.expected.items() if "!" in name]
                if raised or not (gate.hidden or gate.expected):
                    why = raised or "there are none"
                    raise GradingError(f"The probes of {gate.exercise.id} cannot be used, on the reference: {why}")

    # ---- tasks for a warden

    def tests(self, gate, answer, package):
        """The task of running the tests of a gate on a package; answer: of the student, as a dict."""
        exercise = asdict(gate.exercise) | {"hints": ()}
        readable = [self.root / name for name in ("tests", "conftest.py", "pyproject.toml")]
        return self._task("tests", package, [*readable, gate.folder], arguments=gate.arguments(), files=gate.files,
                          exercise=exercise, answer=answer, root=str(self.root))  # fmt: skip

    def probe(self, gate, package):
        """The task of running the probes of a gate. No oracle of the public tests can be read there."""
        file = str(gate.folder / probes.FILE)
        return self._task("probe", package, [file], file=file, exercise=gate.exercise.id, seed=self.seed)

    def attempt(self, elsewhere):
        """The task of trying what should not be possible. elsewhere: a file to write to."""
        reference = str(self.root / "tinytorch" / "__init__.py")
        return self._task("attempt", "/nowhere", [], reference=reference, elsewhere=str(elsewhere))

    def reading(self, path):
        """The task of reading a submission; no student's code runs there."""
        wanted = {"path": str(path), "lesson": self.lesson.number, "prior": self.policy.prior}
        return self._task("read", self.root, [path, self.root / "modules"], **wanted)

    def _python(self, closed):
        """Paths with Python, its packages and the system's libraries, and none of the course's in them."""
        copies = [Path(folder) / "tinytorch" for folder in sys.path if (Path(folder) / "tinytorch").is_dir()]
        for prefix in {"/usr", "/usr/local", *PYTHON}:  # of this Python, and of others that can be read
            copies += Path(prefix).glob("lib*/python3*/*-packages/tinytorch")
        inside = [path for path in PYTHON if Path(path).resolve().is_relative_to(self.root)]  # .venv in the clone
        outside = [path for path in (*SYSTEM, *PYTHON) if path not in inside]
        return [*without(outside, [*closed, *copies]), *without(inside, copies)]

    def _task(self, kind, package, readable, **more):
        package = Path(package)
        trusted = package == self.root  # then it is no student's code that runs
        python = [*SYSTEM, *PYTHON] if trusted else self.python
        readable = [*python, ITSELF, self.root / "tinytorch_course", package / "tinytorch", *readable]
        limits = {
            "memory": self.policy.memory * 1_000_000,
            "readable": list(map(str, readable)),
            "listed": [str(package)],  # Python looks there for what there is
            "nobody": not trusted,  # who is root may have closed the reference to all others
        }
        return {"kind": kind, "limits": limits, "package": str(package), **more}


def course_version(lesson, root=ROOT):
    """The version, and a checksum of all that decides on points: when it changes, everything is graded anew."""
    folders = ("tinytorch", "tinytorch_course", f"tests/{lesson.folder}")
    paths = [path for folder in folders for path in (root / folder).rglob("*.py")]
    paths += [*(root / "tests").glob("*.py"), *(root / "modules").glob("*/lesson.toml")]
    paths += [root / "conftest.py", root / "pyproject.toml"]
    try:
        number = version("tinytorch-edu")
    except PackageNotFoundError:
        number = "unknown"
    return f"{number}, {checksum(sorted(paths))[:12]}"


def checksum(paths):
    found = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()
