"""Holes: what is cut and put back leaves every other byte of a file as it was."""

import ast
from pathlib import Path

import pytest

import tinytorch
from tinytorch_course import holes

PACKAGE = Path(tinytorch.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
SOURCE = '''\
"""A file."""

LIMIT = 3  # a comment


class Counter:
    """Counts."""

    @property
    def double(self):
        """Twice
        the number."""
        # the reason
        return 2 * self.n  # the end

    def add(
        self,
        n,
    ):
        self.n += n

    def one_line(self): return 1

    def only_explained(self):
        """Nothing below."""


def after():
    text = """
two
    lines"""
    return text'''

CUT = '''\
    @property
    def double(self):
        """Twice
        the number."""
        raise NotImplementedError("ex-00-1: yours")

    def add(
'''


def functions(source):
    """The qualified names of all functions and classes that are not inside functions."""
    waiting = [("", ast.parse(source))]
    while waiting:
        prefix, node = waiting.pop()
        for child in node.body:
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield prefix + child.name
                if isinstance(child, ast.ClassDef):
                    waiting.append((f"{prefix}{child.name}.", child))


def signatures(source):
    """Everything about a file but the bodies of its functions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return ast.dump(tree)


HOLE = 'raise NotImplementedError("m")'


def test_the_body_below_the_docstring_is_cut():
    cut = holes.cut(SOURCE, "Counter.double", 'raise NotImplementedError("ex-00-1: yours")')
    assert CUT in cut
    before, after = SOURCE.split("        # the reason\n        return 2 * self.n  # the end\n")
    assert cut == before + '        raise NotImplementedError("ex-00-1: yours")\n' + after


def test_without_a_docstring_all_below_the_signature_is_cut():
    cut = holes.cut(SOURCE, "Counter.add", HOLE)
    assert cut == SOURCE.replace("        self.n += n\n", '        raise NotImplementedError("m")\n')


def test_a_file_that_ends_without_a_newline_still_does():
    assert holes.cut(SOURCE, "after", HOLE).endswith('def after():\n    raise NotImplementedError("m")')


def test_a_class_is_cut_to_what_raises_when_it_is_made():
    space = {}
    exec(holes.cut(SOURCE, "Counter", HOLE), space)
    assert space["Counter"].__doc__ == "Counts."
    with pytest.raises(NotImplementedError, match=r"^m$"):
        space["Counter"]()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Counter.one_line", "is written in one line and cannot be cut"),
        ("Counter.only_explained", "has a docstring and nothing below it to cut"),
        ("Counter.minus", "There is no Counter.minus in this file: minus was not found"),
        ("Other.add", "There is no Other.add in this file: Other was not found"),
    ],
)
def test_what_cannot_be_cut_is_named(name, message):
    with pytest.raises(holes.HoleError, match=message):
        holes.cut(SOURCE, name, HOLE)


def test_an_answer_takes_the_indentation_and_the_decorators_of_its_place():
    new = '@property\ndef double(self):\n    """Other."""\n\n    if self.n:\n        return self.n + self.n\n'
    spliced = holes.splice(SOURCE, "Counter.double", new)
    assert spliced.count("@property") == 1
    assert '    def double(self):\n        """Other."""\n\n        if self.n:\n            return self.n' in spliced
    assert spliced.startswith(SOURCE[: SOURCE.index("    def double")])
    assert spliced.endswith(SOURCE[SOURCE.index("    def add") :])


def test_strings_of_several_lines_keep_their_text():
    method = 'def add(self, n):\n    self.text = """\na\n    b"""\n'
    spliced = holes.splice(SOURCE, "Counter.add", method)
    assert '        self.text = """\na\n    b"""\n' in spliced
    assert holes.extract(spliced, "Counter.add") == method


def test_an_answer_without_the_function_is_refused():
    with pytest.raises(holes.HoleError, match="add was not found"):
        holes.splice(SOURCE, "Counter.add", "def plus(self, n):\n    self.n += n\n")


def test_a_method_without_a_docstring_is_explained_by_its_class():
    assert holes.handout(SOURCE, "Counter.double") == "Twice\nthe number."
    assert holes.handout(SOURCE, "Counter.add") == "Counts."
    assert holes.handout(SOURCE, "after") is None


OPERATION = """\
@op
def triple(x, y):
    z = 3 * x
    if y is None:
        return z, lambda g: 3 * g

    def grad(g):
        return g, g

    return (
        z + y,
        (lambda g: 3 * g, grad),
    )
"""


def test_the_forward_stage_of_an_operation_returns_its_output_alone():
    stage = holes.forward_only(OPERATION, "triple")
    assert stage == (
        "def triple(x, y):\n    z = 3 * x\n    if y is None:\n        return z\n\n"
        "    def grad(g):\n        return g, g\n\n    return z + y\n"
    )
    with pytest.raises(holes.HoleError, match=r"grad never returns \(output, rule\)"):
        holes.forward_only("def grad(g):\n    return g\n", "grad")


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_every_function_of_the_package_can_be_cut_and_put_back(file):
    source = file.read_text(encoding="utf-8")
    outside = signatures(source)
    for name in functions(source):
        own = holes.extract(source, name)
        ast.parse(own)
        assert holes.splice(source, name, own) == source
        if isinstance(holes.find(source, name), ast.ClassDef):
            continue
        try:
            cut = holes.cut(source, name, HOLE)
        except holes.HoleError as error:
            assert "nothing below it to cut" in str(error)
            continue
        assert signatures(cut) == outside
        assert holes.splice(cut, name, own) == source


def test_the_package_was_found():
    assert len(FILES) > 30
    assert "Arithmetic.__matmul__" in set(functions((PACKAGE / "tensor" / "arithmetic.py").read_text(encoding="utf-8")))
