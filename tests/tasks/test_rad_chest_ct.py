"""RAD-ChestCT on a tiny release of its layout: by itself, and as the outside world of heads of CT-RATE."""

import shutil
import sys

import numpy as np
import pytest
from eva.__main__ import main

from tapct.errors import TapctError, TaskError
from tapct.records import read_record
from tapct.statistics.inputs import EXTERNAL, external
from tapct.tasks import SPLITS, TaskData
from tapct.tasks.ct_rate_release import FINDINGS
from tapct.tasks.findings import findings
from tapct.tasks.rad_chest_ct import DISPUTED, PATIENTS, SHARED, RADChestCT
from tests.data import ct_rate, rad_chest_ct
from tests.data.abdomen import spl
from tests.data.slabs import edited
from tests.tasks.end_to_end import CONFIGS, SMALL, run

PATCHES = {**SMALL, "class_path": "tests.small.Drifting"}
NEVER = ("Arterial wall calcification", "Coronary artery wall calcification", "Mosaic attenuation pattern")
TEST = "imgtest_Abnormality_and_Location_Labels.csv"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return rad_chest_ct.write(tmp_path_factory.mktemp("release"))


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path / "data" / "rad_chest_ct")


def expected(scan: str) -> dict[str, int | None]:
    """The labels of a scan: of each shared finding, whether any of its tokens is anywhere; if tables agree on it."""
    found: dict[str, int | None] = dict.fromkeys(FINDINGS)
    for finding, tables in {**{finding: (tokens,) for finding, tokens in SHARED.items()}, **DISPUTED}.items():
        places = rad_chest_ct.LOCATIONS
        answers = [max(rad_chest_ct.value(scan, t, place) for t in tokens for place in places) for tokens in tables]
        found[finding] = answers[0] if min(answers) == max(answers) else None
    return found


def test_what_the_release_cannot_say_is_not_stated(root):
    parts = {split: RADChestCT(root, split) for split in SPLITS}
    assert {split: part.cases for split, part in parts.items()} == {
        "train": ["trn00001", "trn00002", "trn00003", "trn00004"],
        "val": ["val00001", "val00002"],
        "test": ["tst00001", "tst00002"],
    }
    for part in parts.values():
        for case in part.cases:
            labels = dict(zip(FINDINGS, part.targets(case), strict=True))
            assert labels == expected(case)
            assert {finding for finding, label in labels.items() if label is None} - {*DISPUTED} == {*NEVER}
            assert part.patient(case) == f"p{case}"
    assert parts["test"].excluded == {"tst00003": "its .npz file is not there"}


def test_axes_are_inferior_posterior_left_of_eight_tenths_of_a_millimetre(root):
    part = RADChestCT(root, "test")
    scan, wanted = part.read_scan("tst00001"), np.clip(rad_chest_ct.slab("tst00001").hu, -1000, 1000)
    np.testing.assert_array_equal(scan.hu, spl(wanted))
    assert np.allclose(np.abs(scan.affine[:3, :3]).sum(axis=0), 0.8)
    assert scan.affine[2, 0] > 0 > scan.affine[1, 1]
    assert scan.affine[0, 2] < 0
    grid = part.scan_grid("tst00001")
    assert grid.shape == scan.shape
    np.testing.assert_array_equal(grid.affine, scan.affine)


def test_heads_of_ct_rate_are_reported_here_as_external_validation(root, tmp_path, monkeypatch):
    ct_rate.write(root.parent / "ct_rate")
    trained = run("classification/ct_rate.yaml", root.parent, None, tmp_path, "classification", encoder=PATCHES)
    (session,) = (path.parent for path in tmp_path.glob("logs/ct_rate/*/record.json"))
    for name, value in {
        "DATA_ROOT": root.parent,
        "N_RUNS": 1,
        "ACCELERATOR": "cpu",
        "OUTPUT_ROOT": tmp_path / "out",
    }.items():
        monkeypatch.setenv(name, str(value))
    configs = [str(CONFIGS / "classification/rad_chest_ct.yaml"), str(tmp_path / "overrides.yaml")]
    words = [word for path in configs for word in ("--config", path)]
    monkeypatch.setattr(sys, "argv", ["eva", "test", *words, f"--model.head={session}"])
    main()
    (path,) = tmp_path.glob("out/rad_chest_ct/*/record.json")
    record = read_record(path)
    assert record.probe.head_from.name == "ct_rate"
    assert record.runs[0].probe_sha256 == trained.runs[0].probe_sha256
    assert external(record).startswith(EXTERNAL)
    cases = {case.case: case for case in record.runs[0].cases["test"]}
    assert {name: case.target for name, case in cases.items()} == {name: expected(name) for name in cases}
    assert len(cases) == 2
    assert all(list(case.logits) == list(FINDINGS) for case in cases.values())
    assert 0 <= record.runs[0].metrics["test"]["MicroAUROC"] <= 1
    assert record.runs[0].metrics["test"]["UndefinedLabels"] >= len(NEVER)


