"""Where things come out in a picture: the patient's right on the left, patches where they are."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tapct.viz import canvas
from tapct.viz.canvas import AXIAL, CORONAL, SAGITTAL, PictureError
from tapct.volumes import Grid
from tests.small import Small3D, abdomen
from tests.viz.encoders import Filters, encoded

GRID = Grid.of((20, 30, 40), np.array([[0, 0, -1, 0], [0, -2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]]))


def drawn(show, view=AXIAL, grid=GRID) -> np.ndarray:
    """What `show(axes)` draws, as grey pixels of the picture alone."""
    figure = Figure(figsize=(4, 4 * canvas.proportion(grid, view)), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show(axes)
    for artist in (*axes.texts, *axes.lines):
        artist.remove()
    agg = FigureCanvasAgg(figure)
    agg.draw()
    return np.asarray(agg.buffer_rgba())[..., :3].mean(axis=-1)


@pytest.mark.parametrize(
    ("view", "corner"),
    [(AXIAL, "anterior right"), (CORONAL, "superior right"), (SAGITTAL, "superior anterior")],
)
def test_scans_are_seen_as_radiologists_see_them(view, corner):
    """The upper left of an axial slice is anterior and the patient's right, of a coronal one superior and right."""
    hu = np.full(tuple(GRID.shape), -1000, dtype=np.float32)
    z, y, x = (slice(None),) * 3
    z = slice(-5, None) if "superior" in corner else z
    y = slice(0, 5) if "anterior" in corner else y
    x = slice(0, 5) if "right" in corner else x
    hu[z, y, x] = 1000
    image = drawn(lambda axes: canvas.show_scan(axes, hu, GRID, 10, "soft-tissue", view), view)
    rows, columns = np.nonzero(image > 200)
    assert rows.max() < image.shape[0] / 3
    assert columns.max() < image.shape[1] / 3


def test_proportions_are_those_of_millimetres():
    assert canvas.proportion(GRID) == pytest.approx(30 * 2 / (40 * 1))
    assert canvas.proportion(GRID, CORONAL) == pytest.approx(20 * 3 / (40 * 1))
    assert canvas.proportion(GRID, SAGITTAL) == pytest.approx(20 * 3 / (30 * 2))


def test_what_is_drawn_over_a_scan_does_not_widen_the_picture():
    axes = Figure().add_subplot()
    canvas.show_scan(axes, np.zeros(tuple(GRID.shape), dtype=np.float32), GRID, 5, "bone")
    before = axes.get_xlim(), axes.get_ylim()
    canvas.show_patches(axes, np.zeros((7, 11, 14)), GRID.padded((21, 33, 42)).patches((3, 3, 3)), GRID, 5)
    axes.plot([100], [100], "+")
    axes.add_patch(Rectangle((35, 25), 20, 20))
    assert (axes.get_xlim(), axes.get_ylim()) == before == ((-0.5, 39.5), (29.5, -0.5))


def test_the_scale_bar_is_as_long_as_it_says():
    figure = Figure()
    axes = figure.add_subplot()
    grid = Grid.of((10, 400, 400), np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]))
    canvas.show_scan(axes, np.zeros(tuple(grid.shape), dtype=np.float32), grid, 5, "bone")
    left, right = axes.lines[0].get_xdata()
    (text,) = (t.get_text() for t in axes.texts if "cm" in t.get_text())
    assert (right - left) * 400 * 0.8 == pytest.approx(float(text.removesuffix(" cm")) * 10)
    assert text == "10 cm"


@pytest.mark.parametrize("view", [AXIAL, CORONAL, SAGITTAL])
@pytest.mark.parametrize("encoder", [Filters, Small3D])
def test_patches_are_drawn_over_what_they_see(view, encoder):
    """The mean HU of every patch, plotted as patches, looks like the blurred scan, not like a shifted one."""
    ct, _ = abdomen((slice(30, 70), slice(None), slice(None)))
    scan = encoded(ct, encoder("random"))
    patches = scan.features.feature_grid
    z, y, x = (np.rint(c).astype(int) for c in ct.grid.coordinates_in(patches))
    total, count = np.zeros(tuple(patches.shape)), np.zeros(tuple(patches.shape))
    where = np.ix_(*(i.clip(0, n - 1) for i, n in zip((z, y, x), patches.shape, strict=True)))
    np.add.at(total, where, ct.hu)
    np.add.at(count, where, 1)
    means = total / count.clip(1)
    index = {AXIAL: 20, CORONAL: 50, SAGITTAL: 61}[view]
    low, high = canvas.window_hu("soft-tissue")
    plain = drawn(lambda axes: canvas.show_scan(axes, ct.hu, ct.grid, index, "soft-tissue", view), view, ct.grid)

    def coarse(axes):
        canvas.show_scan(axes, ct.hu, ct.grid, index, "soft-tissue", view)
        canvas.show_patches(axes, means, patches, ct.grid, index, view, cmap="gray", vmin=low, vmax=high)

    blocks = drawn(coarse, view, ct.grid)
    assert blocks.shape == plain.shape

    def agreement(one):
        return np.corrcoef(one.ravel(), plain.ravel())[0, 1]

    here = agreement(blocks)
    assert here > 0.4
    step = round(0.75 * blocks.shape[1] / patches.shape[view.columns])
    assert here > max(agreement(np.roll(blocks, s, axis)) for s in (-step, step) for axis in (0, 1))
    assert here > agreement(blocks[::-1])


def test_an_unknown_window_is_named_with_the_nearest():
    with pytest.raises(PictureError, match=r"'lungs'\. Did you mean 'lung'"):
        canvas.window_hu("lungs")
