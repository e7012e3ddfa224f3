"""Features in int8: how far from what was computed, and that everything that reads them sees values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tapct.errors import FeatureError
from tapct.features import EncodedCases, FeatureBank, TensorStore, extract
from tapct.features.nbytes import entry_nbytes
from tapct.features.values import as_values, quantised
from tapct.probes.adaptors import pooled
from tapct.tasks.quickstart import Quickstart
from tapct.volumes import Grid
from tests.data.abdomen import write_slabs
from tests.small import Small3D

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def part(tmp_path_factory) -> Quickstart:
    root = write_slabs(tmp_path_factory.mktemp("data"), {"c0": "train", "c1": "train"})
    return Quickstart(str(root / "quickstart"), "train", split_file=root / "split.csv")


@pytest.fixture(scope="module")
def bank(part, tmp_path_factory) -> FeatureBank:
    found = FeatureBank(Small3D("random"), TensorStore(tmp_path_factory.mktemp("store")), dtype="int8")
    found.fill([part])
    return found


def computed(part, index):
    volume, _, metadata = part[index]
    hu = volume.as_subclass(torch.Tensor)[:, 0]
    return extract(Small3D("random"), hu, Grid.of(hu.shape, metadata["affine"].numpy()))


def test_no_value_is_further_than_half_a_step_of_its_channel(part, bank):
    for index in range(len(part)):
        plain, stored = computed(part, index).map.double(), bank.case(part, index).to(CPU).features.map
        assert stored.dtype == torch.float32
        largest = plain.abs().amax(dim=(1, 2, 3))
        furthest = (stored.double() - plain).abs().amax(dim=(1, 2, 3))
        assert (furthest <= largest / 254 * (1 + 1e-5)).all()
        assert (furthest > largest / 2540).all(), "or it is not int8 that was stored"
        assert torch.equal(stored.sign()[stored != 0], plain.float().sign()[stored != 0])


def test_a_loud_channel_takes_no_steps_from_a_quiet_one_and_zero_stays_zero():
    quiet = torch.linspace(-1, 1, 2 * 3 * 5).reshape(2, 3, 5)
    features = torch.stack([quiet * 1e4, quiet, torch.zeros_like(quiet), quiet.clamp(min=0), quiet * 1e-42])
    steps, scale = quantised(features)
    again = as_values(steps, scale, CPU, None)
    for channel, factor in ((0, 1e4), (1, 1.0)):
        assert (again[channel] / factor - quiet).abs().max() <= 1 / 254 * (1 + 1e-5)
    assert not again[2].any()
    assert torch.equal(again[3] == 0, (quiet.clamp(min=0) * 127).round() == 0)
    assert torch.isfinite(again).all()


def test_whoever_reads_sees_values_and_not_steps(part, bank):
    """The loader's case, the one on a device, and pooled vectors, as numpy has them of the file."""
    entry = bank.store.load(bank.keys(part, 0)[0])
    assert {name: t.dtype for name, t in entry.tensors.items()} == {
        "map": torch.int8,
        "map_scale": torch.float32,
        "embeddings": torch.bfloat16,
    }
    scale = entry.tensors["map_scale"].numpy()[:, None, None, None]
    values = entry.tensors["map"].numpy().astype(np.float32) * scale
    case = EncodedCases(bank, part)[0]
    assert np.array_equal(case.features.map.numpy(), values)
    assert np.array_equal(case.to(CPU).features.map.numpy(), values)
    assert torch.equal(case.to(CPU).features.embeddings, entry.tensors["embeddings"].float())
    inside = values.astype(np.float64)[:, : pooled_patches(case)]
    np.testing.assert_allclose(pooled(case.features, "mean").numpy(), inside.mean(axis=(1, 2, 3)), rtol=1e-12)


def pooled_patches(case) -> int:
    """Patches along z whose centre lies in the scan; in the plane all do."""
    return int(np.ceil(case.features.encoder_grid.shape.z / 4))


def test_bytes_are_half_of_bf16_and_those_that_are_foretold(part, bank, tmp_path):
    rounded = FeatureBank(Small3D("random"), TensorStore(tmp_path), dtype="bf16")
    rounded.fill([part])
    for index in range(len(part)):
        features = bank.case(part, index).features
        shapes = tuple(features.map.shape), tuple(features.embeddings.shape)
        for of, dtype in ((bank, "int8"), (rounded, "bf16")):
            path = of.store.path(of.keys(part, index)[0])
            assert 0 < path.stat().st_size - entry_nbytes(*shapes, dtype) < 2**14
        assert bank.keys(part, index)[0] != rounded.keys(part, index)[0]
        assert bank.keys(part, index)[1] == rounded.keys(part, index)[1], "labels are no features"


def test_what_cannot_be_stored_is_refused(part, tmp_path: Path):
    with pytest.raises(FeatureError, match="not as 'int4'"):
        FeatureBank(Small3D("random"), TensorStore(tmp_path), dtype="int4")
