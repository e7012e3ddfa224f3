"""The usual mistakes with an encoder's input, each made on purpose: `tap-b-3d+mistake=mirrored`.

A mistake is of what the network receives; the data, the labels and the metrics stay right. What it costs depends on
what a faulty harness does with its labels:

* Nearly every harness reads scan and labels by one path, and turns, stretches and tiles both alike. Its map is read as
  if it lay right, and on the harness's own array it does: no score falls to nothing, which is why nobody notices. The
  network alone sees a body that does not exist. Here the labels stay where they are, and the map of the turned scan is
  turned back onto them: the same features meet the same labels.
* Where the scan alone goes through the faulty path (a processor of its own, labels read by another library), its map
  is read as if it lay right, and lies mirrored on the labels. That is `mirrored-alone`, for comparison.

Scans are turned whole, and then resized in the plane, padded and tiled as they lie, so that windows and padding lie as
in the faulty harness. Windows that are given to an encoder alone are scans of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tapct.encoders.axes import from_axes, grid_from_axes, grid_to_axes, to_axes, turn_of
from tapct.encoders.card import EncoderCard, InPlaneFilter
from tapct.encoders.mistake_names import MISTAKE_WORDS, MistakeName
from tapct.errors import EncoderError, nearest
from tapct.volumes.geometry import Grid, Size

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder, Features

SOFT_TISSUE_HU = (-160.0, 240.0)
"""The usual display window of the abdomen (width 400, level 40)."""

BROAD_HU = (-1024.0, 2048.0)
"""What TumorImagingBench 0.1.4 gives every model, those of a soft-tissue window among them."""

_NARROW_HU = 1000.0
"""Width below which a declared window is a soft-tissue one."""


_SAME_HU = 0.01
"""Rounding of resampling; no CT is as fine."""


@dataclass(frozen=True)
class Way:
    """How a scan gets to an encoder's network. As it stands, the right way; each mistake changes one thing.

    Attributes:
        axes: How the array lies that is handed over as if it were SPL.
        labels_follow: Whether the harness's labels lie as that array does, so that its map is right on them.
    """

    axes: str = "SPL"
    labels_follow: bool = True

    def why_not(self, encoder: "Encoder") -> str | None:
        """Returns why the mistake cannot be made with an encoder, or changes nothing for it; None where it can be."""
        return None

    def spacing_mm(self, card: EncoderCard, native: Grid) -> tuple[float, float, float] | None:
        """Returns the true spacing (z, y, x) that a scan is resampled to; None where it keeps its own."""
        return card.spacing_mm

    def in_plane_filter(self, card: EncoderCard) -> InPlaneFilter:
        """Returns how a scan is resampled where its voxels grow."""
        return card.in_plane_filter

    def values(self, encoder: "Encoder", hu: torch.Tensor) -> torch.Tensor:
        """Returns the values that are handed over as HU."""
        return hu

    def pad_hu(self, encoder: "Encoder", statistics: Mapping[str, torch.Tensor]) -> float:
        """Returns what a scan is padded with, in the values that are handed over.

        Args:
            encoder: The encoder.
            statistics: Of the scan, (1,) each.

        Raises:
            EncoderError: If it cannot be told.
        """
        return float(self.values(encoder, torch.tensor(encoder.card.pad_hu)))

    def no_effect(
        self, native: Grid, grid: Grid, padding: Size, image: torch.Tensor, handed_over: torch.Tensor
    ) -> str | None:
        """Returns why the network receives of a scan what it should; None where it does not.

        Args:
            native: The scan as it is on disk.
            grid: The scan as it is handed over, without padding.
            padding: Voxels that are added.
            image: (D, H, W) HU on that grid, in SPL order.
            handed_over: The array that is handed over, without padding.
        """
        return None

    @property
    def regrids(self) -> bool:
        """Whether the encoder's grid, and so the labels on it, is another than without the mistake."""
        return False

    @property
    def of_windows(self) -> bool:
        """Whether the mistake can be made with windows alone."""
        return True

    # -- What is the same for all ----------------------------------------------------------------------

    def grid(self, native: Grid, card: EncoderCard) -> Grid:
        """Returns the grid that a scan is handed over on, its axes in the order of the array.

        A header says the spacing of each axis of the body, wherever it lies in the array. The size in the plane is that
        of the array's last two axes, whatever they are.
        """
        spacing = self.spacing_mm(card, native)
        grid = grid_to_axes(native if spacing is None else native.respaced(spacing), self.axes)
        if card.in_plane_size is not None:
            grid = grid.resized((grid.shape.z, card.in_plane_size, card.in_plane_size))
        return grid

    def on_labels(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Returns the map (..., d, h, w) of what was handed over as it meets the labels, which lie right here.

        Where the harness's labels lie as its array does, so does its map. Where they do not, it is read as if it lay as
        they do: only axes that keep their places can be mistaken so.
        """
        return from_axes(feature_map, self.axes) if self.labels_follow else feature_map

    def patches_on_labels(self, grid: Grid, patches: Callable[[Grid], Grid]) -> Grid:
        """Returns where the patches of that map are taken to lie.

        Args:
            grid: The scan as it was handed over.
            patches: Gives the patches of a scan.
        """
        if self.labels_follow:
            return grid_from_axes(patches(grid), self.axes)
        return patches(grid_from_axes(grid, self.axes))

    def encoded(
        self, encoder: "Encoder", windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor] | None
    ) -> "Features":
        """Encodes windows (B, 1, D, H, W) that come alone, each handed over as a scan of its own.

        Raises:
            EncoderError: If the mistake is not of windows, or they cannot be taken as they are handed over.
        """
        if not self.of_windows:
            raise EncoderError(
                f"{encoder.card.name}: the mistake '{encoder.mistake}' is made where scans are resampled and padded, "
                "and windows alone are not: give whole scans, to tapct.features.extract or `tapct run`"
            )
        handed_over = self.values(encoder, to_axes(windows_hu, self.axes))
        found = encoder(handed_over, checked=True, statistics=statistics, mistake_made=True)
        return found._replace(map=self.on_labels(found.map))


@dataclass(frozen=True)
class Turned(Way):
    """The array lies otherwise than the network takes it to lie; labels lie with it."""

    def no_effect(
        self, native: Grid, grid: Grid, padding: Size, image: torch.Tensor, handed_over: torch.Tensor
    ) -> str | None:
        """Returns that a scan is its own mirror image, if it is."""
        return "turned, it is the same" if _same(image, handed_over) else None

    @property
    def regrids(self) -> bool:
        """Of axes that change places: the plane that is resized is another."""
        return turn_of(self.axes)[0] != [0, 1, 2]


@dataclass(frozen=True)
class UpsideDown(Turned):
    """Slices in reverse order, which a network that sees one at a time cannot notice."""

    def why_not(self, encoder: "Encoder") -> str | None:
        """Returns that a network of slices receives the same ones."""
        return "it sees one slice at a time, and each is as it was" if encoder.card.window_size[0] == 1 else None


@dataclass(frozen=True)
class UnitSpacing(Way):
    """Every scan is taken to have voxels of 1 mm, and resampled from there."""

    def why_not(self, encoder: "Encoder") -> str | None:
        """Returns that no spacing is read for an encoder that takes scans at their own."""
        return "it takes scans at their own spacing, which nothing reads" if encoder.card.spacing_mm is None else None

    def spacing_mm(self, card: EncoderCard, native: Grid) -> tuple[float, float, float] | None:
        """Returns what the card's spacing truly is where 1 mm is taken for a voxel's own."""
        if card.spacing_mm is None:
            return None
        z, y, x = (wanted * own for wanted, own in zip(card.spacing_mm, native.spacing_mm, strict=True))
        return z, y, x

    def no_effect(
        self, native: Grid, grid: Grid, padding: Size, image: torch.Tensor, handed_over: torch.Tensor
    ) -> str | None:
        """Returns that a scan's spacing is 1 mm, if it is."""
        return "its spacing is 1 mm" if np.allclose(native.spacing_mm, 1.0, rtol=1e-6) else None

    @property
    def regrids(self) -> bool:
        """Always."""
        return True

    @property
    def of_windows(self) -> bool:
        """Windows are not resampled."""
        return False


@dataclass(frozen=True)
class WrongWindow(Way):
    """HU are clipped to a window that is not the network's, and scaled to the values of its own.

    A network of a finite window gets the values that it expects, of other HU. One that takes HU as they are, or
    normalises each scan by itself, gets clipped ones.
    """

    def values(self, encoder: "Encoder", hu: torch.Tensor) -> torch.Tensor:
        """Returns HU that the encoder normalises to what a harness with the wrong window gives the network."""
        declared = encoder.input_sheet().hu_window
        low, high = wrong_window(encoder)
        clipped = hu.clamp(low, high)
        if declared is None or not np.isfinite([declared.low_hu, declared.high_hu]).all():
            return clipped
        return declared.low_hu + (clipped - low) * ((declared.high_hu - declared.low_hu) / (high - low))

    def no_effect(
        self, native: Grid, grid: Grid, padding: Size, image: torch.Tensor, handed_over: torch.Tensor
    ) -> str | None:
        """Returns that no voxel has another value, if so it is."""
        return "no voxel has another value" if _same(image, handed_over) else None


@dataclass(frozen=True)
class PaddedAfter(Way):
    """Scans are normalised and then padded with 0, which is some HU or other and not air."""

    def why_not(self, encoder: "Encoder") -> str | None:
        """Returns that nothing is padded, or with 0 anyway, or that 0 has no HU."""
        from tapct.encoders.padding import why_zero_is_no_mistake

        card = encoder.card
        if card.window_size == (1, card.in_plane_size, card.in_plane_size):
            return "its slices have the size of its window: nothing is ever padded"
        return why_zero_is_no_mistake(encoder)

    def pad_hu(self, encoder: "Encoder", statistics: Mapping[str, torch.Tensor]) -> float:
        """Returns the HU that the network receives as 0."""
        from tapct.encoders.padding import zero_hu

        return zero_hu(encoder, statistics)

    def no_effect(
        self, native: Grid, grid: Grid, padding: Size, image: torch.Tensor, handed_over: torch.Tensor
    ) -> str | None:
        """Returns that a scan fills its windows, if it does."""
        return None if any(padding) else "it fills its windows, and nothing is padded"

    @property
    def of_windows(self) -> bool:
        """Windows are not padded."""
        return False


@dataclass(frozen=True)
class OtherFilter(Way):
    """Scans shrink by the other filter: interpolated between neighbours for averaged, or averaged for interpolated."""

    def why_not(self, encoder: "Encoder") -> str | None:
        """Returns that nothing is resampled."""
        card = encoder.card
        return "nothing is resampled for it" if card.spacing_mm is None and card.in_plane_size is None else None

    def in_plane_filter(self, card: EncoderCard) -> InPlaneFilter:
        """Returns the other one."""
        return "linear" if card.in_plane_filter == "antialias" else "antialias"

    def no_effect(
        self, native: Grid, grid: Grid, padding: Size, image: torch.Tensor, handed_over: torch.Tensor
    ) -> str | None:
        """Returns that no axis shrinks, if none does: both filters are then the same."""
        grown = zip(grid.spacing_mm, native.spacing_mm, strict=True)
        return None if any(new > old * (1 + 1e-9) for new, old in grown) else "it does not shrink along any axis"

    @property
    def of_windows(self) -> bool:
        """Windows are not resampled."""
        return False


RIGHT = Way()

MISTAKES: Mapping[MistakeName, Way] = {
    "mirrored": Turned("SPR"),
    "mirrored-alone": Turned("SPR", labels_follow=False),
    "upside-down": UpsideDown("IPL"),
    "lps-for-ras": Turned("SAR"),
    "transposed": Turned("SLP"),
    "xyz-for-zyx": Turned("LPS"),
    "spacing-1mm": UnitSpacing(),
    "hu-window": WrongWindow(),
    "padding-after-normalising": PaddedAfter(),
    "other-filter": OtherFilter(),
}


def way_of(mistake: str | None) -> Way:
    """Returns the way of a mistake, None being the right one.

    Raises:
        EncoderError: If there is no such mistake.
    """
    if mistake is None:
        return RIGHT
    found = {str(name): way for name, way in MISTAKES.items()}.get(mistake)
    if found is None:
        raise EncoderError(f"there is no mistake '{mistake}'. {nearest(str(mistake), MISTAKES)}")
    return found


def require_it_can_be_made(encoder: "Encoder") -> None:
    """Refuses an encoder with a mistake that would be none: its features would be the right ones under a wrong name.

    Raises:
        EncoderError: If the mistake cannot be made with it, or changes nothing of what its network receives.
    """
    if encoder.mistake is None:
        return
    why = encoder.way.why_not(encoder)
    if why is None and not encoder.card.weights.needed and _is_blind(encoder):
        why = "its network is never called: it does not look at scans"
    if why is not None:
        raise EncoderError(f"{encoder.card.name} cannot be given the mistake '{encoder.mistake}': {why}")


def wrong_window(encoder: "Encoder") -> tuple[float, float]:
    """Returns the HU window of the mistake `hu-window`: that of soft tissue, or the broad one where that is right."""
    declared = encoder.input_sheet().hu_window
    if declared is not None and declared.high_hu - declared.low_hu < _NARROW_HU:
        return BROAD_HU
    return SOFT_TISSUE_HU


def in_words(encoder: "Encoder") -> str:
    """Returns what an encoder's mistake does, with its numbers; empty without one."""
    words = "" if encoder.mistake is None else MISTAKE_WORDS[encoder.mistake]
    if isinstance(encoder.way, WrongWindow):
        low, high = wrong_window(encoder)
        return f"{words}: {low:g} to {high:g} HU"
    return words


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=0, atol=_SAME_HU))


def _is_blind(encoder: "Encoder") -> bool:
    from tapct.encoders.received import received

    window = torch.zeros(1, 1, *encoder.card.window_size)
    return received(encoder, window, encoder.statistics_of(window), mistake_made=True) is None
