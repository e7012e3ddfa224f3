"""Encoders under several adaptors, heads from elsewhere and the size of patches: what is next to the ranking."""

import csv
import json

import numpy as np
import pytest

from tapct.errors import RecordError
from tapct.flags import cross_flags
from tapct.leaderboard import site
from tapct.leaderboard.adaptors import SOURCES, adaptor_grid, mean_squares, variance_components
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.official import why_own
from tapct.leaderboard.variations import LABEL_EFFICIENCY_FILE, tables
from tapct.records import PatchSize, read_records
from tapct.statistics.inputs import from_records
from tapct.statistics.resampling import Resampled, draw_patients
from tapct.sweep.adaptors import SETTING
from tapct.sweep.experiment import SHIPPED_CONFIGS, Experiment, configs_by_task
from tapct.tasks import list_tasks, task_class
from tests.leaderboard import results
from tests.leaderboard.experiments import experiment
from tests.probes.test_classification import run
from tests.records.made import changed
from tests.small import small_encoder

ADAPTORS = ("abmil", "linear", "knn")
MODELS = ("tap-b-3d", "curia", "suprem")


def grid_folder(folder, task="luna16", missing=(), **settings):
    """Every model under every adaptor; luna16 is ranked on linear."""
    for place, model in enumerate(MODELS):
        for adaptor in ADAPTORS:
            if (model, adaptor) not in missing:
                ability = 1 - 0.3 * place + 0.2 * ADAPTORS.index(adaptor)
                one = results.record(model, task, ability=ability, adaptor=adaptor, patients=30, **settings)
                results.write(folder, f"{model}+adaptor={adaptor}", one)
    return folder


def board(folder):
    return assemble({folder: read_records(folder)}, resamples=300)


def task_of(board, name):
    return next(task for task in board.tasks if task.name == name)


def lines(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_task_is_ranked_on_its_own_adaptor_and_the_others_stand_beside(tmp_path):
    folder = grid_folder(tmp_path / "results", missing=[("suprem", "knn")])
    random = results.record("curia", "luna16", adaptor="knn", random=True, patients=30)
    results.write(folder, "curia@random+adaptor=knn", random)
    masked = results.record("curia", "luna16", adaptor="linear:mask", patients=30)
    results.write(folder, "curia+adaptor=linear-mask", masked)
    assert site.build([folder], tmp_path / "site", resamples=300) == 0
    content = json.loads((tmp_path / "site/leaderboard.json").read_text(encoding="utf-8"))
    ranked = [row for row in content["rows"] if row["task"] == "luna16" and row["source"] == "record"]
    assert {row["adaptor"] for row in ranked} == {"linear"}
    assert len(ranked) == len(MODELS), "a model is there once, whatever the number of its adaptors"
    assert content["left_out"] == []
    of_csv = lines(tmp_path / "site/adaptors.csv")
    assert [row["adaptor"] for row in of_csv[:4]] == ["linear", "abmil", "knn", "linear:mask"]
    assert {row["ranked"] for row in of_csv if row["adaptor"] == "linear"} == {"True"}
    reasons = {(row["model"], row["adaptor"]): row["reason"] for row in of_csv if not row["value"]}
    assert len(reasons) == 3 + 3
    assert set(reasons.values()) == {"not run"}
    linear = {row["model"]: row["value"] for row in ranked}
    assert all(
        float(row["value"]) == linear[row["model"]] for row in of_csv if row["ranked"] == "True" and row["value"]
    )
    (found,) = content["adaptors"]
    assert found["variance"]["reason"] is None
    assert [part["source"] for part in found["variance"]["components"]] == list(SOURCES)
    assert sum(part["share"]["value"] for part in found["variance"]["components"]) == pytest.approx(1)
    assert len(found["variance"]["models"]) * len(found["variance"]["adaptors"]) == 6, "the largest complete part"
    page = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert "Encoder × adaptor" in page
    assert "features are told where the organ or lesion lies" in page
    for folder_of in folder.glob("*/*+adaptor=*"):
        if not folder_of.name.endswith("=linear"):
            (folder_of / "record.json").unlink()
    assert site.build([folder], tmp_path / "site", resamples=300) == 0
    assert not (tmp_path / "site/adaptors.csv").exists()
    assert "Encoder × adaptor" not in (tmp_path / "site/index.html").read_text(encoding="utf-8")


def test_attention_on_another_bag_is_a_column_of_its_own_and_no_solved_head(tmp_path):
    for place, model in enumerate(MODELS[:2]):
        for adaptor in ("abmil", "abmil:patch"):
            one = results.record(model, "fdg_pet_ct", ability=1 - 0.3 * place, adaptor=adaptor, patients=30)
            results.write(tmp_path / "results", f"{model}+bag={adaptor[6:]}" if adaptor[6:] else model, one)
    few_steps = results.record("curia", "fdg_pet_ct", adaptor="abmil:patch", patients=30, more_probe={"steps": 7})
    assert "7, in the shipped protocol 500" in (why_own(few_steps) or ""), "it is trained by steps"
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=300) == 0
    ranked = [row for row in lines(tmp_path / "site/leaderboard.csv") if row["adaptor"]]
    assert [(row["task"], row["adaptor"]) for row in ranked] == [("fdg_pet_ct", "abmil")] * 2
    assert [row["adaptor"] for row in lines(tmp_path / "site/adaptors.csv")[:2]] == ["abmil", "abmil:patch"]
    page = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert "abmil:patch is on patch features of a model that has class tokens" in page
    assert "none: solved" not in page


