"""Sphinx: furo for the looks, MyST for the prose, the reference from the docstrings.

Equations are MathML, which browsers draw by themselves: the pages need no network.
"""

from docutils import nodes
from latex2mathml.converter import convert

import measurand

project = "measurand"
author = "The measurand developers"
project_copyright = "2026, The measurand developers"
release = version = measurand.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
default_role = "code"
autosummary_generate = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
exclude_patterns = ["_build", "scripts"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "measurand"
html_math_renderer = "mathml"


def keep_indented_blocks(app, what, name, obj, options, lines):
    """Equations and tables, indented after a blank line, are shown as they stand; so are |x|."""
    shown, above = [], ""
    for i, line in enumerate(lines):
        if line.startswith("  ") and i and not lines[i - 1] and above and above[0] != " ":
            shown += ["::", ""]
        words = line.split("`")  # every other part is code
        plain = [part.replace("|", r"\|") for part in words[::2]]
        words[::2] = words[::2] if line.startswith("  ") else plain
        shown.append("`".join(words))
        above = line or above
    lines[:] = shown


def inline_equation(page, node):
    """An equation in a line of text, as MathML."""
    page.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_equation(page, node):
    """An equation of its own, as MathML."""
    page.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_equation, None), (displayed_equation, None))
    app.connect("autodoc-process-docstring", keep_indented_blocks, priority=100)
