"""Sphinx configuration. Warnings are errors: `make docs`."""

from importlib.metadata import version as installed

from latex2mathml.converter import convert

project = "brdyn"
author = "The brdyn authors"
copyright = "2026, the brdyn authors"
release = version = installed("brdyn")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "brdyn"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# A dataclass documents its fields under Attributes.
autodoc_class_signature = "separated"

# Attributes of different classes share names (depth, images); a list of them is looked up by name alone.
suppress_warnings = ["ref.python"]

# Formulas are MathML, which browsers show by themselves: no script, no network, also from disk.
html_math_renderer = "mathml"


def formula(display):
    """What writes a formula into a page, in a line or as a block."""

    def visit(writer, node):
        from docutils.nodes import SkipNode

        found = convert(node.astext(), display="block" if display else "inline")
        writer.body.append(f'<div class="math">{found}</div>' if display else found)
        raise SkipNode

    return visit


def setup(app):
    app.add_html_math_renderer("mathml", (formula(False), None), (formula(True), None))
