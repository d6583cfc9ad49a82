"""The documentation is built without a warning, names all that is public, and its examples run."""

import functools
import html
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tests.conftest import BRIEF, SMALL, make_adata
from tests.model.modalities import make_mdata

import scgenot
from scgenot.__main__ import _parser

ROOT = Path(__file__).resolve().parents[1]
# Their blocks of Python are run from top to bottom.
RUN = ("README.md", "docs/quickstart.md", "docs/choosing.md")


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


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Return the lines that blocks of a language begin at, and what they say."""
    text = (ROOT / page).read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [(text[: one.start()].count("\n") + 1, one.group(1)) for one in found]


@pytest.fixture
def named_data(tmp_path, monkeypatch):
    """The `adata` and `mdata` that examples speak of; networks are small, training is short."""
    adata, mdata = make_adata(), make_mdata()
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    adata.obs["cell_type"] = np.where(adata.obsm["X_pca"][:, 1] > 0, "a", "b")
    for one in mdata.mod.values():
        one.obs["cell_type"] = one.obs["kind"]
        one.obsm["X_umap"] = one.obsm[next(iter(one.obsm))][:, :2]
    monkeypatch.chdir(tmp_path)
    for method, options in (("__init__", {"flow_config": SMALL}), ("train", BRIEF)):
        given = functools.partialmethod(getattr(scgenot.GENOT, method), **options)
        monkeypatch.setattr(scgenot.GENOT, method, given)
    yield {"adata": adata, "mdata": mdata}
    plt.close("all")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("page", RUN)
def test_examples_run(page, named_data):
    there = blocks(page, "python")
    assert there
    for line, block in there:
        exec(compile("\n" * line + block, page, "exec"), named_data)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_commands_are_understood(page):
    commands = [block.replace("\\\n", " ").split() for _, block in blocks(page, "bash")]
    ours = [words[1:] for words in commands if words[:2] == ["scgenot", "transport"]]
    assert ours
    for words in ours:
        assert _parser().parse_args(words).source == "control"
