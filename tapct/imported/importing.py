"""Predictions of a model that was trained elsewhere, as a record: same cases, metrics and checks as ours."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tapct import flags, kinds
from tapct._utils import terminal
from tapct.errors import RecordError
from tapct.imported.label_maps import LabelMaps, ids_by_class
from tapct.imported.probabilities import Probabilities
from tapct.names import path_fault
from tapct.probes.recording import task_record
from tapct.records import (
    CaseResult,
    EncoderRecord,
    Execution,
    ImportedRecord,
    ProbeRecord,
    Record,
    RunRecord,
    environment,
    write_record,
)
from tapct.records.case import as_cases
from tapct.records.encoder import NONE, CardRecord, WeightsRecord
from tapct.tasks import TaskData
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.segmentation import SegmentationDataset

_SPLIT = "test"


def import_predictions(
    task: str,
    predictions: Sequence[Path],
    name: str,
    results: Path,
    *,
    data_root: str | None = None,
    labels: Path | None = None,
    about: str | None = None,
    trained_on: str | None = None,
    nsd_tolerance_mm: float = 2.0,
    **settings: Any,
) -> Path:
    """Scores predictions of the reported cases of a task, and writes their record.

    Args:
        task: Name of the task.
        predictions: Of each run, a folder of label maps (segmentation) or a CSV of probabilities (classification).
        name: What the model is called.
        results: The results folder; the record goes into RESULTS/TASK/imported-NAME.
        data_root: As of `TaskData`.
        labels: What the numbers of label maps are (nnU-Net's `dataset.json`); None where they are the task's own.
        about: What the model is and how it was trained.
        trained_on: The cases that trained it.
        nsd_tolerance_mm: Distance at which surfaces still agree.
        settings: Further settings of `TaskData`: `split_file`, `options`, `accept_orientation`.

    Returns:
        The path of the record.

    Raises:
        TapctError: If the task cannot be scored so, a file cannot be used, or there is a record already.
    """
    folder = results / task / f"imported-{name}"
    if (wrong := path_fault(f"imported-{name}") or ("holds a /" if "/" in name else None)) is not None:
        raise RecordError(f"the name {name!r} cannot be part of a folder's: it {wrong}")
    if folder.exists():
        raise RecordError(f"{folder} is there already. Remove it, or give the model another --name")
    data = TaskData(task, data_root, **settings)
    part = next(one for one in data.parts if one.split == _SPLIT)
    data.setup(_SPLIT)
    if data.folds is not None:
        raise RecordError(f"{task} is cross-validated: predictions of its folds cannot be imported")
    runs = [_scorer(part, one, labels, nsd_tolerance_mm) for one in predictions]
    results_by_run = [[of.result(case) for case in terminal.track(part.cases, task, len(part))] for of in runs]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = Record(
        notice=data.notice,
        encoder=_model(name, len(part.classes)),
        task=task_record(data),
        probe=ProbeRecord(classes=tuple(part.classes), **runs[0].describe()),
        runs_planned=len(runs),
        runs=[_run(place, runs[place].sha256, part.spec.kind, of) for place, of in enumerate(results_by_run)],
        imported=ImportedRecord(
            predictions="label maps" if isinstance(runs[0], LabelMaps) else "probabilities",
            about=about,
            trained_on=trained_on,
        ),
        execution=Execution(written_at=now, **environment(torch.device("cpu"))),
    )
    return write_record(flags.with_own_checks(record), folder)


def _scorer(part: Any, path: Path, labels: Path | None, nsd_tolerance_mm: float) -> LabelMaps | Probabilities:
    if isinstance(part, SegmentationDataset):
        if not path.is_dir():
            raise RecordError(f"{path} is not a folder: predictions of {part.spec.name} are label maps, one a case")
        ids = None if labels is None else ids_by_class(labels, part.classes)
        return LabelMaps(part, path, ids, nsd_tolerance_mm)
    if isinstance(part, ClassificationDataset):
        if labels is not None:
            raise RecordError(f"--labels is about label maps, and {part.spec.name} is a task of classification")
        if path.is_dir():
            raise RecordError(f"{path} is a folder: predictions of {part.spec.name} are a CSV of probabilities")
        return Probabilities(part, path)
    raise RecordError(
        f"{part.spec.name} is a task of {part.spec.kind}: predictions are imported of segmentation and classification"
    )


def _run(place: int, sha256: str, kind: str, cases: list[CaseResult]) -> RunRecord:
    of = kinds.kind(kind)
    metrics: Mapping[str, float] = of.numbers(as_cases(of, cases))
    return RunRecord(run=place, seed=place, probe_sha256=sha256, metrics={_SPLIT: dict(metrics)}, cases={_SPLIT: cases})


def _model(name: str, classes: int) -> EncoderRecord:
    """Returns the model as far as a record asks for one: a name; what was predicted of a voxel is its one feature."""
    card = CardRecord(
        name=name,
        display_name=name,
        window_size=(1, 1, 1),
        spacing_mm=None,
        in_plane_size=None,
        pad_hu=0.0,
        feature_stride=(1, 1, 1),
        feature_dim=classes,
        embedding_dim=classes,
        has_cls=False,
        num_params=0,
        weights=WeightsRecord(needed=False),
    )
    return EncoderRecord(card=card, weights=NONE)
