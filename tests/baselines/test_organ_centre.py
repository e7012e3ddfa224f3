"""The centre of the lungs, on a trunk whose lungs are known and on a real scan."""

import numpy as np
import pytest
import torch

import tapct
from baselines.organ_centre import OrganCentre
from tapct.errors import EncoderError
from tapct.features.extract import extract
from tapct.probes.peaks import candidates
from tapct.volumes import Grid, read_ct
from tapct.volumes.body import body_mask

AIR, FAT, LUNG, BONE = -1000.0, -100.0, -850.0, 700.0


def trunk(slices: int = 60) -> np.ndarray:
    """A trunk on 8 mm, (D, 60, 60) HU: lungs round (30.5, 27, 30), a spine round (slices / 2, 40, 30)."""
    z, y, x = np.ogrid[:slices, :60, :60]
    hu = np.where(np.hypot(y - 30, (x - 30) / 1.3) < 16, FAT, AIR) + 0 * z
    for side in (-8, 8):
        hu[((z - 30.5) / 12) ** 2 + ((y - 27) / 5) ** 2 + ((x - 30 - side) / 5) ** 2 < 1] = LUNG
    hu[:, 39:42, 29:32] = BONE
    return hu.astype(np.float32)


def found_by(encoder, hu: np.ndarray, grid: Grid) -> np.ndarray:
    """The only candidate that a head with a positive weight has on it, in voxels."""
    features = extract(encoder, torch.from_numpy(hu), grid, name="a")
    depth = [
        int((at <= n - 0.5).sum())
        for at, n in zip(
            features.feature_grid.coordinates_in(features.encoder_grid), features.encoder_grid.shape, strict=True
        )
    ]
    scores = features.map[0, : depth[0], : depth[1], : depth[2]].bfloat16().double().numpy()
    found = candidates(scores, features.feature_grid)
    assert len(found.scores) == len(candidates(-scores, features.feature_grid).scores) == 1
    return np.linalg.solve(grid.affine[:3, :3], found.places_mm[0] - grid.affine[:3, 3])


@pytest.mark.parametrize(("organ", "centre"), [("lungs", (30.5, 27, 30)), ("bones", (29.5, 40, 30))])
@pytest.mark.parametrize("spacing_mm", [(8.0, 8.0, 8.0), (2.5, 8.0, 8.0)])
def test_a_head_on_it_says_the_centre_of_the_organ_on_any_grid(organ, centre, spacing_mm):
    repeats = round(8 / spacing_mm[0] * 2) // 2
    hu = trunk().repeat(repeats, axis=0)
    affine = np.diag([-8.0, -8.0, 8 / repeats, 1.0])[[2, 1, 0, 3]].T
    affine[:3, 3] = (100.0, -50.0, 20.0)
    wanted = np.array([(centre[0] + 0.5) * repeats - 0.5, *centre[1:]])
    at = found_by(tapct.load_encoder("organ-centre", organ=organ), hu, Grid.of(hu.shape, affine))
    assert at == pytest.approx(wanted, abs=0.35 * repeats)


def test_a_scan_without_lungs_has_the_centre_of_its_body_and_air_its_middle():
    hu = trunk()
    hu[hu == LUNG] = FAT
    encoder = OrganCentre()
    of = {name: float(v[0]) for name, v in encoder.statistics_of(torch.from_numpy(hu)[None, None]).items()}
    assert (of["z"], of["x"]) == pytest.approx((29.5, 30), abs=0.1)
    air = encoder.statistics_of(torch.full((1, 1, 20, 30, 40), AIR))
    assert [float(air[name][0]) for name in "zyx"] == [9.5, 14.5, 19.5]


def test_the_lungs_of_a_real_chest_have_the_mean_place_of_their_voxels(shared_data):
    ct = read_ct(shared_data / "lidc" / "LIDC-IDRI-0314_2mm.nii.gz")
    features = extract(OrganCentre(), torch.from_numpy(ct.hu), ct.grid, name="a")
    lungs = np.argwhere((ct.hu > -950) & (ct.hu < -500) & body_mask(ct.hu)) * ct.spacing_mm
    assert features.embeddings[0].numpy() * 100 == pytest.approx(lungs.mean(axis=0), abs=8)


def test_an_organ_that_it_does_not_know_and_a_scan_that_is_too_large_are_refused():
    with pytest.raises(EncoderError, match="organ must be 'lungs' or 'bones', not 'liver'"):
        OrganCentre(organ="liver")
    with pytest.raises(EncoderError, match="is larger than a window"):
        OrganCentre().statistics_of(torch.zeros(1, 1, 20, 30, 140))
