"""The commands as they are typed, in this process, on an encoder that is found as a third party's would be."""

import csv
import json
import shutil
import sys
from importlib.metadata import EntryPoint

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import safetensors.torch

from tapct import cli
from tapct.encoders import registry
from tests.data.abdomen import block, save

SURROUNDINGS = ("-e", "surroundings", "-w", "random")


@pytest.fixture(autouse=True)
def _known_encoder(monkeypatch):
    point = EntryPoint("surroundings", "tests.viz.encoders:Surroundings", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])


@pytest.fixture
def ct(tmp_path):
    slab = block(60, slices=20)
    save(tmp_path / "p1" / "ct.nii.gz", slab.hu, slab.affine)
    liver = slab.labels({5: 1})
    liver[:, :, :8] = 0
    save(tmp_path / "p1" / "liver.nii.gz", liver, slab.affine)
    return tmp_path / "p1" / "ct.nii.gz"


def tapct(monkeypatch, *words) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["tapct", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_embed(ct, tmp_path, monkeypatch, capsys):
    other = shutil.copytree(ct.parent, tmp_path / "p2") / "ct.nii.gz"
    assert tapct(monkeypatch, "embed", ct, other, *SURROUNDINGS, "-o", tmp_path / "out", "--dtype", "fp32") == 0
    assert safetensors.torch.load_file(tmp_path / "out" / "p2" / "ct.safetensors")["map"].shape[0] == 28
    other.write_bytes(b"")
    capsys.readouterr()
    assert tapct(monkeypatch, "embed", ct, other, *SURROUNDINGS, "-o", tmp_path / "out", "--dtype", "fp32") == 1
    printed = capsys.readouterr()
    there, failed = printed.out.splitlines()  # a line for each input
    assert "is in" in there
    assert "FAILED" in failed
    assert "1 of 2 failed" in printed.err


def test_features(ct, tmp_path, monkeypatch):
    assert tapct(monkeypatch, "features", ct, ct, *SURROUNDINGS, "--pca", "-o", tmp_path / "pca.png") == 0
    image = nib.load(ct)
    x, y, z = image.affine[:3, :3] @ (np.array(image.shape) / 2) + image.affine[:3, 3]
    assert tapct(monkeypatch, "features", ct, *SURROUNDINGS, f"--at={x},{y},{z}", "-o", tmp_path / "at.png") == 0
    for name in ("pca", "at"):
        assert np.ptp(matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3], axis=2).max() > 0.3
    assert tapct(monkeypatch, "features", ct, *SURROUNDINGS, "-o", tmp_path / "page.html") == 0
    assert "<canvas" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_retrieve(ct, tmp_path, monkeypatch, capsys):
    liver, out = ct.with_name("liver.nii.gz"), tmp_path / "out"
    words = ("retrieve", ct, liver, ct, *SURROUNDINGS, "-o", out, "--followup-mask", liver, "--top-k", 7)
    assert tapct(monkeypatch, *words) == 0
    rows = list(csv.DictReader((out / "matches.csv").open(encoding="utf-8")))
    found = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert len(rows) == found["matches"] == 7
    assert found["hit_rate"] == pytest.approx(np.mean([int(row["hit"]) for row in rows]))
    assert found["hit_rate"] > 0.5
    assert (out / "matches.png").is_file()
    printed = capsys.readouterr()
    assert printed.out == (out / "matches.csv").read_text(encoding="utf-8"), "a table, and nothing else"
    assert "hit rate" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("features", "CT", *SURROUNDINGS, "-o", "x.png"), "give one of --pca, --at=X,Y,Z"),
        (("features", "CT", *SURROUNDINGS, "--pca", "-o", "x.html"), "give one of --pca, --at=X,Y,Z"),
        (("features", "CT", *SURROUNDINGS, "--at=1,2", "-o", "x.png"), "--at takes x,y,z in mm"),
        (("features", "CT", *SURROUNDINGS, "--at=9999,2,3", "-o", "x.png"), "lies outside"),
        (("features", "CT", "-e", "sorroundings", "--pca", "-o", "x.png"), "Did you mean 'surroundings'"),
        (("features", "none.nii.gz", *SURROUNDINGS, "--pca", "-o", "x.png"), "none.nii.gz does not exist"),
        (("features", "CT", "CT", *SURROUNDINGS, "-o", "x.html"), "shows one scan"),
        (("retrieve", "CT", "CT", "CT", *SURROUNDINGS, "-o", "x"), "labels are whole numbers"),
        (("retrieve", "CT", "LIVER", "CT", *SURROUNDINGS, "-o", "x", "--top-k", "0"), "--top-k must be 1 or more"),
        (("retrieve", "CT", "LIVER", "CT", *SURROUNDINGS, "-o", "x", "--label", "3"), "no voxel of label 3"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, ct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"CT": ct, "LIVER": ct.with_name("liver.nii.gz")}
    assert message in str(tapct(monkeypatch, *(known.get(word, word) for word in words)))


@pytest.mark.parametrize("words", [("features", "a.nii.gz", "-o", "x"), ("retrieve", "a", "b"), ("embed", "-e", "x")])
def test_a_wrong_command_line_ends_with_status_2(words, monkeypatch):
    assert tapct(monkeypatch, *words) == 2
