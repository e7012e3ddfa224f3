"""Radiomics: IBSI's digital phantom against its published reference values, the regions, and what has no features."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tapct
from baselines.ibsi import NAMES, measured
from baselines.radiomics import in_vector, nodule
from tapct.errors import EncoderError
from tapct.features.extract import extract
from tapct.volumes import Grid, Mask, read_ct, read_labels
from tests.data.abdomen import block, save

pytest.importorskip("mirp", reason="the extra 'radiomics' is not installed")

REFERENCE = Path(__file__).with_name("ibsi_digital_phantom.csv")

# 4 slices of 4 x 5 voxels of 2 mm (z, y, x), Zwanenburg et al., arXiv 1612.07003; the data set is CC BY 4.0. Of what is
# not in the region the value is in brackets there, and negative here.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [-1, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, -1, -1], [1, 1, 1, 1, 1], [1, 1, -9, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, -1, -1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
GRID = Grid.of(PHANTOM.shape, np.diag([2.0, -2.0, -2.0, 1.0])[[2, 1, 0, 3]])


def reference() -> dict[str, tuple[float, float]]:
    lines = [line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = csv.DictReader(lines)
    return {row["feature"]: (float(row["value"]), float(row["tolerance"] or "nan")) for row in rows}


def test_the_digital_phantom_has_ibsis_reference_values_by_the_path_of_an_adaptor_with_a_mask():
    encoder = tapct.load_encoder("radiomics", range_hu=(1, 9), bin_hu=1, spacing_mm=(2, 2, 2))
    vector = encoder.of_mask(torch.from_numpy(np.abs(PHANTOM)).float(), GRID, Mask(PHANTOM > 0, GRID))
    wanted = reference()
    assert list(wanted) == list(NAMES)
    for name, found in zip(NAMES, vector.tolist(), strict=True):
        value, tolerance = wanted[name]
        is_in_hu = in_vector(name, 2.0) == 0.002
        plain = found * 1000 if is_in_hu else np.sign(found) * (10 ** abs(found) - 1)
        if np.isnan(tolerance):  # three digits are published
            assert float(f"{plain:.3g}") == pytest.approx(value, abs=1e-9), name
        else:
            assert plain == pytest.approx(value, abs=tolerance), name


def trunk(spacing_mm: float) -> np.ndarray:
    """A cylinder of fat of 200 mm with two lungs, in noise, 60 mm long, in voxels of this size; (D, H, W) HU."""
    n, depth = round(240 / spacing_mm), round(60 / spacing_mm)
    y, x = np.meshgrid(*[spacing_mm * (np.arange(n) - (n - 1) / 2)] * 2, indexing="ij")
    hu = np.full((depth, n, n), -1000.0)
    hu[:, np.hypot(x, y) < 100] = -100
    for side in (-50, 50):
        hu[:, np.hypot(x - side, y) < 30] = -850
    return (hu + np.random.default_rng(0).normal(0, 20, hu.shape)).astype(np.float32)


def features_of(hu: np.ndarray, grid: Grid, **options) -> tuple[dict[str, float], tuple[str, ...]]:
    encoder = tapct.load_encoder("radiomics", **options)
    found = extract(encoder, torch.from_numpy(hu), grid, name="a", fit_windows=True)
    (row,) = found.embeddings.unique(dim=0).tolist()
    assert found.map.flatten(1).unique(dim=1)[:, 0].tolist() == row, "every patch and window says the same"
    return dict(zip(encoder.numbers, row, strict=True)), found.notes


def test_a_scan_has_the_features_of_its_body():
    hu, grid = trunk(4.0), Grid.of((15, 60, 60), np.diag([4.0, -4.0, -4.0, 1.0])[[2, 1, 0, 3]])
    found, notes = features_of(hu, grid)
    assert notes == ()
    assert 10 ** found["morph_volume"] == pytest.approx(np.pi * 100**2 * 60, rel=0.03), "with the lungs"
    assert found["stat_median"] == pytest.approx(-0.1, abs=0.01)


def test_a_scan_in_another_orientation_has_the_same_features(tmp_path):
    slab = block(80, 14)
    found = []
    for order in ("RAS", "IRA"):
        save(tmp_path / f"{order}.nii.gz", slab.hu[8:56, 8:48], slab.affine, order)
        ct = read_ct(tmp_path / f"{order}.nii.gz")
        found.append(features_of(ct.hu, ct.grid)[0])
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-6)


def crop(radius_mm: float, hu: float, wall_mm: float = 100.0, shift_mm: float = 0.0) -> np.ndarray:
    """A crop of 50 mm: lung, a ball that lies off the middle, and a wall from some place on along x."""
    z, y, x = np.meshgrid(*[np.arange(50) - 24.5] * 3, indexing="ij")
    found = np.where(x >= wall_mm, 40.0, -850.0)
    found[np.sqrt(z**2 + y**2 + (x - shift_mm) ** 2) <= radius_mm] = hu
    return found


@pytest.mark.parametrize(
    ("arguments", "rule", "voxels"),
    [
        ({"radius_mm": 5, "hu": 40}, 1, 4 / 3 * np.pi * 5**3),
        ({"radius_mm": 5, "hu": 40, "shift_mm": 7}, 1, 4 / 3 * np.pi * 5**3),  # its edge is 2 mm off the middle
        ({"radius_mm": 5, "hu": 40, "shift_mm": 9}, 2, 4 / 3 * np.pi * 5**3),  # 4 mm off: the sphere, of the same size
        ({"radius_mm": 6, "hu": -600}, 2, 4 / 3 * np.pi * 5**3),  # ground glass
        ({"radius_mm": 0.9, "hu": 40, "shift_mm": 0.5}, 2, 4 / 3 * np.pi * 5**3),
        ({"radius_mm": 24, "hu": 40}, 1, 4 / 3 * np.pi * 15**3),  # a nodule has up to 30 mm
    ],
)
def test_a_nodule_is_what_is_dense_in_the_middle_of_its_crop_or_else_a_sphere(arguments, rule, voxels):
    found = nodule(crop(**arguments), (1.0, 1.0, 1.0))
    assert found.rule == rule
    assert found.inside.sum() == pytest.approx(voxels, rel=0.08)


def test_a_crop_without_a_nodule_says_that_its_region_is_a_sphere_and_the_same_scan_says_the_same():
    grid = Grid.of((50, 50, 50), np.diag([1.0, -1.0, -1.0, 1.0])[[2, 1, 0, 3]])
    noise = np.random.default_rng(0).normal(0, 30, grid.shape)
    _, notes = features_of((crop(6, -600) + noise).astype(np.float32), grid)
    assert notes == ("nothing above -400 HU in the middle of the crop: radiomics of a sphere of 10 mm",)
    found, notes = features_of((crop(6, 40) + noise).astype(np.float32), grid)
    assert notes == ()
    assert features_of((crop(6, 40) + noise).astype(np.float32), grid)[0] == found


def test_air_has_features_and_says_that_there_is_no_body():
    grid = Grid.of((20, 30, 30), np.diag([4.0, -4.0, -4.0, 1.0])[[2, 1, 0, 3]])
    _, notes = features_of(np.random.default_rng(0).normal(-980, 10, grid.shape).astype(np.float32), grid)
    assert notes == ("no body was found: radiomics of all voxels",)


def test_a_region_of_one_grey_level_has_features_and_one_of_few_voxels_has_none():
    inside = np.ones((5, 5, 5), dtype=bool)
    found = measured(np.zeros((5, 5, 5)), inside, (1.0, 1.0, 1.0))
    assert (found["cm_inv_var"], found["cm_contrast"], found["stat_var"], found["ih_uniformity"]) == (0, 0, 0, 1)
    with pytest.raises(EncoderError, match=r"7 of the 7 voxels of its region, of 1 x 1 x 1 mm.*split_file"):
        measured(np.zeros((5, 5, 5)), np.arange(125).reshape(5, 5, 5) < 7, (1.0, 1.0, 1.0))
    with pytest.raises(EncoderError, match=r"0 of the 125 voxels .* lie within -1000 to 1000 HU"):
        measured(np.full((5, 5, 5), 2000.0), inside, (1.0, 1.0, 1.0))
    apart = (np.indices((5, 5, 5)) % 2 == 0).all(axis=0)
    with pytest.raises(EncoderError, match=r"cm_joint_max, .* are not defined"):  # no voxel has a neighbour
        measured(np.zeros((5, 5, 5)), apart, (1.0, 1.0, 1.0))


def test_the_mask_of_a_lesion_is_measured_at_the_cards_spacing_wherever_it_lies(shared_data):
    folder = shared_data / "lidc"
    ct = read_ct(folder / "LIDC-IDRI-0314_nodule_128x128x64.nii.gz")
    mask = Mask.of_labels(read_labels(folder / "LIDC-IDRI-0314_nodule_128x128x64_mask.nii.gz"), ct.grid)
    encoder = tapct.load_encoder("radiomics")
    whole = encoder.of_mask(torch.from_numpy(ct.hu), ct.grid, mask)
    drawn = mask.inside.sum() * np.prod(ct.spacing_mm)
    assert 10 ** float(whole[0]) == pytest.approx(drawn, rel=0.03)
    sphere = Mask.sphere(ct.index_to_world(np.argwhere(mask.inside).mean(0)[None])[0], 8.0, ct.grid)
    found = encoder.of_mask(torch.from_numpy(ct.hu), ct.grid, sphere)
    assert 10 ** float(found[0]) == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.08), "of a lattice finer than the scan"


def test_what_is_wrong_with_the_settings_or_the_installation_is_said(monkeypatch):
    for wrong in ({"range_hu": (400, -1000)}, {"bin_hu": 0}):
        with pytest.raises(EncoderError, match="range_hu must rise and bin_hu be positive"):
            tapct.load_encoder("radiomics", **wrong)
    monkeypatch.setitem(sys.modules, "mirp", None)
    with pytest.raises(EncoderError, match=r"needs the library mirp.*tapct-bench\[radiomics\]"):
        measured(np.zeros((5, 5, 5)), np.ones((5, 5, 5), dtype=bool), (1.0, 1.0, 1.0))
