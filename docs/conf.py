"""The documentation site: ``sphinx-build -W docs build/docs``."""

from importlib.metadata import version as version_of

project = "mmembed + codeembed"
author = "The mmembed authors"
release = version_of("mmembed")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "mmembed"
html_static_path = ["_static"]

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
