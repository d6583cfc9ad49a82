"""Arrays in, arrays and JSON out: what the scripts of other environments share. It imports nothing of this project."""

import argparse
import contextlib
import json
import sys
import time

import numpy as np


class Clock:
    """Wall seconds, and seconds summed over cores, since it was made or since the last lap."""

    def __init__(self):
        self._last = self._now()

    @staticmethod
    def _now():
        return time.perf_counter(), time.process_time()

    def lap(self):
        """Return both since the last call."""
        before, self._last = self._last, self._now()
        return [now - then for now, then in zip(self._last, before, strict=True)]


class Stages:
    """What a training has learned after so many steps: its state, and what it took until then."""

    def __init__(self, steps, lengths):
        self.lengths = sorted(lengths or [steps])
        self.found, self._clock, self._step = [], Clock(), 0

    def step(self, state):
        """Count a step, and keep the state after it where it is one that is asked for."""
        self._step += 1
        if self._step in self.lengths:
            seconds, cores = (a + b for a, b in zip(self._clock.lap(), self._last(), strict=True))
            self.found.append({"steps": self._step, "state": state, "seconds": seconds, "core_seconds": cores})

    def _last(self):
        return [self.found[-1][name] for name in ("seconds", "core_seconds")] if self.found else [0.0, 0.0]

    def sampled(self, draw):
        """Return samples of each stage, stages x cells x n x features, and what each took."""
        samples, told = [], []
        for one in self.found:
            clock = Clock()
            samples.append(np.asarray(draw(one["state"])))
            seconds, cores = clock.lap()
            told.append(
                {name: value for name, value in one.items() if name != "state"}
                | {"seconds_sampling": seconds, "core_seconds_sampling": cores}
            )
        return np.stack(samples), told


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
    samples, stages, told = run(x, y, at, **asked.options)
    np.savez(asked.found, samples=samples)
    told |= {"options": asked.options, "python": sys.version.split()[0], "stages": stages, "peak_gib": _peak_gib()}
    print(json.dumps(told), file=out)


def _peak_gib():
    # Where there is no such file, nothing is said of memory.
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as lines:
        return int(next(one for one in lines if one.startswith("VmHWM")).split()[1]) / 2**20
