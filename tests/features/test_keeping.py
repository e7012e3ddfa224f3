"""Features that are no longer needed go, and never those of a process that runs."""

import signal

import pytest
import torch

from tapct.errors import FeatureError
from tapct.features import FeatureBank, TensorStore, leases
from tapct.features.keeping import release
from tapct.tasks.quickstart import Quickstart
from tests.data.abdomen import write_slabs
from tests.features.processes import Child
from tests.small import Small3D


@pytest.fixture
def parts(tmp_path) -> list[Quickstart]:
    root = write_slabs(tmp_path / "data", {"c0": "train", "c1": "test"})
    return [Quickstart(str(root / "quickstart"), split, split_file=root / "split.csv") for split in ("train", "test")]


@pytest.fixture(autouse=True)
def _no_lease_stays():
    yield
    leases.let_go()
    Child.kill_all()


def bank_of(folder, **settings) -> FeatureBank:
    return FeatureBank(Small3D("random", deferred=True), TensorStore(folder / "store"), **settings)


def filled(folder, parts, **settings) -> FeatureBank:
    bank = bank_of(folder, **settings)
    bank.fill(parts)
    return bank


def kinds(bank) -> list[str]:
    return sorted(bank.store.about(file.key)["kind"] for file in bank.store.files())


def features_of(bank, parts) -> list[str]:
    return [bank.keys(part, 0)[0] for part in parts]


def test_without_maps_who_needs_embeddings_extracts_nothing_and_who_needs_maps_extracts_again(parts, tmp_path):
    bank = filled(tmp_path, parts)
    keys, before = features_of(bank, parts), [bank.case(part, 0).features for part in parts]
    maps = [features.map.clone() for features in before]
    freed = sum(bank.store.nbytes(key) for key in keys)
    leases.let_go()
    found = release(bank.store, keys, "embeddings")
    assert (found.entries, found.nbytes, found.in_use) == (2, freed, ())
    assert kinds(bank) == ["embeddings", "embeddings", "labels", "labels"]
    again = filled(tmp_path, parts, with_maps=False)
    assert (again.extracted, again.encoder.is_built) == (0, False)
    for part, features in zip(parts, before, strict=True):
        case = again.case(part, 0)
        assert torch.equal(case.features.embeddings, features.embeddings)
        assert torch.equal(case.to(torch.device("cpu")).features.embeddings, features.embeddings.float())
        assert case.features.feature_grid.shape == features.feature_grid.shape
        with pytest.raises(FeatureError, match="embeddings alone"):
            _ = case.features.map
    with pytest.raises(FeatureError, match="'only-cached'"):
        filled(tmp_path, parts, mode="only-cached")
    whole = filled(tmp_path, parts)
    assert whole.extracted == 2
    assert all(torch.equal(whole.case(p, 0).features.map, m) for p, m in zip(parts, maps, strict=True))


def test_none_leaves_labels_alone_and_can_be_repeated(parts, tmp_path):
    bank = filled(tmp_path, parts, with_maps=False)
    keys = features_of(bank, parts)
    assert kinds(bank) == ["embeddings", "embeddings", "features", "features", "labels", "labels"]
    leases.let_go()
    assert release(bank.store, keys, "all").entries == 0
    assert release(bank.store, keys, "none").entries == 4
    assert kinds(bank) == ["labels", "labels"]
    assert release(bank.store, keys, "none").entries == 0


def hold_features(send, folder, parts):
    bank = filled(folder, parts)
    send(bank.extracted)
    signal.pause()


def test_what_a_process_needs_stays_until_it_ends_however_that_is(parts, tmp_path):
    bank = filled(tmp_path, parts)
    keys = features_of(bank, parts)
    leases.let_go()
    child = Child(hold_features, tmp_path, parts[:1])
    assert child.receive() == 0
    found = release(bank.store, keys, "none")
    assert found.in_use == (keys[0],)
    assert keys[0] in bank.store
    assert keys[1] not in bank.store
    child.kill()
    assert release(bank.store, keys, "none").in_use == ()
    assert keys[0] not in bank.store
    assert list((bank.store.folder / leases.FOLDER).glob("*.lease")) == [], "what the dead left is swept out"


def test_own_features_stay_until_they_are_let_go(parts, tmp_path):
    bank = filled(tmp_path, parts)
    keys = features_of(bank, parts)
    assert leases.taken()[bank.store.folder.absolute()] == sorted(keys)
    assert release(bank.store, keys, "embeddings").in_use == tuple(keys)
    leases.let_go()
    assert leases.taken() == {}
    assert release(bank.store, keys, "embeddings").entries == 2


def test_where_nothing_can_be_written_features_are_read_without_a_lease(parts, tmp_path):
    filled(tmp_path, parts)
    leases.let_go()
    folder = tmp_path / "store" / leases.FOLDER
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("as if read-only: root may write anywhere")
    bank = filled(tmp_path, parts, mode="only-cached")
    assert bank.case(parts[0], 0).features.map.numel() > 0
    with pytest.raises(FeatureError, match="Nothing was removed"):
        release(bank.store, features_of(bank, parts), "none")
    assert all(key in bank.store for key in features_of(bank, parts))
