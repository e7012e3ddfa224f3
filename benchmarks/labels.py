"""Time and memory of means over labels: `python -m benchmarks.labels [SCANS ...] [--models M] [--resamples R]`.

Scans of 18 labels that a tenth of them have, a tenth of the pairs not stated, two scans of every tenth patient; models
that know a little of each label, one seed. Each number is that of a leaderboard: with its interval over patients, and
the models compared. The memory is the highest that the process had, of which the logits and targets are told.
"""

import argparse
import resource
import time

import numpy as np

from tapct.kinds import Cases
from tapct.metrics.classification import OVER_LABELS
from tapct.records import git_state
from tapct.statistics import TaskInputs, summarise_task
from tapct.statistics.summary import RESAMPLES

LABELS = 18


def simulated(metric: str, scans: int, models: int) -> TaskInputs:
    """Returns the task of a metric."""
    random = np.random.default_rng(0)
    targets = (random.random((scans, LABELS)) < 0.1).astype(float)
    known = random.random(targets.shape) >= 0.1
    patients = np.arange(scans) - (np.arange(scans) % 11 == 10)
    names = tuple(map(str, range(scans))), tuple(map(str, patients)), tuple(map(str, range(LABELS)))
    samples = []
    for _ in range(models):
        logits = random.normal(size=targets.shape) + targets
        samples.append((Cases(*names, {"logit": logits, "target": np.where(known, targets, np.nan)}),))
    return TaskInputs(
        task="simulated",
        version="1",
        metric=metric,
        models=tuple(f"model {number}" for number in range(models)),
        cases=names[0],
        patients=names[1],
        samples=tuple(samples),
    )


def measure(metric: str, scans: int, models: int, resamples: int) -> None:
    """Prints the time and the memory of a metric."""
    inputs = simulated(metric, scans, models)
    start, used = time.perf_counter(), time.process_time()
    found = summarise_task(inputs, resamples)
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - used
    memory_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    one = found.models[0].estimate
    held = models * 2 * scans * LABELS * 8 / 2**30
    print(
        f"{metric:13} {scans:6d} scans x {LABELS} labels, {models} models, {resamples} resamples: {cpu_s:.1f} s of one "
        f"core ({wall_s:.1f} s wall); at most {memory_gib:.2f} GiB ({held:.2f} of it logits and targets); "
        f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})",
        flush=True,
    )


def main() -> None:
    """Measures the sets that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="*", type=int, default=[1_564, 50_000])
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--metrics", nargs="+", choices=OVER_LABELS, default=[*OVER_LABELS])
    asked = parser.parse_args()
    print(f"commit: {git_state()}", flush=True)
    for scans in asked.scans:
        for metric in asked.metrics:
            measure(metric, scans, asked.models, asked.resamples)


if __name__ == "__main__":
    main()
