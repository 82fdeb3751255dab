"""The modules before the rules need none: their tests pass with all operations in their first stage."""

import ablation
import pytest

from tinytorch_course import holes
from tinytorch_course.lessons import read_lessons

STAGES_END = "05"  # from this module on, operations have their rules


@pytest.mark.slow
def test_before_there_are_rules_no_exercise_needs_them(tmp_path):
    """With all operations in their first stage, the tests of the modules before the rules pass."""
    early = [lesson for lesson in read_lessons() if lesson.number < STAGES_END]
    changed = {}
    for exercise in (exercise for lesson in early for exercise in lesson.exercises if exercise.stage == "forward"):
        source = changed.get(exercise.file, exercise.source())
        changed[exercise.file] = holes.splice(source, exercise.qualname, holes.forward_only(source, exercise.qualname))
    folders = [ablation.ROOT / "tests" / lesson.folder for lesson in early]
    record = ablation.run(tmp_path, folders, "--exercises-only", changed=changed)
    assert len(record["tests"]) > 100
    assert (record["not_collected"], record["failed"]) == ([], {})
