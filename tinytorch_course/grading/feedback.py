"""What a student reads about a submission: a page of Markdown, and one of HTML that needs nothing else.

All that a student wrote or caused is shown as text, never as markup. Flags, hidden tests and solutions stay out.
"""

import hashlib
import re
from html import escape
from pathlib import Path

from .. import files, messages
from ..checking import Result
from . import verdict
from .grades import ExerciseGrade

MOST_LINES, MOST_NOTES = 40, 20  # of one text, of one submission
ALSO_HIDDEN = "A hidden test does not pass, and this one does not, either:"
TAMPERED = (
    "While this answer was in place, the tests did not run as they do. Does it change something outside of its own "
    "function? If you did not mean to do that, ask your instructor."
)
NOT_PRINTED = re.compile("[^\t\n\r -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML cannot hold, either


def clean(text):
    """A text that every format can hold: lone surrogates are spelled out, control characters are left out."""
    return NOT_PRINTED.sub("", str(text).encode("utf-8", "backslashreplace").decode("utf-8"))


def printable(text):
    """A text on one line, that can do nothing to a terminal or to the order of what stands around it."""
    text = " ".join(clean(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(text):
    """A student's text as far as it is worth reading."""
    text = clean(verdict.shortened(text)).strip("\n")
    lines = text.splitlines()
    return text if len(lines) <= MOST_LINES else "\n".join([*lines[:MOST_LINES], f"... {len(lines) - MOST_LINES} more"])


def number(points):
    """Points without a needless `.0`."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def in_order(grade, lesson):
    """[(Exercise, ExerciseGrade)] of the whole lesson; a run that was stopped has not come to all of them."""
    found = {graded.id: graded for graded in grade.exercises}
    late = "It was not graded: the run was stopped before."
    return [
        (e, found.get(e.id) or ExerciseGrade(e.id, e.title, e.points, 0.0, "not_attempted", late))
        for e in lesson.exercises
    ]


def result(exercise, graded):
    """An ExerciseGrade as the Result of a check, with what a student may read and nothing else."""
    public = [test for test in graded.tests if test.id]
    found = Result(exercise, graded.status, "", len(public), sum(test.score > 0 for test in public))
    if graded.status == "tampered":  # how it was noticed is the instructor's to know
        found.message = TAMPERED
    elif graded.status not in ("passed", "not_attempted"):
        found.failure, found.mistake = _failure(graded.failure), shown(graded.mistake)
        if not found.failure or graded.status not in ("failed", "partial"):  # it says what the failure says
            found.message = shown(graded.message)
        if found.failure and not found.message and any(not (test.id or test.score) for test in graded.tests):
            found.message = ALSO_HIDDEN
    elif graded.message != "not attempted":
        found.message = shown(graded.message)
    return found


def _failure(given):
    """What a test said, with every text short and the picture left out: it would be markup."""
    if not given:
        return None
    failure = {key: "" if given.get(key) is None else shown(given[key]) for key in verdict.TEXTS}
    if given.get("expected") is None:
        failure["expected"] = None
    where = given.get("yours")
    return failure | {"yours": where and where | {"text": shown(where["text"])}, "picture": None}


def points(grade):
    return f"{number(grade.score)} of {number(grade.max_score)} points"


def opening(grade, lesson):
    """What is said of the submission as a whole, in a sentence or two."""
    exercises, file = in_order(grade, lesson), clean(grade.file)
    passed = sum(graded.status == "passed" for _, graded in exercises)
    if passed == len(exercises):
        return f"All {passed} exercises pass. Well done: this lesson is yours."
    if all(graded.status == "not_attempted" for _, graded in exercises):
        return (
            f"No answer to an exercise of lesson {lesson.number} was found in {file}. Is it the file that you meant to "
            f"hand in? The command tinytorch submit {lesson.number} packs the right one."
        )
    if not passed:
        return "No exercise passes yet. Below is what the tests saw, and how to go on."
    left = len(exercises) - passed
    return f"{passed} of {len(exercises)} exercises pass. What is missing in the other {left} is below."


def notes(grade):
    found = [shown(note) for note in grade.notes[:MOST_NOTES]]
    more = len(grade.notes) - len(found)
    return [*found, f"... and {more} more notes of this kind."] if more else found


def _table(grade, lesson):
    """[(Exercise, its points in words, its status in words)]"""
    return [
        (exercise, f"{number(graded.score)} of {number(graded.points)}", messages.TITLES[graded.status])
        for exercise, graded in in_order(grade, lesson)
    ]


# ---- Markdown


def inline(text):
    """A text within a line of Markdown, where it is nothing but text: no emphasis, no link, no image, no HTML."""
    text = " ".join(text.split())
    return re.sub(r"[\\`*_\[\]<>#|~&!$@]|:(?=//)|(?<=[wW]{3})\.|^[-+=]", r"\\\g<0>", text)


def fenced(text):
    """A block of code that the text in it cannot end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def body(exercise, graded):
    """What is said of one exercise, in Markdown, without its headline. Empty for one that passes."""
    found, parts = result(exercise, graded), []
    for label, text, fixed in messages.rows(found):
        if not fixed:
            parts.append(f"**{label}:** {inline(text)}")
        else:
            parts += [f"**{label}:**"] if label else []
            parts.append(fenced(text) if label or "\n" in text else inline(text))
    if not found.passed and exercise.hints:
        hints = exercise.hints if graded.status not in messages.UNTRIED else exercise.hints[:1]
        parts.append("**A hint:**" if len(hints) == 1 else "**Hints**, each says more than the one before:")
        parts.append("\n".join(f"{i}. {inline(hint)}" for i, hint in enumerate(hints, 1)))
    return "\n\n".join(parts)


def markdown(grade, lesson):
    """The page as Markdown."""
    parts = [f"# {inline(clean(grade.student))}: {points(grade)}", f"Lesson {lesson.number}, {inline(lesson.title)}"]
    parts.append(inline(opening(grade, lesson)))
    parts.append("\n".join(f"- {inline(note)}" for note in notes(grade)))
    rows = [f"| {e.id} {inline(e.title)} | {got} | {word} |" for e, got, word in _table(grade, lesson)]
    parts.append("\n".join(["| exercise | points | |", "|---|---|---|", *rows]))
    for exercise, graded in in_order(grade, lesson):
        if graded.status != "passed":
            parts += [f"## {inline(messages.headline(result(exercise, graded)))}", body(exercise, graded)]
    return "\n\n".join(filter(None, parts)) + "\n"


# ---- HTML

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ max-width: 54rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
       color: #1f2328; background: #fff; overflow-wrap: anywhere }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 }}
meter {{ width: 100%; height: 1rem }}
.exercises {{ width: 100%; border-collapse: collapse; margin: 1rem 0; overflow-wrap: normal }}
.exercises :is(th, td) {{ text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #8884 }}
.points {{ white-space: nowrap }}
section {{ margin: 1.5rem 0 }}
section td:first-child {{ white-space: nowrap; overflow-wrap: normal }}
details {{ margin: .3rem 1rem }}
summary {{ cursor: pointer }}
pre {{ font-size: .875rem }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6edf3; background: #14181d }}
  a {{ color: #6cb6ff }}
  {lighter}
}}
@media print {{ section {{ break-inside: avoid }} }}
</style>
</head>
"""
LIGHTER = {messages.GOOD: "#7bc47f", messages.BAD: "#ff8f87", messages.QUIET: "#9aa6b2"}  # on a dark page


def html(grade, lesson):
    """The page as one HTML file, without scripts and without anything from elsewhere."""
    student, scored = escape(clean(grade.student)), points(grade)
    lighter = "\n  ".join(f'[style*=";color:{a}"], [style^="color:{a}"] {{ color: {b} !important }}'
                          for a, b in LIGHTER.items())  # fmt: skip
    parts = [
        HEAD.format(title=f"{student}: {scored}", lighter=lighter),
        f"<body>\n<main>\n<h1><bdi>{student}</bdi>: {scored}</h1>",
        f'<meter min="0" max="{number(grade.max_score or 1)}" value="{number(grade.score)}">{scored}</meter>',
        f"<p>Lesson {lesson.number}, {escape(lesson.title)}</p>\n<p>{escape(opening(grade, lesson))}</p>",
    ]
    if noted := notes(grade):
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in noted) + "</ul>")
    parts.append('<table class="exercises">\n<tr><th>exercise</th><th>points</th><th></th></tr>')
    for exercise, got, word in _table(grade, lesson):
        name = escape(f"{exercise.id} {exercise.title}")
        name = name if word == messages.TITLES["passed"] else f'<a href="#{exercise.id}">{name}</a>'
        parts.append(f'<tr><td>{name}</td><td class="points">{got}</td><td>{word}</td></tr>')
    parts.append("</table>")
    parts += [_section(*pair) for pair in in_order(grade, lesson) if pair[1].status != "passed"]
    return "\n".join([*parts, "</main>\n</body>\n</html>\n"])


def _section(exercise, graded):
    folded = [
        f"<details><summary>Hint {i} of {len(exercise.hints)}</summary>{escape(hint)}</details>"
        for i, hint in enumerate(exercise.hints, 1)
    ]
    box = messages.as_html(result(exercise, graded))
    return "\n".join([f'<section id="{exercise.id}" aria-label="{exercise.id}">', box, *folded, "</section>"])


def write(grade, lesson, folder):
    """Write both pages into a folder, and return their paths."""
    name, written = file_name(grade.student), []
    for ending, page in ((".md", markdown), (".html", html)):
        written.append(Path(folder) / f"{name}{ending}")
        files.write(written[-1], page(grade, lesson))
    return written


def file_name(student):
    """A name for a student's files, that no other student has and every system can hold."""
    plain = re.sub(r"[^\w ,.()'+@-]", "_", clean(student)).strip(" .-")
    while len(plain.encode()) > 150:
        plain = plain[:-1]
    if plain and plain == student and not re.search("-[0-9a-f]{16}$", plain):  # a name like another's file is none
        return plain
    return f"{plain or 'student'}-{hashlib.sha256(student.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