def test_without_the_tasks_own_adaptor_the_one_of_most_records_is_ranked_apart(tmp_path):
    results.write(tmp_path, "curia", results.record("curia", "luna16", adaptor="abmil"))
    for model in MODELS:
        results.write(tmp_path, f"{model}+adaptor=knn", results.record(model, "luna16", adaptor="knn"))
    found = board(tmp_path)
    assert task_of(found, "luna16").summaries == {}
    (own,) = found.own
    assert (own.task.adaptor, own.why) == ("knn", "the task is ranked on linear, which no record has")
    for model in MODELS:
        (tmp_path / "luna16" / f"{model}+adaptor=knn" / "record.json").unlink()
        masked = results.record(model, "luna16", adaptor="linear:mask")
        results.write(tmp_path, f"{model}+adaptor=linear-mask", masked)
    (own,) = board(tmp_path).own
    assert own.task.adaptor == "abmil", "one that is told where to look comes last"


def test_two_records_of_an_experiment_are_an_error_that_names_the_adaptor(tmp_path):
    folder = grid_folder(tmp_path)
    results.write(folder, "again", results.record("curia", "luna16", adaptor="knn", patients=30, ability=0.1))
    with pytest.raises(RecordError, match=r"both of Curia on luna16 with knn"):
        board(folder)


def test_an_adaptor_on_another_split_is_apart(tmp_path):
    folder = grid_folder(tmp_path, missing=[("suprem", "knn")])
    other = results.record("suprem", "luna16", adaptor="knn", patients=30, more_task={"split_sha256": "f" * 64})
    results.write(folder, "suprem+adaptor=knn", other)
    found = board(folder)
    assert ("SuPreM U-Net", "knn") not in task_of(found, "luna16").grid.experiments
    (own,) = found.own
    assert [model.name for model in own.board.models] == ["SuPreM U-Net"]
    assert own.why.startswith("split_sha256 is ffff")


def test_the_ranked_adaptor_of_each_task_is_the_default_of_its_config():
    configs = configs_by_task(SHIPPED_CONFIGS)
    for name in list_tasks():
        experiment = Experiment(task=name, encoder="", label="", folder=SHIPPED_CONFIGS, config=configs[name])
        assert experiment.settings().get(SETTING) == task_class(name).spec.adaptor


