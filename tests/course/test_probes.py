"""Probes: every exercise has one, each typical wrong answer gives other arrays, and nothing but arrays is unpacked."""

import importlib
import sys
import warnings
import zipfile
from concurrent.futures import ProcessPoolExecutor

import ablation
import numpy as np
import pytest

from tinytorch_course import build
from tinytorch_course.answers import Answer
from tinytorch_course.grading import probes
from tinytorch_course.lessons import ROOT, read_lessons

LESSONS = read_lessons()
SEED = 20170612
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.folder)


def of(lesson):
    return probes.load(ROOT / "tests" / lesson.folder / probes.FILE)


@each_lesson
def test_every_exercise_has_a_probe_and_every_name_is_there_once(lesson):
    found = of(lesson)
    assert {exercise.id for exercise in lesson.exercises} == {probe.exercise for probe in found}
    assert len({probe.name for probe in found}) == len(found)


def arrays(package, lesson, ids):
    """What a package gives to the probes of exercises, in a process in which no other tinytorch was imported."""
    assert "tinytorch" not in sys.modules
    sys.path.insert(0, str(package))
    with warnings.catch_warnings(action="ignore"):
        tt = importlib.import_module("tinytorch")
        return probes.collect([probe for probe in of(lesson) if probe.exercise in ids], tt, SEED)


@pytest.mark.slow
@each_lesson
def test_typical_wrong_answers_give_other_arrays_than_the_reference(lesson, tmp_path):
    wrong = [(exercise, answer) for exercise in lesson.exercises for answer in exercise.wrong]
    packages = []
    for i, (exercise, answer) in enumerate(wrong):
        text = Answer(exercise.id, answer.code.strip("\n") + "\n")
        changed = build.spliced(exercise.source(), exercise, text)
        packages.append(build.write({exercise.file: changed}, tmp_path / str(i)))
    ids = [[exercise.id] for exercise, _ in wrong] + [[exercise.id for exercise in lesson.exercises]]
    with ProcessPoolExecutor(2, mp_context=ablation.PROCESSES, max_tasks_per_child=1) as pool:
        *given, expected = pool.map(arrays, [*packages, ROOT], [lesson] * len(ids), ids)
    assert [name for name in expected if name.endswith("!")] == []
    names = {
        exercise.id: {probe.name for probe in of(lesson) if probe.exercise == exercise.id} for exercise, _ in wrong
    }
    unnoticed = []
    for (exercise, answer), got in zip(wrong, given):
        wanted = {name: array for name, array in expected.items() if name.partition(".")[0] in names[exercise.id]}
        if not probes.differences(wanted, got):
            unnoticed.append((exercise.id, answer.name))
    assert [pair for pair in unnoticed if pair not in LEFT_TO_THE_TESTS] == []


# Of these the tests say what is wrong, and no array does: they differ in time, in memory, or in the words of an error.
LEFT_TO_THE_TESTS = []


# ---- what comes back from a process that nobody can trust


def test_arrays_come_back_as_they_were():
    sent = {"a.b": np.arange(6.0).reshape(2, 3), "a.c": np.array("words"), "d!": np.array(True)}
    sent["columns"] = np.asfortranarray(sent["a.b"])
    came = probes.unpack(probes.pack(sent))
    assert came.keys() == sent.keys()
    assert all(np.array_equal(came[name], sent[name]) and came[name].dtype == sent[name].dtype for name in sent)


def packed(tmp_path, name, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr(name, content)
    return (tmp_path / "a.npz").read_bytes()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HOSTILE = {
    "a pickle": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"cos\nsystem\n",
    "more than there is": header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}") + b"\0" * 8,
    "a negative length": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}") + b"\0" * 8,
    "a header that is code": header("__import__('os').system('true')"),
    "another format": b"\x93NUMPY\x07\x00" + b"\0" * 8,
    "no array": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_array_is_refused(content, tmp_path):
    with pytest.raises(ValueError):
        probes.unpack(packed(tmp_path, "x.npy", content))


def test_what_is_no_archive_or_compressed_is_refused(tmp_path):
    for content in (b"", b"PK\3\4", packed(tmp_path, "x.npy", b"\0" * 9_000_000, zipfile.ZIP_DEFLATED)):
        with pytest.raises(ValueError):
            probes.unpack(content)


# ---- the comparison


@pytest.mark.parametrize(
    ("wanted", "came", "said"),
    [
        (np.ones(3), np.ones(3) + 1e-12, []),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), []),
        (np.ones(3, np.float32), np.ones(3) + 1e-6, []),
        (np.ones(3), np.ones(3) + 1e-6, ["p: x has other values than the reference at 3 of 3 places"]),
        (np.ones(3), np.ones((3, 1)), ["p: x needs the shape (3,), but has (3, 1)"]),
        (np.ones(3), np.ones(3, int), ["p: x needs the type float64, but has int64"]),
        (np.array("no"), np.array("yes"), ["p: x has other values than the reference at 1 of 1 places"]),
    ],
)
def test_a_difference_is_a_sentence(wanted, came, said):
    assert probes.differences({"p.x": wanted}, {"p.x": came}) == said


def test_what_is_missing_and_what_was_raised_is_said_once():
    wanted = {"p.x": np.ones(1), "p.y": np.ones(1)}
    assert probes.differences(wanted, {"p.x": np.ones(1)}) == ["p: y is missing"]
    assert probes.differences(wanted, {"p!": np.array("TypeError: no")}) == ["p: TypeError: no"]


def test_each_probe_draws_its_own_numbers_and_the_same_ones_again():
    one, other = (
        probes.Probe("ex-05-1", name, lambda rng: {"x": rng.standard_normal(4)}, lambda tt, x: {"x": x})
        for name in ("one", "other")
    )
    assert np.array_equal(one(None, 1)["x"], one(None, 1)["x"])
    assert not np.array_equal(one(None, 1)["x"], one(None, 2)["x"])
    assert not np.array_equal(one(None, 1)["x"], other(None, 1)["x"])


def test_an_object_is_no_array():
    one = probes.Probe("ex-05-1", "one", lambda rng: {}, lambda tt: {"x": object()})
    with pytest.raises(TypeError, match="x needs to be numbers"):
        one(None, 0)
