"""Progress: what a student has solved, which hints were used, what was skipped."""

import json
from dataclasses import asdict, dataclass, field

from . import files

FORMAT = 1


@dataclass
class Record:
    """What is known of one exercise. `passed` is the version of the answer that passed last."""

    passed: str | None = None
    hints: int = 0
    solution_seen: bool = False
    failure: str | None = None  # what the last failure was,
    repeats: int = 0  # and how often it came in a row


@dataclass
class Progress:
    """All of it. `originals` are the checksums of the files as `init` and `update` copied them."""

    exercises: dict = field(default_factory=dict)
    skipped: list = field(default_factory=list)
    originals: dict = field(default_factory=dict)

    def of(self, exercise):
        return self.exercises.setdefault(exercise.id, Record())

    def has_passed(self, exercise):
        return exercise.id in self.exercises and self.exercises[exercise.id].passed is not None

    def passed(self, exercise, version):
        record = self.of(exercise)
        record.passed, record.failure, record.repeats = version, None, 0

    def failed(self, exercise, failure):
        """Note a failure; `failure` says which. Returns how often it came in a row."""
        record = self.of(exercise)
        record.repeats = record.repeats + 1 if failure == record.failure else 1
        record.failure = failure
        return record.repeats

    def write(self, path):
        files.write(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, path):
        """What a file holds. Raises ValueError where it is none of ours."""
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
            records = {id: Record(**record) for id, record in content["exercises"].items()}
            if not all(isinstance(n, int) for record in records.values() for n in (record.hints, record.repeats)):
                raise ValueError("it has counts that are no numbers")
            return cls(records, list(content["skipped"]), dict(content["originals"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is none of ours") from error
