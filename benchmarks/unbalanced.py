"""Unbalanced transport against what is known: growth, cells without a counterpart, and extreme settings.

``gaussians``  Growth against the potentials of a plan between many more cells.
``removed``    Kang et al. 2018 with one type removed from the stimulated cells: does growth say which cells it were?
``complete``   Kang with all types: do transported held-out cells land within their type?
``larry``      Day 4 to day 6 of blood progenitors: do cells land on the fates of their clone; growth and expansion.
``snareseq``   One cell line removed from RNA: growth of its chromatin profiles, and the pairing of the other lines.
``extreme``    Taus next to 0 and 1.
"""

from __future__ import annotations

import warnings

from benchmarks._common import parser, report
from benchmarks.unbalanced_gaussians import PROBLEMS, gaussians_table
from benchmarks.unbalanced_kang import COSTS, complete, removed
from benchmarks.unbalanced_larry import larry
from benchmarks.unbalanced_modalities import extreme, snareseq

SECTIONS = {
    "gaussians": gaussians_table,
    "removed": removed,
    "complete": complete,
    "larry": larry,
    "snareseq": snareseq,
    "extreme": extreme,
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="sections")
    arguments.add_argument("--cells", type=int, default=2000, help="Gaussians: training cells a side")
    arguments.add_argument("--dims", type=int, nargs="+", default=sorted({d for _, d in PROBLEMS}), help="Gaussians")
    arguments.add_argument("--reference", type=int, default=8000, help="Gaussians: cells a side of the reference")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Gaussians, LARRY")
    arguments.add_argument("--loss", choices=("deviance", "squared"), default="deviance", help="of growth")
    arguments.add_argument("--folds", type=int, default=5, help="Kang: each holds out its share of the controls")
    arguments.add_argument("--components", type=int, default=30, help="Kang: principal components")
    arguments.add_argument("--costs", choices=COSTS, nargs="+", default=["cosine, displaced"], help="Kang")
    arguments.add_argument("--types", nargs="+", default=None, help="Kang: types to remove, by default each in turn")
    arguments.add_argument("--landmarks", type=int, default=2048, help="SNARE-seq: cells a side that are solved over")
    arguments.add_argument("--max-steps", type=int, default=1500, help="Kang and LARRY: of the velocity field")
    options = arguments.parse_args()
    warnings.filterwarnings("ignore", message="The coupling did not converge")
    for name in options.only:
        report(*SECTIONS[name](options), options.json)


if __name__ == "__main__":
    main()
