"""Keys, end to end: what was computed of something else is never given out, and what is the same is found again."""

import importlib
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tapct._utils.content_hashes import SETTLED_S, ContentHashes
from tapct.errors import FeatureError
from tapct.features import FeatureBank, TensorStore
from tapct.features.commands import entries
from tapct.features.embed import embed
from tests.data.reading import Reading, write
from tests.small import CubicMillimetres, Small3D
from tests.volumes.dicom_files import write_series


@pytest.fixture
def root(tmp_path) -> Path:
    return write(tmp_path / "task" / "reading")


def filled(store: Path, root: Path, encoder=None, task=Reading) -> FeatureBank:
    bank = FeatureBank(encoder or CubicMillimetres("random", deferred=True), TensorStore(store))
    bank.fill([task(root, "train", root / "split.csv")])
    return bank


def feature_map(bank: FeatureBank, root: Path, task=Reading) -> torch.Tensor:
    return bank.case(task(root, "train", root / "split.csv"), 0).features.map


def replace_voxels(path: Path, *, keep_times: bool = False) -> None:
    """Other voxels behind the same name and of the same size."""
    stat, voxels = path.stat(), np.fromfile(path, np.int16)
    (voxels + 60).tofile(path)
    if keep_times:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size


# -- Scans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_times", [False, True])
def test_other_voxels_behind_a_header_are_a_miss(keep_times, root, tmp_path):
    before = filled(tmp_path / "f", root)
    assert (before.extracted, filled(tmp_path / "f", root).extracted) == (1, 0)
    old = feature_map(before, root).clone()
    replace_voxels(root / "c0" / "voxels.bin", keep_times=keep_times)
    after = filled(tmp_path / "f", root)
    assert after.extracted == 1
    assert not torch.equal(feature_map(after, root), old)


def test_a_touched_or_moved_scan_is_a_hit(root, tmp_path):
    filled(tmp_path / "f", root)
    for path in (root / "c0").iterdir():
        path.touch()
    assert filled(tmp_path / "f", root).extracted == 0
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "reading")
    assert filled(tmp_path / "f", moved).extracted == 0


class Cropped(Reading):
    """Reads the same files otherwise."""

    def read_scan(self, case):
        ct = super().read_scan(case)
        return replace(ct, hu=np.maximum(ct.hu, np.float32(-150)))


def test_a_task_of_the_same_name_that_reads_otherwise_is_a_miss(root, tmp_path):
    assert [filled(tmp_path / "f", root, task=task).extracted for task in (Reading, Cropped, Reading)] == [1, 1, 0]


def test_a_scan_that_changes_while_it_is_read_is_not_stored(root, tmp_path):
    class Replacing(Reading):
        def read_scan(self, case):
            ct = super().read_scan(case)
            replace_voxels(self.root / case / "voxels.bin")
            return ct

    with pytest.raises(FeatureError, match="case c0: its files changed while they were read"):
        filled(tmp_path / "f", root, task=Replacing)
    assert not TensorStore(tmp_path / "f").files()


def test_a_file_that_was_replaced_behind_its_name_is_hashed_again_whatever_its_times(tmp_path):
    file, hashes = tmp_path / "a", ContentHashes(tmp_path / "hashes")
    found = set()
    for content in ("one", "two", "six"):  # at once: within a tick of the clock
        file.write_text(content)
        os.utime(file, (1e9, 1e9))
        found.add(hashes.of_files([file]))
    assert len(found) == 3


