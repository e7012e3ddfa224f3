"""Seconds for the statistics of a full leaderboard on one core; how often its intervals and differences are right.

    OMP_NUM_THREADS=1 python benchmarks/leaderboard.py [--models 20] [--seeds 3] [--resamples 2000] [--json out.json]
    OMP_NUM_THREADS=1 python benchmarks/leaderboard.py --coverage | --equal [--simulations 1000] [--resamples 1000]

The ten tasks have the test cases, patients and labels of ours, simulated; the last sizes are the worst: as many cases
as the largest, each with eight labels. --coverage compares interval methods on data whose truth is known; --equal
counts the simulated tasks in which equal models are told apart, which should be one in twenty. Both take minutes.
(Not called statistics.py: beside other scripts it would be imported in place of Python's own module.)
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.special import ndtr
from scipy.stats import expon

from tapct.leaderboard import TaskInputs, summarise_task, summarise_tasks
from tapct.leaderboard.intervals import bca, tail
from tapct.leaderboard.resampling import auroc, draw_patients, mean_over_cases

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


Sample = tuple[Callable[[np.ndarray], np.ndarray], float]
"""A metric, of (patients, R) counts, on one simulated sample; and the truth that it estimates."""


def dice_with_failures(patients: int, rng: np.random.Generator) -> Sample:
    """Dice of mean 16/19 with one failed scan in ten, of mean 1/9."""
    failed = rng.random(patients) < 0.1
    scores = np.where(failed, rng.beta(1, 8, patients), rng.beta(16, 3, patients))
    return (lambda counts: mean_over_cases(scores, np.arange(patients), counts)), 0.1 / 9 + 0.9 * 16 / 19


def skewed_clusters(patients: int, rng: np.random.Generator) -> Sample:
    """One to five alike cases a patient, exponentially distributed with mean 1."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    normal = (rng.normal(size=patients)[patient] + 0.5 * rng.normal(size=len(patient))) / np.sqrt(1.25)
    scores = expon.ppf(ndtr(normal))
    return (lambda counts: mean_over_cases(scores, patient, counts)), 1.0


def binormal(distance: float) -> Callable[[int, np.random.Generator], Sample]:
    """AUROC of two normals, one case in four positive."""

    def sample(patients: int, rng: np.random.Generator) -> Sample:
        targets = (rng.random(patients) < 0.25).astype(int)
        scores = rng.normal(size=patients) + distance * targets
        truth = float(ndtr(distance / np.sqrt(2)))
        return (lambda counts: auroc(scores, targets, np.arange(patients), counts)), truth

    return sample


def intervals(value: float, draws: np.ndarray, jackknife: np.ndarray, cut: float) -> Iterator[tuple[str, tuple]]:
    """Each method by name, with its two ends."""
    for name, each in (("", 0.025), (" expanded", cut)):
        yield f"percentile{name}", tuple(np.quantile(draws, [each, 1 - each]))
        yield f"BCa{name}", bca(value, draws, jackknife, each) or (value, value)


def coverage(simulations: int, resamples: int) -> dict:
    samples = {
        "Dice, failures": dice_with_failures,
        "skewed, clustered": skewed_clusters,
        f"AUROC {ndtr(1.2 / np.sqrt(2)):.2f}": binormal(1.2),
        f"AUROC {ndtr(3.0 / np.sqrt(2)):.2f}": binormal(3.0),
    }
    table: dict[str, dict[str, float]] = {}
    for name, sample in samples.items():
        for patients in (24, 50, 100, 400):
            rng, held, used = np.random.default_rng(patients), dict[str, int](), 0
            for index in range(simulations):
                metric, truth = sample(patients, rng)
                drawn = draw_patients(patients, resamples, f"{name} {index}")
                found = metric(np.concatenate([np.ones((patients, 1)), drawn, 1 - np.eye(patients)], axis=1))
                if np.isnan(found[0]) or np.isnan(found[1 + resamples :]).any():
                    continue  # the leaderboard shows no interval here
                used, draws = used + 1, found[1 : 1 + resamples]
                defined = draws[~np.isnan(draws)]
                for method, (low, high) in intervals(found[0], defined, found[1 + resamples :], tail(patients)):
                    held[method] = held.get(method, 0) + int(low <= truth <= high)
            table[f"{name}, {patients} patients"] = {method: round(n / used, 3) for method, n in held.items()}
            print(f"{name}, {patients} patients: {table[f'{name}, {patients} patients']}", flush=True)
    return table


def equal(simulations: int, resamples: int) -> dict:
    """The share of tasks with a false difference, of models that all are equally good."""
    table: dict[str, float] = {}
    for metric, models, patients, most in [
        ("dice_native", 8, 24, 1),
        ("dice_native", 20, 24, 1),
        ("dice_native", 8, 24, 5),
        ("dice_native", 8, 80, 5),
        ("MicroAUROC", 8, 86, 2),
    ]:
        rng, told_apart = np.random.default_rng(patients), 0
        for index in range(simulations):
            patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
            hard, own = rng.normal(size=patients)[patient], rng.normal(size=(models, patients))[:, patient]
            scores = hard + own + 0.5 * rng.normal(size=(models, len(patient)))
            targets = None if metric == "dice_native" else (rng.random((len(patient), 1)) < 0.25).astype(int)
            inputs = TaskInputs(
                task=f"simulation {index}",
                version="1",
                metric=metric,
                models=tuple(map(str, range(models))),
                cases=tuple(map(str, range(len(patient)))),
                patients=tuple(map(str, patient)),
                values=scores[:, None] if targets is None else (scores[..., None] + 2 * targets)[:, None],
                targets=targets,
            )
            told_apart += any(d.better for d in summarise_task(inputs, resamples).comparison.differences)
        name = f"{metric}, {models} equal models, {patients} patients of 1 to {most} cases"
        table[name] = told_apart / simulations
        print(f"{name}: told apart in {table[name]:.1%}", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.coverage:
        result = coverage(args.simulations, args.resamples)
    elif args.equal:
        result = equal(args.simulations, args.resamples)
    else:
        result = measure(args.models, args.seeds, args.resamples)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
