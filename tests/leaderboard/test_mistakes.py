"""What mistakes with the input cost: paired with the right input, shown by themselves, ranked nowhere."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tapct.encoders.mistake_names import NO_EFFECT
from tapct.leaderboard import site
from tapct.leaderboard.mistakes import FILE, tables
from tapct.records import Record
from tapct.statistics import TaskInputs, summarise_task
from tests.leaderboard import results
from tests.leaderboard.experiments import experiment
from tests.leaderboard.simulated import task


def scores(*means, cases=60, seed=0):
    rng = np.random.default_rng(seed)
    return np.array(means)[:, None, None] + rng.normal(size=cases) + 0.1 * rng.normal(size=(len(means), 2, cases))


def mistaken(record: Record, mistake: str = "mirrored", **options) -> Record:
    encoder = record.encoder.model_copy(update={"options": {"mistake": mistake, **options}})
    return record.model_copy(update={"encoder": encoder})


def with_notes(record: Record, *notes: str) -> Record:
    """The record with a note of each of its first cases."""
    runs = []
    for run in record.runs:
        first = [
            case.model_copy(update={"notes": (note,)}) for case, note in zip(run.cases["test"], notes, strict=False)
        ]
        runs.append(run.model_copy(update={"cases": {"test": [*first, *run.cases["test"][len(first) :]]}}))
    return record.model_copy(update={"runs": runs})


def costs(*records, **settings):
    (found,) = tables(records, {}, resamples=500, **settings)
    return found.costs


def test_what_is_lost_is_the_paired_difference_with_its_interval():
    right, wrong = scores(3, 2), scores(2.5, 1.9, seed=1)
    records = [experiment(name, of) for name, of in zip("ab", right, strict=True)]
    found = costs(*records, *(mistaken(experiment(name, of)) for name, of in zip("ab", wrong, strict=True)))
    assert [(cost.model, cost.mistake) for cost in found] == [("a", "mirrored"), ("b", "mirrored")]
    # A mean's paired difference is the mean of the differences: one "model" of them has the same interval.
    order = np.argsort([f"c{i}" for i in range(60)])
    inputs = task((right - wrong)[:, :, order], patients=order, name="made")
    names = tuple(f"p{i}" for i in order)
    inputs = TaskInputs(**{**vars(inputs), "version": f"1:{'0' * 64}:test", "patients": names})
    for index, (cost, expected) in enumerate(zip(found, summarise_task(inputs, 500).models, strict=True)):
        assert cost.right.value == pytest.approx(right[index].mean())
        assert cost.wrong.value == pytest.approx(wrong[index].mean())
        assert cost.lost.value == pytest.approx((right - wrong)[index].mean())
        ends = (expected.estimate.low, expected.estimate.high)
        assert (cost.lost.low, cost.lost.high) == pytest.approx(ends)


def test_of_pairs_it_is_the_mean_over_seeds_of_differences_of_auroc():
    right, wrong = results.record("curia", "luna16", ability=1.5), results.record("curia", "luna16", ability=0.2)
    found = costs(right, mistaken(wrong, "transposed"))[0]

    def auroc(run):
        cases = run.cases["test"]
        targets, logits = (
            np.array([list(of.values()) for of in rows])
            for rows in ([c.target for c in cases], [c.logits for c in cases])
        )
        return roc_auc_score(targets.ravel(), logits.ravel())

    expected = np.mean([auroc(one) - auroc(other) for one, other in zip(right.runs, wrong.runs, strict=True)])
    assert found.lost.value == pytest.approx(expected)
    assert found.lost.low < expected < found.lost.high
    assert expected > 0


def test_a_pair_is_of_one_model_task_adaptor_and_seeds():
    right, wrong = scores(3)[0], scores(2, seed=1)[0]
    one, other = experiment("a", right), mistaken(experiment("a", wrong))
    assert costs(one, other)[0].lost.value is not None
    reseeded = [run.model_copy(update={"seed": run.seed + 10}) for run in other.runs]
    for records, why in (
        ([other], "the right input was not run"),
        ([experiment("b", right), other], "the right input was not run"),
        ([one, mistaken(experiment("a", wrong), clip_below_air=True)], "the right input was not run"),
        ([one, other.model_copy(update={"runs": reseeded})], "with other seeds"),
        ([one, mistaken(experiment("a", wrong[:, :50]))], "do not compare"),
        ([one, other.model_copy(update={"runs_planned": 3})], "2 of 3 runs have ended"),
        ([one, other, mistaken(experiment("a", wrong, heads="1"))], "2 records are of it"),
    ):
        found = costs(*records)[-1]
        assert found.lost.value is None
        assert why in found.lost.reason


def test_a_perturbed_or_thinned_experiment_with_a_mistake_costs_nothing_here():
    noise = {"perturbation": "noise-30hu", "perturbation_parameters": {"kind": "noise", "std_hu": 30.0}}
    assert tables([mistaken(experiment("a", scores(3)[0], **noise))], {}) == ()


def test_scans_in_which_it_changes_nothing_are_counted():
    one, other = (experiment("a", scores(3, cases=6, seed=seed)[0]) for seed in (0, 1))
    noted = with_notes(mistaken(other), f"{NO_EFFECT}its spacing is 1 mm", "read as LPS", f"{NO_EFFECT}x")
    (found,) = costs(one, noted)
    assert (found.scans, found.unchanged, found.changed_in_words) == (6, 2, "4 of 6")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Results without mistakes, and the same with some: on the ranked adaptor, and on another."""
    plain, more = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("more")
    for folder in (plain, more):
        results.write_all(folder, ("curia", "suprem", "ct-fm"), ("lits17", "kits23", "luna16"))
        results.write(folder, "curia+adaptor=knn", results.record("curia", "luna16", adaptor="knn"))
        results.write(folder, "suprem+adaptor=knn", results.record("suprem", "luna16", adaptor="knn", ability=0.3))
    for name in ("mirrored", "hu-window"):
        of = {"ability": -2.0}
        results.write(more, f"curia+mistake={name}", mistaken(results.record("curia", "lits17", **of), name))
        results.write(more, f"curia+mistake={name}", mistaken(results.record("curia", "luna16", **of), name))
    knn = results.record("curia", "luna16", adaptor="knn", ability=-2.0)
    results.write(more, "curia+mistake=mirrored+adaptor=knn", mistaken(knn))
    return plain, more


