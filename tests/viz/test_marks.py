"""A picture of a detector: circles where findings are, crosses where candidates are."""

import matplotlib.image
import numpy as np
import pytest

from tapct.viz.marks import draw_marks
from tapct.volumes import Findings
from tests.small import abdomen


def shares(path) -> dict[str, float]:
    """The share of pixels in the colour of a finding, of what counts neither way, and of a candidate."""
    image = matplotlib.image.imread(path)[60:-60, :, :3]
    colours = {"finding": (0, 0.62, 0.45), "excluded": (0.8, 0.475, 0.655), "candidate": (0.9, 0.62, 0)}
    return {name: float((np.abs(image - colour).max(axis=2) < 0.15).mean()) for name, colour in colours.items()}


def scan():
    return abdomen((slice(40, 100), slice(None), slice(None)))[0]


def at(ct, *rows) -> Findings:
    """Findings at voxels: ((z, y, x), diameter, excluded)."""
    return Findings.of([[0, *ct.index_to_world(np.array([place]))[0], size, out] for place, size, out in rows])


def test_findings_and_candidates_are_marked_and_what_is_far_from_every_plane_is_not(tmp_path):
    ct = scan()
    found = at(ct, ((30, 50, 50), 40.0, 0), ((30, 50, 60), 30.0, 1))
    near, far = ct.index_to_world(np.array([[30, 52, 50], [5, 20, 90]]))
    draw_marks(tmp_path / "a" / "both.png", ct.hu, ct.grid, found, np.array([near, far]), "title", notice="notice")
    draw_marks(tmp_path / "none.png", ct.hu, ct.grid, found, np.array([far]), "title", notice="notice")
    both, none = shares(tmp_path / "a" / "both.png"), shares(tmp_path / "none.png")
    assert both["finding"] > 0.001
    assert both["excluded"] > 0.0005
    assert both["candidate"] > none["candidate"] == 0


@pytest.mark.parametrize("candidates", [[], [[30, 50, 50]]])
def test_a_scan_without_findings_is_drawn_through_its_best_candidate_or_its_middle(tmp_path, candidates):
    ct = scan()
    places = ct.index_to_world(np.array(candidates, dtype=float).reshape(-1, 3))
    draw_marks(tmp_path / "x.png", ct.hu, ct.grid, Findings.of([]), places, "title")
    assert (shares(tmp_path / "x.png")["candidate"] > 0) == bool(candidates)


def test_a_picture_is_the_same_to_the_byte(tmp_path):
    ct = scan()
    found = at(ct, ((30, 50, 50), 20.0, 0), ((20, 40, 60), 12.0, 0), ((50, 40, 60), 12.0, 0), ((40, 1, 1), 12.0, 0))
    for name in ("one", "two"):
        draw_marks(tmp_path / name, ct.hu, ct.grid, found, found.places_mm, "$a$")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
