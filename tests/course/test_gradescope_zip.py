"""The zip for Gradescope has what grading needs and nothing else, and its run always leaves results to read."""

import json
import os
import shutil
import stat
import subprocess
import zipfile

import pytest

from tinytorch_course import cli, notebooks
from tinytorch_course.grading import GradingError
from tinytorch_course.grading.gradescope_zip import HIDDEN, SCRIPTS, build
from tinytorch_course.lessons import ROOT, read_lessons

LESSONS = read_lessons()
LESSON, TRANSFORMERS = LESSONS[4], LESSONS[12]
POINTS = sum(exercise.points for exercise in LESSON.exercises)
needs_bash = pytest.mark.skipif(
    os.name != "posix" or not all(map(shutil.which, ("bash", "timeout"))), reason="needs bash and GNU's timeout"
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return build(LESSON, tmp_path_factory.mktemp("zip") / "autograder_05.zip")


@pytest.fixture
def hidden(tmp_path):
    folder = tmp_path / "my tests"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "test_more.pyc").touch()
    (folder / "test_more.py").write_text("def test_nothing():\n    assert True\n")
    return folder


def names(path):
    with zipfile.ZipFile(path) as file:
        return file.namelist()


def unpack(path, folder):
    """As Gradescope does: with the modes."""
    with zipfile.ZipFile(path) as file:
        for entry in file.infolist():
            os.chmod(file.extract(entry, folder), entry.external_attr >> 16 & 0o777)


# ---- the zip


def test_it_is_whole_and_its_scripts_can_be_run(packed):
    with zipfile.ZipFile(packed) as file:
        assert file.testzip() is None
        modes = {entry.filename: entry.external_attr >> 16 for entry in file.infolist()}
        assert {entry.create_system for entry in file.infolist()} == {3}
    assert all(stat.S_ISREG(mode) for mode in modes.values())
    assert {name for name, mode in modes.items() if mode & 0o111} == {"setup.sh", "run_autograder"}
    assert {mode & 0o777 for mode in modes.values()} == {0o644, 0o755}


def test_it_has_what_grading_needs_and_nothing_else(packed):
    content = names(packed)
    assert len(set(content)) == len(content)
    outside = {name for name in content if not name.startswith(("tinytorch/", "tinytorch_course/"))}
    lessons = {f"modules/{lesson.folder}/lesson.toml" for lesson in LESSONS}
    tests = {name for name in outside if name.startswith("tests/")}
    project = {"setup.sh", "run_autograder", "pyproject.toml", "README.md", "LICENSE", "conftest.py"}
    assert outside == project | lessons | tests
    assert {f"tests/{LESSON.folder}/{name}" for name in ("probes.py", "test_probes.py", "test_graph.py")} < tests
    assert {name.split("/")[1] for name in tests if name.count("/") > 1} == {LESSON.folder}
    assert {"tests/conftest.py", "tests/catalogue.py", "tests/probing.py"} < tests
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tinytorch").rglob("*.py")}
    assert {name for name in content if name.startswith("tinytorch/")} == package


@pytest.mark.parametrize("part", ["__pycache__", ".ruff_cache", "notebooks/", "docs/", "lesson.md", ".ipynb", ".pyc"])
def test_it_has_no_solutions_beside_the_reference_and_no_caches(packed, part):
    assert [name for name in names(packed) if part in name] == []


def test_a_file_is_as_it_is_in_the_course(packed):
    with zipfile.ZipFile(packed) as file:
        for name in ("tinytorch/autograd.py", "pyproject.toml", "tinytorch_course/data/digits.npz"):
            assert file.read(name) == (ROOT / name).read_bytes()


def test_the_golden_files_go_with_the_lessons_that_read_them(packed, tmp_path):
    with_golden = names(build(TRANSFORMERS, tmp_path / "a.zip"))
    assert "tests/golden/pretrained/gpt2/config.json" in with_golden
    assert not [name for name in with_golden if name.startswith("tests/golden/") and name.endswith(".py")]
    assert not [name for name in names(packed) if name.startswith("tests/golden/")]


