"""Robustness as ranked columns: what changed, compared between models, and the part of the page."""

import csv

import numpy as np
import pytest

from tapct import kinds
from tapct.kinds import Mean, Metric, Statistic
from tapct.leaderboard import site
from tapct.leaderboard.robust_columns import FILE, TITLE
from tapct.records import read_records, write_record
from tapct.statistics import from_records, robustness, summarise_task
from tapct.statistics.summary import summarise_change
from tests.kinds.test_kinds import task as inputs_of
from tests.leaderboard import results
from tests.leaderboard.experiments import experiment
from tests.leaderboard.test_reliability import model as repeated

RIDER = "rider_lung_retest"
LEVELS = ("slices-x2", "slices-x4")
LOST = {"curia": (0.1, 0.3), "vista3d": (1.4, 2.2), "tap-b-3d": (0.2, 0.4), "chance": (0.0, 0.0)}
"""By encoder, what it loses of its ability at the levels."""


def under(name: str) -> dict:
    return {"perturbation": name, "perturbation_parameters": {"kind": "slice_thickness", "factor": float(name[-1])}}


def change(before, after):
    return summarise_change(before, after, (summarise_task(before, 500), summarise_task(after, 500)), "changed")


# -- Changes, compared -----------------------------------------------------------------------------------


