"""Contours and segmentations in DICOM: placed by their millimetres, on scans that lie in every way."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon

from tapct.errors import VolumeError
from tapct.volumes import read_ct
from tapct.volumes.dicom_masks import drawn_on, filled, read_drawn
from tests.data.drawn import share_the_segment, write_rtstruct, write_seg
from tests.volumes.dicom_files import write_series

SHAPE = (9, 40, 50)
SPACING = (0.9, 0.7)
TURN = np.deg2rad(12)
WAYS = {
    "plain": {"orientation": (1, 0, 0, 0, 1, 0), "step": (0, 0, 2.5)},
    "downwards": {"orientation": (1, 0, 0, 0, 1, 0), "step": (0, 0, -2.5)},
    "prone": {"orientation": (-1, 0, 0, 0, -1, 0), "step": (0, 0, 2.5)},
    "turned": {"orientation": (np.cos(TURN), np.sin(TURN), 0, -np.sin(TURN), np.cos(TURN), 0), "step": (0, 0, 2.5)},
    "oblique": {
        "orientation": (1, 0, 0, 0, np.cos(TURN), np.sin(TURN)),
        "step": (0, -2.5 * np.sin(TURN), 2.5 * np.cos(TURN)),
    },
}


def series(folder: Path, way: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Writes a scan; returns the places of its slices, and its steps from row to row and column to column, in mm."""
    stored = np.random.default_rng(0).integers(900, 1100, size=SHAPE)
    stored[:, :6] = 24  # air
    first, step = np.array([-50.0, -60.0, -700.0]), np.array(WAYS[way]["step"])
    write_series(folder, stored, first=first, pixel_spacing=SPACING, series="1.2.3.4", **WAYS[way])
    cosines = np.array(WAYS[way]["orientation"])
    return first + np.arange(SHAPE[0])[:, None] * step, cosines[3:] * SPACING[0], cosines[:3] * SPACING[1]


def ring(centre: tuple[float, float], radius: float) -> np.ndarray:
    """(60, 2) corners (row, column) round a place, none of them on a pixel's centre."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False) + 0.01
    return np.array(centre) + radius * np.stack([np.sin(angle), 0.8 * np.cos(angle)], axis=1)


def drawing() -> dict[int, list[np.ndarray]]:
    """Of some slices, a ring and, in one, a hole in it."""
    rings = {number: [ring((20.3, 27.6), 8 - abs(number - 4))] for number in range(2, 7)}
    rings[4].append(ring((20.3, 27.6), 3.2))
    return rings


def expected_voxels() -> np.ndarray:
    """(slice, row, column) booleans, by matplotlib."""
    rows, columns = np.indices(SHAPE[1:])
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1)
    inside = np.zeros(SHAPE, dtype=bool)
    for number, rings in drawing().items():
        for corners in rings:
            inside[number] ^= Polygon(corners).contains_points(centres).reshape(SHAPE[1:])
    return inside


def in_the_world(inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The centres of voxels in mm, RAS, in one order."""
    points = np.argwhere(inside) @ affine[:3, :3].T + affine[:3, 3]
    return points[np.lexsort(np.round(points, 2).T)]


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG", "SEG without empty frames"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_drawn_lies_where_it_was_drawn(tmp_path, way, kind):
    places, down, right = series(tmp_path / "ct", way)
    expected = expected_voxels()
    if kind == "RTSTRUCT":
        contours = [
            places[number] + corners @ np.stack([down, right])
            for number, rings in drawing().items()
            for corners in rings
        ]
        path = write_rtstruct(tmp_path / "rs" / "1-1.dcm", {"Lung": [], "gtv-1": contours}, "1.2.3.4")
    else:
        segments = {"Lung-Left": np.ones(SHAPE, dtype=bool), "GTV-1": expected}
        orientation = WAYS[way]["orientation"]
        options = {"orientation": orientation, "pixel_spacing": SPACING, "empty_frames": kind == "SEG"}
        path = write_seg(tmp_path / "seg" / "1-1.dcm", segments, places, "1.2.3.4", **options)
    scan = read_ct(tmp_path / "ct")
    mask = read_drawn(path, "GTV-1", scan.grid)
    points = np.argwhere(expected)
    lps = places[points[:, 0]] + points[:, 1:] @ np.stack([down, right])
    there = lps * [-1, -1, 1]
    assert mask.inside.sum() == expected.sum()
    assert in_the_world(mask.inside, scan.affine) == pytest.approx(there[np.lexsort(np.round(there, 2).T)], abs=1e-2)
    assert drawn_on(path) == {"1.2.3.4"}


def test_itk_finds_the_contour_in_the_same_voxels(tmp_path):
    places, down, right = series(tmp_path / "ct", "downwards")
    corner = places[4] + 20 * down + 27 * right
    square = np.array([corner + a * down + b * right for a, b in ((-0.4, -0.4), (-0.4, 0.4), (0.4, 0.4), (0.4, -0.4))])
    path = write_rtstruct(tmp_path / "1.dcm", {"GTV-1": [square]}, "1.2.3.4")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    index = reader.Execute().TransformPhysicalPointToIndex(corner.tolist())
    scan = read_ct(tmp_path / "ct")
    assert np.argwhere(read_drawn(path, "GTV-1", scan.grid).inside).tolist() == [list(index[::-1])]


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_filled_as_by_matplotlib(seed):
    corners = np.random.default_rng(seed).uniform(-3, 23, size=(17, 2))  # crosses itself, and the border
    centres = np.stack([axis.ravel() for axis in np.indices((20, 20))], axis=1).astype(float)
    crossed = np.zeros(len(centres), dtype=int)
    for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        spans = (y0 <= centres[:, 0]) != (y1 <= centres[:, 0])
        crossed += spans & (x0 + (centres[:, 0] - y0) / (y1 - y0) * (x1 - x0) <= centres[:, 1])
    assert np.array_equal(filled([corners], (20, 20)), (crossed % 2 == 1).reshape(20, 20))


