"""A Sphinx extension: our docstrings are text with `code` between backticks, autodoc reads reStructuredText."""

import contextlib
import inspect
import re

import numpy as np

NAME = re.compile(r"[A-Za-z]\w*(\.\w+)*")


def restructured(text, own=()):
    """The text as reStructuredText. A name in backticks becomes a link where there is such a page.

    own: names that mean an argument here, not the function of that name.
    """
    return re.sub(r"`([^`]+)`(\w?)|([*_|\\])", lambda found: _piece(found, own), text)


def _piece(found, own):
    code, after, special = found.groups()
    if special:
        return "\\" + special
    code = " ".join(code.split())
    after = f"\\ {after}" if after else ""  # a mark of reStructuredText does not end within a word
    if NAME.fullmatch(code) and code not in own:
        return f":py:obj:`{code}`{after}"
    return f"``{code}``{after}"


def process(app, what, name, obj, options, lines):
    """The hook of autodoc."""
    if isinstance(obj, np.dtype):  # its own docstring is about NumPy
        lines[:] = [f"NumPy's ``{obj!r}``, as the argument ``dtype``.", ""]
        return
    own = ()
    with contextlib.suppress(TypeError, ValueError):  # attributes, and what is written in C
        own = inspect.signature(obj).parameters
    lines[:] = restructured("\n".join(lines), own).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", process)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
