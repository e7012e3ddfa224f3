"""Records of retrieval and reliability, whose head is the scans: submitted, verified, and encoded again."""

import numpy as np
import pytest

from tapct.submission import commands
from tests.data import ct_rate
from tests.data.abdomen import block, save
from tests.tasks.end_to_end import run

CONFIG = "retrieval/ct_rate_retrieval.yaml"
PAIRS = "reliability/ct_rate_reconstructions.yaml"


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    ct_rate.write(folder / "data" / "ct_rate")
    run(CONFIG, folder / "data", None, folder, "retrieval", encoder="intensity")
    (path,) = folder.glob("logs/*/*/record.json")
    assert commands.submit(str(path), out=str(folder / "out")) == 0
    return folder


def verified(folder, data, capsys):
    status = commands.verify([str(folder / "out")], recompute=2, data_root=str(data), json=True)
    return status, capsys.readouterr().out


def test_a_gallery_is_submitted_and_comes_out_again(submitted, capsys):
    status, said = verified(submitted, submitted / "data", capsys)
    assert status == 0, said
    assert said.count("numbers are the same") + said.count("numbers agree") == 2


def test_scans_that_are_not_those_of_the_gallery_do_not_pass(submitted, tmp_path, capsys):
    """Other scans under the same names: the numbers of the gallery are as they were, and its features are not."""
    root = ct_rate.write(tmp_path / "ct_rate") / "dataset"
    for number, volume in enumerate(ct_rate.VALID):
        slab = block(100 - 6 * number, slices=8)
        save(ct_rate.path_of(root, volume), np.clip(slab.hu + 300, -1000, 1000), slab.affine)
    status, said = verified(submitted, tmp_path, capsys)
    assert status == 1
    assert "the distance of its features from those of the head" in said


def test_pairs_are_submitted_and_come_out_again_and_other_scans_do_not_pass(tmp_path, capsys):
    """Of every scan, another one under the same name."""
    ct_rate.write(tmp_path / "data" / "ct_rate", more=ct_rate.MORE)
    run(PAIRS, tmp_path / "data", None, tmp_path, "reliability", encoder="intensity")
    (path,) = tmp_path.glob("logs/*/*/record.json")
    assert commands.submit(str(path), out=str(tmp_path / "out")) == 0
    status, said = verified(tmp_path, tmp_path / "data", capsys)
    assert status == 0, said
    assert said.count("numbers are the same") + said.count("numbers agree") == 2
    root = ct_rate.write(tmp_path / "other" / "ct_rate", more=ct_rate.MORE) / "dataset"
    for number, volume in enumerate((*ct_rate.VALID, *ct_rate.MORE)):
        slab = block(100 - 6 * number, slices=8)
        save(ct_rate.path_of(root, volume), np.clip(slab.hu + 300, -1000, 1000), slab.affine)
    status, said = verified(tmp_path, tmp_path / "other", capsys)
    assert status == 1
    assert "the distance of its features from those of the head" in said
