"""The book builds without a warning, has every lesson and every public name, and opens without a network."""

import importlib.util
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tinytorch
import tinytorch_course
from tinytorch_course.lessons import ROOT, read_lessons

for needed in ("sphinx", "myst_nb", "sphinx_book_theme", "math_core", "ziamath"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f'The book needs {needed}: pip install -e ".[docs]".', allow_module_level=True)

pytestmark = pytest.mark.slow
LOADING = {"script", "img", "iframe", "source", "video", "audio", "embed", "object", "link", "image", "use"}


class Page(HTMLParser):
    """What a test wants to know of a page: its anchors, what it loads, its tags and its text."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.loads, self.tags, self.texts = set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = "".join(self.texts)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids.add(attributes.get("id"))
        if tag in LOADING:
            self.loads += [attributes[name] for name in ("src", "href", "srcset", "data") if attributes.get(name)]
        self.loads += addresses(attributes.get("style") or "")

    def handle_data(self, data):
        self.texts.append(data)


def addresses(css):
    """What a style sheet loads, pictures within it aside."""
    found = re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", css)
    return [address for address in found if not address.startswith("data:")]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the book, built with every warning an error."""
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", folder / "doctrees", ROOT / "docs", folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(book):
    paths = [path for path in book.rglob("*.html") if "_static" not in path.parts]
    return {path.relative_to(book).as_posix(): Page(path) for path in paths}


@pytest.fixture(scope="module")
def described(pages):
    return set().union(*(page.ids for name, page in pages.items() if "/api/" in name))


def test_every_lesson_is_a_page_with_its_exercises_and_their_hints_and_solutions(pages):
    for lesson in read_lessons():
        page = pages[f"generated/lessons/{lesson.folder}.html"]
        for exercise in lesson.exercises:
            assert f'@course.exercise("{exercise.id}")' in page.text
            assert "# YOUR CODE HERE" in page.text
        folded = [tag for tag, _ in page.tags if tag == "details"]
        wanted = sum(len(exercise.hints) + 1 for exercise in lesson.exercises)
        assert len(folded) == wanted, f"{lesson.folder} has {len(folded)} things to unfold, not {wanted}"
        assert "course.start(" not in page.text, "the reader of a book begins no session"


def test_the_front_page_leads_to_every_other_page(pages):
    links = {attributes.get("href") for tag, attributes in pages["index.html"].tags if tag == "a"}
    written = {name for name in pages if name not in {"index.html", "genindex.html", "search.html"}}
    assert written - links == set()


def test_every_public_name_of_the_framework_is_described(described):
    names = {
        name for name, value in vars(tinytorch).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert {f"tinytorch.{name}" for name in names} - described == set()


def test_what_a_notebook_calls_is_described(described):
    names = {name for name, value in vars(tinytorch_course).items() if inspect.isfunction(value)}
    assert names
    assert {f"tinytorch_course.{name}" for name in names} - described == set()


def test_every_command_is_described(pages):
    page = pages["generated/api/command_line.html"]
    help_ = subprocess.run(
        [sys.executable, "-m", "tinytorch_course", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^    ([a-z-]+)  ", help_, flags=re.M)
    assert "check" in commands
    for command in commands:
        assert f"usage: tinytorch {command} " in page.text


def test_every_milestone_that_can_be_run_is_shown(pages):
    page = pages["generated/milestones.html"]
    scripts = [path for path in (ROOT / "milestones").glob("*/*.py") if "__main__" in path.read_text(encoding="utf-8")]
    assert scripts
    for path in scripts:
        assert path.relative_to(ROOT).as_posix() in page.text


def test_how_to_debug_a_model_is_told_as_in_the_test_plan(pages):
    assert "Overfit one batch" in pages["debugging.html"].text


def test_formulas_are_mathml(pages):
    for lesson in read_lessons():
        if re.search(r"^\$\$", lesson.prose(), flags=re.M):
            page = pages[f"generated/lessons/{lesson.folder}.html"]
            assert "math" in {tag for tag, _ in page.tags}


def test_no_page_loads_anything_from_elsewhere(book, pages):
    loaded = {address for page in pages.values() for address in page.loads}
    for style in book.rglob("*.css"):
        loaded |= set(addresses(style.read_text(encoding="utf-8")))
    assert loaded
    assert [address for address in loaded if re.match(r"(?:[a-z]+:)?//", address)] == []


def test_all_that_a_page_loads_is_there(book, pages):
    missing = {
        address
        for name, page in pages.items()
        for address in page.loads
        if not address.startswith(("data:", "#"))
        and not (book / Path(name).parent / address.partition("?")[0].partition("#")[0]).exists()
    }
    assert missing == set()


def test_the_font_for_formulas_comes_along(book):
    for address in addresses((book / "_static" / "book.css").read_text(encoding="utf-8")):
        assert (book / "_static" / address).exists()
