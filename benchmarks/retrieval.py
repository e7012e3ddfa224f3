"""Time and memory of retrieval: `python -m benchmarks.retrieval [SCANS ...] [--features P] [--queries Q]`.

A gallery of random features, with 18 labels and 20 levels of columns, each query as `RetrievalProbe` answers it. Time
is of some queries, spread over blocks, and told for all of them; the memory is the highest that the process had.
"""

import argparse
import resource
import time

import numpy as np

from tapct.kinds.retrieval import outcome
from tapct.metrics.retrieval import BLOCK_NUMBERS, similarities, unit

LABELS, COLUMNS, LEVELS = 18, 4, 5


def targets(scans: int, random: np.random.Generator) -> np.ndarray:
    """Returns (N, K) labels, of which a tenth is not known, and levels of columns."""
    labels = np.where(random.random((scans, LABELS)) < 0.1, np.nan, random.random((scans, LABELS)) < 0.15)
    columns = [np.eye(LEVELS)[random.integers(0, LEVELS, scans)] for _ in range(COLUMNS)]
    return np.asfortranarray(np.concatenate([labels, *columns], axis=1))


def measure(scans: int, features: int, queries: int) -> None:
    """Prints the time and the memory of a gallery."""
    random = np.random.default_rng(0)
    gallery = unit(random.normal(size=(scans, features)))
    answers = targets(scans, random)
    columns = (f"column{c}=level{n}" for c in range(COLUMNS) for n in range(LEVELS))
    classes = (*(f"label {n}" for n in range(LABELS)), *columns)
    block = min(max(1, BLOCK_NUMBERS // scans), scans)
    start = time.perf_counter()
    rows = list(similarities(gallery[:block], gallery))
    product_s = (time.perf_counter() - start) / block
    start = time.perf_counter()
    for row in range(min(queries, block)):
        others = np.flatnonzero(np.arange(scans) != row)
        outcome(answers[row], answers, rows[row], classes, others)
    query_s = (time.perf_counter() - start) / min(queries, block)
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    minutes = scans * (product_s + query_s) / 60
    print(
        f"{scans:6d} scans of {features} features: {1000 * product_s:.1f} ms of similarities and {1000 * query_s:.1f} "
        f"ms of scores a query, {minutes:.1f} min for all; at most {memory_gb:.2f} GiB, of which the gallery "
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
