r"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "geomem"
copyright = "2026, the geomem developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
]
if not tags.has("without_source"):  # noqa: F821  (Sphinx has it here; tests need no page of source)
    extensions.append("sphinx.ext.viewcode")
napoleon_use_ivar = True
myst_enable_extensions = ["dollarmath", "deflist"]
html_math_renderer = "mathml"
myst_heading_anchors = 3
html_theme = "furo"
html_title = "geomem"
exclude_patterns = ["_build"]
html_use_opensearch = ""
autodoc_member_order = "bysource"
autodoc_typehints = "none"
nitpicky = False
