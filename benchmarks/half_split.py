"""What one draw of queries and gallery decides: `python -m benchmarks.half_split [--draws N] [--kits kits.json]`.

FlexiCT (ricklisz/FlexiCT, e120a9b, downstream/retrieval) searches half of the scans of each grade or stage for the
other half, drawn once. Here the features of one model stay as they are, and only the draw changes; next to it stands
the same model as our tasks have it: every scan asks, all others are searched, and labels count alike. Also what chance
has there; and, of C4KC-KiTS, what the radiologist's size of the tumour knows, whose nearest are those of the nearest
log.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tapct.metrics.retrieval import RandomOrder, Ranking, ordered, unit

TASKS: Mapping[str, Sequence[Sequence[int]]] = {
    "c4kc_kits_retrieval": ((18, 79), (36, 10)),
    "nsclc_radiogenomics_retrieval": ((6, 38, 30), (40, 9), (16, 5)),
}
"""By task and label, the patients of each grade or stage."""

FEATURES = 64


def half(grades: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns (N,) which scans are queries: of each grade half, rounded down."""
    query = np.zeros(len(grades), dtype=bool)
    for grade in np.unique(grades):
        of = np.flatnonzero(grades == grade)
        query[random.permutation(of)[: len(of) // 2]] = True
    return query


def by_label(of_scans: np.ndarray, labels: np.ndarray) -> str:
    """Returns the means over scans of a label, then over labels, in words."""
    means = [of_scans[labels == label].mean(axis=0) for label in np.unique(labels)]
    return ", ".join(f"{value:.3f}" for value in np.mean(means, axis=0))


def scores(similarity: np.ndarray, labels: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Returns (Q, 3) average precision, and whether one of the first and of the five nearest has the label."""
    found = []
    for row in np.flatnonzero(query):
        among = np.flatnonzero(gallery & (np.arange(len(labels)) != row))
        order, level = ordered(similarity[row, among])
        ranking = Ranking.of(level, labels[among[order]] == labels[row])
        found.append([ranking.average_precision(), ranking.hit(1), ranking.hit(5)])
    return np.array(found)


def measure(task: str, know: float, draws: int) -> None:
    """Prints the numbers of a model that knows a task a little."""
    counts = TASKS[task]
    grades = np.repeat(np.arange(sum(map(len, counts))), [n for of in counts for n in of])
    labels = np.repeat(np.arange(len(counts)), [sum(of) for of in counts])
    random = np.random.default_rng(0)
    of_label = random.normal(size=(len(counts), FEATURES))
    vectors = unit(random.normal(size=(len(labels), FEATURES)) + know * of_label[labels])
    similarity = vectors @ vectors.T
    drawn = []
    for seed in range(draws):
        query = half(grades, np.random.default_rng(seed))
        drawn.append(scores(similarity, labels, query, ~query).mean(axis=0))
    percentiles = zip(*np.percentile(drawn, [50, 2.5, 97.5], axis=0), strict=True)
    halves = ", ".join(f"{middle:.3f} ({low:.3f} to {high:.3f})" for middle, low, high in percentiles)
    everyone = np.ones(len(labels), dtype=bool)
    print(f"{task}, features that know {know:g}: mAP, R@1, R@5")
    print(f"  {draws} draws of halves: {halves}")
    print(f"  all scans, by label: {by_label(scores(similarity, labels, everyone, everyone), labels)}")


def size(path: Path) -> None:
    """Prints what the size of the tumour knows of its grade."""
    cases = json.loads(path.read_text(encoding="utf-8"))
    cases = [one for one in cases if one["tumor_histologic_subtype"] == "clear_cell_rcc" and one["tumor_isup_grade"]]
    labels = np.array([case["tumor_isup_grade"] >= 3 for case in cases]).astype(int)
    logs = np.log([case["radiographic_size"] for case in cases])
    everyone = np.ones(len(labels), dtype=bool)
    found = scores(-np.abs(logs[:, None] - logs), labels, everyone, everyone)
    print(f"C4KC-KiTS, {len(labels)} patients by the size of the tumour: mAP, R@1, R@5: {by_label(found, labels)}")


def chance(task: str) -> None:
    """Prints what chance has on a half, and what FlexiCT prints as the mAP of chance."""
    counts = TASKS[task]
    queries = [sum(n // 2 for n in of) for of in counts]
    gallery = [sum(n - n // 2 for n in of) for of in counts]
    expected = [RandomOrder(relevant, sum(gallery)) for relevant in gallery]
    precision = np.average([one.average_precision() for one in expected], weights=queries)
    hit = np.average([one.hit(5) for one in expected], weights=queries)
    said = np.average([relevant / sum(gallery) for relevant in gallery], weights=queries)
    print(f"{task}, chance on a half: mAP {precision:.3f}, said to be {said:.3f}; R@5 {hit:.3f}")


def main() -> None:
    """Measures both tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--know", type=float, nargs="*", default=[0.0, 0.4])
    parser.add_argument("--kits", type=Path, help="data/kits.json of neheller/kits19")
    asked = parser.parse_args()
    if asked.kits is not None:
        size(asked.kits)
    for task in TASKS:
        chance(task)
        for know in asked.know:
            measure(task, know, asked.draws)


if __name__ == "__main__":
    main()
