"""How scans come to the spacing of the encoders whose authors' own resampling was read: by interpolation alone."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

import tapct
from tapct.encoders import encoder_class, list_declared
from tapct.features import NamedScan, encoder_grid
from tapct.features.extract import glimpse
from tapct.volumes import Grid

INTERPOLATED = (
    *("coralbay", "flexict-3d", "colipri", "spectre", "ct-clip", "suprem", "ct-fm", "vista3d", "voco-b", "fmcib"),
    *("voxelfm", "merlin", *list_declared()),
)
OURS = ("body-size", "organ-centre", "radiomics")


def seen_and_interpolated(name: str, **options: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the network is given of noise that shrinks along every axis, and scipy's interpolation of it."""
    encoder = tapct.load_encoder(name, "random", deferred=True, **options)
    z, y, x = encoder.card.spacing_mm
    hu = torch.empty(13, 41, 38).uniform_(-900, 900, generator=torch.Generator().manual_seed(0))
    # A third of its pixels and a sixth of its slices are never looked at.
    native = Grid.of(hu.shape, np.diag([z / 2.4, y / 2.3, x / 2.3, 1.0]))
    grid = encoder_grid(native, encoder.card)
    places = np.indices(grid.shape).reshape(3, -1)
    places = np.linalg.solve(native.affine, grid.affine @ np.vstack([places, np.ones(places.shape[1])]))[:3]
    expected = map_coordinates(hu.double().numpy(), places, order=1, mode="nearest").reshape(grid.shape)
    d, h, w = grid.shape
    assert (d, h, w) == (5, 18, 17)
    assert encoder.input_sheet().resizing is not None
    return glimpse(encoder, NamedScan("noise", hu, native), [0.5]).windows_hu[0, 0, :d, :h, :w].numpy(), expected


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in INTERPOLATED), ("astra", {"region": "abdomen"})]
)
def test_a_scan_that_shrinks_along_every_axis_is_interpolated_between_neighbours_as_the_authors_do(name, options):
    found, expected = seen_and_interpolated(name, **options)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_a_chest_of_astra_is_averaged_as_its_authors_do():
    found, interpolated = seen_and_interpolated("astra")
    assert found.std() < 0.7 * interpolated.std()


def test_the_filter_of_every_shipped_encoder_with_a_spacing_was_looked_up():
    names = [name for name in (*tapct.list_encoders(), *list_declared()) if encoder_class(name).card.spacing_mm]
    assert sorted(names) == sorted((*INTERPOLATED, "astra", *OURS))
