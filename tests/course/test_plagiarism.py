"""Fingerprints see through names and layout, and nothing else; the report names copies, and nobody who worked alone."""

import ast
import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from tinytorch_course.grading import plagiarism
from tinytorch_course.grading.fingerprints import LENGTH, MOST_PIECES, WINDOW, _winnowed, fingerprint
from tinytorch_course.grading.grades import ExerciseGrade, Grade
from tinytorch_course.lessons import ROOT, read_lessons

LESSONS = read_lessons()
LESSON = LESSONS[4]
EXERCISES = {exercise.id: exercise for lesson in LESSONS for exercise in lesson.exercises}
MUL, PULL_BACK, BACKWARD = (EXERCISES[f"ex-05-{number}"] for number in (2, 9, 10))

# ---- right answers, written without a look at the reference

MAX_OF_TIMES = '''\
def backward(root, gradient, retain_graph=False):
    """From the newest node to the oldest."""
    pending = {root.time: (root, gradient)}
    while pending:
        newest = max(pending)
        node, total = pending.pop(newest)
        for source, part in node.pull_back(total):
            if isinstance(source, Node):
                if source.time in pending:
                    part = pending[source.time][1] + part
                pending[source.time] = (source, part)
            else:
                source.accumulate_grad(part)
        if retain_graph:
            continue
        node.free()
'''
SORTED_FIRST = """\
def backward(root, gradient, retain_graph=False):
    order, seen, stack = [], set(), [root]
    while stack:
        n = stack.pop()
        if id(n) in seen:
            continue
        seen.add(id(n))
        order.append(n)
        for edge in n.inputs:
            if edge is not None and isinstance(edge[0], Node):
                stack.append(edge[0])
    order.sort(key=lambda n: n.time, reverse=True)
    grads = {id(root): gradient}
    for n in order:
        g = grads.pop(id(n), None)
        if g is None:
            continue
        for source, value in n.pull_back(g):
            if isinstance(source, Node):
                old = grads.get(id(source))
                grads[id(source)] = value if old is None else old + value
            else:
                source.accumulate_grad(value)
        if not retain_graph:
            n.free()
"""
BY_HAND = """\
def backward(root, gradient, retain_graph=False):
    grads = {}
    grads[root] = gradient
    heap = []
    heapq.heappush(heap, (-root.time, root))
    while len(heap) > 0:
        item = heapq.heappop(heap)
        node = item[1]
        g = grads[node]
        del grads[node]
        for src, sg in node.pull_back(g):
            if isinstance(src, Node):
                if src not in grads:
                    heapq.heappush(heap, (-src.time, src))
                    grads[src] = sg
                else:
                    grads[src] = grads[src] + sg
            else:
                src.accumulate_grad(sg)
        if retain_graph == False:
            node.free()
"""
LIST_FIRST = """\
def pull_back(self, g):
    one_for_all = callable(self.rule)
    if one_for_all:
        gradients = list(self._answers(g))
    else:
        gradients = [None if e is None else f(g) for e, f in zip(self.inputs, self._answers(g))]
    for i in range(len(self.inputs)):
        if self.inputs[i] is None:
            continue
        source, shape, dtype = self.inputs[i]
        yield source, _fit(gradients[i], shape, dtype, self.name)
"""
ITERATOR = """\
def pull_back(self, g):
    answers = iter(self._answers(g))
    for edge in self.inputs:
        rule = next(answers, None)
        if edge is None:
            continue
        grad = rule if callable(self.rule) else rule(g)
        yield edge[0], _fit(grad, edge[1], edge[2], self.name)
"""
INDEPENDENT = [
    (BACKWARD, [BACKWARD.solution(), MAX_OF_TIMES, SORTED_FIRST, BY_HAND]),
    (PULL_BACK, [PULL_BACK.solution(), LIST_FIRST, ITERATOR]),
]


def renamed(text, **names):
    for old, new in names.items():
        text, count = re.subn(rf"\b{old}\b", new, text)
        assert count
    return text


