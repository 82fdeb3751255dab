"""What a student reads: results of checks and the table of progress, as plain text and as HTML for a notebook."""

import shutil
import textwrap
from html import escape

from .grading.grades import STATUSES

TITLES = STATUSES | {"open": "still open", "unusable": STATUSES["syntax_error"]}
UNTRIED = ("open", "not_attempted")
GOOD, BAD, QUIET = "#2e7d32", "#c62828", "#6b7785"


def rows(result):
    """What a result says, as (label, text, whether its lines stay as they are)."""
    found, failure = [], result.failure
    if result.message:
        found.append(("", result.message, True))
    if failure:
        found.append(("test", failure["test"], False))
        if likely := result.mistake or failure["cause"]:
            found.append(("likely", likely, False))
        if failure["called"]:
            found.append(("ran", failure["called"], True))
        if failure["expected"] is not None:
            found.append(("expected", failure["expected"], True))
            found.append(("yours", failure["got"], True))
        else:
            found.append(("it says", f"{failure['error']}: {failure['message']}", True))
        if failure["place"]:
            found.append(("differs", failure["place"], False))
        if failure["yours"]:
            found.append(("where", f"line {failure['yours']['line']} of yours: {failure['yours']['text']}", False))
        if failure["printed"]:
            found.append(("printed", failure["printed"].rstrip()[-1000:], True))
    found += [("next", advice, False) for advice in result.advice]
    if result.checked:
        found.append(("checked", result.checked, False))
    return found


def headline(result):
    exercise = result.exercise
    counted = f", {result.passed_tests} of {result.tests} tests pass" if result.status == "failed" else ""
    points = f", {exercise.points} {'point' if exercise.points == 1 else 'points'}" if result.passed else ""
    return f"{exercise.id} {exercise.title}: {TITLES[result.status]}{counted}{points}"


def as_text(result, width=None):
    """A result for a terminal, or for a notebook without HTML."""
    width = max(40, width or shutil.get_terminal_size().columns)
    lines = [headline(result)]
    for label, text, fixed in rows(result):
        first, *others = (text.splitlines() if fixed else textwrap.wrap(text, width - 14)) or [""]
        column = 10 if label else 0
        lines += [f"  {label:<{column}}{first}", *(f"  {'':<{column}}{line}" for line in others)]
    return "\n".join(lines)


def as_html(result):
    """A result for a notebook: readable on a light and on a dark page."""
    colour = GOOD if result.passed else QUIET if result.status in UNTRIED else BAD
    parts = [
        f'<div style="border-left:4px solid {colour};padding:2px 12px;margin:4px 0">',
        f'<div style="font-weight:600;color:{colour}">{escape(headline(result))}</div>',
    ]
    if body := rows(result):
        parts.append('<table style="border-collapse:collapse;margin:4px 0">')
        cell = 'style="vertical-align:top;text-align:left;padding:2px 8px 2px 0;border:0'
        for label, text, fixed in body:
            shown = f'<pre style="margin:0;white-space:pre-wrap">{escape(text)}</pre>' if fixed else escape(text)
            if label == "yours":  # beside what was expected, or below it where the page is narrow
                parts.append(f'<div><div style="color:{QUIET}">{label}</div>{shown}</div></div></td></tr>')
            elif label == "expected":
                parts.append(f'<tr><td {cell}"></td><td {cell}"><div style="display:flex;flex-wrap:wrap;gap:4px 32px">')
                parts.append(f'<div><div style="color:{QUIET}">{label}</div>{shown}</div>')
            else:
                parts.append(f'<tr><td {cell};color:{QUIET}">{label}</td><td {cell}">{shown}</td></tr>')
        parts.append("</table>")
    if result.failure and result.failure["picture"]:
        parts.append(f'<div style="overflow-x:auto">{result.failure["picture"]}</div>')
    return "\n".join([*parts, "</div>"])
