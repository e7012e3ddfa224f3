import matplotlib.image
import numpy as np

from tapct.viz.overlay import draw_overlay, foreground_slices
from tests.small import abdomen


def test_an_overlay_has_a_column_for_the_scan_the_reference_and_each_model(tmp_path):
    ct, organs = abdomen((slice(70, 100), slice(None), slice(None)))
    names = ["background", *(f"organ {i}" for i in range(1, 12))]
    columns = {"a": organs.labels, "b": np.zeros_like(organs.labels)}
    draw_overlay(tmp_path / "a" / "x.png", ct.hu, ct.grid, organs.labels, columns, names, "title")
    image = matplotlib.image.imread(tmp_path / "a" / "x.png")[..., :3]
    colour = np.ptp(image, axis=2) > 0.2
    scan, reference, a, b = (float(part.mean()) for part in np.array_split(colour[60:-120], 4, axis=1))
    assert scan < 0.01
    assert b < 0.01
    assert reference > 0.05
    assert abs(reference - a) < 0.01


def test_an_overlay_is_the_same_to_the_byte(tmp_path):
    ct, organs = abdomen((slice(70, 80), slice(None), slice(None)))
    names = ["background", *(f"organ {i}" for i in range(1, 12))]
    for name in ("one", "two"):
        draw_overlay(tmp_path / name, ct.hu, ct.grid, organs.labels, {"p": organs.labels}, names, "$a$", notice="b")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_case_without_any_organ_still_has_a_picture(tmp_path):
    ct, organs = abdomen((slice(0, 4), slice(None), slice(None)))
    empty = np.zeros_like(organs.labels)
    draw_overlay(tmp_path / "x.png", ct.hu, ct.grid, empty, {"p": empty}, ["background", "liver"], "t", notice="n")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_slices_cut_the_foreground_into_equal_parts():
    truth = np.zeros((40, 6, 6), dtype=np.uint8)
    truth[10:34] = 1
    assert foreground_slices(truth, 3) == [29, 21, 13]
