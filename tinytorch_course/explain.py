"""What a failing test says: from the exception that pytest caught to words, values and a picture, ready for JSON."""

import inspect
import re
from pathlib import Path

import numpy as np

from . import diagnosis, holes
from .heatmap import side_by_side

MOST_LINES = 14  # of a test's source
MOST_DERIVATIVES = 300  # of a gradient that is worked out element by element, to show it beside a wrong one
VALUES = {  # function that compares -> its local names of what was expected and what came
    "assert_close": ("expected", "actual"),
    "assert_allclose": ("desired", "actual"),
    "assert_array_equal": ("desired", "actual"),
    "assert_array_compare": ("y", "x"),
}


def explain(item, excinfo, compared, student):
    """The failure as a dict.

    item: the test; excinfo: pytest's record of the exception; compared: (left, right) of the `==` that an assert
    refused, or None; student: (file, qualified name) of the function that is being checked.
    """
    error, frames = excinfo.value, list(excinfo.traceback)
    failure = dict.fromkeys(("expected", "got", "place", "cause", "picture"))
    failure |= {
        "test": sentence(item),
        "error": type(error).__name__,
        "message": _message(error),
        "called": _source(item, frames),
        "yours": _own_frame(frames, student),
    }
    try:
        failure |= _details(frames, compared, error, failure["yours"])
    except Exception as another:  # what a student's code returns may refuse to be looked at
        failure["cause"] = f"The values cannot be shown: {type(another).__name__}: {another}."
    return failure


def _details(frames, compared, error, yours):
    """What was expected and what came, the likely cause, and a picture."""
    failure, values = {}, _values(frames, compared, error)
    if values:
        expected, got = values
        failure = {
            "expected": shown(expected),
            "got": shown(got),
            "place": _place(expected, got),
            "cause": diagnosis.of_values(expected, got),
            "picture": side_by_side(diagnosis.as_array(expected), diagnosis.as_array(got)),
        }
    elif yours:
        failure["cause"] = diagnosis.of_error(error)
    if graph := _graph(frames):
        failure["picture"] = graph
    return failure


def sentence(item):
    """The name of a test as a sentence: 'each row gets its own gradient (two rows)'."""
    name, _, parameters = item.name.partition("[")
    words = name.removeprefix("test_").replace("_", " ")
    owner = getattr(item, "cls", None)
    if owner is not None:
        group = re.sub("([a-z])([A-Z])", r"\1 \2", owner.__name__.removeprefix("Test")).lower()
        words = f"{group}: {words}"
    return f"{words} ({parameters.removesuffix(']')})" if parameters else words


def _message(error):
    """What an exception says, without pytest's own drawing of values."""
    try:
        text = str(error)
    except Exception as another:  # the student's own class may do anything
        text = f"(its text cannot be shown: {type(another).__name__})"
    return re.split(r"\n *\+ +where", text)[0].strip()[:1500]


def _source(item, frames):
    """The lines of the test that led to the failure, the last one being where it failed."""
    code = getattr(item.function, "__code__", None)
    line = next((entry.lineno for entry in frames if entry.frame.code.raw is code), None)
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(item.function))
    except (OSError, TypeError):
        return ""
    start = next(i for i, text in enumerate(lines) if text.lstrip().startswith("def "))
    end = len(lines) if line is None else line - first + 2
    kept = [text.rstrip() for text in lines[start + 1 : end]][-MOST_LINES:]
    margin = min((len(text) - len(text.lstrip()) for text in kept if text), default=0)
    return "\n".join(text[margin:] for text in kept)


def _own_frame(frames, student):
    """Where in the student's function the exception came from: its line number there, and the line."""
    file, qualname = student
    for entry in reversed(frames):
        code = entry.frame.code.raw
        inside = f"{code.co_qualname}.".startswith(f"{qualname}.")  # it, or a function that it makes
        if inside and Path(code.co_filename).as_posix().endswith(file):
            first = _line_of_definition(code.co_filename, qualname)
            return {"line": entry.lineno + 2 - first, "text": str(entry.statement).strip()}
    return None


