"""Cases that are encoded again: what was measured agrees, and a consistent lie does not."""

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session

from tapct.encoders import registry
from tapct.probes import SegmentationProbe, Trainer
from tapct.records import RECORD_FILE, read_record
from tapct.report.predictions import Found
from tapct.submission.again import chosen, recompute
from tapct.submission.folder import Submission, submit
from tapct.submission.rules import expected_metrics
from tapct.tasks import TaskData
from tests.data.abdomen import block, save
from tests.submission.made import lie

CASES = {"c0": "train", "c1": "test", "c2": "test"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three slabs of the quickstart's abdomen, as the cases of its task."""
    root = tmp_path_factory.mktemp("data")
    for number, case in enumerate(CASES):
        slab = block(40 + 10 * number, slices=8)
        save(root / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    rows = [f"{case},p{case},{split}" for case, split in CASES.items()]
    (root / "split.csv").write_text("\n".join(["case,patient,split", *rows]))
    return root


@pytest.fixture(scope="module", autouse=True)
def _encoder_by_name():
    point = EntryPoint("small-3d", "tests.small:Small3D", registry.GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: [point])
        yield


@pytest.fixture(scope="module")
def submitted(root, tmp_path_factory) -> Path:
    """A submission of a real session."""
    tmp_path = tmp_path_factory.mktemp("session")
    trainer = Trainer(
        default_root_dir=str(tmp_path / "logs"),
        accelerator="cpu",
        n_runs=1,
        max_steps=4,
        accumulate_grad_batches=1,
        enable_progress_bar=False,
    )
    probe = SegmentationProbe("small-3d", "random", feature_folder=str(root / "features"))
    data = TaskData("quickstart", str(root), split_file=str(root / "split.csv"))
    run_evaluation_session(trainer, probe, data, n_runs=1, verbose=False)
    (path,) = (tmp_path / "logs").glob("*/record.json")
    return submit(Found.at(path), tmp_path / "out", demonstration=True)


@pytest.fixture
def submission(submitted, tmp_path) -> Path:
    return Path(shutil.copytree(submitted, tmp_path / "submission"))


def again(folder: Path, root: Path, count: int = 2, salt: str = ""):
    settings = {"data_root": str(root), "weights": None, "salt": salt, "device": torch.device("cpu")}
    return list(recompute(Submission.read(folder), count, **settings))


def test_scans_weights_and_heads_give_what_the_record_says_and_a_consistent_lie_is_found(submission, root):
    assert [(check.status, check.name) for check in again(submission, root)] == [
        ("ok", "recompute c1"),
        ("ok", "recompute c2"),
    ]

    def better(content):
        for run in content["runs"]:
            for case in run["cases"]["test"]:
                for row in case["dice"].values():
                    row |= {name: value if value is None else min(1.0, value + 0.3) for name, value in row.items()}
            record = Submission.read(submission).record
            cases = [type(record.runs[0].cases["test"][0]).model_validate(case) for case in run["cases"]["test"]]
            run["metrics"]["test"] |= expected_metrics(cases)

    lie(submission, better)
    assert {check.status for check in again(submission, root)} == {"fail"}


def test_other_scans_and_other_weights_do_not_pass(submission, root, tmp_path):
    slab = block(90, slices=8)
    for case in CASES:
        save(tmp_path / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(tmp_path / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    assert "fail" in {check.status for check in again(submission, tmp_path)}
    lie(submission, lambda content: content["encoder"].update(weights_sha256="0" * 64))
    (check,) = again(submission, root)
    assert check.status == "fail"
    assert "other weights" in check.message


def test_nobody_chooses_the_cases(submission):
    record = read_record(submission / RECORD_FILE)
    cases = [record.runs[0].cases["test"][0].model_copy(update={"case": f"c{k}"}) for k in range(100)]
    many = record.model_copy(update={"runs": [record.runs[0].model_copy(update={"cases": {"test": cases}})]})
    one = chosen(many, 3, "")
    assert one == chosen(many, 3, ""), "the same for everybody"
    assert one != chosen(many, 3, "a word of the maintainer")
    assert one != [case.case for case in cases[:3]]
