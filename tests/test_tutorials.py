"""Tutorials still run, from their text, on the data that they name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import UNOPTIMIZED

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SCGENOT_DATA", ROOT.parent / "shared" / "data")).resolve()
TUTORIALS = {
    "conditions": ["cytof_stim_chi11.h5ad"],
    "development": ["larry_clonal_subset.h5ad"],
    "modalities": ["snareseq_celllines_atac.h5ad", "snareseq_celllines_rna.h5ad"],
    "perturbation": ["kang_ifnb_pbmc.h5ad", "gbm_panobinostat.h5ad"],
    "spatial": ["drosophila_bdtnp.h5ad"],
    "with_scvi": ["gbm_panobinostat.h5ad"],
}
# What they show was made of all cells, by whole trainings, when the notebooks were executed. That they run needs few cells, a narrow
# network, which is compiled and asked in a fraction of the time, and a few steps.
# All run in one process, which imports and compiles once; it prints a line of JSON for each, empty where it ran.
BRIEF = """
import dataclasses, json, os, runpy, sys, tempfile, traceback
import anndata
import matplotlib.pyplot as plt
import scgenot
import scvi
read, make, train, fit = anndata.read_h5ad, scgenot.GENOT.__init__, scgenot.GENOT.train, scvi.model.SCVI.train
def some(path):
    cells = read(path)
    return cells[:: -(-cells.n_obs // 400)].copy()
def narrow(self, *given, flow_config=None, **named):
    config = dataclasses.replace(flow_config or scgenot.flow.FlowConfig(), hidden=(32, 32))
    make(self, *given, flow_config=config, **named)
def brief(self, max_steps=20, batch_size=128, **named):
    return train(self, max_steps=min(max_steps, 20), batch_size=128, **named)
def fit_briefly(self, max_epochs=1, **named):
    return fit(self, max_epochs=1, **named)
anndata.read_h5ad, scvi.model.SCVI.train = some, fit_briefly
scgenot.GENOT.__init__, scgenot.GENOT.train = narrow, brief
for path in sys.argv[1:]:
    failed = ""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            runpy.run_path(path, run_name="__main__")
        except BaseException:
            failed = traceback.format_exc()
        os.chdir("/")
    plt.close("all")
    print("RAN", json.dumps([path, failed]), flush=True)
"""


def _missing(name: str) -> list[str]:
    return [data for data in TUTORIALS[name] if not (DATA / data).is_file()]


@pytest.fixture(scope="module")
def ran():
    """What each tutorial failed with."""
    paths = {str(ROOT / "tutorials" / f"{name}.py"): name for name in TUTORIALS if not _missing(name)}
    environment = os.environ | UNOPTIMIZED | {"SCGENOT_DATA": str(DATA), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-c", BRIEF, *paths], env=environment, capture_output=True, text=True)
    lines = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("RAN ")]
    found = {paths[path]: failed for path, failed in lines}
    return {name: found.get(name, f"never ran:\n{done.stderr[-3000:]}") for name in paths.values()}


@pytest.mark.data
@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_runs(name, request):
    if missing := _missing(name):
        pytest.skip(f"needs {', '.join(missing)} in $SCGENOT_DATA; not in {DATA}")
    failed = request.getfixturevalue("ran")[name]
    assert not failed, failed


def cells_of_text(text: str) -> list[tuple[str, str]]:
    """Return kind and source of each cell of a text in percent format."""
    cells = []
    for part in ("\n" + text).split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        lines = body.strip("\n").splitlines()
        if kind == "markdown":
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        cells.append((kind, "\n".join(lines).strip()))
    return cells


@pytest.mark.parametrize("name", TUTORIALS)
def test_notebook_is_the_text_executed(name):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "tutorials" / f"{name}.ipynb", as_version=4)
    text = (ROOT / "tutorials" / f"{name}.py").read_text()
    found = [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]
    expected = cells_of_text(text)
    # All cells of the text, in its order, and no others.
    hint = "run `jupytext --to ipynb --execute` on the text again"
    assert [kind for kind, _ in found] == [kind for kind, _ in expected], hint
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == other, f"cell {number} differs; {hint}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # Executed from the top in one go.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), hint
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
