"""Looking at features: their principal components as colours, and how alike each patch is to one point."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy import ndimage

from tapct.features import CaseFeatures
from tapct.viz import canvas
from tapct.viz.canvas import AXIAL, CORONAL, SAGITTAL, PictureError
from tapct.volumes import Grid, Volume, resample_image

TISSUE_HU = -500.0
"""Halfway between air and water: what is above is taken for the patient or the table."""

COLOUR_RANGE = (1.0, 99.0)
"""Percentiles of each component that are drawn darkest and brightest."""

_PER_CHUNK = 65536
_AXIAL_SLICES = 4
_PANEL_INCHES = 2.6


@dataclass(frozen=True, eq=False)
class EncodedScan:
    """A scan with its features.

    Attributes:
        ct: The scan.
        features: Its features, on the CPU.
    """

    ct: Volume
    features: CaseFeatures

    @property
    def name(self) -> str:
        """The name of its file, with the folder that it is in."""
        return "/".join(Path(self.ct.source).absolute().parts[-2:])

    def inside(self) -> np.ndarray:
        """Returns (d, h, w) which patches are centred in the scan, and not in padding."""
        where = self.features.feature_grid.coordinates_in(self.ct.grid)
        z, y, x = ((c > -0.5) & (c < n - 0.5) for c, n in zip(where, self.ct.shape, strict=True))
        return z[:, None, None] & y[None, :, None] & x[None, None, :]

    def body(self) -> np.ndarray:
        """Returns (d, h, w) which patches lie in the patient: the largest piece of tissue, holes filled slice by slice.

        Where there is none (a crop of a lung), it is every patch in the scan.
        """
        hu = resample_image(torch.from_numpy(self.ct.hu), self.ct.grid, self.features.feature_grid).numpy()
        pieces, count = ndimage.label((hu > TISSUE_HU) & self.inside())
        if count == 0:
            return self.inside()
        largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
        return np.stack([ndimage.binary_fill_holes(layer) for layer in largest]) & self.inside()

    def patch_at(self, point_mm: Sequence[float]) -> tuple[int, int, int]:
        """Returns the patch (z, y, x) that a point (x, y, z) in RAS+ world millimetres lies in.

        Raises:
            PictureError: If the point is not in the scan.
        """
        index = self.ct.world_to_index(np.array([point_mm]))[0]
        if (index < -0.5).any() or (index > np.array(self.ct.shape) - 0.5).any():
            corners = self.ct.index_to_world(np.array([[0, 0, 0], np.array(self.ct.shape) - 1]))
            spans = zip("xyz", corners.min(0), corners.max(0), strict=True)
            reach = ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in spans)
            raise PictureError(
                f"the point (x, y, z) = {tuple(float(v) for v in point_mm)} mm lies outside {self.ct.source}, whose "
                f"voxels span about {reach} mm. World coordinates are RAS+, as NIfTI viewers show them; with those of "
                "DICOM (LPS), turn the signs of x and y"
            )
        return nearest_patch(self.features.feature_grid, np.array([point_mm]))[0]


def nearest_patch(patches: Grid, points_mm: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns the patches (z, y, x) of a grid that points (N, 3), RAS+ millimetres (x, y, z), lie in or next to."""
    offsets = np.asarray(points_mm, dtype=np.float64) - patches.affine[:3, 3]
    index = np.rint(np.linalg.solve(patches.affine[:3, :3], offsets.T).T).astype(int)
    return [(int(z), int(y), int(x)) for z, y, x in index.clip(0, np.array(patches.shape) - 1)]