def test_label_efficiency_is_apart_by_adaptor():
    few = {"train_fraction": 0.1, "train_draw": 0}
    records = [
        results.record("curia", "luna16", adaptor=adaptor, more_task=task)
        for adaptor in ("linear", "knn")
        for task in ({}, few)
    ]
    found, left_out, _ = tables(records, resamples=200)
    rows = list(csv.DictReader(found[LABEL_EFFICIENCY_FILE].splitlines()))
    assert left_out == []
    assert [(row["adaptor"], row["fraction"]) for row in rows] == [
        (adaptor, share) for adaptor in ("knn", "linear") for share in ("0.1", "1.0")
    ]


def test_records_of_real_runs_compare_across_adaptors_and_only_there(tmp_path):
    """Solved and stepped heads, as eva leaves them: their records differ in more than a name."""
    task = {"kind": "classification", "options": {}, "split_sha256": "a" * 64, "metric": "MicroAUROC"}
    records = {}
    for adaptor in ("abmil", "linear", "prototype"):
        _, one = run(tmp_path / adaptor, small_encoder(), [20, 95], {"adaptor": adaptor}, max_steps=2)
        more = {**task, "classes": one.probe.classes}
        records["small", adaptor] = changed(one, task=more)
    grid = adaptor_grid(records, "MicroAUROC", "abmil", resamples=50)
    assert grid.adaptors == ("abmil", "linear", "prototype")
    expected = {key: one.runs[0].metrics["test"]["MicroAUROC"] for key, one in records.items()}
    assert grid.experiments["small", "linear"].estimate.value == pytest.approx(expected["small", "linear"])
    assert grid.experiments["small", "linear"].seed_spread == 0
    with pytest.raises(RecordError, match="do not compare"):
        from_records(list(records.values()), "MicroAUROC", names=["a", "b", "c"])


@pytest.mark.parametrize(("adaptor", "flags"), [("linear", []), ("abmil", ["setting-without-effect"])])
def test_a_seed_need_not_move_a_solved_head(adaptor, flags):
    one, other = (results.record("curia", "luna16", adaptor=adaptor, more_probe={"seed": seed}) for seed in (0, 7))
    assert [flag.id for flag in cross_flags(one, [other])] == flags


# -- Variance components -------------------------------------------------------------------------------


def planted(rng, encoder, adaptor, both, seed, patients, seeds=3, cases=200):
    """Records of Dice with effects of these sizes; patients move all experiments alike, and each a little by itself."""
    rows, columns = len(encoder), len(adaptor)
    common = 0.08 * rng.normal(size=cases)
    found = {}
    for i, j in np.ndindex(rows, columns):
        own = patients * rng.normal(size=cases)
        starts = seed * rng.normal(size=seeds)
        scores = 0.5 + encoder[i] + adaptor[j] + both[i, j] + starts[:, None] + common + own
        made = experiment(f"e{i}", np.clip(scores, 0, 1))
        found[f"e{i}", f"a{j}"] = made
    return found


def shares(grid):
    return {part.source: part for part in grid.components}


def test_mean_squares_are_those_of_an_analysis_of_variance():
    table = np.random.default_rng(0).normal(size=(4, 3))
    rows, columns = np.kron(np.eye(4), np.ones((3, 1))), np.tile(np.eye(3), (4, 1))

    def residual(design):
        fitted = design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]
        return ((table.ravel() - fitted) ** 2).sum()

    both = np.column_stack([rows, columns])
    expected = (residual(columns) - residual(both)) / 3, (residual(rows) - residual(both)) / 2, residual(both) / 6
    assert np.allclose(mean_squares(table), expected, rtol=1e-12)
    assert np.allclose(mean_squares(np.stack([table, 2 * table], axis=-1)), np.outer(expected, [1, 4]))


