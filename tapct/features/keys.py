"""What is in the keys of a case's stored features and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.errors import FeatureError
from tapct.features import values
from tapct.features.identity import ScanHashes, key_of
from tapct.features.nbytes import require_dtype
from tapct.source_code import sources_sha256

if TYPE_CHECKING:
    from tapct.tasks.dataset import CTDataset


@dataclass(frozen=True)
class KeyedCase:
    """A case with the keys of its entries.

    Attributes:
        dataset: Its dataset.
        index: Its index there.
        content: Hashes of its files: those of the scan, and in segmentation those of the target.
        features_key: Key of its features.
        labels_key: Key of its labels, in segmentation.
    """

    dataset: "CTDataset"
    index: int
    content: tuple[str, ...]
    features_key: str
    labels_key: str | None

    @property
    def case(self) -> str:
        """Its name."""
        return self.dataset.cases[self.index]

    @property
    def title(self) -> str:
        """What it is called in messages: the task and the case."""
        return f"{self.dataset.spec.name}, case {self.case}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its entries, the labels' first."""
        return (self.features_key,) if self.labels_key is None else (self.labels_key, self.features_key)


class FeatureKeys:
    """The keys of cases for one encoder.

    What a features entry depends on is in its key: the weights, card, code and settings of the encoder, the windows,
    the content of the case's files, how its task reads them, the code and libraries in between, the dtype. A change of
    any of them is another key.

    Attributes:
        identity: What the keys say of the encoder, once `identify` has been called.
        dtype: What features are stored as.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: Path,
        *,
        dtype: str,
        overlap: float,
        fit_windows: bool,
        device: torch.device,
    ) -> None:
        """Initializes the keys; nothing is read yet.

        Args:
            encoder: May be deferred, and stays so.
            store: Folder of the store, which remembers hashes of files.
            dtype: Of stored features; an encoder may have its own.
            overlap: Share of overlap between windows.
            fit_windows: Whether windows shrink to small scans.
            device: Where the encoder runs, which settles its precision.

        Raises:
            FeatureError: If the dtype is unknown.
        """
        self.dtype = encoder.feature_dtype or dtype
        require_dtype(self.dtype)
        self.identity: dict[str, Any] = {}
        self._encoder, self._device = encoder, device
        self._windows = {"overlap": overlap, "fit": fit_windows}
        self._hashes = ScanHashes(store / "hashes")

    def identify(self) -> None:
        """Takes down what the encoder is, as the keys hold it: its weights are read for that, but not loaded."""
        self.identity = identity(self._encoder, self._device)

    def require_same_weights(self) -> None:
        """Makes sure that the encoder, now that it is built, has the weights that are in the keys.

        Raises:
            FeatureError: If not.
        """
        if identity(self._encoder, self._device)["weights"] != self.identity["weights"]:
            source, name = self._encoder.weights_source, self._encoder.card.name
            raise FeatureError(f"{source} changed while {name} was loaded from it; run again")

    def of(self, part: "CTDataset", index: int) -> KeyedCase:
        """Returns a case with its keys; its files are read, unless they are as they were when they were last hashed.

        Raises:
            FeatureError: If one cannot be read.
        """
        return self._keyed(part, index, self._content(part, part.cases[index]))

    def remembered(self, part: "CTDataset", index: int) -> KeyedCase | None:
        """Returns a case whose files are as they were when they were last hashed, with its keys; None of any other.

        No file is read, so a bill of thousands of scans takes seconds.
        """
        content = [self._hashes.known(paths) for paths in _read_of(part, part.cases[index])]
        return None if None in content else self._keyed(part, index, tuple(filter(None, content)))

    def require_unchanged(self, keyed: KeyedCase) -> None:
        """Refuses what was read of a case whose files changed meanwhile: its key says what was there before.

        Raises:
            FeatureError: If they have.
        """
        if self._content(keyed.dataset, keyed.case) != keyed.content:
            raise FeatureError(
                f"{keyed.title}: its files changed while they were read. Nothing was stored of it; run again when they "
                "are at rest"
            )

    def content_of(self, paths: Sequence[Path]) -> str:
        """Returns a hash of what is in files.

        Raises:
            FeatureError: If one cannot be read.
        """
        return self._hashes.of(paths)

    def _content(self, part: "CTDataset", case: str) -> tuple[str, ...]:
        """Returns hashes of what is on disk: of what the scan is read from, and in segmentation the target."""
        return tuple(self._hashes.of(paths) for paths in _read_of(part, case))

    def _keyed(self, part: "CTDataset", index: int, content: tuple[str, ...]) -> KeyedCase:
        case, card = part.cases[index], self._encoder.card
        scan, *target = content
        # Rounding to the others is torch's own.
        dtype = [self.dtype, sources_sha256(values.__name__)] if self.dtype == "int8" else self.dtype
        own = {"encoder": self.identity, "windows": self._windows, "dtype": dtype}
        features_key = key_of({"scan": scan, "task": part.scan_cache_key(case), **own})
        if not target:
            return KeyedCase(part, index, content, features_key, None)
        grid: list[Any] = [card.spacing_mm, card.in_plane_size]  # encoders of one grid share the labels
        if self._encoder.way.regrids:
            grid.append(self._encoder.mistake)
        labels_key = key_of({"labels": target, "scan": scan, "task": part.target_cache_key(case), "grid": grid})
        return KeyedCase(part, index, content, features_key, labels_key)


def _read_of(part: "CTDataset", case: str) -> list[list[Path]]:
    """Returns what the entries of a case are made of: what its scan is read from, and in segmentation its target."""
    paths = [part.scan_paths(case)]
    if part.spec.of_kind.dense:
        paths.append(part.target_paths(case))
    return paths
