"""The directive ``rooms``: a table of public names, which are read off the package, each with a page of its own.

    .. rooms:: scgenot.tl

lists ``scgenot.tl.__all__``, and ``.. rooms:: scgenot.GENOT`` the class and what it defines, without what it inherits from
scvi-tools. Names in the body come first, in this order; all others follow, so that nothing is left out by forgetting it.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.autosummary import Autosummary

TABLES = (
    "scgenot.GENOT",
    "scgenot.tl",
    "scgenot.pl",
    "scgenot.metrics",
    "scgenot.datasets",
)
# What scvi-tools gives the model class, and the table shows all the same.
INHERITED = {"history"}


def public_names(full_name: str) -> list[str]:
    """Return the names that a room's or class's table has, relative to the package.

    A room's are its ``__all__``. A class's are itself, the public members that classes of this package give it, and what
    stands in `INHERITED`.
    """
    module, _, name = full_name.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if inspect.ismodule(found):
        return [f"{name}.{one}" for one in found.__all__]
    ours = [parent for parent in found.__mro__ if parent.__module__.split(".")[0] == module]
    members = {one for parent in ours for one in vars(parent) if not one.startswith("_")}
    return [name, *(f"{name}.{one}" for one in sorted(members | INHERITED))]


class Rooms(Autosummary):
    """A table of all public names of a room or class."""

    required_arguments = 1

    def run(self) -> list[Any]:
        full_name = self.arguments[0]
        if full_name not in TABLES:
            raise self.error(f"{full_name} is no table: add it to TABLES in docs/_rooms.py")
        there = public_names(full_name)
        first = [line.strip() for line in self.content if line.strip()]
        if unknown := set(first) - set(there):
            raise self.error(f"{full_name} has no {sorted(unknown)}")
        self.content = StringList([*first, *(name for name in there if name not in first)], source=full_name)
        self.options["toctree"] = "generated"
        self.env.ref_context["py:module"] = "scgenot"
        return super().run()


def write_names(app: Sphinx, config: Config) -> None:
    """List all names for autosummary, which writes a page for each, and remove pages of names that are gone."""
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    names = [name for table in TABLES for name in public_names(table)]
    lines = [".. currentmodule:: scgenot", "", ".. autosummary::", "    :toctree: .", ""]
    (folder / "names.rst").write_text("\n".join([*lines, *(f"    {name}" for name in names), ""]))
    pages = {f"scgenot.{name}.rst" for name in names}
    for page in folder.glob("scgenot.*"):
        if page.name not in pages:
            page.unlink()


def keep_aliases(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Also show those names of a room that have no docstring, such as aliases of types: they are in ``__all__``.

    The class, which is also a name of the package, has its own page.
    """
    return False if what == "module" and name != "GENOT" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Run by the builder before it reads the pages."""
    app.setup_extension("sphinx.ext.autosummary")  # brings autodoc and its events
    app.add_directive("rooms", Rooms)
    app.connect("config-inited", write_names)
    app.connect("autodoc-skip-member", keep_aliases)
    return {"parallel_read_safe": True}
