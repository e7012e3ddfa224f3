"""Predicted label maps: read on the scan's own grid, and scored as the segmentation probe scores its own."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tapct import names
from tapct.errors import RecordError, TaskError
from tapct.metrics import confusion_matrix, dice_per_class, surface_metrics
from tapct.names import listed
from tapct.records import CaseResult
from tapct.tasks.segmentation import SegmentationDataset
from tapct.volumes import LabelMap, Volume, read_labels

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd")

Ids = Mapping[int, int]
"""Number in the files to the place of a class in the task."""


def ids_by_class(path: Path, classes: Sequence[str]) -> Ids:
    """Returns what the numbers of label maps are, from a file such as nnU-Net's `dataset.json`.

    Args:
        path: JSON with `labels`: name of a class to its number, or to its numbers.
        classes: The classes of the task, background first.

    Raises:
        RecordError: If it cannot be read, its classes are not the task's, or two have one number.
    """
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        pairs = [(name, int(one)) for name, of in labels.items() for one in (of if isinstance(of, list) else [of])]
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(
            f'{path} does not say what labels are: it must be JSON such as {{"labels": {{"background": 0, ...}}}} '
            f"({type(error).__name__}: {error})"
        ) from error
    if unlike := sorted(set(labels) ^ set(classes)):
        raise RecordError(
            f"the labels of {path} and the classes of the task differ in {listed(unlike)}. Rename those of the file to "
            f"the task's: {', '.join(classes)}"
        )
    ids = {one: classes.index(name) for name, one in pairs}
    if len(ids) < len(pairs) or ids.get(0) != 0:
        raise RecordError(f"{path} gives one number to two labels, or 0 to another than {classes[0]}")
    return ids


def find(folder: Path, cases: Sequence[str]) -> dict[str, Path]:
    """Returns the label map of each case, `FOLDER/CASE.nii.gz` or with another suffix of `SUFFIXES`.

    Raises:
        RecordError: If one is missing, or there are two of one case.
    """
    try:
        found = {case: [p for s in SUFFIXES if (p := names.file_in(folder, case, s)).is_file()] for case in cases}
    except ValueError as error:
        raise RecordError(str(error)) from error
    if missing := [case for case, paths in found.items() if not paths]:
        raise RecordError(
            f"{folder} lacks the predictions of {len(missing)} of {len(cases)} reported cases: {listed(missing)}. Each "
            f"must lie there as CASE{SUFFIXES[0]}; a case without a prediction cannot be left out of a score"
        )
    if twice := [paths for paths in found.values() if len(paths) > 1]:
        raise RecordError(f"{twice[0][0]} and {twice[0][1].name} are of one case: remove one of them")
    return {case: paths[0] for case, paths in found.items()}


class LabelMaps:
    """Label maps of one run, scored case by case."""

    def __init__(self, part: SegmentationDataset, folder: Path, ids: Ids | None, nsd_tolerance_mm: float) -> None:
        """Finds the files.

        Args:
            part: The reported cases.
            folder: Holds a label map of each.
            ids: What their numbers are; None where they are the task's own.
            nsd_tolerance_mm: Distance at which surfaces still agree.

        Raises:
            RecordError: As `find`.
        """
        self.part, self.ids, self.nsd_tolerance_mm = part, ids, nsd_tolerance_mm
        self.paths = find(folder, part.cases)
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the label maps that were scored so far, of names and voxels."""
        return self._digest.hexdigest()

    def result(self, case: str) -> CaseResult:
        """Returns what came out for a case.

        Raises:
            TapctError: If its files cannot be read, or the prediction lies on another grid or has other labels.
        """
        ct, target = self.part.read(case)
        predicted = self._predicted(case, ct)
        self._digest.update(f"{case}:{predicted.shape}:".encode() + predicted.tobytes())
        number, prediction = len(self.part.classes), torch.from_numpy(predicted)
        confusion = confusion_matrix(prediction, target, number)
        surfaces = surface_metrics(prediction, target, number, ct.affine, self.nsd_tolerance_mm)
        reference = confusion.sum(dim=1).tolist()
        dice = self._by_class(dice_per_class(confusion.cpu().numpy()))
        defined = [one for one in dice.values() if one is not None]
        return CaseResult(
            case=case,
            patient=self.part.patient(case),
            loss=1 - math.fsum(defined) / len(defined) if defined else 0.0,
            dice={"native": dice},  # no encoder, hence no grid of its own
            nsd=self._by_class(surfaces.nsd),
            hd95_mm=self._by_class(surfaces.hd95_mm),
            padding_voxels=(0, 0, 0),
            notes=ct.notes,
            voxels=sum(reference),
            reference_voxels=dict(zip(self.part.classes[1:], reference[1:], strict=True)),
        )

    def _predicted(self, case: str, ct: Volume) -> np.ndarray:
        found = read_labels(self.paths[case], reference=ct)
        values = np.unique(found.labels)
        known = range(len(self.part.classes)) if self.ids is None else self.ids
        if unknown := [int(value) for value in values if int(value) not in known]:
            raise TaskError(
                f"{found.source} holds the labels {listed(unknown)}, and "
                + (f"the task has 0 to {len(known) - 1}" if self.ids is None else "the file of labels has none of them")
                + ". Name what they are with --labels, a file such as nnU-Net's dataset.json"
            )
        return found.labels if self.ids is None else _mapped(found, self.ids)

    def _by_class(self, values: np.ndarray) -> dict[str, float | None]:
        pairs = zip(self.part.classes[1:], values[1:], strict=True)
        return {name: None if math.isnan(value) else float(value) for name, value in pairs}

    def describe(self) -> dict[str, Any]:
        """Returns what the record holds of how they were scored."""
        return {"nsd_tolerance_mm": self.nsd_tolerance_mm}


def _mapped(found: LabelMap, ids: Ids) -> np.ndarray:
    lookup = np.zeros(max(ids) + 1, dtype=np.uint16 if max(ids.values()) > 255 else np.uint8)
    lookup[list(ids)] = list(ids.values())
    return lookup[found.labels]
