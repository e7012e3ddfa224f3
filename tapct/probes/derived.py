"""What is computed of one case's features and stored next to them: its vector, its merged patches, its reference."""

from collections.abc import Callable
from typing import Any

import torch

from tapct.encoders import Encoder
from tapct.encoders.regions import RegionEncoder
from tapct.errors import FeatureError
from tapct.features import CaseFeatures, EncodedCase, FeatureBank, StoredFeatures
from tapct.features.channels import Channels, scan_patches
from tapct.features.keys import KeyedCase
from tapct.metrics import confusion_matrix
from tapct.probes.adaptors import Pooling, pooled
from tapct.probes.dense import predict_labels
from tapct.probes.merged_patches import Merging, merged
from tapct.probes.patch_size import patch_size_confusion
from tapct.probes.patches import class_shares, mask_shares

PATCH_MODULES = (merged.__module__, Channels.__module__)
"""Whose code merges patches."""

_PATCHES_AS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "int8": torch.bfloat16}
"""What merged patches are stored as, by the dtype of features: means of steps are none."""

VECTOR_MODULES = (pooled.__module__, Channels.__module__, mask_shares.__module__)
"""Whose code makes a vector of features; that of masks themselves is in the task's reading."""

REFERENCE_MODULES = tuple(
    one.__module__ for one in (patch_size_confusion, class_shares, predict_labels, confusion_matrix)
)
"""Whose code makes the patch-size reference."""


class Derived:
    """What is derived of the features of cases; computed each time where nothing is stored.

    A map is read only if something must be computed of it.
    """

    def __init__(self, encoder: Encoder, bank: FeatureBank | None) -> None:
        """Initializes it.

        Args:
            encoder: Whose features they are.
            bank: Where they are stored; None where nothing is.
        """
        self._encoder, self._bank = encoder, bank

    # -- Vectors ---------------------------------------------------------------------------------------

    def vector(self, part: Any, case: EncodedCase, how: Pooling) -> torch.Tensor:
        """Returns the features of a case as one vector, (P,) float64.

        Args:
            part: The dataset that it is of.
            case: The case.
            how: How features are pooled.

        Raises:
            TapctError: If they are pooled over a mask that cannot be read or is empty.
        """
        bank = self._bank
        if bank is None or case.features_key is None or how in ("cls", "none"):
            return self._vector(part, case.name, case.features_key, lambda: case.features, how)
        return self._vector(part, case.name, case.features_key, lambda: bank.whole(part, case.name), how)

    def stored_vector(self, part: Any, index: int, how: Pooling) -> torch.Tensor:
        """Returns the same of a stored case by its index, whose features are read only if that is needed."""
        bank, name = self._bank, part.cases[index]
        assert bank is not None
        key, _ = bank.keys(part, index)

        def features() -> CaseFeatures | StoredFeatures:
            return bank.case(part, index).features if how in ("cls", "none") else bank.whole(part, name)

        return self._vector(part, name, key, features, how)

    def lacks_vector(self, how: Pooling) -> Callable[[KeyedCase], bool]:
        """Returns what says of a case whether its map is needed: its vector is of the map, and is not stored.

        Args:
            how: How features are pooled.
        """

        def lacks(keyed: KeyedCase) -> bool:
            if self._bank is None or how in ("cls", "none"):
                return False
            of = self._vector_of(keyed.dataset, keyed.case, keyed.features_key, how)
            return not self._bank.has_derived(of, VECTOR_MODULES)

        return lacks

    def _vector(
        self,
        part: Any,
        name: str,
        key: str | None,
        features: Callable[[], CaseFeatures | StoredFeatures],
        how: Pooling,
    ) -> torch.Tensor:
        """Returns the vector of a case whose features have this key, and are read only if that is needed."""

        def compute() -> torch.Tensor:
            if how == "mask" and isinstance(self._encoder, RegionEncoder):
                scan, _ = part.read(name)
                return self._encoder.of_mask(torch.from_numpy(scan.hu), scan.grid, part.mask(name, scan.grid))
            found = features()
            mask = part.mask(name, found.native_grid) if how == "mask" else None
            return pooled(found, how, mask)

        bank = self._bank
        if bank is None or key is None or how == "none":
            return compute()
        of = self._vector_of(part, name, key, how)

        def to_store() -> dict[str, torch.Tensor]:
            vector = compute()
            if self._vector_of(part, name, key, how) != of:
                raise FeatureError(f"{name}: its mask changed while it was read. Nothing was stored of it; run again")
            return {"vector": vector}

        return bank.derived(name, of, VECTOR_MODULES, to_store)["vector"]

    def _vector_of(self, part: Any, name: str, key: str, how: Pooling) -> dict[str, Any]:
        """Returns what decides the vector of a case next to code."""
        assert self._bank is not None
        mask = [*part.mask_cache_key(name), self._bank.content_of(part.mask_paths(name))] if how == "mask" else []
        return {"what": "pooled", "how": how, "features": key, "mask": mask}

    # -- Merged patches ----------------------------------------------------------------------------------

    def merged_patches(self, part: Any, case: EncodedCase, most: int) -> Channels:
        """Returns the (C, d, h, w) merged patches of a case; see `tapct.probes.merged_patches`.

        Args:
            part: The dataset that it is of.
            case: The case.
            most: How many there may be.
        """
        bank, block = self._bank, Merging.of(case.features, most).block
        if bank is None or case.features_key is None:
            return Channels(merged(scan_patches(case.features), block))

        def compute() -> dict[str, torch.Tensor]:
            found = merged(scan_patches(bank.whole(part, case.name)), block)
            return {"cells": found.to(_PATCHES_AS[bank.dtype])}

        return Channels(bank.derived(case.name, _patches_of(case.features_key, most), PATCH_MODULES, compute)["cells"])

    def lacks_patches(self, most: int) -> Callable[[KeyedCase], bool]:
        """Returns what says of a case whether its map is needed: its merged patches are not stored.

        Args:
            most: How many there may be.
        """
        bank = self._bank
        return lambda keyed: bank is None or not bank.has_derived(_patches_of(keyed.features_key, most), PATCH_MODULES)

    # -- The patch-size reference -----------------------------------------------------------------------

    def patch_size_confusion(self, case: EncodedCase, num_classes: int) -> torch.Tensor:
        """Returns the (K, K) counts of the patch-size reference of a case; see `tapct.probes.patch_size`."""

        def compute() -> dict[str, torch.Tensor]:
            grids = (case.features.native_grid, case.features.feature_grid)
            return {"confusion": patch_size_confusion(case.target, *grids, num_classes)}

        if self._bank is None or case.labels_key is None:
            return compute()["confusion"]
        patches = case.features.feature_grid
        parts = {
            "what": "patch-size reference",
            "labels": case.labels_key,
            "cells": [list(patches.shape), patches.affine.tolist()],
            "classes": num_classes,
        }
        return self._bank.derived(case.name, parts, REFERENCE_MODULES, compute)["confusion"]


def _patches_of(key: str, most: int) -> dict[str, Any]:
    """Returns what decides the merged patches of a case next to code."""
    return {"what": "merged patches", "most": most, "features": key}
