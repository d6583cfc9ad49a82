"""Prior growth of cells from what they express of proliferation and of apoptosis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from jaxtyping import Float

from scgenot._messages import is_number, listed
from scgenot.data import Place, TimeCourse, check_copyable, obs_column, times_in

# Genes of the S and G2/M phases: Tirosh et al. 2016, Science 352:189, as the field uses them.
PROLIFERATION = (
    "MCM5 PCNA TYMS FEN1 MCM2 MCM4 RRM1 UNG GINS2 MCM6 CDCA7 DTL PRIM1 UHRF1 MLF1IP HELLS RFC2 RPA2 NASP RAD51AP1 GMNN WDR76 "
    "SLBP CCNE2 UBR7 POLD3 MSH2 ATAD2 RAD51 RRM2 CDC45 CDC6 EXO1 TIPIN DSCC1 BLM CASP8AP2 USP1 CLSPN POLA1 CHAF1B BRIP1 E2F8 "
    "HMGB2 CDK1 NUSAP1 UBE2C BIRC5 TPX2 TOP2A NDC80 CKS2 NUF2 CKS1B MKI67 TMPO CENPF TACC3 FAM64A SMC4 CCNB2 CKAP2L CKAP2 AURKB "
    "BUB1 KIF11 ANP32E TUBB4B GTSE1 KIF20B HJURP CDCA3 HN1 CDC20 TTK CDC25C KIF2C RANGAP1 NCAPD2 DLGAP5 CDCA2 CDCA8 ECT2 KIF23 "
    "HMMR AURKA PSRC1 ANLN LBR CKAP5 CENPE CTCF NEK2 G2E3 GAS2L3 CBX5 CENPA"
).split()
# The core of both ways to apoptosis: receptors of death, what BCL-2 holds back, caspases.
APOPTOSIS = (
    "BAX BAK1 BID BAD BIK BMF BBC3 PMAIP1 BCL2L11 HRK APAF1 CYCS DIABLO HTRA2 AIFM1 ENDOG CASP2 CASP3 CASP6 CASP7 CASP8 CASP9 CASP10 "
    "FAS FASLG FADD TRADD TNFRSF1A TNFRSF10A TNFRSF10B TNFSF10 RIPK1 DFFA DFFB TP53 TP53BP2 GADD45A GADD45B PDCD4 ENDOD1 DAPK1"
).split()
_FEWEST_GENES = 5


def growth_priors(
    adata: AnnData,
    *,
    proliferation: Sequence[str] | None = None,
    apoptosis: Sequence[str] | None = None,
    time_key: str | None = None,
    duration: float = 1.0,
    layer: str | None = None,
    key_added: str = "growth_prior",
    rng: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Write how many descendants each cell is expected to have, from scores of proliferation and of apoptosis.

    A cell with proliferation score p and apoptosis score a has exp((beta(p) - delta(a)) t) descendants after a time t, with birth and
    death rates between .3 and 1.7 a day: beta(p) = .3 + 1.4 / (1 + exp(-8 (p - .25))) and delta(a) = .3 + 1.4 / (1 + exp(-20 (a -
    .1))). That is the birth-death model of Schiebinger et al. 2019 (Cell 176:928) with the constants of Waddington-OT, which were
    chosen for mouse fibroblasts under reprogramming: a prior, to be relaxed with ``tau_source`` below 1. Scores are those of
    :func:`scanpy.tl.score_genes`.

    Parameters
    ----------
    adata
        Cells with logarithms of normalised counts.
    proliferation, apoptosis
        Names of genes. By default, and in letters of either case, genes of the S and G2/M phases (Tirosh et al. 2016, Science
        352:189), and the core of the extrinsic and intrinsic ways to apoptosis.
    time_key
        Column of ``obs`` with times as numbers, in days: t is then the time until the next one, and 0 for the last.
    duration
        Otherwise, t in days.
    layer
        Key of ``layers`` that is read in place of ``X``.
    key_added
        Where results go.
    rng
        Seed of the control genes of the scores.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    ``None``, or the copy if `copy`:

    ``obs["growth_prior"]``
        Expected descendants, for `weights_key` in setup.
    ``obs["growth_prior_proliferation"]``, ``obs["growth_prior_apoptosis"]``
        The scores.

    Raises
    ------
    KeyError
        If fewer than five genes of a list are in ``var_names``, or a key is missing.
    ValueError
        If `duration` is not above 0, or the times are no numbers.

    Examples
    --------
    >>> scgenot.tl.growth_priors(adata, time_key="day")  # doctest: +SKIP
    >>> scgenot.GENOT.setup_anndata(adata, time_key="day", weights_key="growth_prior")  # doctest: +SKIP
    """
    if not is_number(duration) or not np.isfinite(duration) or duration <= 0:
        raise ValueError(f"`duration` must be a finite number of days above 0, got {duration!r}.")
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"`layer`={layer!r} is no key of adata.layers. There are: {listed(adata.layers)}.")
    if layer is None and adata.X is None:
        raise KeyError("adata.X is None. Name the `layer` with logarithms of normalised counts.")
    if copy:
        check_copyable(adata)
    days = np.full(adata.n_obs, float(duration)) if time_key is None else _until_next(adata, time_key)
    lists = {"proliferation": proliferation or PROLIFERATION, "apoptosis": apoptosis or APOPTOSIS}
    genes = {name: _present(adata, name, wanted) for name, wanted in lists.items()}
    # Scores are written to the object that they are asked of: to another one, which holds the expression alone.
    values = adata.X if layer is None else adata.layers[layer]
    bare = AnnData(values, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=adata.var_names))
    for name, some in genes.items():
        sc.tl.score_genes(bare, some, score_name=name, random_state=rng, use_raw=False)
    scores = {name: bare.obs[name].to_numpy(np.float64) for name in lists}
    rate = birth_rate(scores["proliferation"]) - death_rate(scores["apoptosis"])
    whole = adata.copy() if copy else adata
    whole.obs[key_added] = np.exp(rate * days)
    for name, score in scores.items():
        whole.obs[f"{key_added}_{name}"] = score
    return whole if copy else None


