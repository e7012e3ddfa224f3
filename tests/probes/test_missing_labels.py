"""Labels that a case does not state, from the loss to the page, through eva's trainer on real CT."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from tapct.errors import TaskError
from tapct.flags import with_own_checks
from tapct.kinds import kind
from tapct.leaderboard.page.charts import reliability_curve
from tapct.probes import ClassificationProbe
from tapct.records import read_record
from tapct.records.case import as_cases
from tapct.statistics.inputs import from_records
from tapct.statistics.reported import reported
from tapct.submission.rules import expected_metrics
from tests.probes import test_classification as slabs
from tests.small import Drifting, small_encoder

UNSTATED = {("slab-0", 0), ("slab-30", 2), ("slab-10", 1), ("slab-40", 0), ("slab-40", 1), ("slab-40", 2)}
"""Case and label; of the reported slab-40 nothing is stated."""

SMALL_DATA = {"too-few-to-tell", "chance-level", "not-converged", "loss-never-fell", "undefined-labels"}
"""What may be said of four reported slabs."""


@pytest.fixture(autouse=True)
def _leave_labels_out(monkeypatch):
    item = slabs.Slabs.__getitem__

    def partly(self, index):
        data, target, metadata = item(self, index)
        left_out = torch.tensor([(metadata["case"], label) in UNSTATED for label in range(3)])
        return data, target.double().masked_fill(left_out, math.nan), metadata

    task = {"name": "slabs", "version": 1, "kind": "classification", "metric": "MicroAUROC", "classes": slabs.LABELS}
    task |= {"options": {}, "split_sha256": "0" * 64}
    monkeypatch.setattr(slabs.Slabs, "__getitem__", partly)
    monkeypatch.setattr(slabs.SlabData, "describe", lambda self: task)


@pytest.mark.parametrize("adaptor", ["abmil", "linear:mean", "knn:mean", "prototype:mean"])
def test_what_is_not_stated_is_null_in_the_record_and_counts_in_no_number(tmp_path, adaptor):
    settings = {"probe": {"adaptor": adaptor}, "val": [20, 66, 95]}
    session, record = slabs.run(tmp_path, small_encoder(Drifting), max_steps=4, **settings)
    assert record.complete
    assert read_record(session / "record.json").fingerprint == record.fingerprint
    text = json.loads((session / "record.json").read_text(encoding="utf-8"))["runs"][0]["cases"]["test"]
    assert [list(case["target"].values()) for case in text][1] == [None, None, None]
    for run in record.runs:
        cases = run.cases["test"]
        missing = {(c.case, k) for c in cases for k, value in enumerate(c.target.values()) if value is None}
        assert missing == {(case, k) for case, k in UNSTATED if case in ("slab-10", "slab-40")}
        pairs = [(z, t) for c in cases for z, t in zip(c.logits.values(), c.target.values(), strict=True)]
        logits, truth = zip(*((z, t) for z, t in pairs if t is not None), strict=True)
        assert len(truth) == 12 - 4
        assert run.metrics["test"]["MicroAUROC"] == pytest.approx(roc_auc_score(truth, logits), rel=1e-14)
        assert run.metrics["test"] == pytest.approx(expected_metrics(kind("classification"), cases), rel=1e-6)
        for case in cases:
            assert case.loss == pytest.approx(kind("classification").loss(case.by_field), rel=1e-5, abs=1e-7)
        assert cases[1].loss == 0
    table = pq.read_table(session / "cases.parquet")
    assert table["target"].null_count == 2 * 4 + sum(
        value is None for run in record.runs for c in run.cases.get("val", []) for value in c.target.values()
    )
    assert {flag.id for flag in with_own_checks(record).flags} <= SMALL_DATA


def test_records_with_labels_that_are_missing_reach_the_page(tmp_path):
    settings = {"probe": {"adaptor": "prototype:mean"}, "max_steps": 1}
    _, record = slabs.run(tmp_path, small_encoder(Drifting), **settings)
    found = reported(record, "test")
    assert np.isnan(found.targets).sum() == 4
    assert found.kind.name == "classification"
    inputs = from_records([record], "MicroAUROC")
    assert inputs.pairs[1].shape == (8,)
    answers = [set(case.target.values()) for case in record.runs[0].cases["test"]]
    assert inputs.needed == {
        "with a positive": sum(1 in of_case for of_case in answers),
        "with a negative": sum(0 in of_case for of_case in answers),
    }
    _, observed, counts = reliability_curve(found.runs)
    assert counts.sum() == 2 * 8
    truth = [t for case in record.runs[0].cases["test"] for t in case.target.values() if t is not None]
    assert (observed * counts).sum() == pytest.approx(2 * sum(truth))
    numbers = kind("classification").numbers(as_cases(kind("classification"), record.runs[0].cases["test"]))
    assert numbers["MicroAUROC"] == record.runs[0].metrics["test"]["MicroAUROC"]


def test_the_loss_of_a_step_and_its_gradient_are_those_of_the_stated_pairs():
    probe = ClassificationProbe(small_encoder(Drifting))
    logits = torch.tensor([[0.5, -2.0], [1.0, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, math.nan], [0.0, math.nan]])
    loss = probe._loss(logits, targets)
    by_hand = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(1.0))) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    loss.backward()
    assert logits.grad[:, 1].tolist() == [0, 0]
    whole = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert probe._loss(logits, whole).item() == nn.BCEWithLogitsLoss()(logits, whole).item(), "to the bit"
    nothing = probe._loss(logits, torch.full((2, 2), math.nan))
    nothing.backward()
    assert nothing.item() == 0


def test_an_infinite_target_is_still_refused(tmp_path, monkeypatch):
    item = slabs.Slabs.__getitem__

    def wrong(self, index):
        data, target, metadata = item(self, index)
        return data, target.nan_to_num(math.inf), metadata

    monkeypatch.setattr(slabs.Slabs, "__getitem__", wrong)
    with pytest.raises(TaskError, match="slab-0: targets must be 0 or 1"):
        slabs.run(tmp_path, small_encoder(), max_steps=1)
