"""The index is opened without being parsed, and says what it said when it was: the digest, the order, every row."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from pretrain import files
from pretrain.data.identity import StoreIdentity
from pretrain.data.index import StoredVolume, StoreIndex, read_index, write_index
from pretrain.data.sampling import SampleOrder
from pretrain.data.store import Store, write_settings
from pretrain.errors import PretrainError


def digest_of(volumes: Iterable[StoredVolume]) -> str:
    """Returns the digest of an index that has just been written."""
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), {str(number): volume for number, volume in enumerate(volumes)})
        return StoreIndex(Path(folder)).digest


def rows_of(number: int) -> dict[str, StoredVolume]:
    rows = {}
    for i in range(number):
        key = hashlib.blake2b(str(i).encode(), digest_size=8).hexdigest()
        rows[key] = StoredVolume(
            id=key,
            source=f"/Bücher/{i}.nii.gz",
            source_bytes=1000 + i,
            source_mtime_ns=2**60 + i,
            patient=f"p{i}\n",
            shape=(12 + i, 512, 300 + i),
            spacing_mm=(1.5, 0.1 + i, 0.7),
            foreground_slices=(i, 12 + i),
            size_bytes=99 + i,
            sha256=hashlib.sha256(key.encode()).hexdigest(),
            notes=("note",) * (i % 2),
            source_sha256=None if i % 3 else "0" * 64,
        )
    return rows


@pytest.fixture
def folder(tmp_path):
    write_settings(tmp_path, (-1008.0, 822.0))
    write_index(tmp_path, rows_of(5))
    return tmp_path


@pytest.fixture
def old(folder):
    """As a store of before there were offsets."""
    (folder / "index.offsets").unlink()
    return folder


@pytest.fixture
def parsed(monkeypatch):
    """Counts the lines that are parsed."""
    lines = []
    parse = StoredVolume.from_json
    monkeypatch.setattr(StoredVolume, "from_json", staticmethod(lambda line: lines.append(line) or parse(line)))
    return lines


def refuse_offsets(monkeypatch) -> None:
    real = files.write_atomically

    def read_only(path, content):
        if path.name == "index.offsets":
            raise OSError(30, "Read-only file system")
        real(path, content)

    monkeypatch.setattr(files, "write_atomically", read_only)


def test_identity_and_order_are_those_of_before_there_were_offsets(folder):
    """What commit d79f929 gave, which parsed the whole index."""
    assert StoreIdentity.of(Store(folder)) == StoreIdentity(
        digest="de17f13eca866ba4bdea79b57f7b0cb89bcdce190b2310cc78e33108f4eb3adc",
        volumes=5,
        index_sha256="ecb9039b8a07f6a6e082ecf4cfa158a914ec34f64f16584237d39316b7fe3231",
    )
    order = SampleOrder(5, seed=7)
    assert [order[sample] for sample in range(15)] == [2, 1, 4, 0, 3, 2, 1, 0, 4, 3, 0, 1, 3, 4, 2]


@pytest.mark.parametrize(
    ("number", "block"),
    [(1, 1 << 15), (5, 1 << 15), (250, 100), pytest.param(40_000, 1 << 15, marks=pytest.mark.thorough)],
)
def test_rows_shapes_and_digest_are_those_of_the_lines(tmp_path, monkeypatch, number, block):
    monkeypatch.setattr("pretrain.data.index._BLOCK_ROWS", block)
    rows = rows_of(number)
    write_settings(tmp_path, (-1008.0, 822.0))
    write_index(tmp_path, rows)
    store = Store(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == sorted(rows)
    for place in {0, number // 2, number - 1}:
        assert store[place] == rows[lines[place]["id"]]
    assert store[-1] == store[number - 1]
    decisive = ([line[name] for name in ("id", "shape", "foreground_slices", "sha256")] for line in lines)
    assert store.digest == hashlib.sha256("".join(json.dumps(one) + "\n" for one in decisive).encode()).hexdigest()
    assert store.thinner_than(15) == [place for place, line in enumerate(lines) if line["shape"][0] < 15]
    assert read_index(tmp_path) == rows


def test_opening_parses_nothing_and_a_sample_one_line(folder, parsed):
    store = Store(folder)
    assert StoreIdentity.of(store).volumes == 5
    assert store.thinner_than(14)
    assert parsed == []
    assert store[3].shape
    assert len(parsed) == 1


def test_a_number_outside_is_refused(folder):
    for number in (5, -6):
        with pytest.raises(IndexError, match="has 5 volumes"):
            Store(folder)[number]


def test_an_older_store_is_converted_once_and_it_is_said(old, parsed, caplog):
    caplog.set_level(logging.INFO)
    first = Store(old)
    assert len(parsed) == 5
    assert "wrote index.offsets for the 5 volumes" in caplog.text
    assert first.digest == digest_of(read_index(old).values())
    parsed.clear()
    second = Store(old)
    assert parsed == []
    assert (second.digest, second.index_sha256) == (first.digest, first.index_sha256)


def test_an_older_store_that_cannot_be_written_is_read_in_memory_and_it_is_said(old, monkeypatch, caplog):
    refuse_offsets(monkeypatch)
    store = Store(old)
    assert "every process parses the whole index" in caplog.text
    assert "Read-only file system" in caplog.text
    assert [store[n] for n in range(5)] == list(read_index(old).values())
    assert store.thinner_than(14) == [n for n in range(5) if store[n].shape[0] < 14]
    assert not (old / "index.offsets").exists()


@pytest.mark.parametrize("times", [True, False], ids=["with times", "without"])
def test_a_copy_needs_no_conversion(folder, tmp_path, parsed, times):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copy2 if times else shutil.copyfile)
    if not times:
        os.utime(copy / "index.jsonl", ns=(0, 5))
    for _ in range(2):
        assert Store(copy).digest == Store(folder).digest
    assert parsed == []


def test_an_index_that_was_edited_is_converted_again_also_where_its_size_is_the_same(folder):
    before = Store(folder)
    index = folder / "index.jsonl"
    text = index.read_text(encoding="utf-8")
    sha256 = before[0].sha256
    index.write_text(text.replace(sha256, sha256[::-1]), encoding="utf-8")
    os.utime(index, ns=(0, 1))
    after = Store(folder)
    assert after[0].sha256 == sha256[::-1]
    assert after.digest == digest_of(read_index(folder).values()) != before.digest


@pytest.mark.parametrize("place", [0, 100, 520, -1], ids=["head", "summary", "first row", "last row"])
def test_damaged_offsets_are_noticed(folder, place):
    path = folder / "index.offsets"
    content = bytearray(path.read_bytes())
    stat = path.stat()
    content[place] ^= 4
    for spoilt in (bytes(content), bytes(content[:700]), b""):
        path.write_bytes(spoilt)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        store = Store(folder)
        assert [store[n] for n in range(5)] == list(read_index(folder).values())
        assert store.digest == digest_of(read_index(folder).values())


def test_an_open_index_stays_what_it_is_while_prepare_writes_another(folder):
    opened = StoreIndex(folder)
    before = list(read_index(folder).values())
    write_index(folder, rows_of(9))
    assert [opened[n] for n in range(5)] == before
    assert len(StoreIndex(folder)) == 9


def test_an_index_that_is_cut_short_under_a_reader_is_named(folder):
    opened = StoreIndex(folder)
    os.truncate(folder / "index.jsonl", 100)
    with pytest.raises(PretrainError, match=r"index\.jsonl is shorter than it was"):
        opened[4]