@pytest.fixture(scope="module")
def built(folders, tmp_path_factory):
    sites = [tmp_path_factory.mktemp("site") for _ in folders]
    for folder, out in zip(folders, sites, strict=True):
        assert site.build([folder], out, resamples=300) == 0
    return sites


def test_models_with_a_mistake_change_no_rank_mean_rank_or_grid(built):
    without, beside = built
    for name in ("leaderboard.csv", "adaptors.csv"):
        assert (without / name).read_text(encoding="utf-8") == (beside / name).read_text(encoding="utf-8")
    assert not (without / FILE).exists()
    html = (beside / "index.html").read_text(encoding="utf-8")
    main = html[html.index('<table class="board">') : html.index("</table>")]
    assert "mirrored" not in main


def test_the_table_is_on_the_page_and_in_every_export(built, folders):
    _, beside = built
    rows = list(csv.DictReader((beside / FILE).open()))
    keys = [(row["task"], row["adaptor"], row["model"], row["mistake"]) for row in rows]
    both = ("mirrored", "hu-window")
    assert keys == [
        *(("lits17", "", "Curia", mistake) for mistake in both),
        ("luna16", "knn", "Curia", "mirrored"),
        *(("luna16", "linear", "Curia", mistake) for mistake in both),
    ]
    assert all(float(row["lost_low"]) <= float(row["lost"]) <= float(row["lost_high"]) for row in rows)
    first = rows[0]
    assert float(first["lost"]) == pytest.approx(float(first["right"]) - float(first["wrong"]))
    data = json.loads((beside / "leaderboard.json").read_text(encoding="utf-8"))
    assert [(row["task"], row["mistake"]) for row in data["mistakes"]] == [(key[0], key[3]) for key in keys]
    html = (beside / "index.html").read_text(encoding="utf-8")
    section = html[html.index('id="mistakes"') : html.index('id="models"')]
    experiments = re.findall(r'<th scope="row">([\w-]+)<small>', section)
    assert experiments == [key[3] for key in keys]
    assert f"<b>{float(first['lost']):.3f}</b>" in section
    assert "mistakes.csv" in html
    for name in ("leaderboard.md", "leaderboard.tex"):
        text = (beside / name).read_text(encoding="utf-8")
        assert "What each mistake costs" in text
        assert f"{float(first['lost']):.3f}" in text


def test_without_mistakes_a_table_of_earlier_ones_goes(folders, built, tmp_path):
    plain, _ = folders
    shutil.copytree(built[1], tmp_path, dirs_exist_ok=True)
    assert (tmp_path / FILE).exists()
    site.build([plain], tmp_path, resamples=300)
    assert not (tmp_path / FILE).exists()
    assert 'id="mistakes"' not in (tmp_path / "index.html").read_text(encoding="utf-8")
