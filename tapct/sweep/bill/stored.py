"""Which features are stored already, told without reading a scan or fetching weights.

An entry is found by its key, which holds the content of the scan's files. Hashing a data set takes as long as reading
it, so only what is remembered of files that are as they were counts: of any other scan nothing is known to be stored.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tapct.errors import TapctError
from tapct.features import TensorStore
from tapct.features.keys import FeatureKeys
from tapct.sweep.bill.settings import Encoding
from tapct.sweep.bill.sizes import BilledScan
from tapct.sweep.bill.weights import with_weights


class FolderEntries:
    """The entries of a folder of features."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Lists the folder.

        Args:
            folder: Where features are stored; need not be there.
            device: Where experiments would run, which decides the precision.
        """
        self._store, self._device = TensorStore(folder), device
        self._bytes = {file.key: file.nbytes for file in self._store.files()}
        self._keys: dict[Encoding, FeatureKeys | None] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all that is there."""
        return sum(self._bytes.values())

    def of(self, encoding: Encoding, scans: Sequence[BilledScan]) -> list[tuple[int, int]]:
        """Returns the bytes that are stored of each scan's features and labels; 0 where none are known to be."""
        keys = self._keys_of(encoding) if self._bytes else None
        return [(0, 0) if keys is None else self._of(keys, scan) for scan in scans]

    def _of(self, keys: FeatureKeys, scan: BilledScan) -> tuple[int, int]:
        keyed = None if scan.place is None else keys.remembered(*scan.place)
        if keyed is None:
            return 0, 0
        return self._bytes.get(keyed.features_key, 0), self._bytes.get(keyed.labels_key or "", 0)

    def _keys_of(self, encoding: Encoding) -> FeatureKeys | None:
        if encoding not in self._keys:
            self._keys[encoding] = self._made(encoding)
        return self._keys[encoding]

    def _made(self, encoding: Encoding) -> FeatureKeys | None:
        try:
            encoder = with_weights(encoding)
            if encoder is None:  # what was made with weights that are gone has a key that cannot be told
                return None
            keys = FeatureKeys(
                encoder,
                self._store.folder,
                dtype=encoding.dtype,
                overlap=encoding.overlap,
                fit_windows=encoding.fit_windows,
                device=self._device,
            )
            keys.identify()
        except TapctError:  # a run says it as well, where it matters
            return None
        return keys