def simulated(rng, sds, encoders, adaptors, seeds=3, patients=30, resamples=200):
    """The components of a grid of such effects, and the true variances of its own, on infinitely many patients."""
    experiments = (encoders, adaptors)
    shapes = [(encoders, 1, 1), (1, adaptors, 1), (*experiments, 1), (*experiments, seeds)]
    effects = np.broadcast_to(
        sum(sd * rng.normal(size=s) for sd, s in zip(sds, shapes, strict=True)), (*experiments, seeds)
    )
    hard = [0.08, *(0.02 * np.ones(4))]
    scores = effects[..., None] + sum(
        sd * rng.normal(size=(*s, patients)) for sd, s in zip(hard, [(1, 1, 1), *shapes], strict=True)
    )
    counts = draw_patients(patients, resamples, "simulated")
    every = np.concatenate([np.ones((patients, 1)), counts, 1 - np.eye(patients)], axis=1)
    value, bootstrap, jackknife = np.split(scores @ (every / every.sum(axis=0)), [1, 1 + resamples], axis=-1)
    found, _ = variance_components(Resampled(value[..., 0], bootstrap, jackknife), counts)
    of, seed = mean_squares(effects.mean(axis=2)), effects.var(axis=2, ddof=1).mean()
    own = [(of.encoder - of.both) / adaptors, (of.adaptor - of.both) / encoders, of.both - seed / seeds, seed]
    return found, np.maximum([*own, sum(sd**2 for sd in hard) / patients], 0)


@pytest.mark.parametrize(("encoders", "adaptors"), [(3, 3), (8, 4)])
def test_planted_components_are_found_on_average_and_intervals_hold_them(encoders, adaptors):
    rng, sds = np.random.default_rng(encoders), (0.04, 0.03, 0.015, 0.01)
    found, true, held = [], [], []
    for _ in range(120):
        parts, truth = simulated(rng, sds, encoders, adaptors)
        found.append([part.sd.value**2 for part in parts])
        true.append(truth)
        shares = truth / truth.sum()
        held.append([p.share.low <= share <= p.share.high for p, share in zip(parts, shares, strict=True)])
    apart = np.array(found) - true
    assert np.all(np.abs(apart.mean(axis=0)) < 3.5 * apart.std(axis=0) / np.sqrt(len(apart)))
    assert np.all(np.mean(held, axis=0) > 0.87)
    if encoders == 8:  # of three, what is under zero and shown as zero is too often there
        drawn_from, error = np.square(sds), np.std(found, axis=0)[:4] / np.sqrt(len(found))
        assert np.all(np.abs(np.mean(found, axis=0)[:4] - drawn_from) < 3.5 * error)


def test_patients_that_only_make_noise_are_no_encoders():
    """Without a difference between encoders, what their patients put in must not pass for one."""
    rng = np.random.default_rng(2)
    none = planted(rng, np.zeros(5), np.zeros(3), np.zeros((5, 3)), 0.0, 0.15, cases=40)
    parts = shares(adaptor_grid(none, "dice_native", "a0", resamples=300))
    assert parts["patients"].share.value > 0.8
    assert parts["encoder"].share.value < 0.1
    assert parts["seed"].sd.value == 0


def test_controls_are_shown_and_are_no_encoders():
    rng = np.random.default_rng(3)
    records = planted(rng, np.array([0.0, 0.01, -0.4]), np.array([0.0, 0.05]), np.zeros((3, 2)), 0.001, 0.02)
    grid = adaptor_grid(records, "dice_native", "a0", controls=["e2"], resamples=300)
    assert ("e2", "a1") in grid.experiments
    assert grid.crossed == (("e0", "e1"), ("a0", "a1"))
    everything = adaptor_grid(records, "dice_native", "a0", resamples=300)
    assert shares(everything)["encoder"].share.value > 2 * shares(grid)["encoder"].share.value


