"""Packs whose targets are missing in places, and those of galleries: a run on one is the run on the scans."""

import pytest

from tapct.packs import commands
from tests.data import rad_chest_ct, totalsegmentator
from tests.tasks.end_to_end import CONFIGS, run, write_split


def findings(data):
    rad_chest_ct.write(data / "rad_chest_ct")


def gallery(data):
    totalsegmentator.write_patients(data / "totalsegmentator")
    totalsegmentator.write_about(data / "totalsegmentator")


@pytest.mark.parametrize(
    ("write", "kind", "task", "missing", "targets"),
    [
        (findings, "classification", "rad_chest_ct", 6, True),
        pytest.param(  # with the label file that is here
            *(findings, "classification", "rad_chest_ct", 6, False), marks=pytest.mark.thorough
        ),
        (gallery, "retrieval", "totalsegmentator_retrieval", 0, True),
    ],
    ids=["findings", "findings without targets", "gallery"],
)
def test_a_run_on_a_pack_is_the_run_on_the_scans(write, kind, task, missing, targets, tmp_path, monkeypatch):
    write(data := tmp_path / "data")
    config, split = CONFIGS / kind / f"{task}.yaml", None
    if kind == "retrieval":  # the release has more scans than the tree
        split = write_split(tmp_path / "split.csv", test=[*totalsegmentator.PATIENTS])
        text = config.read_text(encoding="utf-8")
        config = tmp_path / "config.yaml"
        config.write_text(text.replace("${oc.env:SPLIT_FILE, null}", "${oc.env:OF_PACK, null}"), encoding="utf-8")
        monkeypatch.setenv("OF_PACK", str(split))
    (tmp_path / "scans").mkdir()
    (tmp_path / "pack").mkdir()
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "features"))
    on_scans = run(config, data, None, tmp_path / "scans", kind, encoder="intensity")
    path, of = str(tmp_path / "pack.tar"), {"config": str(config), "accelerator": "cpu"}
    assert commands.pack(encoder="intensity", task=task, out=path, root=str(data), targets=targets, **of) == 0
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "elsewhere"))
    assert commands.unpack(path) == 0
    (unpacked,) = (tmp_path / "elsewhere" / "packs").iterdir()
    monkeypatch.setenv("PACK", unpacked.name)
    monkeypatch.delenv("OF_PACK", raising=False)
    there = tmp_path / "nowhere" if targets else data
    on_pack = run(config, there, None, tmp_path / "pack", kind, encoder="intensity")
    assert on_pack.runs == on_scans.runs
    assert on_pack.task.split_sha256 == on_scans.task.split_sha256
    targets_of = [value for case in on_pack.runs[0].cases["test"] for value in (case.target or {}).values()]
    assert sum(value is None for value in targets_of) >= missing
