"""From a scan to the features of its windows, on one grid."""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from tapct.encoders import Encoder, EncoderCard
from tapct.encoders.axes import grid_from_axes, sizes_from_axes, to_axes
from tapct.encoders.hounsfield import not_hu
from tapct.encoders.mistake_names import NO_EFFECT
from tapct.encoders.mistakes import RIGHT, Way
from tapct.errors import EncoderError, TapctError
from tapct.volumes import Grid, Size, Stitcher, WindowPlan
from tapct.volumes.resample import LinearMap

WINDOWS_PER_BATCH = {"cuda": 8, "cpu": 1}
"""Windows encoded at once, by type of device. Results do not depend on it beyond rounding; on a CPU, more windows only
take more memory."""


class NamedScan(NamedTuple):
    """A scan to encode.

    Attributes:
        name: Of the case or file, for errors.
        hu: (D, H, W) float32 Hounsfield units in SPL order.
        grid: Where its voxels lie.
    """

    name: str
    hu: torch.Tensor
    grid: Grid


@dataclass(frozen=True)
class CaseFeatures:
    """Features of one scan, and the grids that lead back to its voxels.

    Attributes:
        map: (C, d, h, w) feature map over the padded scan.
        embeddings: (N, E) embeddings of the windows, in the order of `WindowPlan.origins`.
        native_grid: The scan as it is on disk.
        encoder_grid: The scan as the encoder saw it, without padding.
        feature_grid: The patches of `map`; they reach into the padding where there is some.
        padding: Voxels of air that were added along (z, y, x) to fill the last window and patch.
        notes: What a user should know of how the scan was given to the encoder, one sentence each.
    """

    map: torch.Tensor
    embeddings: torch.Tensor
    native_grid: Grid
    encoder_grid: Grid
    feature_grid: Grid
    padding: Size
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that the features take."""
        return sum(t.numel() * t.element_size() for t in (self.map, self.embeddings))


def are_finite(*tensors: torch.Tensor) -> bool:
    """Returns whether no value is NaN or infinite."""
    # The extremes carry both, and take no memory, as isfinite of every value does.
    return all(bool(torch.isfinite(torch.stack(tensor.aminmax())).all()) for tensor in tensors)


def encoder_grid(native: Grid, card: EncoderCard, way: Way = RIGHT) -> Grid:
    """Returns the grid that an encoder wants a scan on: its spacing, then its in-plane size.

    Args:
        native: The scan's own.
        card: The encoder's card.
        way: Of an encoder with a mistake, its own.
    """
    return grid_from_axes(way.grid(native, card), way.axes)


def fitted_window(encoder: Encoder, shape: Size) -> tuple[int, int, int]:
    """Returns the smallest window over a whole image that the network takes, up to the card's own size.

    A nodule's crop of 50 mm is 33 voxels across at 1.5 mm; in a window of 128 nearly all would be air, and a
    pooled embedding would be of that air. Where the network takes the image as it is (FMCiB its authors' 50
    voxels, no multiple of the stride), that is the window.

    Args:
        encoder: The encoder.
        shape: Voxels of the image on the encoder's grid.
    """
    card = encoder.card
    whole = (shape.z, shape.y, shape.x)
    if all(n <= w for n, w in zip(whole, card.window_size, strict=True)) and encoder.supports(whole):
        return whole
    sizes = [
        range(min(w, math.ceil(n / s) * s), w + 1, s)
        for n, w, s in zip(shape, card.window_size, card.feature_stride, strict=True)
    ]
    fitting = [(d, h, w) for d, h, w in itertools.product(*sizes) if encoder.supports((d, h, w))]
    return min(fitting, key=math.prod, default=card.window_size)


class Tiling(NamedTuple):
    """How a scan is encoded.

    Attributes:
        grid: The scan as the encoder sees it, without padding; its axes are those of the array that it is handed.
        plan: Its windows; None where the whole image is one.
    """

    grid: Grid
    plan: WindowPlan | None

    @classmethod
    def of(cls, encoder: Encoder, native: Grid, overlap: float, fit_windows: bool) -> "Tiling":
        """Plans the windows of a scan, which need not have been read.

        Args:
            encoder: The encoder; it may be deferred.
            native: The grid of the scan.
            overlap: As in `extract`.
            fit_windows: As in `extract`.
        """
        card = encoder.card
        grid = encoder.way.grid(native, card)
        window = fitted_window(encoder, grid.shape) if fit_windows else card.window_size
        if window == grid.shape:  # the image is the window: nothing to tile
            return cls(grid, None)
        return cls(grid, WindowPlan.of(grid.shape, window, card.feature_stride, overlap))

    @property
    def window(self) -> Size:
        """Voxels of each window."""
        return self.grid.shape if self.plan is None else self.plan.window

    @property
    def windows(self) -> int:
        """How many there are."""
        return 1 if self.plan is None else math.prod(map(len, self.plan.starts))


@dataclass
class _Job:
    """A scan on its way: its padded image, the windows still to come, and what they gave so far."""

    encoder: Encoder
    native: Grid
    grid: Grid
    image: torch.Tensor
    plan: WindowPlan | None
    statistics: dict[str, torch.Tensor]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        self.stitcher = None if self.plan is None else Stitcher(self.plan)
        self.whole: torch.Tensor | None = None
        self.embeddings: list[torch.Tensor] = []

    @classmethod
    def of(cls, encoder: Encoder, scan: NamedScan, overlap: float, fit_windows: bool) -> "_Job":
        """Judges a scan as a whole, before resampling and padding change its values, and plans its windows."""
        card, native, way = encoder.card, scan.grid, encoder.way
        if problem := not_hu(scan.hu[None]):
            raise EncoderError(f"{card.name} cannot encode {scan.name}: {problem}")
        grid, plan = Tiling.of(encoder, native, overlap, fit_windows)
        straight = grid_from_axes(grid, way.axes)
        image = LinearMap.between(native, straight, antialias=way.in_plane_filter(card) == "antialias")(scan.hu)
        given = way.values(encoder, to_axes(image, way.axes))
        statistics = encoder.statistics_of(given[None, None])  # of the scan, before there is padding in it
        padding = Size(0, 0, 0) if plan is None else plan.padding
        why = way.no_effect(native, straight, padding, image, given)
        notes = (*encoder.scan_notes(statistics), *(() if why is None else (f"{NO_EFFECT}{why}",)))
        if plan is not None:
            given = plan.pad(given, way.pad_hu(encoder, statistics))
        return cls(encoder, native, grid, given, plan, statistics, notes)

    @property
    def origins(self) -> list[tuple[int, int, int]]:
        return [(0, 0, 0)] if self.plan is None else self.plan.origins

    @property
    def window(self) -> Size:
        return self.grid.shape if self.plan is None else self.plan.window

    @property
    def is_done(self) -> bool:
        return len(self.embeddings) == len(self.origins)

    def window_at(self, origin: tuple[int, int, int]) -> torch.Tensor:
        return self.image if self.plan is None else self.plan.window_at(self.image, origin)

    def add(self, origin: tuple[int, int, int], feature_map: torch.Tensor, embedding: torch.Tensor) -> None:
        self.embeddings.append(embedding)
        if self.stitcher is None:
            self.whole = feature_map
        else:
            self.stitcher.add(origin, feature_map)

    def result(self) -> CaseFeatures:
        feature_map = self.whole if self.stitcher is None else self.stitcher.result()
        assert feature_map is not None
        stride, way = self.encoder.card.feature_stride, self.encoder.way
        covered = Size(*(n * s for n, s in zip(feature_map.shape[1:], stride, strict=True)))
        padding = Size(0, 0, 0) if self.plan is None else self.plan.padding
        return CaseFeatures(
            map=way.on_labels(feature_map),
            embeddings=torch.stack(self.embeddings),
            native_grid=self.native,
            encoder_grid=grid_from_axes(self.grid, way.axes),
            feature_grid=way.patches_on_labels(
                self.grid, lambda grid: grid.padded(covered).patches(stride, self.encoder.feature_centre())
            ),
            padding=Size(*sizes_from_axes(padding, way.axes)),
            notes=self.notes,
        )


class Glimpse(NamedTuple):
    """Some windows of a scan, as `extract` gives them to an encoder.

    Attributes:
        windows_hu: (N, 1, D, H, W).
        statistics: Of the scan, (N,) each.
        spacing_mm: Of their voxels, (z, y, x).
    """

    windows_hu: torch.Tensor
    statistics: dict[str, torch.Tensor]
    spacing_mm: tuple[float, float, float]


def glimpse(encoder: Encoder, scan: NamedScan, heights: Sequence[float]) -> Glimpse:
    """Returns the windows in the middle of a scan's slices, at shares of its height in [0, 1].

    Raises:
        EncoderError: As `extract`.
    """
    job = _Job.of(encoder, scan, overlap=0.0, fit_windows=False)

    def nearest_to(share: float) -> tuple[int, int, int]:
        places = zip((share, 0.5, 0.5), job.grid.shape, job.window, strict=True)
        wanted = [at * whole - window / 2 for at, whole, window in places]
        return min(job.origins, key=lambda origin: [abs(a - b) for a, b in zip(origin, wanted, strict=True)])

    windows = torch.stack([job.window_at(nearest_to(share)) for share in heights])[:, None]
    return Glimpse(
        windows, {name: value.expand(len(heights)) for name, value in job.statistics.items()}, job.grid.spacing_mm
    )


def extract(
    encoder: Encoder,
    hu: torch.Tensor,
    native: Grid,
    *,
    name: str = "the scan",
    overlap: float = 0.0,
    fit_windows: bool = False,
    batch: int | None = None,
) -> CaseFeatures:
    """Encodes a whole scan by sliding window.

    Args:
        encoder: The frozen encoder, on the device of `hu`.
        hu: (D, H, W) float32 Hounsfield units in SPL order.
        native: The grid of `hu`.
        name: Of the case or file, for errors.
        overlap: Share of overlap between windows; see `WindowPlan`.
        fit_windows: Whether windows shrink to an image that is smaller than they are; see `fitted_window`.
        batch: Windows encoded at once; None is `WINDOWS_PER_BATCH` of the device.

    Raises:
        EncoderError: If the scan as a whole cannot be in Hounsfield units. Its windows are not asked: one may well be
            of plain 0, or of 0 and 1.
    """
    scan = NamedScan(name, hu, native)
    return next(extract_many(encoder, [scan], overlap=overlap, fit_windows=fit_windows, batch=batch))


def extract_many(
    encoder: Encoder,
    scans: Iterable[NamedScan],
    *,
    overlap: float = 0.0,
    fit_windows: bool = False,
    batch: int | None = None,
) -> Iterator[CaseFeatures]:
    """Encodes scans one after the other, their windows sharing batches: crops of a few windows fill none alone.

    Args:
        encoder: The frozen encoder, on the device of the scans.
        scans: Taken only as they are needed.
        overlap: As in `extract`.
        fit_windows: As in `extract`.
        batch: As in `extract`.

    Yields:
        The features of each scan, in order.

    Raises:
        EncoderError: As `extract`, or whatever `scans` raises; the scans before it are yielded first.
    """
    jobs: deque[_Job] = deque()
    waiting: list[tuple[_Job, tuple[int, int, int]]] = []

    def encode() -> None:
        windows = torch.stack([job.window_at(origin) for job, origin in waiting])[:, None]
        of_scans = [job.statistics for job, _ in waiting]
        statistics = {name: torch.cat([of[name] for of in of_scans]) for name in of_scans[0]}
        features = encoder(windows, checked=True, statistics=statistics, mistake_made=True)
        for (job, origin), feature_map, embedding in zip(waiting, features.map, features.embedding, strict=True):
            job.add(origin, feature_map, embedding)
        waiting.clear()

    failure: TapctError | None = None
    planned = (_Job.of(encoder, scan, overlap, fit_windows) for scan in scans)
    while True:
        try:
            job = next(planned)
        except StopIteration:
            break
        except TapctError as error:  # a scan must not take those with it that wait for a full batch
            failure = error
            break
        if waiting and waiting[0][0].window != job.window:
            encode()
        jobs.append(job)
        for origin in job.origins:
            waiting.append((job, origin))
            if len(waiting) == (batch or WINDOWS_PER_BATCH[job.image.device.type]):
                encode()
        while jobs and jobs[0].is_done:
            yield jobs.popleft().result()
    if waiting:
        encode()
    while jobs:
        yield jobs.popleft().result()
    if failure is not None:
        raise failure
