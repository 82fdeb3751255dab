"""What README.md says is true."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1])
def test_the_examples_run(block, tmp_path):
    process = subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_the_files_it_names_are_there():
    named = re.findall(r"\]\(([\w./]+)\)", README)
    named += [f"tinytorch/{name}" for name in re.findall(r"^\| (?:\d\d)? ?\| `([\w/.]+)` \|", README, re.MULTILINE)]
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_nobody_is_told_to_install_the_unrelated_package():
    distribution = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    assert distribution == "tinytorch-edu"
    for path in [*ROOT.glob("*.md"), *ROOT.glob("tinytorch*/**/*.py"), *ROOT.glob("milestones/**/*.py")]:
        assert not re.search(r"pip install tinytorch\b(?!-edu)", path.read_text(encoding="utf-8")), path
