"""A board of reliability from simulated records: ranks, intervals next to those of the F distribution, and the page."""

import numpy as np
import pytest
from scipy import stats

from tapct.flags.chance import against_chance
from tapct.kinds.reliability import case_loss, outcomes
from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.metrics.reliability import standardised
from tapct.records import CaseResult, Record, read_records, write_record
from tapct.statistics import from_records, summarise_task
from tests.leaderboard.test_inputs import record

PATIENTS = 31
TASK = {
    "name": "rider_lung_retest",
    "version": 1,
    "kind": "reliability",
    "metric": "MedianICC",
    "classes": ["scan"],
    "options": {},
    "split_sha256": "0" * 64,
}


def model(name: str, error: float, features: int = 12, seed: int = 1, truth: int = 0, **changes) -> Record:
    """A record of a model whose features have so much of the occasion for one of the patient."""
    person = np.random.default_rng(truth).normal(size=(PATIENTS, features))
    noise = np.random.default_rng(seed)
    every = np.concatenate([person + error * noise.normal(size=person.shape) for _ in range(2)])
    if features == 1 and not error:
        every[:] = 3.0
    centre, scale = standardised(every)
    vectors = np.where(scale > 0, (every - centre) / np.where(scale > 0, scale, 1), 0)
    patients, occasion = np.tile(np.arange(PATIENTS), 2), np.repeat([1.0, 2.0], PATIENTS)
    targets = np.stack([occasion, patients % 2, np.full(2 * PATIENTS, 1.25)], axis=1)
    cases = []
    for row, found in enumerate(outcomes(vectors, patients, targets, "scan")):
        who = f"P{patients[row]}"
        about = {"case": f"{who}_{occasion[row]:g}", "patient": who, "loss": case_loss(found)}
        cases.append(CaseResult(**about, padding_voxels=(0, 0, 0), outcome=found))
    return record(name, cases, **{"task": TASK, "probe": {"adaptor": "cosine"}} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    made = {"steady": model("steady", 0.2), "shaky": model("shaky", 1.2, seed=2), "blind": model("blind", 0.0, 1)}
    for name, one in made.items():
        write_record(one, root / "rider_lung_retest" / name)
    return root


def test_models_are_ranked_by_median_correlation_with_intervals_over_patients(folder):
    board = assemble({folder: read_records(folder)}, resamples=500)
    (task,) = [*board.family("all"), *(own.task for own in board.own)]
    of = {one.name.casefold(): one.estimate for one in task.summaries["native"].models}
    assert of["shaky"].high < of["steady"].low < of["steady"].value < of["steady"].high
    assert of["steady"].value == pytest.approx(1 / 1.04, abs=0.03)
    assert of["shaky"].value == pytest.approx(1 / 2.44, abs=0.15)
    assert of["blind"].value is None
    assert of["blind"].reason == "all features are the same for every scan"


@pytest.mark.parametrize(("tasks", "missing"), [(15, 4), pytest.param(60, 9, marks=pytest.mark.thorough)])
def test_the_interval_of_one_feature_holds_the_truth_as_often_as_it_says(tasks, missing):
    """Of one feature the median is its correlation, whose truth is known: of 60 tasks, 95 % intervals may miss it in
    nine (of a binomial, more often with a probability of 0.001), of 15 in four."""
    misses, widths, classical = 0, [], []
    for number in range(tasks):
        one = model("one", 0.5, 1, seed=1000 + number, truth=2000 + number)
        (found,) = summarise_task(from_records([one], "MedianICC"), 400).models
        misses += not found.estimate.low <= 1 / 1.25 <= found.estimate.high
        widths.append(found.estimate.high - found.estimate.low)
        # Shrout and Fleiss's interval of ICC(1,1), which ICC(2,1) is where occasions do not differ.
        ratio, degrees = (1 + found.estimate.value) / (1 - found.estimate.value), (PATIENTS - 1, PATIENTS)
        ends = [ratio / stats.f.ppf(q, *degrees) for q in (0.975, 0.025)]
        low, high = ((end - 1) / (end + 1) for end in ends)
        classical.append(high - low)
    assert misses <= missing
    assert np.mean(widths) == pytest.approx(np.mean(classical), rel=0.25)


def test_features_that_are_of_the_occasion_alone_are_flagged_and_others_are_not():
    flagged = [list(against_chance(model("one", error, seed=seed))) for seed, error in enumerate((100.0, 1.0, 0.2))]
    assert [name for name, _ in flagged[0]] == ["chance-level"]
    assert "MedianICC better than that of somebody who knows nothing" in flagged[0][0][1]
    assert flagged[1:] == [[], []]


def test_the_page_shows_the_spread_over_features_and_pairs_by_kernel(folder, tmp_path):
    assert site.build([folder], tmp_path, resamples=200) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in ("ICC(2,1) over features", "By what was set otherwise", "other kernel", "Chance identifies 3.2 % of"):
        assert text in page