def test_the_same_course_gives_the_same_bytes(packed, tmp_path):
    copy = tmp_path / "clone"
    for name in names(packed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)  # the times and modes are new ones
            (copy / name).chmod(0o600)
    assert build(LESSON, tmp_path / "again.zip", root=copy).read_bytes() == packed.read_bytes()


def test_an_old_zip_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "a.zip"
    build(TRANSFORMERS, path)
    build(LESSON, path)
    assert [p.name for p in path.parent.iterdir()] == ["a.zip"]
    assert f"tests/{LESSON.folder}/probes.py" in names(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_hidden_tests_and_strictness_go_along(hidden, tmp_path):
    path = build(LESSON, tmp_path / "a.zip", strict=True, tests=hidden)
    assert [name for name in names(path) if name.startswith(HIDDEN)] == [f"{HIDDEN}/test_more.py"]
    with zipfile.ZipFile(path) as file:
        for script in ("setup.sh", "run_autograder"):
            assert f'grade 05 --strict --tests "$root/source/{HIDDEN}" ' in file.read(script).decode()


def test_a_folder_without_tests_is_no_folder_of_hidden_tests(tmp_path):
    with pytest.raises(GradingError, match=r"test_\*\.py, but .* has none"):
        build(LESSON, tmp_path / "a.zip", tests=tmp_path)
    with pytest.raises(GradingError, match=r"tests of lesson 05, .* clone of the course"):
        build(LESSON, tmp_path / "a.zip", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_it(tmp_path, capsys):
    assert cli.main(["gradescope-zip", "05", "--strict", "--out", str(tmp_path / "a.zip")]) == 0
    assert "a.zip" in capsys.readouterr().out
    assert "setup.sh" in names(tmp_path / "a.zip")


# ---- the run


@pytest.fixture
def autograder(packed, tmp_path):
    """Gradescope's folder with everything but the environment that setup.sh makes."""
    root = tmp_path / "auto grader"
    for folder in ("source", "submission", "results"):
        (root / folder).mkdir(parents=True)
    (root / "submission_metadata.json").write_text('{"id": 1, "users": [{"name": "Ada"}]}')
    unpack(packed, root / "source")
    shutil.copy(root / "source" / "run_autograder", root)
    return root


def stand_in(root, script):
    """Put a script in the place of the command `tinytorch`."""
    command = root / "venv" / "bin" / "tinytorch"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def run(root, script="run_autograder"):
    environment = os.environ | {"AUTOGRADER_ROOT": str(root)}
    return subprocess.run([root / script], cwd="/", env=environment, capture_output=True, timeout=600)


def results(root):
    """results.json, once it is what Gradescope reads."""
    [path] = (root / "results").iterdir()
    found = json.loads(path.read_text(encoding="utf-8"))
    known = {"score", "execution_time", "output", "output_format", "visibility", "stdout_visibility", "extra_data",
             "tests", "leaderboard"}  # fmt: skip
    of_test = {"score", "max_score", "status", "name", "number", "output", "output_format", "tags", "visibility",
               "extra_data"}  # fmt: skip
    formats = {"text", "html", "simple_format", "md", "ansi"}
    shown = {"hidden", "after_due_date", "after_published", "visible"}
    assert path.name == "results.json" and set(found) <= known
    assert isinstance(found["score"], (int, float)) and isinstance(found["output"], str) and found["output"]
    for given in (found, *found["tests"]):
        assert given.get("output_format", "text") in formats and given.get("visibility", "visible") in shown
    for test in found["tests"]:
        assert set(test) <= of_test and isinstance(test["name"], str)
        assert 0 <= test["score"] <= test["max_score"]
        assert test.get("status", "passed") in ("passed", "failed")
    return found


def assert_excused(root, said, words="not your fault"):
    found = results(root)
    assert found["score"] == 0 and words in found["output"]
    assert found["stdout_visibility"] == "hidden"
    [test] = found["tests"]
    assert test["visibility"] == "hidden" and said in test["output"]
    assert not said or said not in found["output"]


@needs_bash
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Traceback: boom' >&2; exit 1", "Traceback: boom\n"),
        (r"""printf 'a "quoted" \\back\\ \t and\001\377 \303\251 {}[]\n%%d\r\nend' ; exit 3""", 'a "quoted" \\back\\ '),
        ("yes '\"\\' | head -c 1000000; exit 1", '"\\\n"\\\n'),
        ("kill -9 $$", ""),
        ("exit 0", ""),
        ("""while [ "$1" != --gradescope ]; do shift; done; : >"$2\"""", ""),
    ],
    ids=["fails", "strange output", "much output", "killed", "no results", "empty results"],
)
def test_a_broken_grader_leaves_results_that_blame_nobody(autograder, script, said):
    stand_in(autograder, script)
    assert run(autograder).returncode == 0
    assert_excused(autograder, said, "never come to an end" if "kill" in script else "not your fault")


