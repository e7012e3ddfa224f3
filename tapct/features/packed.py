"""The bank of a feature pack: entries that somebody else extracted, under the keys that the pack says."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.errors import FeatureError
from tapct.features.bank import FeatureBank
from tapct.features.entries import StoredEntries
from tapct.features.keys import KeyedCase
from tapct.features.store import CacheMode, StoredEntry, TensorStore
from tapct.tasks.pack import Pack

if TYPE_CHECKING:
    from tapct.tasks.dataset import CTDataset

MUST_AGREE = ("class", "weights", "card", "settings")
"""Of an encoder's identity: that of the pack is the one that was asked for. Its code and libraries are what they were
when its maker extracted; nothing is computed with those here."""


class PackedBank(FeatureBank):
    """Features and labels of a pack.

    What `FeatureBank` proves by its keys (which scan, which code) the pack only says. So these entries lie in a store
    of their own, and a record says that they are of a pack.
    """

    def __init__(
        self,
        encoder: Encoder,
        pack: Pack,
        *,
        mode: CacheMode,
        dtype: str,
        overlap: float,
        fit: bool,
        with_maps: bool = True,
    ) -> None:
        """Initializes the bank.

        Args:
            encoder: The one that was asked for; never built.
            pack: The pack.
            mode: "use" or "only-cached".
            dtype: Of features, as asked for.
            overlap: Share of overlap between windows, as asked for.
            fit: Whether windows were fitted to small scans, as asked for.
            with_maps: Whether cases come with their maps.

        Raises:
            FeatureError: If the pack is not of what was asked for.
        """
        if mode not in (CacheMode.USE, CacheMode.ONLY_CACHED):
            raise FeatureError(
                f"the features of the pack {pack.name} can be read and not extracted again: set features to 'use' or "
                f"'only-cached', not '{mode.value}'"
            )
        settings: dict[str, Any] = {"dtype": dtype, "overlap": overlap, "fit_windows": fit, "with_maps": with_maps}
        super().__init__(encoder, TensorStore(pack.folder), mode=mode, **settings)
        asked = {"feature_dtype": self.dtype, "window_overlap": overlap, "fit_windows": fit}
        windows = pack.manifest.windows
        there = {
            "feature_dtype": pack.manifest.dtype,
            "window_overlap": windows["overlap"],
            "fit_windows": windows["fit"],
        }
        for setting, value in asked.items():
            if there[setting] != value:
                raise FeatureError(f"the pack {pack.name} was made with {setting} {there[setting]}; asked for: {value}")
        self.pack, self.entries = pack, PackedEntries(self.store, pack)

    def fill(self, parts: "Sequence[CTDataset]", needs_map: Callable[[KeyedCase], bool] | None = None) -> None:
        """Takes the keys of the cases from the pack.

        Args:
            parts: Parts of its task.
            needs_map: Not asked: every map is in the pack.

        Raises:
            FeatureError: If the pack is of another encoder, or lacks a case.
        """
        self._require_encoder()
        packed = {case.case: case for case in self.pack.manifest.cases}
        cases: list[KeyedCase] = []
        for part in parts:
            for index, name in enumerate(part.cases):
                case = packed[name]
                cases.append(KeyedCase(part, index, (), case.features, case.labels))
        self.hold(cases)

    @property
    def precision(self) -> str:
        """What the encoder computed in, as the pack says."""
        return self.pack.manifest.identity["precision"]

    def description(self) -> dict[str, Any]:
        """Returns what a record must hold of the encoder, as the pack says."""
        return self.pack.manifest.encoder

    def _require_encoder(self) -> None:
        there = self.pack.manifest.identity
        published = self.encoder.card.weights.sha256 if self.encoder.awaits_weights else None
        known = published if published == there.get("weights") else None  # what the card says need not be downloaded
        ours = json.loads(json.dumps(identity(self.encoder, self.device, known)))
        for what in MUST_AGREE:
            if ours[what] == there.get(what):
                continue
            both = isinstance(ours[what], dict) and isinstance(there.get(what), dict)
            names = [key for key in ours[what] if ours[what][key] != there[what].get(key)] if both else []
            raise FeatureError(
                f"the pack {self.pack.name}, of {there['card']['name']}, and the encoder that was asked for differ in "
                f"their {what}{': ' if names else ''}{', '.join(names)}. Name the encoder (ENCODER), the weights "
                "(ENCODER_WEIGHTS) and options that the pack was made with, or take another pack"
            )


class PackedEntries(StoredEntries):
    """The entries of a pack: those that its manifest names, and no others."""

    def __init__(self, store: TensorStore, pack: Pack) -> None:
        super().__init__(store)
        self._pack = pack

    @override
    def features(self, keyed: KeyedCase, *, with_map: bool) -> StoredEntry:
        return self.of_case(keyed, "features", keyed.features_key)

    @override
    def of_case(self, keyed: KeyedCase, kind: str, key: str) -> StoredEntry:
        entry = super().of_case(keyed, kind, key)
        if entry.sha256 != self._pack.manifest.entries[key].sha256:
            raise FeatureError(
                f"{self.store.path(key)} is not the entry that the pack {self._pack.name} names: it was changed. "
                f"Delete {self._pack.folder}, and unpack it again"
            )
        return entry
