"""What the commands do."""

from __future__ import annotations

import argparse
import time
from typing import Any

import anndata as ad
import matplotlib

import scgenot
from scgenot._messages import one_of


def transport(arguments: argparse.Namespace) -> None:
    """Train on a file and write it with the transported cells."""
    if not arguments.input.is_file():
        raise FileNotFoundError(f"there is no file {str(arguments.input)!r}.")
    for path in (arguments.output, arguments.save_model):
        if path is not None and path.exists() and not arguments.overwrite:
            raise FileExistsError(f"{str(path)!r} exists already. Choose another path, or pass --overwrite.")
    adata = ad.read_h5ad(arguments.input)
    key = arguments.population_key
    scgenot.GENOT.setup_anndata(
        adata,
        population_key=key,
        source=_category(adata, key, arguments.source, "--source"),
        target=_category(adata, key, arguments.target, "--target"),
        source_rep=arguments.source_rep,
        target_rep=arguments.target_rep,
        shared_rep=arguments.shared_rep,
        weights_key=arguments.weights_key,
    )
    model = scgenot.GENOT(
        adata,
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
    scgenot.tl.transport(
        adata,
        model,
        key_added=arguments.key_added,
        n_samples=arguments.n_samples,
        store_samples=arguments.store_samples,
        rng=arguments.rng,
    )
    if arguments.save_model is not None:
        model.save(arguments.save_model, overwrite=arguments.overwrite)
        print(f"wrote {arguments.save_model}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(arguments.output)
    print(f"wrote {arguments.output}")


def demo(arguments: argparse.Namespace) -> None:
    """Map real cells and show the result."""
    matplotlib.use("Agg")
    if arguments.perturbation:
        from scgenot._demo_perturbation import run_demo
    else:
        from scgenot._demo import run_demo

    run_demo(arguments.out, max_steps=arguments.max_steps, rng=arguments.rng, progress_bar=not arguments.quiet)


def _category(adata: ad.AnnData, key: str, text: str, argument: str) -> Any:
    """Return the category that a word on the command line means; days and doses are often numbers."""
    if key not in adata.obs:
        # The model's own message names the closest column.
        return text
    by_text = {str(category): category for category in adata.obs[key].dropna().unique()}
    if text not in by_text:
        raise ValueError(one_of(argument, text, sorted(by_text)))
    return by_text[text]
