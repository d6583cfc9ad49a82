"""What the commands do."""

from __future__ import annotations

import argparse
import inspect
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib
import matplotlib.pyplot as plt
import mudata
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    """Train on a file, or take a kept model, and write the file with the transported cells."""
    _check_transport(arguments)
    data = _read(arguments.input)
    model = _trained(arguments, data) if arguments.model is None else _kept(arguments)
    print(model)
    conditions = arguments.conditions
    if _is_screen(model) and conditions is None:
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
        until=_time(model, arguments.until),
    )
    if arguments.save_model is not None:
        model.save(arguments.save_model, overwrite=arguments.overwrite)
        print(f"wrote {arguments.save_model}")
    _write(data, arguments.output)
    written = model.source_adata(data).obs
    if conditions is None:
        _print_uncertainty(written[f"{arguments.key_added}_uncertainty"])
        return
    print(model.conditions.to_string())
    for name in conditions:
        print(f"{name}: ", end="")
        _print_uncertainty(written[f"{arguments.key_added}_{name.replace('/', '|')}_uncertainty"])


def _trained(arguments: argparse.Namespace, data: ad.AnnData | MuData) -> scgenot.GENOT:
    """Set up what was read, and train on it."""
    options = {name: getattr(arguments, name) for name in ("source_rep", "target_rep", "shared_rep", "weights_key")}
    if isinstance(data, MuData):
        scgenot.GENOT.setup_mudata(
            data,
            source_modality=arguments.source_modality,
            target_modality=arguments.target_modality,
            **options | {"target_rep": options["target_rep"] or options["source_rep"]},
        )
    elif arguments.time_key is not None:
        scgenot.GENOT.setup_anndata(data, time_key=arguments.time_key, **options)
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
    # A time that there is none of is said before the training.
    _time(model, arguments.until)
    started = time.perf_counter()
    model.train(max_steps=arguments.max_steps, progress_bar=not arguments.quiet, rng=arguments.rng)
    print(f"trained in {time.perf_counter() - started:.0f} s")
    return model


