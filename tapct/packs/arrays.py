"""Stored features of a task in Python, as arrays: `tapct.load_features`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch

from tapct.errors import FeatureError, nearest
from tapct.features import CacheMode, EncodedCase, FeatureBank
from tapct.packs.commands import stored_run
from tapct.tasks.splits import SPLITS
from tapct.volumes import Grid

if TYPE_CHECKING:
    from tapct.tasks import TaskData


def load_features(
    encoder: str,
    task: str,
    data_root: str | Path | None = None,
    *,
    split: Literal["train", "val", "test"] | None = None,
    weights: str | Path | None = None,
    extract: bool = False,
    maps: bool = True,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    config: str | Path | None = None,
    folder: str | Path | None = None,
    **settings: Any,
) -> "TaskFeatures":
    """Returns the stored features of an encoder on a task, as a run of it left them (`tapct.evaluate`, `eva fit`).

    The scans must be there: they say which features are theirs. They are read once, to see that they are valid.

    Args:
        encoder: Name of the encoder, with options and `@random` behind it: "tap-b-3d+in_plane_size=512".
        task: Name of the task.
        data_root: Folder that holds one folder per task; by default the variable DATA_ROOT.
        split: Only cases of this split; None is all of them. Of a cross-validated task, which has each case in several,
            those that are reported are all.
        weights: A path, "random", or None: the variable ENCODER_WEIGHTS, else the published file.
        extract: Whether cases whose features are not stored are encoded now; else they are an error.
        maps: Whether feature maps are needed; without, embeddings that are stored alone are enough.
        accelerator: Where the run was, which decides the precision of its features.
        config: YAML config of the run; by default that of the task.
        folder: The store; by default the variable TAPCT_FEATURES, else `features/` of the cache folder.
        settings: Of the run, that decide which features it stored, by the names that the config has: feature_dtype,
            precision, window_overlap, fit_windows; split_file, options, accept_orientation, num_workers.

    Raises:
        FeatureError: If features are not there, or a name is unknown.
        TaskError: If the task or a case cannot be used.
    """
    if split not in (None, *SPLITS):
        raise FeatureError(f"there is no split '{split}'. {nearest(str(split), SPLITS)}")
    paths = [None if path is None else str(path) for path in (weights, data_root, config, folder)]
    named_weights, root, run, store = paths
    bank, data = stored_run(encoder, task, named_weights, root, run, accelerator, store, settings)
    bank.mode, bank.with_maps = CacheMode.USE if extract else CacheMode.ONLY_CACHED, maps
    data.setup("fit")  # reads what was not found valid before
    parts = [data.datasets.test] if data.folds is not None else data.parts
    chosen = [part for part in parts if split in (None, part.split)]
    if chosen:
        bank.fill(chosen)
    return TaskFeatures(bank, data, [StoredCase(bank, part, index) for part in chosen for index in range(len(part))])


class StoredCase:
    """The stored features of a case; each array is read as it is asked for, and not kept.

    Attributes:
        case: Its name in the split.
        patient: The patient, likewise.
        split: "train", "val" or "test".
    """

    def __init__(self, bank: FeatureBank, part: Any, index: int) -> None:
        """Initializes the case; see `load_features`."""
        self._bank, self._part, self._index = bank, part, index
        self.case: str = part.cases[index]
        self.patient: str = part.patient(self.case)
        self.split: str = part.split

    def __repr__(self) -> str:
        return f"StoredCase({self.case!r}, patient={self.patient!r}, split={self.split!r})"

    @property
    def map(self) -> np.ndarray:
        """(C, d, h, w) features of the patches: memory-mapped where they are stored as fp16 or fp32, else float32.

        Axes are (z, y, x), growing towards superior, posterior and left.

        Raises:
            FeatureError: If it is not stored, or was not asked for.
        """
        return _as_array(self._encoded.features.map)

    @property
    def embeddings(self) -> np.ndarray:
        """(N, E) embeddings of the windows, in the order in which they tile the scan: z, then y, then x."""
        return _as_array(self._encoded.features.embeddings)

    @property
    def grid(self) -> Grid:
        """The patches of `map`: `grid.affine` takes an index (z, y, x, 1) to world millimetres (RAS+)."""
        return self._encoded.features.feature_grid

    @property
    def scan_grid(self) -> Grid:
        """The voxels of the scan on disk, likewise."""
        return self._encoded.features.native_grid

    @property
    def positions_mm(self) -> np.ndarray:
        """(d, h, w, 3) float32: where the centres of the patches lie in the patient, world millimetres (x, y, z; RAS+).

        Patches reach into the padding where a scan was no whole number of windows: compare with `scan_grid`.
        """
        rotation, origin = self.grid.affine[:3, :3], self.grid.affine[:3, 3]
        return (np.moveaxis(np.indices(self.grid.shape), 0, -1) @ rotation.T + origin).astype(np.float32)

    @property
    def target(self) -> np.ndarray:
        """What is predicted: of a dense task the (D, H, W) labels on the scan's own grid, else what it holds of a case.

        Of classification (K,) of 0, 1 and NaN, which is not stated.
        """
        return _as_array(self._encoded.target)

    @property
    def labels(self) -> np.ndarray | None:
        """Of a dense task, the labels on the grid on which the encoder saw the scan; else None."""
        found = self._encoded.labels
        return None if found is None else _as_array(found)

    @cached_property
    def _encoded(self) -> EncodedCase:
        return self._bank.case(self._part, self._index)


class TaskFeatures(Sequence[StoredCase]):
    """The stored features of a task's cases, by index or by name.

    Attributes:
        task: Name of the task.
        encoder: The encoder, as experiments are called.
        classes: Names of the classes, background first in segmentation.
    """

    def __init__(self, bank: FeatureBank, data: "TaskData", cases: Sequence[StoredCase]) -> None:
        """Initializes the features; see `load_features`."""
        self._bank, self._cases = bank, tuple(cases)
        self._by_name = {case.case: case for case in reversed(self._cases)}
        self.task, self.classes, self.encoder = data.spec.name, data.spec.classes, bank.encoder.full_name

    @overload
    def __getitem__(self, which: int | str) -> StoredCase: ...
    @overload
    def __getitem__(self, which: slice) -> "tuple[StoredCase, ...]": ...
    def __getitem__(self, which: int | str | slice) -> "StoredCase | tuple[StoredCase, ...]":
        """Returns a case, or some.

        Raises:
            KeyError: If there is no case of a name.
        """
        if not isinstance(which, str):
            return self._cases[which]
        if which not in self._by_name:
            raise KeyError(f"{self.task} has no case '{which}' here. {nearest(which, self._by_name)}")
        return self._by_name[which]

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[StoredCase]:
        return iter(self._cases)

    def __repr__(self) -> str:
        return f"TaskFeatures({self.encoder} on {self.task}, {len(self)} cases)"

    @property
    def cases(self) -> list[str]:
        """Names of the cases."""
        return [case.case for case in self]

    @property
    def patients(self) -> list[str]:
        """Of each case its patient: whatever is split or resampled goes by them."""
        return [case.patient for case in self]

    @property
    def splits(self) -> list[str]:
        """Of each case its split."""
        return [case.split for case in self]

    def vectors(self, pooling: Literal["cls", "mean", "max", "mean+max", "mask"] | None = None) -> np.ndarray:
        """Returns the cases as (N, P) float64, one vector each, as the probes see them.

        Args:
            pooling: How features become one vector: the mean of the windows' class tokens ("cls"), a mean or maximum
                over the scan's patches, or the mean over the task's mask; None is the encoder's own choice.

        Raises:
            FeatureError: If there is no such pooling, or features are missing.
            TaskError: If the task has no masks.
        """
        from tapct.probes.vectors import pooling_of, stored_vectors  # eva, for which a map is no reason

        how = pooling_of(self._bank.encoder.card, pooling)
        return stored_vectors(self._bank, [(case._part, case._index) for case in self], how)


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    """Returns a tensor as NumPy has it, without a copy where it has its type."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