# --- what can be wrong -------------------------------------------------------------------------------------


def cut_short(root):
    path = root / "tst00001.npz"
    path.write_bytes(path.read_bytes()[:-2000])


def another_array(root):
    np.savez_compressed(root / "tst00001.npz", volume=np.zeros((8, 8, 8), np.int16))


def objects(root):
    np.savez_compressed(root / "tst00001.npz", ct=np.array([{}], dtype=object))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_short, r"tst00001\.npz cannot be read as a \.npz file"),
        (another_array, r"tst00001\.npz has no array 'ct', but volume\.npy"),
        (objects, r"tst00001\.npz cannot be read as a \.npz file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_scan_that_cannot_be_read_is_named_and_nothing_of_it_is_run(spoil, message, root):
    spoil(root)
    with pytest.raises(TapctError, match=message):
        TaskData("rad_chest_ct", str(root.parent)).setup("test")


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (TEST, lambda text: text.replace("emphysema*", "emphysem*"), "no column of emphysema"),
        (TEST, lambda text: text.replace("tst00001", "trn00001"), "trn00001: it is there twice"),
        (
            TEST,
            lambda text: text.replace(",1,", ",0.5,"),
            r"tst00001: .*\*other_location is '0\.5', but must be 0 or 1",
        ),
        (PATIENTS, lambda text: text.replace("tst00002", "tst0000"), "names no patient of tst00002"),
        (PATIENTS, lambda text: text.replace("ptst00001", "ptrn00001"), "patient ptrn00001 is in train and in test"),
        (PATIENTS, lambda text: text + "p9,tst00001,tst00001.npz,0.8\n", "two rows have the scan tst00001, and differ"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, change, message, root):
    edited(root / table, change)
    with pytest.raises(TaskError, match=message):
        RADChestCT(root, "test")


def test_where_public_tables_disagree_on_a_scan_its_finding_is_not_stated(root):
    def changed(**values):
        rad_chest_ct.write(root)
        header, first, *_ = (root / TEST).read_text(encoding="utf-8").splitlines()
        patches = dict(zip(header.split(","), first.split(","), strict=True))
        tokens = {token for tables in DISPUTED.values() for of in tables for token in of}
        patches = {name: "0" if name.split("*")[0] in tokens else value for name, value in patches.items()}
        patches |= {f"{token}*lung": str(value) for token, value in values.items()}
        edited(root / TEST, lambda text: text.replace(first, ",".join(patches.values())))
        labels = dict(zip(FINDINGS, RADChestCT(root, "test").targets("tst00001"), strict=True))
        return labels["Medical material"], labels["Pulmonary fibrotic sequela"]

    assert changed() == (0, 0)
    assert changed(stent=1, fibrosis=1, scarring=1) == (1, 1)
    assert changed(suture=1, fibrosis=1) == (None, None)
    assert changed(suture=1, clip=1, scarring=1) == (1, None)


def test_a_scan_of_another_spacing_is_left_out(root):
    edited(root / PATIENTS, lambda text: text.replace("tst00001.npz,0.8", "tst00001.npz,1.6"))
    reason = f"{PATIENTS} has the final_spacing 1.6 of it, and all scans are of 0.8 mm"
    assert RADChestCT(root, "test").excluded["tst00001"] == reason
    edited(root / PATIENTS, lambda text: "".join(row.rpartition(",")[0] + "\n" for row in text.splitlines()))
    assert "tst00001" in RADChestCT(root, "test").cases  # a table without the column says nothing


def test_the_doctor_counts_against_the_release(root):
    found = {message: status for status, message, _ in findings("rad_chest_ct", str(root.parent))}
    assert found["8 scans with labels are there, and the release has 3,630"] == "warn"
    assert found["tst00003 is left out: its .npz file is not there"] == "warn"
    assert found["all 8 cases can be read, scan and target"] == "ok"
    assert "fail" not in found.values()
