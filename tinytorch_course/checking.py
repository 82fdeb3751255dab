"""A check: the tests of one exercise, run in a process of its own on a build with the student's answer."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import answers, build
from .answers import AnswerError

LIMIT = 60  # seconds for the tests of an exercise; theirs take one or two
EQUAL_FAILURES = 3  # until the next hint is offered


@dataclass
class Job:
    """What to run. `answer` is the student's entry, None for a hole; `record` the file for the events."""

    root: str
    build: str
    files: list
    exercise: dict
    answer: dict | None
    record: str
    limit: float

    def line(self):
        return json.dumps(asdict(self)) + "\n"


@dataclass
class Result:
    """What a check found.

    status: "passed", "failed", "open" (nothing written yet), "unusable" (no Python, or not what can be put in place),
    "timeout" or "crashed". message: why, where no test says it. failure: what the first failing test says (`explain`).
    checked: which text was checked, in words.
    """

    exercise: object
    status: str
    message: str = ""
    tests: int = 0
    passed_tests: int = 0
    failure: dict | None = None
    mistake: str = ""
    checked: str = ""
    advice: list = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self):
        return self.status == "passed"

    @property
    def score(self):
        """Points, as a plain number: all or none."""
        return float(self.exercise.points if self.passed else 0)

    def __repr__(self):
        from .messages import as_text

        return as_text(self)

    def _repr_html_(self):
        from .messages import as_html

        return as_html(self)


class Spare:
    """A runner that is started before it is needed. `take` gives it away and starts the next one."""

    def __init__(self):
        self.process = start() if can_start_processes() else None

    def take(self):
        taken, self.process = self.process, start()
        return taken if taken and taken.poll() is None else start()

    def close(self):
        if self.process:
            self.process.kill()
            self.process.communicate()


def can_start_processes():
    return sys.platform not in ("emscripten", "wasi")


def start():
    """A runner that waits for its job."""
    unwanted = ("PYTEST_", "PYTHONOPTIMIZE", "FORCE_COLOR", "TINYTORCH_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tinytorch_course.runner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env=environment,
        start_new_session=True,
    )


def check(workspace, exercise, answer=None, checked="", spare=None, limit=LIMIT):
    """Check an exercise: the answer that is given, or else what stands in the ledger. Returns a Result.

    What is found is kept in the workspace's progress. spare: a `Spare` to take the process from.
    """
    started = time.perf_counter()
    result = _check(workspace, exercise, answer, checked, spare, limit)
    result.seconds = time.perf_counter() - started
    return result


def _check(workspace, exercise, answer, checked, spare, limit):
    try:
        answer = answer or workspace.answer(exercise)
    except AnswerError as error:
        return Result(exercise, "unusable", str(error))
    if answer is None:
        return Result(exercise, "open", exercise.message)
    version = workspace.keep(exercise, answer)
    checked = checked or f"work/{workspace.lesson_of(exercise).folder}.py"
    checked += f", version {version.number} ({len(answer.text.splitlines())} lines)"
    problem = answers.problem(exercise, answer)
    if problem:
        return Result(exercise, "unusable", problem, checked=checked)
    package = build.to_check(workspace, exercise, answer)
    result = run(exercise, answer, package, workspace.root, spare, limit)
    result.checked = checked
    _note(workspace, exercise, answer, result)
    return result


def _note(workspace, exercise, answer, result):
    """Keep the outcome, and offer a hint to who fails in the same way again and again."""
    with workspace.changing() as progress:
        if result.passed:
            progress.passed(exercise, answer.version)
            return
        failure = result.failure or {}
        what = f"{result.status}: {failure.get('test')}, {failure.get('error')}: {failure.get('message')}"
        times = progress.failed(exercise, what)
        left = len(exercise.hints) - progress.of(exercise).hints
        if times >= EQUAL_FAILURES and left > 0:
            result.advice.append(
                f"This is the same failure for the {_ordinal(times)} time. {left} of {len(exercise.hints)} hints are "
                f'left: course.hint("{exercise.id}"), or `tinytorch hint {exercise.id}`.'
            )


def _ordinal(number):
    return {3: "third", 4: "fourth", 5: "fifth"}.get(number, f"{number}th")


