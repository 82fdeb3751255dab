"""The house: files import earlier files only, importing is silent and cheap, and what is public is explained."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tinytorch as tt

PACKAGE = Path(tt.__file__).parent
MODULES = {
    "tensor": 1,
    "activations": 2,
    "layers": 3,
    "losses": 4,
    "optimizers": 6,
    "training": 7,
    "dataloader": 8,
    "convolutions": 9,
    "tokenization": 10,
    "embeddings": 11,
    "attention": 12,
    "transformers": 13,
    "mamba": 14,
    "moe": 15,
    "deepseek": 16,
    "precision": 17,
    "qlora": 18,
    "distributed": 19,
    "pipeline": 20,
}
FOR_ALL = {"autograd", "device"}  # import nothing of ours, and may be imported by all
ABOVE_ALL = {"__init__", "pictures", "testing"}  # may import anything
FILES = sorted(PACKAGE.rglob("*.py"))


def name(file):
    """The part of tinytorch that a file belongs to: tinytorch/tensor/core.py is of `tensor`."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(file):
    """The parts of tinytorch that a file imports, at its top or inside functions, without its own."""
    parts = ("tinytorch", *file.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {path.split(".")[1] for path in found if path.startswith("tinytorch.")} - {name(file)}


each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())


@each_file
def test_every_file_has_its_number(file):
    assert name(file) in MODULES.keys() | FOR_ALL | ABOVE_ALL


@each_file
def test_a_file_imports_only_files_of_earlier_modules(file):
    if name(file) in ABOVE_ALL:
        allowed = imported(file)
    elif name(file) in FOR_ALL:
        allowed = set()
    else:
        allowed = FOR_ALL | {module for module, number in MODULES.items() if number < MODULES[name(file)]}
    assert imported(file) - allowed == set()


def test_the_reading_of_imports_finds_them():
    assert imported(PACKAGE / "tensor" / "core.py") == {"autograd", "device"}
    assert imported(PACKAGE / "attention" / "scaled_dot_product.py") == {"activations", "device", "layers", "tensor"}


def run(program):
    """What a fresh interpreter prints, with warnings as errors."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return finished.stdout, finished.stderr


def test_importing_prints_nothing():
    assert run("import tinytorch") == ("", "")


@pytest.mark.parametrize("heavy", ["matplotlib", "cupy", "torch", "mpi4py"])
def test_importing_leaves_heavy_and_optional_libraries_alone(heavy):
    out, _ = run(f"import sys, tinytorch; print({heavy!r} in sys.modules)")
    assert out == "False\n"


def public():
    return {
        name: value
        for name, value in vars(tt).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("tinytorch")
    }


def test_the_search_for_public_names_finds_them():
    assert {"Tensor", "add", "relu", "Linear", "cross_entropy", "Adam", "GPT", "no_grad", "Generator"} <= set(public())


def test_every_public_function_and_class_is_explained():
    assert [name for name, value in public().items() if not (value.__doc__ or "").strip()] == []


def test_every_public_class_has_a_docstring_of_its_own():
    """`__doc__` is not inherited by classes, but dataclasses and named tuples make one up."""
    classes = [value for value in public().values() if inspect.isclass(value)]
    assert [c.__name__ for c in classes if c.__doc__.startswith(f"{c.__name__}(")] == []


def test_every_file_says_what_it_is():
    assert [file.name for file in FILES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))] == []