DISGUISED = renamed(MAX_OF_TIMES, pending="todo", newest="t", node="v", total="grad_out", source="s", part="p").replace(
    "todo = {", "todo: dict = {  # what is still to do\n        "
)


def share(a, b):
    a, b = set(a["parts"]), set(b["parts"])
    return len(a & b) / min(len(a), len(b))


# ---- fingerprints

WITH_HELPERS = '''\
import math
from itertools import chain, count as numbers

LIMIT = 3

def first(x):
    """Of all."""
    return math.sqrt(x) + LIMIT

def second(y, z=1):
    return [*chain(y, [z]), next(numbers())]

class Answer:
    def __init__(self, size):
        self._kept, self.size = first(size), size

    def _more(self):
        return second(self._kept)

    def forward(self, x):
        try:
            return self._more() + x
        except ValueError as error:
            raise TypeError("no") from error
'''
REORDERED = '''\
from itertools import count, chain as joined
import math as m

# the second one first
def _b(values, last=1):
    return [*joined(values, [last]), next(count())]

def _a(value: float) -> float:
    return m.sqrt(value) + MOST

MOST: int = 3

class Answer:
    """What was asked for."""
    def __init__(self, n):
        self._a, self.size = (_a(n)), n
    def _step(self): return _b(self._a)

    def forward(self, inputs):
        "Both."
        pass
        try: return self._step() + inputs
        except ValueError as e: raise TypeError('no') from e
'''


@pytest.mark.parametrize(
    ("text", "other"),
    [(MAX_OF_TIMES, DISGUISED), (MAX_OF_TIMES, ast.unparse(ast.parse(MAX_OF_TIMES))), (WITH_HELPERS, REORDERED)],
    ids=["names, comments, annotations", "layout", "helpers, imports, docstrings, private attributes"],
)
def test_the_same_in_other_words(text, other):
    assert text != other
    assert fingerprint(text) == fingerprint(other) != {}


MUL_TEXT = MUL.solution()


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (MAX_OF_TIMES, MAX_OF_TIMES.replace("[1] + part", "[1] - part")),
        (MAX_OF_TIMES, MAX_OF_TIMES.replace("[1]", "[0]")),
        (MAX_OF_TIMES, MAX_OF_TIMES.replace("max(", "min(")),
        (MAX_OF_TIMES, MAX_OF_TIMES.replace(".pop(", ".get(")),
        (MAX_OF_TIMES, MAX_OF_TIMES.replace("if retain_graph", "if not retain_graph")),
        (MUL_TEXT, MUL_TEXT.replace("lambda g: g * y", "lambda g: g * x")),
        ("a = x[:2]", "a = x[2:]"),
        ("a = 1", "a = 1.0"),
        ("a = 1", "a = True"),
        ("a = f(1, 2)", "a = f([1, 2])"),
        ("a = f(k=1)", "a = f(l=1)"),
        ("a = 'one'", "a = 'two'"),
        ("def f(x):\n    if x:\n        a()\n    b()", "def f(x):\n    if x:\n        a()\n        b()"),
    ],
)
def test_another_program_is_another(text, other):
    assert text != other
    assert fingerprint(text)["whole"] != fingerprint(other)["whole"]


def test_all_references_are_different():
    wholes = [fingerprint(exercise.solution())["whole"] for exercise in EXERCISES.values()]
    assert len(wholes) > 100 and len(set(wholes)) == len(wholes)


LONG = [exercise for exercise in EXERCISES.values() if fingerprint(exercise.solution())["size"] >= plagiarism.SHORT]


@pytest.mark.parametrize("exercise", LONG, ids=lambda exercise: exercise.id)
def test_one_statement_more_hides_no_copy(exercise):
    tree = ast.parse(exercise.solution())
    blocks = [node.body for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.If, ast.For, ast.While))]
    for block, place in itertools.product(blocks, (0, -1)):
        block.insert(place, ast.parse("print('here', 1)").body[0])
        more = fingerprint(ast.unparse(tree))
        del block[0 if place == 0 else -2]
        assert more["whole"] != fingerprint(exercise.solution())["whole"]
        assert share(fingerprint(exercise.solution()), more) > plagiarism.ALIKE


