"""`tapct embed`: features of any scan in files of their own."""

import numpy as np
import pytest
import safetensors.torch
import torch

from tapct.errors import FeatureError
from tapct.features import extract
from tapct.features.embed import about, embed, target_of
from tapct.volumes import read_ct
from tests.conftest import QUICKSTART
from tests.data.abdomen import block, save
from tests.small import CubicMillimetres, Small3D


@pytest.fixture
def scans(tmp_path):
    paths = [tmp_path / "data" / patient / "ct.nii.gz" for patient in ("p1", "p2")]
    for number, path in enumerate(paths):
        slab = block(60 + 20 * number)
        save(path, slab.hu, slab.affine, axes=("LPS", "RAS")[number])
    return paths


def statuses(found):
    return [one.status for one in found]


def test_a_file_holds_the_features_and_where_they_lie(scans, tmp_path):
    encoder = Small3D("random")
    (one, _) = embed(encoder, scans, tmp_path / "out", dtype="fp32")
    assert one.target == tmp_path / "out" / "p1" / "ct.safetensors"
    ct = read_ct(scans[0])
    expected = extract(encoder, torch.from_numpy(ct.hu), ct.grid)
    tensors = safetensors.torch.load_file(one.target)
    assert torch.equal(tensors["map"], expected.map)
    assert torch.equal(tensors["embeddings"], expected.embeddings)
    assert tensors["affine"].numpy() == pytest.approx(expected.feature_grid.affine)
    assert tensors["windows"].tolist() == [[0, 0, 0], [4, 0, 0]]  # 12 slices, windows of 8
    said = about(one.target)
    assert said["card"]["name"] == "small-3d"
    assert said["encoder"]["weights"] == "random"
    assert np.array(said["native_grid"]["affine"]) == pytest.approx(ct.affine)
    assert str(tmp_path) not in one.target.read_bytes()[:20_000].decode(errors="replace")


def test_the_same_command_again_does_what_is_missing(scans, tmp_path):
    def run():
        return statuses(embed(Small3D("random", deferred=True), scans, tmp_path / "out"))

    assert run() == ["written", "written"]
    before = (tmp_path / "out" / "p1" / "ct.safetensors").stat().st_mtime_ns
    (tmp_path / "out" / "p2" / "ct.safetensors").unlink()
    assert run() == ["there", "written"]
    assert (tmp_path / "out" / "p1" / "ct.safetensors").stat().st_mtime_ns == before


def test_another_encoder_or_scan_under_the_same_name_is_not_taken_for_this_one(scans, tmp_path):
    out = tmp_path / "out"
    list(embed(Small3D("random"), scans, out))
    (other, _) = embed(CubicMillimetres("random"), scans, out)
    assert other.status == "failed"
    assert "by another encoder (small-3d)" in other.reason
    slab = block(30)
    save(scans[0], slab.hu, slab.affine)
    assert statuses(embed(Small3D("random"), scans, out)) == ["failed", "there"]
    assert statuses(embed(Small3D("random"), scans, out, replace=True)) == ["written", "there"]


def test_a_scan_that_fails_does_not_stop_the_others(scans, tmp_path):
    scans[0].write_bytes(scans[0].read_bytes()[:1000])
    missing = tmp_path / "data" / "p3" / "ct.nii.gz"
    found = list(embed(Small3D("random"), [*scans, missing], tmp_path / "out"))
    assert statuses(found) == ["failed", "written", "failed"]
    assert str(scans[0]) in found[0].reason
    assert "does not exist" in found[2].reason
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["ct.safetensors"]


def test_a_damaged_file_is_said_and_replaced_on_demand(scans, tmp_path):
    (one, _) = embed(Small3D("random"), scans, tmp_path / "out")
    one.target.write_bytes(one.target.read_bytes()[:500])
    (again, _) = embed(Small3D("random"), scans, tmp_path / "out")
    assert "damaged" in again.reason
    assert statuses(embed(Small3D("random"), scans, tmp_path / "out", replace=True)) == ["written", "there"]


def test_values_too_large_for_the_dtype_are_refused(scans, tmp_path):
    class Large(Small3D):
        def _encode(self, windows_hu):
            features = super()._encode(windows_hu)
            return features._replace(map=features.map * 1e6)

    assert "too large for fp16" in next(embed(Large("random"), scans, tmp_path / "out")).reason
    assert next(embed(Large("random"), scans, tmp_path / "out", dtype="fp32")).status == "written"


def test_names_come_from_the_file_and_its_folder(tmp_path):
    assert target_of(tmp_path / "s1" / "CT.NII.GZ", tmp_path) == tmp_path / "s1" / "CT.safetensors"
    assert target_of(tmp_path / "s1" / "a.b.mha", tmp_path) == tmp_path / "s1" / "a.b.safetensors"
    assert target_of(tmp_path / "s1" / "series.1", tmp_path) == tmp_path / "s1" / "series.1.safetensors"
    twice = [tmp_path / "a" / "s" / "ct.nii.gz", tmp_path / "b" / "s" / "ct.nii.gz"]
    with pytest.raises(FeatureError, match="two folders"):
        list(embed(Small3D("random"), twice, tmp_path / "out"))


def test_a_dicom_folder_is_one_scan(tmp_path):
    folder = QUICKSTART / "chest" / "ct_dicom"
    (one,) = embed(Small3D("random"), [folder], tmp_path)
    assert one.target == tmp_path / "chest" / "ct_dicom.safetensors"
    assert one.status == "written"


def test_how_a_scan_was_read_is_said_and_kept(scans, tmp_path):
    slab = block(60)
    hu = slab.hu.copy()
    hu[:8] = -3024
    save(scans[0], hu, slab.affine)
    padded, plain = embed(CubicMillimetres("random"), scans, tmp_path / "out")
    note = "10.00% of the voxels lie below -1500 HU, mostly at -3024: padding outside the field of view, raised to"
    assert [one.startswith(note) for one in padded.notes] == [True]
    assert about(padded.target)["notes"] == list(padded.notes)
    assert (plain.notes, about(plain.target)["notes"]) == ((), [])
