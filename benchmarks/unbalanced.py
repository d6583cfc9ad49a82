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
from collections.abc import Iterator

from benchmarks._common import parser, report
from benchmarks._tables import Table, from_columns, from_frame
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


def options_of(words: list[str] | None = None):
    """Return what the command line says; an empty list: the defaults."""
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
    return arguments.parse_args(words)


def rows(seed: int, quick: bool) -> Iterator[Table]:
    """Yield the tables for the harness; what is one fixed split is repeated with each seed all the same."""
    small = "--cells 300 --reference 600 --dims 2 --types NK --folds 2 --max-steps 50" if quick else ""
    options = options_of([*small.split(), "--seeds", str(seed)])
    found = gaussians_table(options)[0].rename(columns={"plan rank": "plan, extended", "rank": "scgenot"})
    roles = {"scgenot": "solver", "plan, extended": "reference"}
    equal = "equal growth of all cells has no ranks, 0; where a marginal is kept, all have 1"
    yield from_columns(
        found, "Growth of new cells", "rank correlation", roles, no_floor="the truth, 1", no_baseline=equal
    )
    yield from_frame(extreme(options)[0].drop(columns=["s", "warning"]), "Taus next to 0 and 1", no_floor="the truth, an AUROC of 1", no_baseline="chance, an AUROC of .5")  # fmt: skip
    roles = {"scgenot": "solver", "plan": "reference", "plan, smoothed": "reference", "plain plan": "reference"}
    title = "Kang, one type removed from the stimulated cells: growth of held-out controls"
    yield from_columns(removed(options)[0], title, "AUROC", roles, no_floor="the truth, 1", no_baseline="chance, .5")
    if quick:
        return
    shares = "the independent plan hits the type by its share, at most that of the largest type"
    found = complete(options)[0]
    roles = dict.fromkeys(("draws", "draws by growth", "mean", "mean by growth"), "solver")
    roles |= {"ceiling": "floor", "plan": "reference"}
    yield from_columns(
        found, "Kang complete: type of transported held-out controls", "1-NN accuracy", roles, no_baseline=shares
    )
    hidden = "how much of a clone's fate is in its early cells is not known; the row of the same type's clones has seen other clones' fates"
    title = "LARRY, day 4 to day 6, clones with known fates"
    yield from_frame(larry(options)[0], title, baseline="independent", reference="same type", no_floor=hidden)
    found = snareseq(options)[0]
    roles = {"FOSCTTM": "solver", "ridge on all pairs": "reference"}
    title = "SNARE-seq, one line removed from RNA: partners of held-out cells"
    yield from_columns(found, title, "FOSCTTM", roles, no_floor="the truth, 0", no_baseline="chance, .5")
    title = "SNARE-seq, one line removed from RNA: growth of held-out cells"
    yield from_columns(found, title, "AUROC", {"AUROC": "solver"}, no_floor="the truth, 1", no_baseline="chance, .5")


def main() -> None:
    options = options_of()
    warnings.filterwarnings("ignore", message="The coupling did not converge")
    for name in options.only:
        report(*SECTIONS[name](options), options.json)


if __name__ == "__main__":
    main()
