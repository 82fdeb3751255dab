"""Fingerprints of answers: what remains of Python code without its names, to tell which answers are alike.

An answer's syntax tree is read as a row of tokens. Its fingerprint has the checksum of all of them, and those of
overlapping pieces, picked by winnowing (Schleimer, Wilkerson and Aiken, "Winnowing: Local Algorithms for Document
Fingerprinting", 2003, section 3): two answers with LENGTH + WINDOW - 1 tokens in common, in a row, share a piece.
"""

import ast
import hashlib
import warnings

LENGTH, WINDOW = 8, 4  # tokens of a piece; neighbouring pieces of which one is picked
MOST_PIECES = 5000  # of one answer, those with the smallest checksums: it may be made to fill a disk
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
UNSEEN = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}  # fields of nodes
USUAL = {"np": "numpy", "tt": "tinytorch"}  # what the framework's files and the notebooks call them


def fingerprint(text):
    """What remains of Python code without its names, comments, docstrings, annotations, imports and layout.

    Returns {"whole": checksum, "parts": sorted checksums of pieces, "size": number of tokens}, ready for JSON; {} for
    what cannot be parsed. Nothing is run, and it takes time in proportion to the text.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    names = _Names(tree)
    streams = [list(_tokens(statement, names)) for statement in _kept(tree.body)]
    exact = sorted(_checksum(token for token, _ in stream) for stream in streams)  # helpers stand in any order
    loose = [[token for _, token in stream if token] for stream in streams]
    parts = sorted(set().union(*map(_winnowed, loose)))[:MOST_PIECES]
    return {"whole": _checksum(exact), "parts": parts, "size": sum(map(len, loose))}


class _Names:
    """Which names of a text are its own, and may be called anything: those at its top level, and private attributes."""

    def __init__(self, tree):
        self.shared = {found for statement in _kept(tree.body) for found in _defined(statement)}
        self.aliases, self.private = dict(USUAL), set()
        for node in ast.walk(tree):
            if isinstance(node, IMPORTS):
                before = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                self.aliases |= {a.asname: before + a.name for a in node.names if a.asname}
                self.aliases |= {a.name: before + a.name for a in node.names if before and not a.asname}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                self.private.add(node.attr)
            elif isinstance(node, ast.ClassDef):
                self.private |= {child.name for child in node.body if isinstance(child, DEFINITIONS)}
        self.private = {name for name in self.private if name.startswith("_") and not name.endswith("__")}


def _defined(statement):
    """The names that a statement at the top level makes."""
    if isinstance(statement, DEFINITIONS):
        return [statement.name]
    stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return [node.id for node in stored if not isinstance(node.ctx, ast.Load)]


def _kept(statements):
    """Those that do something; an assignment with an annotation is one without."""
    for statement in statements:
        bare = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and statement.value:
            yield ast.Assign([statement.target], statement.value)
        elif not (bare or isinstance(statement, (ast.Pass, ast.AnnAssign, *IMPORTS))):
            yield statement


def _bound(statement):
    """The names that are made anywhere in a statement: arguments, variables, functions in functions."""
    found, methods = set(), set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (*DEFINITIONS, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node not in methods:
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods |= set(node.body)
    return found - {None}


def _tokens(statement, names):
    """Yield (exact, loose) for each token, from the outside in, without recursion: a text may nest deeply.

    The exact ones tell the structure, and which variable is which; the loose ones bear a line more or less.
    """
    bound, numbers, waiting = _bound(statement) - names.shared, {}, [statement]

    def named(name):
        if name in bound:
            return f"v{numbers.setdefault(name, len(numbers))}", "v"
        name = "helper" if name in names.shared else names.aliases.get(name, name)
        return name, name

    while waiting:
        item = waiting.pop()
        if isinstance(item, ast.Name):
            yield named(item.id)
        elif isinstance(item, ast.Constant):
            yield _constant(item.value)
        elif isinstance(item, ast.Attribute):
            attribute = "._" if item.attr in names.private else f".{item.attr}"
            yield attribute, attribute
            waiting.append(item.value)
        elif isinstance(item, ast.keyword):
            yield f"{item.arg}=", f"{item.arg}="
            waiting.append(item.value)
        elif isinstance(item, ast.AST):
            yield (kind := type(item).__name__), "" if isinstance(item, (ast.arg, ast.arguments, ast.Expr)) else kind
            waiting += [value for field, value in ast.iter_fields(item) if field not in UNSEEN][::-1]
        elif isinstance(item, list):
            waiting += ["]", *list(_kept(item))[::-1]]
        elif isinstance(item, str) and item != "]":
            yield ("helper", "helper") if item in names.private else named(item)
        else:
            yield str(item), ""  # the end of a list, nothing, a flag


def _constant(value):
    if isinstance(value, (str, bytes)):
        return ascii(value), "text"  # a message in other words
    token = hex(value) if type(value) is int else repr(value)  # in decimal, long ones are refused
    return token, token


def _checksum(tokens):
    return hashlib.blake2b("\0".join(tokens).encode(), digest_size=8).hexdigest()


def _winnowed(tokens):
    """The checksums of pieces of LENGTH tokens: of each WINDOW in a row, the smallest."""
    pieces = [_checksum(tokens[i : i + LENGTH]) for i in range(max(1, len(tokens) - LENGTH + 1))]
    return {min(pieces[i : i + WINDOW]) for i in range(max(1, len(pieces) - WINDOW + 1))}