def labels(arguments: argparse.Namespace) -> None:
    """Write which labels of the target cells source cells would have."""
    data, model, options = _question(arguments)
    scgenot.tl.transfer_labels(data, model, arguments.label_key, **options)
    _write(data, arguments.output)
    written = model.source_adata(data).obs[arguments.key_added]
    counts = written.value_counts()
    print(f"{written.notna().sum()} cells: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


def transitions(arguments: argparse.Namespace) -> None:
    """Write which groups of target cells groups of source cells go to."""
    data, model, options = _question(arguments)
    scgenot.tl.transitions(data, model, arguments.source_key, arguments.target_key, **options)
    _write(data, arguments.output)
    print(model.source_adata(data).uns[arguments.key_added]["matrix"].round(2).to_string())


def _question(arguments: argparse.Namespace) -> tuple[ad.AnnData | MuData, scgenot.GENOT, dict[str, Any]]:
    """Return cells, model, and what both tools that look at target cells take."""
    _check_files(arguments)
    check_count("--n-neighbors", arguments.n_neighbors)
    if arguments.targets is not None:
        _check_is_there(arguments.targets)
    model = _kept(arguments)
    data = _read(arguments.input)
    options = {name: getattr(arguments, name) for name in ("key_added", "n_samples", "n_neighbors", "rng")}
    options |= {"conditions": arguments.condition, "until": _time(model, arguments.until)}
    return data, model, options | {"target": None if arguments.targets is None else _read(arguments.targets)}


def plot(arguments: argparse.Namespace) -> None:
    """Draw a result that a file holds."""
    matplotlib.use("Agg")
    _check_is_there(arguments.input)
    _check_is_free(arguments.output, arguments.overwrite)
    formats = FigureCanvasAgg.get_supported_filetypes()
    if arguments.output.suffix.removeprefix(".") not in formats:
        raise ValueError(
            f"`--output` must end in the name of a format of figures, got {str(arguments.output)!r}. There are: "
            f"{', '.join(sorted(formats))}."
        )
    draw = getattr(scgenot.pl, arguments.kind)
    names = ("key", "basis", "source_basis", "target_basis", "color", "groupby")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    there = [name for name in names if name in inspect.signature(draw).parameters]
    if unknown := [name for name in given if name not in there]:
        written = [f"--{name.replace('_', '-')}" for name in there]
        raise ValueError(
            f"`--{unknown[0].replace('_', '-')}` is no option of {arguments.kind}, which has {', '.join(written)}."
        )
    data = _read(arguments.input)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(data, **given, show=False, save=arguments.output)
    plt.close("all")
    print(f"wrote {arguments.output}")


def _check_files(arguments: argparse.Namespace) -> None:
    """Refuse files and numbers that would fail after the work is done."""
    _check_is_there(arguments.input)
    for path in (arguments.output, getattr(arguments, "save_model", None)):
        if path is not None:
            _check_is_free(path, arguments.overwrite)
    check_count("--n-samples", arguments.n_samples)
    if not arguments.key_added or "/" in arguments.key_added:
        raise ValueError(f"`--key-added` must be a name without '/', got {arguments.key_added!r}. Use '_'.")
    kind = _kind(arguments.input)
    if (arguments.output.suffix == ".h5mu") != (kind == ".h5mu"):
        raise ValueError(
            f"`--output` must be a file of the same kind as the input ({kind}), got {str(arguments.output)!r}."
        )


def _check_is_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")


def _check_is_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already. Choose another path, or pass --overwrite.")


def _check_transport(arguments: argparse.Namespace) -> None:
    """Refuse what would fail after the training, or half-way."""
    _check_files(arguments)
    changed = [option for option, (name, default) in arguments.training.items() if getattr(arguments, name) != default]
    if arguments.model is not None:
        if changed:
            raise ValueError(
                f"{' and '.join(changed)} is for training, and `--model` was trained. Leave one of them out."
            )
        return
    if arguments.max_steps is not None:
        check_count("--max-steps", arguments.max_steps)
    kind = _kind(arguments.input)
    conditional = [name for name in _CONDITIONAL if getattr(arguments, name[2:].replace("-", "_"))]
    if conditional and kind == ".h5mu":
        raise ValueError(f"{' and '.join(conditional)} is not for an .h5mu file: conditions are read from an .h5ad.")
    if arguments.time_key is not None:
        _check_course(arguments, kind, conditional)
        return
    if arguments.until is not None:
        raise ValueError(f"`--until` needs a time course, got {arguments.until!r}. Give `--time-key`, or leave it out.")
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


def _check_course(arguments: argparse.Namespace, kind: str, conditional: list[str]) -> None:
    """Refuse what a time course has no use for."""
    if kind == ".h5mu":
        raise ValueError("--time-key is not for an .h5mu file: a time course is read from an .h5ad.")
    names = ("--population-key", "--source", "--target", "--source-modality", "--target-modality")
    names += ("--target-rep", "--shared-rep")
    others = [name for name in names if getattr(arguments, name[2:].replace("-", "_")) is not None] + conditional
    if others:
        raise ValueError(
            f"{' and '.join(others)} does not go together with --time-key, which maps each time to the next one. "
            "Leave one of them out."
        )


def _kept(arguments: argparse.Namespace) -> scgenot.GENOT:
    """Read a kept model, without data: it is asked about those of the file."""
    if not arguments.model.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(arguments.model)!r}. `--model` takes what `scgenot transport --save-model` wrote."
        )
    model = scgenot.GENOT.load(arguments.model, adata=False)
    kind = ".h5mu" if model.registry_["setup_method_name"] == "setup_mudata" else ".h5ad"
    if kind != _kind(arguments.input):
        raise ValueError(
            f"the model {str(arguments.model)!r} maps cells of an {kind} file, got {str(arguments.input)!r}."
        )
    return model


def _is_screen(model: scgenot.GENOT) -> bool:
    """Whether the model predicts conditions by name for each source cell, without one that is the cell's own."""
    return model.conditions is not None and model.times is None and model.registry_["setup_args"].get("target") is None


def _time(model: scgenot.GENOT, text: str | None) -> Any:
    """Return the time of a model that a word on the command line means."""
    if text is None:
        return None
    if model.times is None:
        raise ValueError(f"`--until` needs a model of a time course, got {text!r}. Leave it out.")
    for one in model.times:
        if str(one) == text or (isinstance(one, int | float) and _number(text) == one):
            return one
    raise ValueError(one_of("--until", text, [str(one) for one in model.times]))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _write(data: ad.AnnData | MuData, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (data.write_h5mu if isinstance(data, MuData) else data.write_h5ad)(path)
    print(f"wrote {path}")


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
    _check_is_there(arguments.input)
    _check_is_free(arguments.output, arguments.overwrite)
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
