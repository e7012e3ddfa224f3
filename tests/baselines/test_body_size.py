"""The volume of the body, on shapes whose volume is known and on a real scan."""

import numpy as np
import pytest
import torch

import tapct
from tapct.features.extract import extract
from tapct.volumes import Grid
from tests.small import abdomen

AIR, FAT, LUNG = -1000.0, -100.0, -850.0


def cylinder(radius_mm: float, spacing_mm: float = 4.0, slices: int = 30) -> np.ndarray:
    """A trunk with two lungs on a thin table, (D, H, W) HU."""
    y, x = np.meshgrid(*[spacing_mm * (np.arange(100) - 50)] * 2, indexing="ij")
    hu = np.full((slices, 100, 100), AIR, dtype=np.float32)
    hu[:, np.hypot(x, y) < radius_mm] = FAT
    for side in (-1, 1):
        hu[5:20, np.hypot(x - side * radius_mm / 2, y) < radius_mm / 4] = LUNG
    hu[:, 98] = 200  # the table
    return hu


def litres(hu: np.ndarray) -> float:
    return float(tapct.load_encoder("body-size").statistics_of(torch.from_numpy(hu)[None, None])["body_litres"][0])


@pytest.mark.parametrize("radius_mm", [60, 120, 150])
def test_a_trunk_has_its_volume_with_its_lungs_and_without_the_table(radius_mm):
    assert litres(cylinder(radius_mm)) == pytest.approx(np.pi * radius_mm**2 * 120 / 1e6, rel=0.02)


def test_a_scan_of_air_has_no_body():
    assert litres(np.full((16, 40, 40), AIR, dtype=np.float32)) == 0


def test_every_window_and_patch_says_the_volume_of_the_whole_scan():
    ct, _ = abdomen()
    features = extract(tapct.load_encoder("body-size"), torch.from_numpy(ct.hu), Grid.of(ct.shape, ct.affine), name="a")
    assert len(features.embeddings) > 1
    (value,) = features.map.unique().tolist()
    assert features.embeddings.unique().tolist() == [value]
    body = (ct.hu > -300).sum() * np.prod(ct.spacing_mm) / 1e6
    assert value == pytest.approx(body, rel=0.1), "near what is dense, with the gas of the bowel and without the table"


def test_a_scan_twice_as_fine_has_the_same_body():
    ct, _ = abdomen()
    fine = Grid.of(ct.shape, ct.affine).resized([2 * n for n in ct.shape])
    doubled = torch.from_numpy(ct.hu).repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    one, other = (
        extract(tapct.load_encoder("body-size"), hu, grid, name="a").embeddings[0].item()
        for hu, grid in ((torch.from_numpy(ct.hu), Grid.of(ct.shape, ct.affine)), (doubled, fine))
    )
    assert one == pytest.approx(other, rel=0.02)
