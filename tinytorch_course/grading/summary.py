"""A class at a glance: what the terminal shows when all are graded, and the same as a picture."""

import io
import math
import shutil
import statistics
import sys
import textwrap
from collections import Counter
from pathlib import Path

from .. import messages
from .feedback import in_order, number, printable

MOST_BINS, MOST_HARD, MOST_TO_SEE = 8, 3, 12  # in the terminal
OUTCOMES = {  # of an exercise, in the picture: word and colour
    "passed": ("passed", "tab:blue"),
    "partial": ("partly right", "#a6cbe3"),
    "failed": ("failed", "tab:orange"),
    "not_attempted": ("not attempted", "#d9d9d9"),
}


def text(grades, lesson, width=None):
    """The class in some lines: points, the hardest exercises, and who needs a look.

    width: of the terminal, by default its own. What the terminal cannot write is spelled out.
    """
    if not grades:
        return f"Lesson {lesson.number}, {lesson.title}: no submissions."
    width = max(40, width or shutil.get_terminal_size().columns)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    parts = [_points(grades, lesson, width, _block(encoding))]
    if hard := _hardest(grades, lesson, width):
        parts.append(["hardest, by the share who passed", *hard])
    if look := _to_see(grades, lesson, width):
        parts.append(["needs a look", *look])
    whole = "\n\n".join("\n".join(part) for part in parts)
    return whole.encode(encoding, "backslashreplace").decode(encoding)


def _block(encoding):
    """What bars are made of."""
    try:
        "█".encode(encoding)
        return "█"
    except UnicodeEncodeError:
        return "#"


def _points(grades, lesson, width, block):
    scores, most = [grade.score for grade in grades], _max_score(lesson)
    count = f"{len(grades)} submission{'s' * (len(grades) > 1)}"
    middle = f"median {_rounded(statistics.median(scores))}, mean {_rounded(statistics.mean(scores))}"
    lines = textwrap.wrap(f"Lesson {lesson.number}, {lesson.title}: {count}, {middle} of {most} points", width)
    found = bins(scores, most, MOST_BINS)
    names = [str(low) if low == high else f"{low}-{high}" for low, high, _ in found]
    widest, highest = max(map(len, names)), max(count for *_, count in found)
    room = min(50, width - widest - len(str(highest)) - 5)
    for name, (*_, count) in zip(names, found):
        bar = block * math.ceil(room * count / highest)
        lines.append(f"  {name:>{widest}}  {bar} {count}" if count else f"  {name:>{widest}}")
    return lines


def _rounded(points):
    return number(round(points, 1))


def _max_score(lesson):
    return sum(exercise.points for exercise in lesson.exercises)


def bins(scores, max_score, most):
    """[(lowest, highest, how many)] for at most `most` equal ranges of points; 2.5 counts as 2."""
    step = math.ceil((max_score + 1) / most)
    counts = Counter(min(int(score), max_score) // step for score in scores)
    return [(low, min(low + step - 1, max_score), counts[low // step]) for low in range(0, max_score + 1, step)]


def outcomes(grades, lesson):
    """{Exercise: its ExerciseGrades}"""
    found = {exercise: [] for exercise in lesson.exercises}
    for grade in grades:
        for exercise, graded in in_order(grade, lesson):
            found[exercise].append(graded)
    return found


def _hardest(grades, lesson, width):
    """The exercises that the fewest passed, with what went wrong there most often."""
    shares = []
    for exercise, graded in outcomes(grades, lesson).items():
        whys = Counter(_why(one) for one in graded if one.status != "passed")
        if whys:
            shares.append((1 - whys.total() / len(graded), exercise, *whys.most_common(1)[0]))
    lines = []
    for share, exercise, why, count in sorted(shares, key=lambda found: found[0])[:MOST_HARD]:
        said = f"{share:4.0%}  {exercise.id} {exercise.title}; most often ({count}): {why}"
        lines += textwrap.wrap(said, width, initial_indent="  ", subsequent_indent=" " * 8)
    return lines


def _why(graded):
    """What went wrong in an exercise, so that the same mistake is the same text."""
    if graded.status not in ("failed", "partial"):
        return messages.TITLES[graded.status]
    failure = graded.failure or {}
    return printable(graded.mistake or failure.get("cause") or failure.get("test") or graded.message)[:300]


def _to_see(grades, lesson, width):
    """Who is flagged, and then who made Python crash, or handed in nothing that can be graded."""
    flagged_first = sorted(grades, key=lambda grade: not grade.flags)
    found = [(printable(grade.student), reasons) for grade in flagged_first if (reasons := _reasons(grade, lesson))]
    lines = []
    for student, reasons in found[:MOST_TO_SEE]:
        lines.append("  " + textwrap.shorten(f"{student}: {'; '.join(reasons)}", width - 2, placeholder=" ..."))
    more = len(found) - len(lines)
    return [*lines, f"  and {more} more, whose grade.json says why"] if more else lines


def _reasons(grade, lesson):
    pairs, reasons = in_order(grade, lesson), [printable(flag) for flag in grade.flags]
    if not grade.complete:
        reasons.append("stopped before its end")
    if all(graded.status == "not_attempted" for _, graded in pairs):
        reasons.append(f"nothing attempted in {printable(grade.file)}")
    words = messages.TITLES
    return reasons + [f"{e.id} {words[g.status]}" for e, g in pairs if g.status in ("crashed", "memory")]


# ---- the picture


def plot(grades, lesson, path):
    """Draw how many students have how many points, and what became of each exercise; write a PNG.

    Raises ValueError where there are no grades.
    """
    from matplotlib.figure import Figure

    if not grades:
        raise ValueError("summary.plot needs at least one grade to draw, but got none.")
    height = max(3.6, 0.42 * len(lesson.exercises) + 1.6)
    figure = Figure(figsize=(11.5, height), layout="constrained", dpi=120)
    figure.get_layout_engine().set(wspace=0.06)
    points, exercises = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_points(points, grades, lesson)
    _draw_exercises(exercises, grades, lesson)
    file, path = io.BytesIO(), Path(path)
    figure.savefig(file, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())


def _draw_points(axes, grades, lesson):
    scores, most = [grade.score for grade in grades], _max_score(lesson)
    for low, high, count in bins(scores, most, 30):
        axes.bar((low + high) / 2, count, width=0.85 * (high - low + 1), color="tab:blue")
    median = statistics.median(scores)
    axes.axvline(median, color="black", linestyle=":")
    students = f"{len(grades)} student{'s' * (len(grades) > 1)}"
    axes.set_title(f"lesson {lesson.number}: {students}, median {_rounded(median)}")
    axes.set(xlabel=f"points, of {most}", ylabel="students")
    axes.set_xlim(-0.7, most + 0.7)
    axes.locator_params(integer=True)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_exercises(axes, grades, lesson):
    left, rows = [0.0] * len(lesson.exercises), range(len(lesson.exercises))
    counted = [Counter(_outcome(one.status) for one in found) for found in outcomes(grades, lesson).values()]
    for outcome, (word, colour) in OUTCOMES.items():
        shares = [100 * counts[outcome] / len(grades) for counts in counted]
        if any(shares):
            axes.barh(rows, shares, left=left, color=colour, label=word, height=0.7)
        left = [a + b for a, b in zip(left, shares)]
    names = [textwrap.shorten(f"{e.id} {e.title}", 44, placeholder=" ...") for e in lesson.exercises]
    axes.set_yticks(rows, names, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="% of the students", xlim=(0, 100))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(OUTCOMES), frameon=False, columnspacing=1.2)


def _outcome(status):
    return status if status in OUTCOMES else "failed"
