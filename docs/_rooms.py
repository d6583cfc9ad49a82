"""Two directives whose public names are read off the package, so that nothing is left out by forgetting it.

``.. rooms:: scgenot.tl`` makes a table of ``scgenot.tl.__all__``, each name with a page of its own, and ``.. rooms::
scgenot.GENOT`` one of the class and its members, without what it inherits from scvi-tools. Names in the body come first, in
this order; all others follow.

``.. room:: scgenot.costs`` shows a whole room on the page where it stands. Aliases of types and constants have no docstrings:
what the body says of them, ``Name: sentence``, stands in their place.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import FunctionType, ModuleType

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.autosummary import Autosummary
from sphinx.util.docutils import SphinxDirective

TABLES = ("scgenot.GENOT", "scgenot.tl", "scgenot.pl", "scgenot.metrics", "scgenot.datasets")
# What scvi-tools gives the model class, and the table shows all the same.
INHERITED = {"history"}
MEMBERS = (FunctionType, property, classmethod, staticmethod)


def public_names(full_name: str) -> list[str]:
    """Return the names that a room's or class's table has, relative to the package.

    A room's are its ``__all__``. A class's are itself, the public methods and properties that classes of this package give
    it, and what stands in `INHERITED`.
    """
    module, _, name = full_name.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if inspect.ismodule(found):
        return [f"{name}.{one}" for one in found.__all__]
    ours = [parent for parent in found.__mro__ if parent.__module__.split(".")[0] == module]
    members = {one for parent in ours for one, value in vars(parent).items() if isinstance(value, MEMBERS)}
    return [name, *(f"{name}.{one}" for one in sorted(members | INHERITED) if not one.startswith("_"))]


class Rooms(Autosummary):
    """A table of all public names of a room or class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
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


class Room(SphinxDirective):
    """All public names of a room, one below the other."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        room = importlib.import_module(self.arguments[0])
        said = dict(line.split(":", 1) for line in self.content if line.strip())
        if unknown := set(said) - set(room.__all__):
            raise self.error(f"{room.__name__} has no {sorted(unknown)}")
        # A name of the package itself has a page of its own.
        bare = [name for name in room.__all__ if not _has_docstring(room, name)]
        left_out = ", ".join([*bare, "GENOT"])
        lines = [f".. automodule:: {room.__name__}", "    :members:", "    :imported-members:"]
        lines += [f"    :exclude-members: {left_out}", ""]
        for name in bare:
            lines += [f".. py:data:: {name}", "", f"    {said.get(name, '').strip()}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def _has_docstring(room: ModuleType, name: str) -> bool:
    found = getattr(room, name)
    return inspect.isfunction(inspect.unwrap(found)) or (inspect.isclass(found) and found.__name__ == name)


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Run by the builder before it reads the pages."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("rooms", Rooms)
    app.add_directive("room", Room)
    app.connect("config-inited", write_names)
    return {"parallel_read_safe": True}
