"""Where the spine, the middle of the body and the lungs are in a CT of the trunk, from its values alone.

They tell the sides where a task's labels do not: of the liver alone no pair can be made. Each is found only where there
is little to mistake it for, and is left out otherwise.
"""

import numpy as np

SPINE, MIDDLE, LUNGS = "the spine", "the middle of the body", "the air of the lungs"

_TISSUE_HU = -300.0
_BONE_HU = 200.0
"""Over contrast-enhanced liver, spleen and kidney, under the vertebrae of most adults."""

_LUNG_HU = (-950.0, -500.0)
"""Aerated lung; gas in the bowel and air around the body is less, stool mostly more."""

_SPINE_WINDOW_MM = 50.0
_SPINE_IN_SLICES = 0.95
_SPINE_LEAST_CM2 = 1.0
_SPINE_OFF_MIDDLE_MM = 40.0
_SPINE_DEPTH_MM = 100.0
_SPINE_OF_BODY = 0.7
"""The spine is bone in a window of its width in (nearly) every slice, near the middle between right and left, and
nowhere in front of that: contrast in the stomach or the bowel is not in every slice. In depth it is part of the body:
noise or contrast throughout is no spine."""

_SPINE_LEAST_MM = 30.0
"""Of slices, along the body: in fewer, anything may be in all."""

_LUNG_LEAST_ML = 100.0
_LUNG_ENDS = 0.1
"""Lungs end within the scan: at one of its ends there is less than this share of their largest section. A foam mattress
has the values of lung, and goes from end to end."""


def landmarks(hu: np.ndarray, spacing_mm: np.ndarray, between: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns where the landmarks are that could be made out.

    Args:
        hu: (D, H, W) scan, along the body first and from right to left last; of coarse voxels (4 mm), to be quick.
        spacing_mm: Of its voxels (z, y, x).
        between: First and last slice of the upper abdomen, in which the spine is looked for.

    Returns:
        Index (z, y, x) by name.
    """
    body = _body(hu)
    if body is None:
        return {}
    trunk = slice(between[0], between[1] + 1)
    found = {}
    if body[trunk].any():
        middle = np.argwhere(body[trunk]).mean(axis=0) + np.array([between[0], 0, 0])
        spine = _spine((hu[trunk] > _BONE_HU) & body[trunk], body[trunk], spacing_mm, middle)
        if spine is not None:  # else it may be no trunk at all, whose middle says nothing
            found = {MIDDLE: middle, SPINE: np.array([middle[0], *spine])}
    lungs = _lungs(body & (hu > _LUNG_HU[0]) & (hu < _LUNG_HU[1]), spacing_mm)
    if lungs is not None:
        found[LUNGS] = lungs
    return found


def _body(hu: np.ndarray) -> np.ndarray | None:
    """Returns the largest piece of tissue, without the table, its holes filled slice by slice."""
    from scipy import ndimage

    pieces, count = ndimage.label(ndimage.binary_opening(hu > _TISSUE_HU))
    if count == 0:
        return None
    body = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return np.stack([ndimage.binary_fill_holes(section) for section in body])


def _spine(
    bone: np.ndarray, body: np.ndarray, spacing_mm: np.ndarray, middle: np.ndarray
) -> tuple[float, float] | None:
    """Returns the index (y, x) of the spine."""
    from scipy import ndimage

    if len(bone) * spacing_mm[0] < _SPINE_LEAST_MM:
        return None
    window = [max(1, round(_SPINE_WINDOW_MM / mm)) for mm in spacing_mm[1:]]
    window_cm2 = np.prod(window) * np.prod(spacing_mm[1:]) / 100
    share = ndimage.uniform_filter(bone.astype(np.float32), (0, *window), mode="constant")
    everywhere = (share * window_cm2 >= _SPINE_LEAST_CM2).mean(axis=0) >= _SPINE_IN_SLICES
    off_middle = np.abs(np.arange(bone.shape[2]) - middle[2]) * spacing_mm[2]
    everywhere &= off_middle <= _SPINE_OFF_MIDDLE_MM
    rows, of_body = np.flatnonzero(everywhere.any(axis=1)), np.flatnonzero(body.any(axis=(0, 2)))
    if not len(rows):
        return None
    depth_mm, body_mm = np.ptp(rows) * spacing_mm[1], np.ptp(of_body) * spacing_mm[1]
    if depth_mm > min(_SPINE_DEPTH_MM, _SPINE_OF_BODY * body_mm):
        return None
    return ndimage.center_of_mass(share.mean(axis=0) * everywhere)


def _lungs(lung: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray | None:
    """Returns the index (z, y, x) of the middle of the lungs."""
    from scipy import ndimage

    pieces, _ = ndimage.label(ndimage.binary_erosion(lung))
    ml = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000
    large = np.flatnonzero(ml >= _LUNG_LEAST_ML)
    kept = np.isin(pieces, large[large > 0])
    sections = kept.sum(axis=(1, 2))
    if not kept.any() or min(sections[0], sections[-1]) > _LUNG_ENDS * sections.max():
        return None
    return np.argwhere(kept).mean(axis=0)
