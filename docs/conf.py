"""The documentation's site: ``pip install -e ".[docs]"``, then ``sphinx-build -W docs site``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # made.py, beside this file

from made import write_pages  # noqa: E402

from bench import __version__  # noqa: E402

project, author, copyright = "rfbench", "The rfbench developers", "the rfbench developers, Apache-2.0"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["made.py"]
html_theme = "furo"
html_title = "rfbench"
html_theme_options = {"source_edit_link": ""}
html_static_path, html_css_files = ["static"], ["site.css"]
html_show_sourcelink = False
# A page opened from a folder may not read its neighbours, which is what these summaries would do.
html_show_search_summary = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # the notebook's outputs are in it; a test runs it
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures say them; types of other projects have no page here
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "params_style"), ("Fields", "params_style")]

# Where a page of the sources links to what a forge shows, and what the site has in its place.
_IN_THE_SITE = {
    "../results/": "made/results/",
    "../README.md": "index.md",
    "../CONTRIBUTING.md": "made/CONTRIBUTING.md",
    "../CHANGELOG.md": "made/CHANGELOG.md",
    "schemas": "made/formats/index.md",
    "../bench/metrics": "made/metrics/index.md",
    "../baselines": "made/systems/index.md",
}
_OPTION = re.compile(r"(?<![^\s('\"/\[])(--[a-z][\w-]*)(?![^\s).,;:'\"/\]])")
_HELP_MARKUP = re.compile(r"([\\*`|_])")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", lambda app: write_pages(HERE))
    for kind in ("txt", "csv"):
        app.add_lexer(kind, TextLexer)
    app.connect("autodoc-process-docstring", _names_without_types, priority=400)  # before napoleon
    app.connect("source-read", _links_within_the_site)
    app.connect("sphinx-click-process-description", lambda app, context, lines: _as_text(lines))
    app.connect("sphinx-click-process-options", lambda app, context, lines: _as_text(lines))
    app.connect("sphinx-click-process-epilog", lambda app, context, lines: _as_block(lines))


def _links_within_the_site(app: Sphinx, name: str, source: list[str]) -> None:
    if "/" not in name:
        for there, here in _IN_THE_SITE.items():
            end = "" if there.endswith("/") else ")"
            source[0] = source[0].replace(f"]({there}{end}", f"]({here}{end}")


def _names_without_types(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Our ``name : what it is`` has its type in the signature; for napoleon what follows a colon would be a type."""
    made: list[str] = []
    within = False
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below.startswith("---"):
            within = line.strip() in ("Parameters", "Attributes", "Class attributes", "Fields")
        parted = line.partition(" : ")
        if within and parted[1] and not line.startswith(" "):
            made += [parted[0], f"    {parted[2]}"]
        else:
            made.append(line)
    lines[:] = made


def _as_text(lines: list[str]) -> None:
    """Help texts are no markup: a star, an underscore or a bar in them means itself."""
    made: list[str] = []
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith(".. "):
            made.append(line)
        elif line.startswith("| "):  # lines that are to stay as they are
            made += [*(() if made and made[-1].startswith("    ") else ("", "::", "")), f"    {line[2:]}"]
        else:
            # An option is code, or its two hyphens would become a dash.
            made.append(indent + _OPTION.sub(r"``\1``", _HELP_MARKUP.sub(r"\\\1", line.lstrip())))
    lines[:] = [*made, ""]


def _as_block(lines: list[str]) -> None:
    """Examples, formats and exit codes at the end of a help text, as they stand."""
    if any(line.strip() for line in lines):
        lines[:] = ["::", "", *(f"    {line.removeprefix('| ')}" if line.strip() else "" for line in lines), ""]
