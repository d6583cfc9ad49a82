"""The potential that cells of a time course run down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from anndata import AnnData

from scgenot._messages import check_positive, is_number, listed, one_of
from scgenot._rng import RNG, as_key
from scgenot.data import Place, obs_column, read_representation, select_rows
from scgenot.methods import Arrivals, LinearPotential, NetworkPotential, PotentialConfig, fit_landscape
from scgenot.tl._fates import check_course
from scgenot.tl._writing import Results, check_writable, write

if TYPE_CHECKING:
    from scgenot.model import GENOT

_FORMS: dict[str, type] = {"linear": LinearPotential, "network": NetworkPotential}


def potential(
    adata: AnnData,
    model: GENOT,
    *,
    form: Literal["linear", "network"] | PotentialConfig = "linear",
    times: Sequence[float] | None = None,
    ahead: float | None = None,
    key_added: str = "genot_potential",
    indices: Sequence[int] | np.ndarray | None = None,
    rng: RNG = 0,
    copy: bool = False,
) -> AnnData | None:
    """Write the potential landscape that cells of a time course run down, learned from the plans between its times.

    One potential for all times: cells move down its gradient, and each cell of a later time has come there from where the plan says. It is
    the form of JKOnet* (Terpin, Lanzetti and Doerfler 2024) for a potential alone; see :func:`scgenot.methods.fit_landscape`.

    Parameters
    ----------
    adata
        Cells with the representation of the model; they need not be those of training.
    model
        A trained model of a time course that has its coupling; either way in time.
    form
        ``"linear"``: powers, products and Gaussians, in closed form. ``"network"``: a small network. Or their options, a
        :class:`scgenot.methods.LinearPotential` or :class:`scgenot.methods.NetworkPotential`.
    times
        The real times, where those of the model are names, or in another unit: as many, increasing.
    ahead
        Also write where cells are after so much time.
    key_added
        Where results go.
    indices
        Which cells, as rows or as a boolean mask; by default all of the model's times.
    rng
        Seed or generator.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`. With ``key_added="genot_potential"``, and missing for other cells:

    ``obs["genot_potential"]``
        V, up to a constant: its mean over the later cells is 0. In squared units of the representation over time.
    ``obsm["genot_potential_drift"]``
        ``-grad V``, in units of the representation over time.
    ``obsm["genot_potential_ahead"]``
        Where cells are after `ahead`, if it was given.
    ``uns["genot_potential"]``
        ``"params"``, and ``"fit"``: which share of the mean squared velocity the potential explains, for all cells (``explained``),
        for cells that were left out (``held_out``), and which a single drift for all cells explains (``by_drift``).

    Raises
    ------
    ValueError
        If the model has no times, or these are names and `times` is not given; if `times` are not as many, or do not increase.
    RuntimeError
        If the model has no coupling: it was loaded, or its data were replaced.
    KeyError
        As :meth:`scgenot.GENOT.sample`. `adata` is left as it was.

    Examples
    --------
    >>> scgenot.tl.potential(adata, model, ahead=2.0)  # doctest: +SKIP
    >>> adata.uns["genot_potential"]["fit"]["held_out"]  # doctest: +SKIP
    >>> scgenot.pl.potential(adata, basis="umap")  # doctest: +SKIP
    """
    # The model's room loads scvi-tools, which takes many seconds: only when it is needed.
    from scgenot.model._plans import plans_in_time

    check_course(model)
    check_writable(adata, key_added, copy)
    config = _config(form)
    in_order = model.times[::-1] if model.goes_back else model.times
    passed = _passed(in_order, times)
    if ahead is not None:
        check_positive("ahead", ahead)
    described = model.describe()
    rep = described["source_rep"]
    place = Place("source", rep, layer=described.get("layer"))
    # Read before anything is solved.
    rows = _rows(adata, place, described["population_key"], in_order, indices)
    cells = read_representation(adata, rep, rows, "source_rep", place)
    key = as_key(rng)
    arrivals = [
        Arrivals.of_coupling(jax.random.fold_in(key, number), plan, earlier, later, gap)
        for number, ((plan, earlier, later), gap) in enumerate(zip(plans_in_time(model), np.diff(passed), strict=True))
    ]
    found = fit_landscape(key, arrivals, config)
    obsm = {f"{key_added}_drift": found.drift(cells)}
    params: dict[str, Any] = described | {"passed": passed.tolist(), "form": type(config).__name__}
    params["options"] = {name: value for name, value in asdict(config).items() if value is not None}
    if ahead is not None:
        obsm[f"{key_added}_ahead"] = found.ahead(cells, float(ahead))
        params["ahead"] = float(ahead)
    fit = {name: getattr(found, name) for name in ("explained", "held_out", "by_drift")}
    results = Results(rows, {key_added: found.potential(cells)}, obsm, {"params": params, "fit": fit})
    owned = (f"{key_added}_drift", f"{key_added}_ahead")
    return write(adata, model, key_added, results, owned=owned, copy=copy)


def _config(form: Any) -> PotentialConfig:
    if isinstance(form, LinearPotential | NetworkPotential):
        return form
    if form not in _FORMS:
        raise ValueError(one_of("form", form, _FORMS))
    return _FORMS[form]()


def _passed(in_order: Sequence[Any], times: Sequence[float] | None) -> np.ndarray:
    """Return the real times of a course."""
    if times is None:
        if any(isinstance(one, str) for one in in_order):
            raise ValueError(
                f"the times {listed(in_order)} of this model are names, between which it is not known how much time passes. Give "
                "`times`, one number for each."
            )
        return np.asarray(in_order, np.float64)
    numbers = list(times)
    if len(numbers) != len(in_order) or not all(is_number(one) and np.isfinite(one) for one in numbers):
        raise ValueError(f"`times` must hold one number for each of {listed(in_order)}, got {numbers!r}.")
    if (np.diff(numbers) <= 0).any():
        raise ValueError(f"`times` must increase, got {numbers!r} for {listed(in_order)}.")
    return np.asarray(numbers, np.float64)


def _rows(adata: AnnData, place: Place, time_key: str, in_order: Sequence[Any], indices: Any) -> np.ndarray:
    if indices is not None:
        return select_rows(adata, place, indices)
    at = obs_column(adata, place, time_key, "time_key").isin(list(in_order)).to_numpy()
    if not at.any():
        raise ValueError(
            f"adata.obs[{time_key!r}] has no cell at any of the times {listed(in_order)}. Name cells with `indices`."
        )
    return np.flatnonzero(at)
