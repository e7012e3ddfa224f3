"""Equal models are equal, and the same records give the same bytes, whatever the processor and its libraries."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from tapct.leaderboard.site import build
from tapct.statistics import summarise_task, summarise_tasks
from tests.leaderboard import results
from tests.leaderboard.simulated import task
from tests.records.made import changed

# Kernels without FMA and AVX, and libraries that pass over what the processor has beyond them.
OLD_PROCESSOR = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
    "OMP_NUM_THREADS": "2",
}
BUILD = """
import pathlib, sys
from tapct.leaderboard.site import build
build([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), resamples=300)
"""


@pytest.mark.parametrize(
    ("encoders", "tasks"),
    [
        (("curia", "suprem", "fmcib"), ("lits17", "luna16")),
        pytest.param(
            ("curia", "suprem", "voco-b", "fmcib", "ct-fm"),
            ("lits17", "luna16", "rsna2022"),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=len,
)
def test_the_same_records_give_the_same_bytes_on_another_machine(tmp_path, encoders, tasks):
    results.write_all(tmp_path / "results", encoders, tasks, patients=23)
    twin = results.record("curia", "luna16", ability=1.2, patients=23, card={"display_name": "Twin"})
    twin = changed(twin, encoder={"weights_sha256": "0" * 64})
    results.write(tmp_path / "results", "twin", twin)
    for name in ("curia", "suprem"):
        for task_settings in ({"perturbation": "noise-30hu"}, {"train_fraction": 0.1, "train_draw": 0}):
            varied = results.record(name, "lits17", ability=1.0, patients=23, more_task=task_settings)
            results.write(tmp_path / "results", f"{name}-{next(iter(task_settings))}", varied)
    build([tmp_path / "results"], tmp_path / "here", resamples=300)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "results"), str(tmp_path / "there")]
    subprocess.run(command, env={**os.environ, **OLD_PROCESSOR}, check=True, capture_output=True)
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / site).iterdir()} for site in ("here", "there"))
    assert {"index.html", "leaderboard.csv", "leaderboard.json", "robustness.csv", "label_efficiency.csv"} <= set(here)
    assert "robustness_ranks.csv" in here
    assert sorted(name for name in here if here[name] != there.get(name)) == []
    assert set(here) == set(there)
    rows = list(csv.DictReader((tmp_path / "here" / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    digits = {len(row[k].lstrip("-0.").replace(".", "")) for row in rows for k in ("value", "low", "high") if row[k]}
    assert max(digits) == 12


@pytest.mark.parametrize("models", [2, 3, 7, 16])
@pytest.mark.parametrize("metric", ["dice_native", "hd95_mm_native"])
def test_the_numbers_of_a_model_do_not_depend_on_its_place(models, metric):
    rng = np.random.default_rng(models)
    one = rng.random((3, 61)) * (1 if metric == "dice_native" else 90)
    values = rng.random((models + 2, 3, 61))
    values[[0, -1]] = one
    summary = summarise_task(task(values, metric=metric), 100)
    for numbers in (summary.value, summary.bootstrap, summary.jackknife):
        np.testing.assert_array_equal(numbers[0], numbers[-1])
    alone = summarise_task(task(one[None], metric=metric), 100)
    assert alone.models[0].estimate == summary.models[0].estimate == summary.models[-1].estimate


@pytest.mark.parametrize("kind", ["the same", "seeds in another order", "a rounding error apart"])
def test_models_that_are_equal_differ_by_exactly_nothing(kind):
    rng = np.random.default_rng(5)
    one = rng.random((3, 61))
    other = {
        "the same": one,
        "seeds in another order": one[[2, 0, 1]],
        "a rounding error apart": one * (1 + 1e-15 * rng.choice([-1, 0, 1], one.shape)),
    }[kind]
    better = one + 0.2
    summary = summarise_task(task(np.stack([one, better, other])), 300)
    (found,) = (d for d in summary.comparison.differences if (d.first, d.second) == ("a", "c"))
    assert (found.estimate.value, found.p_value, found.corrected, found.better) == (0, 1, 1, None)
    assert [model.mean_rank.value for model in summarise_tasks([summary])] == [2.5, 1, 2.5]
    assert summary.comparison.groups == (("b",), ("a", "c"))


def test_a_model_that_is_better_by_little_is_better():
    """What looks like equality and is none: one more voxel in each of 61 cases."""
    one = np.random.default_rng(5).random((3, 61))
    summary = summarise_task(task(np.stack([one, one + 1e-9])))
    (found,) = summary.comparison.differences
    assert found.better == "b"
    assert found.estimate.value == pytest.approx(-1e-9, rel=1e-6)
    assert [model.mean_rank.value for model in summarise_tasks([summary])] == [2, 1]