def test_one_run_has_no_seed_and_one_encoder_no_components():
    rng = np.random.default_rng(4)
    records = planted(rng, np.zeros(2), np.zeros(2), np.zeros((2, 2)), 0.0, 0.1, seeds=1, cases=30)
    assert "one run" in shares(adaptor_grid(records, "dice_native", "a0", resamples=300))["seed"].share.reason
    alone = adaptor_grid({key: one for key, one in records.items() if key[0] == "e0"}, "dice_native", "a0")
    assert alone.components == ()
    assert "fewer than two" in alone.reason


# -- Heads from elsewhere ------------------------------------------------------------------------------

ELSEWHERE = {"head_from": {"record": "a" * 64, "name": "luna25", "version": 1, "split_sha256": "b" * 64}}


def test_heads_from_elsewhere_are_not_ranked_with_those_trained_here(tmp_path):
    for model in MODELS:
        results.write(tmp_path, f"{model}-external", results.record(model, "luna16", ability=2, more_probe=ELSEWHERE))
    results.write(tmp_path, "curia", results.record("curia", "luna16"))
    found = board(tmp_path)
    assert [model.name for model in task_of(found, "luna16").summaries["native"].models] == ["Curia"]
    assert "luna16" not in found.notices
    (own,) = found.own
    assert len(own.board.models) == len(MODELS)
    assert "External validation: the heads were trained on luna25" in own.why


def test_heads_from_elsewhere_alone_are_ranked_under_a_notice(tmp_path):
    for model in MODELS:
        results.write(tmp_path / "r", model, results.record(model, "luna16", more_probe=ELSEWHERE))
    assert site.build([tmp_path / "r"], tmp_path / "s", resamples=200) == 0
    (own,) = board(tmp_path / "r").own
    assert "External validation" in own.board.notices["luna16"]
    rows = [row for row in lines(tmp_path / "s/leaderboard.csv") if row["task"] == "luna16" and row["value"]]
    assert all("trained on luna25" in row["notice"] for row in rows if row["source"] == "record")
    assert ">external<" in (tmp_path / "s/index.html").read_text(encoding="utf-8")


def test_heads_that_nobody_knows_compare_with_no_others():
    one, other = (
        results.record(model, "luna16", more_probe={"head_from": {"sha256": sha * 64}})
        for model, sha in (("curia", "a"), ("suprem", "b"))
    )
    with pytest.raises(RecordError, match="trained on"):
        from_records([one, other], "MicroAUROC")


# -- The size of a patch --------------------------------------------------------------------------------


def test_the_patch_size_and_the_share_reached_stand_beside_dice(tmp_path):
    size = PatchSize(size_mm=(12.0, 6.0, 6.0), dice=0.8, by_class={"liver": 0.8}, cases=20)
    results.write(tmp_path / "r", "curia", results.record("curia", "lits17", cell_size=size))
    results.write(tmp_path / "r", "suprem", results.record("suprem", "lits17", ability=-0.5))
    assert site.build([tmp_path / "r"], tmp_path / "s", resamples=200) == 0
    rows = [row for row in lines(tmp_path / "s/leaderboard.csv") if row["task"] == "lits17"]
    of = {(row["model"], row["protocol"]): row for row in rows if row["source"] == "record"}
    native, (other,) = of["Curia", "native"], {model for model, _ in of} - {"Curia"}
    assert [native[f"cell_{axis}_mm"] for axis in "zyx"] == ["12.0", "6.0", "6.0"]
    assert float(native["share_reached"]) == pytest.approx(float(native["value"]) / 0.8)
    assert of["Curia", "paper"]["cell_size_dice"] == "", "the reference is of the native grid"
    assert of[other, "native"]["cell_size_dice"] == "", "an older record has none"
    page = (tmp_path / "s/index.html").read_text(encoding="utf-8")
    assert "12 × 6 × 6" in page
    assert f"{100 * float(native['share_reached']):.0f} %" in page
    assert "reference, not a bound" in page