def birth_rate(score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return births a day for scores of proliferation."""
    return 0.3 + 1.4 / (1 + np.exp(-8.0 * (score - 0.25)))


def death_rate(score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return deaths a day for scores of apoptosis."""
    return 0.3 + 1.4 / (1 + np.exp(-20.0 * (score - 0.1)))


def _present(adata: AnnData, name: str, wanted: Sequence[str]) -> list[str]:
    if isinstance(wanted, str):
        raise TypeError(f"`{name}` must be names of genes, got the text {wanted!r}.")
    upper = {str(one).upper() for one in wanted}
    there = [gene for gene in adata.var_names if str(gene).upper() in upper]
    if len(there) < _FEWEST_GENES:
        raise KeyError(
            f"`{name}`: {len(there)} of {len(upper)} genes are in adata.var_names, and at least {_FEWEST_GENES} are needed for a "
            f"score (the first gene is {next(iter(wanted))!r}, the first of var_names {str(adata.var_names[0])!r}). Pass names of "
            "genes as var_names has them, or data with more genes."
        )
    return there


def _until_next(adata: AnnData, time_key: str) -> Float[np.ndarray, " n"]:
    column = obs_column(adata, Place("source", "X"), time_key, "time_key")
    times = times_in(column, time_key, "adata.obs")
    if any(isinstance(one, str) for one in times):
        raise ValueError(
            f"`time_key`={time_key!r} must hold numbers, days, got {listed(times)}. Give `duration` instead."
        )
    gaps = np.append(np.diff(np.array(times, float)), [0.0, np.nan])
    places = TimeCourse(time_key, tuple(times)).places(column)
    return gaps[places]
