"""The command line of all benchmarks: ``python -m benchmarks run`` and ``python -m benchmarks report``."""

from __future__ import annotations

import argparse
import sys

from benchmarks import report, run


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures of the project.")
    parts = parser.add_subparsers(dest="command", required=True)
    for module in (run, report):
        name = module.__name__.rpartition(".")[2]
        part = parts.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__.splitlines()[0])
        module.add_arguments(part)
        part.set_defaults(act=module.main)
    options = parser.parse_args(words)
    try:
        return int(bool(options.act(options)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
