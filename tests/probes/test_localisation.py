"""The localisation probe through eva's trainer: a planted signal is found where it is, and noise is not."""

import math
from functools import cache
from typing import ClassVar

import eva
import numpy as np
import pytest
import torch
from eva.core.data import dataloaders
from eva.core.data.datamodules import schemas
from eva.core.trainers.functional import run_evaluation_session

from baselines.intensity import Intensity
from tapct.errors import TaskError
from tapct.kinds.localisation import CANDIDATE, KIND, POINT, detections
from tapct.metrics.froc import LIMIT
from tapct.probes import LocalisationProbe, Trainer
from tapct.probes.heads import DivergedError
from tapct.records import read_record
from tapct.records.case import as_cases
from tapct.volumes import Findings

AFFINE = np.linalg.qr(np.array([[0.1, 0.2, -0.97], [0.05, -0.98, -0.2], [0.99, 0.03, 0.12]]))[0] * [3.0, 2.0, 2.0]
"""Of an oblique scan, of 3 x 2 x 2 mm voxels, that grows towards S, P, L."""


class Balls(torch.utils.data.Dataset):
    """Scans of tissue with air pockets in them, the pockets known as findings; or (`blind`) known somewhere else."""

    classes: ClassVar[list[str]] = ["pocket"]

    def __init__(self, split: str, number: int, blind: bool = False) -> None:
        self.split, self.number, self.blind = split, number, blind

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index):
        name = f"{self.split}-{index}"
        hu, rows, affine = (array.copy() for array in scan(index, len(self.split), self.blind))
        metadata = {"case": name, "patient": name, "source": name, "affine": torch.from_numpy(affine)}
        return torch.from_numpy(hu)[:, None], torch.from_numpy(rows), metadata


@cache
def scan(index: int, stream: int, blind: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns HU, findings and affine of a scan, which is read anew in every step of training."""
    rng = np.random.default_rng([index, stream])
    hu = rng.normal(40, 15, (32, 96, 96)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = AFFINE, (31.0, -77.0, 500.0)
    z, y, x = np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij")
    rows = []
    for _ in range(index % 3):
        at = rng.uniform([8, 15, 15], [24, 80, 80])
        hu[((z - at[0]) * 3) ** 2 + ((y - at[1]) * 2) ** 2 + ((x - at[2]) * 2) ** 2 < 10**2] = -800
        known = rng.uniform([8, 15, 15], [24, 80, 80]) if blind else at
        rows.append([0.0, *(AFFINE @ known + affine[:3, 3]), 20.0, 0.0])
    return hu, Findings.of(rows).rows(), affine


class BallData(eva.DataModule):
    notice = None

    def __init__(self, cases: int, blind: bool = False) -> None:
        loader = dataloaders.DataLoader(
            batch_size=1, num_workers=0, pin_memory=False, persistent_workers=False, prefetch_factor=None
        )
        parts = {split: Balls(split, n, blind) for split, n in (("train", cases), ("val", 3), ("test", 9))}
        super().__init__(
            datasets=schemas.DatasetsSchema(**parts),
            dataloaders=schemas.DataloadersSchema(train=loader, val=loader, test=loader),
        )

    def describe(self):
        return {"name": "balls", "version": 1, "kind": "localisation", "metric": "FROC", "classes": ["pocket"]}


def run(tmp_path, blind=False, max_steps=60, **probe):
    probe = {"learning_rates": [0.1], **probe}
    trainer = Trainer(default_root_dir=str(tmp_path), accelerator="cpu", n_runs=1, logger=False, max_steps=max_steps)
    encoder = Intensity(window_size=(8, 96, 96), in_plane_size=96)
    run_evaluation_session(trainer, LocalisationProbe(encoder, **probe), BallData(6, blind), n_runs=1, verbose=False)
    (session,) = tmp_path.iterdir()
    return read_record(session / "record.json")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(tmp_path_factory.mktemp("found"))


def test_a_planted_signal_is_found_on_an_oblique_scan(found):
    (one,) = found.runs
    assert one.metrics["test"]["FROC"] > 0.9
    assert one.metrics["test"]["sensitivity@1/8"] > 0.8
    # Patches are 12 x 16 x 16 mm: without telling between them, half a patch and more would be left.
    assert one.metrics["test"]["MedianError_mm"] < 4
    assert one.selection.score is not None
    assert found.cell_size.size_mm == pytest.approx((12, 16, 16))
    assert found.cell_size.dice is None


def test_the_record_holds_points_and_candidates_and_its_metrics_come_from_them(found):
    (one,) = found.runs
    cases = one.cases["test"]
    for case, index in zip(cases, range(9), strict=True):
        of = {field: values["pocket"] for field, values in case.outcome.items()}
        assert len(of["diameter_mm"]) == index % 3
        assert len(of["score"]) <= LIMIT
        assert list(of["score"]) == sorted(of["score"], reverse=True)
        truth = Balls("test", 9)[index][1].numpy()
        assert np.array([of[name] for name in POINT]).T.tolist() == truth[:, 1:4].tolist()
        assert all(round(value, 2) == value for name in CANDIDATE for value in of[name])
    numbers = KIND.numbers(as_cases(KIND, cases))
    assert {name: one.metrics["test"][name] for name in numbers} == pytest.approx(numbers)


def test_what_was_found_lies_in_the_world_where_it_is(found):
    of = detections(as_cases(KIND, found.runs[0].cases["test"]))
    assert np.nanmax(of.errors_mm) < 10


def test_places_that_nothing_shows_are_not_found(tmp_path):
    blind = run(tmp_path, blind=True)
    assert blind.runs[0].metrics["test"]["FROC"] < 0.25


def test_features_that_say_nothing_give_one_place_the_middle_of_the_scan(tmp_path):
    from baselines.chance import Chance

    trainer = Trainer(default_root_dir=str(tmp_path), accelerator="cpu", n_runs=1, logger=False, max_steps=2)
    encoder = Chance(window_size=(8, 96, 96), in_plane_size=96)
    run_evaluation_session(trainer, LocalisationProbe(encoder), BallData(3), n_runs=1, verbose=False)
    record = read_record(next(tmp_path.iterdir()) / "record.json")
    middle = AFFINE @ [15.5, 47.5, 47.5] + (31.0, -77.0, 500.0)
    for case in record.runs[0].cases["test"]:
        assert [case.outcome[name]["pocket"] for name in CANDIDATE] == pytest.approx(middle[:, None], abs=0.01)
    assert len({case.outcome["score"]["pocket"][0] for case in record.runs[0].cases["test"]}) == 1


def test_a_head_starts_from_how_little_there_is_to_find(tmp_path):
    still = run(tmp_path, max_steps=1, learning_rates=[1e-12], scale_features=False, select="last")
    scores = [s for case in still.runs[0].cases["test"] for s in case.outcome["score"]["pocket"]]
    assert -12 < np.median(scores) < -3
    assert still.runs[0].metrics["test"]["AverageLoss"] < 10


def test_a_rate_that_is_too_high_is_said(tmp_path):
    with pytest.raises(DivergedError, match="diverged"):
        run(tmp_path, learning_rates=[1e30])


@pytest.mark.parametrize("apart_mm", [-1.0, math.inf, math.nan])
def test_candidates_are_a_distance_apart(apart_mm):
    with pytest.raises(TaskError, match="apart_mm must be a distance"):
        LocalisationProbe(Intensity(), apart_mm=apart_mm)
