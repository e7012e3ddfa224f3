import matplotlib.image
import numpy as np

from tapct.viz import draw_overlay
from tests.small import abdomen


def test_an_overlay_shows_scan_reference_and_prediction(tmp_path):
    ct, organs = abdomen((slice(70, 100), slice(None), slice(None)))
    names = ["background", *(f"organ {i}" for i in range(1, 12))]
    arguments = (names, ct.spacing_mm, "title")
    draw_overlay(tmp_path / "a" / "same.png", ct.hu, organs.labels, organs.labels, *arguments)
    draw_overlay(tmp_path / "a" / "none.png", ct.hu, organs.labels, np.zeros_like(organs.labels), *arguments)
    same, none = (matplotlib.image.imread(tmp_path / "a" / f"{n}.png")[..., :3] for n in ("same", "none"))
    assert same.shape == none.shape

    def coloured(image: np.ndarray) -> list[float]:
        colour = np.ptp(image, axis=2) > 0.2
        return [float(part.mean()) for part in np.array_split(colour[60:-120], 3, axis=1)]

    scan, reference, prediction = coloured(same)
    assert scan < 0.01
    assert reference > 0.05
    assert abs(reference - prediction) < 0.01
    assert coloured(none)[1] > 0.05
    assert coloured(none)[2] < 0.01


def test_a_case_without_any_organ_still_has_a_picture(tmp_path):
    ct, organs = abdomen((slice(0, 4), slice(None), slice(None)))
    empty = np.zeros_like(organs.labels)
    draw_overlay(tmp_path / "x.png", ct.hu, empty, empty, ["background", "liver"], ct.spacing_mm, "title", "notice")
    assert (tmp_path / "x.png").stat().st_size > 5000
