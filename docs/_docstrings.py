"""How docstrings are read: types stand in signatures only, and those of arrays are jaxtyping's."""

from __future__ import annotations

from typing import Any

import jaxtyping
from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring


def array_types(annotation: Any, config: Any) -> str | None:
    """Write an array's type as it stands in the code; leave all others to sphinx-autodoc-typehints."""
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        array = annotation.array_type.__name__.rpartition(".")[2]
        return f'``{annotation.dtype.__name__}[{array}, "{annotation.dim_str.strip()}"]``'
    return None


def sentences_returned(docstring: NumpyDocstring, section: str) -> list[str]:
    """Take what stands below ``Returns`` as sentences; numpydoc would take each line for a type."""
    return [*docstring._format_block(":returns: ", docstring._dedent(docstring._consume_to_next_section())), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Run by the builder before it reads the pages."""
    NumpyDocstring._parse_returns_section = sentences_returned
    app.config.typehints_formatter = array_types
    return {"parallel_read_safe": True}
