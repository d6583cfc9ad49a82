"""The documentation is built without a warning, and every public name stands in it with what its docstring says."""

import html
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scgenot

ROOT = Path(__file__).resolve().parents[1]


def own_members() -> list[str]:
    """Return the public names that this package, and not scvi-tools, gives the model class."""
    ours = [parent for parent in scgenot.GENOT.__mro__ if parent.__module__.split(".")[0] == "scgenot"]
    return sorted({f"scgenot.GENOT.{name}" for parent in ours for name in vars(parent) if not name.startswith("_")})


def public_names() -> list[str]:
    rooms = [name for name in scgenot.__all__ if inspect.ismodule(getattr(scgenot, name))]
    names = [f"scgenot.{name}" for name in scgenot.__all__ if name not in rooms]
    for room in rooms:
        # What is also a name of the package itself stands there.
        names += [f"scgenot.{room}.{name}" for name in getattr(scgenot, room).__all__ if name not in scgenot.__all__]
    return names + own_members()


def first_words(name: str) -> list[str]:
    """Return words of the first sentence of a docstring that stand side by side, with neither code nor formula between."""
    module, _, attribute = name.rpartition(".")
    parent = importlib.import_module(module) if module != "scgenot.GENOT" else scgenot.GENOT
    found = getattr(parent, attribute) if inspect.ismodule(parent) else inspect.getattr_static(parent, attribute)
    text = (inspect.getdoc(getattr(found, "__func__", getattr(found, "fget", None) or found)) or "").split("\n\n")[0]
    runs = re.split(r":\w+:`[^`]*`|``[^`]*``|`[^`]*`|[^\w\s,.:;'-]+", text)
    return max((re.findall(r"\w+", run)[:5] for run in runs), key=len)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages as HTML, by their names. The builder stops at the first kind of warning it has."""
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("pages")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text() for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_every_public_name_has_its_place(pages):
    anchors = {
        anchor for page in pages.values() for anchor in re.findall(r'<dt class="[^"]*" id="(scgenot\.[\w.]+)"', page)
    }
    missing = set(public_names()) - anchors
    assert not missing, f"not on any page: {sorted(missing)}. See docs/api.md, docs/arrays.md and docs/_rooms.py"


@pytest.mark.slow
def test_pages_hold_docstrings(pages):
    api = {name: page for name, page in pages.items() if name.startswith("generated/scgenot.")}
    assert len(api) > 20
    for name, page in api.items():
        words = first_words(name.removeprefix("generated/"))
        assert len(words) > 1, f"{name} has no docstring"
        text = html.unescape(re.sub(r"<[^>]+>", "", page[page.index("<article") : page.index("</article>")]))
        assert re.search(r"\W+".join(words), text), f"{name} does not say {' '.join(words)!r}"


@pytest.mark.slow
def test_no_markup_is_left(pages):
    for name, page in pages.items():
        for markup in (".. currentmodule::", ".. auto", ":py:", ":func:`", ":class:`", "```"):
            assert markup not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL), f"{name} shows {markup}"
