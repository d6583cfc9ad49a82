"""The command line: ``scgenot demo``, ``transport``, ``labels``, ``transitions``, ``decode`` and ``plot``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scgenot import __version__

# Functions of `scgenot.pl` that need no more than a file; the others ask a model.
PLOTS = (
    "transport",
    "uncertainty",
    "growth",
    "transitions",
    "modalities",
    "fates",
    "response",
    "calibration",
    "epsilon_scan",
    "tau_scan",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (0 done, 2 wrong input)."""
    arguments = _parser().parse_args(argv)
    # Commands are imported late, so that `--help` answers at once.
    from scgenot import _commands

    try:
        # Each is a function of its name.
        getattr(_commands, arguments.command)(arguments)
    except (ValueError, KeyError, FileNotFoundError, FileExistsError, RuntimeError) as error:
        # What users can mend is said in the message; a traceback would bury it.
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"scgenot {arguments.command}: {text}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scgenot", description="Where cells go, and how sure that is: neural optimal transport for single cells."
    )
    parser.add_argument("--version", action="version", version=f"scgenot {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="map real cells that ship with scanpy; takes about a minute")
    demo.add_argument(
        "--perturbation", action="store_true", help="one space: monocytes to dendritic cells, not two gene panels"
    )
    demo.add_argument("--out", type=Path, default=Path("scgenot-demo"), metavar="DIR", help="where results go")
    demo.add_argument("--max-steps", type=int, default=None, help="training steps")
    demo.add_argument("--rng", type=int, default=0, help="seed (default: %(default)s)")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")

    transport = commands.add_parser(
        "transport",
        help="train on a file, or take a model that was kept, and write the file with the transported cells",
    )
    _files(transport, "an .h5ad, or an .h5mu with two modalities")
    transport.add_argument("--model", type=Path, default=None, metavar="DIR", help="a kept model; nothing is trained")
    training = transport.add_argument_group("training", "what is trained, and how; not with --model")
    training.add_argument("--population-key", default=None, help="obs column that tells populations apart (.h5ad)")
    training.add_argument("--source", default=None, help="its category to transport from (.h5ad)")
    training.add_argument(
        "--target", default=None, help="its category to transport to (.h5ad); without it, all others are conditions"
    )
    training.add_argument(
        "--condition-keys",
        nargs="+",
        default=None,
        metavar="COVARIATE=COLUMN,...",
        help="obs columns of the slots of each covariate, such as drug=drug1,drug2 dose=dose1,dose2 (.h5ad)",
    )
    training.add_argument(
        "--context-keys", nargs="+", default=(), metavar="COLUMN", help="obs columns: cell line, donor"
    )
    training.add_argument(
        "--match-keys",
        nargs="+",
        default=None,
        metavar="COLUMN",
        help="controls agree in these (default: context keys)",
    )
    training.add_argument(
        "--time-key", default=None, help="obs column of times, instead of populations: one model of all steps (.h5ad)"
    )
    training.add_argument("--source-modality", default=None, help="modality to transport from (.h5mu)")
    training.add_argument("--target-modality", default=None, help="modality to transport to (.h5mu)")
    training.add_argument("--source-rep", default="X_pca", help="obsm key, or X (default: %(default)s)")
    training.add_argument("--target-rep", default=None, help="the same for target cells, where it differs")
    training.add_argument("--shared-rep", default=None, help="obsm key of features that both populations have")
    training.add_argument("--problem", default="auto", help="linear, quadratic, fused or auto (default: %(default)s)")
    training.add_argument("--weights-key", default=None, help="obs column of prior weights")
    training.add_argument("--cost", default=None, help="ground cost (default: that of the problem)")
    training.add_argument(
        "--epsilon", type=float, default=None, help="entropy, in mean costs (default: that of the problem)"
    )
    training.add_argument(
        "--alpha", type=float, default=0.5, help="weight of the quadratic term if fused (default: %(default)s)"
    )
    training.add_argument("--tau-source", type=float, default=1.0, help="1 is balanced (default: %(default)s)")
    training.add_argument("--tau-target", type=float, default=1.0, help="1 is balanced (default: %(default)s)")
    training.add_argument("--coupling", default="global", help="global or minibatch (default: %(default)s)")
    training.add_argument("--max-steps", type=int, default=None, help="training steps")
    training.add_argument("--save-model", type=Path, default=None, metavar="DIR", help="keep the trained model")
    transport.set_defaults(training={one.option_strings[0]: (one.dest, one.default) for one in training._group_actions})
    transport.add_argument(
        "--conditions", nargs="+", default=None, metavar="NAME", help="conditions to predict (default: all of a screen)"
    )
    transport.add_argument(
        "--until", default=None, metavar="TIME", help="time that cells are taken to (default: the next)"
    )
    transport.add_argument("--store-samples", action="store_true", help="keep the samples in obsm")
    _asking(transport, "genot")
    transport.add_argument("--quiet", action="store_true", help="no progress bar")

    labels = commands.add_parser("labels", help="write which labels of the target cells source cells would have")
    _files(labels, "an .h5ad or .h5mu with source cells")
    labels.add_argument("--label-key", required=True, metavar="COLUMN", help="obs column with labels of target cells")
    _questions(labels)
    _asking(labels, "genot_labels")

    transitions = commands.add_parser(
        "transitions", help="write which groups of target cells groups of source cells go to"
    )
    _files(transitions, "an .h5ad or .h5mu with source cells")
    transitions.add_argument(
        "--source-key", required=True, metavar="COLUMN", help="obs column with groups of source cells"
    )
    transitions.add_argument(
        "--target-key", default=None, metavar="COLUMN", help="the same of target cells, if another"
    )
    _questions(transitions)
    _asking(transitions, "genot_transitions")

    decode = commands.add_parser("decode", help="write the transported cells of a file in genes, through its PCs")
    decode.add_argument("input", type=Path, metavar="IN", help="an .h5ad or .h5mu that `scgenot transport` wrote")
    decode.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="an .h5ad")
    decode.add_argument("--key", default="genot", help="the result to decode (default: %(default)s)")
    decode.add_argument("--loadings", default=None, help="varm key (default: that of the representation, or PCs)")
    decode.add_argument("--layer", default=None, help="layer that the PCA saw (default: X)")
    decode.add_argument("--unscale", action="store_true", help="undo sc.pp.scale, by var['mean'] and var['std']")
    decode.add_argument(
        "--residual", choices=["source"], default=None, help="add what the PCs lost of each cell's source cell"
    )
    decode.add_argument("--include-source", action="store_true", help="put the source cells first, to compare with")
    decode.add_argument(
        "--n-samples", type=int, default=1, help="transported cells for each source cell (default: %(default)s)"
    )
    decode.add_argument("--overwrite", action="store_true", help="write over a file that exists")

    plot = commands.add_parser("plot", help="draw a result that a file holds")
    plot.add_argument("kind", choices=PLOTS, metavar="KIND", help=f"the function of scgenot.pl: {', '.join(PLOTS)}")
    plot.add_argument("input", type=Path, metavar="IN", help="an .h5ad or .h5mu with the result")
    plot.add_argument("-o", "--output", type=Path, required=True, metavar="FIGURE", help="a .png, .pdf, .svg ...")
    plot.add_argument("--key", default=None, help="the result (default: that of the tool, such as genot)")
    plot.add_argument("--basis", default=None, help="obsm key of two dimensions (default: X_umap)")
    plot.add_argument("--source-basis", default=None, help="the same for source cells (modalities)")
    plot.add_argument("--target-basis", default=None, help="the same for target cells (modalities)")
    plot.add_argument("--color", default=None, metavar="COLUMN", help="obs column that cells are coloured by")
    plot.add_argument("--groupby", default=None, metavar="COLUMN", help="obs column of groups")
    plot.add_argument("--overwrite", action="store_true", help="write over a file that exists")
    return parser


def _files(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help=what)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="a file of the same kind")


def _questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="what `scgenot transport --save-model` or model.save wrote",
    )
    parser.add_argument(
        "--targets", type=Path, default=None, metavar="FILE", help="where labelled target cells are (default: IN)"
    )
    parser.add_argument("--n-neighbors", type=int, default=5, help="target cells a sample asks (default: %(default)s)")
    parser.add_argument("--condition", default=None, metavar="NAME", help="one condition, of a model that has several")
    parser.add_argument(
        "--until", default=None, metavar="TIME", help="time that cells are taken to (default: the next)"
    )


def _asking(parser: argparse.ArgumentParser, key: str) -> None:
    parser.add_argument("--n-samples", type=int, default=30, help="samples a cell (default: %(default)s)")
    parser.add_argument("--key-added", default=key, help="where results go in the AnnData (default: %(default)s)")
    parser.add_argument("--rng", type=int, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="write over files that exist")


if __name__ == "__main__":
    sys.exit(main())
