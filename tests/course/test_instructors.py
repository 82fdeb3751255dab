"""What the instructors' guide and the workflow for a class say can be typed, and is complete."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinytorch_course import cli, notebooks
from tinytorch_course.grading import grades
from tinytorch_course.lessons import ROOT, read_lessons

GUIDE = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
WORKFLOW = ROOT / "tinytorch_course" / "grading" / "classroom.yml"
LESSON = read_lessons()[4]
PARSER = cli.parser()
[COMMANDS] = [action.choices for action in PARSER._actions if isinstance(action.choices, dict)]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def commands(program, text):
    """What follows the name of a program in each command of a shell script."""
    lines = [shlex.split(part) for line in text.splitlines() for part in line.split("&&")]
    return [words[1:] for words in lines if words[:1] == [program]]


IN_BLOCKS = commands("tinytorch", "\n".join(blocks("sh")))
IN_SENTENCES = commands("tinytorch", "\n".join(re.findall(r"`(tinytorch [a-z-]+ [^`]+)`", GUIDE)))


@pytest.mark.parametrize("words", [*IN_BLOCKS, *IN_SENTENCES], ids=" ".join)
def test_a_command_of_the_guide_is_understood(words):
    assert callable(PARSER.parse_args(words).run)


def test_the_guide_has_every_option_and_every_status_of_grading():
    options = set(re.findall(r"--[a-z]+", COMMANDS["grade"].format_help())) - {"--help"}
    assert "--csv" in options
    assert {option for option in options if not re.search(rf"{option}\b", GUIDE)} == set()
    assert {status for status in grades.STATUSES if f"`{status}`" not in GUIDE} == set()


def test_the_files_that_the_guide_names_are_there():
    named = set(re.findall(r"\b(?:tests|modules|tinytorch_course)/[\w./]+\w", GUIDE))
    assert "tests/05_autograd/probes.py" in named and "tinytorch_course/grading/classroom.yml" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_hidden_test_of_the_guide_passes_on_the_reference(tmp_path):
    [code] = blocks("python")
    path = tmp_path / "test_more.py"
    path.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", path]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "1 passed" in ran.stdout, ran.stdout + ran.stderr


# ---- the workflow


@pytest.fixture(scope="module")
def workflow():
    yaml = pytest.importorskip("yaml", reason='needs PyYAML, which comes with pip install -e ".[docs]"')
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


@pytest.fixture
def steps(workflow):
    [job] = workflow["jobs"].values()
    return job["steps"]


def scripts(steps):
    return "\n".join(step["run"] for step in steps if "run" in step)


def test_the_workflow_may_only_read_and_comes_to_an_end(workflow):
    [job] = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"} and "permissions" not in job
    assert job["timeout-minutes"] <= 30
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert set(workflow[True]) == {"push", "pull_request", "workflow_dispatch"}  # YAML 1.1 reads `on` as true


def test_the_workflow_uses_githubs_own_actions_and_leaves_no_token_behind(steps):
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)
    checkouts = [step["with"] for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert [given["persist-credentials"] for given in checkouts] == [False, False]


def test_nothing_of_a_students_is_pasted_into_the_scripts(steps):
    assert "${{" not in scripts(steps)


def test_the_commands_of_the_workflow_are_understood(steps):
    [words] = commands("tinytorch", scripts(steps).replace("$LESSON", LESSON.number))
    options = PARSER.parse_args(words)
    assert (words[0], words[1], words[2]) == ("grade", "05", "submissions") and callable(options.run)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_workflows_scripts_grade_a_repository_and_show_the_feedback(workflow, steps, tmp_path):
    first = LESSON.exercises[0]
    (tmp_path / "submissions" / "alice" / "my_course" / "work").mkdir(parents=True)
    work = tmp_path / "submissions" / "alice" / "my_course" / "work" / f"{LESSON.folder}.py"
    work.write_text(notebooks.answer_cell(first, "solution"), encoding="utf-8")
    summary = tmp_path / "summary.md"
    environment = os.environ | {"LESSON": LESSON.number, "GITHUB_STEP_SUMMARY": str(summary)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for step in steps:
        if "run" in step and "pip install" not in step["run"]:
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert ran.returncode == 0, f"{step['name']}: {ran.stdout}{ran.stderr}"
    grade = grades.read(tmp_path / "grades" / LESSON.folder / "alice")
    assert (grade.score, grade.complete) == (first.points, True)
    assert first.id in summary.read_text(encoding="utf-8")
    kept = next(step["with"]["path"] for step in steps if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert [pattern for pattern in kept.split() if not list(tmp_path.glob(pattern))] == []
