"""A board of detectors from simulated records: ranks, intervals, and the section of the page."""

import csv

import numpy as np
import pytest

from tapct.kinds.localisation import CANDIDATE, POINT
from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.page.kinds import localisation as section
from tapct.metrics.froc import Detections, mark
from tapct.records import CaseResult, Record, read_records, write_record
from tests.leaderboard.test_inputs import record

TASK = {
    "name": "luna16_detection",
    "version": 1,
    "kind": "localisation",
    "metric": "FROC",
    "classes": ["nodule"],
    "options": {"excluded_findings": True},
    "split_sha256": "0" * 64,
}


def scan(name: str, ability: float, seed: int) -> CaseResult:
    """A scan whose findings are always the same, and what a detector of some ability makes of it."""
    truth, rng = np.random.default_rng(int(name)), np.random.default_rng([int(name), seed, int(1000 * ability)])
    points = truth.uniform(-100, 100, (truth.integers(0, 5), 3))
    hits = points[rng.random(len(points)) < 0.3 + 0.6 * ability] + rng.normal(0, 3 - 2 * ability)
    candidates = np.concatenate([hits, rng.uniform(-100, 100, (12, 3))])
    scores = rng.normal(size=len(candidates)) + 2 * ability * (np.arange(len(candidates)) < len(hits))
    columns = {
        **dict(zip(POINT, points.T, strict=True)),
        "diameter_mm": truth.uniform(4, 25, len(points)),
        "excluded": np.zeros(len(points)),
        **dict(zip(CANDIDATE, candidates.T, strict=True)),
        "score": scores,
    }
    outcome = {field: {"nodule": values.tolist()} for field, values in columns.items()}
    return CaseResult(case=name, patient=name, loss=0.5, padding_voxels=(0, 0, 0), outcome=outcome)


def detector(name: str, ability: float) -> Record:
    runs = [[scan(str(case), ability, seed) for case in range(40)] for seed in range(2)]
    patches = {"size_mm": (8.0, 8.0, 8.0), "dice": None, "by_class": {}, "cases": 40}
    return record(name, *runs, task=TASK, probe={}, cell_size=patches)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name, ability in {"good": 0.9, "fair": 0.5, "blind": 0.0}.items():
        write_record(detector(name, ability), root / "luna16_detection" / name)
    return root


@pytest.fixture(scope="module")
def board(folder):
    """The board of these records, which are of a split of their own."""
    (own,) = assemble({folder: read_records(folder)}, resamples=200).own
    return own.board


def test_models_are_ranked_by_froc_with_intervals_over_patients(board):
    (task,) = (task for task in board.tasks if task.name == TASK["name"])
    values = {model.name: task.summary(model.name, "native").estimate for model in board.models}
    assert values["Good"].value > values["Fair"].value > values["Blind"].value
    expected = [Detections.of([[_marks(case)] for case in run]) for run in _runs(detector("good", 0.9))]
    assert values["Good"].value == pytest.approx(np.mean([one.froc(np.ones((40, 1)))[0] for one in expected]))
    assert values["Good"].low < values["Good"].value < values["Good"].high
    assert values["Blind"].high < values["Good"].low


def _runs(one: Record) -> list[list[CaseResult]]:
    return [run.cases["test"] for run in one.runs]


def _marks(case: CaseResult):
    of = {field: np.array(values["nodule"]) for field, values in case.outcome.items()}
    places, points = (np.array([of[name] for name in fields]).T for fields in (CANDIDATE, POINT))
    return mark(places, of["score"], points, of["diameter_mm"], of["excluded"] == 1)


def test_the_page_has_the_curves_the_errors_and_what_is_found_of_each_size(folder, tmp_path):
    assert site.build([folder], tmp_path, resamples=200) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in (
        "FROC curves of",
        "Errors in mm of",
        "Sensitivity by diameter",
        "under 6 mm",
        "from 20 mm",
        "Patch, mm",
    ):
        assert text in page
    assert "Reached" not in page, "that is of Dice"
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "MedianError_mm"]
    assert {row["unit"] for row in rows} <= {"mm"}


def test_bands_have_the_findings_and_the_mean_over_seeds(folder):
    runs = {"good": [Detections.of([[_marks(case)] for case in run]) for run in _runs(detector("good", 0.9))]}
    rows = list(section.by_diameter(runs))
    numbers = [int(row[0].split("(")[1].rstrip(")")) for row in rows]
    assert sum(numbers) == len(runs["good"][0].scores)
    low = [one.within(0, 6) for one in runs["good"]]
    assert float(rows[0][1]) == pytest.approx(np.mean([one.froc(np.ones((40, 1)))[0] for one in low]), abs=5e-4)
