"""Tutorials still run, from their text, on the data that they name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SCGENOT_DATA", ROOT.parent / "shared" / "data")).resolve()
TUTORIALS = {
    "development": ["larry_clonal_subset.h5ad"],
    "modalities": ["snareseq_celllines_atac.h5ad", "snareseq_celllines_rna.h5ad"],
    "perturbation": ["kang_ifnb_pbmc.h5ad"],
    "spatial": ["drosophila_bdtnp.h5ad"],
}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_runs(name, tmp_path):
    for data in TUTORIALS[name]:
        if not (DATA / data).is_file():
            pytest.skip(f"needs {data} in $SCGENOT_DATA; there is no {DATA / data}")
    environment = os.environ | {"SCGENOT_DATA": str(DATA), "MPLBACKEND": "Agg"}
    script = ROOT / "tutorials" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", TUTORIALS)
def test_notebook_is_the_text_executed(name):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "tutorials" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = (ROOT / "tutorials" / f"{name}.py").read_text()
    assert all(cell.source.strip() in text for cell in cells), "run `jupytext --to ipynb --execute` on the text again"
    assert all(cell.execution_count for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