def squares(places, down, right, number: float = 4) -> list[np.ndarray]:
    """A contour on a slice, or between two."""
    at = places[0] + number * (places[1] - places[0])
    return [np.array([at + a * down + b * right for a, b in ((5, 5), (5, 15), (15, 15), (15, 5))])]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (lambda *of: {"Lung-Left": squares(*of)}, "draws GTV-1 0 times; what it draws: Lung-Left"),
        (lambda *of: {"GTV-1": squares(*of), "gtv-1": squares(*of)}, "draws GTV-1 2 times"),
        (lambda *of: {"GTV-1": []}, "has no closed contour"),
        (lambda *of: {"GTV-1": squares(*of, 4.5)}, "lies on no slice of the scan"),
        (lambda *of: {"GTV-1": squares(*of, 11)}, "lies on slice 11 of a scan of 9"),
    ],
)
def test_contours_that_cannot_be_used_are_refused(tmp_path, regions, message):
    path = write_rtstruct(tmp_path / "1.dcm", regions(*series(tmp_path / "ct", "plain")), "1.2.3.4")
    with pytest.raises(VolumeError, match=message):
        read_drawn(path, "GTV-1", read_ct(tmp_path / "ct").grid)


def test_a_segmentation_of_another_scan_is_refused(tmp_path):
    places, _, _ = series(tmp_path / "ct", "plain")
    scan, drawn = read_ct(tmp_path / "ct").grid, {"GTV-1": expected_voxels()}
    for number, (moved, spacing) in enumerate(
        [
            ((0, 0, 30), SPACING),
            ((0.35, 0, 0), SPACING),
            ((0, 0, 0), (1.8, 1.4)),
            ((0, 0, 1), SPACING),
        ]
    ):
        path = write_seg(tmp_path / f"{number}.dcm", drawn, np.add(places, moved), "1.2.3.4", pixel_spacing=spacing)
        with pytest.raises(VolumeError, match=r"do not lie on the voxels|reaches beyond the scan"):
            read_drawn(path, "GTV-1", scan)


def test_the_only_segment_is_drawn_whatever_it_is_called_and_if_all_frames_share_it(tmp_path):
    places, _, _ = series(tmp_path / "ct", "plain")
    scan, drawn = read_ct(tmp_path / "ct").grid, expected_voxels()
    options = {"pixel_spacing": SPACING}
    one = write_seg(tmp_path / "1.dcm", {"Heart": drawn}, places, "1.2.3.4", edit=share_the_segment, **options)
    two = write_seg(tmp_path / "2.dcm", {"Kidney": ~drawn, "MASS": drawn}, places, "1.2.3.4", **options)
    expected = read_drawn(two, "mass", scan).inside
    assert expected.sum() == drawn.sum()
    for path, name in ((one, ()), (one, ("Tumor", "heart")), (two, ("Tumor", "Mass"))):
        assert np.array_equal(read_drawn(path, name, scan).inside, expected)
    with pytest.raises(VolumeError, match="draws one thing 2 times; what it draws: Kidney / Neoplasm"):
        read_drawn(two, (), scan)
    with pytest.raises(VolumeError, match="draws Tumor or Mass 0 times; what it draws: Heart / Neoplasm, Primary"):
        read_drawn(one, ("Tumor", "Mass"), scan)


@pytest.mark.parametrize("said", [8, 10, 119])
def test_a_wrong_number_of_frames_does_not_matter_where_the_pixels_tell(tmp_path, said):
    places, _, _ = series(tmp_path / "ct", "plain")
    scan, drawn = read_ct(tmp_path / "ct").grid, {"GTV-1": expected_voxels()}

    def wrong(dataset):
        dataset.NumberOfFrames = said

    def cut(dataset):
        wrong(dataset)
        dataset.PixelData = dataset.PixelData[:-100]

    options = {"pixel_spacing": SPACING}
    right = write_seg(tmp_path / "1.dcm", drawn, places, "1.2.3.4", **options)
    path = write_seg(tmp_path / "2.dcm", drawn, places, "1.2.3.4", edit=wrong, **options)
    assert np.array_equal(read_drawn(path, "GTV-1", scan).inside, read_drawn(right, "GTV-1", scan).inside)
    with pytest.raises(VolumeError, match="cannot be read as SEG"):
        read_drawn(write_seg(tmp_path / "3.dcm", drawn, places, "1.2.3.4", edit=cut, **options), "GTV-1", scan)


def test_a_slice_of_the_scan_draws_nothing(tmp_path):
    series(tmp_path / "ct", "plain")
    with pytest.raises(VolumeError, match="of modality CT, not RTSTRUCT or SEG"):
        read_drawn(tmp_path / "ct" / "slice_0.dcm", "GTV-1", read_ct(tmp_path / "ct").grid)
