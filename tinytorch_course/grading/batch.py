"""A class in one go: several submissions at a time, nothing twice, and nothing lost when it is stopped."""

import contextlib
import json
import queue
import secrets
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from . import GradingError, grader, reading
from .feedback import printable
from .plan import Plan, course_version
from .warden import Warden

OURS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class Wardens:
    """Some wardens, which are lent out one at a time. A context manager."""

    def __init__(self, number):
        self.all, self.free = [Warden() for _ in range(number)], queue.Queue()
        for warden in self.all:
            self.free.put(warden)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        for warden in self.all:
            warden.close()

    @contextlib.contextmanager
    def one(self):
        warden = self.free.get()
        try:
            yield warden
        finally:
            self.free.put(warden)


def grade(submissions, lesson, policy, out, jobs=1, fresh=False, say=print):
    """Grade what was handed in; returns the Grades, in the order of `submissions`.

    out: the folder of the grades, out/NN_name/<student>/grade.json. What is whole there, and belongs to the same
    submission, course and policy, is not run again; fresh: it is. say: called with lines about how it goes.
    Raises GradingError where another run writes to the same folder, or the reference itself does not pass.
    """
    out = Path(out) / lesson.folder
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise GradingError(f"Another run is grading into {out}. Wait for its end, or name another folder.") from error
    try:
        return _grade(submissions, lesson, policy, out, jobs, fresh, say)
    finally:
        lock.release()


def _grade(submissions, lesson, policy, out, jobs, fresh, say):
    version, summary = course_version(lesson), policy.summary()
    found = {}
    for handed in submissions:
        new = grader.new_grade(handed, lesson, summary, version, reading.sha256(handed.path))
        found[handed] = new if fresh else grader.read_grade(out, handed, new)
    waiting = [handed for handed in submissions if not found[handed].complete]
    if done := len(submissions) - len(waiting):
        say(f"{done} of {len(submissions)} are graded already, and have not changed.")
    if waiting:
        closed = [out, *(handed.path for handed in submissions if not handed.path.is_symlink())]
        plan = Plan(lesson, policy, secrets.randbits(64), closed)
        folder = Path(tempfile.mkdtemp(prefix="tinytorch-packages-"))
        try:
            folder.chmod(0o711)  # for the sandboxed user to get to its package
            with Wardens(min(jobs, len(waiting))) as wardens:
                _run(waiting, found, plan, out, wardens, folder, say)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return [found[handed] for handed in submissions]


def _run(waiting, found, plan, out, wardens, folder, say):
    if possible := _possible(plan, wardens, folder):
        say(f"Cannot be limited here: {', '.join(possible)}.")
    plan.measure(wardens)
    work = grader.Grader(plan, folder, out)

    def one(handed):
        with wardens.one() as warden:
            try:
                work.grade(handed, found[handed], warden)
            except OURS as error:  # it must not cost the others
                found[handed].flags.append(f"The grader itself failed here: {type(error).__name__}: {error}"[:300])
                found[handed].write(out / handed.student)
        return handed

    pool = ThreadPoolExecutor(len(wardens.all))
    try:
        futures = [pool.submit(one, handed) for handed in waiting]
        with tqdm(total=len(waiting), unit=" submission", disable=not sys.stderr.isatty()) as bar:
            for future in as_completed(futures):
                grade = found[future.result()]
                bar.update()
                if bar.disable:
                    say(f"{printable(grade.student)}: {grade.score:g} of {grade.max_score}")
    finally:  # also after Ctrl-C: what is under way ends at once
        pool.shutdown(wait=False, cancel_futures=True)
        wardens.close()
        pool.shutdown()


def _possible(plan, wardens, folder):
    """What a student's code could do on this machine and should not, as tried by a sandboxed process."""
    elsewhere = folder / "elsewhere"
    elsewhere.touch()
    with wardens.one() as warden:
        outcome = warden.run(plan.attempt(elsewhere), 10)
    if outcome.ended != "well":
        raise GradingError(f"No sandboxed process can be started here: {outcome.said}")
    return json.loads(outcome.output)
