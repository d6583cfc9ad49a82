"""Make the pictures of the pages: `python docs/picture.py`, or some of them by name; the first takes a minute, all some minutes.

That of README and home page is that of `scgenot demo --perturbation`, from the file that the demo writes, in fewer dots. Those of `ten_lines.md` are
what the lines on that page draw. Those of `choosing.md` are scans of Kang's cells and of SNARE-seq's two modalities. All but the first need these data.
"""

import argparse
import contextlib
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata as ad
import matplotlib.pyplot as plt
from mudata import MuData
from PIL import Image
from sklearn.preprocessing import normalize

import scgenot
from scgenot.__main__ import main

HERE = Path(__file__).parent
_WIDTH = 1100


def transport(folder: Path) -> None:
    """Draw what the demo finds."""
    if main(["demo", "--perturbation", "--out", str(folder)]):
        raise SystemExit(1)
    adata = ad.read_h5ad(folder / "transported.h5ad")
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    scgenot.pl.transport(adata, ax=axes[0], n_arrows=25)
    axes[0].set_title("monocytes and where they would go")
    scgenot.pl.uncertainty(adata, ax=axes[1])
    axes[1].set_title("how sure that is")
    figure.savefig(HERE / "_static" / "transport.png", dpi=110)


def ten_lines(folder: Path) -> None:
    """Run the first two blocks of the page as they stand, and keep what they draw."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (HERE / "ten_lines.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    names: dict = {}
    with contextlib.chdir(folder):
        for block in blocks[:2]:
            exec(block, names)
    for name in ("where_cells_go", "which_genes_change"):
        with Image.open(folder / f"{name}.png") as drawn:
            # At the width of a page, in as many colours as a figure has.
            height = round(drawn.height * _WIDTH / drawn.width)
            small = drawn.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
            small.quantize(128).save(HERE / "_static" / f"{name}.png", optimize=True)


def scans(_: Path) -> None:
    """Draw what the scans of epsilon and tau look like, where they find something and where they do not."""
    kang = scgenot.datasets.kang()
    names = {"population_key": "condition", "source": "control", "target": "stimulated", "source_rep": "X_pca"}
    scgenot.tl.suggest_tau(kang, **names, displaced=True, label_key="cell_type")
    scgenot.pl.tau_scan(kang)
    plt.savefig(HERE / "_static" / "tau_scan.png", dpi=90)
    mods = {name: scgenot.datasets.snareseq(name) for name in ("atac", "rna")}
    for name, one in mods.items():
        one.var_names = [f"{name} {k}" for k in range(one.n_vars)]
        one.obsm["X_rep"] = normalize(one.X).astype("float32")
    cells = MuData(mods)
    scgenot.tl.suggest_epsilon(
        cells, source_modality="atac", target_modality="rna", source_rep="X_rep", cost="euclidean"
    )
    scgenot.pl.epsilon_scan(cells)
    plt.savefig(HERE / "_static" / "epsilon_scan.png", dpi=90)


PICTURES = {"transport": transport, "ten_lines": ten_lines, "scans": scans}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(PICTURES)}; by default all")
    for name in parser.parse_args().names or PICTURES:
        with TemporaryDirectory() as folder:
            PICTURES[name](Path(folder))
