"""Holes: the body of a function cut out of a source text, and a student's function put in its place.

All of it works on lines of text at positions that the parser gives, so that everything else stays as it is, byte for
byte: comments, formatting, decorators. A function is named by its qualified name, `backward` or `Node.pull_back`.
"""

import ast
import functools
import io
import tokenize


class HoleError(ValueError):
    """A target that is not there, or that cannot be cut."""


def find(source, qualname):
    """The node of a function or class in a source text; of several with one name, the last, as for Python."""
    node = _parsed(source)
    for name in qualname.split("."):
        kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
        found = [child for child in node.body if isinstance(child, kinds) and child.name == name]
        if not found:
            raise HoleError(f"There is no {qualname} in this file: {name} was not found.")
        node = found[-1]
    return node


_parsed = functools.lru_cache(maxsize=8)(ast.parse)  # nobody changes the nodes; a file has many functions


def extract(source, qualname):
    """The text of a function or class without its decorators, as if it stood at the left margin."""
    node = find(source, qualname)
    text = "".join(split_lines(source)[node.lineno - 1 : node.end_lineno])
    return _shifted(text, node, -node.col_offset, first=node.lineno)


def cut(source, qualname, *body):
    """Replace what stands below signature and docstring by the lines of `body`.

    Of a class, what is left has them for its `__init__`. Raises HoleError where there is nothing to cut.
    """
    lines, node = split_lines(source), find(source, qualname)
    first = _first_line_of_body(lines, node, qualname)
    indent = " " * node.body[0].col_offset
    hole = [f"{indent}{line}\n" for line in body]
    if isinstance(node, ast.ClassDef):
        hole = [f"{indent}def __init__(self, *args, **kwargs):\n", *(f"    {line}" for line in hole)]
        if ast.get_docstring(node):
            hole.insert(0, "\n")
    if not lines[node.end_lineno - 1].endswith("\n"):
        hole[-1] = hole[-1].removesuffix("\n")
    return "".join(lines[: first - 1] + hole + lines[node.end_lineno :])


def splice(source, qualname, new):
    """Put the text of a function or class in the place of the one called `qualname`, at its indentation.

    The decorators of the old one stay, and those of the new one are dropped.
    """
    node, name = find(source, qualname), qualname.rpartition(".")[2]
    new = "".join(split_lines(new)).strip("\n") + "\n"
    written = find(new, name)
    text = "".join(split_lines(new)[written.lineno - 1 : written.end_lineno])
    lines = split_lines(source)
    text = _shifted(text, written, node.col_offset - written.col_offset, first=written.lineno).removesuffix("\n")
    if lines[node.end_lineno - 1].endswith("\n"):
        text += "\n"
    return "".join(lines[: node.lineno - 1]) + text + "".join(lines[node.end_lineno :])


def marked(source, qualname, before, after):
    """The same with a line before and one after the body, as `cut` finds it."""
    lines, node = split_lines(source), find(source, qualname)
    first = _first_line_of_body(lines, node, qualname)
    indent = " " * node.body[0].col_offset
    last = lines[node.end_lineno - 1].removesuffix("\n") + "\n"
    body = [f"{indent}{before}\n", *lines[first - 1 : node.end_lineno - 1], last, f"{indent}{after}\n"]
    return "".join(lines[: first - 1] + body + lines[node.end_lineno :])


def handout(source, qualname):
    """The text that explains a target: its docstring, or for a method without one that of its class. None without."""
    text = ast.get_docstring(find(source, qualname))
    owner = qualname.rpartition(".")[0]
    return text or (ast.get_docstring(find(source, owner)) if owner else None)


def forward_only(source, qualname):
    """The text of an operation that returns its output alone, from one that returns (output, rule)."""
    text = extract(source, qualname)
    lines, node = split_lines(text), find(text, qualname.rpartition(".")[2])
    waiting, pairs = list(node.body), []
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Tuple) and len(inner.value.elts) == 2:
            pairs.append(inner)
        elif not isinstance(inner, (ast.FunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(inner)
    if not pairs:
        raise HoleError(f"{qualname} never returns (output, rule), so that there is no stage without the rule.")
    for pair in sorted(pairs, key=lambda pair: -pair.lineno):
        output = ast.get_source_segment(text, pair.value.elts[0])
        lines[pair.lineno - 1 : pair.end_lineno] = [" " * pair.col_offset + f"return {output}\n"]
    return "".join(lines)


def split_lines(source):
    """The lines as the parser counts them: only at ends of line, not at form feeds and other separators."""
    return io.StringIO(source, newline="").readlines()


def _first_line_of_body(lines, node, qualname):
    """The number of the first line below the signature, and below the docstring where there is one."""
    following = iter(lines[node.lineno - 1 :])
    tokens = tokenize.generate_tokens(lambda: next(following, ""))
    header = node.lineno - 1 + next(token.end[0] for token in tokens if token.type == tokenize.NEWLINE)
    if node.body[0].lineno <= header:
        raise HoleError(f"{qualname} is written in one line and cannot be cut. Put its body on a line of its own.")
    if ast.get_docstring(node) is None:
        return header + 1
    if len(node.body) == 1:
        raise HoleError(f"{qualname} has a docstring and nothing below it to cut.")
    return node.body[0].end_lineno + 1


def _shifted(text, node, by, first):
    """Text (the lines of `node`, from number `first` on) moved right or left; strings of several lines stay.

    Docstrings move along: what they say does not depend on it.
    """
    lines, still = split_lines(text), set()
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(node) if isinstance(n, documented) and ast.get_docstring(n)}
    for part in ast.walk(node):
        several = isinstance(part, (ast.Constant, ast.JoinedStr)) and part.end_lineno > part.lineno
        if several and id(part) not in docstrings and isinstance(getattr(part, "value", ""), (str, bytes)):
            still |= set(range(part.lineno + 1, part.end_lineno + 1))
    for i, line in enumerate(lines):
        if i + first in still or not line.strip():
            continue
        if by > 0:
            lines[i] = " " * by + line
        elif by < 0 and line.startswith(" " * -by):
            lines[i] = line[-by:]
    return "".join(lines)
