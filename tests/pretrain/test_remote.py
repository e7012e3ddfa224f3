"""A store that is read from a URL gives the very samples of the folder, whatever network, cache and processes do."""

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from pretrain import prepare
from pretrain.data.batches import Batches
from pretrain.data.index import read_index, write_index
from pretrain.data.intensities import read_fingerprint
from pretrain.data.locations import open_store
from pretrain.data.remote import files
from pretrain.data.remote.cache import Cache
from pretrain.data.remote.store import RemoteStore
from pretrain.data.shards import pack
from pretrain.data.store import Box, Store
from pretrain.errors import PretrainError, StoreError
from tests.pretrain.blocks import assert_same_blocks, note_network_modules, read_for_ever
from tests.pretrain.runs import start
from tests.pretrain.server import Server

MEMORY = "memory://bucket/store"
PLENTY = 10**9


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(files, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(files, "LONGEST_WAIT_S", 0.001)


@pytest.fixture
def loose(store, tmp_path):
    """A copy whose volumes have files of their own, which a test may spoil."""
    return shutil.copytree(store, tmp_path / "loose")


@pytest.fixture
def packed(store, tmp_path):
    """A copy whose volumes are in one shard."""
    folder = shutil.copytree(store, tmp_path / "packed")
    rows = read_index(folder)
    pack(folder, rows, [[rows[key] for key in sorted(rows)]])
    return folder


@pytest.fixture
def served(packed):
    with Server(packed) as server:
        yield server


@pytest.fixture
def in_memory(loose):
    """The loose store, in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    upload(loose)
    yield memory
    memory.rm("/bucket", recursive=True)


def upload(folder):
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/bucket/store/{path.relative_to(folder)}", path.read_bytes())


def used_bytes(cache):
    """What the blocks and small files in a cache take, unfinished ones too."""
    used = 0
    for path in (*(cache / "blocks").glob("*/*"), *(cache / "stores").glob("*/*")):
        with suppress(FileNotFoundError):
            used += path.stat().st_size
    return used


def test_samples_are_those_of_the_folder_to_the_bit(small_config, store, loose, packed, in_memory, tmp_path):
    few = {"crops": {"global_size": [4, 32, 32], "local_size": [4, 16, 16], "num_local": 1}}
    wanted = Batches(small_config(**few), "cpu").get(1, 1)
    with Server(packed) as shards, Server(loose) as single:
        for url in (shards.url, single.url, MEMORY, f"file://{packed}"):
            settings = {"store": url, "cache": str(tmp_path / "cache"), "workers": int(url == shards.url)}
            for _ in ("cold", "warm"):
                batches = Batches(small_config(data=settings, **few), "cpu")
                assert batches.identity.digest == Store(store).digest
                found = next(batches.stream(1, (1,)))
                batches.close()
                for name in ("global_crops", "local_crops", "masks"):
                    assert torch.equal(getattr(found, name), getattr(wanted, name)), (url, name)
                assert list(map(str, found.samples)) == list(map(str, wanted.samples))


def test_what_stands_beside_the_voxels_is_there_too(served, packed, tmp_path):
    remote, local = RemoteStore(served.url, tmp_path / "cache", PLENTY), Store(packed)
    assert read_fingerprint(remote) == read_fingerprint(local)
    for place in range(len(local)):
        assert remote.histogram(remote[place]).pack() == local.histogram(local[place]).pack()
        assert np.array_equal(remote.affine(remote[place]), local.affine(local[place]))
        remote.verify(remote[place])


def test_a_slab_costs_its_chunks_once_and_the_small_files_once_a_node(served, packed, tmp_path):
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda _: RemoteStore(served.url, tmp_path / "cache", PLENTY), range(4)))
    assert len(served.fetched("index.jsonl")) == 1
    volume = max((opened[0][n] for n in range(2)), key=lambda volume: volume.shape[0])
    slab = Box(9, 0, 0, 6, *volume.shape[1:])  # inside one chunk of eight slices
    served.asked.clear()
    block = opened[0].read(volume, slab)
    assert served.sent_bytes() < 0.8 * volume.size_bytes
    asked = len(served.asked)
    for store in opened:
        assert np.array_equal(store.read(volume, slab), block)
    assert len(served.asked) == asked


def test_a_folder_needs_no_network_library(store, tmp_path):
    process = start(note_network_modules, store, tmp_path / "report")
    process.join(120)
    assert (tmp_path / "report").read_text(encoding="utf-8") == "opened, with []"


# The cache.


def test_processes_that_are_killed_leave_a_cache_that_is_bounded_and_right(served, packed, tmp_path):
    """Its bound is far below what they read, so that they evict what the others use."""
    cache, limit = tmp_path / "cache", 600_000
    for turn in range(2):
        seeds = (1000 * turn, 1000 * turn + 500)
        running = [start(read_for_ever, served.url, packed, cache, limit, seed) for seed in seeds]
        end = time.monotonic() + 120
        while not all((tmp_path / f"began-{seed}").exists() for seed in seeds):
            assert time.monotonic() < end
            time.sleep(0.01)
        looked = 0
        while looked < 60 or not served.fetched("shards"):  # so long that all are in the midst of it
            assert used_bytes(cache) <= limit
            looked += 1
            time.sleep(0.005)
        for process in running:
            assert process.is_alive()
            process.kill()
            process.join()
        assert used_bytes(cache) <= limit
    remote = RemoteStore(served.url, cache, limit)
    assert_same_blocks(remote, Store(packed), 4)
    assert used_bytes(cache) <= limit


def test_what_was_used_least_recently_goes_first(tmp_path):
    cache = Cache(tmp_path, 10_000)
    for number in range(9):
        cache.put(f"{number:02}", bytes(1000))
        os.utime(tmp_path / "blocks" / f"{number:02}" / f"{number:02}", (number, number))
    assert cache.get("02", 1000) == bytes(1000)
    for number in range(9, 12):
        cache.put(f"{number:02}", bytes(1000))
    kept = [number for number in range(12) if cache.get(f"{number:02}", 1000) is not None]
    assert {2, 9, 10, 11} <= set(kept)
    assert {0, 1, 3}.isdisjoint(kept)
    cache.put("larger than all", bytes(20_000))
    assert cache.get("larger than all", 20_000) is None
    assert cache.get("02", 1000) is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: bytes(len(content)),
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    ],
    ids=["empty", "cut short", "zeros", "one bit"],
)
def test_a_damaged_block_is_read_from_the_network_again(served, packed, tmp_path, spoil):
    remote, local = RemoteStore(served.url, tmp_path / "cache", PLENTY), Store(packed)
    assert_same_blocks(remote, local, 2)
    for path in (tmp_path / "cache" / "blocks").rglob("*-*"):
        path.write_bytes(spoil(path.read_bytes()))
    served.asked.clear()
    assert_same_blocks(remote, local, 2)
    assert served.fetched("shards")


def test_a_full_disk_is_told_once_and_what_cannot_be_kept_is_read_each_time(
    served, packed, tmp_path, monkeypatch, caplog
):
    remote = RemoteStore(served.url, tmp_path / "cache", PLENTY)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "truncate", full)
    assert_same_blocks(remote, Store(packed), 2)
    told = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    assert len(told) == 1
    assert "data.cache_gb" in told[0]
    assert not list((tmp_path / "cache" / "blocks").rglob("*-*"))


def test_a_cache_that_has_no_room_for_the_index_says_so(served, tmp_path):
    with pytest.raises(PretrainError, match=r"data\.cache_gb allows 100 bytes"):
        RemoteStore(served.url, tmp_path / "cache", 100)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(PretrainError, match=r"Give data\.cache a folder on the node's own disk"):
        RemoteStore(served.url, tmp_path / "file", PLENTY)


# Stores that change.


def test_an_index_that_changed_is_another_store(small_config, in_memory, loose, tmp_path):
    config = small_config(data={"store": MEMORY, "cache": str(tmp_path / "cache")})
    batches = Batches(config, "cpu")
    rows = read_index(loose)
    last = sorted(rows)[-1]
    write_index(loose, {key: replace(row, foreground_slices=(1, row.shape[0])) for key, row in rows.items()})
    upload(loose)
    assert open_store(config.data).digest == Store(loose).digest
    with pytest.raises(PretrainError, match="were changed after the run had opened it"):
        batches.get(0, 0)
    write_index(loose, {last: rows[last]})
    upload(loose)
    assert len(open_store(config.data)) == 1


def test_a_volume_that_was_replaced_is_noticed_and_a_copy_of_it_is_not(in_memory, loose, tmp_path):
    remote, local = RemoteStore(MEMORY, tmp_path / "cache", PLENTY), Store(loose)
    volume = max((local[n] for n in range(2)), key=lambda volume: volume.shape[0])
    first, last = (Box(z, 0, 0, 4, *volume.shape[1:]) for z in (0, volume.shape[0] - 4))
    expected = [local.read(volume, box) for box in (first, last)]
    remote.read(volume, first)
    upload(loose)  # the same, written later
    assert np.array_equal(remote.read(volume, last), expected[1])
    path = loose / volume.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    upload(loose)
    assert np.array_equal(remote.read(volume, last), expected[1])  # kept
    middle = Box(volume.shape[0] // 2, 0, 0, 1, *volume.shape[1:])
    with pytest.raises(StoreError, match=f"{volume.id}.b2nd is not what the index says"):
        remote.read(volume, middle)
    path.write_bytes(content[:-9])
    upload(loose)
    with pytest.raises(StoreError, match="is not what the index says"):
        remote.read(volume, middle)


def test_a_damage_that_is_fixed_is_forgotten(served, packed, tmp_path):
    (shard,) = (packed / "shards").iterdir()
    right = shard.read_bytes()
    shard.write_bytes(bytes(len(right)))
    remote, local = RemoteStore(served.url, tmp_path / "cache", PLENTY), Store(packed)
    with pytest.raises(PretrainError, match=r"\.shard from byte 0 on cannot be read .* with --verify on the folder"):
        remote.read(remote[0], Box(0, 0, 0, 1, 1, 1))
    shard.write_bytes(right)
    assert_same_blocks(remote, local)


# The network.


def test_what_passes_is_asked_again_and_what_stays_ends_the_run(small_config, served, tmp_path):
    config = small_config(data={"store": served.url, "cache": str(tmp_path / "cache"), "max_quarantined_fraction": 1.0})
    served.failures.extend([503, 503, 0, 429])
    batches = Batches(config, "cpu")
    served.failures.extend([500, 0, 503])
    assert len(batches.get(0, 0).samples) == 2
    shutil.rmtree(tmp_path / "cache" / "blocks")
    served.failures.extend([503] * 100)
    served.asked.clear()
    with pytest.raises(StoreError, match=rf"shard cannot be read \(503.*{files.ATTEMPTS} times in a row"):
        batches.get(0, 0)
    assert batches.unreadable == {}  # no other volume took its place
    assert len(served.fetched("shards")) == files.ATTEMPTS
    served.failures.clear()
    batches = Batches(config, "cpu")
    served.refuse.update(f"shards/{path.name}" for path in (served._folder / "shards").iterdir())
    with pytest.raises(StoreError, match=r"may not be read .*403.* Are the credentials where"):
        batches.get(0, 1)


def test_a_server_that_does_not_answer_is_not_waited_for(served, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REQUEST_S", 0.3)
    monkeypatch.setattr(files, "ATTEMPTS", 2)
    served.failures.extend([-1] * 9)
    with pytest.raises(StoreError, match=r"no answer within 0\.3 s"):
        RemoteStore(served.url, tmp_path / "cache", PLENTY)


def test_a_volume_that_is_missing_is_a_fault_of_the_store(small_config, loose, tmp_path):
    with Server(loose) as server:
        settings = {"store": server.url, "cache": str(tmp_path / "cache"), "max_quarantined_fraction": 0.5}
        batches = Batches(small_config(data=settings), "cpu")
        volume = batches.store[0]
        (loose / volume.file).unlink()
        taken = [sample.volume for index in range(2) for sample in batches.get(0, index).samples]
        assert volume.id not in taken
        assert "is missing; it was made from" in batches.unreadable[volume.id]


def test_addresses_that_hold_no_store_say_why(served, tmp_path, monkeypatch):
    def refused(url, message):
        with pytest.raises(PretrainError, match=message):
            RemoteStore(url, tmp_path / "cache", PLENTY)

    refused(f"{served.url}/elsewhere", "store.json is not there: there is no store, or it is not copied wholly")
    refused("http://127.0.0.1:9", f"Cannot connect to host.*{files.ATTEMPTS} times in a row. Is the network up")
    refused("nosuch://bucket/store", "Protocol not known: nosuch")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    refused("s3://bucket/store", r"Run `pip install 'tapct-bench\[s3\]'`")
    served.refuse.update(("index.offsets", "digests.json"))  # so answers a bucket that may not be listed
    assert len(RemoteStore(served.url, tmp_path / "cache", PLENTY)) == 2
    served.refuse.add("index.jsonl")
    refused(served.url, "index.jsonl may not be read")


def test_a_server_without_ranges_is_refused(packed, tmp_path):
    with Server(packed, ranges=False) as server, pytest.raises(PretrainError, match="does not serve ranges of bytes"):
        RemoteStore(server.url, tmp_path / "cache", PLENTY)


def test_s3(loose, packed, tmp_path, monkeypatch):
    """Against a simulated S3; run with `pip install s3fs "moto[server]"`, which the project does not need."""
    pytest.importorskip("s3fs")
    simulated, boto3 = pytest.importorskip("moto.server"), pytest.importorskip("boto3")
    server = simulated.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for folder in (loose, packed):
            for path in folder.rglob("*.*"):
                if path.is_file():
                    client.upload_file(str(path), "bucket", f"{folder.name}/{path.relative_to(folder)}")
            remote = RemoteStore(f"s3://bucket/{folder.name}", tmp_path / "cache", PLENTY)
            for _ in ("cold", "warm"):
                assert_same_blocks(remote, Store(folder))
        for place in ("bucket/elsewhere", "elsewhere/store"):
            with pytest.raises(PretrainError, match=r"store\.json is not there: there is no store"):
                RemoteStore(f"s3://{place}", tmp_path / "cache", PLENTY)
    finally:
        server.stop()


# The settings.


def test_a_url_needs_a_cache_and_holds_no_secrets(small_config):
    with pytest.raises(PretrainError, match=r"s3://bucket/store is a URL: give data\.cache too"):
        small_config(data={"store": "s3://bucket/store"})
    with pytest.raises(PretrainError, match="a URL carries no password"):
        small_config(data={"store": "https://me:secret@host/store", "cache": "/tmp/c"})
    assert small_config(data={"store": "s3://bucket/store/", "cache": "c"}).data.store == "s3://bucket/store"
    assert small_config(data={"store": "some/store"}).data.store == Path("some/store")


@pytest.mark.parametrize("arguments", [["s3://bucket/scans", "-o", "store"], ["scans", "-o", "s3://bucket/store"]])
def test_prepare_works_in_folders(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(arguments) == 1
    assert "is a URL: scans are read from folders" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
