"""What the commands do."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib
import mudata
import pandas as pd
from mudata import MuData

import scgenot
from scgenot._messages import check_count, one_of

# What a file of each kind needs to be told, and what belongs to the other kind.
_OPTIONS = {
    ".h5ad": ("--population-key", "--source"),
    ".h5mu": ("--source-modality", "--target-modality"),
}

_CONDITIONAL = ("--conditions", "--condition-keys", "--context-keys", "--match-keys")


def transport(arguments: argparse.Namespace) -> None:
    """Train on a file and write it with the transported cells."""
    _check(arguments)
    data = _read(arguments.input)
    options = {name: getattr(arguments, name) for name in ("source_rep", "target_rep", "shared_rep", "weights_key")}
    if isinstance(data, MuData):
        scgenot.GENOT.setup_mudata(
            data,
            source_modality=arguments.source_modality,
            target_modality=arguments.target_modality,
            **options | {"target_rep": options["target_rep"] or options["source_rep"]},
        )
    else:
        key = arguments.population_key
        scgenot.GENOT.setup_anndata(
            data,
            population_key=key,
            source=_category(data, key, arguments.source, "--source"),
            target=None if arguments.target is None else _category(data, key, arguments.target, "--target"),
            condition_keys=_covariates(arguments.condition_keys),
            context_keys=arguments.context_keys,
            match_keys=arguments.match_keys,
            **options,
        )
    model = scgenot.GENOT(
        data,
        problem=arguments.problem,
        cost=arguments.cost,
        epsilon=arguments.epsilon,
        tau_source=arguments.tau_source,
        tau_target=arguments.tau_target,
        alpha=arguments.alpha,
        coupling=arguments.coupling,
    )
    started = time.perf_counter()
    model.train(max_steps=arguments.max_steps, progress_bar=not arguments.quiet, rng=arguments.rng)
    print(model)
    print(f"trained in {time.perf_counter() - started:.0f} s")
    conditions = arguments.conditions
    if model.conditions is not None and conditions is None and arguments.target is None:
        # The first column names perturbations, whichever it is called.
        conditions = list(model.conditions.iloc[:, 0].unique())
    scgenot.tl.transport(
        data,
        model,
        key_added=arguments.key_added,
        n_samples=arguments.n_samples,
        store_samples=arguments.store_samples,
        rng=arguments.rng,
        conditions=conditions,
    )
    if arguments.save_model is not None:
        model.save(arguments.save_model, overwrite=arguments.overwrite)
        print(f"wrote {arguments.save_model}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    (data.write_h5mu if isinstance(data, MuData) else data.write_h5ad)(arguments.output)
    print(f"wrote {arguments.output}")
    written = model.source_adata(data).obs
    if conditions is None:
        _print_uncertainty(written[f"{arguments.key_added}_uncertainty"])
        return
    print(model.conditions.to_string())
    for name in conditions:
        print(f"{name}: ", end="")
        _print_uncertainty(written[f"{arguments.key_added}_{name.replace('/', '|')}_uncertainty"])


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what would fail after the training, or half-way."""
    if not arguments.input.is_file():
        raise FileNotFoundError(f"there is no file {str(arguments.input)!r}.")
    for path in (arguments.output, arguments.save_model):
        if path is not None and path.exists() and not arguments.overwrite:
            raise FileExistsError(f"{str(path)!r} exists already. Choose another path, or pass --overwrite.")
    check_count("--n-samples", arguments.n_samples)
    if arguments.max_steps is not None:
        check_count("--max-steps", arguments.max_steps)
    if not arguments.key_added or "/" in arguments.key_added:
        raise ValueError(f"`--key-added` must be a name without '/', got {arguments.key_added!r}. Use '_'.")
    kind = _kind(arguments.input)
    if (arguments.output.suffix == ".h5mu") != (kind == ".h5mu"):
        raise ValueError(
            f"`--output` must be a file of the same kind as the input ({kind}), got {str(arguments.output)!r}."
        )
    conditional = [name for name in _CONDITIONAL if getattr(arguments, name[2:].replace("-", "_"))]
    if conditional and kind == ".h5mu":
        raise ValueError(f"{' and '.join(conditional)} is not for an .h5mu file: conditions are read from an .h5ad.")
    if (
        arguments.conditions
        and arguments.target is not None
        and not arguments.context_keys
        and not arguments.condition_keys
    ):
        raise ValueError(
            "`--conditions` names conditions of a screen, got `--target`, which makes one pair. Leave one out."
        )
    given = {name: getattr(arguments, name[2:].replace("-", "_")) for names in _OPTIONS.values() for name in names}
    missing = [name for name in _OPTIONS[kind] if given[name] is None]
    if missing:
        raise ValueError(f"an {kind} file needs {' and '.join(missing)}.")
    if kind == ".h5mu" and arguments.target is not None:
        raise ValueError("--target is not for an .h5mu file, which needs --source-modality, --target-modality.")
    others = [name for other in _OPTIONS if other != kind for name in _OPTIONS[other] if given[name] is not None]
    if others:
        raise ValueError(f"{' and '.join(others)} is not for an {kind} file, which needs {', '.join(_OPTIONS[kind])}.")


