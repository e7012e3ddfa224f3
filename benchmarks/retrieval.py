"""Time and memory of retrieval: `python -m benchmarks.retrieval [SCANS ...] [--features P] [--queries Q]`.

A gallery of random features, with 18 labels and 4 columns of 5 levels, each query as `RetrievalProbe` answers it, and
what the nearest scan shares as the shortcut audit finds it. Time is of some queries, and told for all of them; the
memory is the highest that the process had.
"""

import argparse
import resource
import time

import numpy as np

from tapct.kinds.retrieval import outcome
from tapct.metrics.retrieval import BLOCK_NUMBERS, similarities, unit
from tapct.metrics.shortcuts import members, nearest

LABELS, COLUMNS, LEVELS = 18, 4, 5


def targets(scans: int, random: np.random.Generator) -> np.ndarray:
    """Returns (N, K) labels, of which a tenth is not known."""
    labels = np.where(random.random((scans, LABELS)) < 0.1, np.nan, random.random((scans, LABELS)) < 0.15)
    return np.asfortranarray(labels)


def measure(scans: int, features: int, queries: int) -> None:
    """Prints the time and the memory of a gallery."""
    random = np.random.default_rng(0)
    gallery = unit(random.normal(size=(scans, features)))
    answers = targets(scans, random)
    levels = random.integers(0, LEVELS, (COLUMNS, scans))
    classes = tuple(f"label {n}" for n in range(LABELS))
    block = min(max(1, BLOCK_NUMBERS // scans), scans)
    start = time.perf_counter()
    rows = list(similarities(gallery[:block], gallery))
    product_s = (time.perf_counter() - start) / block
    start = time.perf_counter()
    for row in range(min(queries, block)):
        others = np.flatnonzero(np.arange(scans) != row)
        outcome(answers[row], answers, rows[row], classes, others, (levels == levels[:, [row]]).all(axis=0))
    query_s = (time.perf_counter() - start) / min(queries, block)
    names = [str(level) for level in range(LEVELS)]
    known = [members([str(level) for level in column], names) for column in levels]
    start = time.perf_counter()
    nearest(gallery, np.arange(scans), [answers, *known], min(queries, block))
    audit_s = (time.perf_counter() - start) / min(queries, block)
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    minutes, audit_minutes = scans * (product_s + query_s) / 60, scans * audit_s / 60
    print(
        f"{scans:6d} scans of {features} features: {1000 * product_s:.1f} ms of similarities and {1000 * query_s:.1f} "
        f"ms of scores a query, {minutes:.1f} min for all; {1000 * audit_s:.1f} ms of the audit, {audit_minutes:.1f} "
        f"min; at most {memory_gb:.2f} GiB, of which the gallery "
        f"{gallery.nbytes / 2**30:.2f}"
    )


def main() -> None:
    """Measures the galleries that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", type=int, default=[1_228, 50_000])
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--queries", type=int, default=50)
    asked = parser.parse_args()
    for scans in asked.scans:
        measure(scans, asked.features, asked.queries)


if __name__ == "__main__":
    main()