@pytest.mark.parametrize(("exercise", "texts"), INDEPENDENT, ids=lambda given: getattr(given, "id", ""))
def test_who_worked_alone_is_not_alike(exercise, texts):
    for a, b in itertools.combinations(map(fingerprint, texts), 2):
        assert min(a["size"], b["size"]) >= plagiarism.SHORT
        assert share(a, b) < 0.7 * plagiarism.ALIKE


def test_a_run_of_tokens_that_is_long_enough_leaves_a_common_piece():
    rng = random.Random(3)
    for _ in range(200):
        run = [str(rng.random()) for _ in range(LENGTH + WINDOW - 1)]
        a, b = ([str(rng.random()) for _ in range(rng.randrange(30))] for _ in range(2))
        at, there = rng.randint(0, len(a)), rng.randint(0, len(b))
        assert _winnowed(a[:at] + run + a[at:]) & _winnowed(b[:there] + run + b[there:])
        short = run[: LENGTH - 1]
        assert not _winnowed(["<", *a, *short, "y"]) & _winnowed([">", *b, *short, "z"])


def test_it_is_the_same_in_every_process():
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + (
        "import json; from tinytorch_course.grading.fingerprints import fingerprint\n"
        "print(json.dumps(fingerprint(sys.stdin.read())))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "11"}
    ran = subprocess.run(
        [sys.executable, "-c", script], input=WITH_HELPERS, capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(ran.stdout) == fingerprint(WITH_HELPERS)


def test_it_is_the_same_in_every_version_of_python():
    text = "def f(x, *, a=1, **b):\n    return f'{x!r:>9} {b}', (lambda y: y @ -x), {**b}, x[1:, None]\n"
    assert fingerprint(text)["whole"] == "10f13056688e6640"


# ---- texts that are made to break who reads them


@pytest.mark.parametrize(
    "text",
    ["def f(:", "(" * 100_000, "a" + ".b" * 100_000, "x = '\ud800", "x = 1\0", "-" * 100_000 + "1", "é = \\\n"],
    ids=["syntax", "parentheses", "attributes", "surrogate", "null", "minus", "end"],
)
def test_what_cannot_be_read_has_no_fingerprint(text):
    assert fingerprint(text) == {}


def test_nothing_is_run_and_strange_text_is_read(tmp_path):
    path = tmp_path / "made"
    text = (
        f"open({str(path)!r}, 'w')\nx = 0x{'f' * 100_000}\ny = '\\ud800'\nz = '\\q'\nclass A: pass\nraise SystemExit\n"
    )
    found = fingerprint(text)
    assert found["size"] > 5 and not path.exists()
    assert json.loads(json.dumps(found)) == found
    assert fingerprint("")["size"] == 0


def test_a_deep_text_is_read_without_recursion():
    levels = 2 * sys.getrecursionlimit()
    assert fingerprint("x = " + " + ".join(["1"] * levels))["size"] == 2 + 3 * levels - 2  # BinOp, Add, 1


def test_a_long_text_has_a_short_fingerprint():
    found = fingerprint("\n".join(f"x{i} = {i} * {i * i} + {i % 17}" for i in range(5000)))
    assert found["size"] > 30_000 and len(found["parts"]) == MOST_PIECES
    assert found["parts"] == sorted(set(found["parts"]))


# ---- the report


def graded(answers, status="passed"):
    """Grades of {student: {exercise: text}}."""
    found = []
    for student, texts in answers.items():
        grade = Grade(student, f"{student}.zip", "", LESSON.number, "", {})
        grade.exercises = [
            ExerciseGrade(exercise.id, exercise.title, exercise.points, 0.0, status, fingerprint=fingerprint(text))
            for exercise, text in texts.items()
        ]
        found.append(grade)
    return found


def tables(text):
    """{heading: rows of the table below it, without its head}."""
    found, heading = {}, None
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
            found[heading] = []
        elif line.startswith("| "):
            found[heading].append(tuple(cell.strip() for cell in line.strip("|").split(" | ")))
    return {heading: rows[2:] for heading, rows in found.items()}


def reported(answers):
    return tables(plagiarism.report(graded(answers), LESSON))


OVER_ALL, REFERENCE, COMPARED = "Pairs, over all exercises", "Like the reference", "What was compared"
PAIRS = f"{BACKWARD.id}: {BACKWARD.title}"


def test_copies_are_named_and_who_worked_alone_is_not():
    more = MAX_OF_TIMES.replace("        node, total", "        count = len(pending)\n        node, total")
    texts = {"ada": MAX_OF_TIMES, "ben": SORTED_FIRST, "cem": DISGUISED, "dan": BY_HAND, "eva": more}
    found = reported({student: {BACKWARD: text} for student, text in texts.items()})
    assert [row[:2] for row in found[PAIRS]] == [("ada", "cem"), ("ada", "eva"), ("cem", "eva")]
    assert found[PAIRS][0][2:] == ("the same", "passed, passed")
    percent = round(100 * share(fingerprint(MAX_OF_TIMES), fingerprint(more)))
    assert found[PAIRS][1][2] == found[PAIRS][2][2] and 75 < percent < 100
    assert abs(int(found[PAIRS][1][2].rstrip("%")) - percent) < 10  # what was handed out is not compared
    assert found[REFERENCE] == []
    assert dict(zip(("answers", "short", "common", "copies", "pairs"), found[COMPARED][9][1:])) == {
        "answers": "5", "short": "0", "common": "0", "copies": "0", "pairs": "3",
    }  # fmt: skip


def test_copies_of_the_reference_are_named_apart():
    copy = renamed(BACKWARD.solution(), gradients="grads", newest_first="heap", source="s")
    changed = copy.replace("        if not retain_graph:", "        done = True\n        if not retain_graph:")
    texts = {"ada": copy, "ben": SORTED_FIRST, "cem": BACKWARD.solution(), "dan": changed}
    found = reported({student: {BACKWARD: text} for student, text in texts.items()})
    assert [row[:2] for row in found[REFERENCE]] == [(name, BACKWARD.id) for name in ("ada", "cem", "dan")]
    assert [row[2] for row in found[REFERENCE]][:2] == ["the same", "the same"]
    assert 60 <= int(found[REFERENCE][2][2].rstrip("%")) < 100
    assert found[OVER_ALL] == [] and PAIRS not in found


def test_short_answers_are_left_out_and_it_is_said():
    found = reported({name: {MUL: MUL.solution()} for name in ("ada", "ben")})
    assert found[OVER_ALL] == [] and found[REFERENCE] == []
    assert found[COMPARED][1] == (MUL.id, "2", "2", "0", "0", "0")
    assert "too short" in plagiarism.report(graded({"ada": {MUL: MUL.solution()}}), LESSON)


@pytest.mark.parametrize(("copies", "others", "pairs"), [(3, 0, 3), (4, 0, 0), (4, 8, 6), (5, 9, 0)])
def test_what_more_than_a_third_share_is_the_common_solution(copies, others, pairs):
    texts = [MAX_OF_TIMES] * copies + [made_up(random.Random(seed)) for seed in range(others)]
    found = reported({f"s{i:02}": {BACKWARD: text} for i, text in enumerate(texts)})
    assert len(found[OVER_ALL]) == pairs
    assert found[COMPARED][9][3] == ("0" if pairs else str(copies))


def test_pieces_that_more_than_a_third_share_make_nobody_alike():
    common = ["\n".join([MAX_OF_TIMES.rstrip(), *made_up(random.Random(seed)).splitlines()[1:4]]) for seed in range(13)]
    alone = [made_up(random.Random(seed)) for seed in range(100, 124)]
    assert share(fingerprint(common[0]), fingerprint(common[1])) > plagiarism.ALIKE
    for number, alike in ((12, True), (13, False)):  # of 36, a third, or more
        handed_in = common[:number] + alone[: 36 - number]
        found = reported({f"s{i:02}": {BACKWARD: text} for i, text in enumerate(handed_in)})
        assert bool(found[OVER_ALL]) == alike


def test_two_who_are_alike_because_both_are_like_the_reference_are_no_pair():
    solution = BACKWARD.solution()
    one = solution.replace("        if not retain_graph:", "        done = True\n        if not retain_graph:")
    two = solution.replace("    while newest_first:", "    print(len(gradients))\n    while newest_first:")
    assert share(fingerprint(one), fingerprint(two)) > plagiarism.ALIKE
    found = reported({"ada": {BACKWARD: one}, "ben": {BACKWARD: two}})
    assert [row[0] for row in found[REFERENCE]] == ["ada", "ben"] and found[OVER_ALL] == []


def test_if_many_are_near_the_reference_that_is_the_common_solution():
    texts = [BACKWARD.solution().rstrip() + f"\n    return {i * '-'}root\n" for i in range(4)]
    for number in (3, 4):
        found = reported({f"s{i}": {BACKWARD: text} for i, text in enumerate(texts[:number])})
        assert found[COMPARED][9] == (BACKWARD.id, str(number), "0", *(("0", "3", "0") if number == 3 else "400"))
        assert len(found[REFERENCE]) == (3 if number == 3 else 0) and found[OVER_ALL] == []


def test_what_was_handed_out_is_not_compared():
    texts = ["\n".join([MAX_OF_TIMES.rstrip(), *made_up(random.Random(seed)).splitlines()[1:6]]) for seed in (1, 2)]
    prints = dict(enumerate(map(fingerprint, texts)))
    for handout, pairs in (("", 1), (MAX_OF_TIMES, 0)):
        exercise = SimpleNamespace(id="ex", hole=lambda handout=handout: handout)
        assert len(plagiarism.compare(exercise, prints, fingerprint("")).pairs) == pairs


def test_two_who_share_several_exercises_come_first():
    together = {BACKWARD: MAX_OF_TIMES, PULL_BACK: LIST_FIRST}
    found = reported({
        "ada": {BACKWARD: BY_HAND, PULL_BACK: ITERATOR},
        "ben": {BACKWARD: SORTED_FIRST},
        "cem": together,
        "dan": {BACKWARD: BY_HAND, PULL_BACK: PULL_BACK.hole()},
        "eva": together,
    })  # fmt: skip
    assert found[OVER_ALL] == [
        ("cem", "eva", "2", "ex-05-9 the same, ex-05-10 the same"),
        ("ada", "dan", "1", "ex-05-10 the same"),
    ]


def test_it_accuses_nobody():
    text = plagiarism.report(graded({name: {BACKWARD: MAX_OF_TIMES} for name in ("ada", "ben")}), LESSON)
    assert "It proves nothing" in text
    assert not re.search(r"plagiari|cheat|guilt|stole|fraud|offen[cs]e", text, re.IGNORECASE)


def test_nobody_handed_in_and_nothing_that_can_be_read():
    assert "None." in plagiarism.report([], LESSON)
    found = reported({"ada": {BACKWARD: "def backward(:"}, "ben": {}})
    assert found[COMPARED][9] == (BACKWARD.id, "0", "0", "0", "0", "0")


def test_names_are_text_and_never_markup():
    markdown = pytest.importorskip("markdown_it", reason='needs markdown-it-py, which comes with ".[docs]"')
    names = ["a|b", "<script>alert(1)</script>", "[x](http://x.org) **b** `c`", "line\nbreak | 2", "\\| \\", "\udce4"]
    text = plagiarism.report(graded({name: {BACKWARD: MAX_OF_TIMES} for name in names[:3]}), LESSON)
    text += plagiarism.report(graded({name: {BACKWARD: MAX_OF_TIMES} for name in names[3:]}), LESSON)
    text.encode("utf-8")
    tokens = markdown.MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inside = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inside} <= {"text", "softbreak", "code_inline", "text_special"}
    cells = {"".join(child.content for child in token.children or ()) for token in tokens if token.type == "inline"}
    assert {"a|b", "<script>alert(1)</script>", "[x](http://x.org) **b** `c`", "line break | 2", "\\| \\"} <= cells


# ---- a large class


def made_up(rng):
    """A function of random statements: what two make up has little in common."""
    names = ["x", "y", "total", "g", "node", "shape"]
    calls = ["np.sum", "np.exp", "len", "max", "node.pull_back", "x.reshape", "zip", "f", "y.mean"]

    def value(depth):
        if depth == 0 or rng.random() < 0.2:
            return rng.choice([*names, str(rng.randrange(9))])
        a, b = value(depth - 1), value(depth - 1)
        return rng.choice([f"({a} {rng.choice('+-*/@<')} {b})", f"{rng.choice(calls)}({a}, {b})", f"{a}[{b}]", f"-{a}"])

    lines = [f"    {rng.choice(names)} {rng.choice(['=', '+=', '*='])} {value(3)}" for _ in range(12)]
    return "\n".join([BACKWARD.hole().splitlines()[0], *lines, f"    return {value(2)}"])


def test_the_inverted_index_finds_what_all_pairs_of_sets_find():
    rng, texts = random.Random(5), []
    for _ in range(20):
        lines = made_up(rng).splitlines()
        for kept in (14, 11, 8, 5):
            chosen = sorted(rng.sample(range(1, len(lines) - 1), min(kept, len(lines) - 2)))
            texts.append("\n".join([lines[0], *(lines[i] for i in chosen), lines[-1]]))
    prints = {i: found for i, text in enumerate(texts) if (found := fingerprint(text))["size"] >= plagiarism.SHORT}
    counts = Counter(part for seen in prints.values() for part in seen["parts"])
    left_out = {part for part, count in counts.items() if count > len(prints) / 3}
    left_out |= set(fingerprint(BACKWARD.hole())["parts"])
    expected = {}
    for a, b in itertools.combinations(prints, 2):
        x, y = (set(prints[i]["parts"]) - left_out for i in (a, b))
        if len(x & y) >= plagiarism.ALIKE * min(len(x), len(y)) or prints[a]["whole"] == prints[b]["whole"]:
            expected[a, b] = len(x & y) / min(len(x), len(y))
    found = plagiarism.compare(BACKWARD, prints, plagiarism.reference(LESSON)[BACKWARD.id])
    assert len(expected) > 50 and max(expected) > (50, 50)
    assert {alike.students: alike.share for alike in found.pairs} == pytest.approx(expected)


def test_a_class_of_500_with_a_few_copies():
    rng = random.Random(7)

    def seen():
        return {
            "whole": rng.randbytes(8).hex(),
            "parts": sorted(rng.randbytes(8).hex() for _ in range(60)),
            "size": 200,
        }

    answers = [{exercise: seen() for exercise in LESSON.exercises} for _ in range(500)]
    planted = [("s3", "s400", 10), ("s17", "s18", 4), ("s250", "s499", 1)]
    for a, b, number in planted:
        answers[int(b[1:])] |= dict(list(answers[int(a[1:])].items())[:number])
    grades = [Grade(f"s{i}", "", "", LESSON.number, "", {}) for i in range(500)]
    for grade, prints in zip(grades, answers):
        grade.exercises = [
            ExerciseGrade(exercise.id, "", 1, 0.0, "failed", fingerprint=found) for exercise, found in prints.items()
        ]
    rows = tables(plagiarism.report(grades, LESSON))[OVER_ALL]
    assert [(a, b, int(number)) for a, b, number, _ in rows] == planted
