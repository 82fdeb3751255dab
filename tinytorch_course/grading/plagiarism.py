"""Answers that are alike: fingerprints compared, exercise by exercise, and a report on what is worth a look.

What many share is left out: the handed-out code, the solution that most have found, and answers of a few lines.
"""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from .feedback import clean, inline
from .fingerprints import fingerprint
from .grades import STATUSES

SHORT = 50  # tokens: below, strangers write the same
ALIKE = 0.6  # share of the pieces: independent solutions have up to 0.4 in common, copies with three changes 0.65
FEWEST = 8  # pieces that are compared: below, a share says nothing
FEW = 3  # students, or a third of those who answered: what more of them share is the common solution
MOST_ROWS = 200  # of a table


@dataclass(frozen=True)
class Alike:
    """Two answers to an exercise that have a share of their pieces in common; same: all tokens, in order.

    students: places in the list of grades; None is the reference.
    """

    exercise: str
    students: tuple
    share: float
    same: bool = False


@dataclass
class Compared:
    """What came of the answers to one exercise: Alikes, and how many answers were too short, or a common solution."""

    answers: int
    short: int = 0
    common: int = 0
    pairs: list = field(default_factory=list)
    copies: list = field(default_factory=list)


def reference(lesson):
    """{id of an exercise: fingerprint of the reference's answer}."""
    return {exercise.id: fingerprint(exercise.solution()) for exercise in lesson.exercises}


def compare(exercise, answers, solution):
    """Compare fingerprints of answers to an exercise, {student: fingerprint}, and of the reference's: a Compared."""
    many = max(FEW, len(answers) / 3)
    handout = set(fingerprint(exercise.hole())["parts"])
    long = {student: seen for student, seen in answers.items() if seen["size"] >= SHORT}
    groups = defaultdict(list)
    for student, seen in long.items():
        groups[seen["whole"]].append(student)
    copies = groups.pop(solution["whole"], [])
    few = {whole: group for whole, group in groups.items() if len(group) <= many}
    own = {student: set(seen["parts"]) - handout for student, seen in long.items() if seen["whole"] in few}
    near = _near(own, set(solution["parts"]) - handout)
    common = len(long) - len(copies) - len(own)
    found = Compared(len(answers), len(answers) - len(long), common + (len(near) if len(near) > many else 0))
    found.copies = [Alike(exercise.id, (student, None), 1.0, True) for student in copies]
    if len(near) <= many:
        found.copies += [Alike(exercise.id, (student, None), share) for student, share in near.items()]
    students = Counter(part for seen in answers.values() for part in seen["parts"])
    rare = {student: {part for part in parts if students[part] <= many} for student, parts in own.items()}
    same = dict.fromkeys(pair for group in few.values() for pair in itertools.combinations(group, 2))
    found.pairs = [Alike(exercise.id, pair, 1.0, True) for pair in same]
    for pair, share in _shares(rare).items():
        if pair not in same and not near.keys() >= set(pair):  # both near the reference: alike because of it
            found.pairs.append(Alike(exercise.id, pair, share))
    return found


def _near(own, solution):
    """{student: share} of those who have most of their pieces from the reference."""
    shares = {
        student: len(parts & solution) / min(len(parts), len(solution))
        for student, parts in own.items()
        if min(len(parts), len(solution)) >= FEWEST
    }
    return {student: share for student, share in shares.items() if share >= ALIKE}


def _shares(pieces):
    """{(a, b): share} of those who have at least ALIKE of the smaller one's pieces in common: by an inverted index."""
    students = [student for student, own in pieces.items() if len(own) >= FEWEST]
    owners = defaultdict(list)
    for row, student in enumerate(students):
        for piece in pieces[student]:
            owners[piece].append(row)
    shared = np.zeros((len(students), len(students)))
    for rows, times in Counter(map(tuple, owners.values())).items():  # what was copied has the same owners
        shared[np.ix_(rows, rows)] += times
    sizes = shared.diagonal()
    shares = np.triu(shared / np.minimum.outer(sizes, sizes), 1)
    return {(students[a], students[b]): float(shares[a, b]) for a, b in zip(*np.nonzero(shares >= ALIKE))}


