"""Time and memory of the floor of reports: `python -m benchmarks.nearest_reports [--scans N] [--queries Q]`.

Random features of as many training scans as CT-RATE has, and findings of many shares: how long it takes to pick the
report of a scan, and to choose how many vote.
"""

import argparse
import json
import resource
import time

import numpy as np

from tapct.metrics.retrieval import unit
from tapct.probes.nearest_reports import solve
from tapct.probes.solved import PooledCases

SHARES = np.linspace(0.05, 0.5, 18)


def measure(scans: int, features: int, queries: int, votes: bool) -> dict[str, float]:
    random = np.random.default_rng(0)
    names = [f"train_{n}_a" for n in range(scans)]
    findings = (random.random((scans, len(SHARES))) < SHARES).astype(float)
    train = PooledCases(names, names, random.normal(size=(scans, features)), findings)
    start = time.perf_counter()
    head = solve(train, None, votes=votes, metric="MacroF1").head
    solved = time.perf_counter()
    for n, vector in enumerate(unit(random.normal(size=(queries, features)))):
        head.pick(f"valid_{n}_a", f"valid_{n}", vector)
    picked = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"solve_s": solved - start, "pick_ms": 1e3 * (picked - solved) / queries, "peak_GiB": peak}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=21_900)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--queries", type=int, default=50)
    asked = parser.parse_args()
    for votes in (False, True):
        found = measure(asked.scans, asked.features, asked.queries, votes)
        print(json.dumps({"votes": votes, **{name: round(value, 2) for name, value in found.items()}}), flush=True)
