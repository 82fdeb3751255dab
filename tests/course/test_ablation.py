"""Each exercise's tests fail where its function is missing or wrong, and pass where it is the reference's."""

from concurrent.futures import ThreadPoolExecutor

import ablation
import pytest

from tinytorch_course import holes
from tinytorch_course.lessons import read_lessons

LESSONS = read_lessons()
AT_A_TIME = 2  # processes
STAGES_END = "05"  # from this module on, operations have their rules

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{exercise: the files that its tests are in}."""
    gates, _ = ablation.plan(tmp_path_factory.mktemp("plan"))
    return {name: sorted({test.partition("::")[0] for test in gate["tests"]}) for name, gate in gates.items()}


def variants(exercise):
    """(name, source) of the exercise's file with the hole in it, and with each of the wrong answers."""
    yield "the hole", ablation.hole(exercise)
    for wrong in exercise.wrong:
        yield f"the wrong answer {wrong.name!r}", ablation.answer(exercise, wrong.code)


def verdict(exercise, source, paths, folder):
    """What is not as it should be with a variant: '' where a test fails."""
    record = ablation.run(folder, paths, "--exercise", exercise.id, "-x", changed={exercise.file: source})
    if record["not_collected"]:
        return f"breaks the import of {record['not_collected'][0]}"
    return "" if record["failed"] else f"passes all {len(record['tests'])} tests"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)
def test_holes_and_wrong_answers_fail(lesson, files, tmp_path):
    jobs = [(exercise, *variant) for exercise in lesson.exercises for variant in variants(exercise)]

    def judge(number):
        exercise, name, source = jobs[number]
        folder = tmp_path / str(number)
        folder.mkdir()
        paths = [ablation.ROOT / file for file in files[exercise.id]]
        return f"{exercise.id}, {name}", verdict(exercise, source, paths, folder)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        verdicts = dict(pool.map(judge, range(len(jobs))))
    assert {name: what for name, what in verdicts.items() if what} == {}


def test_before_there_are_rules_no_exercise_needs_them(files, tmp_path):
    """With all operations in their first stage, the tests of the modules before the rules pass."""
    early = [lesson for lesson in LESSONS if lesson.number < STAGES_END]
    changed = {}
    for exercise in (exercise for lesson in early for exercise in lesson.exercises if exercise.stage == "forward"):
        source = changed.get(exercise.file, exercise.source())
        changed[exercise.file] = holes.splice(source, exercise.qualname, holes.forward_only(source, exercise.qualname))
    folders = [ablation.ROOT / "tests" / lesson.folder for lesson in early]
    record = ablation.run(tmp_path, folders, "--exercises-only", changed=changed)
    assert len(record["tests"]) > 100
    assert (record["not_collected"], record["failed"]) == ([], {})
