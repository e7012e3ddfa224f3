"""Both localisation tasks in small, in their releases' layouts, through the real eva command line."""

import json

import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.kinds.localisation import CANDIDATE, POINT
from tapct.report.page import write_report
from tapct.volumes import Findings, read_grid
from tests.data import luna16_detection, totalsegmentator
from tests.tasks.end_to_end import run, write_split

INTENSITY = {"class_path": "baselines.intensity.Intensity"}


@pytest.fixture(scope="module")
def nodules(tmp_path_factory):
    """A record of LUNA16's detection track in small, and where its data are."""
    root = tmp_path_factory.mktemp("luna16")
    train, (val,), (test, empty) = (luna16_detection.series(s)[:n] for s, n in (("train", 3), ("val", 1), ("test", 2)))
    moved = [luna16_detection.moved(i) for i in range(5)]
    cases = dict(zip([*train, val, test], moved, strict=True)) | {empty: ()}
    luna16_detection.write(root / "luna16", cases)
    split = write_split(root / "split.csv", train=train, val=[val], test=[test, empty])
    config = "localisation/luna16_detection.yaml"
    return run(config, root, split, root, "localisation", max_steps=60, encoder=INTENSITY, overlays=2), root


def test_bright_cubes_are_found_by_what_voxel_values_say(nodules):
    record, _ = nodules
    (one,) = record.runs
    assert one.metrics["test"]["FROC"] > 0.8
    assert one.metrics["test"]["MedianError_mm"] < 6
    assert record.task.metric == "FROC"
    assert record.task.options == {"excluded_findings": True}
    assert record.probe.apart_mm == 10
    assert record.cell_size.size_mm == pytest.approx((12, 303 / 28, 366 / 28))


def test_the_record_holds_places_of_the_world_and_what_counts_neither_way(nodules):
    record, root = nodules
    first, empty = (case.outcome for case in record.runs[0].cases["test"])
    places = luna16_detection.moved(4)  # that of the test case, behind those of train and val
    found = np.array([first[name]["nodule"] for name in POINT]).T
    assert found[:2].tolist() == [[-x, -y, z] for x, y, z, _ in places]
    assert first["excluded"]["nodule"] == (0.0, 0.0, 1.0)
    assert empty["excluded"]["nodule"] == (1.0,)
    (header,) = (root / "luna16").rglob(f"{record.runs[0].cases['test'][0].case}.mhd")
    rows = [[0, *place, 5.0, 0] for place in np.array([first[name]["nodule"] for name in CANDIDATE]).T]
    assert Findings.of(rows).inside(read_grid(header).padded([n + 13 for n in read_grid(header).shape])).all()


def test_the_report_shows_findings_and_candidates(nodules):
    record, root = nodules
    (path,) = root.glob("logs/*/*/record.json")
    assert sorted(p.name for p in path.parent.glob("run_0/overlays/*.png")) == sorted(
        f"{case.case}.png" for case in record.runs[0].cases["test"]
    )
    page = write_report(path).read_text(encoding="utf-8")
    for text in ("FROC curves of", "Errors in mm of", "data:image/png", "MedianError_mm"):
        assert text in page
    results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))["metrics"]["test"][0]
    assert results["test/FROC"]["mean"] == pytest.approx(record.runs[0].metrics["test"]["FROC"])


@pytest.mark.thorough
def test_a_row_to_beat_says_one_place_a_scan(nodules, tmp_path):
    _, root = nodules
    centre = {"class_path": "baselines.organ_centre.OrganCentre"}
    config = "localisation/luna16_detection.yaml"
    record = run(config, root, root / "split.csv", tmp_path, "localisation", max_steps=10, encoder=centre)
    for case in record.runs[0].cases["test"]:
        assert len(case.outcome["score"]["nodule"]) == 1
    (found,) = {flag.id for flag in record.flags} & {"chance-level", "too-few-to-tell"}
    assert found


def test_a_table_in_voxels_ends_the_run_before_it_starts(tmp_path):
    cases = {split: luna16_detection.series(split)[0] for split in ("train", "val", "test")}
    luna16_detection.write(tmp_path / "luna16", dict.fromkeys(cases.values(), luna16_detection.NODULES))
    table = tmp_path / "luna16" / "annotations.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    voxels = [",".join([row.split(",")[0], "41", "52", "33", "8.0"]) for row in rows]
    table.write_text("\n".join([header, *voxels, ""]), encoding="utf-8")
    split = write_split(tmp_path / "split.csv", **{side: [case] for side, case in cases.items()})
    config = "localisation/luna16_detection.yaml"
    with pytest.raises(TapctError, match="3 cases cannot be used") as said:
        run(config, tmp_path, split, tmp_path, "localisation", encoder=INTENSITY)
    assert "As voxel indices it would lie inside" in str(said.value)


@pytest.mark.thorough
def test_centres_of_vertebrae_are_looked_for_in_the_scans_of_totalsegmentator(tmp_path):
    totalsegmentator.write(tmp_path / "totalsegmentator", slices=60, names=totalsegmentator.VERTEBRAE)
    split = write_split(tmp_path / "split.csv", train=["s0001"], val=["s0029"], test=["s0013"])
    config = "localisation/vertebra_landmarks.yaml"
    record = run(config, tmp_path, split, tmp_path, "localisation", max_steps=30, encoder=INTENSITY)
    (case,) = record.runs[0].cases["test"]
    assert set(case.outcome["diameter_mm"]["vertebra"]) == {20.0}
    assert {0.0, 1.0} == set(case.outcome["excluded"]["vertebra"])
    assert len(case.outcome["score"]["vertebra"]) > 10
    assert record.runs[0].metrics["test"]["sensitivity@8"] > 0  # voxel values know bone, and not whose
    assert record.task.options == {"tolerance_mm": 10.0}