# -- Principal components ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Basis:
    """Three directions of features as red, green and blue.

    Attributes:
        mean: (C,) mean feature.
        directions: (3, C) the first principal components.
        low: (3,) what is drawn darkest.
        high: (3,) what is drawn brightest.
        explained: (3,) share of the variance.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    explained: tuple[float, float, float]

    @classmethod
    def of(cls, scans: Sequence[EncodedScan]) -> "Basis":
        """Returns the basis of the patients' patches of all scans together, so that one colour means one thing in all.

        Raises:
            PictureError: If there are fewer than three channels, or the features do not vary.
        """
        patches = [scan.features.map[:, torch.from_numpy(scan.body())] for scan in scans]
        count, channels = sum(c.shape[1] for c in patches), patches[0].shape[0]
        if channels < 3:
            raise PictureError(f"features of {channels} channels have no three principal components to colour by")
        mean = torch.stack([c.double().sum(1) for c in patches]).sum(0) / count
        covariance = torch.zeros(channels, channels, dtype=torch.float64)
        for chunk in (part for c in patches for part in c.split(_PER_CHUNK, dim=1)):
            centred = chunk.double() - mean[:, None]
            covariance += centred @ centred.T
        values, vectors = torch.linalg.eigh(covariance)
        if float(values[-1]) <= 0:
            raise PictureError("the features are the same everywhere in the patient: there is nothing to colour")
        directions = vectors.flip(1)[:, :3].T
        # The sign of a component is arbitrary: its largest weight is made positive, the same on every machine.
        largest = directions.abs().argmax(1, keepdim=True)
        directions = (directions * directions.gather(1, largest).sign()).float()
        projected = np.concatenate(
            [(directions @ (c.float() - mean.float()[:, None])).numpy() for c in patches], axis=1
        )
        low, high = (torch.from_numpy(np.percentile(projected, p, axis=1)).float() for p in COLOUR_RANGE)
        shares = (values.flip(0)[:3] / values.clamp(min=0).sum()).tolist()
        return cls(mean.float(), directions, low, high, (shares[0], shares[1], shares[2]))

    def colours(self, scan: EncodedScan) -> np.ndarray:
        """Returns (d, h, w, 4) RGBA of a scan's patches; transparent outside the patient."""
        feature_map = scan.features.map
        projected = torch.einsum("kc,czyx->zyxk", self.directions, feature_map - self.mean[:, None, None, None])
        rgb = ((projected - self.low) / (self.high - self.low).clamp(min=1e-12)).clamp(0, 1)
        return np.concatenate([rgb.numpy(), scan.body()[..., None].astype(np.float32)], axis=-1)


def draw_pca(path: Path, scans: Sequence[EncodedScan], title: str, window: str = "soft-tissue") -> Basis:
    """Draws the three principal components of the features as colours, on one basis for all slices and scans.

    Each scan has two rows: slices of the scan, and the same with its patches coloured. Four are axial, spread evenly
    over the patient, one is coronal. What is not patient is left black, and had no part in the basis.

    Args:
        path: Where to write the PNG.
        scans: Scans with features of one encoder.
        title: Line at the top.
        window: One of `canvas.WINDOWS_HU`.

    Returns:
        The basis.

    Raises:
        PictureError: If the features do not vary, or the picture cannot be written.
    """
    basis = Basis.of(scans)
    coronal = max(canvas.proportion(s.ct.grid, CORONAL) for s in scans)
    axial = max(canvas.proportion(s.ct.grid) for s in scans)
    size = (_PANEL_INCHES * (_AXIAL_SLICES + 1), 2 * len(scans) * _PANEL_INCHES * max(axial, min(coronal, 1.5)) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2 * len(scans), _AXIAL_SLICES + 1, squeeze=False)
    for scan, plain, coloured in zip(scans, axes[::2], axes[1::2], strict=True):
        colours, grid = basis.colours(scan), scan.ct.grid
        views = [(AXIAL, z) for z in _patient_slices(scan, _AXIAL_SLICES)] + [(CORONAL, _middle(scan, axis=1))]
        for (view, index), above, below in zip(views, plain, coloured, strict=True):
            canvas.show_scan(above, scan.ct.hu, grid, index, window, view)
            canvas.show_scan(below, np.full_like(scan.ct.hu, -1e4), grid, index, window, view)
            canvas.show_patches(below, colours, scan.features.feature_grid, grid, index, view)
            above.set_title(f"{'coronal' if view is CORONAL else 'slice'} {index}", fontsize=8)
        plain[0].set_ylabel(scan.name, fontsize=8, parse_math=False)
    shares = ", ".join(f"{share:.0%}" for share in basis.explained)
    figure.suptitle(f"{title}\nprincipal components as red, green, blue: {shares} of the variance", parse_math=False)
    canvas.save(figure, path)
    return basis


