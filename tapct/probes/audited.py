"""The cases of a shortcut audit: what they are in each column, and which of them train the heads that read it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tapct.metrics import shortcuts
from tapct.probes.solved import PooledCases, deal_folds
from tapct.statistics.resampling import draw_patients

RESAMPLES = 1000
"""Of patients, for intervals."""

Targets = Callable[[PooledCases], np.ndarray]
"""Gives (N, K) what cases are members of: 1, 0, or NaN where that is not known."""


class AuditedHead(NamedTuple):
    """A head of the linear probe.

    Attributes:
        train: The cases that it is solved on.
        selection: Those that select, if there are any.
        rows: The places of the reported cases that it reads.
    """

    train: PooledCases
    selection: PooledCases | None
    rows: np.ndarray

    def of_targets(self, columns: Sequence[int]) -> "AuditedHead":
        """Returns the head of these columns of the targets alone."""
        selection = None if self.selection is None else self.selection.of_targets(columns)
        return AuditedHead(self.train.of_targets(columns), selection, self.rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """The cases of an experiment, as the audit sees them.

    Attributes:
        reported: Those that are reported; their targets are the labels of the task, if it has any.
        train: Those that heads are trained on; None where nothing trains, or patients are cross-validated.
        selection: Those that select, if there are any.
        folds: Patient to fold, of a task that is cross-validated.
        labels: The labels of the task; none where its targets are something else.
        titles: By name of a column, what it is in words.
        levels: By case and column, its level; None where nothing is known.
        scale: Whether heads divide channels by their deviation over the training cases.
        key: What seeds the resamples: the same for all models of a task.
    """

    reported: PooledCases
    train: PooledCases | None
    selection: PooledCases | None
    folds: Mapping[str, int] | None
    labels: Sequence[str]
    titles: Mapping[str, str]
    levels: Mapping[str, Mapping[str, str | None]]
    scale: bool
    key: str

    @property
    def sha256(self) -> str:
        """Hash of all that decides the audit, next to code."""
        digest = hashlib.sha256()
        for cases in filter(None, (self.reported, self.train, self.selection)):
            digest.update(json.dumps([list(cases.names), list(cases.patients), cases.features.shape]).encode())
            for array in (cases.features, cases.targets):
                digest.update(np.ascontiguousarray(array).tobytes())
        about = [self.folds, list(self.labels), self.titles, self.levels, self.scale, self.key]
        digest.update(json.dumps(about, sort_keys=True).encode())
        return digest.hexdigest()

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) the patient of each reported case, as a number."""
        return np.unique(self.reported.patients, return_inverse=True)[1]

    @cached_property
    def drawn(self) -> np.ndarray:
        """(patients, R) how often each reported patient is in each resample."""
        return draw_patients(self.patients.max() + 1, RESAMPLES, self.key)

    @property
    def read_by(self) -> str:
        """Which cases the linear probe is trained on, in words."""
        if self.folds is not None:
            return "the patients of the other folds, of the first repeat"
        if self.train is None:
            return "reported patients in five folds: each fold is read by a head of the others"
        return "the training patients"

    def said(self, column: str, cases: PooledCases) -> list[str | None]:
        """Returns the level of each of some cases in a column; None where nothing is known."""
        return [self.levels[name][column] for name in cases.names]

    def members(self, column: str, names: Sequence[str]) -> Targets:
        """Returns what gives the membership of cases in these levels of a column."""
        return lambda cases: shortcuts.members(self.said(column, cases), names)

    def parts(self, targets: Targets) -> list[AuditedHead]:
        """Returns the heads of the linear probe, with the targets that they are to read."""
        reported = replace(self.reported, targets=targets(self.reported))
        if self.folds is not None:
            of_case = np.array([self.folds[patient] for patient in reported.patients])
            sides = [(np.flatnonzero(of_case != fold), np.flatnonzero(of_case == fold)) for fold in np.unique(of_case)]
        elif self.train is None:
            sides = deal_folds(reported)
        else:
            train = replace(self.train, targets=targets(self.train))
            of = self.selection
            selection = None if of is None else replace(of, targets=targets(of))
            return [AuditedHead(train, selection, np.arange(len(reported.names)))]
        return [AuditedHead(reported.some(rows), None, held) for rows, held in sides]


def patients_with(targets: np.ndarray, patients: Sequence[str] | np.ndarray, answer: float = 1) -> list[int]:
    """Returns how many patients have a case with this answer, of each of the (N, K) targets."""
    named = np.asarray(patients)
    return [len(np.unique(named[of_class == answer])) for of_class in targets.T]
