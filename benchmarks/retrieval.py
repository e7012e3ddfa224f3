"""Time and memory of retrieval: `python -m benchmarks.retrieval [SCANS ...] [--features P] [--queries Q]`.

A gallery of random features, with 18 labels and 4 columns of 5 levels, each query as `RetrievalProbe` answers it, and
what the nearest scan shares as the shortcut audit finds it. Time is CPU time of one core, of some queries, and told for
all of them, next to the time on the clock; the memory is the highest that the process had (resource.getrusage).
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np

from tapct.kinds.retrieval import outcome
from tapct.metrics.retrieval import BLOCK_NUMBERS, similarities, unit
from tapct.metrics.shortcuts import members, nearest
from tapct.records import git_state

LABELS, COLUMNS, LEVELS = 18, 4, 5


def targets(scans: int, random: np.random.Generator) -> np.ndarray:
    """Returns (N, K) labels, of which a tenth is not known."""
    labels = np.where(random.random((scans, LABELS)) < 0.1, np.nan, random.random((scans, LABELS)) < 0.15)
    return np.asfortranarray(labels)


def timed(work: Callable[[], object], number: int) -> np.ndarray:
    """Returns (2,) the CPU time and the time on the clock of each of so many pieces of work, in ms."""
    before = np.array([time.process_time(), time.perf_counter()])
    work()
    return 1000 * (np.array([time.process_time(), time.perf_counter()]) - before) / number


def measure(scans: int, features: int, queries: int) -> None:
    """Prints the time and the memory of a gallery."""
    random = np.random.default_rng(0)
    gallery = unit(random.normal(size=(scans, features)))
    answers = targets(scans, random)
    levels = random.integers(0, LEVELS, (COLUMNS, scans))
    classes = tuple(f"label {n}" for n in range(LABELS))
    block = min(max(1, BLOCK_NUMBERS // scans), scans)
    asked = min(queries, block)
    rows: list[np.ndarray] = []

    def score() -> None:
        for row in range(asked):
            others = np.flatnonzero(np.arange(scans) != row)
            outcome(answers[row], answers, rows[row], classes, others, (levels == levels[:, [row]]).all(axis=0))

    product = timed(lambda: rows.extend(similarities(gallery[:block], gallery)), block)
    scores = timed(score, asked)
    names = [str(level) for level in range(LEVELS)]
    known = [members([str(level) for level in column], names) for column in levels]
    audit = timed(lambda: nearest(gallery, np.arange(scans), [answers, *known], asked), asked)
    memory_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{scans} scans of {features} features, the gallery {gallery.nbytes / 2**30:.2f} GiB:")
    for what, of in (("similarities", product), ("scores", scores), ("all of it", product + scores), ("audit", audit)):
        cpu, clock = (f"{ms:.1f} ms a query, {ms * scans / 60_000:.1f} min for all" for ms in of)
        print(f"  {what}: {cpu} of one core ({clock} on the clock)")
    print(f"  at most {memory_gib:.2f} GiB", flush=True)


def main() -> None:
    """Measures the galleries that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", type=int, default=[1_228, 50_000])
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--queries", type=int, default=50)
    asked = parser.parse_args()
    print(f"commit: {git_state()}")
    for scans in asked.scans:
        measure(scans, asked.features, asked.queries)


if __name__ == "__main__":
    main()
