"""How far a student is: the table that `tinytorch progress` and `course.progress()` show."""

from dataclasses import dataclass
from html import escape

from . import build


@dataclass(frozen=True)
class Row:
    """One lesson. `skipped`: whether the student starts behind it."""

    number: str
    title: str
    done: int
    exercises: int
    points: int
    of_points: int
    hints: int
    skipped: bool


class Report:
    """The rows, and how many lines of code of the running framework are the student's."""

    def __init__(self, rows, own_lines, lines):
        self.rows, self.own_lines, self.lines = rows, own_lines, lines

    def cells(self):
        """Strings: a row for each lesson, and the sum."""
        table = [
            [row.number, row.title, f"{row.done} of {row.exercises}", f"{row.points} of {row.of_points}"]
            + [str(row.hints or ""), "skipped" if row.skipped and row.done < row.exercises else ""]
            for row in self.rows
        ]
        done, all_ = sum(row.done for row in self.rows), sum(row.exercises for row in self.rows)
        points, of_points = sum(row.points for row in self.rows), sum(row.of_points for row in self.rows)
        hints = sum(row.hints for row in self.rows)
        return [*table, ["", "all", f"{done} of {all_}", f"{points} of {of_points}", str(hints or ""), ""]]

    @property
    def share(self):
        percent = 100 * self.own_lines / self.lines
        shown = f"{percent:.1f}" if 0 < percent < 10 else f"{percent:.0f}"
        return f"{shown}% of the framework that you run is yours ({self.own_lines:,} of {self.lines:,} lines of code)."

    HEAD = ("", "lesson", "done", "points", "hints", "")

    def __repr__(self):
        table = [self.HEAD, *self.cells()]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.HEAD))]
        sides = [str.ljust, str.ljust, str.rjust, str.rjust, str.rjust, str.ljust]
        lines = [
            "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths)).rstrip() for row in table
        ]
        return "\n".join([*lines, "", self.share])

    def _repr_html_(self):
        def line(cells, tag):
            return "<tr>" + "".join(f'<{tag} style="text-align:left">{escape(c)}</{tag}>' for c in cells) + "</tr>"

        body = "".join(line(row, "td") for row in self.cells())
        return f"<table>{line(self.HEAD, 'th')}{body}</table><p>{escape(self.share)}</p>"


def of(workspace):
    """The Report of a workspace."""
    progress, rows = workspace.progress(), []
    for lesson in workspace.lessons:
        passed = [exercise for exercise in lesson.exercises if progress.has_passed(exercise)]
        known = [progress.exercises[e.id] for e in lesson.exercises if e.id in progress.exercises]
        rows.append(
            Row(
                lesson.number,
                lesson.title,
                len(passed),
                len(lesson.exercises),
                sum(exercise.points for exercise in passed),
                sum(exercise.points for exercise in lesson.exercises),
                sum(record.hints for record in known),
                lesson.number in progress.skipped,
            )
        )
    return Report(rows, *build.share(workspace))
