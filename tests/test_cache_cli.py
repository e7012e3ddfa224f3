"""`tapct cache` on a store with real features."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tapct.cli import main
from tapct.features import leases
from tapct.features.bank import FeatureBank
from tapct.features.commands import select
from tapct.features.keeping import save_embeddings
from tapct.features.store import TensorStore
from tapct.tasks.quickstart import Quickstart
from tests.small import CubicMillimetres

DAY_S = 24 * 3600
HALF = b"half written"

CUBIC = "cubic@random"
"""What experiments of the encoder are called, and so its features."""


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The quickstart's two cases by one encoder; the features of one also as those of another task and encoder."""
    store = TensorStore(tmp_path_factory.mktemp("store"))
    bank = FeatureBank(CubicMillimetres("random"), store)
    bank.fill([Quickstart(Quickstart.shipped_root, split) for split in ("train", "test")])
    features = next(file.key for file in store.files() if store.about(file.key)["kind"] == "features")
    entry = store.load(features)
    store.save("f" * 64, entry.tensors, {**entry.about, "card": "other", "task": "amos22"})
    left = store.folder / "ee" / f".{'e' * 64}.killed" / "file"
    left.parent.mkdir(parents=True)
    left.write_bytes(HALF)
    return store.folder


@pytest.fixture
def store(original, tmp_path, monkeypatch) -> TensorStore:
    """A copy, as the store that the variable names."""
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "features"))
    return TensorStore(shutil.copytree(original, tmp_path / "features"))