@needs_bash
def test_without_its_environment_it_leaves_results_too(autograder):
    assert run(autograder).returncode == 0
    assert_excused(autograder, "tinytorch")


@needs_bash
def test_one_that_takes_too_long_is_ended(autograder):
    script = autograder / "run_autograder"
    text = script.read_text()
    assert "\nseconds=540 " in text
    script.write_text(text.replace("\nseconds=540 ", "\nseconds=0.2 "))
    stand_in(autograder, "echo begun; exec sleep 600")
    assert run(autograder).returncode == 0
    assert_excused(autograder, "begun", "longer than 0.2 seconds")


@needs_bash
def test_there_are_results_while_it_still_runs(autograder):
    stand_in(autograder, 'cp "$AUTOGRADER_ROOT/results/results.json" "$AUTOGRADER_ROOT/early.json"')
    run(autograder)
    early = json.loads((autograder / "early.json").read_text())
    assert early["score"] == 0 and "before it was done" in early["output"]


@needs_bash
def test_the_graders_own_results_are_left_as_they_are_and_its_arguments_are_understood(autograder):
    made = '{"score": 3.5, "output": "A word \\u00e9", "tests": []}\n'
    stand_in(
        autograder,
        'printf "%s\\0" "$@" >"$AUTOGRADER_ROOT/arguments"\necho "for the instructor"\n'
        f'while [ "$1" != --gradescope ]; do shift; done; cat >"$2" <<\'END\'\n{made}END',
    )
    ran = run(autograder)
    assert (ran.returncode, ran.stdout) == (0, b"for the instructor\n")
    assert (autograder / "results" / "results.json").read_text() == made
    options = cli.parser().parse_args((autograder / "arguments").read_text().split("\0")[:-1])
    assert (options.lesson, options.single, options.strict, options.tests) == ("05", True, False, None)
    assert options.submissions == autograder / "submission"
    assert not options.out.is_relative_to(autograder) and not options.out.exists()


@needs_bash
@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda script: script.name)
def test_the_scripts_are_bash(script):
    ran = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert script.read_bytes().startswith(b"#!/usr/bin/env bash\n") and b"\r" not in script.read_bytes()
    assert script.read_text().count("@ARGUMENTS@") == 1


# ---- all of it


@pytest.mark.slow
@needs_bash
def test_the_real_thing(autograder, tmp_path):
    ran = run(autograder, "source/setup.sh")
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    submission = autograder / "submission"

    assert run(autograder).returncode == 0
    assert results(autograder)["score"] == 0 and LESSON.number in results(autograder)["output"]

    for kind, points in (("student", 0), ("solution", POINTS)):
        [notebook] = notebooks.build([LESSON], tmp_path / kind, kind)
        shutil.copy(notebook, submission)
        ran = run(autograder)
        found = results(autograder)
        assert (ran.returncode, found["score"]) == (0, points), ran.stdout.decode()
        assert len(found["tests"]) == len(LESSON.exercises)
        assert sum(test["max_score"] for test in found["tests"]) == POINTS
        assert sum(test["score"] for test in found["tests"]) == points
