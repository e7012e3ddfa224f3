"""`tapct export-embeddings`: stored features as eva's own data sets read them."""

import csv
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eva.core.data.datasets.classification import (
    EmbeddingsClassificationDataset,
    MultiEmbeddingsClassificationDataset,
)
from eva.vision.data.datasets import EmbeddingsSegmentationDataset

from tapct.errors import FeatureError
from tapct.features import FeatureBank, TensorStore
from tapct.packs.commands import export_embeddings
from tapct.packs.embeddings import export
from tapct.probes.adaptors import instances
from tapct.tasks import TaskData
from tapct.tasks.fdg_pet_ct import FDGPETCT
from tapct.tasks.rsna2023 import SPEC as RSNA2023
from tests.data import fdg_pet_ct
from tests.data.abdomen import write_slabs
from tests.small import Small3D, known_by_name

CASES = {"c0": "train", "c1": "val", "c2": "test"}
READ = {
    "map": EmbeddingsSegmentationDataset,
    "embedding": EmbeddingsClassificationDataset,
    "windows": MultiEmbeddingsClassificationDataset,
    "patches": MultiEmbeddingsClassificationDataset,
}


@pytest.fixture(autouse=True)
def _start_method():
    """eva's data sets change it for the whole process."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture(scope="module", autouse=True)
def _encoder_by_name():
    with known_by_name("small-3d", "tests.small:Small3D"):
        yield


def slabs(root: Path) -> TaskData:
    return TaskData("quickstart", str(root), split_file=str(root / "split.csv"))


def studies(root: Path) -> TaskData:
    return TaskData("fdg_pet_ct", str(root), split_file=str(root / "studies.csv"))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three slabs of the quickstart and three studies with a class, and the stored features of both."""
    root = write_slabs(tmp_path_factory.mktemp("data"), CASES)
    fdg_pet_ct.write_release(root / "fdg_pet_ct")
    sides = zip(list(fdg_pet_ct.STUDIES)[:4], ("train", "train", "test", "test"), strict=True)
    rows = [f"{case},{case[:16]},{split}" for case, split in sides]
    (root / "studies.csv").write_text("\n".join(["case,patient,split", *rows]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPCT_CACHE", str(root / "cache"))
        bank(root).fill(slabs(root).parts)
        bank(root).fill(studies(root).parts)
    return root


def bank(root: Path, mode: str = "use") -> FeatureBank:
    return FeatureBank(Small3D("random"), TensorStore(root / "features"), mode=mode, dtype="fp32")


def made(root: Path, data: TaskData, folder: Path, **settings):
    asked = {"what": None, "label": None, "replace": False, **settings}
    return export(bank(root, "only-cached"), data, folder, **asked)


def read(folder: Path, what: str, split: str):
    dataset = READ[what](root=str(folder), manifest_file="manifest.csv", split=split)
    dataset.setup()
    return dataset


def test_eva_reads_maps_and_masks_that_upsample_to_the_scan(root, tmp_path):
    done = made(root, slabs(root), tmp_path)
    assert (done.cases, done.written) == (3, 6)
    filled = bank(root)
    filled.fill(slabs(root).parts)
    for part in slabs(root).parts:
        (maps, mask), case = read(tmp_path, "map", part.split)[0], filled.case(part, 0)
        assert len(maps) == 1
        assert torch.allclose(maps[0], case.features.map, atol=1e-6)
        assert torch.equal(torch.as_tensor(mask), case.target[None].long())
        assert mask.dtype == torch.int64
        assert F.interpolate(maps[0][None], size=mask.shape[1:], mode="trilinear").shape[2:] == case.target.shape


@pytest.mark.parametrize("what", ["embedding", "windows", "patches"])
def test_eva_reads_vectors_and_bags_with_their_class(root, tmp_path, what):
    assert made(root, studies(root), tmp_path, what=what).cases == 4
    filled = bank(root)
    filled.fill(studies(root).parts)
    for part in studies(root).parts:
        dataset = read(tmp_path, what, part.split)
        assert len(dataset) == len(part)
        for index in range(len(part)):
            features = filled.case(part, index).features
            expected = {
                "embedding": features.embeddings.mean(0),
                "windows": features.embeddings,
                "patches": instances(features, "patch").whole().T,
            }[what]
            found, target = dataset[index]
            assert torch.allclose(found, expected, atol=1e-6)
            assert int(target) == part.targets(part.cases[index])[0]
            assert np.asarray(target).dtype == np.int64


def test_the_command_says_what_it_did_and_does_what_is_missing(root, tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(
        "model: {init_args: {encoder: small-3d, weights: random, feature_dtype: fp32}}\n"
        f"data: {{init_args: {{task: quickstart, data_root: {root}, split_file: {root / 'split.csv'}}}}}\n"
    )
    asked = {"config": str(config), "accelerator": "cpu", "folder": str(root / "features")}
    out = tmp_path / "out"
    assert export_embeddings(encoder="small-3d", task="quickstart", out=str(out), **asked) == 0
    assert "3 cases for eva, 6 files written" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    (tmp_path / "out" / "manifest.csv").unlink()
    next(out.glob("val/c1-mask-*.pt")).unlink()
    monkeypatch.setattr(Small3D, "load", lambda self: pytest.fail("nothing is encoded"))
    assert export_embeddings(encoder="small-3d", task="quickstart", out=str(out), **asked) == 0
    assert "3 cases for eva, 2 files written" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["origin"], row["split"], row["patient"]) for row in csv.DictReader(file)] == [
            ("c0", "train", "pc0"),
            ("c1", "val", "pc1"),
            ("c2", "test", "pc2"),
        ]


def test_what_eva_cannot_read_or_would_take_for_something_else_is_refused(root, tmp_path):
    made(root, studies(root), tmp_path)
    with pytest.raises(FeatureError, match="is of other embeddings"):
        made(root, studies(root), tmp_path, what="windows")
    assert made(root, studies(root), tmp_path, what="windows", replace=True).written == 4
    with pytest.raises(FeatureError, match="only --what map"):
        made(root, slabs(root), tmp_path / "a", what="embedding")
    with pytest.raises(FeatureError, match="leave --what map out"):
        made(root, studies(root), tmp_path / "a", what="map")
    with pytest.raises(FeatureError, match=r"no label 'tumor'\. Did you mean 'tumour'"):
        made(root, studies(root), tmp_path / "a", label="tumor")
    missing = FeatureBank(Small3D("random"), TensorStore(tmp_path / "empty"), mode="only-cached")
    with pytest.raises(FeatureError, match="of 3 cases of quickstart"):
        export(missing, slabs(root), tmp_path / "a", what=None, label=None, replace=False)
    assert not (tmp_path / "a").exists()


def test_several_labels_a_case_need_a_choice(tmp_path):
    data = SimpleNamespace(spec=RSNA2023)
    with pytest.raises(FeatureError, match=f"has {len(RSNA2023.classes)}: .*Choose one with --label"):
        export(None, data, tmp_path, what=None, label=None, replace=False)


def test_a_case_that_does_not_state_the_label_is_left_out(root, tmp_path, monkeypatch):
    unstated, stated = list(fdg_pet_ct.STUDIES)[1], FDGPETCT.targets

    def targets(self, case):
        return (None,) if case == unstated else stated(self, case)

    monkeypatch.setattr(FDGPETCT, "targets", targets)
    made(root, studies(root), tmp_path / "a")
    with (tmp_path / "a" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert not [row for row in rows if unstated in "".join(row.values())]
    assert {row["target"] for row in rows} <= {"0", "1"}
