"""How often the leaderboard is right: intervals, differences and mean ranks on data whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/leaderboard_simulations.py coverage | equal | labels | power | apart | ranks
        [--simulations 1000] [--resamples 1000] [--json out.json]

coverage: 95 % intervals of numbers, by several methods. equal: the simulated tasks in which equal models are told
apart, which should be one in twenty; labels: the same of means over labels. power: how often a true difference of AUROC
is found, next to DeLong's test. apart: how often the interval of a difference holds it. ranks: how often all mean ranks
are held at once, and by how wide intervals, next to those of differences that are decided one by one. Each takes
minutes.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.special import ndtr
from scipy.stats import expon, norm, rankdata

from tapct.kinds import Cases
from tapct.metrics.ranks import auroc_of_counts
from tapct.metrics.resampled import in_resamples
from tapct.statistics import TaskInputs
from tapct.statistics.comparison import ALPHA
from tapct.statistics.differences import measure
from tapct.statistics.intervals import bca, tail
from tapct.statistics.levels import Levels, levels
from tapct.statistics.mean_ranks import decided, ends
from tapct.statistics.resampling import draw_patients, draw_swaps, evaluate, mean_over_cases
from tapct.statistics.summary import ModelComparison, compare
from tapct.statistics.thin import of_model

Sample = tuple[Callable[[np.ndarray], np.ndarray], float]
"""A metric, of (patients, R) counts, on one simulated sample; and the truth that it estimates."""


def inputs_of(
    name: str, scores: np.ndarray, patient: np.ndarray, targets: np.ndarray | None = None, metric: str = ""
) -> TaskInputs:
    """A task of (models, cases) scores, one seed."""
    pairs = targets is not None
    return TaskInputs(
        task=name,
        version="1",
        metric=metric or ("MicroAUROC" if pairs else "dice_native"),
        models=tuple(f"model {m}" for m in range(len(scores))),
        cases=tuple(map(str, range(len(patient)))),
        patients=tuple(map(str, patient)),
        values=scores[:, None, :, None] if pairs else scores[:, None],
        targets=targets[:, None] if pairs else None,
    )


# -- Intervals of numbers ------------------------------------------------------------------------------


def dice_with_failures(patients: int, rng: np.random.Generator) -> Sample:
    """Dice of mean 16/19 with one failed scan in ten, of mean 1/9."""
    failed = rng.random(patients) < 0.1
    scores = np.where(failed, rng.beta(1, 8, patients), rng.beta(16, 3, patients))
    return (lambda counts: mean_over_cases(scores, np.arange(patients), counts)), 0.1 / 9 + 0.9 * 16 / 19


def dice_with_rare_zeros(patients: int, rng: np.random.Generator) -> Sample:
    """Dice of 0.90 +- 0.03, but 0 in 3 % of scans."""
    scores = np.where(rng.random(patients) < 0.03, 0, rng.beta(90, 10, patients))
    return (lambda counts: mean_over_cases(scores, np.arange(patients), counts)), 0.97 * 0.9


def skewed_clusters(patients: int, rng: np.random.Generator) -> Sample:
    """One to five alike cases a patient, exponentially distributed with mean 1."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    normal = (rng.normal(size=patients)[patient] + 0.5 * rng.normal(size=len(patient))) / np.sqrt(1.25)
    scores = expon.ppf(ndtr(normal))
    return (lambda counts: mean_over_cases(scores, patient, counts)), 1.0


def binormal(distance: float, share: float = 0.25) -> Callable[[int, np.random.Generator], Sample]:
    """AUROC of two normals, one case in four positive."""

    def sample(patients: int, rng: np.random.Generator) -> Sample:
        targets = (rng.random(patients) < share).astype(int)
        scores = rng.normal(size=patients) + distance * targets
        truth = float(ndtr(distance / np.sqrt(2)))
        everyone = np.arange(patients)
        return (lambda counts: in_resamples([auroc_of_counts], scores, targets, everyone, counts)[0]), truth

    return sample


