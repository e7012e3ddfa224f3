"""What came out for one case."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tapct.kinds import Cases, Kind
from tapct.records.reading import first_fault
from tapct.records.types import (
    CaseName,
    Count,
    Finite,
    Frozen,
    Index,
    Millimetres,
    Name,
    Sha256,
    Share,
    Target,
    Text,
    optional,
)

Protocol = Literal["native", "paper"]
"""`native`: on the scan's own grid, against untouched labels. `paper`: on the encoder's grid."""

ClassMetric = Literal["dice_native", "dice_paper", "nsd_native", "hd95_mm_native"]
"""The numbers that a case has of each class, by the name of their mean in a run's `metrics`."""

OutcomeValue = Finite | tuple[Finite, ...] | None

_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[Name])


class CaseIdentity(Frozen):
    """A case.

    Attributes:
        case: Its name in the split file.
        patient: Name of the patient.
    """

    case: CaseName
    patient: Name


class ReportText(Frozen):
    """Which text was given for a scan, by its hash: the text of a report stays where it is.

    Attributes:
        sha256: Of the text.
        reference_sha256: Of the reference.
        of: The training case whose report it is; None of one that was written anew.
    """

    sha256: Sha256
    reference_sha256: Sha256
    of: CaseName | None = optional()


class CaseResult(CaseIdentity):
    """What came out for one case.

    Attributes:
        loss: Loss of the probe on the case.
        dice: Per protocol, Dice of each class without background; None where it is undefined. Imported predictions have
            no encoder, and so no protocol `paper`.
        nsd: Normalised surface Dice of each class, on the native grid, at the probe's `nsd_tolerance_mm`.
        hd95_mm: 95th percentile of the Hausdorff distance of each class, on the native grid; None as well
            where the class is in only one of prediction and reference.
        probabilities: Per class, the predicted probability (classification): the sigmoid of the logit, in float64.
        target: Per class, the reference (classification); None where it is not stated.
        padding_voxels: Voxels of air (z, y, x) added because the scan was not a whole number of windows.
        logits: Per class, the float32 output of the head (classification), which JSON's numbers hold as it is.
        voxels: Voxels of the scan (segmentation).
        reference_voxels: Per class without background, its voxels in the reference, on the native grid.
        notes: What a user should know of how the scan was read, one sentence each.
        outcome: By field of the task's kind (`tapct.kinds`) and class, numbers or lists of them; segmentation and
            classification have the keys above instead.
        report: Of reports, which text was given.
    """

    loss: Finite
    dice: dict[Protocol, dict[str, Share | None]] | None = None
    nsd: dict[str, Share | None] | None = None
    hd95_mm: dict[str, Millimetres | None] | None = None
    probabilities: dict[str, Share] | None = None
    target: dict[str, Target | None] | None = None
    padding_voxels: tuple[Index, Index, Index]
    logits: dict[str, Finite] | None = optional()
    voxels: Count | None = optional()
    reference_voxels: dict[str, Count] | None = optional()
    notes: tuple[Text, ...] = Field(default=(), exclude_if=lambda notes: not notes)
    outcome: dict[str, dict[str, OutcomeValue]] | None = optional()
    report: ReportText | None = optional()

    @model_validator(mode="after")
    def _check(self) -> "CaseResult":
        if self.logits is not None and list(self.logits) != list(self.probabilities or {}):
            raise ValueError(f"{self.case}: logits and probabilities must be of the same labels, in one order")
        if self.dice is not None and "native" not in self.dice:
            raise ValueError(f"{self.case}: Dice must be there of the protocol native")
        if self.dice is not None and len({tuple(sorted(row)) for row in self.dice.values()}) > 1:
            raise ValueError(f"{self.case}: Dice of the protocols native and paper must be of the same classes")
        return self

    @property
    def classes(self) -> dict[str, list[str]]:
        """The classes or labels, in order, of each number that it has by class."""
        of: dict[str, Any] = {f"dice.{protocol}": row for protocol, row in (self.dice or {}).items()}
        names = ("nsd", "hd95_mm", "probabilities", "target", "logits", "reference_voxels")
        rows = {**of, **{name: getattr(self, name) for name in names}}
        rows |= self.outcome or {}
        return {name: list(row) for name, row in rows.items() if row is not None}

    @property
    def by_field(self) -> dict[str, dict[str, Any]]:
        """By column of `cases.parquet`, what it has of each class."""
        rows: dict[str, Any] = {metric: self.by_class(metric) for metric in get_args(ClassMetric)}
        rows |= {"logit": self.logits, "probability": self.probabilities, "target": self.target}
        rows |= {"reference_voxels": self.reference_voxels, **(self.outcome or {})}
        return {name: row for name, row in rows.items() if row is not None}

    @property
    def scores(self) -> dict[str, float] | None:
        """Per class, what cases are ranked by: logits; of records that keep none, probabilities."""
        return self.probabilities if self.logits is None else self.logits

    def by_class(self, metric: ClassMetric) -> dict[str, float | None] | None:
        """Returns a metric of each class without background; None where the case has no such metric."""
        surface = {"nsd_native": self.nsd, "hd95_mm_native": self.hd95_mm}
        if metric in surface:
            return surface[metric]
        return None if self.dice is None else self.dice.get("native" if metric == "dice_native" else "paper")


def as_cases(kind: Kind, results: Sequence[CaseResult]) -> Cases:
    """Returns the cases of a run as arrays, with the fields of a kind that all of them have.

    Where records keep no logits (those of an older protocol), probabilities take their place.
    """
    rows = [case.by_field for case in results]
    rows = [{**({"logit": row["probability"]} if "probability" in row else {}), **row} for row in rows]
    values: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    for field in kind.fields:
        of_field = [row.get(field.name) for row in rows]
        found = [list(of_case.values()) for of_case in of_field if of_case is not None]
        if not found or len(found) < len(results):
            continue
        classes = tuple(of_field[0] or ())
        values[field.name] = ragged(found) if field.many else np.array(found, dtype=np.float64)
    return Cases(
        names=tuple(case.case for case in results),
        patients=tuple(case.patient for case in results),
        classes=classes,
        values=values,
    )


def ragged(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """Returns (C, K) objects, each (n,) float64, of the lists of C cases in K classes."""
    made = np.empty((len(rows), len(rows[0])), dtype=object)
    for place in np.ndindex(*made.shape):
        made[place] = np.array(rows[place[0]][place[1]], dtype=np.float64)
    return made


def check_cases(split: str, cases: list[CaseResult]) -> None:
    """Refuses a split without cases, with one twice, or with cases of other classes than the first."""
    if not cases:
        raise ValueError(f"there are no cases of '{split}'")
    if len({case.case for case in cases}) < len(cases):
        names = [case.case for case in cases]
        raise ValueError(f"the case {next(n for n in names if names.count(n) > 1)} is there twice in '{split}'")
    first = cases[0].classes
    try:
        _NAMES.validate_python(list({name: None for row in first.values() for name in row}))
    except ValidationError as error:
        raise ValueError(f"{cases[0].case}: the name of a class: {first_fault(error)}") from error
    for case in cases:
        found = case.classes
        if odd := next((name for name in {**first, **found} if found.get(name) != first.get(name)), None):
            what = "of other classes, or in another order" if odd in first and odd in found else "in only one of them"
            raise ValueError(f"{cases[0].case} and {case.case} have {odd} {what}")
