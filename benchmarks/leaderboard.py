"""Seconds for the statistics of a full leaderboard on one core.

    OMP_NUM_THREADS=1 python benchmarks/leaderboard.py [--models 20] [--seeds 3] [--resamples 2000] [--json out.json]

The ten tasks have the test cases, patients and labels of ours, simulated; the last sizes are the worst: as many cases
as the largest, each with eight labels. (Not called statistics.py: next to other scripts it would be imported in place
of Python's own module.)
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from tapct.statistics import TaskInputs, summarise_task, summarise_tasks

# Task, metric, cases, patients, labels of the test splits of tapct/tasks.
TASKS = [
    ("amos22", "dice_native", 100, 100, 0),
    ("lits17", "dice_native", 23, 23, 0),
    ("kits23", "dice_native", 24, 24, 0),
    ("totalsegmentator", "dice_native", 89, 89, 0),
    ("msd_pancreas", "dice_native", 24, 24, 0),
    ("luna16", "MicroAUROC", 149, 86, 1),
    ("luna25", "MicroAUROC", 1271, 424, 1),
    ("rsna2022", "MicroAP", 403, 403, 8),
    ("rsna2023", "MicroAUROC", 938, 630, 3),
    ("fdg_pet_ct", "MicroAUROC", 199, 180, 1),
]
WORST = [("worst_auroc", "MicroAUROC", 1300, 1300, 8), ("worst_ap", "MicroAP", 1300, 1300, 8)]


def simulate(task: tuple, models: int, seeds: int, rng: np.random.Generator) -> TaskInputs:
    """One task: models of differing quality, patients of differing difficulty."""
    name, metric, cases, patients, labels = task
    patient = np.sort(np.concatenate([np.arange(patients), rng.integers(patients, size=cases - patients)]))
    quality, hard = np.linspace(0, 1, models)[:, None, None], rng.normal(size=patients)[patient]
    if labels:
        targets = (rng.random((cases, labels)) < 0.15).astype(int)
        logits = quality[..., None] * targets + rng.normal(size=(models, seeds, cases, labels)) + 0.3 * hard[:, None]
        values = ndtr(logits).astype(np.float32).astype(np.float64)
    else:
        targets, values = None, ndtr(quality + hard + 0.3 * rng.normal(size=(models, seeds, cases)))
    return TaskInputs(
        task=name,
        version="1",
        metric=metric,
        models=tuple(f"model {m}" for m in range(models)),
        cases=tuple(f"case {c}" for c in range(cases)),
        patients=tuple(f"patient {p}" for p in patient),
        values=values,
        targets=targets,
    )


def measure(models: int, seeds: int, resamples: int) -> dict:
    rng = np.random.default_rng(0)
    seconds, summaries = {}, []
    for task in [*TASKS, *WORST]:
        inputs = simulate(task, models, seeds, rng)
        start = time.process_time()
        summary = summarise_task(inputs, resamples)
        seconds[task[0]] = time.process_time() - start
        print(f"{task[0]:18} {task[2]:5} cases {task[4]} labels {seconds[task[0]]:7.2f} s", flush=True)
        if task in TASKS:
            summaries.append(summary)
    start = time.process_time()
    summarise_tasks(summaries)
    seconds["overall"] = time.process_time() - start
    total = sum(s for name, s in seconds.items() if not name.startswith("worst"))
    print(f"{'overall':18} {seconds['overall']:32.2f} s")
    print(f"ten tasks, {models} models, {seeds} seeds, {resamples} resamples: {total:.1f} s of one core")
    return {"models": models, "seeds": seeds, "resamples": resamples, "seconds": seconds, "ten_tasks": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = measure(args.models, args.seeds, args.resamples)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
