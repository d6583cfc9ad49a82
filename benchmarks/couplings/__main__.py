"""Run ``python -m benchmarks.couplings``: all sections, or one of them."""

from __future__ import annotations

import warnings

from benchmarks import couplings
from benchmarks._common import parser, report
from benchmarks.couplings import epsilons, gaussians, geodesic, modalities, relaxed, sizes, variance

SECTIONS = {
    "gaussians": lambda options: gaussians.run(options.seeds),
    "relaxed": lambda options: relaxed.run(options.seeds),
    "panels": lambda options: modalities.panels(options.splits),
    "snareseq": lambda options: modalities.snareseq(options.seeds),
    "variance": lambda options: variance.run(options.fits),
    "swissroll": lambda options: geodesic.swissroll(options.seeds),
    "epsilons": lambda options: epsilons.run(range(options.seeds), 256, 100),
    "larry": lambda options: geodesic.larry(),
    "sizes": lambda options: sizes.run(options.linear_cells, options.quadratic_cells),
}


def main() -> None:
    arguments = parser(couplings.__doc__.splitlines()[0])
    arguments.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="which sections")
    arguments.add_argument("--seeds", type=int, default=10, help="seeds of generated data, subsets of SNARE-seq")
    arguments.add_argument("--splits", type=int, default=20, help="splits of the gene panels")
    arguments.add_argument("--fits", type=int, default=10, help="repeated fits whose conditionals are pooled")
    arguments.add_argument("--linear-cells", type=int, default=200_000, help="cells a side of the large linear problem")
    arguments.add_argument("--quadratic-cells", type=int, default=50_000, help="and of the large quadratic one")
    options = arguments.parse_args()
    # What did not converge stands in the tables.
    warnings.filterwarnings("ignore", message=".*did not converge", category=RuntimeWarning)
    for name in options.only:
        for title, rows in SECTIONS[name](options).items():
            report(rows, f"{name}: {title}", options.json, digits=4)


if __name__ == "__main__":
    main()
