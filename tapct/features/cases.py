"""A case as it comes from the store, and as a probe sees it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from tapct.errors import FeatureError
from tapct.features.extract import CaseFeatures
from tapct.features.store import StoredEntry
from tapct.features.values import as_values
from tapct.volumes import Grid, Size

Seen = Literal["map", "embeddings"]
"""Features of a case that a head may see."""


@dataclass(frozen=True)
class StoredFeatures:
    """Features of one scan as they are stored: what `CaseFeatures` has, read where it is asked for.

    Attributes:
        stored_map: (C, d, h, w) values or int8 steps, memory-mapped; None where it is not stored or not wanted.
        map_scale: (C,) of steps; None for values.
        embeddings: (N, E), as in `CaseFeatures`; likewise the grids and the padding.
        native_grid: See there.
        encoder_grid: See there.
        feature_grid: See there.
        padding: See there.
    """

    stored_map: torch.Tensor | None
    map_scale: torch.Tensor | None
    embeddings: torch.Tensor
    native_grid: Grid
    encoder_grid: Grid
    feature_grid: Grid
    padding: Size

    @classmethod
    def of(cls, entry: StoredEntry, *, with_map: bool) -> "StoredFeatures":
        """Returns what an entry holds, with its map only if that is wanted."""
        about, tensors = entry.about, entry.tensors
        grids = {grid: Grid.from_json(about[grid]) for grid in ("native_grid", "encoder_grid", "feature_grid")}
        return cls(
            stored_map=tensors.get("map") if with_map else None,
            map_scale=tensors.get("map_scale") if with_map else None,
            embeddings=tensors["embeddings"],
            padding=Size(*about["padding"]),
            **grids,
        )

    @property
    def map(self) -> torch.Tensor:
        """(C, d, h, w) values: as they are stored, or of steps float32.

        Raises:
            FeatureError: If there is none.
        """
        if self.stored_map is None:
            raise FeatureError("these features are embeddings alone: their map is not stored, or was not asked for")
        return as_values(self.stored_map, self.map_scale, self.stored_map.device, None)

    def to(self, device: torch.device, seen: Sequence[Seen], dtype: torch.dtype | None) -> "AnyFeatures":
        """Returns the features on a device; see `EncodedCase.to`."""
        embeddings = self.embeddings.to(device=device, dtype=dtype) if "embeddings" in seen else self.embeddings
        if "map" not in seen or self.stored_map is None:
            return replace(self, embeddings=embeddings)
        if dtype is None:
            scale = None if self.map_scale is None else self.map_scale.to(device)
            return replace(self, stored_map=self.stored_map.to(device), map_scale=scale, embeddings=embeddings)
        return CaseFeatures(
            map=as_values(self.stored_map, self.map_scale, device, dtype),
            embeddings=embeddings,
            native_grid=self.native_grid,
            encoder_grid=self.encoder_grid,
            feature_grid=self.feature_grid,
            padding=self.padding,
        )


AnyFeatures = CaseFeatures | StoredFeatures


@dataclass(frozen=True)
class EncodedCase:
    """What a probe sees of a case.

    Attributes:
        name: Case in the split file.
        patient: Patient in the split file.
        features: Its features; the map may be memory-mapped.
        target: Labels (D, H, W) on the scan's own grid, or class targets (K,).
        labels: Labels on the encoder's grid; None in classification.
        features_key: Key of the stored features; None where nothing is stored.
        labels_key: Key of the stored labels; None where there are none, or nothing is stored.
        notes: What a user should know of how its scan was read.
    """

    name: str
    patient: str
    features: AnyFeatures
    target: torch.Tensor
    labels: torch.Tensor | None
    features_key: str | None = None
    labels_key: str | None = None
    notes: tuple[str, ...] = ()

    def to(
        self,
        device: torch.device,
        seen: Sequence[Seen] = get_args(Seen),
        dtype: torch.dtype | None = torch.float32,
    ) -> "EncodedCase":
        """Returns the case on a device.

        Args:
            device: The device.
            seen: The features that are needed there; others stay where they are.
            dtype: What those become; None leaves them as they are stored, on a CPU mapped from disk.
        """
        if isinstance(self.features, StoredFeatures):
            features = self.features.to(device, seen, dtype)
        else:
            moved = {name: getattr(self.features, name).to(device=device, dtype=dtype) for name in seen}
            features = replace(self.features, **moved)
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, features=features, target=self.target.to(device), labels=labels)
