"""Stored features as kaiko-eva's embedding data sets read them; nothing is encoded."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tapct._utils import terminal
from tapct.errors import FeatureError, nearest
from tapct.features import EncodedCase, FeatureBank
from tapct.features.channels import scan_patches
from tapct.features.outside import OutputName, over_image, said_of
from tapct.packs.eva_layout import EvaLayout
from tapct.source_code import sources_sha256
from tapct.tasks import ClassificationDataset, CTDataset, TaskData

What = Literal["map"] | OutputName
"""What is exported of a case: "map", the feature map with the labels, else what `OutputName` says."""


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        cases: Cases in the manifest.
        written: Files that were not there yet.
    """

    cases: int
    written: int


def export(
    bank: FeatureBank, data: TaskData, folder: Path, *, what: What | None, label: str | None, replace: bool
) -> Export:
    """Writes the stored features of a task's cases for eva. What is there already is not written again.

    Cases that do not state the label are left out: eva's data sets have no missing class.

    Args:
        bank: Whose store has them.
        data: The task; all its files are there.
        folder: Where to write.
        what: None for the map in segmentation, else the embedding.
        label: The class that is the target; needed where a task has several labels a case.
        replace: Whether a manifest of other features may be replaced.

    Raises:
        FeatureError: If features are missing, the task does not have what is asked for, or writing fails.
        TaskError: If a case cannot be used.
    """
    what = _checked(data, what)
    index = None if what == "map" else _label_index(data, label)
    data.setup("fit")  # reads what was not found valid before
    bank.fill(data.parts)
    layout = EvaLayout(folder, replace=replace, more=("patient",))
    every = [(part, at) for part in data.parts for at in range(len(part)) if _is_stated(part, at, index)]
    planned = [_Planned.of(bank, part, at, what, index) for part, at in every]
    for one in planned:
        name, patient = one.part.cases[one.at], one.part.patient(one.part.cases[one.at])
        layout.add(name, f"{one.file}.pt", one.target, one.part.split, f"{one.part.split}/{name}", patient)
    layout.require_free()
    for one in terminal.track(planned, "exporting", total=len(planned)):
        if not all(map(layout.has, one.files)):
            case = bank.case(one.part, one.at)
            layout.save(one.file, _content(case, what))
            if one.mask is not None:
                layout.save(one.mask, case.target[None])
    layout.finish()
    return Export(len(planned), layout.written)


@dataclass(frozen=True)
class _Planned:
    """A case to export, under names that say what is in its files: one that is there need not be written again."""

    part: CTDataset
    at: int
    file: str
    mask: str | None
    target: str | int

    @classmethod
    def of(cls, bank: FeatureBank, part: CTDataset, at: int, what: What, label: int | None) -> "_Planned":
        case, (features, labels) = part.cases[at], bank.keys(part, at)
        code = sources_sha256(over_image.__module__, scan_patches.__module__)
        file = f"{part.split}/{case}-{_short([features, what, code])}"
        if label is None:
            mask = f"{part.split}/{case}-mask-{_short(labels)}"
            return cls(part, at, file, mask, f"{mask}.pt")
        assert isinstance(part, ClassificationDataset)
        return cls(part, at, file, None, int(part.target(case)[label]))

    @property
    def files(self) -> list[str]:
        return [self.file, *([] if self.mask is None else [self.mask])]


def _is_stated(part: CTDataset, at: int, label: int | None) -> bool:
    """Returns whether a case has the class that is exported; a mask it always has."""
    if label is None:
        return True
    assert isinstance(part, ClassificationDataset)
    return not bool(part.target(part.cases[at])[label].isnan())


def _checked(data: TaskData, what: What | None) -> What:
    dense = data.spec.of_kind.dense
    if not dense and data.spec.kind != "classification":
        raise FeatureError(f"{data.spec.name} is a task of {data.spec.kind}, and eva's data sets hold masks or a class")
    if what is None:
        return "map" if dense else "embedding"
    if (what == "map") != dense:
        raise FeatureError(
            f"{data.spec.name} is a task of {data.spec.kind}: its cases have "
            + ("a mask and no class, so only --what map can be exported" if dense else "no mask; leave --what map out")
        )
    return what


def _label_index(data: TaskData, label: str | None) -> int:
    classes = list(data.spec.classes)
    if label is None and len(classes) > 1:
        raise FeatureError(
            f"eva's embedding data sets hold one label a case, and {data.spec.name} has {len(classes)}: "
            f"{', '.join(classes)}. Choose one with --label, or train on all with tapct.probes.ClassificationProbe"
        )
    if label is not None and label not in classes:
        raise FeatureError(f"{data.spec.name} has no label '{label}'. {nearest(label, classes)}")
    return 0 if label is None else classes.index(label)


def _content(case: EncodedCase, what: What) -> torch.Tensor | list[torch.Tensor]:
    if what != "map":
        return said_of(case.features, what)
    features = case.features
    return [over_image(features.map.float(), features.feature_grid, features.native_grid)]


def _short(of: object) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
