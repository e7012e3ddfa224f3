"""Survival on the board: what encoders add to tables, Kaplan-Meier curves, ranks by Uno's C."""

import re

import numpy as np
import pytest
from sksurv.metrics import concordance_index_ipcw
from sksurv.util import Surv

from tapct.leaderboard import site
from tapct.leaderboard.gains import gains
from tapct.leaderboard.page.kinds import survival as section
from tapct.metrics.survival import Outcomes, at_risk_of
from tapct.names import adaptor_parts
from tests.leaderboard import survival_results
from tests.leaderboard.survival_results import EXPERIMENTS, PATIENTS, patients, record


@pytest.fixture(scope="module")
def records():
    return {key: record(*key, weights) for key, weights in EXPERIMENTS.items()}


def test_the_gain_is_that_of_the_same_patients_with_its_interval(records):
    found = {one.model: one for one in gains(records, "UnoC")}
    assert found.keys() == {"curia", "merlin"}
    curia, merlin = found["curia"], found["merlin"]
    assert (curia.table, curia.adaptor) == ("age", "cox:mean&table=age")
    true = patients()
    y = Surv.from_arrays(true["event"], true["days"])
    age, scan = curia.over_table, curia.over_encoder
    assert age.alone.value == pytest.approx(concordance_index_ipcw(y, y, 0.8 * true["age"], tau=1095.75)[0])
    assert scan.alone.value == pytest.approx(concordance_index_ipcw(y, y, 0.8 * true["scan"], tau=1095.75)[0])
    for part in (age, scan):
        assert part.gain.value == pytest.approx(curia.together.value - part.alone.value)
        assert part.gain.low > 0, "the scan tells something that the age does not, and the age what the scan does not"
    of_noise = merlin.over_table.gain
    assert of_noise.low <= 0 <= of_noise.high or of_noise.value == pytest.approx(0, abs=0.01)
    width = age.gain.high - age.gain.low
    assert width < 1.2 * (age.alone.high - age.alone.low), "paired: what is hard for both cancels"


def test_what_was_not_run_alone_has_no_gain(records):
    without = {key: of for key, of in records.items() if key[1] != "cox:table=age"}
    assert [one.over_table for one in gains(without, "UnoC")] == [None, None]
    assert all(one.over_encoder for one in gains(without, "UnoC"))
    both = {key: of for key, of in records.items() if "&" in key[1]}
    assert gains(both, "UnoC") == []


@pytest.mark.parametrize(
    ("adaptor", "parts"),
    [
        ("cox:mean&table=age+stage", ("cox", "mean", "age+stage")),
        ("cox:table=age", ("cox", "", "age")),
        ("cox:mean+max", ("cox", "mean+max", "")),
        ("linear", ("linear", "", "")),
    ],
)
def test_adaptors_are_taken_apart(adaptor, parts):
    assert adaptor_parts(adaptor) == parts


def test_thirds_hold_a_third_each_and_equal_risks_are_in_one():
    risk = np.random.default_rng(0).normal(size=90)
    assert np.bincount(section.thirds(risk)).tolist() == [30, 30, 30]
    assert np.array_equal(section.thirds(risk), section.thirds(np.exp(risk)))
    assert len(np.unique(section.thirds(np.zeros(90)))) == 1


def test_numbers_at_risk_are_those_still_under_observation():
    outcomes = Outcomes(np.array([100.0, 100.0, 400.0, 800.0]), np.array([True, False, True, True]))
    assert at_risk_of(outcomes, np.ones((4, 1)))[:, 0].tolist() == [4.0, 2.0, 1.0]


NUMBER = r"0\.\d{3} \[.*?\]\s+"


def test_the_board_ranks_draws_and_says_what_is_gained(tmp_path):
    survival_results.write(tmp_path / "results")
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=300) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "Kaplan-Meier" in page
    assert "What encoders add to tables" in page
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(rf"age\s+Curia, mean\s+{3 * NUMBER}\+{NUMBER}\+0\.\d{{3}}", text)
    assert str(PATIENTS) in text
