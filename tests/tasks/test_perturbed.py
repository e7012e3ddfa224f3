"""Perturbed tasks: the reported scans alone, and never features of other scans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tapct.errors import TaskError
from tapct.features.bank import FeatureBank
from tapct.features.store import TensorStore
from tapct.tasks import TaskData
from tapct.tasks.splits import SPLITS
from tapct.volumes import perturb
from tapct.volumes.perturb import PERTURBATIONS, Noise
from tests.data.abdomen import block, save
from tests.small import CubicMillimetres

CASES = {"c0": "train", "c1": "val", "c2": "test", "c3": "test"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for number, case in enumerate(CASES):
        slab = block(60 + 10 * number, 10)
        save(root / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    rows = [f"{case},p{case},{split}" for case, split in CASES.items()]
    (root / "split.csv").write_text("\n".join(["case,patient,split", *rows]))
    return root


def data(root, perturbation=None, **settings) -> TaskData:
    return TaskData("quickstart", str(root), split_file=str(root / "split.csv"), perturbation=perturbation, **settings)


def hu(part, index=0) -> np.ndarray:
    return part[index][0].as_subclass(torch.Tensor)[:, 0].numpy()


def test_only_reported_scans_are_perturbed(root):
    plain, noisy = data(root), data(root, "noise-100hu")
    for split, before, after in zip(SPLITS, plain.parts, noisy.parts, strict=True):
        assert np.array_equal(hu(before), hu(after)) == (split != "test")
        assert torch.equal(before[0][1], after[0][1])
    expected = Noise(100.0)(plain.scan("c3"), "quickstart:c3").hu
    assert np.array_equal(hu(noisy.parts[2], 1), expected)
    assert np.array_equal(noisy.scan("c3").hu, expected)


def test_the_record_says_which(root):
    about = data(root, "contrast-1.4").describe()
    assert about["perturbation"] == "contrast-1.4"
    assert about["perturbation_parameters"] == {"kind": "contrast", "gain": 1.4, "pivot_hu": 40.0}
    assert data(root).describe()["perturbation"] is None
    assert about["split_sha256"] == data(root).describe()["split_sha256"]


def test_labels_follow_a_cut_field_of_view(root):
    before, after = (np.asarray(data(root, name).parts[2][0][1][:, 0]) for name in (None, "fov-z-0.5"))
    assert before.shape == after.shape
    kept = slice(2, 7)  # of 10 slices, the 5 in the middle
    assert np.array_equal(before[kept], after[kept])
    assert before[:2].any()
    assert not after[:2].any()
    assert not after[7:].any()


def filled(folder, task: TaskData) -> FeatureBank:
    bank = FeatureBank(CubicMillimetres("random", deferred=True), TensorStore(folder), dtype="fp32")
    bank.fill(task.parts)
    return bank


ONE_OF_A_KIND = list({type(one): name for name, one in PERTURBATIONS.items()}.values())


@pytest.mark.parametrize(
    "names", [ONE_OF_A_KIND, pytest.param([*PERTURBATIONS], marks=pytest.mark.thorough)], ids=["one of a kind", "all"]
)
def test_a_perturbed_scan_never_has_the_features_of_another_and_training_features_are_kept(root, tmp_path, names):
    """A stale hit would report the unperturbed number, as perfect robustness."""
    plain = data(root)
    bank = filled(tmp_path, plain)
    assert bank.extracted == 4
    maps = [bank.case(plain.parts[2], 0).features.map]
    for name in names:
        task = data(root, name)
        bank = filled(tmp_path, task)
        assert bank.extracted == 2, name
        case = bank.case(task.parts[2], 0)
        assert not any(torch.equal(case.features.map, other) for other in maps), name
        maps.append(case.features.map)
        assert torch.equal(case.target, task.parts[2][0][1][:, 0].as_subclass(torch.Tensor))
        assert filled(tmp_path, data(root, name)).extracted == 0
    assert filled(tmp_path, plain).extracted == 0


def test_labels_are_stored_again_only_where_they_change(root, tmp_path):
    store = TensorStore(tmp_path)
    filled(tmp_path, data(root))
    before = len(store.files())
    filled(tmp_path, data(root, "noise-30hu"))
    assert len(store.files()) == before + 2  # features of two cases
    filled(tmp_path, data(root, "fov-z-0.5"))
    assert len(store.files()) == before + 2 + 4


def test_a_changed_level_or_changed_code_is_a_miss(root, tmp_path, monkeypatch):
    filled(tmp_path, data(root, "noise-30hu"))
    with monkeypatch.context() as patch:
        patch.setitem(PERTURBATIONS, "noise-30hu", Noise(31.0))
        assert filled(tmp_path, data(root, "noise-30hu")).extracted == 2
    source, edited = Path(perturb.__file__).read_text(encoding="utf-8"), tmp_path / "perturb.py"
    monkeypatch.setattr(perturb, "__file__", str(edited))
    for addition, extracted in (("# fixed\n", 0), ("FIXED = True\n", 2)):
        edited.write_text(source + addition, encoding="utf-8")
        assert filled(tmp_path, data(root, "noise-30hu")).extracted == extracted
    assert filled(tmp_path, data(root)).extracted == 2  # the reported scans without noise were never asked for


def test_what_cannot_be_perturbed_is_refused(root, tmp_path):
    with pytest.raises(TaskError, match="Did you mean 'noise-30hu'"):
        data(root, "noise30hu")
    (tmp_path / "split.csv").write_text("case,patient,split\nc0,p,train\n")
    with pytest.raises(TaskError, match="no reported cases"):
        TaskData("quickstart", str(root), split_file=str(tmp_path / "split.csv"), perturbation="noise-30hu")
