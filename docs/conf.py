"""The documentation site: ``sphinx-build -W docs build/docs``."""

from importlib.metadata import version as version_of

project = "mmembed + codeembed"
author = "The mmembed authors"
copyright = author
release = version_of("mmembed")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "mmembed"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Pages link to files of the repository, such as recipes, which the site does not hold.
repository_links = ("../",)
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_use_ivar = True
linkcheck_ignore = [r"http://127\.0\.0\.1.*", r"http://localhost.*"]


def add_unlisted(app, name, source):
    """Pages that the index does not name go under its last heading, so that none is lost."""
    if name != "index":
        return
    pages = sorted(app.env.found_docs - {"index"})
    listed = {line.strip() for line in source[0].splitlines()}
    rest = [page for page in pages if page not in listed]
    source[0] = source[0].replace("<!-- other pages -->", "\n".join(rest))


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", add_unlisted)
