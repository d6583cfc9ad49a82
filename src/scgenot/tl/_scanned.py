"""What the scans of tau and epsilon have in common: which populations or conditions are meant, and the result as it is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from scgenot._messages import did_you_mean, listed

if TYPE_CHECKING:
    from scgenot.data import PopulationSpec, TransportData

# What is looked at where nothing is named: a dozen plans show a spread of needs, and take about a minute.
MOST_BLOCKS = 12
# One in twenty of fewer target cells is no cell, and halves of them say little about noise.
FEWEST_CELLS = 20
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class ScannedBlocks:
    """Plans that are scanned, one a condition and stratum.

    Attributes
    ----------
    blocks
        Places of source and target cells of *all* plans: they have one scale of the cost.
    numbers, names
        Those that are scanned.
    said
        A sentence on what was left out; empty if nothing was.
    """

    blocks: list[tuple[np.ndarray, np.ndarray]]
    numbers: list[int]
    names: list[str]
    said: str

    @property
    def all_names(self) -> list[str]:
        """Names by the number of a plan; empty for plans that are not scanned."""
        known = dict(zip(self.numbers, self.names, strict=True))
        return [known.get(number, "") for number in range(len(self.blocks))]


def scanned_spec(data: AnnData | MuData, arguments: Mapping[str, Any], conditions: Any) -> PopulationSpec:
    """Read the arguments of a scan as those of setup, and check that `conditions` has a meaning.

    Raises
    ------
    ValueError
        If neither population is named, or conditions are asked for where there are none.
    TypeError
        If one of the arguments of conditions, or `conditions`, is of another kind.
    """
    from scgenot.data import PopulationSpec, check_condition_arguments

    arguments = {name: value for name, value in arguments.items() if value is not None}
    if isinstance(data, AnnData) and "source" not in arguments and "target" not in arguments:
        raise ValueError(
            "`source` and `target` are both None. Name the category of untreated cells as `source`; without `target`, all other "
            "categories are conditions."
        )
    spec = PopulationSpec.from_arguments(
        {"source_rep": None, "target_rep": None} | check_condition_arguments(dict(arguments))
    )
    if conditions is not None:
        if spec.conditions is None:
            raise ValueError(
                f"`conditions`={conditions!r} was given for one pair of populations. Leave it out, or leave `target` out, so that "
                "all other categories are conditions, or give `condition_keys`, `context_keys` or `match_keys`."
            )
        if not isinstance(conditions, str) and (
            not isinstance(conditions, Sequence) or not all(isinstance(one, str) for one in conditions)
        ):
            raise TypeError(f"`conditions` must be a name, several, or None, got {conditions!r}.")
    return spec


def scanned_blocks(found: TransportData, asked: str | Sequence[str] | None) -> ScannedBlocks:
    """Return the plans that are meant by names of perturbations or conditions, or the largest ones.

    Raises
    ------
    ValueError
        If a name is not known, or no plan that is meant has enough cells.
    """
    told = found.conditions
    blocks = [(block.source, block.target) for block in told.blocks]
    names = _names(found)
    perturbed = told.table[told.spec.name_column].astype(str).to_numpy()
    of_block = np.array([block.condition for block in told.blocks])
    sizes = np.array([min(map(len, one)) for one in blocks])
    if asked is None:
        meant = np.arange(len(blocks))
    else:
        meant = np.sort(_meant([asked] if isinstance(asked, str) else list(asked), told, perturbed, of_block))
    few = meant[sizes[meant] < FEWEST_CELLS]
    enough = meant[sizes[meant] >= FEWEST_CELLS]
    if not len(enough):
        raise ValueError(
            f"`conditions`: none of the {len(meant)} plans that are meant has at least {FEWEST_CELLS} cells on both sides (the "
            f"largest, {names[meant[np.argmax(sizes[meant])]]!r}, has {sizes[meant].max()}), too few to be scanned. Name others, or "
            "use fewer `match_keys`."
        )
    chosen = enough if asked is not None else _largest(enough, sizes, perturbed[of_block])
    said = []
    if len(chosen) < len(enough):
        said.append(f"Of {len(enough)} plans {len(chosen)} were scanned, the largest of each perturbation in turn")
    if len(few):
        shown = listed(names[one] for one in few[:_SHOWN]) + (
            f" and {len(few) - _SHOWN} more" if len(few) > _SHOWN else ""
        )
        said.append(f"fewer than {FEWEST_CELLS} cells on one side, and not scanned: {shown}")
    text = "; ".join(said)
    text = f" {text[0].upper()}{text[1:]}." if text else ""
    return ScannedBlocks(blocks, chosen.tolist(), [names[one] for one in chosen], text)


def _meant(asked: list[str], told, perturbed: np.ndarray, of_block: np.ndarray) -> np.ndarray:
    if not asked:
        raise ValueError("`conditions` names none. Leave it out, or name one.")
    numbers: set[int] = set()
    for name in asked:
        here = np.flatnonzero((perturbed == name) | (told.table.index.astype(str) == name))
        if not len(here):
            known = list(dict.fromkeys([*perturbed, *told.table.index.astype(str)]))
            more = f", and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
            raise ValueError(
                f"`conditions` has {name!r}, which is no condition of these data.{did_you_mean(name, known)} There are: "
                f"{listed(known[:_SHOWN])}{more}."
            )
        numbers |= set(here.tolist())
    return np.flatnonzero(np.isin(of_block, sorted(numbers)))


def _largest(numbers: np.ndarray, sizes: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """Return at most `MOST_BLOCKS`: the largest plan of each perturbation, then the second largest, until there are enough."""
    order = numbers[np.argsort(-sizes[numbers], kind="stable")]
    turns: dict[str, int] = {}
    ranked = []
    for place, number in enumerate(order):
        turn = turns[perturbed[number]] = turns.get(perturbed[number], -1) + 1
        ranked.append((turn, place, number))
    return np.sort([number for *_, number in sorted(ranked)[:MOST_BLOCKS]])


def _names(found: TransportData) -> list[str]:
    """Return what each plan is called: its condition, and its stratum by columns that the condition does not name."""
    from scgenot.data import condition_columns, text_of

    told, place = found.conditions, found.spec.target
    more = [key for key in told.spec.match_keys if key not in told.spec.context_keys]
    strata = condition_columns(found.data, place, more, found.target.rows) if more else None
    names = []
    for block in told.blocks:
        own = [] if strata is None else [f"{key}={text_of(strata[key].iloc[block.target[0]])}" for key in more]
        names.append(" | ".join([str(told.table.index[block.condition]), *own]))
    return names


def long_table(scans: Sequence[Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the tables of several scans below each other, with the condition of each row."""
    rows = len(next(iter(scans[0].table.values())))
    table = {"condition": np.repeat(np.array(names, object), rows)}
    return table | {name: np.concatenate([one.table[name] for one in scans]) for name in scans[0].table}


def at_suggestion(scan: Any, **point: float) -> dict[str, Any]:
    """Return the row of a scan's table at one point of its grid."""
    here = np.logical_and.reduce([scan.table[name] == value for name, value in point.items()])
    place = int(np.flatnonzero(here)[0])
    return {name: column[place] for name, column in scan.table.items() if name not in point}