def _line_of_definition(path, qualname):
    """The number of the line with `def`, where what the student wrote begins."""
    return holes.find(Path(path).read_text(encoding="utf-8"), qualname).lineno


def _values(frames, compared, error):
    """(expected, got) where the failure is a comparison."""
    if wrong := _wrong_gradient(frames):
        return _numeric_gradient(wrong), wrong["leaf"].grad
    for entry in reversed(frames):
        names = VALUES.get(entry.frame.code.name, ("",))
        if all(name in entry.locals for name in names):
            return tuple(entry.locals[name] for name in names)
    if isinstance(error, AssertionError) and compared is not None:
        left, right = compared
        return right, left
    return None


def shown(value):
    """A value as text: an array with shape and type, shortened where it is long."""
    value = value.detach().numpy() if hasattr(value, "detach") else value
    if isinstance(value, np.ndarray) and value.ndim:
        edges = 3 if value.ndim < 3 else 2
        numbers = np.array2string(value, precision=4, threshold=40, edgeitems=edges, max_line_width=88)
        return f"{numbers}\nshape {value.shape}, {value.dtype}"
    try:
        text = repr(value.item() if isinstance(value, (np.ndarray, np.generic)) else value)
    except Exception as another:  # the student's own class may do anything
        text = f"(a {type(value).__name__} that cannot be shown: {type(another).__name__})"
    return text if len(text) <= 600 else f"{text[:600]} ..."


def _place(expected, got):
    """The first index at which two values differ, with both numbers."""
    e, g = diagnosis.as_array(expected), diagnosis.as_array(got)
    if e is None or g is None or e.shape != g.shape or not e.ndim:
        return None
    differs = ~np.isclose(g, e, rtol=1e-5, atol=1e-6, equal_nan=True) if e.dtype.kind in "biuf" else g != e
    if not differs.any():  # the test is stricter than that
        differs = g != e
    places = np.argwhere(differs)
    if not len(places):
        return None
    place = tuple(int(i) for i in places[0])
    where = f"[{', '.join(map(str, place))}]"
    numbers = e[place].item(), g[place].item()
    if "f" in (e.dtype.kind, g.dtype.kind):
        digits = next((n for n in (6, 9, 12) if f"{numbers[0]:.{n}g}" != f"{numbers[1]:.{n}g}"), 17)
        numbers = [float(f"{number:.{digits}g}") for number in numbers]
    return f"{len(places)} of {e.size} differ, first at {where}: expected {numbers[0]!r}, got {numbers[1]!r}"


def _wrong_gradient(frames):
    """The local names of the `check_grad` that found a wrong gradient, or None."""
    for entry in reversed(frames):
        names = entry.locals
        if entry.frame.code.name == "check_grad" and "product" in names and names["leaf"].grad is not None:
            return names if names["x"].size <= MOST_DERIVATIVES else None
    return None


def _numeric_gradient(names):
    """The gradient as finite differences give it, one element after the other."""
    from tinytorch.autograd import directional_derivative

    x, gradient = names["x"], np.zeros_like(names["x"])
    for place in np.ndindex(x.shape):
        direction = np.zeros_like(x)
        direction[place] = 1
        gradient[place] = directional_derivative(names["product"], [x], [direction])
    return gradient


def _graph(frames):
    """The graph that `check_grad` went through, as SVG, with the input in red whose gradient is wrong."""
    names = _wrong_gradient(frames)
    if names is None:
        return None
    from tinytorch import Tensor, draw_graph

    fresh = [Tensor(leaf.data, requires_grad=leaf.requires_grad) for leaf in names["tensors"]]
    for new, old in zip(fresh, names["tensors"]):
        new.grad = old.grad
    labels = {f"input {i}": tensor for i, tensor in enumerate(fresh)}
    return draw_graph(names["function"](*fresh), names=labels, wrong=[f"input {names['i']}"])._repr_svg_()
