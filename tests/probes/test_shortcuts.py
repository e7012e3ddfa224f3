"""The shortcut audit: planted shortcuts are found by neighbours and by the probe, and without any all is at chance."""

import itertools
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tapct.probes import reading
from tapct.probes.audited import Audited
from tapct.probes.shortcuts import audit
from tapct.probes.solved import PooledCases

MAKERS = np.array(["ge", "siemens", "philips"])


def planted(
    seed: int,
    *,
    scanner: float = 0.0,
    disease: float = 0.0,
    patients=(40, 40),
    how: str = "train",
    makers=MAKERS,
    unknown: float = 0.0,
    labels=("tumor", "trauma"),
) -> Audited:
    """Two scans a patient, whose features know the scanner, the disease, both or nothing; neither tells the other."""
    random, number = np.random.default_rng(seed), 2 * sum(patients)
    of_patient = np.repeat(np.arange(sum(patients)), 2)
    maker = random.integers(0, len(makers), sum(patients))[of_patient]
    targets = (random.random((number, len(labels))) < 0.4).astype(float)
    features = random.normal(size=(number, 12))
    features[:, :3] += scanner * np.eye(3)[maker]
    features[:, 3 : 3 + len(labels)] += disease * targets
    features += 1.0
    names = [f"case {place}" for place in range(number)]
    said = [None if random.random() < unknown else str(makers[one]) for one in maker]
    cases = PooledCases(names, [f"patient {place}" for place in of_patient], features, targets)
    trained = np.arange(number) < 2 * patients[0]
    folds = {f"patient {place}": place % 4 for place in range(sum(patients))} if how == "folds" else None
    return Audited(
        reported=cases.some(np.flatnonzero(~trained)) if how == "train" else cases,
        train=cases.some(np.flatnonzero(trained)) if how == "train" else None,
        selection=None,
        folds=folds,
        labels=labels,
        titles={"manufacturer": "manufacturer"},
        levels={name: {"manufacturer": level} for name, level in zip(names, said, strict=True)},
        scale=True,
        key="planted:1",
    )


@pytest.mark.parametrize("how", ["train", "folds", "reported"])
def test_a_planted_scanner_is_found_by_neighbours_and_by_the_probe(how):
    of = audit(planted(0, scanner=3, how=how, patients=(30, 30)), "mean", {})
    maker, label = of.columns["manufacturer"], of.label
    assert maker.shared.nearest.low > 0.75 > 0.5 > maker.shared.chance
    assert maker.read.auroc.low > 0.9
    assert set(maker.read.levels) == set(MAKERS)
    assert label.shared.nearest.value - label.shared.chance < 0.2 < maker.shared.nearest.low - maker.shared.chance
    assert label.read.auroc.low < 0.5 < label.read.auroc.high
    assert maker.shared.by_label == pytest.approx(maker.shared.chance, abs=0.05)


def test_a_model_that_knows_the_disease_alone_reads_no_scanner():
    of = audit(planted(1, disease=4), "mean", {})
    maker, label = of.columns["manufacturer"], of.label
    assert label.shared.nearest.low > label.shared.chance + 0.2
    assert label.read.auroc.low > 0.85
    assert maker.shared.nearest.value - maker.shared.chance < 0.1
    assert maker.read.auroc.value < 0.6


@pytest.mark.parametrize("how", ["train", "reported"])
def test_where_nothing_is_planted_all_is_at_chance(how):
    gaps = []
    for seed in range(6):
        of = audit(planted(seed, how=how, patients=(20, 20), labels=("tumor",), makers=MAKERS[:2]), "mean", {})
        maker, label = of.columns["manufacturer"], of.label
        shares = [one.shared.nearest.value - one.shared.chance for one in (maker, label)]
        gaps.append([*shares, *(one.read.auroc.value - 0.5 for one in (maker, label))])
    means, errors = np.mean(gaps, axis=0), np.std(gaps, axis=0, ddof=1) / math.sqrt(len(gaps))
    assert (np.abs(means) < 3 * errors).all()
    assert (errors < 0.1).all()


def test_the_scanner_that_goes_with_the_label_is_shared_by_label():
    of = planted(2)
    together = {
        name: {"manufacturer": "ge" if target[0] else "siemens"}
        for cases in (of.reported, of.train)
        for name, target in zip(cases.names, cases.targets, strict=True)
    }
    found = audit(Audited(**{**vars_of(of), "levels": together, "labels": ("tumor",), **one_label(of)}), "mean", {})
    assert found.columns["manufacturer"].shared.by_label == 1
    assert found.columns["manufacturer"].shared.chance < 0.6


def vars_of(of: Audited) -> dict:
    fields = ("reported", "train", "selection", "folds", "labels", "titles", "levels", "scale", "key")
    return {field: getattr(of, field) for field in fields}


def one_label(of: Audited) -> dict:
    return {"reported": of.reported.of_targets([0]), "train": of.train.of_targets([0])}