# ---- the report

CAUTION = """\
This finds what to look at. It proves nothing: who wrote first, who helped whom, and whether two had the same idea, it
cannot tell. Names of variables, comments, docstrings, annotations, imports and layout are not compared. An exercise in
which many are alike says little; several long ones in which the same two are alike say more; the same mistake says
most. Read both answers, and talk to the students, before you decide anything."""


def report(grades, lesson):
    """Which answers are alike, as Markdown: it is to be read, with its cautions, rather than computed with."""
    compared, solutions = {}, reference(lesson)
    for exercise in lesson.exercises:
        found = {place: _entry(grade, exercise) for place, grade in enumerate(grades)}
        answers = {place: entry.fingerprint for place, entry in found.items() if entry and entry.fingerprint}
        compared[exercise] = compare(exercise, answers, solutions[exercise.id])
    lines = [f"# Answers that are alike: {lesson.folder}", "", CAUTION, ""]
    lines += ["## What was compared", "", *_overview(compared), ""]
    lines += ["## Pairs, over all exercises", "", *_over_all(compared, grades), ""]
    lines += ["## Like the reference", "", *_copies(compared, grades), ""]
    for exercise, found in compared.items():
        if found.pairs:
            lines += [f"## {exercise.id}: {inline(exercise.title)}", "", *_pairs(exercise, found.pairs, grades), ""]
    return "\n".join(lines)


def _entry(grade, exercise):
    return next((entry for entry in grade.exercises if entry.id == exercise.id), None)


def _overview(compared):
    rows = [
        (exercise.id, found.answers, found.short, found.common, len(found.copies), len(found.pairs))
        for exercise, found in compared.items()
    ]
    head = ("exercise", "answers", "too short", "common solution", "like the reference", "pairs")
    few = f"Answers of fewer than {SHORT} tokens are too short to tell anything, and are left out"
    common = f"so is what more than a third of the answers, and more than {FEW}, share: that is the common solution."
    return [f"{few};", common, "", *_table(head, rows)]


def _over_all(compared, grades):
    by_pair = defaultdict(list)
    for found in compared.values():
        for alike in found.pairs:
            by_pair[alike.students].append(alike)
    order = sorted(by_pair.items(), key=lambda item: (-len(item[1]), -sum(a.share for a in item[1]), item[0]))
    rows = [
        (*_names(pair, grades), len(found), ", ".join(f"{alike.exercise} {_share(alike)}" for alike in found))
        for pair, found in order
    ]
    return _table(("student", "student", "exercises", "which"), rows) if rows else ["None."]


def _copies(compared, grades):
    rows = [
        (*_names(alike.students[:1], grades), alike.exercise, _share(alike))
        for found in compared.values()
        for alike in _sorted(found.copies)
    ]
    why = "The reference is public, `tinytorch solution` shows it to whoever asks, and the last hint leads close to it."
    return [why, "", *_table(("student", "exercise", "alike"), rows)] if rows else ["None."]


def _pairs(exercise, pairs, grades):
    def results(pair):
        return ", ".join(STATUSES[_entry(grades[place], exercise).status] for place in pair)

    rows = [(*_names(a.students, grades), _share(a), results(a.students)) for a in _sorted(pairs)]
    return _table(("student", "student", "alike", "results"), rows)


def _sorted(alikes):
    """The most alike first."""
    return sorted(alikes, key=lambda alike: (not alike.same, -alike.share, alike.students))


def _share(alike):
    return "the same" if alike.same else f"{alike.share:.0%}"


def _names(places, grades):
    return [inline(clean(grades[place].student)) for place in places]


def _table(head, rows):
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows[:MOST_ROWS])]
    return [*lines, "", f"And {len(rows) - MOST_ROWS} more."] if len(rows) > MOST_ROWS else lines
