"""The result record: what was run, on what, and what came out, case by case.

One JSON file per cell (encoder x task x protocol settings). Everything that decides the result is outside
`execution`; the same settings and seed give the same `fingerprint`, on whatever day it was run.
"""

import hashlib
import json
import math
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapct.errors import RecordError
from tapct.metrics.dice import Summary, summarise

SCHEMA_VERSION: Literal[1] = 1

Protocol = Literal["native", "paper"]
"""`native`: on the scan's own grid, against untouched labels. `paper`: on the encoder's grid."""

ClassMetric = Literal["dice_native", "dice_paper", "nsd_native", "hd95_mm_native"]
"""The numbers that a case has of each class, by the name of their mean in a run's `metrics`."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CaseResult(_Model):
    """What came out for one case.

    Attributes:
        case: Name of the case in the split file.
        patient: Name of the patient.
        loss: Loss of the probe on the case.
        dice: Per protocol, Dice of each class without background; None where it is undefined.
        nsd: Normalised surface Dice of each class, on the native grid, at the probe's `nsd_tolerance_mm`.
        hd95_mm: 95th percentile of the Hausdorff distance of each class, on the native grid; None as well
            where the class is in only one of prediction and reference.
        probabilities: Per class, the predicted probability (classification).
        target: Per class, the reference (classification).
        padding_voxels: Voxels of air (z, y, x) added because the scan was no whole number of windows.
    """

    case: str
    patient: str
    loss: float
    dice: dict[Protocol, dict[str, float | None]] | None = None
    nsd: dict[str, float | None] | None = None
    hd95_mm: dict[str, float | None] | None = None
    probabilities: dict[str, float] | None = None
    target: dict[str, int] | None = None
    padding_voxels: tuple[int, int, int]

    def by_class(self, metric: ClassMetric) -> dict[str, float | None] | None:
        """Returns a metric of each class without background; None where the case has no such metric."""
        surface = {"nsd_native": self.nsd, "hd95_mm_native": self.hd95_mm}
        if metric in surface:
            return surface[metric]
        return None if self.dice is None else self.dice["native" if metric == "dice_native" else "paper"]


class RunRecord(_Model):
    """One run: one seed, one trained probe.

    Attributes:
        run: Index of the run in its session.
        seed: The session's seed plus the index.
        probe_sha256: Hash of the probe's weights that were evaluated.
        selection: The learning rate and step that they were taken at, and what they were chosen from on the
            selection cases.
        metrics: Split to metric to value, as eva logs them.
        cases: Split to per-case results.
    """

    run: int
    seed: int
    probe_sha256: str
    selection: dict[str, Any] | None = None
    metrics: dict[str, dict[str, float | None]]
    cases: dict[str, list[CaseResult]]


class Record(_Model):
    """One cell: an encoder on a task, over its runs.

    Attributes:
        schema_version: Version of this layout.
        notice: What a reader must know before any number, such as that this is a demonstration.
        encoder: Name, card, weights (source and hash), precision, as built.
        task: Name, version, classes, split file and its hash, number of cases per split.
        probe: Head, loss, optimizer and schedule, as built.
        runs_planned: Runs that the session was to have.
        runs: The runs that ended, in order.
        execution: Versions, device, times: what does not decide the result.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    notice: str | None
    encoder: dict[str, Any]
    task: dict[str, Any]
    probe: dict[str, Any]
    runs_planned: int = Field(ge=1)
    runs: list[RunRecord]
    execution: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> "Record":
        indices = [run.run for run in self.runs]
        if indices != sorted(set(indices)):
            raise ValueError(f"runs are not in order, or one is there twice: {indices}")
        return self

    @property
    def complete(self) -> bool:
        """Whether every planned run has ended."""
        return len(self.runs) == self.runs_planned

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides or is the result; without `execution`."""
        return _fingerprint(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Returns the record as JSON, with its fingerprint and whether it is complete."""
        content = self.model_dump(mode="json")
        return json.dumps({"fingerprint": self.fingerprint, "complete": self.complete, **content}, indent=1)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Record":
        """Reads and validates a record.

        Args:
            text: The JSON.
            where: The file, for the error.

        Raises:
            RecordError: If it is truncated, of another schema, or was changed after it was written.
        """
        try:
            content = json.loads(text)
            if not isinstance(content, dict):
                raise RecordError(f"{where} is no record: it holds a {type(content).__name__}")
            fingerprint = content.pop("fingerprint", None)
            content.pop("complete", None)
            record = cls.model_validate(content)
        except json.JSONDecodeError as error:
            raise RecordError(f"{where} is no record: {error}. It may be truncated; run the cell again") from error
        except ValidationError as error:
            raise RecordError(f"{where} is not a record of schema {SCHEMA_VERSION}: {error}") from error
        # Of what the file holds, not of the model: that of a later release may have fields which the file has not.
        if fingerprint != _fingerprint(content):
            raise RecordError(f"{where} was changed after it was written: its fingerprint does not match")
        return record

    def summaries(self, split: str, metric: ClassMetric) -> list[Summary]:
        """Returns, for each run, the summary of a metric over its cases; empty where the cases have none."""
        found = []
        for run in self.runs:
            rows = [row for case in run.cases.get(split, []) if (row := case.by_class(metric)) is not None]
            if rows:
                values = [[math.nan, *(math.nan if v is None else v for v in row.values())] for row in rows]
                found.append(summarise(np.array(values)))
        return found

    def class_table(self, split: str, metric: ClassMetric) -> dict[str, list[float | None]]:
        """Returns, per class, the mean of a metric over cases for each run; None where no case defines it."""
        cases = (case.by_class(metric) for run in self.runs for case in run.cases.get(split, []))
        names = list(next((row for row in cases if row is not None), {}))
        means = [summary.per_class[1:] for summary in self.summaries(split, metric)]
        return {
            name: [None if math.isnan(mean[index]) else float(mean[index]) for mean in means]
            for index, name in enumerate(names)
        }


def _fingerprint(content: dict[str, Any]) -> str:
    """Returns the hash of a record's JSON content, without `execution`."""
    content = {key: value for key, value in content.items() if key != "execution"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
