"""Which features are stored already, told without reading a scan or fetching weights.

An entry is found by its key, which holds the content of the scan's files. Hashing a data set takes as long as reading
it, so only what is remembered of files that are as they were counts: of any other scan nothing is known to be stored.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tapct.errors import TapctError
from tapct.features import CacheMode, FeatureBank, TensorStore
from tapct.sweep.bill.settings import Encoding
from tapct.sweep.bill.sizes import Scan
from tapct.sweep.bill.weights import with_weights


class Stored:
    """The entries of a folder of features."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Lists the folder.

        Args:
            folder: Where features are stored; need not be there.
            device: Where cells would run, which decides the precision.
        """
        self._store, self._device = TensorStore(folder), device
        self._bytes = {file.key: file.nbytes for file in self._store.files()}
        self._banks: dict[Encoding, FeatureBank | None] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all that is there."""
        return sum(self._bytes.values())

    def of(self, encoding: Encoding, scans: Sequence[Scan]) -> list[tuple[int, int]]:
        """Returns the bytes that are stored of each scan's features and labels; 0 where none are known to be."""
        bank = self._bank(encoding) if self._bytes else None
        return [(0, 0) if bank is None else self._of(bank, scan) for scan in scans]

    def _of(self, bank: FeatureBank, scan: Scan) -> tuple[int, int]:
        task = None if scan.place is None else bank.remembered(*scan.place)
        if task is None:
            return 0, 0
        return self._bytes.get(task.features_key, 0), self._bytes.get(task.labels_key or "", 0)

    def _bank(self, encoding: Encoding) -> FeatureBank | None:
        if encoding not in self._banks:
            self._banks[encoding] = self._made(encoding)
        return self._banks[encoding]

    def _made(self, encoding: Encoding) -> FeatureBank | None:
        try:
            encoder = with_weights(encoding)
            if encoder is None:  # what was made with weights that are gone has a key that cannot be told
                return None
            bank = FeatureBank(
                encoder,
                self._store,
                mode=CacheMode.ONLY_CACHED,
                dtype=encoding.dtype,
                overlap=encoding.overlap,
                fit_windows=encoding.fit_windows,
                device=self._device,
            )
            bank.identify()
        except TapctError:  # a run says it as well, where it matters
            return None
        return bank
