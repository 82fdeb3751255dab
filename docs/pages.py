"""A Sphinx extension: pages made from the rest of the project, which are its lessons, milestones and docstrings."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path
from unittest import mock

from docstrings import restructured

import tinytorch
import tinytorch_course
from tinytorch_course import cli, notebooks
from tinytorch_course.lessons import ROOT, read_lessons

HEADER = re.compile(r"# (?!ruff:)(.+)")


def write(folder):
    """Write all pages into a folder. One that stays the same is not touched, so that Sphinx need not read it again."""
    made = {f"lessons/{lesson.folder}.ipynb": notebooks.text(page_of(lesson)) for lesson in read_lessons()}
    made["milestones.md"] = milestones()
    made |= {f"api/{name}.rst": text for name, text in reference().items()}
    made["api/tinytorch_course.rst"] = course()
    made["api/command_line.rst"] = command_line()
    for old in folder.glob("*/*"):
        if old.relative_to(folder).as_posix() not in made:
            old.unlink()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (path.exists() and path.read_text(encoding="utf-8") == text):
            path.write_text(text, encoding="utf-8")


def page_of(lesson):
    """The notebook of a lesson for readers: each exercise is its stub; hints and solution are there to be unfolded.

    The solutions run where the book is executed, so that the demos below them do.
    """
    exercises = {exercise.id: exercise for exercise in lesson.exercises}
    stubs = {cell.id: cell for cell in notebooks.notebook(lesson, "student").cells}
    page = notebooks.notebook(lesson, "solution")
    cells = []
    for cell in page.cells[:-2]:  # without "Where you are", which is about the student
        if cell.id in exercises:
            exercise = exercises[cell.id]
            stub = stubs[cell.id]
            stub["id"] = f"stub-{cell.id}"
            stub.metadata["tags"] = ["skip-execution"]
            prompt = f"Solution, from {exercise.file}"
            cell.metadata["tags"] = ["hide-input"]
            cell.metadata["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": prompt}
            cells += [stub, *hints(exercise), cell]
        elif not cell.id.startswith("check-"):
            if cell.source.endswith(f'course.start("{lesson.number}")'):
                cell.metadata["tags"] = ["remove-cell"]
            cells.append(cell)
    page.cells = cells
    return page


def hints(exercise):
    import nbformat.v4 as v4

    for number, hint in enumerate(exercise.hints, 1):
        text = f"<details>\n<summary>Hint {number}</summary>\n\n{hint.strip()}\n\n</details>"
        yield v4.new_markdown_cell(text, id=f"hint-{exercise.id}-{number}")


def milestones():
    """What the scripts that can be run say of themselves."""
    page = ["# History, replayed\n\nScripts that train with the framework. All have the same options: `--help`.\n"]
    for path in sorted((ROOT / "milestones").glob("*/*.py")):
        source = path.read_text(encoding="utf-8")
        title, _, text = ast.get_docstring(ast.parse(source)).partition(": ")
        if "__main__" in source:
            name = path.relative_to(ROOT).as_posix()
            page.append(f"## {title}\n\n{text[:1].upper()}{text[1:]}\n\n```sh\npython {name}\n```\n")
    return "\n".join(page)


def groups():
    """{heading: [name, ...]} of `tinytorch/__init__.py`, in the order of the modules' numbers.

    A heading is a comment of its own line; what stands behind its colon is left out.
    """
    source = Path(tinytorch.__file__).read_text(encoding="utf-8")
    heading_of_line, heading = {}, None
    for number, line in enumerate(source.splitlines(), 1):
        if found := HEADER.match(line):
            heading = found[1].partition(":")[0]
        heading_of_line[number] = heading
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        else:
            continue
        found.setdefault(heading_of_line[node.lineno], []).extend(n for n in names if not n.startswith("__"))
    numbered = {heading: names for heading, names in found.items() if heading[:2].isdecimal()}
    return dict(sorted(numbered.items())) | {h: n for h, n in found.items() if h not in numbered}


def reference():
    """{name of the page: text}: one page for each group, and `testing`."""
    pages = {}
    for heading, names in groups().items():
        module = _module_of(heading, names)
        number = f"{heading[:2]}_" if heading[:2].isdecimal() else ""
        pages[number + module] = _page(heading, module, names)
    pages["testing"] = _page("checks", "testing", [])
    return pages


def _module_of(heading, names):
    """The file or folder of tinytorch/ that a group comes from."""
    number, _, name = heading.partition(" ")
    return name if number.isdecimal() else getattr(tinytorch, names[0]).__module__.split(".")[1]


def _page(heading, name, names):
    module = importlib.import_module(f"tinytorch.{name}")
    text = [_title(heading[0].upper() + heading[1:], "="), restructured(inspect.getdoc(module)), ""]
    text += [_entry("tinytorch", n, getattr(tinytorch, n)) for n in names]
    rest = [n for n, value in vars(module).items() if n not in names and _is_own(module, n, value)]
    if rest:
        if names:
            text.append(_title(f"Also in tinytorch.{name}", "-"))
        text += [_entry(module.__name__, n, getattr(module, n)) for n in rest]
    return "\n".join(text)


def _is_own(module, name, value):
    """Is it one of the module's own functions and classes, which is not public at the top, and says what it is?"""
    return (
        not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith(module.__name__)
        and getattr(tinytorch, name, None) is not value
        and bool(value.__doc__)
    )


def _entry(module, name, value):
    if inspect.isclass(value):
        # what a base has that is not described itself, here or anywhere else, belongs to the class
        described = [base for base in value.__mro__[1:] if _is_described(base)]
        stop = {above.__name__ for base in described for above in base.__mro__}
        options = f"   :members:\n   :inherited-members: {', '.join(sorted(stop))}\n"
        if any(base is not object for base in described):
            options += "   :show-inheritance:\n"
        return f".. autoclass:: {module}.{name}\n{options}"
    kind = "autofunction" if inspect.isroutine(value) else "autodata"
    return f".. {kind}:: {module}.{name}\n" + ("" if kind == "autofunction" else "   :no-value:\n")


def _is_described(base):
    """Has it an entry of its own, or is it not from here?"""
    package, _, rest = base.__module__.partition(".")
    if package != "tinytorch" or getattr(tinytorch, base.__name__, None) is base:
        return True
    module = importlib.import_module(f"tinytorch.{rest.partition('.')[0]}")
    return getattr(module, base.__name__, None) is base and _is_own(module, base.__name__, base)


def course():
    """What a notebook calls."""
    text = [_title("In a notebook", "="), restructured(inspect.getdoc(tinytorch_course.session)), ""]
    names = [name for name, value in vars(tinytorch_course).items() if inspect.isfunction(value)]
    return "\n".join(text + [_entry("tinytorch_course", name, getattr(tinytorch_course, name)) for name in names])


def command_line():
    """What `tinytorch --help` says, and `--help` of each of its commands."""
    whole = cli.parser()
    [commands] = [action.choices for action in whole._actions if isinstance(action.choices, dict)]
    text = [_title("On the command line", "=")]
    with mock.patch.dict(os.environ, COLUMNS="80", NO_COLOR="1"):  # the same on every terminal
        for parser in (whole, *commands.values()):
            if parser is not whole:
                text.append(_title(parser.prog, "-"))
            text.append(".. code-block:: text\n\n" + re.sub("^(?=.)", "   ", parser.format_help(), flags=re.M))
    return "\n".join(text)


def _title(text, line):
    return f"{text}\n{line * len(text)}\n"


def setup(app):
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "generated"))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
