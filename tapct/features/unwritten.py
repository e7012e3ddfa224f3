"""The entries of a case as they are about to be stored."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from tapct.encoders import Encoder
from tapct.encoders.options import RANDOM, label
from tapct.errors import EncoderError
from tapct.features import values
from tapct.features.extract import CaseFeatures, are_finite, encoder_grid
from tapct.features.keeping import embeddings_key
from tapct.features.keys import FeatureKeys, KeyedCase
from tapct.features.store import TensorStore
from tapct.volumes import Grid, resample_labels


class Unwritten(NamedTuple):
    """An entry that is to be stored."""

    key: str
    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]
    compress: bool = False


def label_of(encoder: Encoder) -> str:
    """Returns what `tapct cache` calls an encoder, as the experiments of a sweep are called."""
    is_random = not encoder.awaits_weights and encoder.weights_source == RANDOM
    return label(encoder.card.name, is_random, encoder.describe_options())


class EntriesOf:
    """Makes the entries of cases for one encoder."""

    def __init__(self, encoder: Encoder, keys: FeatureKeys, store: TensorStore, *, with_maps: bool) -> None:
        """Initializes the maker.

        Args:
            encoder: The one that the features are of; built by the time that there are some.
            keys: Its keys.
            store: Where the entries are to be.
            with_maps: Whether cases are read with their maps; without, embeddings are stored by themselves as well.
        """
        self._encoder, self._keys, self._store, self._with_maps = encoder, keys, store, with_maps
        self._described: dict[str, Any] | None = None

    def features(self, keyed: KeyedCase, features: CaseFeatures, notes: Sequence[str]) -> list[Unwritten]:
        """Returns the entry of a case's features, and before it that of its embeddings where they are read alone.

        Args:
            keyed: The case.
            features: Its features.
            notes: What a user should know of how its scan was read.

        Raises:
            EncoderError: If they are not finite, or would not be in the dtype of the store.
            FeatureError: If the encoder was loaded from other weights than the keys say.
        """
        card, computed = self._encoder.card, (features.map, features.embeddings)
        if not are_finite(*computed):
            raise EncoderError(f"{card.name} gives features that are not finite for {keyed.case}")
        tensors = values.as_stored(*computed, self._keys.dtype)
        if not are_finite(*tensors.values()):
            largest = max(float(tensor.abs().max()) for tensor in computed)
            raise EncoderError(
                f"{card.name} gives features up to {largest:.3g} for {keyed.case}, too large for {self._keys.dtype}. "
                "Store them as bf16 or fp32 (feature_dtype)"
            )
        about: dict[str, Any] = {
            "kind": "features",
            "task": keyed.dataset.spec.folder,
            "case": keyed.case,
            "card": label_of(self._encoder),
            "encoder": self._description(),
            "native_grid": features.native_grid.to_json(),
            "encoder_grid": features.encoder_grid.to_json(),
            "feature_grid": features.feature_grid.to_json(),
            "padding": list(features.padding),
            "notes": [*notes, *features.notes],
        }
        whole, alone = Unwritten(keyed.features_key, tensors, about), embeddings_key(keyed.features_key)
        if self._with_maps and alone not in self._store:
            return [whole]
        return [Unwritten(alone, {"embeddings": tensors["embeddings"]}, about | {"kind": "embeddings"}), whole]

    def labels(self, keyed: KeyedCase, native: torch.Tensor, grid: Grid, device: torch.device) -> Unwritten:
        """Returns the entry of a case's labels: as they are on the scan's grid, and on the encoder's.

        Args:
            keyed: The case.
            native: (D, H, W) its labels.
            grid: Of its scan.
            device: Where they are resampled.
        """
        assert keyed.labels_key is not None
        card, way = self._encoder.card, self._encoder.way
        labels = resample_labels(native.to(device), grid, encoder_grid(grid, card, way))
        about = {
            "kind": "labels",
            "task": keyed.dataset.spec.folder,
            "case": keyed.case,
            "card": label_of(self._encoder),
        }
        return Unwritten(keyed.labels_key, {"native": native, "encoder": labels}, about, compress=True)

    def _description(self) -> dict[str, Any]:
        """Returns what a record must hold of the built encoder; that it is the one of the keys is checked once."""
        if self._described is None:
            self._keys.require_same_weights()
            self._described = self._encoder.describe()
        return self._described
