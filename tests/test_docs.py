"""The documentation is built without a warning, names all that is public, and its examples run."""

import doctest
import functools
import html
import importlib
import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
from tests.conftest import BRIEF, SMALL, make_adata
from tests.coupling.helpers import plan_of
from tests.model.modalities import make_mdata

import scgenot
from scgenot.__main__ import _parser
from scgenot.coupling import CouplingConfig, solve_coupling

ROOT = Path(__file__).resolve().parents[1]
# Their blocks of Python are run from top to bottom.
RUN = ("README.md", "docs/ten_lines.md", "docs/quickstart.md", "docs/choosing.md")


def own_members() -> list[str]:
    """Return the public methods and properties that this package, and not scvi-tools, gives the model class."""
    ours = [parent for parent in scgenot.GENOT.__mro__ if parent.__module__.split(".")[0] == "scgenot"]
    members = {name: value for parent in reversed(ours) for name, value in vars(parent).items() if name[0] != "_"}
    kinds = (types.FunctionType, property, classmethod, staticmethod)
    return sorted(f"scgenot.GENOT.{name}" for name, value in members.items() if isinstance(value, kinds))


def public_names() -> list[str]:
    rooms = [name for name in scgenot.__all__ if inspect.ismodule(getattr(scgenot, name))]
    names = [f"scgenot.{name}" for name in scgenot.__all__ if name not in rooms]
    for room in rooms:
        # What is also a name of the package itself stands there.
        names += [f"scgenot.{room}.{name}" for name in getattr(scgenot, room).__all__ if name not in scgenot.__all__]
    return names + own_members()


def docstring(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    parent = importlib.import_module(module) if module != "scgenot.GENOT" else scgenot.GENOT
    found = getattr(parent, attribute) if inspect.ismodule(parent) else inspect.getattr_static(parent, attribute)
    return inspect.getdoc(getattr(found, "__func__", getattr(found, "fget", None) or found)) or ""


# Names of the public face, which docs/api.md lists.
FACE = [name for name in public_names() if re.match(r"scgenot\.(GENOT$|(GENOT|tl|pl|metrics|datasets)\.)", name)]


def test_every_name_of_the_api_has_an_example():
    assert len(FACE) > 80
    bare = [name for name in FACE if ">>> " not in docstring(name)]
    assert not bare, f"no example in the docstring of {bare}"


@pytest.mark.parametrize("room", ["metrics", "datasets"])
def test_examples_of_docstrings_run(room):
    """All those that need neither data nor a trained model; the others say so by `+SKIP`."""
    said = doctest.DocTestParser()
    runner, wrong = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE), []
    names = [name for name in FACE if name.startswith(f"scgenot.{room}.")]
    for name in names:
        runner.run(said.get_doctest(docstring(name), {"scgenot": scgenot, "np": np}, name, None, 0), out=wrong.append)
    assert not wrong, "".join(wrong)
    assert runner.tries > len(names)


def first_words(name: str) -> list[str]:
    """Return words of the first sentence of a docstring that stand side by side, with neither code nor formula between."""
    text = docstring(name).split("\n\n")[0]
    runs = re.split(r":\w+:`[^`]*`|``[^`]*``|`[^`]*`|[^\w\s,.:;'-]+", text)
    return max((re.findall(r"\w+", run)[:5] for run in runs), key=len)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages as HTML, by their names; they are kept in `$SCGENOT_PAGES`. A warning of the builder is an error."""
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    folder = Path(os.environ.get("SCGENOT_PAGES") or tmp_path_factory.mktemp("pages"))
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        # Side bars of a hundred pages that list a hundred pages are a tenth of the time, and nothing here looks at them.
        "-D",
        "html_theme_options.max_navbar_depth=1",
        str(ROOT / "docs"),
        str(folder),
    ]
    # Extensions of the builder use what it deprecates: that is not ours to mend, and hides what is.
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    if done.returncode:
        pytest.fail(done.stderr[-5000:], pytrace=False)
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
    # In the place of a download, and of an embedding that takes long to compile.
    kang = make_adata()
    kang.obs["cell_type"] = np.resize(["B", "CD4T", "NK"], kang.n_obs)
    sc.pp.pca(kang, n_comps=3)
    kang.obsm["X_umap"] = kang.obsm["X_pca"][:, :2]
    monkeypatch.setattr(scgenot.datasets, "kang", lambda: kang)
    for module, name in ((sc.pp, "neighbors"), (sc.tl, "umap")):
        monkeypatch.setattr(module, name, lambda adata: None)
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
    lines = [line.split() for _, block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    ours = [words[1:] for words in lines if words[:1] == ["scgenot"] and words[1:2] != ["demo"]]
    assert ours
    for words in ours:
        assert _parser().parse_args(words).command == words[0]


def test_the_citation_names_this_version():
    assert (
        re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1)
        == scgenot.__version__
    )


def test_fused_numbers_of_ott_as_the_page_converts_them():
    """`coming_from.md`: alpha = 1 / (1 + 2 penalty), and 2 alpha times OTT's epsilon, make the same plan."""
    from ott.geometry.geometry import Geometry
    from ott.problems.quadratic.quadratic_problem import QuadraticProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn
    from ott.solvers.quadratic.gromov_wasserstein import GromovWasserstein

    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    y = (x @ rotation + rng.normal(scale=0.05, size=(30, 3))).astype(np.float32)
    shared = x[:, :1], x[:, :1] + rng.normal(scale=0.2, size=(30, 1)).astype(np.float32)
    penalty, epsilon = 0.5, 0.1

    def costs(one, other, power):
        return Geometry(jnp.asarray((np.linalg.norm(one[:, None] - other[None], axis=-1) ** power).astype(np.float32)))

    problem = QuadraticProblem(costs(x, x, 1), costs(y, y, 1), costs(*shared, 2), fused_penalty=penalty)
    linear = Sinkhorn(threshold=1e-6, max_iterations=20_000)
    theirs = GromovWasserstein(linear, epsilon=epsilon, max_iterations=300, threshold=1e-8)(problem).matrix
    alpha = 1 / (1 + 2 * penalty)
    config = CouplingConfig(cost="euclidean", alpha=alpha, epsilon=2 * alpha * epsilon, scale_cost=1.0)
    ours = plan_of(solve_coupling(jax.random.key(0), x, y, shared=shared, problem="fused", config=config))
    assert np.abs(ours - np.asarray(theirs)).sum() < 2e-3
    # A plan that knows nothing, or the other convention, is far from it.
    assert np.abs(ours - 1 / 900).sum() > 0.5
