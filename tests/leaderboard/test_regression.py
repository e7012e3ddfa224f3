"""A board of predicted numbers from simulated records: ranks, units, intervals, and the section of the page."""

import csv

import numpy as np
import pytest

from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.records import CaseResult, Record, read_records, write_record
from tests.leaderboard.test_inputs import record
from tests.leaderboard.test_mistakes import mistaken

SPREAD = {"age": 15.0, "liver (ml)": 400.0, "spleen (ml)": 90.0}
MEAN = {"age": 60.0, "liver (ml)": 1500.0, "spleen (ml)": 220.0}
CASES = 60


def task(*classes: str) -> dict:
    several = len(classes) > 1
    return {
        "name": "volumes" if several else "ages",
        "version": 1,
        "kind": "regression",
        "metric": "MAE",
        "classes": list(classes),
        "unit": "SD" if several else "years",
        "options": {},
        "split_sha256": "0" * 64,
    }


def case(number: int, ability: float, classes: tuple[str, ...]) -> CaseResult:
    """A case whose numbers are always the same, and what a model of some ability (0 to 1) makes of them."""
    truth, own = np.random.default_rng(number), np.random.default_rng([number, int(1000 * ability)])
    rows: dict[str, dict] = {name: {} for name in ("predicted", "observed", "baseline", "scale")}
    for name in classes:
        observed = MEAN[name] + SPREAD[name] * truth.normal()
        guess = MEAN[name] + ability * (observed - MEAN[name]) + SPREAD[name] * (1 - ability) * ability * own.normal()
        missing = name.startswith("spleen") and number % 5 == 0
        rows["predicted"][name] = float(guess)
        rows["observed"][name] = None if missing else float(observed)
        rows["baseline"][name] = MEAN[name]
        rows["scale"][name] = SPREAD[name] if len(classes) > 1 else 1.0
    return CaseResult(case=str(number), patient=str(number), loss=0.5, padding_voxels=(0, 0, 0), outcome=rows)


def model(name: str, ability: float, *classes: str) -> Record:
    runs = [[case(number, ability, classes) for number in range(CASES)]] * 2
    return record(name, *runs, task=task(*classes), probe={})


ABILITIES = {"good": 0.9, "fair": 0.5, "mean": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name, ability in ABILITIES.items():
        write_record(model(name, ability, "age"), root / "ages" / name)
        write_record(model(name, ability, "liver (ml)", "spleen (ml)"), root / "volumes" / name)
    return root


@pytest.fixture(scope="module")
def board(folder):
    """By task, its board: these records are of splits of their own."""
    own = assemble({folder: read_records(folder)}, resamples=200).own
    return {task.name: (one.board, task) for one in own for task in one.board.tasks}


def test_models_are_ranked_by_their_error_in_years_the_least_first(board):
    models, ages = board["ages"]
    found = {one.name: ages.summary(one.name, "native").estimate for one in models.models}
    for name, ability in ABILITIES.items():
        cases = [case(number, ability, ("age",)).outcome for number in range(CASES)]
        errors = [abs(one["predicted"]["age"] - one["observed"]["age"]) for one in cases]
        estimate = found[name.capitalize()]
        assert estimate.value == pytest.approx(np.mean(errors))
        assert estimate.low < estimate.value < estimate.high
    assert found["Good"].high < found["Fair"].low < found["Mean"].low


def test_volumes_are_compared_in_deviations_over_the_targets_that_a_case_has(board):
    _, volumes = board["volumes"]
    classes = ("liver (ml)", "spleen (ml)")
    errors = []
    for number in range(CASES):
        rows = case(number, 0.9, classes).outcome
        own = [
            abs(rows["predicted"][name] - rows["observed"][name]) / SPREAD[name]
            for name in classes
            if rows["observed"][name] is not None
        ]
        errors.append(np.mean(own))
    assert volumes.summary("Good", "native").estimate.value == pytest.approx(np.mean(errors))


def test_the_page_shows_predicted_against_true_and_the_errors_in_the_unit(folder, tmp_path):
    assert site.build([folder], tmp_path, resamples=200) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in (
        "age, years: predicted against true",
        "age, years: errors",
        "liver (ml): predicted against true",
        "spleen (ml): errors",
        "MAE of each target, in its unit",
        "spleen (ml), 48 cases",
        "the training mean",
        "MAE, years",
        "MAE, SD",
        "<strong>Spleen (ml): errors.</strong>",
        "<strong>Age, years: predicted against true.</strong>",
    ):
        assert text in page, text
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    units = {(row["task"], row["metric"], row["unit"], row["lower_is_better"]) for row in rows}
    assert {("ages", "MAE", "years", "True"), ("volumes", "MAE", "SD", "True")} <= units
    ranks = {row["model"]: row["rank_low"] for row in rows if (row["task"], row["metric"]) == ("ages", "MAE")}
    assert ranks == {"Good": "1", "Fair": "2", "Mean": "3"}


@pytest.mark.parametrize(("scale", "words"), [(0.0, "scale of age is 0"), (15.0, "single target is 15, and must be 1")])
def test_a_record_with_an_impossible_scale_is_none(scale, words):
    rows = case(1, 0.5, ("age",)).outcome
    bad = case(1, 0.5, ("age",)).model_copy(update={"outcome": {**rows, "scale": {"age": scale}}})
    with pytest.raises(ValueError, match=words):
        record("bad", [bad], task=task("age"), probe={})


def varied(name: str, ability: float, **changes) -> Record:
    one = model(name, ability, "age")
    return one.model_copy(update={"task": one.task.model_copy(update=changes)})


def test_the_unit_stands_beside_whatever_is_made_of_a_number(tmp_path):
    results = tmp_path / "results"
    for name, ability in ABILITIES.items():
        for adaptor in ("ridge", "attention"):
            one = model(name, ability, "age")
            changed = one.model_copy(update={"probe": one.probe.model_copy(update={"adaptor": adaptor})})
            write_record(changed, results / "ages" / f"{name}+adaptor={adaptor}")
    write_record(mistaken(model("good", 0.5, "age")), results / "ages" / "good+mistake=mirrored")
    write_record(model("good", 0.9, "age"), results / "ages" / "good")
    write_record(varied("good", 0.5, train_fraction=0.1), results / "ages" / "good+fraction=0.1")
    noise = {"perturbation": "noise-30hu", "perturbation_parameters": {"kind": "noise", "std_hu": 30.0}}
    write_record(varied("good", 0.5, **noise), results / "ages" / "good+perturbation=noise-30hu")
    assert site.build([results], tmp_path / "site", resamples=200) == 0
    for name in ("adaptors.csv", "mistakes.csv", "label_efficiency.csv", "robustness.csv"):
        with (tmp_path / "site" / name).open(encoding="utf-8", newline="") as file:
            assert {(row["metric"], row["unit"]) for row in csv.DictReader(file)} == {("MAE", "years")}, name
            if name == "robustness.csv":
                file.seek(0)
                (drop,) = (float(row["drop"]) for row in csv.DictReader(file))
                assert drop > 0, "more years of error are a loss"
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count('<th scope="row">ages<small>MAE, years</small></th>') >= len(ABILITIES), "in each model's section"
    assert '<span class="small">MAE, years, 60 patients</span>' in page[page.index('id="mistakes"') :]
