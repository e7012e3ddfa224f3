"""Shards hold the very volumes that files of their own held, and no kill, change or damage loses one."""

import random
import re
import sys
import time

import numpy as np
import pytest

from pretrain.data import prepare as module
from pretrain.data import shards
from pretrain.data.index import read_index
from pretrain.data.store import Box, Store
from pretrain.errors import PretrainError
from pretrain.files import CannotWriteError
from tests.pretrain.runs import checkpoint, differing, run_here, start
from tests.pretrain.test_prepare import run, scan, write

SMALL = 6e-5  # GB: two of the volumes below


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    for number, name in enumerate("abcde"):
        write(folder / f"{name}.nii.gz", scan((20 + number, 40, 40), seed=number))
    return folder


@pytest.fixture
def plain(sources, tmp_path):
    assert run(sources, "-o", tmp_path / "plain") == 0
    return tmp_path / "plain"


@pytest.fixture
def packed(sources, tmp_path):
    assert run(sources, "-o", tmp_path / "packed", "--shard-gb", SMALL) == 0
    return tmp_path / "packed"


def files_of(store) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.glob("[vs]*/**/*") if p.is_file()}


def by_name(store):
    return {row.source[-8]: row for row in read_index(store).values()}


def check_all(store, number: int) -> None:
    opened = Store(store)
    assert len(opened) == number
    for place in range(number):
        opened.verify(opened[place])


def test_the_same_volumes_in_fewer_files(plain, packed):
    one, many = Store(plain), Store(packed)
    assert one.digest == many.digest
    assert (len(files_of(plain)), len(files_of(packed))) == (5, 3)
    assert all(name.startswith("shards/") for name in files_of(packed))
    assert sum(map(len, files_of(plain).values())) == sum(map(len, files_of(packed).values()))
    rng = np.random.default_rng(0)
    for place in range(5):
        volume, alone = many[place], one[place]
        many.verify(volume)
        assert np.array_equal(many.affine(volume), one.affine(alone))
        assert many.histogram(volume).pack() == one.histogram(alone).pack()
        for _ in range(10):
            first = [int(rng.integers(n)) for n in volume.shape]
            box = Box(*first, *(int(rng.integers(1, n - f + 1)) for n, f in zip(volume.shape, first, strict=True)))
            assert np.array_equal(many.read(volume, box), one.read(alone, box))
    for name in ("fingerprint.json", "quarantine.jsonl"):
        assert (plain / name).read_bytes() == (packed / name).read_bytes()


def test_a_store_of_single_files_is_packed_later_and_its_run_resumes(sources, plain, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_here(plain, whole, "--run.micro_batches=1", "--run.stop_at=2") == 0
    assert run_here(plain, parts, "--run.micro_batches=1", "--run.stop_at=1") == 0
    monkeypatch.setattr(module, "convert", lambda *_: pytest.fail("made again"))
    assert run(sources, "-o", plain, "--shard-gb", SMALL) == 0
    assert all(name.startswith("shards/") for name in files_of(plain))
    assert run_here(plain, parts, "--run.micro_batches=1", "--run.stop_at=2") == 0
    assert differing(checkpoint(whole, 2), checkpoint(parts, 2)) == []


def test_the_same_command_again_changes_nothing(sources, packed):
    before = {path: path.stat().st_mtime_ns for path in packed.glob("shards/*")}, (packed / "index.jsonl").read_bytes()
    for more in (["--shard-gb", SMALL], []):
        assert run(sources, "-o", packed, *more) == 0
        now = {path: path.stat().st_mtime_ns for path in packed.glob("shards/*")}
        assert (now, (packed / "index.jsonl").read_bytes()) == before


def test_what_changes_is_stored_anew_and_what_is_mostly_stale_is_dropped(sources, packed):
    before = by_name(packed)
    together = {name for name, row in before.items() if row.shard == before["a"].shard}
    for name in together:
        write(sources / f"{name}.nii.gz", scan((20, 40, 40), seed=ord(name)))
    assert run(sources, "-o", packed, "--shard-gb", SMALL) == 0
    after = by_name(packed)
    assert {name for name in after if after[name].sha256 != before[name].sha256} == together
    check_all(packed, 5)
    assert not (packed / before["a"].file).exists()
    assert {path.name for path in packed.glob("shards/*")} == {row.shard for row in after.values()}
    for name in together:
        row = after[name]
        read = Store(packed).read(row, Box(0, 0, 0, *row.shape))
        assert np.array_equal(read, scan((20, 40, 40), seed=ord(name)).clip(-1008, 822))


def test_small_shards_are_packed_together(sources, packed):
    assert run(sources, "-o", packed, "--shard-gb", 1) == 0
    assert len(files_of(packed)) == 1
    check_all(packed, 5)


def test_a_damaged_volume_of_a_shard_is_found_named_and_made_again(sources, packed):
    row = next(row for row in read_index(packed).values() if row.offset > 0)
    path = packed / row.file
    content = path.read_bytes()
    middle = row.offset + row.size_bytes // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(
        PretrainError, match=rf"{row.shard} from byte {row.offset} on cannot be read.*checksum.*--verify"
    ):
        Store(packed).verify(row)
    assert run(sources, "-o", packed, "--shard-gb", SMALL, "--verify") == 0
    check_all(packed, 5)