def _kind(path: Path) -> str:
    return ".h5mu" if path.suffix == ".h5mu" else ".h5ad"


def _read(path: Path) -> ad.AnnData | MuData:
    """Read a file, or say that it cannot be read; libraries raise whatever they stumble on."""
    kind = _kind(path)
    try:
        return mudata.read_h5mu(path) if kind == ".h5mu" else ad.read_h5ad(path)
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as an {kind} file; it may be cut off, or of another kind. "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error


def _print_uncertainty(values: pd.Series) -> None:
    """Say how sure the model is of the cells, if there are samples to tell from."""
    low, middle, high = values.dropna().quantile([0.05, 0.5, 0.95]) if values.notna().any() else [math.nan] * 3
    if not math.isnan(middle):
        print(
            f"uncertainty, from 0 (all samples of a cell in one region of the targets) to 1 (spread over all): median "
            f"{middle:.2f}, 90 % of cells between {low:.2f} and {high:.2f}"
        )


def decode(arguments: argparse.Namespace) -> None:
    """Write the transported cells of a file in genes."""
    if not arguments.input.is_file():
        raise FileNotFoundError(f"there is no file {str(arguments.input)!r}.")
    if arguments.output.exists() and not arguments.overwrite:
        raise FileExistsError(f"{str(arguments.output)!r} exists already. Choose another path, or pass --overwrite.")
    if arguments.output.suffix != ".h5ad":
        raise ValueError(f"`--output` must be an .h5ad file, got {str(arguments.output)!r}.")
    check_count("--n-samples", arguments.n_samples)
    data = _read(arguments.input)
    decoder = scgenot.tl.PCDecoder(loadings=arguments.loadings, layer=arguments.layer, unscale=arguments.unscale)
    cells = scgenot.tl.decode(
        data,
        arguments.key,
        decoder=decoder,
        residual=arguments.residual,
        include_source=arguments.include_source,
        n_samples=arguments.n_samples,
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    cells.write_h5ad(arguments.output)
    print(f"wrote {arguments.output}: {cells.n_obs} cells x {cells.n_vars} genes")


def demo(arguments: argparse.Namespace) -> None:
    """Map real cells and show the result."""
    matplotlib.use("Agg")
    if arguments.perturbation:
        from scgenot._demo_perturbation import run_demo
    else:
        from scgenot._demo import run_demo

    run_demo(arguments.out, max_steps=arguments.max_steps, rng=arguments.rng, progress_bar=not arguments.quiet)


def _covariates(words: Sequence[str] | None) -> dict[str, list[str]] | None:
    """Return covariates and their columns, from words such as ``drug=drug1,drug2``."""
    if words is None:
        return None
    found = {}
    for word in words:
        name, equals, columns = word.partition("=")
        if not equals or not name or not columns:
            raise ValueError(
                f"`--condition-keys` takes COVARIATE=COLUMN,..., got {word!r}. For example drug=drug1,drug2."
            )
        found[name] = columns.split(",")
    return found


def _category(adata: ad.AnnData, key: str, text: str, argument: str) -> Any:
    """Return the category that a word on the command line means; days and doses are often numbers."""
    if key not in adata.obs:
        # The model's own message names the closest column.
        return text
    by_text = {str(category): category for category in adata.obs[key].dropna().unique()}
    if text not in by_text:
        raise ValueError(one_of(argument, text, sorted(by_text)))
    return by_text[text]
