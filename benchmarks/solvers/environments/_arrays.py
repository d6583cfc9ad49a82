"""Arrays in, arrays and JSON out: what the scripts of other environments share. It imports nothing of this project."""

import argparse
import json
import sys

import numpy as np


def main(run):
    """Read the command line, call `run`, write what it returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("given", help="an .npz with x, y and at")
    parser.add_argument("found", help="where samples go, an .npz")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON: epsilon_b, steps, n, seed, ...")
    asked = parser.parse_args()
    with np.load(asked.given) as arrays:
        x, y, at = (arrays[name].astype(np.float32) for name in ("x", "y", "at"))
    # Libraries print to stdout; it is kept for JSON.
    out, sys.stdout = sys.stdout, sys.stderr
    samples, told = run(x, y, at, **asked.options)
    np.savez(asked.found, samples=samples)
    print(json.dumps({"options": asked.options, "python": sys.version.split()[0]} | told), file=out)
