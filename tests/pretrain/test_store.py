import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pretrain.data.encoding import encode
from pretrain.data.fingerprint import Histogram
from pretrain.data.store import Box, Store
from pretrain.errors import PretrainError
from tapct.volumes import read_ct
from tests.conftest import QUICKSTART
from tests.pretrain.conftest import CLIP_HU


@pytest.fixture
def own_store(store, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(store, tmp_path / "store")


def volume_of(store, patient):
    return next(store[number] for number in range(len(store)) if store[number].patient == patient)


@pytest.mark.parametrize(("case", "ct"), [("abdomen", "ct.nii.gz"), ("chest", "ct_dicom")])
def test_any_block_is_the_scan_clipped(store, case, ct):
    opened = Store(store)
    volume = volume_of(opened, case)
    scan = read_ct(QUICKSTART / case / ct)
    assert volume.shape == scan.shape
    assert volume.spacing_mm == scan.spacing_mm
    assert np.array_equal(opened.affine(volume), scan.affine)
    expected = scan.hu.clip(*CLIP_HU).round().astype(np.int16)
    rng = np.random.default_rng(0)
    for _ in range(20):
        first = [int(rng.integers(n)) for n in scan.shape]
        size = [int(rng.integers(1, n - f + 1)) for n, f in zip(scan.shape, first, strict=True)]
        box = Box(*first, *size)
        block = opened.read(volume, box)
        assert block.dtype == np.int16
        assert np.array_equal(block, expected[box.slices])


@pytest.mark.parametrize("shape", [(21, 128, 130), (9, 100, 512), (5, 64, 64), (17, 64, 600)], ids=str)
def test_whole_slices_of_any_size_are_the_scan(own_store, shape):
    """Also where blocks do not fill the chunks of the file, or are not as wide as a slice."""
    scan = np.random.default_rng(0).integers(*map(int, CLIP_HU), shape).astype(np.int16)
    opened = Store(own_store)
    volume = replace(opened[0], shape=shape)
    histogram = opened.histogram(opened[0])
    (opened.folder / volume.file).write_bytes(encode(scan, CLIP_HU, np.eye(4), histogram))
    for z in range(shape[0]):
        for depth in range(1, shape[0] - z + 1):
            assert np.array_equal(opened.read(volume, Box(z, 0, 0, depth, *shape[1:])), scan[z : z + depth])


def test_a_slab_costs_its_own_bytes(store):
    """The file is not read as a whole: blocks elsewhere may be damaged."""
    opened = Store(store)
    volume = volume_of(opened, "abdomen")
    whole = opened.read(volume, Box(0, 0, 0, *volume.shape))
    path = store / volume.file
    content = path.read_bytes()
    try:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])
        assert np.array_equal(opened.read(volume, Box(0, 0, 0, 12, *volume.shape[1:])), whole[:12])
    finally:
        path.write_bytes(content)


def test_fractions_are_rounded_and_not_cut_off(tmp_path, store):
    hu = np.full((12, 8, 8), -0.6, np.float32)
    volume = Store(store)[0]
    (tmp_path / volume.file).parent.mkdir(parents=True)
    (tmp_path / volume.file).write_bytes(encode(hu, CLIP_HU, np.eye(4), Histogram.of(hu)))
    for name in ("store.json", "index.jsonl"):
        shutil.copy(store / name, tmp_path)
    row = json.loads((tmp_path / "index.jsonl").read_text(encoding="utf-8").splitlines()[0]) | {"shape": [12, 8, 8]}
    (tmp_path / "index.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    opened = Store(tmp_path)
    assert set(np.unique(opened.read(opened[0], Box(0, 0, 0, 12, 8, 8)))) == {-1}


def test_missing_and_damaged_files_are_named_with_the_fix(own_store):
    opened = Store(own_store)
    volume = volume_of(opened, "abdomen")
    path = own_store / volume.file
    content = path.read_bytes()
    box = Box(0, 0, 0, *volume.shape)
    for spoilt in (content[: len(content) // 2], b"", b"no blosc2", bytes(len(content))):
        path.write_bytes(spoilt)
        with pytest.raises(PretrainError, match=f"{volume.id}.*cannot be read.*abdomen/ct.nii.gz.*prepare.*--verify"):
            opened.read(volume, box)
        with pytest.raises(PretrainError, match="checksum"):
            opened.verify(volume)
    path.unlink()
    with pytest.raises(PretrainError, match=f"{volume.id}.*is missing.*prepare"):
        opened.read(volume, box)


def test_another_volume_in_its_place_is_noticed(own_store):
    opened = Store(own_store)
    first, second = opened[0], opened[1]
    shutil.copy(own_store / second.file, own_store / first.file)
    with pytest.raises(PretrainError, match="another array than the index says"):
        opened.read(first, Box(0, 0, 0, 1, 1, 1))


def test_a_block_outside_is_refused(store):
    opened = Store(store)
    depth, height, width = opened[0].shape
    with pytest.raises(PretrainError, match="outside"):
        opened.read(opened[0], Box(depth - 2, 0, 0, 3, height, width))


def test_folders_that_are_no_store_are_refused(own_store, tmp_path):
    with pytest.raises(PretrainError, match=r"store\.json cannot be read.*python -m pretrain\.prepare"):
        Store(tmp_path / "nowhere")
    index = own_store / "index.jsonl"
    lines = index.read_text(encoding="utf-8").splitlines()
    index.write_text(lines[0] + "\n" + lines[1][:40] + "\n", encoding="utf-8")
    with pytest.raises(PretrainError, match=r"index\.jsonl, line 2"):
        Store(own_store)[1]
    index.write_text("", encoding="utf-8")
    with pytest.raises(PretrainError, match="no volume"):
        Store(own_store)
    (own_store / "store.json").write_text('{"format": 99, "clip_hu": [-1000, 1000]}', encoding="utf-8")
    with pytest.raises(PretrainError, match="format 99"):
        Store(own_store)