def test_what_is_at_rest_is_hashed_once(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("one")
    hashes = ContentHashes(tmp_path / "hashes")
    later = time.time_ns() + int(2 * SETTLED_S * 1e9)
    monkeypatch.setattr("tapct._utils.content_hashes.time.time_ns", lambda: later)
    first = hashes.of_files([tmp_path / "a"])
    monkeypatch.setattr("tapct._utils.content_hashes._sha256", lambda *_: pytest.fail("hashed again"))
    assert hashes.of_files([tmp_path / "a"]) == first


# -- Encoders ----------------------------------------------------------------------------------------------


class Buffered(CubicMillimetres):
    """Clips to a range in a buffer, next to its network."""

    def __init__(self, low: float) -> None:
        super().__init__("random", deferred=True)
        self.register_buffer("range_hu", torch.tensor([low, 1000.0]))

    def _encode(self, x):
        return super()._encode(x.clamp(*self.range_hu.tolist()))


def test_two_buffers_are_two_encoders(root, tmp_path):
    banks = [filled(tmp_path / "f", root, Buffered(low)) for low in (-1000.0, -150.0, -1000.0)]
    assert [bank.extracted for bank in banks] == [1, 1, 0]
    assert not torch.equal(*(feature_map(bank, root) for bank in banks[:2]))
    settings = [bank.description()["identity"]["settings"] for bank in banks]
    assert settings[0] == settings[2] != settings[1]


class FromFile(CubicMillimetres):
    """Reads what it adds from a file that is a setting."""

    def __init__(self, offset: Path) -> None:
        super().__init__("random", deferred=True)
        self.offset = offset

    def _encode(self, x):
        return super()._encode(x + float(self.offset.read_text(encoding="utf-8")))


def test_a_file_that_changes_behind_a_setting_is_a_miss(root, tmp_path):
    offset, extracted = tmp_path / "offset.txt", []
    for content in ("10.0", "20.0", "20.0"):
        offset.write_text(content, encoding="utf-8")
        extracted.append(filled(tmp_path / "f", root, FromFile(offset)).extracted)
    assert extracted == [1, 1, 0]


def test_weights_that_change_behind_their_name_are_a_miss(root, tmp_path):
    path, extracted = tmp_path / "weights.pt", []
    for scale in (1.0, 1.5, 1.5):
        torch.save({key: scale * value for key, value in Small3D("random").network.state_dict().items()}, path)
        extracted.append(filled(tmp_path / "f", root, Small3D(path, deferred=True)).extracted)
    assert extracted == [1, 1, 0]


ADAPTER = """from tests.small import CubicMillimetres
from {package}.window import clipped

class Clipped(CubicMillimetres):
    def _encode(self, x):
        return super()._encode(clipped(x))
"""
WINDOW = '"""The window."""\n\n\ndef clipped(x):\n    return x.clamp({low}, 1000)  # HU\n'


@pytest.fixture
def third_party(monkeypatch):
    """Writes a third-party package into a folder, and gives its encoder as a new process there has it."""

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "third_party"]:
            del sys.modules[name]

    def make(folder: Path, window: str):
        forget()
        for name, text in {"__init__": "", "encoder": ADAPTER.format(package="third_party"), "window": window}.items():
            (folder / "third_party").mkdir(parents=True, exist_ok=True)
            (folder / "third_party" / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module("third_party.encoder").Clipped("random", deferred=True)

    yield make
    forget()


def test_a_helper_module_that_changes_is_a_miss_and_a_comment_or_another_checkout_is_not(third_party, root, tmp_path):
    def extracted(checkout: str, window: str) -> int:
        return filled(tmp_path / "f", root, third_party(tmp_path / checkout, window)).extracted

    narrow = WINDOW.format(low=-150)
    assert extracted("a", WINDOW.format(low=-1000)) == 1
    assert extracted("a", narrow) == 1
    assert extracted("a", narrow.replace("  # HU", "  # of soft tissue")) == 0
    assert extracted("b", narrow) == 0


def test_another_version_of_a_library_is_a_miss(root, tmp_path, monkeypatch):
    identity = importlib.import_module("tapct.features.identity")
    shared = identity.shared_code()
    filled(tmp_path / "f", root)
    other = shared | {"libraries": shared["libraries"] | {"nibabel": "4.0"}}
    monkeypatch.setattr(identity, "shared_code", lambda: other)
    assert filled(tmp_path / "f", root).extracted == 1


# -- Entries -----------------------------------------------------------------------------------------------


def test_an_entry_that_is_of_another_case_is_an_error(root, tmp_path):
    bank = filled(tmp_path / "f", root)
    key, _ = bank.keys(Reading(root, "train", root / "split.csv"), 0)
    entry = bank.store.load(key)
    tensors = {name: tensor.clone() for name, tensor in entry.tensors.items()}
    bank.store.save(key, tensors, entry.about | {"case": "c7"})
    again = filled(tmp_path / "f", root)
    with pytest.raises(FeatureError, match=r"holds the features of case c7 of quickstart, not the features of case c0"):
        feature_map(again, root)


def test_an_entry_under_another_key_is_said_and_extracted_again(root, tmp_path):
    filled(tmp_path / "f", root, Buffered(-1000.0))
    one = {file.key for file in TensorStore(tmp_path / "f").files()}
    bank = filled(tmp_path / "f", root, Buffered(-150.0))
    right = feature_map(bank, root).clone()
    (new,) = {file.key for file in bank.store.files()} - one
    (old,) = (key for key in one if bank.store.about(key)["kind"] == "features")
    bank.store.path(new).unlink()
    shutil.copy(bank.store.path(old), bank.store.path(new))
    again = filled(tmp_path / "f", root, Buffered(-150.0))
    assert again.extracted == 1
    assert torch.equal(feature_map(again, root), right)


def test_what_is_derived_hangs_on_the_code_that_computes_it_and_is_made_again_when_damaged(root, tmp_path, monkeypatch):
    bank = filled(tmp_path / "f", root)
    made = []

    def derived(module="tests.small"):
        def compute():
            made.append(module)
            return {"sum": torch.tensor([float(len(made))])}

        return bank.derived("c0", {"what": "sum"}, [module], compute)["sum"].item()

    assert [derived(), derived(), derived("tests.data.reading"), derived()] == [1, 1, 2, 1]
    assert {(entry.task, entry.case) for entry in entries(bank.store)} == {("quickstart", "c0")}
    (one,) = [f for f in bank.store.files() if bank.store.about(f.key)["kind"] == "derived"][:1]
    content = one.path.read_bytes()
    one.path.unlink()  # what was loaded is mapped to the old file
    one.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    bank = filled(tmp_path / "f", root)
    assert 3 in (derived(), derived("tests.data.reading"))


# -- tapct embed -------------------------------------------------------------------------------------------


def statuses(encoder, *paths, out):
    return [(one.status, one.reason or "") for one in embed(encoder, paths, out)]


def test_embedding_a_header_again_whose_voxels_changed_is_an_error(root, tmp_path):
    path, encoder = root / "c0" / "ct.mhd", CubicMillimetres("random")
    assert statuses(encoder, path, out=tmp_path)[0][0] == "written"
    (root / "c0" / "voxels.bin").touch()
    assert statuses(encoder, path, out=tmp_path)[0][0] == "there"
    replace_voxels(root / "c0" / "voxels.bin", keep_times=True)
    status, reason = statuses(encoder, path, out=tmp_path)[0]
    assert status == "failed"
    assert "features of another scan, or of this one before its files changed" in reason


def test_embedding_one_slice_of_a_series_hangs_on_all_of_them(tmp_path):
    hu = np.full((8, 40, 40), -1000)
    hu[:, 5:35, 5:35] = -100
    hu[:, 10:30, 10:30] = 40
    files = write_series(tmp_path / "series", hu + 1024)
    assert statuses(CubicMillimetres("random"), files[0], out=tmp_path)[0][0] == "written"
    hu[5, 15:20, 15:20] = 700
    write_series(tmp_path / "series", hu + 1024)
    status, reason = statuses(CubicMillimetres("random"), files[0], out=tmp_path)[0]
    assert (status, "another scan" in reason) == ("failed", True)


def test_embedding_with_another_buffer_under_the_same_card_is_an_error(root, tmp_path):
    path = root / "c0" / "ct.mhd"
    assert statuses(Buffered(-1000.0), path, out=tmp_path)[0][0] == "written"
    assert statuses(Buffered(-1000.0), path, out=tmp_path)[0][0] == "there"
    status, reason = statuses(Buffered(-150.0), path, out=tmp_path)[0]
    assert (status, "by cubic with other weights, settings, code or libraries" in reason) == ("failed", True)


def test_keys_are_of_what_is_there_and_not_of_where_it_lies(root, tmp_path):
    bank = filled(tmp_path / "f", root)
    for file in bank.store.files():
        assert str(tmp_path) not in json.dumps(bank.store.about(file.key))