def _patient_slices(scan: EncodedScan, count: int) -> list[int]:
    """Returns slices of the scan, evenly spread over those that show the patient, the highest first."""
    layers = np.flatnonzero(scan.body().any(axis=(1, 2)))
    z = scan.features.feature_grid.coordinates_in(scan.ct.grid)[0]
    first, last = z[layers[0]], z[layers[-1]]
    where = first + (np.arange(count) + 0.5) / count * (last - first)
    return [int(v) for v in np.rint(where).clip(0, scan.ct.shape[0] - 1)][::-1]


def _middle(scan: EncodedScan, axis: int) -> int:
    """Returns the slice of the scan through the middle of the patient along an axis."""
    found = np.flatnonzero(scan.body().any(axis=tuple({0, 1, 2} - {axis})))
    where = scan.features.feature_grid.coordinates_in(scan.ct.grid)[axis]
    return int(np.rint(where[[found[0], found[-1]]].mean()).clip(0, scan.ct.shape[axis] - 1))


# -- Cosine similarity ---------------------------------------------------------------------------------


def similarity(scan: EncodedScan, feature: torch.Tensor) -> np.ndarray:
    """Returns (d, h, w) the cosine similarity of each patch to a feature (C,); NaN in padding."""
    found = F.cosine_similarity(scan.features.map.float(), feature.float()[:, None, None, None], dim=0).numpy()
    return np.where(scan.inside(), found, np.nan)


def draw_similarity(
    path: Path, scans: Sequence[EncodedScan], point_mm: Sequence[float], title: str, window: str = "soft-tissue"
) -> np.ndarray:
    """Draws how alike the patches of scans are to the one at a point of the first scan.

    Each scan has a row: axial, coronal and sagittal slices through the point, or, in the other scans, through the patch
    that is most alike. A cross marks it.

    Args:
        path: Where to write the PNG.
        scans: Scans with features of one encoder.
        point_mm: (x, y, z) in RAS+ world millimetres, in the first scan.
        title: Line at the top.
        window: One of `canvas.WINDOWS_HU`.

    Returns:
        (N, 3) the crosses, in RAS+ world millimetres (x, y, z).

    Raises:
        PictureError: If the point lies outside the first scan, or the picture cannot be written.
    """
    feature = scans[0].features.map[(slice(None), *scans[0].patch_at(point_mm))]
    maps = [similarity(scan, feature) for scan in scans]
    crosses = [np.array(point_mm, dtype=np.float64)]
    for scan, values in zip(scans[1:], maps[1:], strict=True):
        best = np.array(np.unravel_index(np.nanargmax(values), values.shape), dtype=np.float64)
        affine = scan.features.feature_grid.affine
        crosses.append(affine[:3, :3] @ best + affine[:3, 3])
    low, high = min(float(np.nanpercentile(values, 1)) for values in maps), 1.0
    views = (AXIAL, CORONAL, SAGITTAL)
    figure = Figure(figsize=(4 * len(views), 3.8 * len(scans) + 0.8), layout="constrained")
    axes = figure.subplots(len(scans), len(views), squeeze=False)
    for scan, values, cross, row in zip(scans, maps, crosses, axes, strict=True):
        at = scan.ct.world_to_index(cross[None])[0]
        voxel = np.rint(at).astype(int).clip(0, np.array(scan.ct.shape) - 1)
        for axis, view in zip(row, views, strict=True):
            canvas.show_scan(axis, scan.ct.hu, scan.ct.grid, int(voxel[view.across]), window, view)
            image = canvas.show_patches(
                *(axis, values, scan.features.feature_grid, scan.ct.grid, int(voxel[view.across]), view),
                cmap="viridis",
                vmin=low,
                vmax=high,
                alpha=0.5,
            )
            axis.plot(at[view.columns], at[view.rows], "+", color="white", ms=12, mew=1.5)
        row[0].set_ylabel(scan.name, fontsize=8, parse_math=False)
        row[0].set_title("({:.1f}, {:.1f}, {:.1f}) mm, RAS".format(*cross), fontsize=8)
    figure.colorbar(image, ax=axes, label="cosine similarity", shrink=0.6)
    figure.suptitle(title, parse_math=False)
    canvas.save(figure, path)
    return np.stack(crosses)