def test_the_probe_is_that_of_scikit_learn_and_its_numbers_are_those_of_the_reported_scans():
    of = planted(3, scanner=1.0)
    found = audit(of, "mean", {}).columns["manufacturer"].read
    deviation = of.train.features.std(axis=0)
    for maker in MAKERS:
        train, reported = (
            np.array([level == maker for level in of.said("manufacturer", cases)]) for cases in (of.train, of.reported)
        )
        values = []
        for strength in reading.STRENGTHS:
            head = LogisticRegression(C=1 / (strength * len(train)), tol=1e-10, max_iter=10_000)
            head.fit(of.train.features / deviation, train)
            values.append(roc_auc_score(reported, head.decision_function(of.reported.features / deviation)))
        assert min(abs(found.levels[maker].auroc.value - value) for value in values) < 1e-9
    assert found.auroc.value == pytest.approx(np.mean([level.auroc.value for level in found.levels.values()]))


def test_rare_levels_are_left_out_with_the_reason_and_new_ones_are_told(monkeypatch):
    of = planted(4)
    levels = {name: dict(said) for name, said in of.levels.items()}
    train, reported = (list(dict.fromkeys(cases.patients)) for cases in (of.train, of.reported))
    by_patient = {
        who: name for side in (of.train, of.reported) for who, name in zip(side.patients, side.names, strict=True)
    }
    for patient in reported[:3]:
        levels[by_patient[patient]]["manufacturer"] = "canon"
    for patient in (*train[:2], *reported[3:10]):
        levels[by_patient[patient]]["manufacturer"] = "toshiba"
    for patient in (*train[2:12], *reported[10:12]):
        levels[by_patient[patient]]["manufacturer"] = "neusoft"
    found = audit(Audited(**{**vars_of(of), "levels": levels}), "mean", {}).columns["manufacturer"]
    assert found.unseen == {"canon": 3}
    assert found.left_out == {
        "toshiba": "2 training patients have it; 5 are needed",
        "neusoft": "2 reported patients have it; 5 are needed",
    }
    assert set(found.read.levels) == set(MAKERS)
    assert sum(found.levels.values()) >= 40
    monkeypatch.setattr("tapct.probes.shortcuts.MOST_LEVELS", 2)
    found = audit(Audited(**{**vars_of(of), "levels": levels}), "mean", {}).columns["manufacturer"]
    assert sorted(found.left_out.values())[0] == "it is not among the 2 most common ones"


def test_what_is_not_known_counts_nowhere():
    of = planted(5, scanner=6, unknown=0.3)
    found = audit(of, "mean", {}).columns["manufacturer"]
    known = sum(level is not None for level in of.said("manufacturer", of.reported))
    assert found.known == found.shared.scans == known < 80
    assert found.shared.nearest.value > 0.9


def test_columns_of_one_level_and_of_none_are_left_out():
    of = planted(6)
    levels = {name: {"kvp": "120", "sex": None} for name in of.levels}
    titles = {"kvp": "tube voltage", "sex": "recorded sex"}
    found = audit(
        Audited(**{**vars_of(of), "levels": levels, "titles": titles}), "mean", {"age": "meta.csv is not there"}
    )
    assert found.columns == {}
    assert found.left_out == {
        "age": "meta.csv is not there",
        "kvp": "of the reported scans all are '120'",
        "sex": "of the reported scans nothing is known",
    }


def test_few_patients_share_and_are_not_read():
    found = audit(planted(7, scanner=6, patients=(3, 4)), "mean", {})
    maker = found.columns["manufacturer"]
    assert maker.shared.nearest.value > maker.shared.chance
    assert maker.read is None
    assert maker.not_read == "no level is of enough patients"
    assert all("are needed" in why for why in found.label.left_out.values())


def test_labels_that_are_numbers_are_none():
    of = Audited(**{**vars_of(planted(8)), "labels": ()})
    found = audit(of, "mean", {})
    assert found.label is None
    assert found.columns["manufacturer"].shared.by_label is None


def test_an_audit_hangs_on_all_that_it_is_made_of():
    ones = [planted(9), planted(10), planted(9, unknown=0.1), planted(9, how="folds"), planted(9, scanner=1)]
    ones.append(Audited(**{**vars_of(ones[0]), "scale": False}))
    assert len({one.sha256 for one in ones}) == len(ones)
    assert planted(9).sha256 == ones[0].sha256


def test_intervals_are_over_patients_whose_scans_are_alike():
    """Four copies of each scan are no more evidence: intervals do not shrink."""
    of = planted(11, scanner=1.0, patients=(30, 30))
    rows = np.repeat(np.arange(60), 4)
    copied = {
        side: PooledCases(
            [f"{cases.names[row]} {copy}" for row, copy in zip(rows, itertools.cycle(range(4)), strict=False)],
            [cases.patients[row] for row in rows],
            cases.features[rows],
            cases.targets[rows],
        )
        for side, cases in (("reported", of.reported), ("train", of.train))
    }
    levels = {f"{name} {copy}": said for name, said in of.levels.items() for copy in range(4)}
    before = audit(of, "mean", {}).columns["manufacturer"]
    after = audit(Audited(**{**vars_of(of), **copied, "levels": levels}), "mean", {}).columns["manufacturer"]
    for one, other in ((before.read.auroc, after.read.auroc), (before.shared.nearest, after.shared.nearest)):
        assert other.high - other.low > 0.8 * (one.high - one.low)
