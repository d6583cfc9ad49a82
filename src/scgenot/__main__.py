"""The command line: ``scgenot demo``, ``scgenot transport`` and ``scgenot decode``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scgenot import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (0 done, 2 wrong input)."""
    arguments = _parser().parse_args(argv)
    # Commands are imported late, so that `--help` answers at once.
    from scgenot import _commands

    run = {"demo": _commands.demo, "transport": _commands.transport, "decode": _commands.decode}[arguments.command]
    try:
        run(arguments)
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
    _common(demo)

    transport = commands.add_parser("transport", help="train on a file, and write it with the transported cells")
    transport.add_argument("input", type=Path, metavar="IN", help="an .h5ad, or an .h5mu with two modalities")
    transport.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="a file of the same kind")
    transport.add_argument("--population-key", default=None, help="obs column that tells populations apart (.h5ad)")
    transport.add_argument("--source", default=None, help="its category to transport from (.h5ad)")
    transport.add_argument(
        "--target", default=None, help="its category to transport to (.h5ad); without it, all others are conditions"
    )
    transport.add_argument(
        "--conditions",
        nargs="+",
        default=None,
        metavar="NAME",
        help="conditions to predict (default: all); without --target",
    )
    transport.add_argument(
        "--condition-keys",
        nargs="+",
        default=None,
        metavar="COVARIATE=COLUMN,...",
        help="obs columns of the slots of each covariate, such as drug=drug1,drug2 dose=dose1,dose2 (.h5ad)",
    )
    transport.add_argument(
        "--context-keys", nargs="+", default=(), metavar="COLUMN", help="obs columns: cell line, donor"
    )
    transport.add_argument(
        "--match-keys",
        nargs="+",
        default=None,
        metavar="COLUMN",
        help="controls agree in these (default: context keys)",
    )
    transport.add_argument("--source-modality", default=None, help="modality to transport from (.h5mu)")
    transport.add_argument("--target-modality", default=None, help="modality to transport to (.h5mu)")
    transport.add_argument("--source-rep", default="X_pca", help="obsm key, or X (default: %(default)s)")
    transport.add_argument("--target-rep", default=None, help="the same for target cells, where it differs")
    transport.add_argument("--shared-rep", default=None, help="obsm key of features that both populations have")
    transport.add_argument("--problem", default="auto", help="linear, quadratic, fused or auto (default: %(default)s)")
    transport.add_argument("--weights-key", default=None, help="obs column of prior weights")
    transport.add_argument("--cost", default=None, help="ground cost (default: that of the problem)")
    transport.add_argument(
        "--epsilon", type=float, default=None, help="entropy, in mean costs (default: that of the problem)"
    )
    transport.add_argument(
        "--alpha", type=float, default=0.5, help="weight of the quadratic term if fused (default: %(default)s)"
    )
    transport.add_argument("--tau-source", type=float, default=1.0, help="1 is balanced (default: %(default)s)")
    transport.add_argument("--tau-target", type=float, default=1.0, help="1 is balanced (default: %(default)s)")
    transport.add_argument("--coupling", default="global", help="global or minibatch (default: %(default)s)")
    transport.add_argument("--n-samples", type=int, default=30, help="samples a cell (default: %(default)s)")
    transport.add_argument("--store-samples", action="store_true", help="keep the samples in obsm")
    transport.add_argument("--key-added", default="genot", help="where results go in the AnnData")
    transport.add_argument("--save-model", type=Path, default=None, metavar="DIR", help="keep the trained model")
    transport.add_argument("--overwrite", action="store_true", help="write over files that exist")
    _common(transport)

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
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-steps", type=int, default=None, help="training steps")
    parser.add_argument("--rng", type=int, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


if __name__ == "__main__":
    sys.exit(main())
