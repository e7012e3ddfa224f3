"""Our encoders as models of eva: dense maps for its decoders, embeddings and bags for its heads."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from eva.core.models.wrappers import base
from typing_extensions import override

from tapct.encoders import Encoder, Precision
from tapct.errors import EncoderError, nearest
from tapct.eva.inputs import check_layout, check_size, check_windows, readable_hu
from tapct.features import CaseFeatures, NamedScan, extract_many
from tapct.features.extract import WINDOWS_PER_BATCH, are_finite
from tapct.features.outside import OutputName, over_image, said_of
from tapct.probes.base import loaded_encoder
from tapct.volumes import Grid

OutputType = TypeVar("OutputType")


class FrozenModel(base.BaseModel[torch.Tensor, OutputType]):
    """What both models are: a sealed encoder on batches of scans as eva's loaders give them.

    The encoder is frozen, in eval mode, without gradients, and computes in its own precision, whatever the trainer's.
    """

    model: Encoder

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        precision: Precision = "auto",
        encoder_options: dict[str, Any] | str | None = None,
        spacing_mm: Sequence[float] | None = None,
        window_overlap: float = 0.0,
        fit_windows: bool = False,
        transforms: Callable | None = None,
    ) -> None:
        """Builds the encoder and loads its weights.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            precision: Of the encoder: "auto" (bf16 on a GPU, else fp32), "fp32", "bf16".
            encoder_options: Settings of the card to change, such as {in_plane_size: 512}, or the same as text.
            spacing_mm: Of the voxels that come, along (slices, rows, columns): the `pixdim` of eva's `Spacing`. eva's
                loaders drop the affine, so an encoder that needs a spacing must be told; from another one than its own
                it resamples. An encoder that takes scans at their own spacing makes no use of it.
            window_overlap: Share of overlap between windows, in [0, 1).
            fit_windows: Whether windows shrink to a scan that is smaller than they are: for crops of nodules.
            transforms: eva's, of the output.

        Raises:
            EncoderError: If a setting is unknown, or the spacing is needed and not there.
            WeightsError: If the weights cannot be had or do not fit.
        """
        super().__init__(transforms)
        self._given = (encoder, weights, precision, encoder_options)
        self.model = self.load_model()
        self.spacing_mm = _spacing(self.model, spacing_mm)
        self.window_overlap, self.fit_windows = window_overlap, fit_windows
        self.eval()

    @override
    def load_model(self) -> Encoder:
        encoder = loaded_encoder(*self._given)
        encoder.load()
        return encoder

    @override
    def train(self, mode: bool = True) -> "FrozenModel[OutputType]":
        return super().train(False)

    @override
    def model_forward(self, tensor: torch.Tensor) -> OutputType:
        scans = tensor.as_subclass(torch.Tensor)
        check_layout(scans, self.model.card.name)
        # An enclosing autocast would resample and stitch in bf16.
        with torch.no_grad(), torch.autocast(scans.device.type, enabled=False):
            return self._encode(scans.float())

    def _encode(self, scans: torch.Tensor) -> OutputType:
        raise NotImplementedError

    def _features(self, scans: torch.Tensor) -> Iterator[CaseFeatures]:
        """Yields the features of whole scans (B, 1, D, H, W), tiled and stitched as everywhere in this project."""
        card, grid = self.model.card, self._grid(scans)
        check_size(grid.shape, card)
        named = (
            NamedScan(f"scan {i} of its batch", readable_hu(scan, card.name), grid)
            for i, scan in enumerate(scans[:, 0])
        )
        for features in extract_many(self.model, named, overlap=self.window_overlap, fit_windows=self.fit_windows):
            yield self._finite(features, features.map, features.embeddings)

    def _finite(self, found: Any, *tensors: torch.Tensor) -> Any:
        if not are_finite(*tensors):
            raise EncoderError(f"{self.model.card.name} gives features that are not finite")
        return found

    def _grid(self, scans: torch.Tensor) -> Grid:
        return Grid.of(scans.shape[2:], np.diag([*self.spacing_mm, 1.0]))


class DenseEncoder(FrozenModel[list[torch.Tensor]]):
    """An encoder for the decoders of eva's `SemanticSegmentationModule`: a list of one map, (B, C, d, h, w).

    The patches of the map divide the field of view of the scan evenly (see `tapct.features.outside`), so that any
    decoder that upsamples to the size of the image is right.
    """

    def __init__(
        self, encoder: str | Encoder, weights: str | None = None, windows: bool = False, **settings: Any
    ) -> None:
        """Builds the encoder and loads its weights.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            windows: Whether single windows at the encoder's own voxel size come, as training crops and eva's
                `inferer` give them, and not whole scans: they are encoded in one piece, without resampling.
            settings: As in `FrozenModel`.

        Raises:
            EncoderError: If windows come at another spacing than the encoder's.
        """
        super().__init__(encoder, weights, **settings)
        self.windows = windows
        wanted = self.model.card.spacing_mm
        if windows and wanted is not None and not np.allclose(wanted, self.spacing_mm, rtol=0.01):
            raise EncoderError(
                f"{self.model.card.name} takes windows of {_mm(wanted)} voxels, but the config says spacing_mm "
                f"{list(self.spacing_mm)}. Give eva's Spacing and spacing_mm the encoder's, or leave windows out"
            )

    @override
    def _encode(self, scans: torch.Tensor) -> list[torch.Tensor]:
        grid = self._grid(scans)
        if not self.windows:
            return [torch.stack([over_image(f.map, f.feature_grid, grid) for f in self._features(scans)])]
        check_windows(scans, self.model.card.name)
        pieces = scans.split(WINDOWS_PER_BATCH[scans.device.type])
        found = torch.cat([self.model(piece, checked=True).map for piece in pieces])
        stride = self.model.card.feature_stride
        covered = [n * s for n, s in zip(found.shape[2:], stride, strict=True)]
        patches = grid.padded(covered).patches(stride, self.model.feature_centre())
        return [over_image(self._finite(found, found), patches, grid)]


class Backbone(FrozenModel[torch.Tensor]):
    """An encoder for the heads of eva's `HeadModule`: an embedding of each scan, or a bag for `ABMIL`."""

    def __init__(
        self, encoder: str | Encoder, weights: str | None = None, output: OutputName = "embedding", **settings: Any
    ) -> None:
        """Builds the encoder and loads its weights.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            output: "embedding": (B, E), the mean of the embeddings of a scan's windows. "windows": (B, N, E), these
                embeddings (class tokens, where the encoder has some). "patches": (B, N, C), the features of all
                patches that do not lie in the padding.
            settings: As in `FrozenModel`.

        Raises:
            EncoderError: If there is no such output.
        """
        if output not in get_args(OutputName):  # eva's registry checks no types
            raise EncoderError(f"output is {output!r}. {nearest(str(output), get_args(OutputName))}")
        super().__init__(encoder, weights, **settings)
        self.output = output

    @override
    def _encode(self, scans: torch.Tensor) -> torch.Tensor:
        return torch.stack([said_of(features, self.output) for features in self._features(scans)])


def _spacing(encoder: Encoder, given: Sequence[float] | None) -> tuple[float, float, float]:
    wanted, name = encoder.card.spacing_mm, encoder.card.name
    if given is None and wanted is not None:
        raise EncoderError(
            f"{name} takes voxels of {_mm(wanted)}, and eva's loaders drop the spacing of a scan. Put eva.vision.data."
            f"transforms.Spacing with pixdim: {list(wanted)} among the transforms of every data set, and say so: "
            f"spacing_mm: {list(wanted)}"
        )
    if given is None:
        return 1.0, 1.0, 1.0  # no length enters: the encoder takes voxels as they are
    lengths = given if isinstance(given, Sequence) else ()
    if len(lengths) != 3 or not all(isinstance(mm, int | float) and 0 < mm < math.inf for mm in lengths):
        raise EncoderError(f"spacing_mm must be three positive lengths (slices, rows, columns), not {given}")
    return float(given[0]), float(given[1]), float(given[2])


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"
