"""The card of an encoder: what it is, what it was trained on, and what input it wants."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from tapct.encoders.eva_names import in_folders
from tapct.errors import EncoderError, nearest

InPlaneFilter = Literal["linear", "antialias"]
"""How scans shrink: interpolated between their nearest voxels, or averaged over the voxels that become one."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where the published weights of an encoder are.

    Attributes:
        repository: Hub repository (`huggingface.co/OWNER/NAME`, or `huggingface.co/datasets/OWNER/NAME`), DOI or site;
            None where nothing is published.
        revision: Commit or version of the repository.
        file: Name of the weights file in it.
        sha256: Checksum of that file; None where it is not known.
        md5: The same for a file of which its users publish no other.
        licence: Licence of the weights (not of the code); None where it could not be established.
        gated: Whether an account or an agreement is needed to download.
        needed: False for an encoder without parameters, such as a baseline of plain statistics.
    """

    repository: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None
    md5: str | None = None
    licence: str | None = None
    gated: bool = False
    needed: bool = True


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """What the benchmark needs to know of an encoder, and what a reader of the results wants to know.

    Attributes:
        name: The name by which it is loaded, such as `tap-b-3d`.
        display_name: The name shown in tables.
        window_size: Voxels (D, H, W) of one window; 2D encoders have D = 1.
        spacing_mm: Voxel spacing (z, y, x) that scans are resampled to; None keeps the scan's own.
        in_plane_size: Pixels (square) that slices are resized to; None keeps the scan's own.
        in_plane_filter: How a scan is resampled along every axis that shrinks, of which z does to a spacing alone.
            "antialias" averages; "linear" interpolates, as `torch.nn.functional.interpolate` and MONAI's `Spacing` do.
        pad_hu: HU of the padding where a scan is smaller than a window.
        feature_stride: Voxels (z, y, x) between neighbouring features.
        feature_dim: Channels of the feature map.
        embedding_dim: Length of the embedding of a window.
        has_cls: Whether the embedding is a class token.
        num_params: Parameters of the frozen encoder, as built.
        weights: Where its published weights are.
        pretraining_data: Names of the data it was trained on, to tell overlap with a task.
        reference: Paper or page that describes it.
        inputs_as_declared: Whether what its network is given was declared in a file, and not written as an adapter and
            held against the authors' code.
    """

    name: str
    display_name: str
    window_size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    in_plane_size: int | None
    in_plane_filter: InPlaneFilter = "antialias"
    pad_hu: float
    feature_stride: tuple[int, int, int]
    feature_dim: int
    embedding_dim: int
    has_cls: bool
    num_params: int
    weights: Weights = field(default_factory=Weights)
    pretraining_data: tuple[str, ...] = ()
    reference: str = ""
    inputs_as_declared: bool = False

    def __post_init__(self) -> None:
        if min(self.window_size) <= 0:
            raise EncoderError(f"{self.name}: window_size {self.window_size} must be positive")
        if any(w % s for w, s in zip(self.window_size, self.feature_stride, strict=True)):
            raise EncoderError(
                f"{self.name}: window_size {self.window_size} is not a multiple of feature_stride {self.feature_stride}"
            )
        if self.in_plane_size is not None and self.in_plane_size < max(self.feature_stride[1:]):
            raise EncoderError(f"{self.name}: in_plane_size {self.in_plane_size} is smaller than one feature")
        if self.spacing_mm is not None and not all(0 < mm < math.inf for mm in self.spacing_mm):
            raise EncoderError(f"{self.name}: spacing_mm {self.spacing_mm} must be positive and finite")
        if not math.isfinite(self.pad_hu):
            raise EncoderError(f"{self.name}: pad_hu {self.pad_hu} must be finite")
        if self.in_plane_filter not in (filters := get_args(InPlaneFilter)):
            hint = nearest(str(self.in_plane_filter), filters)
            raise EncoderError(f"{self.name}: in_plane_filter is {self.in_plane_filter!r}. {hint}")

    def file_in(self, folder: Path) -> Path:
        """Returns where its published file is in a folder that holds those of several encoders."""
        return folder / in_folders(self.name) / (self.weights.file or "weights")

    OPTIONS: ClassVar[tuple[str, ...]] = ("in_plane_size", "in_plane_filter", "window_size", "spacing_mm", "pad_hu")

    def with_options(self, **options: object) -> "EncoderCard":
        """Returns the card with some preprocessing settings changed.

        Args:
            options: Any of `in_plane_size`, `in_plane_filter`, `window_size`, `spacing_mm`, `pad_hu`.

        Raises:
            EncoderError: If an option is unknown, or contradicts the network's stride.
        """
        for key in options:
            if key not in self.OPTIONS:
                raise EncoderError(f"{self.name} has no option '{key}'. {nearest(key, self.OPTIONS)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]