def intervals(value: float, bootstrap: np.ndarray, jackknife: np.ndarray, cut: float) -> Iterator[tuple[str, tuple]]:
    """Each method by name, with its two ends."""
    for name, each in (("", 0.025), (" expanded", cut)):
        yield f"percentile{name}", tuple(np.quantile(bootstrap, [each, 1 - each]))
        if (ends := bca(value, bootstrap, jackknife, each)) is not None:
            yield f"BCa{name}", ends


def coverage(simulations: int, resamples: int) -> Iterator[tuple[str, dict[str, float]]]:
    samples = {
        "Dice, failures": (dice_with_failures, (24, 50, 100, 400)),
        "Dice, 3 % zeros": (dice_with_rare_zeros, (20, 50, 100, 400)),
        "skewed, clustered": (skewed_clusters, (24, 50, 100, 400)),
        f"AUROC {ndtr(1.2 / np.sqrt(2)):.2f}": (binormal(1.2), (24, 50, 100, 400)),
        f"AUROC {ndtr(3.0 / np.sqrt(2)):.2f}": (binormal(3.0), (24, 50, 100, 400)),
        f"AUROC {ndtr(1.2 / np.sqrt(2)):.2f}, 5 % positive": (binormal(1.2, 0.05), (100, 200, 400, 800)),
        f"AUROC {ndtr(3.0 / np.sqrt(2)):.2f}, 5 % positive": (binormal(3.0, 0.05), (100, 200, 400, 800)),
    }
    for name, (sample, sizes) in samples.items():
        for patients in sizes:
            rng, used = np.random.default_rng(patients), 0
            held, missed, warned = dict[str, int](), 0, 0
            for index in range(simulations):
                metric, truth = sample(patients, rng)
                drawn = draw_patients(patients, resamples, f"{name} {index}")
                found = metric(np.concatenate([np.ones((patients, 1)), drawn, 1 - np.eye(patients)], axis=1))
                without = found[1 + resamples :]
                if np.isnan(found[0]) or np.isnan(without).any():
                    continue  # the leaderboard shows no interval here
                bootstrap = found[1 : 1 + resamples]
                defined = bootstrap[~np.isnan(bootstrap)]
                ways = dict(intervals(found[0], defined, without, tail(patients)))
                if len(ways) < 4:
                    continue  # nothing varies: nor does it here
                used += 1
                for method, (low, high) in ways.items():
                    held[method] = held.get(method, 0) + int(low <= truth <= high)
                    if method == "BCa expanded" and not low <= truth <= high:
                        missed, warned = missed + 1, warned + bool(of_model(without))
            shares = {method: n / used for method, n in held.items()}
            yield (
                f"{name}, {patients} patients",
                {**shares, "with an interval": used / simulations, "of those missed, warned": warned / max(missed, 1)},
            )


# -- Differences ---------------------------------------------------------------------------------------


