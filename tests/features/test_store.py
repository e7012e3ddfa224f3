"""The store under faults: killed, damaged, full, read-only, shared, and with little room."""

import os
import random
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tapct.errors import FeatureError
from tapct.features import leases
from tapct.features.store import FORMAT, TensorStore
from tests.features.processes import Child

KEYS = [f"{n:064x}" for n in range(5)]
MIB = 2**20


def tensors(value: float, mib: float = 1) -> dict[str, torch.Tensor]:
    return {"map": torch.full((int(mib * MIB) // 4,), float(value))}


def visible(folder: Path) -> list[str]:
    """Every file of the store but the locks, which are empty."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith("lock"))


def unfinished(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob(".*"))


@pytest.fixture
def store(tmp_path) -> TensorStore:
    return TensorStore(tmp_path / "features")


def test_what_is_stored_is_read_to_the_bit(store):
    content = {"a": torch.randn(3, 5, 7, 2).bfloat16(), "b": torch.randn(4).half(), "c": torch.arange(3).byte()}
    strided = torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1)
    assert store.load(KEYS[0]) is None
    store.save(KEYS[0], {**content, "d": strided}, {"case": "Jörg", "grid": [[1.5, 0]]})
    entry = TensorStore(store.folder).load(KEYS[0])
    assert entry.about == store.about(KEYS[0]) == {"case": "Jörg", "grid": [[1.5, 0]]}
    for name, tensor in {**content, "d": strided}.items():
        assert entry.tensors[name].dtype == tensor.dtype
        assert torch.equal(entry.tensors[name], tensor)


def test_a_compressed_entry_is_the_same_entry_in_fewer_bytes_and_a_spoiled_one_is_damaged(store):
    block = np.zeros((40, 64, 64), np.uint8)
    block[10:30, 20:40, 8:50] = np.arange(20)[:, None, None]
    content = {
        "native": torch.from_numpy(block),
        "encoder": torch.from_numpy(block.astype(np.int16) * 11),
        "nothing": torch.zeros((0, 3), dtype=torch.uint8),
    }
    store.save(KEYS[0], content, {"case": "a"}, compress=True)
    store.save(KEYS[1], content, {"case": "a"})
    packed, plain = (TensorStore(store.folder).load(key) for key in KEYS[:2])
    for name, tensor in content.items():
        for entry in (packed, plain):
            assert (entry.tensors[name].dtype, entry.tensors[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(entry.tensors[name], tensor)
    sizes = [store.path(key).stat().st_size for key in KEYS[:2]]
    assert sizes[0] * 20 < sizes[1]
    again = TensorStore(store.folder / "again")
    again.save(KEYS[0], content, {"case": "a"})
    assert again.load(KEYS[0]).sha256 == packed.sha256, "the checksum is of the content, however it lies on disk"
    file = store.path(KEYS[0]).read_bytes()
    for at in (len(file) - 5, len(file) - sizes[0] // 4, file.index(b"[40, 64, 64]") + 2):
        store.path(KEYS[0]).write_bytes(file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :])
        with pytest.raises(FeatureError, match=r"damaged|checksum"):
            TensorStore(store.folder).load(KEYS[0])


# -- Killed ------------------------------------------------------------------------------------------------


def write_for_ever(send, folder):
    store = TensorStore(folder)
    for n in range(10**6):
        key = KEYS[n % 3]
        with store.lock(key):
            store.save(key, tensors(n, 4), {"n": n})
        if n == 2:
            send("writing")


def test_a_writer_killed_at_any_moment_leaves_whole_entries_and_nothing_for_good(store):
    chance, torn = random.Random(0), 0
    for _ in range(60):
        child = Child(write_for_ever, store.folder)
        child.receive()
        time.sleep(chance.uniform(0, 0.05))
        child.kill()
        fresh = TensorStore(store.folder)
        assert len(fresh.files()) >= 1
        for file in fresh.files():
            entry = fresh.load(file.key)
            assert (entry.tensors["map"] == entry.about["n"]).all()
        torn += bool(unfinished(store.folder))
        if torn == 3:
            break
    assert torn == 3, "no write was interrupted in 60 tries"
    for key in KEYS[:3]:
        with store.lock(key, wait=False) as held:
            assert held
    assert unfinished(store.folder) == []
    assert visible(store.folder) == [store.path(key).name for key in KEYS[:3]]


def test_a_sweep_removes_what_was_left_half_written_and_not_what_is_being_written(store):
    def write_half(send, key):
        with store.lock(key):
            half = store.path(key).parent / f".{key}.half" / "file"
            half.parent.mkdir()
            half.write_bytes(bytes(1000))
            send("half")
            time.sleep(60)

    dead, alive = Child(write_half, KEYS[0]), Child(write_half, KEYS[1])
    dead.receive()
    alive.receive()
    dead.kill()
    assert store.sweep() == 1000
    assert unfinished(store.folder) == [f".{KEYS[1]}.half"]
    alive.kill()
    assert store.sweep() == 1000


# -- Damaged -----------------------------------------------------------------------------------------------


def test_a_file_cut_short_is_named_and_never_read(store):
    store.save(KEYS[0], tensors(1), {})
    whole = store.path(KEYS[0]).read_bytes()
    for size in (0, 1, 7, 8, 20, 200, len(whole) // 2, len(whole) - 1):
        store.path(KEYS[0]).write_bytes(whole[:size])
        with pytest.raises(FeatureError, match=rf"{KEYS[0]}.* is truncated or damaged .*cache rm --broken"):
            TensorStore(store.folder).load(KEYS[0])
    assert "truncated" in store.verify(KEYS[0])
    store.save(KEYS[0], tensors(1), {})
    assert store.verify(KEYS[0]) is None


def test_every_flipped_bit_is_found_also_in_what_is_said_about_the_tensors(store):
    """A wrong digit in an affine shifts every prediction: it is as bad as one in a feature."""
    content, about = {"map": torch.randn(16).half()}, {"grid": [[3.0, 0.0], [0.0, 1.5]], "case": "abdomen"}
    store.save(KEYS[0], content, about)
    path = store.path(KEYS[0])
    whole = path.read_bytes()
    survived = []
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            entry = TensorStore(store.folder).load(KEYS[0])
        except FeatureError:
            continue
        survived.append(position)
        assert entry.about == about, position
        assert torch.equal(entry.tensors["map"], content["map"]), position
    assert len(survived) < 8, "padding of the header at most"


def test_an_entry_under_another_name_is_not_read(store):
    store.save(KEYS[0], tensors(1), {})
    for key in KEYS[1:3]:
        store.path(key).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(store.path(KEYS[0]), store.path(KEYS[1]))
    store.path(KEYS[0]).rename(store.path(KEYS[2]))
    assert store.load(KEYS[0]) is None
    for key in KEYS[1:3]:
        with pytest.raises(FeatureError, match=r"is the entry of another key, .*renamed, or copied"):
            TensorStore(store.folder).load(key)
        assert "another key" in store.verify(key)


def test_an_entry_of_another_format_is_not_read(store, monkeypatch):
    store.save(KEYS[0], tensors(1), {})
    monkeypatch.setattr("tapct.features.store.FORMAT", 99)
    with pytest.raises(FeatureError, match=f"has the format {FORMAT}, not 99"):
        TensorStore(store.folder).load(KEYS[0])


# -- Full, read-only ---------------------------------------------------------------------------------------


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(store):
    store.save(KEYS[0], tensors(1), {})

    def fill(_send):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))
        store.save(KEYS[0], tensors(2, 4), {})

    with pytest.raises(FeatureError, match=r"cannot store 4 MiB of features under .*File too large.*Free space there"):
        Child(fill).receive()
    assert visible(store.folder) == [store.path(KEYS[0]).name]
    assert TensorStore(store.folder).load(KEYS[0]).tensors["map"][0] == 1, "what was there stays"


def test_a_store_that_cannot_be_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = TensorStore(tmp_path / "file" / "features")
    with pytest.raises(FeatureError, match=r"cannot store .*name another folder \(TAPCT_FEATURES\)"):
        store.save(KEYS[0], tensors(1), {})
    with pytest.raises(FeatureError, match=r"cannot write under .*file.*Name another folder"), store.lock(KEYS[0]):
        pass


def test_a_read_only_store_is_read(store):
    store.save(KEYS[0], tensors(3), {})
    folders = (store.folder, store.path(KEYS[0]).parent)
    for folder in folders:
        folder.chmod(0o555)

    def read(_send):
        return float(TensorStore(store.folder).load(KEYS[0]).tensors["map"][5])

    assert Child(read, bound=True).receive() == 3
    for attempt in (lambda _: store.save(KEYS[0], tensors(1), {}), lambda _: store.remove(KEYS[0])):
        with pytest.raises(FeatureError, match=r"cannot (store|remove) .*Permission denied"):
            Child(attempt, bound=True).receive()
    for folder in folders:
        folder.chmod(0o755)


# -- Little room -------------------------------------------------------------------------------------------


def used_in_order(store: TensorStore, keys) -> None:
    for age, key in enumerate(reversed(keys)):
        os.utime(store.path(key), (1e9 - age, 1e9 - age))


def test_the_least_recently_used_entry_makes_room_but_none_of_this_run(store):
    for key in KEYS[:3]:
        store.save(key, tensors(1), {})
    used_in_order(store, KEYS[:3])
    run = TensorStore(store.folder, budget_gb=3.5 / 1024)
    run.load(KEYS[0])
    used_in_order(run, KEYS[:3])  # the oldest, were it not needed
    run.save(KEYS[3], tensors(1), {})
    assert {file.key for file in run.files()} == {KEYS[0], KEYS[2], KEYS[3]}
    assert sum(file.nbytes for file in run.files()) <= run.budget_bytes


def test_reading_an_entry_keeps_it_from_being_the_oldest(store):
    for key in KEYS[:3]:
        store.save(key, tensors(1), {})
    used_in_order(store, KEYS[:3])
    TensorStore(store.folder).load(KEYS[0])
    TensorStore(store.folder, budget_gb=3.5 / 1024).save(KEYS[3], tensors(1), {})
    assert {file.key for file in store.files()} == {KEYS[0], KEYS[2], KEYS[3]}


def test_what_another_process_has_taken_makes_no_room(store):
    for key in KEYS[:3]:
        store.save(key, tensors(1), {})
    used_in_order(store, KEYS[:3])

    def other(send) -> None:
        leases.take(store.folder, [KEYS[0]], [KEYS[1]])
        send("taken")
        time.sleep(60)

    child = Child(other)
    assert child.receive() == "taken"
    run = TensorStore(store.folder, budget_gb=3.5 / 1024)
    run.save(KEYS[3], tensors(1), {})
    assert {file.key for file in run.files()} == {KEYS[0], KEYS[1], KEYS[3]}, "2 was the only one that nobody needs"
    with pytest.raises(FeatureError, match="this run and others that run now need take more than the budget"):
        run.save(KEYS[4], tensors(1), {})
    assert {file.key for file in run.files()} == {KEYS[0], KEYS[1], KEYS[3]}
    child.kill()  # its lease ends with it
    run.save(KEYS[4], tensors(1), {})
    assert {file.key for file in run.files()} == {KEYS[1], KEYS[3], KEYS[4]}


def test_a_run_that_alone_exceeds_the_budget_is_told_and_evicts_nothing_it_needs(store):
    run = TensorStore(store.folder, budget_gb=2.5 / 1024)
    for key in KEYS[:2]:
        run.save(key, tensors(1), {})
    with pytest.raises(FeatureError, match=r"this run alone take more than the budget of 0\.002.* GiB.*Raise it"):
        run.save(KEYS[2], tensors(1), {})
    assert visible(store.folder) == [run.path(key).name for key in KEYS[:2]]


def test_replacing_an_entry_needs_no_second_place_in_the_budget(store):
    run = TensorStore(store.folder, budget_gb=1.5 / 1024)
    for value in (1, 2):
        run.save(KEYS[0], tensors(value), {})
    assert run.load(KEYS[0]).tensors["map"][0] == 2


def settle(folder: Path) -> None:
    """Makes the store look as if nothing had changed for a while."""
    for inside in folder.iterdir():
        os.utime(inside, (1e9, 1e9))


def test_a_save_lists_what_changed_and_not_the_whole_store(store, monkeypatch):
    keys = [f"{n:02x}{n:062x}" for n in range(60)]
    run = TensorStore(store.folder, budget_gb=1)
    for key in keys[:40]:
        run.save(key, tensors(1, 0.001), {})
    settle(store.folder)
    run.save(keys[40], tensors(1, 0.001), {})
    settle(store.folder)
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(str(folder)), scandir(folder))[1])
    for key in keys[41:]:
        listed.clear()
        run.save(key, tensors(1, 0.001), {})
        settle(store.folder)
        of_store = [Path(folder).name for folder in listed if Path(folder).parent == store.folder]
        assert set(of_store) <= {key[:2], f"{int(key[:2], 16) - 1:02x}"}, "its own folder, and that of the save before"
        assert key[:2] in of_store


def test_what_other_processes_write_use_and_remove_counts(store):
    keys = [f"{n:02x}{n:062x}" for n in range(8)]
    run = TensorStore(store.folder, budget_gb=4.5 / 1024)
    for key in keys[:3]:
        TensorStore(store.folder).save(key, tensors(1), {})
    used_in_order(store, keys[:3])
    settle(store.folder)
    run.save(keys[3], tensors(1), {})  # the listing is known from here on
    settle(store.folder)
    other = TensorStore(store.folder)
    other.load(keys[0])  # the oldest, as far as the listing goes
    run.save(keys[4], tensors(1), {})
    assert {file.key for file in store.files()} == {keys[0], keys[2], keys[3], keys[4]}, "1 was the oldest"
    settle(store.folder)
    other.remove(keys[2])
    other.save(keys[5], tensors(1), {})
    os.utime(store.path(keys[5]), (1e9, 1e9))
    run.save(keys[6], tensors(1), {})
    assert {file.key for file in store.files()} == {keys[0], keys[3], keys[4], keys[6]}


# -- Memory ------------------------------------------------------------------------------------------------


def resident_mib(*kinds: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in kinds) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with Linux's /proc")
def test_a_big_entry_is_mapped_and_not_read_into_memory(store):
    store.save(KEYS[0], tensors(1, 128), {})

    def measure(_send):
        reader = TensorStore(store.folder)
        start = resident_mib("RssAnon")
        reader.load(KEYS[0])  # checked: read through once, in pages that the system may drop
        checked = resident_mib("RssAnon") - start
        start = resident_mib("RssAnon", "RssFile")
        entry = reader.load(KEYS[0])
        mapped = resident_mib("RssAnon", "RssFile") - start
        total = float(entry.tensors["map"].sum())
        return checked, mapped, total, resident_mib("RssAnon", "RssFile") - start

    checked, mapped, total, read = Child(measure).receive()
    assert total == 32 * MIB
    assert checked < 16
    assert mapped < 16
    assert read > 100, "the measure sees what is read"


# -- Shared ------------------------------------------------------------------------------------------------


def test_two_writers_of_one_key_never_show_a_mixture(store):
    def write(_send, value):
        for _ in range(40):
            store.save(KEYS[0], tensors(value), {"value": value})

    writers = [Child(write, value) for value in (1, 2)]
    seen = set()
    while any(writer.is_alive for writer in writers):
        entry = TensorStore(store.folder).load(KEYS[0])
        if entry is not None:
            assert (entry.tensors["map"] == entry.about["value"]).all()
            seen.add(entry.about["value"])
    for writer in writers:
        writer.receive()
    assert seen == {1, 2}
    assert visible(store.folder) == [store.path(KEYS[0]).name]


def test_two_processes_never_hold_one_key_although_a_third_removes_it(store):
    """`tapct cache rm` during a run: removing a lock that is held would let a second process in."""
    inside = store.folder / "inside"

    def compute(_send):
        for _ in range(60):
            with store.lock(KEYS[0]):
                inside.touch(exist_ok=False)
                store.save(KEYS[0], tensors(1, 0.01), {})
                inside.unlink()

    def remove(send):
        send("removing")
        while True:
            store.remove(KEYS[0])

    store.folder.mkdir()
    remover = Child(remove)
    remover.receive()
    for computing in [Child(compute) for _ in range(3)]:
        computing.receive()  # raises FileExistsError if two were inside
    remover.kill()
    assert not inside.exists()


def test_a_process_that_is_killed_lets_go_of_its_lock(store):
    def hold(send):
        with store.lock(KEYS[0]) as held:
            send(held)
            time.sleep(60)

    holder = Child(hold)
    assert holder.receive() is True
    with store.lock(KEYS[0], wait=False) as held:
        assert held is False
    with store.lock(KEYS[1], wait=False) as held:
        assert held is True
    holder.kill()
    with store.lock(KEYS[0], wait=False) as held:
        assert held is True
