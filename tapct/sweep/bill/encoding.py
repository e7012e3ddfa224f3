"""What encoding scans takes: windows, arithmetic, bytes; counted by the functions that encode them."""

import math
from dataclasses import dataclass

from tapct.features.extract import Tiling
from tapct.features.nbytes import entry_nbytes
from tapct.sweep.bill.cost import Costs
from tapct.sweep.bill.settings import Encoding
from tapct.sweep.bill.sizes import BilledScan
from tapct.volumes import Grid, Size

HEADER_BYTES = 1290
"""Of an entry of features next to its tensors and what it says of its encoder: grids, hashes, shapes, to within 50."""

LABELS_HEADER_BYTES = 520
"""Of an entry of labels next to its tensors."""

LABELS_PER_BYTE = 60
"""Voxels of labels that a byte holds once they are compressed: 40 to 160 in the quickstart, 71 of 61 organs at 1.5 mm.
Labels are a percent or two of what is stored."""


@dataclass(frozen=True)
class Encoded:
    """What a scan takes.

    Attributes:
        windows: How many windows it has.
        window: Voxels of each.
        features_bytes: Of its stored features.
        labels_bytes: Of its stored labels, where there are some.
        patches: Patches of its feature map.
        native: Voxels of the scan.
        voxels: Voxels of the scan on the encoder's grid.
    """

    windows: int
    window: Size
    features_bytes: int
    labels_bytes: int
    patches: int
    native: int
    voxels: int


class Encodings:
    """What scans take, each size worked out once for each encoder."""

    def __init__(self, costs: Costs) -> None:
        """Initializes it.

        Args:
            costs: Of windows.
        """
        self._costs = costs
        self._headers: dict[Encoding, int] = {}
        self._known: dict[tuple[Encoding, Size, tuple[float, float, float]], Encoded] = {}

    def of(self, encoding: Encoding, scan: BilledScan) -> Encoded:
        """Returns what a scan takes.

        Args:
            encoding: How it is encoded.
            scan: The scan.
        """
        key = (encoding, scan.grid.shape, scan.spacing_mm)
        if key not in self._known:
            self._known[key] = self._worked_out(encoding, scan.grid)
        return self._known[key]

    def header_bytes(self, encoding: Encoding) -> int:
        """Returns what an entry of features takes next to its tensors."""
        if encoding not in self._headers:
            self._headers[encoding] = HEADER_BYTES + self._costs.described_bytes(encoding)
        return self._headers[encoding]

    def _worked_out(self, encoding: Encoding, native: Grid) -> Encoded:
        encoder = self._costs.encoder(encoding)
        tiling = Tiling.of(encoder, native, encoding.overlap, encoding.fit_windows)
        patches = self._patches(encoding, tiling)
        shape, embeddings = (encoder.card.feature_dim, *patches), (tiling.windows, encoder.card.embedding_dim)
        voxels, stored = math.prod(native.shape), math.prod(tiling.grid.shape)
        return Encoded(
            windows=tiling.windows,
            window=tiling.window,
            features_bytes=entry_nbytes(shape, embeddings, encoding.dtype) + self.header_bytes(encoding),
            labels_bytes=(voxels + stored) // LABELS_PER_BYTE + LABELS_HEADER_BYTES,
            patches=math.prod(patches),
            native=voxels,
            voxels=stored,
        )

    def _patches(self, encoding: Encoding, tiling: Tiling) -> Size:
        if tiling.plan is not None:
            return tiling.plan.feature_shape
        # The network takes the image as it is, and no rule says what it makes of a part of its stride: it is asked.
        found = self._costs.count(encoding, tiling.window).map_shape
        if found is not None:
            return Size(*found[1:])
        stride = self._costs.encoder(encoding).card.feature_stride
        return Size(*(math.ceil(n / s) for n, s in zip(tiling.window, stride, strict=True)))
