"""How Sphinx makes the book: `sphinx-build -W docs docs/_build/html`, from the folder of the project."""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the extensions, and the framework of this checkout

# Formulas need a font made for them, and many systems have none. ziamath is here for its file alone.
MATH_FONT = Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"

project = "tinytorch"
copyright = "2026 the tinytorch authors, MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "docstrings", "mathml", "pages"]
exclude_patterns = ["_build"]
smartquotes = False  # docstrings have code outside of backticks, too

html_theme = "sphinx_book_theme"
html_title = "tinytorch"
html_static_path = ["_static", str(MATH_FONT)]
html_css_files = ["book.css"]
html_show_sourcelink = html_copy_source = False
html_theme_options = {
    "navbar_persistent": [],  # the search field is in the sidebar
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "footer_content_items": ["copyright.html"],
    "use_download_button": False,
    "use_fullscreen_button": False,
}

# Running all lessons takes minutes. With `-D nb_execution_mode=cache` the book shows what they print and draw.
nb_execution_mode = "off"
nb_execution_in_temp = True  # the lessons make their workspace in the folder that they run in
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False
suppress_warnings = ["myst.header"]  # a lesson may have an exercise, of level 3, above its first heading of level 2
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
