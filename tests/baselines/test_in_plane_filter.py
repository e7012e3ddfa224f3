"""How scans come to the spacing of the encoders whose authors' own resampling was read: by interpolation alone."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

import tapct
from tapct.features import NamedScan, encoder_grid
from tapct.features.extract import glimpse
from tapct.volumes import Grid


@pytest.mark.parametrize("name", ["coralbay", "flexict-3d", "colipri", "spectre", "ct-clip"])
def test_slices_that_shrink_are_interpolated_between_neighbours_as_the_authors_do(name):
    encoder = tapct.load_encoder(name, "random", deferred=True)
    z, y, x = encoder.card.spacing_mm
    hu = torch.empty(6, 41, 38).uniform_(-900, 900, generator=torch.Generator().manual_seed(0))
    native = Grid.of(hu.shape, np.diag([z, y / 2.3, x / 2.3, 1.0]))  # a third of its pixels is never looked at
    grid = encoder_grid(native, encoder.card)
    places = np.indices(grid.shape).reshape(3, -1)
    places = np.linalg.solve(native.affine, grid.affine @ np.vstack([places, np.ones(places.shape[1])]))[:3]
    expected = map_coordinates(hu.double().numpy(), places, order=1, mode="nearest").reshape(grid.shape)
    found = glimpse(encoder, NamedScan("noise", hu, native), [0.5]).windows_hu[0, 0]
    d, h, w = grid.shape
    np.testing.assert_allclose(found[:d, :h, :w], expected, atol=1e-2)
    assert encoder.input_sheet().resizing is not None
