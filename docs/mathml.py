"""A Sphinx extension: formulas as MathML, which browsers draw themselves. No script, and nothing to fetch."""

import html

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.util import logging

CONVERTER = LatexToMathML(macros={"substack": r"\begin{matrix}#1\end{matrix}"}, fancy_error=False)
logger = logging.getLogger(__name__)


def mathml(node, displaystyle):
    """A formula's HTML. One that cannot be converted is shown as it was written, with a warning."""
    latex = node.astext()
    try:
        return CONVERTER.convert_with_local_state(latex, displaystyle=displaystyle)
    except LatexError as error:
        logger.warning("formula %s: %s", latex, error, location=node)
        return f"<code>{html.escape(latex)}</code>"


def visit_math(translator, node):
    translator.body.append(mathml(node, displaystyle=False))
    raise nodes.SkipNode


def visit_math_block(translator, node):
    translator.body.append(f"{translator.starttag(node, 'div', CLASS='math')}{mathml(node, displaystyle=True)}</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
