"""Predicted probabilities: one row a case, one column a label, scored as the classification probe scores its own."""

import csv
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapct import kinds
from tapct.errors import RecordError
from tapct.metrics.classification import sigmoid
from tapct.names import listed
from tapct.records import CaseResult
from tapct.tasks.classification import ClassificationDataset

CASE = "case"

_CERTAIN = 40.0
"""Logit of a probability of 1: above that of every other float64, of which the nearest to 1 has 36.7."""
_IMPOSSIBLE = -750.0
"""Logit of a probability of 0: below that of every other float64, of which the smallest has -744.4."""


def read(path: Path, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns by case the probability of each label, from a CSV with the columns `case` and the task's labels.

    Raises:
        RecordError: If it cannot be read, a column is missing, unknown or there twice, a case is there twice, or a
            value is not a probability.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            columns = next(rows, [])
            _check_columns(path, columns, classes)
            found: dict[str, dict[str, float]] = {}
            for row in rows:
                if len(row) != len(columns):
                    raise RecordError(f"{path}, line {rows.line_num}: {len(row)} values for {len(columns)} columns")
                values = dict(zip(columns, row, strict=True))
                case = values.pop(CASE)
                if case in found:
                    raise RecordError(f"{path}, line {rows.line_num}: the case {case} is there twice")
                where = f"{path}, line {rows.line_num}, case {case}"
                found[case] = {name: _probability(f"{where}, {name}", values[name]) for name in classes}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path} cannot be read as CSV: {error}") from error
    return found


def _check_columns(path: Path, columns: Sequence[str], classes: Sequence[str]) -> None:
    wanted = [CASE, *classes]
    if sorted(columns) != sorted(wanted):
        odd = listed(sorted(set(columns) ^ set(wanted)) or [name for name in columns if columns.count(name) > 1])
        raise RecordError(f"{path} must have the columns {', '.join(wanted)}, each once; what differs: {odd}")


def _probability(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise RecordError(f"{where}: {text!r} is not a number") from None
    if not 0 <= value <= 1:  # NaN as well
        raise RecordError(f"{where}: {text} is not a probability. Give numbers from 0 to 1, not logits or percent")
    return value


def logit(probability: float) -> float:
    """Returns the logit of a probability, of which cases keep their order; finite at 0 and 1 as well."""
    if probability in (0, 1):
        return _CERTAIN if probability else _IMPOSSIBLE
    return math.log(probability) - math.log1p(-probability)


class Probabilities:
    """Probabilities of one run, scored case by case."""

    def __init__(self, part: ClassificationDataset, path: Path) -> None:
        """Reads the file.

        Args:
            part: The reported cases.
            path: The CSV.

        Raises:
            RecordError: As `read`; or a reported case is missing, or one is of no split of the task.
        """
        self.part = part
        self.by_case = read(path, part.classes)
        if missing := [case for case in part.cases if case not in self.by_case]:
            raise RecordError(
                f"{path} lacks {len(missing)} of {len(part)} reported cases: {listed(missing)}. A case without a "
                "prediction cannot be left out of a score"
            )
        known = {case for of_split in part.table.cases.values() for case in of_split}
        if unknown := [case for case in self.by_case if case not in known]:
            raise RecordError(f"{path} has cases that are in no part of the split, such as {listed(unknown)}")
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the probabilities that were scored so far."""
        return self._digest.hexdigest()

    def result(self, case: str) -> CaseResult:
        """Returns what came out for a case.

        Raises:
            TapctError: If its target cannot be read.
        """
        given = self.by_case[case]
        self._digest.update(f"{case}:{sorted(given.items())}".encode())
        logits = {name: logit(value) for name, value in given.items()}
        targets = dict(zip(self.part.classes, self.part.target(case).tolist(), strict=True))
        target = {name: None if math.isnan(value) else int(value) for name, value in targets.items()}
        loss = kinds.kind("classification").loss
        assert loss is not None
        return CaseResult(
            case=case,
            patient=self.part.patient(case),
            loss=loss({"logit": logits, "target": {name: math.nan if t is None else t for name, t in target.items()}}),
            probabilities=dict(zip(logits, sigmoid(list(logits.values())).tolist(), strict=True)),
            target=target,
            logits=logits,
            padding_voxels=(0, 0, 0),
        )

    def describe(self) -> dict[str, Any]:
        """Returns what the record holds of how they were scored: nothing."""
        return {}
