"""The tables of each label by itself, against scikit-learn; labels that are missing, and those with few positives."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tapct.leaderboard.assembly import alone
from tapct.leaderboard.page.sections import Picture, Shown, Table, pictures
from tapct.metrics.classification import average_precision_skill
from tapct.records import Record
from tests.leaderboard import results

PATIENTS, SEEDS = 60, 2


@pytest.fixture(scope="module")
def record():
    """A record in which a third of the cases do not state the third label."""
    content = results.record("curia", "rsna2023", patients=PATIENTS, seeds=SEEDS, ability=1.0).content()
    for run in content["runs"]:
        for place, case in enumerate(run["cases"]["test"]):
            if place % 3 == 0:
                case["target"]["spleen"] = None
    return Record(**content)


@pytest.fixture(scope="module")
def tables(record):
    task, model = alone(record, 100)
    made = pictures(Shown(of=task, drawn=[model]))
    assert isinstance(made[0], Picture)
    return {table.title: table for table in made[1:]}


def stated(record, label: str):
    """(seeds, N) logits and (N,) targets of the cases that state a label."""
    cases = [run.cases["test"] for run in record.runs]
    known = [i for i, case in enumerate(cases[0]) if case.target[label] is not None]
    logits = np.array([[of_run[i].logits[label] for i in known] for of_run in cases])
    return logits, np.array([cases[0][i].target[label] for i in known])


@pytest.mark.parametrize(("title", "metric"), [("AUROC", roc_auc_score), ("AP", average_precision_score)])
def test_the_numbers_of_each_label_are_those_of_scikit_learn(record, tables, title, metric):
    table = tables[f"{title} of each label"]
    (row,) = table.rows
    found = dict(zip(table.heads, row[1:], strict=True))
    means = {}
    for label in record.task.classes:
        logits, targets = stated(record, label)
        value = np.mean([metric(targets, of_run) for of_run in logits])
        assert found[f"{label}, {targets.sum()} of {len(targets)}"] == f"{value:.3f}"
        means[label] = (value, targets.sum())
    assert [len(stated(record, label)[1]) for label in record.task.classes] == [PATIENTS, PATIENTS, PATIENTS * 2 // 3]
    for words, of in (("20 positives or more", lambda n: n >= 20), ("fewer", lambda n: n < 20)):
        values = [value for value, positives in means.values() if of(positives)]
        if values:
            assert found[f"mean of {len(values)} with {words}"] == f"{np.mean(values):.3f}"


def test_the_skill_is_0_at_chance_and_1_where_the_order_is_perfect():
    targets = np.array([1, 0, 0, 0, 1, 0, 0, 0])
    assert average_precision_skill(targets, targets) == 1
    assert average_precision_skill(np.zeros(8), targets) == 0
    assert average_precision_skill(np.arange(8), targets) == pytest.approx((((1 / 4) + (2 / 8)) / 2 - 1 / 4) / (3 / 4))
    assert np.isnan(average_precision_skill(np.arange(3), np.zeros(3)))


def test_a_number_without_a_head_of_its_own_is_refused():
    with pytest.raises(ValueError, match="AUROC: curia has 1 texts under 2 heads"):
        Table(title="AUROC", heads=["model", "liver"], rows=[["curia", "0.9"]])


def test_every_table_says_how_it_is_read(tables):
    assert list(tables) == [f"{title} of each label" for title in ("AUROC", "AP", "AP skill", "calibration error")]
    assert "0 is chance and 1 perfect" in tables["AP skill of each label"].note
    assert all("positives, of the cases that state it" in table.note for table in tables.values())
