"""Sphinx: furo for the looks, MyST for the prose, the reference from the docstrings."""

import measurand

project = "measurand"
author = "The measurand developers"
project_copyright = "2026, The measurand developers"
release = version = measurand.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
exclude_patterns = ["_build", "scripts"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "measurand"