def numbers(patients):
    """(models, seeds, cases) before and after; the first two models lose as much, the third much more."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=len(patients))
    before = np.array([0.9, 0.6, 0.5])[:, None, None] + 0.3 * hard + 0.05 * rng.normal(size=(3, 2, len(patients)))
    lost = np.array([0.1, 0.1, 0.3])[:, None, None] + 0.02 * rng.normal(size=before.shape)
    return before, before - lost


def test_a_change_of_means_is_judged_as_the_mean_of_changes_is():
    before, after = numbers(np.arange(40))
    records = [[experiment(name, of) for name, of in zip("abc", each, strict=True)] for each in (before, after)]
    found = change(*(from_records(each, "dice_native") for each in records))
    differences = [experiment(name, of) for name, of in zip("abc", after - before, strict=True)]
    of_changes = summarise_task(from_records(differences, "dice_native"))
    assert found.value == pytest.approx(of_changes.value)
    for one, other in zip(found.comparison.differences, of_changes.comparison.differences, strict=True):
        assert one.estimate.value == pytest.approx(other.estimate.value)
        assert one.better == other.better
    assert found.comparison.rank_intervals == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert found.comparison.groups == (("a", "b"), ("c",))


def test_a_change_of_a_statistic_is_judged_by_what_patients_add_now_less_what_they_added_before(monkeypatch):
    patients = np.repeat(np.arange(30), 2)
    before, after = numbers(patients)

    def mean(cases, counts):
        return (cases["x"][:, 0] @ counts) / counts.sum(axis=0)

    forms = {
        "as-mean": Metric(name="as-mean", title="m", of=Mean(lambda cases: cases["x"][:, 0])),
        "as-statistic": Metric(name="as-statistic", title="m", of=Statistic(mean)),
    }
    monkeypatch.setattr(kinds, "metric", forms.__getitem__)
    one, other = (
        change(*(inputs_of(name, of, patients, as_statistic=name == "as-statistic") for of in (before, after)))
        for name in forms
    )
    for a, b in zip(one.comparison.differences, other.comparison.differences, strict=True):
        assert b.estimate.value == pytest.approx(a.estimate.value, abs=1e-12)
        assert b.better == a.better
    assert [model.estimate.low for model in other.models] == pytest.approx([m.estimate.low for m in one.models])


def test_the_error_of_a_change_of_auroc_is_that_of_its_resamples():
    records = [
        [results.record(name, "luna16", ability=ability, patients=80) for name, ability in of.items()]
        for of in ({"curia": 2.0, "vista3d": 1.8}, {"curia": 1.6, "vista3d": 0.9})
    ]
    before, after = (from_records(of, "MicroAUROC", names=["curia", "vista3d"]) for of in records)
    found = change(before, after)
    (pair,) = found.comparison.differences
    spread = float(np.std(found.bootstrap[0] - found.bootstrap[1], ddof=1))
    half = (pair.estimate.high - pair.estimate.low) / 2
    assert pair.estimate.value == pytest.approx(found.value[0] - found.value[1])
    assert half / 1.96 == pytest.approx(spread, rel=0.3)


def test_changes_are_of_the_same_models_and_cases():
    before, after = numbers(np.arange(20))
    one = from_records([experiment(n, o) for n, o in zip("abc", before, strict=True)], "dice_native")
    other = from_records([experiment(n, o) for n, o in zip("abd", after, strict=True)], "dice_native")
    with pytest.raises(ValueError, match="the same models and cases"):
        change(one, other)


# -- The page --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name, (half, quarter) in LOST.items():
        for task in ("luna16", "fdg_pet_ct"):
            ability = 0.0 if name == "chance" else 2.5
            made = {"": results.record(name, task, ability=ability, patients=100)}
            for level, lost in zip(LEVELS, (half, quarter), strict=True):
                made[f"+{level}"] = results.record(
                    name, task, ability=ability - lost, patients=100, more_task=under(level)
                )
            for label, one in made.items():
                write_record(one, root / task / f"{name}{label}")
    return root


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("site")
    assert site.build([folder], where, resamples=400) == 0
    rows = list(csv.DictReader((where / FILE).read_text(encoding="utf-8").splitlines()))
    return {row["model"]: row for row in rows}, (where / "index.html").read_text(encoding="utf-8"), rows


def test_thicker_slices_are_one_ranked_column_over_tasks_and_levels(built):
    by_model, _, rows = built
    assert {row["column"] for row in rows} == {"Spacing"}
    assert float(by_model["VISTA3D"]["rank"]) == float(by_model["VISTA3D"]["rank_high"]) == 3
    assert float(by_model["VISTA3D"]["rank_low"]) > 1
    assert {float(by_model[name]["rank"]) for name in ("Curia", "TAP-B-3D")} <= {1.0, 1.25, 1.5, 1.75, 2.0}
    for name in ("Curia", "TAP-B-3D"):
        assert float(by_model[name]["rank_high"]) < 3
    over = by_model["Curia"]["over"]
    assert over.count("slices-x2") == over.count("slices-x4") == 2


def test_what_was_lost_is_the_mean_over_tasks_and_levels(built, folder):
    by_model, _, _ = built
    records = list(read_records(folder).valid.values())
    found = []
    for task in ("luna16", "fdg_pet_ct"):
        of_task = [record for record in records if record.task.name == task]
        drops = robustness(of_task, "MicroAUROC", resamples=50).drops
        found += [drop.drop.value for drop in drops if drop.model == "vista3d"]
    assert len(found) == 4
    row = by_model["VISTA3D"]
    assert float(row["value"]) == pytest.approx(np.mean(found), abs=1e-9)
    assert float(row["value_low"]) < np.mean(found) < float(row["value_high"])
    assert float(row["value_low"]) > 0


def test_who_finds_nothing_has_nothing_to_lose_and_no_rank(built):
    by_model, page, _ = built
    row = by_model["Chance"]
    assert row["rank"] == ""
    assert "nothing to lose" in row["reason"]
    assert abs(float(row["value"])) < 0.1
    assert f">{TITLE}</h2>" in page
    assert "LUNA16, what is lost" in page


def test_a_pretrained_model_no_better_than_chance_has_no_rank(folder, tmp_path):
    for task in ("luna16", "fdg_pet_ct"):
        for label, more in {"": None, "+slices-x2": under("slices-x2"), "+slices-x4": under("slices-x4")}.items():
            for name in ("curia", "vista3d", "chance"):
                ability = 2.5 if name == "vista3d" else 0.0
                one = results.record(name, task, ability=ability, patients=60, more_task=more)
                write_record(one, tmp_path / "results" / task / f"{name}{label}")
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=400) == 0
    rows = csv.DictReader((tmp_path / "site" / FILE).read_text(encoding="utf-8").splitlines())
    assert "no better than chance, and has nothing to lose" in {row["model"]: row["reason"] for row in rows}["Curia"]


def test_repeated_scans_are_a_column_ranked_as_the_task_is(tmp_path):
    for name, error in {"curia": 0.2, "vista3d": 1.2}.items():
        said = {"task": results._task(RIDER, 31), "probe": results._probe(RIDER, "cosine")}
        own = results.record(name, "luna16", patients=20).encoder
        one = repeated(name, error, seed=len(name), encoder=own, **said)
        write_record(one, tmp_path / "results" / RIDER / name)
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=400) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "site" / FILE).read_text(encoding="utf-8").splitlines()))
    assert [(row["column"], row["model"], float(row["rank"])) for row in rows] == [
        ("RIDER Lung CT, test-retest", "Curia", 1),
        ("RIDER Lung CT, test-retest", "VISTA3D", 2),
    ]
    assert "ICC(2,1), median over features" in page


def test_where_nothing_is_of_robustness_there_is_no_part(tmp_path):
    write_record(results.record("curia", "luna16"), tmp_path / "results" / "luna16" / "curia")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / FILE).write_text("old")
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=100) == 0
    assert not (tmp_path / "site" / FILE).exists()
    assert f">{TITLE}</h2>" not in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