def run(exercise, answer, package, root, spare=None, limit=LIMIT, isolated=None):
    """Run the tests of an exercise on a build. answer: None where the build has a hole there. Returns a Result.

    isolated: whether in a process of its own, which alone can be stopped; by default wherever there are processes.
    """
    isolated = can_start_processes() if isolated is None else isolated
    with tempfile.TemporaryDirectory(prefix="tinytorch-check-") as folder:
        record = Path(folder) / "events.jsonl"
        record.touch()
        job = Job(
            str(root), str(package), files_of(exercise, root), asdict(exercise), asdict(answer) if answer else None,
            str(record), limit,
        )  # fmt: skip
        if isolated:
            ended, said = _in_process(job, spare.take() if spare else start(), limit)
        else:
            _in_this_process(job)
            ended, said = True, ""
        events = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return _result(exercise, package, events, ended, said, limit)


def files_of(exercise, root):
    """The files of tests that gate the exercise: those that name it, and last the one of the probes that do."""
    [folder] = (Path(root) / "tests").glob(f"{exercise.lesson}_*")
    return [str(path) for path in gates_in(folder, exercise)]


def gates_in(folder, exercise):
    """The same for any folder of tests."""
    mark, named = f'"{exercise.id}"', []
    for path in sorted(folder.glob("*.py")):
        if mark in path.read_text(encoding="utf-8"):
            named.append(folder / "test_probes.py" if path.name == "probes.py" else path)
    tests = [path for path in named if path.name.startswith("test_") and path.exists()]
    return sorted(tests, key=lambda path: path.name == "test_probes.py")


def _in_process(job, process, limit):
    """Give a job to a runner. Returns whether it came to its end, and what it said on its standard error."""
    try:
        _, said = process.communicate(job.line(), timeout=limit)
        return True, said
    except subprocess.TimeoutExpired:
        return False, ""
    finally:
        if process.poll() is None:
            _kill(process)
            process.communicate()


def _in_this_process(job):
    """Run a job where there are no processes, as in a browser: without a limit, and with all put back after it."""
    from . import runner

    modules, path, folder = dict(sys.modules), list(sys.path), os.getcwd()
    build.forget_imported()
    try:
        runner.run(job)
    finally:
        ours = (job.build, str(Path(job.root) / "tests"), str(Path(job.root) / "conftest.py"))
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(ours):
                del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:] = path
        os.chdir(folder)


def _kill(process):
    """End a process and all that it has started."""
    if hasattr(os, "killpg"):
        import signal

        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _result(exercise, package, events, ended, said, limit):
    """What the events amount to."""
    by_kind = {}
    for event in events:
        by_kind.setdefault(event["event"], []).append(event)
    tests = sum(event["tests"] for event in by_kind.get("start", ()))
    imported = [event["imported"] for event in by_kind.get("start", ()) if event["imported"]]
    if any(not Path(path).is_relative_to(package) for path in imported):
        raise RuntimeError(f"The tests ran against {imported[0]}, not against {package}.")
    if "failed" in by_kind:
        failed = {event["test"] for event in by_kind["failed"]}
        mistake = next((event["message"] for event in by_kind.get("recognised", ())), "")
        passed = {event["test"] for event in by_kind.get("passed", ())} - failed
        failure = by_kind["failed"][0]["failure"]
        return Result(exercise, "failed", "", tests, len(passed), failure, mistake)
    if "evaded" in by_kind:
        message = f"The answer skipped {len(by_kind['evaded'])} of its {tests} tests."
        return Result(exercise, "failed", message, tests, len(by_kind.get("passed", ())))
    if "not imported" in by_kind:
        message = f"With your answer in it the framework cannot be imported.\n{by_kind['not imported'][0]['message']}"
        return Result(exercise, "crashed", message, tests)
    if "not collected" in by_kind:
        return Result(exercise, "crashed", by_kind["not collected"][0]["message"], tests)
    last = by_kind.get("test", [{"test": "loading"}])[-1]["test"].rpartition("::")[2]
    if not ended:
        message = f"No end after {limit:.0f} seconds, in {last.replace('_', ' ')}. Is there a loop that never ends?"
        return Result(exercise, "timeout", message, tests, len(by_kind.get("passed", ())))
    end = by_kind.get("end")
    ran = len(by_kind.get("passed", ())) + len(by_kind.get("skipped", ()))
    if not end or end[0]["status"] or not by_kind.get("passed") or ran < tests:
        message = f"Python itself ended in {last.replace('_', ' ')}.\n{said[-2000:]}".strip()
        return Result(exercise, "crashed", message, tests, len(by_kind.get("passed", ())))
    return Result(exercise, "passed", "", tests, len(by_kind["passed"]))
