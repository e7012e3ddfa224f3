import itertools
import os
import pickle
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver, get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.data.batches import Batches
from pretrain.data.store import Store
from pretrain.errors import PretrainError
from tests.pretrain.conftest import CLIP_HU


def take(batches, number, start_step=0, indices=(0, 1)):
    return list(itertools.islice(batches.stream(start_step, indices), number))


def assert_same(a, b):
    assert (a.step, a.index) == (b.step, b.index)
    for name in ("global_crops", "local_crops", "masks"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert list(map(str, a.samples)) == list(map(str, b.samples))


@pytest.mark.parametrize(
    ("model", "crops", "slab", "shapes"),
    [
        ((4, 8, 8), ([12, 224, 224], [12, 96, 96]), 24, ((4, 1, 12, 224, 224), (16, 1, 12, 96, 96), 3 * 28 * 28)),
        ((1, 16, 16), ([6, 224, 224], [6, 96, 96]), 12, ((4, 1, 6, 224, 224), (16, 1, 6, 96, 96), 6 * 14 * 14)),
        ((1, 16, 16), ([12, 224, 224], [6, 96, 96]), 24, ((4, 1, 12, 224, 224), (16, 1, 6, 96, 96), 12 * 14 * 14)),
        ((16, 16), ([224, 224], [96, 96]), 1, ((4, 1, 224, 224), (16, 1, 96, 96), 14 * 14)),
    ],
    ids=["3d", "2.5d", "appendix d", "2d"],
)
def test_all_variants_at_their_true_sizes(small_config, model, crops, slab, shapes):
    config = small_config(
        model={"patch_size": list(model)},
        crops={"global_size": crops[0], "local_size": crops[1]},
        data={"slab_slices": slab},
    )
    batch = Batches(config, "cpu").get(0, 0)
    assert batch.global_crops.shape == shapes[0]
    assert batch.local_crops.shape == shapes[1]
    assert batch.masks.shape == (4, shapes[2])
    assert batch.global_crops.dtype == batch.local_crops.dtype == torch.float32
    assert len(batch.samples) == 2
    for crops in (batch.global_crops, batch.local_crops):
        assert crops.isfinite().all()
        low, high = ((hu - config.data.mean_hu) / config.data.std_hu for hu in CLIP_HU)
        assert crops.min() >= low - 1e-4
        assert crops.max() <= high + 1e-4


def test_without_augmentation_a_crop_of_the_whole_plane_is_the_scan(small_config, store):
    config = small_config(
        crops={
            "global_size": [8, 104, 120],
            "global_scale": [1.0, 1.0],
            "aspect_ratio": [1.0, 1.0],
            "flip_probability": [0.0, 0.0, 0.0],
            "gamma_probability": 0.0,
            "blur_probability": [0.0, 0.0, 0.0],
        }
    )
    batches = Batches(config, "cpu")
    opened = Store(store)
    volumes = {opened[number].id: opened[number] for number in range(2)}
    batch = batches.get(0, 0)
    for i, sample in enumerate(batch.samples):
        z, y, x, d, h, w = sample.plan.boxes[1].tolist()
        voxels = torch.from_numpy(opened.read(volumes[sample.volume], sample.plan.slab)).double()
        slab = sample.plan.slab
        part = voxels[z - slab.z :, y - slab.y :, x - slab.x :][:d, :h, :w]
        expected = torch.nn.functional.interpolate(part[None], (104, 120), mode="bilinear", antialias=True)[0]
        expected = (expected - config.data.mean_hu) / config.data.std_hu
        crop = batch.global_crops[len(batch.samples) + i, 0]  # view-major: the second view of sample i
        torch.testing.assert_close(crop.double(), expected, atol=2e-3, rtol=0)


def test_the_stream_is_what_get_gives_whoever_reads(small_config):
    plain = Batches(small_config(), "cpu")
    expected = [plain.get(step, index) for step in (3, 4) for index in (0, 1)]
    for got, want in zip(take(plain, 4, start_step=3), expected, strict=True):
        assert_same(got, want)
    # A second process would take the odd ones.
    for got, want in zip(take(plain, 2, start_step=3, indices=[1]), expected[1::2], strict=True):
        assert_same(got, want)
    parallel = Batches(small_config(data={"workers": 2}), "cpu")
    for got, want in zip(take(parallel, 4, start_step=3), expected, strict=True):
        assert_same(got, want)
    parallel.close()
    assert not any(torch.equal(a.global_crops, b.global_crops) for a, b in itertools.combinations(expected, 2))


def test_the_global_random_state_is_left_alone(small_config):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(Batches(small_config(), "cpu"), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_volume_comes_equally_often(small_config):
    batches = Batches(small_config(), "cpu")
    seen = [sample.volume for batch in take(batches, 6) for sample in batch.samples]
    assert all(len(set(pair)) == 2 for pair in zip(seen[::2], seen[1::2], strict=True))  # two volumes: an epoch is two


def test_a_vanished_volume_is_named_with_the_fix(small_config, store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    volume = Store(copy)[0]
    (copy / volume.file).unlink()
    for workers in (0, 1):
        batches = Batches(small_config(data={"store": str(copy), "workers": workers}), "cpu")
        with pytest.raises(PretrainError, match=rf"1 of 2 volumes.*max_quarantined_fraction.*{volume.id}.*prepare"):
            take(batches, 1)
        batches.close()


def test_up_to_a_fraction_the_next_volume_takes_the_place_and_it_is_said(small_config, store, tmp_path, caplog):
    copy = shutil.copytree(store, tmp_path / "copy")
    gone, there = Store(copy)[0], Store(copy)[1]
    path = copy / gone.file
    path.write_bytes(path.read_bytes()[:1000])
    settings = {"store": str(copy), "max_quarantined_fraction": 0.5}
    batches = Batches(small_config(data=settings), "cpu")
    batch = batches.get(0, 0)
    assert [sample.volume for sample in batch.samples] == [there.id, there.id]
    assert sorted(sample.instead_of for sample in batch.samples) == [(), (gone.id,)]
    assert list(batches.unreadable) == [gone.id]
    assert sum(gone.id in record.getMessage() for record in caplog.records) == 1
    (copy / there.file).unlink()
    with pytest.raises(PretrainError, match="2 of 2 volumes"):
        batches.get(0, 1)


def test_a_killed_worker_ends_in_a_message(small_config):
    batches = Batches(small_config(data={"workers": 1}), "cpu")
    stream = batches.stream(0, [0, 1])
    next(stream)
    for pid in _children(forkserver._forkserver._forkserver_pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(PretrainError, match=r"(?s)workers that read.*--shm-size.*resumed"):
        take_all(stream)
    batches.close()


def take_all(stream):
    for _ in range(500):
        next(stream)


def _children(parent):
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    pids = [int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split()]
    assert pids
    return pids


def test_a_store_that_does_not_fit_is_refused(small_config):
    with pytest.raises(PretrainError, match=r"1 volumes.*fewer than the 24 slices.*ct_dicom with 20.*--min-slices 24"):
        Batches(small_config(data={"slab_slices": 24}, crops={"global_size": [24, 64, 64]}), "cpu")
    with pytest.raises(PretrainError, match=r"reaches beyond.*--clip-hu -1024 822"):
        Batches(small_config(data={"clip_hu": [-1024.0, 822.0]}), "cpu")


def test_a_store_that_changes_under_a_run_is_noticed(small_config, store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    batches = Batches(small_config(data={"store": str(copy)}), "cpu")
    index = copy / "index.jsonl"
    index.write_text(index.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(PretrainError, match="were changed after the run had opened it"):
        take(batches, 1)


def resident_bytes(config, micro_batches: int) -> list[int]:
    """Resident size after each micro-batch."""
    stream = Batches(config, "cpu").stream(0, [0, 1])
    used = []
    for _ in range(micro_batches):
        next(stream)
        used.append(int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE"))
    return used


@pytest.mark.thorough
def test_memory_does_not_grow(small_config):
    often = 30
    # A process of its own: what tests before this one left to the allocator would grow and shrink beneath it.
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as process:
        used = process.submit(resident_bytes, small_config(), 3 * often).result()
    growth = np.median(used[2 * often :]) - np.median(used[often : 2 * often])
    assert growth < 20e6  # bytes; the slabs of one micro-batch are 15 MB, so a leak of one in `often` would show


def test_samples_can_be_sent_and_shown(small_config):
    sample = Batches(small_config(), "cpu").get(0, 0).samples[0]
    assert pickle.loads(pickle.dumps(sample)).volume == sample.volume
    assert "crops (z, y, x, d, h, w) [[" in str(sample)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_micro_batches(small_config):
    changes = {
        "crops": {"global_size": [12, 224, 224], "local_size": [12, 96, 96]},
        "data": {"slab_slices": 20, "workers": 2},
    }
    here = Batches(small_config(**changes), "cpu")
    there = Batches(small_config(**changes), "cuda")
    for want, got in zip(take(here, 6), take(there, 6), strict=True):
        for name in ("global_crops", "local_crops"):
            torch.testing.assert_close(getattr(got, name).cpu(), getattr(want, name), atol=2e-3, rtol=0)
        assert torch.equal(got.masks.cpu(), want.masks)
    here.close()
    there.close()
