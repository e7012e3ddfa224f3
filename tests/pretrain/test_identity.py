"""A run outlives its sources: what decides the samples of a store says whether a run may resume, and nothing else."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pretrain.config import LossesConfig
from pretrain.data.identity import StoreIdentity
from pretrain.data.index import read_index, write_index
from pretrain.data.store import Box, Store
from pretrain.observe.monitor import read_events
from pretrain.observe.report import render
from pretrain.training.run_folder import CHANGEABLE
from tests.pretrain.runs import checkpoint, differing, run_here
from tests.pretrain.test_index import digest_of
from tests.pretrain.test_prepare import rows, run, scan, write


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    for name in "abc":
        write(folder / f"{name}.nii.gz", scan(seed=ord(name)))
    return folder


@pytest.fixture
def own_store(sources, tmp_path):
    assert run(sources, "-o", tmp_path / "store") == 0
    return tmp_path / "store"


def digest(store) -> str:
    return StoreIdentity.of(Store(store)).digest


def age(store) -> None:
    """Makes the index that of a store of before files were hashed."""
    write_index(store, {k: replace(v, source_sha256=None, code_sha256=None) for k, v in read_index(store).items()})


def trained(store, output, *more: str) -> int:
    return run_here(store, output, "--run.checkpoint_every=1", "--run.micro_batches=1", *more)


def as_of_before(path, index_sha256: str) -> None:
    """Turns a checkpoint into one of before digests of samples."""
    state = torch.load(path, weights_only=True)
    del state["stores"]
    torch.save(state | {"store_digest": index_sha256}, path)


def newest(output):
    return max((output / "checkpoints").glob("step_*.pt"))


@pytest.mark.parametrize("aged", [False, True], ids=["hashed", "of before files were hashed"])
def test_a_touch_of_the_sources_changes_nothing(sources, own_store, tmp_path, aged):
    if aged:
        age(own_store)
    before, index = digest(own_store), (own_store / "index.jsonl").read_bytes()
    assert trained(own_store, tmp_path / "run", "--run.stop_at=1") == 0
    for path in sources.iterdir():
        os.utime(path, ns=(0, 1_000_000_000))
    assert run(sources, "-o", own_store) == 0
    assert ((own_store / "index.jsonl").read_bytes() == index) is not aged, "the case of the issue: times are in it"
    assert digest(own_store) == before
    assert trained(own_store, tmp_path / "run", "--run.stop_at=2") == 0


def test_moved_sources_keep_their_volumes_and_the_run(sources, own_store, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert trained(own_store, whole, "--run.stop_at=2") == 0
    assert trained(own_store, parts, "--run.stop_at=1") == 0
    before = digest(own_store)
    (tmp_path / "elsewhere").mkdir()
    sources = sources.rename(tmp_path / "elsewhere" / "in")
    (sources / "a.nii.gz").rename(sources / "swap")
    (sources / "b.nii.gz").rename(sources / "a.nii.gz")
    (sources / "swap").rename(sources / "b.nii.gz")
    monkeypatch.setattr("pretrain.data.prepare.convert", lambda *_: pytest.fail("made again"))
    assert run(sources, "-o", own_store) == 0
    assert digest(own_store) == before
    assert [row.source for row in rows(own_store)] == [str(sources / f"{name}.nii.gz") for name in "abc"]
    assert {row.patient for row in rows(own_store)} == {"a", "b", "c"}
    assert trained(own_store, parts, "--run.stop_at=2") == 0
    assert differing(checkpoint(whole, 2), checkpoint(parts, 2)) == []


def test_what_lies_where_another_scan_lay_is_stored_beside_it(sources, own_store):
    """a moves to d, and a new scan lies at a: four volumes, of which each file holds what its row says."""
    (sources / "a.nii.gz").rename(sources / "d.nii.gz")
    write(sources / "a.nii.gz", scan(seed=99))
    assert run(sources, "-o", own_store) == 0
    store = Store(own_store)
    assert [row.source[-8] for row in rows(own_store)] == list("abcd")
    for row, seed in zip(rows(own_store), (99, ord("b"), ord("c"), ord("a")), strict=True):
        store.verify(row)
        assert np.array_equal(store.read(row, Box(0, 0, 0, *row.shape)), scan(seed=seed).clip(-1008, 822))


def test_a_scan_that_moves_onto_another_takes_its_place(sources, own_store):
    (sources / "a.nii.gz").replace(sources / "b.nii.gz")
    ids = {row.source[-8]: row.id for row in rows(own_store)}
    assert run(sources, "-o", own_store) == 0
    assert [(row.source[-8], row.id) for row in rows(own_store)] == [("b", ids["a"]), ("c", ids["c"])]


def test_a_copy_is_a_scan_of_its_own(sources, own_store):
    shutil.copy(sources / "a.nii.gz", sources / "d.nii.gz")
    assert run(sources, "-o", own_store) == 0
    assert len(rows(own_store)) == 4


def test_the_digest_covers_what_decides_samples_and_nothing_else(own_store):
    before = [Store(own_store)[n] for n in range(3)]
    changed = {
        "source": "/elsewhere", "source_bytes": 1, "source_mtime_ns": 1, "patient": "x", "spacing_mm": (9.0, 1.0, 1.0),
        "size_bytes": 1, "notes": ("n",), "source_sha256": "0", "code_sha256": "0", "shard": "0", "offset": 1,
    }  # fmt: skip
    for name, value in changed.items():
        assert digest_of([replace(before[0], **{name: value}), *before[1:]]) == digest_of(before), name
    decides = {"id": "0", "shape": (1, 2, 3), "foreground_slices": (0, 1), "sha256": "0"}
    for name, value in decides.items():
        assert digest_of([replace(before[0], **{name: value}), *before[1:]]) != digest_of(before), name
    assert {*changed, *decides} == set(before[0].__dataclass_fields__)
    assert digest_of(before[::-1]) != digest_of(before)
    assert digest_of(before[:2]) != digest_of(before)


def test_a_grown_store_is_adopted_on_demand_and_noted(sources, own_store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pretrain.observe.report._pictures", lambda _: [])  # test_report looks at them
    output = tmp_path / "run"
    assert trained(own_store, output, "--run.stop_at=1") == 0
    first = digest(own_store)
    write(sources / "d.nii.gz", scan(seed=4))
    assert run(sources, "-o", own_store) == 0
    assert trained(own_store, output, "--run.stop_at=2") == 1
    assert "(3 then, 4 now)" in (said := capsys.readouterr().err)
    assert "--run.adopt_store=true" in said
    assert trained(own_store, output, "--run.stop_at=2", "--run.adopt_store=true") == 0
    stores = [{"step": 0, "digest": first, "volumes": 3}, {"step": 1, "digest": digest(own_store), "volumes": 4}]
    assert checkpoint(output, 2)["stores"] == stores
    assert trained(own_store, output, "--run.stop_at=3") == 0
    assert checkpoint(output, 3)["stores"] == stores
    (told,) = (event for event in read_events(output) if event["event"] == "store")
    assert (told["step"], told["before"], told["now"], told["volumes"]) == (1, first, digest(own_store), 4)
    assert "another store from here on: 3 volumes before, 4 now" in render(output)


def test_a_checkpoint_of_before_resumes_with_the_very_index(own_store, tmp_path):
    output = tmp_path / "run"
    assert trained(own_store, output, "--run.stop_at=1") == 0
    as_of_before(newest(output), hashlib.sha256((own_store / "index.jsonl").read_bytes()).hexdigest())
    assert trained(own_store, output, "--run.stop_at=2") == 0
    assert checkpoint(output, 2)["stores"] == [{"step": 0, "digest": digest(own_store), "volumes": 3}]


@pytest.mark.parametrize("noted", [True, False])
def test_a_checkpoint_of_before_resumes_where_its_index_is_noted(sources, own_store, tmp_path, capsys, noted):
    age(own_store)
    (own_store / "digests.json").unlink()  # as a store of that time
    output = tmp_path / "run"
    assert trained(own_store, output, "--run.stop_at=1") == 0
    as_of_before(newest(output), hashlib.sha256((own_store / "index.jsonl").read_bytes()).hexdigest())
    for path in sources.iterdir():
        os.utime(path, ns=(0, 1_000_000_000))
    assert run(sources, "-o", own_store) == 0
    if not noted:  # the index was written by a version that noted nothing
        (own_store / "digests.json").write_text("{}", encoding="utf-8")
    assert trained(own_store, output, "--run.stop_at=2") == (0 if noted else 1)
    if not noted:
        said = capsys.readouterr().err
        assert "cannot be told" in said
        assert "--run.adopt_store=true" in said
        assert trained(own_store, output, "--run.stop_at=2", "--run.adopt_store=true") == 0


def test_chunks_may_change_on_resume_but_not_the_formula(own_store, tmp_path, capsys):
    output = tmp_path / "run"
    assert trained(own_store, output, "--run.stop_at=1", "--losses.chunk_rows=64") == 0
    assert trained(own_store, output, "--run.stop_at=2", "--losses.chunk_rows=null") == 1
    assert "losses.chunk_rows was 64, is None" in capsys.readouterr().err
    assert trained(own_store, output, "--run.stop_at=2", "--losses.chunk_rows=32") == 0


def test_every_setting_that_may_change_exists_and_has_a_reason(small_config):
    config = small_config().model_dump()
    for key, why in CHANGEABLE.items():
        section, name = key.split(".")
        assert name in config[section], key
        assert why
    assert "losses.chunk_rows" in CHANGEABLE
    assert "centre_momentum" in LossesConfig.model_fields
    assert "losses.centre_momentum" not in CHANGEABLE


def test_a_damaged_note_is_named(own_store, sources, capsys):
    assert json.loads((own_store / "digests.json").read_text(encoding="utf-8"))
    (own_store / "digests.json").write_text("{", encoding="utf-8")
    assert run(sources, "-o", own_store) == 1
    assert "digests.json is damaged" in " ".join(capsys.readouterr().err.split())
