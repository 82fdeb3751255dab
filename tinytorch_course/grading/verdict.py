"""What the record of a sandboxed run of tests amounts to. Nothing in it is trusted: a student's code could write it."""

import json
from dataclasses import dataclass, field

LONGEST = 2000  # characters of one text
ALWAYS = ("test", "error", "message", "called", "printed")  # texts of a failure
PERHAPS = ("expected", "got", "place", "cause")
TEXTS = (*ALWAYS, *PERHAPS)


@dataclass
class Found:
    """The events of one run: {test: seconds} and {test: what it says}; canaries: {name: outcome}.

    faults: reasons to think that somebody else than the tests wrote the record.
    """

    passed: dict = field(default_factory=dict)
    failed: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    canaries: dict = field(default_factory=dict)
    failure: dict | None = None
    mistake: str = ""
    not_run: str = ""
    last: str = "loading"
    done: bool = False
    ended: bool = False
    faults: list = field(default_factory=list)

    def first_reason(self, outcome):
        """Why it did not pass, as a sentence."""
        said = outcome.said.strip().splitlines()[-1:] or [f"it {outcome.ended}"]
        return next(iter([*self.faults, *self.failed.values(), self.not_run or said[0]]))


def events_of(outcome):
    """The Found of an Outcome of the task "tests"."""
    found = Found()
    lines = outcome.output.decode("utf-8", "replace").splitlines()
    for i, line in enumerate(lines):
        try:
            event = json.loads(line)
            _take(event, found)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            if i < len(lines) - 1 or outcome.ended == "well":  # the last line may be torn
                found.faults.append("The record of the tests has a line in it that they did not write.")
                break
    return found


def _take(event, found):
    kind = event["event"]
    if kind == "passed":
        if event["test"] in found.passed:
            found.faults.append(f"{event['test']} is reported twice.")
        found.passed[str(event["test"])] = _seconds(event["seconds"])
    elif kind == "failed":
        found.failed.setdefault(str(event["test"]), shortened(event["said"]))
        found.seconds[str(event["test"])] = _seconds(event["seconds"])
        found.failure = found.failure or _failure(event["failure"])
    elif kind == "evaded":
        found.failed.setdefault(str(event["test"]), "The answer skipped this test.")
    elif kind == "canary":
        found.canaries[str(event["test"])] = event["outcome"]
    elif kind == "recognised":
        found.mistake = shortened(event["message"])
    elif kind in ("not imported", "not collected"):
        found.not_run = shortened(event["message"])
    elif kind == "test":
        found.last = shortened(event["test"]).rpartition("::")[2].replace("_", " ")
    found.done |= kind in ("tests done", "end")
    if kind == "end":
        found.ended = found.ended or event["status"] in (0, 1)  # pytest's own: all passed, or some failed


def _seconds(given):
    """Seconds as JSON can write them. Raises ValueError, OverflowError or TypeError for all else."""
    seconds = float(given)
    if not 0 <= seconds < 1e6:
        raise ValueError(f"{seconds} seconds")
    return seconds


def _failure(given):
    """What `explain` says, with every text short, and without the picture: it would be the student's markup."""
    if given is None:
        return None
    clean = {key: shortened(given[key]) for key in ALWAYS}
    clean |= {key: given[key] and shortened(given[key]) for key in PERHAPS}
    yours = given["yours"] and {"line": int(given["yours"]["line"]), "text": shortened(given["yours"]["text"])}
    return clean | {"yours": yours or None, "picture": None}


def shortened(given):
    """Text that every file can hold: not too long, and without halves of characters."""
    given = str(given).encode("utf-8", "backslashreplace").decode()
    return given if len(given) <= LONGEST else f"{given[:LONGEST]} ..."


def judged(gate, outcome):
    """(status, message, Found) of a student's run of the tests of a gate."""
    found = events_of(outcome)
    found.passed = {test: seconds for test, seconds in found.passed.items() if test not in found.failed}
    status, message = _tampered(gate, outcome, found) or _judged(gate, outcome, found)
    return status, shortened(message), found


def _tampered(gate, outcome, found):
    """(status, message) where somebody else than the tests has written the record, or None."""
    silent = [name for name in gate.canaries if found.canaries.get(name) != "failed"]
    alive = [name for name, came in found.canaries.items() if came != "failed"]
    if found.faults:
        return "tampered", found.faults[0]
    if alive or (found.ended and silent and not found.not_run):
        return "tampered", f"{len({*silent, *alive})} canaries, tests that have to fail, did not."
    if outcome.ended == "well" and not found.ended and found.passed.keys() >= set(gate.passes):
        return "tampered", "All tests pass, but their record has no end."


def _judged(gate, outcome, found):
    where = f"in: {found.last}."
    memory = any(said.partition(":")[0].endswith("MemoryError") for said in found.failed.values())
    memory |= not found.ended and "MemoryError" in outcome.said
    missing = [test for test in gate.passes if test not in found.passed]
    if found.not_run:
        message = f"With the answer in it the framework cannot be tested: {found.not_run}"
        return "memory" if "MemoryError" in message else "crashed", message
    if not missing and found.ended:
        return "passed", ""
    if memory:
        return "memory", f"It needs more memory than there is, {where}"
    if outcome.ended == "timeout" and not (found.done and missing):
        return "timeout", f"No end, {where} Is there a loop that never ends?"
    if outcome.ended == "output":
        return "crashed", f"It wrote far more than there is room for, {where}"
    failed = [test for test in missing if test in found.failed]
    if not found.ended and len(failed) < max(1, len(missing)):
        return "crashed", f"Python itself ended, {where} {shortened(outcome.said[-300:].strip())}".strip()
    said = found.failed[failed[0]] if failed else "a test was not run"
    return "failed", f"{len(missing)} of {len(gate.passes)} tests do not pass: {said}"
