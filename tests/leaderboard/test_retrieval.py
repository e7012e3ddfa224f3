"""A board of retrieval from simulated records: ranks, intervals, and the section of the page."""

import numpy as np
import pytest

from tapct.kinds.retrieval import case_loss, outcome
from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.metrics.retrieval import unit
from tapct.records import CaseResult, Record, read_records, write_record
from tests.leaderboard.test_inputs import record

CLASSES = ("tumor", "trauma")
SCANS = 60
TASK = {
    "name": "totalsegmentator_retrieval",
    "version": 1,
    "kind": "retrieval",
    "metric": "mAP",
    "classes": list(CLASSES),
    "options": {},
    "split_sha256": "0" * 64,
}


def model(name: str, disease: float, scanner: float) -> Record:
    """A record of a model whose features know so much of the disease and of the scanner."""
    truth, noise = np.random.default_rng(0), np.random.default_rng(1)
    tumor, ge = truth.random(SCANS) < 0.4, truth.random(SCANS) < 0.5
    targets = np.stack([tumor, truth.random(SCANS) < 0.2], axis=1).astype(float)
    features = noise.normal(size=(SCANS, 12))
    features[:, 0] += disease * (2 * tumor - 1)
    features[:, 1] += scanner * (2 * ge - 1)
    features = unit(features) if disease or scanner else np.ones((SCANS, 1))
    cases = []
    for row in range(SCANS):
        others = np.flatnonzero(np.arange(SCANS) != row)
        found = outcome(targets[row], targets, features @ features[row], CLASSES, others, ge == ge[row])
        about = {"case": str(row), "patient": str(row), "loss": case_loss(found), "padding_voxels": (0, 0, 0)}
        cases.append(CaseResult(**about, outcome=found))
    return record(name, cases, task=TASK, probe={"adaptor": "cosine"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name, knows in {"good": (2.0, 0.0), "fooled": (0.3, 4.0), "blind": (0.0, 0.0)}.items():
        write_record(model(name, *knows), root / "totalsegmentator_retrieval" / name)
    return root


@pytest.fixture(scope="module")
def board(folder):
    """The board of these records, which are of a split of their own."""
    (own,) = assemble({folder: read_records(folder)}, resamples=200).own
    return own.board


def test_models_are_ranked_by_map_with_intervals_over_patients(board):
    (task,) = (task for task in board.tasks if task.name == TASK["name"])
    values = {model.name: task.summary(model.name, "native").estimate for model in board.models}
    assert values["Fooled"].high < values["Good"].low < values["Good"].value < values["Good"].high
    assert values["Good"].low > values["Blind"].value
    assert values["Blind"].low is None, "of constant features every query of a label has the same"


def test_the_page_shows_labels(folder, board, tmp_path):
    assert site.build([folder], tmp_path, resamples=200) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in ("mAP of each label", "mAP, others from the same scanner"):
        assert text in page
    assert "What the nearest scan shares" not in page, "these records hold no audit"
