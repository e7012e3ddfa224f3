"""The doctor's sheet: true proportions, the sides of the patient, labels and points where they are."""

import numpy as np
import pytest
from matplotlib.patches import Ellipse

from tapct.tasks.look import look_at
from tapct.viz import canvas
from tapct.viz.canvas import AXIAL, CORONAL, SAGITTAL
from tapct.viz.sheet import SheetRow, draw_sheet
from tapct.volumes import Volume

CLASSES = ["background", "liver", "spleen", "kidney"]


def scan(shape=(20, 60, 80), spacing=(5.0, 2.0, 1.5)) -> Volume:
    z, y, x = spacing
    affine = np.array([[0, 0, -x, 0], [0, -y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume(np.zeros(shape, dtype=np.float32), affine, "scan")


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """Draws rows, and returns the figure as it is saved."""

    def draw(*rows):
        saved, save = [], canvas.save
        monkeypatch.setattr(canvas, "save", lambda one, *args, **more: (saved.append(one), save(one, *args, **more)))
        draw_sheet(tmp_path / "sheet.png", rows, CLASSES, "title", "soft-tissue")
        assert (tmp_path / "sheet.png").stat().st_size > 1000
        return saved[0]

    return draw


def labelled(ct: Volume) -> np.ndarray:
    labels = np.zeros(ct.shape, dtype=np.uint8)
    labels[5:15, 20:40, 10:30] = 1
    labels[5:12, 20:30, 50:60] = 3
    return labels


def test_the_three_planes_of_a_case_have_one_scale(figure):
    ct = scan()
    drawn = figure(
        SheetRow("first", look_at(ct, labelled(ct))), SheetRow("thin", look_at(scan((5, 400, 400), (1, 1, 1)), None))
    )
    width, height = drawn.get_size_inches()
    inches = [(box.width * width, box.height * height) for box in (axes.get_position() for axes in drawn.axes)]
    scale = inches[0][0] / 120
    assert np.allclose(inches[:3], np.array([(120, 120), (120, 100), (120, 100)]) * scale)
    scale = inches[3][0] / 400
    assert np.allclose(inches[3:], np.array([(400, 400), (400, 5), (400, 5)]) * scale)
    boxes = [axes.get_window_extent() for axes in drawn.axes]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(drawn.bbox.x0 <= box.x0 and box.x1 <= drawn.bbox.x1 for box in boxes)


def test_every_side_of_every_plane_has_its_letter(figure):
    drawn = figure(SheetRow("case", look_at(scan(), None)))
    for axes, view in zip(drawn.axes, (AXIAL, CORONAL, SAGITTAL), strict=True):
        at = {text.get_text(): text.get_position() for text in axes.texts if len(text.get_text()) == 1}
        left, right, top, bottom = view.letters
        assert at[left][0] < 0.1 < 0.9 < at[right][0]
        assert at[bottom][1] < 0.1 < 0.9 < at[top][1]
    assert (AXIAL.letters, CORONAL.letters, SAGITTAL.letters) == (tuple("RLAP"), tuple("RLSI"), tuple("APSI"))


def test_the_legend_has_the_classes_that_are_shown_and_remarks_stand_under_the_name(figure):
    ct = scan()
    drawn = figure(SheetRow("case", look_at(ct, labelled(ct)), "mirrored: liver on the left", "kidney in front"))
    assert [text.get_text() for text in drawn.legends[0].texts] == ["liver", "kidney"]
    words = [text.get_text() for text in drawn.texts]
    assert words == ["title", "case", "mirrored: liver on the left", "kidney in front"]


def test_labels_lie_on_their_voxels_and_the_scan_shows_through(figure):
    ct = scan()
    labels = labelled(ct)
    drawn = figure(SheetRow("case", look_at(ct, labels)))
    image = drawn.axes[0].images[1].get_array()
    index = look_at(ct, labels).planes[0].labels
    assert np.array_equal(image[..., 3] > 0, index > 0)
    assert image[25, 15, 3] < 0.5 < image[20, 10, 3], "faint inside, strong at the border"


def test_a_point_is_circled_where_it_is_in_each_plane(figure):
    ct = scan()
    world = tuple(ct.index_to_world(np.array([[7, 30, 61]]))[0])
    drawn = figure(SheetRow("case", look_at(ct, None, world)))
    circles = [next(patch for patch in axes.patches if isinstance(patch, Ellipse)) for axes in drawn.axes]
    assert [circle.center for circle in circles] == [pytest.approx(p) for p in ((61, 30), (61, 7), (30, 7))]
    assert circles[0].width * 1.5 == pytest.approx(circles[0].height * 2.0), "round in millimetres"
