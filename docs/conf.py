"""Settings of the documentation's builder: `sphinx-build docs docs/_build/html`."""

import os
import shutil
import sys
from importlib.metadata import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the two modules that extend the builder

# -- Project

_package = metadata("scgenot")
project = "scgenot"
author = "scgenot developers"
copyright = f"2026, {author}"
version = release = _package["Version"]

# -- Pages

extensions = [
    "_rooms",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "_docstrings",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints", "generated/names.rst"]
templates_path = ["_templates"]
# The first suffix is that of the generated pages, which are written in its markup.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Tutorials are executed where they are written, with results that were looked at; the builder only shows them.
nb_execution_mode = "off"
nb_merge_streams = True

# -- Reference

autosummary_generate = ["generated/names.rst"]
autosummary_generate_overwrite = True
autodoc_member_order = "bysource"
# `name` in a docstring is code.
default_role = "literal"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_param = True
napoleon_use_rtype = True
# A function, of `_docstrings`, is a setting.
suppress_warnings = ["config.cache"]
typehints_defaults = "braces"

# Links to other projects' pages need their lists of names, which are downloads: only where these are wished for.
intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "jax": ("https://docs.jax.dev/en/latest/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "mudata": ("https://mudata.readthedocs.io/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "ott": ("https://ott-jax.readthedocs.io/en/latest/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3/", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scvi-tools": ("https://docs.scvi-tools.org/en/stable/", None),
}
if not (os.environ.get("READTHEDOCS") or os.environ.get("SCGENOT_DOCS_LINKS")):
    intersphinx_mapping = {}

# -- Looks

html_theme = "sphinx_book_theme"
html_title = "scgenot"
html_theme_options = {"show_toc_level": 2}


def _copy_tutorials(app: object) -> None:
    """Bring the notebooks into the source folder: the builder reads no file outside it."""
    destination = HERE / "tutorials"
    for old in destination.glob("*.ipynb"):
        old.unlink()
    for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
        shutil.copy(notebook, destination / notebook.name)


def setup(app: object) -> None:
    """Run by the builder before it reads the pages."""
    app.connect("builder-inited", _copy_tutorials, priority=100)
