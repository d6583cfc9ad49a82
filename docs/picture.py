"""Make the picture of README and home page: `python docs/picture.py`, about a minute.

It is that of `scgenot demo --perturbation`, from the file that the demo writes, in fewer dots.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata as ad
import matplotlib.pyplot as plt

import scgenot
from scgenot.__main__ import main

HERE = Path(__file__).parent


def draw(results: Path, picture: Path) -> None:
    """Draw what the demo wrote to the folder `results`."""
    adata = ad.read_h5ad(results / "transported.h5ad")
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    scgenot.pl.transport(adata, ax=axes[0], n_arrows=25)
    axes[0].set_title("monocytes and where they would go")
    scgenot.pl.uncertainty(adata, ax=axes[1])
    axes[1].set_title("how sure that is")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="folder of a demo that was run before")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        if given.results is None and main(["demo", "--perturbation", "--out", folder]):
            raise SystemExit(1)
        draw(given.results or Path(folder), HERE / "_static" / "transport.png")
