"""Names of submissions that are hard to write down, and honest work in every style."""

import os

from .files import ANSWER, MUL, RIGHT, notebook, python, zipped

NAMES = [
    "comma, quote \" and ' too.py",
    "new\nline.py",
    "\x1b[31mred\x07.py",
    "caf\N{COMBINING ACUTE ACCENT}e.py",
    "caf\xe9.py",
    "cafe\N{COMBINING ACUTE ACCENT}.py",
    "\N{RIGHT-TO-LEFT OVERRIDE}yp.py",
    "-rf.py",
    "--out.py",
    "=cmd().py",
    "@SUM(A1).py",
    "<script>alert(1)<.py",
    "a|b [c](d) *e*.py",
    "space .py",
    "%s{0}$HOME`id`.py",
    f"{'x' * 252}.py",
    f"{'x' * 250}.ipynb"[:255],
    "CON.py",
    "grade.json.py",
    os.fsdecode(b"byte\xff.py"),
    "byte\\xff.py",
    os.fsdecode(b"\xff" * 252 + b".py"),
    "twice.py",
    "twice.ipynb",
    "twice.zip",
    "twice.zip.py",
    "empty.zip",
]
CODE = ANSWER + MUL


def _magics():
    return notebook("%matplotlib inline\n!ls", f"%%time\n{MUL}{RIGHT}", ANSWER, ANSWER)


HONEST = {
    "plain.py": CODE + RIGHT,
    "prints.py": CODE + "import sys\n    print(x)\n    print(y, file=sys.stderr)\n    " + RIGHT,
    "warns.py": CODE + 'import warnings\n    warnings.warn("careful")\n    ' + RIGHT,
    "helper.py": f"from math import prod\nTWO = 2\n\n\ndef half(x):\n    return x * prod((TWO, 1)) / 4\n{CODE}"
    "return half(x) * 2 * y, (lambda g: g * y, lambda g: g * x)\n",
    "style.py": CODE + "return (x  *y,( lambda   g:g*y,\n  lambda g : (\n  g*x)) ) ;\n",
    "bom.py": b"\xef\xbb\xbf" + (CODE + RIGHT).encode(),
    "crlf.py": (CODE + RIGHT).replace("\n", "\r\n").encode(),
    "tabs.py": (CODE + RIGHT).replace("    ", "\t"),
    "no_newline.py": (CODE + RIGHT).rstrip("\n"),
    "utf8.py": f"# \xe9\n{CODE}{RIGHT}",
    "magics.ipynb": _magics(),
    "out_of_order.ipynb": notebook(MUL + "return half(x) * 2 * y, (lambda g: g * y, lambda g: g * x)",
                                   ANSWER, "def half(x):\n    return x / 2"),
    "duplicated.ipynb": notebook(ANSWER, MUL + "return 1", MUL + RIGHT),
    "ledger.zip": zipped(("work/05_autograd.py", CODE + RIGHT), ("notebooks/05.ipynb", notebook(MUL + "pass"))),
    "honest.py": CODE + RIGHT,
}  # fmt: skip


def make(folder):
    """Make all of them; returns {name: the points that it gets}."""
    for name in NAMES:
        content = "x = 1\n"  # nothing to run: it is about the name
        if name.endswith((".ipynb", ".zip")):
            content = (
                notebook(content) if name.endswith(".ipynb") else zipped(*[("05.py", content)] * (name != "empty.zip"))
            )
        python(folder, name, content)
    for name, content in HONEST.items():
        python(folder, name, content)
    for name in ("05.py", "picture.png", ".git/HEAD", "__pycache__/05.pyc", "notes/todo.txt"):
        python(folder, f"honest_folder/{name}", CODE + RIGHT)
    return dict.fromkeys(NAMES, 0) | dict.fromkeys([*HONEST, "honest_folder"], 2)