@pytest.fixture
def cache(monkeypatch, capsys):
    """Runs `tapct cache ...`; returns the exit status and what it printed (an error as its last line)."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tapct", "cache", *arguments])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        printed = capsys.readouterr().out
        return (status, printed) if isinstance(status, int) else (1, f"{printed}{status}")

    return run


def kinds(store: TensorStore) -> list[tuple[str, str]]:
    return sorted((store.about(file.key)["kind"], store.about(file.key)["card"]) for file in store.files())


def age(store: TensorStore, card: str, days: float) -> None:
    for file in store.files():
        if store.about(file.key)["card"] == card:
            os.utime(file.path, (time.time() - days * DAY_S,) * 2)


def damage(store: TensorStore, card: str) -> Path:
    path = next(f.path for f in store.files() if store.about(f.key)["card"] == card)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    return path


def test_the_folder_is_that_of_the_variable(store, cache):
    status, listed = cache("ls")
    assert status == 0
    assert str(store.folder) in listed


def test_a_command_that_does_not_exist_ends_with_status_2(cache):
    assert [cache()[0], cache("clear")[0], cache("rm", "--encode", "x", "y")[0]] == [2, 2, 2]


def test_ls_counts_cases_and_bytes_by_encoder_and_task(store, cache, monkeypatch):
    entry = store.load("f" * 64)
    store.save(
        "d" * 64, entry.tensors, {**entry.about, "kind": "derived", "case": "all training cases"}
    )  # is not a case
    before = {file.key: file.used_at_s for file in store.files()}
    with monkeypatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        status, printed = cache("ls", "--json")
    listed = json.loads(printed)
    assert status == 0
    rows = [(row["encoder"], row["task"], row["cases"], row["maps"], row["in_use"]) for row in listed["rows"]]
    assert rows == [(CUBIC, "quickstart", 2, 2, 0), ("labels", "quickstart", 2, 0, 0), ("other", "amos22", 1, 1, 0)]
    total = sum(file.nbytes for file in store.files())
    assert listed["nbytes"] == sum(row["nbytes"] for row in listed["rows"]) == total
    status, printed = cache("ls")
    assert status == 0
    (row,) = (line.split() for line in printed.splitlines() if "amos22" in line)
    assert row[:3] == ["other", "amos22", "1"]
    assert row[-2:] == time.strftime("%Y-%m-%d %H:%M", time.gmtime(before["f" * 64])).split()
    assert printed.split("total")[1].split()[0] == f"{total / 2**30:.3f}"
    assert {file.key: file.used_at_s for file in store.files()} == before, "looking is not using"


def test_verify_finds_what_is_damaged_and_looking_is_not_using(store, cache):
    before = {file.key: file.used_at_s for file in store.files()}
    status, printed = cache("verify")
    assert (status, printed.splitlines()[-1]) == (0, f"0 of 5 entries in {store.folder} are damaged")
    assert {file.key: file.used_at_s for file in store.files()} == before
    flipped = damage(store, "other")
    cut = next(file.path for file in store.files() if store.about(file.key)["kind"] == "labels")
    cut.write_bytes(cut.read_bytes()[:50])
    status, printed = cache("verify")
    assert status == 1
    assert f"2 of 5 entries in {store.folder} are damaged" in printed
    assert f"{flipped} does not match its checksum" in printed
    assert "other, amos22, case " in printed
    assert f"?, ?, case ?: {cut} is truncated or damaged" in printed


def test_rm_broken_removes_what_is_damaged_or_half_written_and_nothing_else(store, cache):
    damage(store, "other")
    status, printed = cache("rm", "--broken")
    assert status == 0
    assert "other, amos22: 1 cases" in printed
    assert "half written: " in printed
    assert f"removed 1 entries, 0.000 GiB, from {store.folder}" in printed
    assert kinds(store) == [("features", CUBIC)] * 2 + [("labels", CUBIC)] * 2
    assert not list(store.folder.glob("??/.*"))
    assert cache("verify")[0] == 0
    assert "removed 0 entries" in cache("rm", "--broken")[1]


@pytest.mark.parametrize(
    ("selectors", "left"),
    [
        (["--encoder", "cubic"], [("features", "other"), ("labels", CUBIC), ("labels", CUBIC)]),
        (["--encoder", "labels"], [("features", CUBIC), ("features", CUBIC), ("features", "other")]),
        (["--task", "quickstart"], [("features", "other")]),
        (["--encoder", "cubic", "--task", "quickstart", "--unused-days", "30"], "everything"),
        (["--unused-days", "9"], [("features", CUBIC)] * 2 + [("labels", CUBIC)] * 2),
        (["--all"], []),
    ],
)
def test_rm_removes_what_meets_every_condition(selectors, left, store, cache):
    everything = kinds(store)
    age(store, "other", days=10)
    sizes = sum(file.nbytes for file in store.files())
    status, printed = cache("rm", *selectors)
    assert status == 0
    assert kinds(store) == (everything if left == "everything" else left)
    gone = sizes - sum(file.nbytes for file in store.files())
    removed = len(everything) - len(kinds(store))
    assert f"removed {removed} entries, {gone / 2**30:.3f} GiB, from {store.folder}" in printed


def test_what_a_running_process_needs_is_shown_and_stays(store, cache):
    features = next(file.key for file in store.files() if store.about(file.key)["card"] == "other")
    save_embeddings(store, next(f.key for f in store.files() if store.about(f.key)["kind"] == "features"))
    leases.take(store.folder, [features])
    try:
        rows = json.loads(cache("ls", "--json")[1])["rows"]
        assert {row["encoder"]: row["in_use"] for row in rows} == {CUBIC: 0, "labels": 0, "other": 1}
        status, printed = cache("rm", "--all")
        assert (status, kinds(store)) == (0, [("features", "other")])
        assert "left 1 entries, for running processes need them" in printed
    finally:
        leases.let_go()
    assert cache("rm", "--all")[0] == 0
    assert kinds(store) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rm"], "say what to remove: --broken, --encoder NAME"),
        (["rm", "--encoder", "cubik"], "is of the encoder 'cubik'. Did you mean 'cubic'"),
        (["rm", "--task", "amos"], "is of the task 'amos'. Did you mean 'amos22'"),
        (["rm", "--unused-days", "-1"], "--unused-days must be 0 or more"),
        (["ls", "--folder", "nowhere"], "there is no folder nowhere: nothing was stored there"),
    ],
)
def test_a_wrong_request_removes_nothing_and_says_why(arguments, message, store, cache):
    before = kinds(store)
    status, printed = cache(*arguments)
    assert status == 1
    assert message in printed
    assert kinds(store) == before


def test_the_store_is_in_the_cache_folder_unless_a_variable_names_it(store, cache, monkeypatch, tmp_path):
    monkeypatch.delenv("TAPCT_FEATURES")
    assert f"there is no folder {tmp_path}/cache/features" in cache("ls")[1]
    assert json.loads(cache("ls", "--json", "--folder", str(store.folder))[1])["folder"] == str(store.folder)


def test_an_encoder_under_other_options_is_a_row_of_its_own(store, cache):
    bank = FeatureBank(CubicMillimetres("random", pad_hu=-900.0), store)
    bank.fill([Quickstart(Quickstart.shipped_root, "test")])
    rows = json.loads(cache("ls", "--json")[1])["rows"]
    assert [row["encoder"] for row in rows] == [CUBIC, f"{CUBIC}+pad_hu=-900", "labels", "other"]
    chosen = {name: select(store, encoder=name) for name in ("cubic", f"{CUBIC}+pad_hu=-900")}
    assert {name: len(found) for name, found in chosen.items()} == {"cubic": 3, f"{CUBIC}+pad_hu=-900": 1}
