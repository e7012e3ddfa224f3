"""The store's own intensities as the run's normalisation, and a word where it is far from the one that is given."""

import json
import shutil

import numpy as np
import pytest

from pretrain.data.batches import Batches
from pretrain.errors import PretrainError
from pretrain.settings import load_config
from pretrain.training.normalisation import far_from_store, with_intensities
from tests.pretrain.runs import arguments, checkpoint, run_here
from tests.pretrain.test_prepare import run, scan, write


@pytest.fixture
def bright(tmp_path):
    """A store of scans of 40 HU with noise of 20 in the body: far from the paper's."""
    for name in "ab":
        write(tmp_path / "in" / f"{name}.nii.gz", scan(seed=ord(name)))
    assert run(tmp_path / "in", "-o", tmp_path / "bright") == 0
    return tmp_path / "bright"


def config_of(store, output, *more):
    return load_config(arguments(store, output)[1], [*arguments(store, output)[2:], *more])


def test_the_stores_own_numbers_are_taken_and_are_those_of_its_voxels(bright, tmp_path):
    plain = ("--crops.gamma_probability=0.0", "--crops.blur_probability=[0, 0, 0]")
    config = with_intensities(config_of(bright, tmp_path / "run", "--data.intensities=store", *plain))
    assert config.data.mean_hu == pytest.approx(40, abs=1)
    assert config.data.std_hu == pytest.approx(20, rel=0.03)
    assert config.data.clip_hu == pytest.approx((40 - 2.576 * 20, 40 + 2.576 * 20), abs=3), "of a normal distribution"
    assert far_from_store(config) is None
    values = np.asarray(Batches(config, "cpu").get(0, 0).global_crops)
    assert values.min() == pytest.approx(-2.576, abs=0.2), "air, clipped"
    assert np.median(values[values > values.min() + 0.01]) == pytest.approx(0, abs=0.2)


def test_numbers_that_are_given_stay_and_a_store_far_from_them_is_named(bright, tmp_path, store):
    config = config_of(bright, tmp_path / "run")
    assert with_intensities(config) == config
    said = far_from_store(config)
    assert "a mean of 0.39 and a standard deviation of 0.06 instead of 0 and 1" in said
    assert "--data.intensities=store" in said
    own = json.loads((store / "fingerprint.json").read_text(encoding="utf-8"))
    near = (f"--data.mean_hu={own['mean_hu'] + 0.2 * own['std_hu']}", f"--data.std_hu={1.2 * own['std_hu']}")
    assert far_from_store(config_of(store, tmp_path / "run", *near)) is None


def test_a_run_keeps_its_numbers_when_its_store_grows(bright, tmp_path, capsys):
    output = tmp_path / "run"
    ours = ("--data.intensities=store", "--run.micro_batches=1", "--run.adopt_store=true")
    assert run_here(bright, output, *ours, "--run.stop_at=1") == 0
    numbers = load_config(output / "config.yaml").data
    assert numbers.std_hu < 25
    write(tmp_path / "in" / "c.nii.gz", np.where(scan() > -500, scan() * 4, scan()))
    assert run(tmp_path / "in", "-o", bright) == 0
    assert with_intensities(config_of(bright, tmp_path / "other", *ours)).data.std_hu > 25
    assert run_here(bright, output, *ours, "--run.stop_at=2") == 0
    assert load_config(output / "config.yaml").data == numbers
    assert f"std_hu: {numbers.std_hu}" in checkpoint(output, 2)["config"]
    assert run_here(bright, output, *ours[1:], "--run.stop_at=3") == 1
    assert "data.std_hu was" in capsys.readouterr().err


def test_percentiles_beyond_the_stores_range_are_cut_to_it(store, tmp_path):
    own = json.loads((store / "fingerprint.json").read_text(encoding="utf-8"))
    copy = shutil.copytree(store, tmp_path / "copy")
    (copy / "fingerprint.json").write_text(json.dumps(own | {"percentile_99_5_hu": 2000}), encoding="utf-8")
    assert with_intensities(config_of(copy, tmp_path / "run", "--data.intensities=store")).data.clip_hu[1] == 822


def test_a_fingerprint_of_other_volumes_is_refused(store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    index = copy / "index.jsonl"
    index.write_text(index.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(PretrainError, match=r"fingerprint\.json is of 2 volumes, and the store has 1.*prepare"):
        with_intensities(config_of(copy, tmp_path / "run", "--data.intensities=store"))
    assert "are not compared" in far_from_store(config_of(copy, tmp_path / "run"))
    (copy / "fingerprint.json").unlink()
    with pytest.raises(PretrainError, match=r"fingerprint\.json cannot be read"):
        with_intensities(config_of(copy, tmp_path / "run", "--data.intensities=store"))
