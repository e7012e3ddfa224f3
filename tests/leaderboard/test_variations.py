"""The tables of what a sweep varied: shares of the training patients, perturbed scans."""

import csv

import numpy as np
import pytest

from tapct.leaderboard.variations import LABEL_EFFICIENCY_FILE, ROBUSTNESS_FILE, tables
from tapct.numeric import rounded
from tapct.statistics import label_efficiency, robustness
from tests.leaderboard.experiments import experiment

NOISE = {"perturbation": "noise-30hu", "perturbation_parameters": {"kind": "noise", "std_hu": 30.0}}


def scores(mean, seed=0):
    return mean + np.random.default_rng(seed).normal(size=(2, 60)) / 10


@pytest.fixture
def records():
    plain = [experiment("a", scores(0.8)), experiment("b", scores(0.6))]
    few = [experiment("a", scores(0.5 + d / 10), train_fraction=0.1, train_draw=d) for d in (0, 1)]
    return [*plain, *few, experiment("a", scores(0.7, seed=1), **NOISE)]


def rows(text):
    return list(csv.DictReader(text.splitlines()))


def test_every_varied_record_is_in_its_table_with_the_numbers_of_the_statistics(records):
    found, left_out, _ = tables(records)
    assert left_out == []
    labels, drops = rows(found[LABEL_EFFICIENCY_FILE]), rows(found[ROBUSTNESS_FILE])
    assert [(r["model"], r["fraction"]) for r in labels] == [(m, f) for m in "ab" for f in ("0.1", "1.0")]
    point = label_efficiency(records[:4], "dice_native").curves["a"][0]
    assert float(labels[0]["value"]) == rounded(point.estimate.value)
    assert float(labels[0]["draw_spread"]) == rounded(point.subset_spread)
    assert (labels[2]["value"], labels[2]["reason"]) == ("", "not run")
    (expected, missing) = robustness([records[0], records[1], records[4]], "dice_native").drops
    assert float(drops[0]["drop"]) == rounded(expected.drop.value) == pytest.approx(0.1, abs=0.05)
    assert float(drops[0]["drop_low"]) == rounded(expected.drop.low)
    assert (drops[1]["model"], drops[1]["drop"], drops[1]["reason"]) == ("b", "", missing.drop.reason)


def test_where_nothing_was_varied_there_is_no_table(records):
    assert tables(records[:2]) == ({}, [], [])


def test_what_does_not_compare_is_said_and_stops_nothing_else(records):
    assert tables([*records, records[-1]]).files == tables(records).files  # a copy counts once
    runs = [run.model_copy(update={"probe_sha256": "9" * 64}) for run in records[-1].runs]
    found, left_out, _ = tables([*records, records[-1].model_copy(update={"runs": runs})])
    assert LABEL_EFFICIENCY_FILE in found
    assert ROBUSTNESS_FILE not in found
    assert "two records are of a under noise-30hu" in left_out[0]
