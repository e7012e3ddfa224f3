"""The tables of each label by itself, against scikit-learn; labels that are missing, and those with few positives."""

import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tapct.leaderboard.assembly import alone
from tapct.leaderboard.compared import ListedRecord
from tapct.leaderboard.page.kinds.classification import RESAMPLES
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable, pictures
from tapct.leaderboard.page.views import run_metric
from tapct.metrics.ranks import average_precision_skill
from tapct.records import Record
from tapct.statistics import from_records, summarise_task
from tapct.statistics.resampling import draw_patients
from tests.leaderboard import results

PATIENTS, SEEDS = 80, 2


@pytest.fixture(scope="module")
def record():
    """A record in which half of the cases do not state the third label, so that few positives of it are left."""
    more = {"metric": "MacroAUROC"}
    base = results.record("curia", "rsna2023", patients=PATIENTS, seeds=SEEDS, ability=1.0, more_task=more)
    content = base.content()
    for run in content["runs"]:
        for place, case in enumerate(run["cases"]["test"]):
            if place % 2 == 0:
                case["target"]["spleen"] = None
    return Record(**content)


@pytest.fixture(scope="module")
def tables(record):
    task, model = alone(record, 100)
    made = pictures(DrawnTask(of=task, drawn=[model]))
    assert isinstance(made[0], Figure)
    return {table.title: table for table in made[1:]}


def stated(record, label: str):
    """(seeds, N) logits and (N,) targets of the cases that state a label."""
    cases = [run.cases["test"] for run in record.runs]
    known = [i for i, case in enumerate(cases[0]) if case.target[label] is not None]
    logits = np.array([[of_run[i].logits[label] for i in known] for of_run in cases])
    return logits, np.array([cases[0][i].target[label] for i in known])


@pytest.mark.parametrize(("title", "metric"), [("AUROC", roc_auc_score), ("AP", average_precision_score)])
def test_the_numbers_of_each_label_are_those_of_scikit_learn(record, tables, title, metric):
    rows = {name: (positives, *numbers) for name, positives, *numbers in tables[f"{title} of each label"].rows}
    values = {}
    for label in record.task.classes:
        logits, targets = stated(record, label)
        values[label] = np.mean([metric(targets, of_run) for of_run in logits])
        positives, found = rows[label]
        assert positives == f"{targets.sum()} of {len(targets)}"
        assert found.startswith(f"{values[label]:.3f}")
    assert [len(stated(record, label)[1]) for label in record.task.classes] == [PATIENTS, PATIENTS, PATIENTS // 2]
    rare = [label for label in values if stated(record, label)[1].sum() < 20]
    assert rare == ["spleen"]
    common = np.mean([values[label] for label in values if label not in rare])
    assert rows["mean of 2 with 20 or more of both"][1].startswith(f"{common:.3f}")
    assert rows["mean of 1 with fewer positives or negatives"][1] == rows["spleen"][1]


def test_the_mean_is_the_ranked_number(record, tables):
    task, _ = alone(record, 1000)
    (ours,) = task.summaries["native"].models
    (shown,) = (row[2] for row in tables["AUROC of each label"].rows if row[0].endswith("of both"))
    assert shown.startswith(f"{ours.estimate.value:.3f}")
    ends = [float(end) for end in re.findall(r"\((.*) to (.*)\)", shown)[0]]
    assert ends == pytest.approx([ours.estimate.low, ours.estimate.high], abs=0.02)  # of fewer resamples


def weighted_auroc(targets, scores, counts):
    """Of each column of counts, the share of pairs in which the positive has the higher score."""
    ahead = np.sign(scores[targets == 1][:, None] - scores[targets == 0]) / 2 + 0.5
    positives, negatives = counts[targets == 1], counts[targets == 0]
    return np.einsum("pr,pn,nr->r", positives, ahead, negatives, optimize=True) / (positives.sum(0) * negatives.sum(0))


def test_intervals_of_a_label_are_of_its_patients(record, tables):
    logits, targets = stated(record, "liver")
    drawn = draw_patients(PATIENTS, RESAMPLES, "rsna2023 by label").astype(int)
    names = [case.patient for case in record.runs[0].cases["test"]]
    place = np.argsort(np.argsort(names))
    counts = drawn[place].astype(float)
    bootstrap = np.mean([weighted_auroc(targets, of_run, counts) for of_run in logits], axis=0)
    for number in (0, 1, 2):
        expected = [roc_auc_score(targets, of_run, sample_weight=counts[:, number]) for of_run in logits]
        assert bootstrap[number] == pytest.approx(np.mean(expected))
    (row,) = (row for row in tables["AUROC of each label"].rows if row[0] == "liver")
    ends = [float(end) for end in re.findall(r"\((.*) to (.*)\)", row[2])[0]]
    assert ends == pytest.approx(np.quantile(bootstrap, [0.025, 0.975]), abs=0.03)


def test_the_skill_is_0_at_chance_and_1_where_the_order_is_perfect():
    targets = np.array([1, 0, 0, 0, 1, 0, 0, 0])
    assert average_precision_skill(targets, targets) == 1
    assert average_precision_skill(np.zeros(8), targets) == 0
    assert average_precision_skill(np.arange(8), targets) == pytest.approx((((1 / 4) + (2 / 8)) / 2 - 1 / 4) / (3 / 4))
    assert np.isnan(average_precision_skill(np.arange(3), np.zeros(3)))


def test_a_number_without_a_head_of_its_own_is_refused():
    with pytest.raises(ValueError, match="AUROC: curia has 1 texts under 2 heads"):
        PageTable(title="AUROC", heads=["model", "liver"], rows=[["curia", "0.9"]])


def test_every_table_says_how_it_is_read(tables):
    assert list(tables) == [f"{title} of each label" for title in ("AUROC", "AP", "AP skill", "calibration error")]
    assert "0 is chance and 1 perfect" in tables["AP skill of each label"].note
    assert all("of the cases that state the label" in table.note for table in tables.values())


def test_numbers_of_a_record_from_before_rare_labels_were_counted_are_made_of_its_cases(record):
    content = record.content()
    content["task"]["metric"] = "MicroAUROC"
    told = {"MicroAUROC": 0.7, "MacroAUROC": 0.123, "UndefinedLabels": 0.0}
    for run in content["runs"]:
        run["metrics"]["test"] = dict(told)
    before = run_metric(ListedRecord("before", Record(**content)), "MacroAUROC")
    (now,) = summarise_task(from_records([record], "MacroAUROC"), 2).models
    assert before == pytest.approx(now.estimate.value, rel=1e-12)
    for run in content["runs"]:
        run["metrics"]["test"]["RareLabels"] = 1.0
    assert run_metric(ListedRecord("today", Record(**content)), "MacroAUROC") == 0.123