def models_of(
    models: int, patients: int, positives: int, rng: np.random.Generator, distances: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """(models, patients) scores, half of their variance common to all models, and the 0/1 targets."""
    targets = (np.arange(patients) < positives).astype(int)
    scores = (rng.normal(size=patients) + rng.normal(size=(models, patients))) / np.sqrt(2)
    return scores + np.broadcast_to(distances, models)[:, None] * targets, targets


def of_labels(
    name: str, metric: str, models: int, patients: int, labels: int, positives: int, most: int, rng: np.random.Generator
) -> TaskInputs:
    """Equally good models of several labels, each of which so many patients of one to `most` cases have."""
    patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    have = np.stack([rng.permutation(patients) < positives for _ in range(labels)], axis=1)
    targets = have[patient].astype(float)
    hard = rng.normal(size=(patients, labels))[patient]
    own = rng.normal(size=(models, patients, 1)) + rng.normal(size=(models, patients, labels))
    scores = hard + own[:, patient] + 0.5 * rng.normal(size=(models, *targets.shape)) + 2 * targets
    names = [tuple(map(str, of)) for of in (range(len(patient)), patient, range(labels))]
    return TaskInputs(
        task=name,
        version="1",
        metric=metric,
        models=tuple(f"model {m}" for m in range(models)),
        cases=names[0],
        patients=names[1],
        samples=tuple((Cases(*names, {"logit": of, "target": targets}),) for of in scores),
    )


def compared(inputs: TaskInputs, resamples: int) -> ModelComparison:
    """As `summarise_task` compares, without the intervals of each number."""
    value = evaluate(inputs, np.ones((inputs.num_patients, 1))).mean(axis=1)[:, 0]
    return compare(inputs, value, ~np.isnan(value), resamples)[0]


def told_apart(inputs: TaskInputs, resamples: int) -> bool:
    return any(d.better for d in compared(inputs, resamples).differences)


def equal(simulations: int, resamples: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The share of tasks with a false difference, of models that all are equally good."""
    for metric in ("MicroAUROC", "MicroAP"):
        for patients, positives in ((50, 5), (100, 5), (100, 10), (300, 30), (300, 150)):
            for models in (2, 6, 10):
                rng, found = np.random.default_rng([patients, positives, models]), 0
                for index in range(simulations):
                    scores, targets = models_of(models, patients, positives, rng)
                    inputs = inputs_of(f"simulation {index}", scores, np.arange(patients), targets, metric)
                    found += told_apart(inputs, resamples)
                yield (
                    f"{metric}, {models} models, {patients} patients, {positives} positive",
                    {"told apart": found / simulations},
                )
    for metric, models, patients, most in [
        ("dice_native", 2, 8, 1),
        ("dice_native", 8, 24, 1),
        ("dice_native", 20, 24, 1),
        ("dice_native", 8, 24, 5),
        ("dice_native", 8, 80, 5),
        ("MicroAUROC", 8, 86, 2),
        ("MicroAUROC", 8, 86, 5),
        ("MicroAP", 2, 86, 5),
        ("MicroAP", 8, 86, 5),
    ]:
        rng, found = np.random.default_rng(patients), 0
        for index in range(simulations):
            patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
            hard, own = rng.normal(size=patients)[patient], rng.normal(size=(models, patients))[:, patient]
            scores = hard + own + 0.5 * rng.normal(size=(models, len(patient)))
            targets = None if metric == "dice_native" else (rng.random(len(patient)) < 0.25).astype(int)
            if targets is not None:
                scores += 2 * targets
            found += told_apart(inputs_of(f"simulation {index}", scores, patient, targets, metric), resamples)
        yield (
            f"{metric}, {models} models, {patients} patients of 1 to {most} cases",
            {"told apart": found / simulations},
        )


def equal_by_label(simulations: int, resamples: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The same of means over labels."""
    for metric in ("MacroAUROC", "MacroAP", "MacroAPSkill"):
        for models, patients, labels, positives, most in (
            (6, 120, 1, 22, 1),
            (6, 200, 5, 25, 1),
            (6, 120, 5, 24, 3),
            (6, 300, 18, 30, 1),
            (10, 300, 18, 30, 3),
        ):
            rng, found = np.random.default_rng([models, patients, labels]), 0
            for index in range(simulations):
                of = (metric, models, patients, labels, positives, most)
                found += told_apart(of_labels(f"simulation {index}", *of, rng), resamples)
            what = f"{metric}, {models} models, {patients} patients of 1 to {most} cases"
            yield f"{what}, {labels} labels that {positives} have", {"told apart": found / simulations}


def delong(scores: np.ndarray, targets: np.ndarray) -> float:
    """The p-value of two models' AUROC by DeLong et al. 1988, as one writes it."""
    ahead = np.sign(scores[:, targets == 1, None] - scores[:, None, targets == 0]) / 2 + 0.5
    of_positives, of_negatives = ((ahead[0] - ahead[1]).mean(axis=axis) for axis in (1, 0))
    error = np.sqrt(sum(of.var(ddof=1) / len(of) for of in (of_positives, of_negatives)))
    return float(2 * norm.sf(abs(of_positives.mean()) / error)) if error else 1.0


def power(simulations: int, resamples: int) -> Iterator[tuple[str, dict[str, float]]]:
    for patients, positives, better, worse in [
        (300, 30, 1.5, 1.0),
        (300, 30, 2.6, 2.0),
        (300, 150, 1.3, 1.0),
        (300, 150, 2.4, 2.0),
        (100, 10, 2.0, 1.0),
        (50, 5, 2.0, 1.0),
    ]:
        rng, found, by_delong = np.random.default_rng([patients, positives]), 0, 0
        for index in range(simulations):
            scores, targets = models_of(2, patients, positives, rng, np.array([better, worse]))
            found += told_apart(inputs_of(f"{index}", scores, np.arange(patients), targets), resamples)
            by_delong += delong(scores, targets) <= ALPHA
        aucs = " and ".join(f"{ndtr(of / np.sqrt(2)):.2f}" for of in (better, worse))
        yield (
            f"AUROC {aucs}, {patients} patients, {positives} positive",
            {"found": found / simulations, "by DeLong": by_delong / simulations},
        )


def apart(simulations: int, resamples: int) -> Iterator[tuple[str, dict[str, float]]]:
    """How often the interval of a difference holds it."""

    def of_auroc(better: float, worse: float, patients: int, positives: int) -> Callable:
        def sample(rng: np.random.Generator) -> tuple:
            scores, targets = models_of(2, patients, positives, rng, np.array([better, worse]))
            return scores, targets, float(ndtr(better / np.sqrt(2)) - ndtr(worse / np.sqrt(2)))

        return sample

    def of_dice(patients: int, failures: float) -> Callable:
        def sample(rng: np.random.Generator) -> tuple:
            good = rng.beta(16, 3, patients)
            other = np.clip(good + 0.03 * rng.normal(size=patients), 0, 1)
            failing = np.where(rng.random(patients) < failures, 0, good)
            return np.stack([other, failing]), None, failures * 16 / 19

        return sample

    samples = {
        "AUROC 0.92 and 0.76, 50 patients, 5 positive": of_auroc(2, 1, 50, 5),
        "AUROC 0.92 and 0.76, 100 patients, 10 positive": of_auroc(2, 1, 100, 10),
        "AUROC 0.92 and 0.76, 300 patients, 30 positive": of_auroc(2, 1, 300, 30),
        "AUROC 0.92 and 0.76, 300 patients, 150 positive": of_auroc(2, 1, 300, 150),
        "AUROC 0.99 and 0.96, 300 patients, 30 positive": of_auroc(3.5, 2.5, 300, 30),
        "Dice, one fails in 10 % of 24 patients": of_dice(24, 0.1),
        "Dice, one fails in 10 % of 100 patients": of_dice(100, 0.1),
        "Dice, one fails in 3 % of 24 patients": of_dice(24, 0.03),
        "Dice, one fails in 3 % of 100 patients": of_dice(100, 0.03),
    }
    for name, sample in samples.items():
        rng, held, shown = np.random.default_rng(len(name)), 0, 0
        for index in range(simulations):
            scores, targets, truth = sample(rng)
            inputs = inputs_of(f"{name} {index}", scores, np.arange(scores.shape[1]), targets)
            (found,) = compared(inputs, resamples).differences
            if found.estimate.low is not None:
                shown, held = shown + 1, held + (found.estimate.low <= truth <= found.estimate.high)
        yield name, {"held": held / max(shown, 1), "with an interval": shown / simulations}


# -- Mean ranks ----------------------------------------------------------------------------------------


def truths(models: int, tasks: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """(models, tasks) true scores in standard errors of a difference; the first model is the best."""
    order = np.arange(models)[::-1, None] * np.ones(tasks)
    clear = np.zeros((models, tasks))
    clear[0] = 4.2
    mixed = 2 * rng.normal(size=(models, 1)) + 1.5 * rng.normal(size=(models, tasks))
    mixed = mixed[np.argsort(-mixed.mean(axis=1))]
    mixed[0] += 3
    return {
        "all equal": np.zeros((models, tasks)),
        "near ties": 0.05 * order,
        "half an error apart": 0.5 * order,
        "one error apart": order,
        "a clear first, others equal": clear,
        "mixed, a clear first": mixed,
        "in pairs of equals": np.repeat(order[::2], 2, axis=0)[:models],
    }


def true_mean_ranks(truth: np.ndarray) -> np.ndarray:
    return np.mean([rankdata(-task) for task in truth.T], axis=0)


def one_by_one(tasks: list[Levels], models: int) -> np.ndarray:
    """The ranks that are left open by the differences that are decided one by one: what `mean_ranks.ends` is for."""
    better = np.zeros((models, models))
    for task, sure in zip(tasks, decided(tasks), strict=True):
        up = task.found > 0
        np.add.at(better, (task.first[sure & up], task.second[sure & up]), 1)
        np.add.at(better, (task.second[sure & ~up], task.first[sure & ~up]), 1)
    return np.stack([1 + better.sum(axis=0) / len(tasks), models - better.sum(axis=1) / len(tasks)], axis=1)


def measured(truth: np.ndarray, name: str, resamples: int, rng: np.random.Generator) -> Levels:
    """Models of (models,) truth on a task of 60 patients."""
    scores = np.sqrt(2 / 60) * truth[:, None] + rng.normal(size=(len(truth), 60)) + rng.normal(size=60)
    inputs = inputs_of(name, scores, np.arange(60))
    swaps = draw_swaps(60, resamples, inputs.key)
    return levels(measure(inputs, np.arange(len(truth)), scores.mean(axis=1), swaps), inputs.sign)


def ranks(simulations: int, resamples: int) -> Iterator[tuple[str, dict[str, float]]]:
    for models, tasks in ((3, 5), (6, 10), (20, 10), (40, 10)):
        rng, number = np.random.default_rng([models, tasks]), max(simulations * 3 // models, 1)  # that cost as much
        for name, truth in truths(models, tasks, rng).items():
            expected = true_mean_ranks(truth)
            held, widths, first = np.zeros(2), np.zeros(2), np.zeros(2)
            for index in range(number):
                found = [measured(of, f"{index} {t}", resamples, rng) for t, of in enumerate(truth.T)]
                for which, of in enumerate((ends(found, models), one_by_one(found, models))):
                    held[which] += ((of[:, 0] <= expected + 1e-9) & (expected <= of[:, 1] + 1e-9)).all()
                    widths[which] += np.diff(of, axis=1).mean()
                    first[which] += of[0, 1]
            yield (
                f"{models} models, {tasks} tasks, {name} ({number} simulations)",
                {
                    **dict(zip(("held", "held, one by one"), held / number, strict=True)),
                    **dict(zip(("width", "width, one by one"), widths / number, strict=True)),
                    **dict(zip(("first reads 1 to", "first, one by one"), first / number, strict=True)),
                },
            )


SIMULATIONS = {
    **{"coverage": coverage, "equal": equal, "labels": equal_by_label},
    **{"power": power, "apart": apart, "ranks": ranks},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=SIMULATIONS)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table = {}
    for name, shares in SIMULATIONS[args.what](args.simulations, args.resamples):
        table[name] = {what: round(float(share), 3) for what, share in shares.items()}
        print(f"{name}: {table[name]}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