def test_a_shard_that_is_cut_short_or_gone_is_named_and_made_again(sources, packed):
    digest = Store(packed).digest
    row = max(read_index(packed).values(), key=lambda row: row.offset)
    path = packed / row.file
    path.write_bytes(path.read_bytes()[: row.offset + 100])
    with pytest.raises(PretrainError, match=r"\.shard from byte \d+ on cannot be read"):
        Store(packed).read(row, Box(0, 0, 0, *row.shape))
    assert run(sources, "-o", packed, "--shard-gb", SMALL) == 0
    check_all(packed, 5)
    for path in packed.glob("shards/*"):
        path.unlink()
    with pytest.raises(PretrainError, match=r"\.shard is missing"):
        Store(packed).verify(read_index(packed)[row.id])
    assert run(sources, "-o", packed) == 0
    check_all(packed, 5)
    assert Store(packed).digest == digest


def test_what_cannot_be_read_is_not_packed_and_the_rest_is(plain, sources, caplog):
    lost = by_name(plain)["c"]
    (plain / lost.file).unlink()
    rows = read_index(plain)
    shards.pack(plain, rows, shards.groups_of(plain, rows, 10**9, finish=True))
    assert f"{lost.id}.b2nd is missing or damaged, so it is not packed" in caplog.text
    assert {name for name, row in by_name(plain).items() if row.shard is None} == {"c"}


@pytest.mark.parametrize("moment", ["before the index", "before removing"])
def test_a_run_that_stops_while_it_packs_loses_nothing(sources, plain, monkeypatch, moment):
    digest, loose = Store(plain).digest, files_of(plain)

    def full(*_):
        raise CannotWriteError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_index" if moment == "before the index" else "_remove", full)
        assert run(sources, "-o", plain, "--shard-gb", SMALL) == 1
    assert loose.items() <= files_of(plain).items()
    assert len(list(plain.glob("shards/*"))) == 3
    check_all(plain, 5)
    assert run(sources, "-o", plain, "--shard-gb", SMALL) == 0
    assert not loose.keys() & files_of(plain).keys()
    assert Store(plain).digest == digest
    check_all(plain, 5)


def test_a_full_disk_while_a_shard_is_written_is_said(sources, plain, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shards.os, "fsync", full)
        rows = read_index(plain)
        with pytest.raises(CannotWriteError, match=r"shards/\w+\.shard could not be written.*it takes .* are free"):
            shards.pack(plain, rows, shards.groups_of(plain, rows, 10**9, finish=True))
    assert list(plain.glob("shards/*")) == list(plain.glob("shards/.*")) == []
    check_all(plain, 5)


def _save_after_each(*arguments) -> None:
    module.SAVE_EVERY_S = module._SAVING = 0.0
    sys.exit(run(*arguments))


@pytest.mark.thorough
def test_kills_leave_a_good_store(tmp_path):
    """`kill -9` at some moments of packing while converting; what is there can be read each time."""
    source, store = tmp_path / "in", tmp_path / "store"
    for number in range(30):
        write(source / f"{number:02}.nii.gz", scan((40, 96, 96), seed=number))
    wait = random.Random(0)
    for shards_before in (1, 3):
        process = start(_save_after_each, source, "-o", store, "--shard-gb", 0.0008)
        deadline = time.monotonic() + 60
        while len(list(store.glob("shards/*.shard"))) < shards_before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(wait.random() / 10)
        process.kill()
        process.join()
        check_all(store, len(Store(store)))
    assert 0 < len(Store(store)) < 30
    assert run(source, "-o", store, "--shard-gb", 0.0008) == 0
    check_all(store, 30)
    assert not list(store.glob("volumes/*/*"))
    assert {path.name for path in store.glob("shards/*")} == {row.shard for row in read_index(store).values()}


@pytest.mark.parametrize("size", ["0", "-1"])
def test_a_size_that_is_none_is_refused(sources, tmp_path, capsys, size):
    assert run(sources, "-o", tmp_path / "store", f"--shard-gb={size}") == 1
    assert re.search(r"--shard-gb is .*such as 4", " ".join(capsys.readouterr().err.split()))
