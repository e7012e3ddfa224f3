"""What a network receives of a scan: the same hash on every machine, and sides that are true."""

import pytest
import torch

from tapct.features.received import MOST_VOXELS, received_of, sha256_of
from tapct.tasks.quickstart import shipped_scan
from tapct.viz.received import pictures
from tests.small import Drifting


class Mirrored(Drifting):
    """An encoder that mirrors a scan on the way to its network, and does not say so."""

    def _encode(self, windows_hu):
        return super()._encode(windows_hu.flip(-1))


class Transposed(Drifting):
    """One that swaps rows and columns, under axes of its own."""

    axes = "RAS"

    def _encode(self, windows_hu):
        return super()._encode(windows_hu.transpose(2, 3))


class Leaving(Drifting):
    """One that leaves something behind as its network is built."""

    def build(self):
        self.register_buffer("scale", torch.tensor(1000.0))
        self.built = True
        return super().build()


@pytest.fixture(scope="module")
def ct():
    return shipped_scan()


@pytest.fixture(scope="module")
def found(ct):
    hu = torch.from_numpy(ct.hu)[None, None]
    return (hu[..., :96, :96].clamp(-1000, 400) + 1000) / 1400


def test_the_last_digits_do_not_change_the_hash(found):
    noise = 1 + 2e-6 * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    assert sha256_of(found * noise) == sha256_of(found)


@pytest.mark.parametrize(
    "mistaken",
    [
        lambda x: x.flip(-1),
        lambda x: x.flip(-3),
        lambda x: x.transpose(-1, -2),
        lambda x: x[..., 1:],
        lambda x: x.clamp(max=0.95),
        lambda x: 1.05 * x,
        lambda x: x + 0.01,
        lambda x: torch.cat([x, x], 1),
        torch.zeros_like,
    ],
)
def test_another_input_has_another_hash(found, mistaken):
    assert sha256_of(mistaken(found)) != sha256_of(found)


def test_values_alike_everywhere_have_a_hash():
    assert sha256_of(torch.zeros(1, 1, 1, 1)) == sha256_of(torch.zeros(1, 1, 1, 1)) != sha256_of(torch.ones(1, 1, 1, 1))


def test_letters_are_those_of_the_patient_also_where_the_axes_are_wrong(ct):
    grows = {cls: received_of(cls("random"), ct).grows for cls in (Drifting, Mirrored, Transposed)}
    assert grows == {Drifting: "SPL", Mirrored: "SPR", Transposed: "SLP"}
    axial, coronal, sagittal = pictures(received_of(Mirrored("random"), ct))
    assert [one.letters for one in (axial, coronal, sagittal)] == [
        ("L", "R", "A", "P"),
        ("L", "R", "S", "I"),
        ("A", "P", "S", "I"),
    ]


def test_what_building_leaves_behind_is_not_left_on_a_deferred_encoder(ct):
    encoder = Leaving("random", deferred=True)
    before = encoder._attribute_names()
    assert received_of(encoder, ct) is not None
    assert not encoder.is_built
    assert encoder._attribute_names() == before


def test_a_grid_of_any_size_is_refused_before_memory_is_asked_for(ct):
    with pytest.raises(ValueError, match=f"more than the {MOST_VOXELS:,} that a sheet is drawn of"):
        received_of(Drifting("random", in_plane_size=80_000), ct)
    with pytest.raises(ValueError, match="more than the"):
        received_of(Drifting("random", window_size=(8, 80_000, 64)), ct)


def test_pictures_are_small_and_in_true_proportions(ct):
    found = received_of(Drifting("random"), ct)
    drawn = pictures(found)
    assert sum(len(picture.webp) for picture in drawn) < 6_000
    z, _, x = found.spacing_mm
    assert (drawn[1].width_mm, drawn[1].height_mm) == pytest.approx((64 * x, 8 * z))
