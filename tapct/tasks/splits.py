"""Which case is on which side: tables that ship with the project, and the rule behind our own."""

import csv
import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from tapct import names
from tapct.errors import TaskError
from tapct.tasks.tables import header_of, read_table

Split = Literal["train", "val", "test"]
"""`train` fits the probe, `val` is the part of the training patients that settings are chosen on, `test`
is reported and nothing is ever chosen on it."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")

COLUMNS = ("case", "patient", "split")

SELECTION_SHARE = 10
"""Of a list without a part for selection, one of this many training patients is set aside for it."""

_PATTERN: tuple[Split, ...] = (*("train", "train", "test", "train", "train", "val", "train", "test", "train", "train"),)
"""How `stratified` deals patients out: of ten in a row, seven train, one selects, two are reported."""


@dataclass(frozen=True)
class SplitTable:
    """Cases by split.

    Attributes:
        cases: Split to case to patient, in the order of the table.
        source: The file or the rule that the table is from.
    """

    cases: dict[Split, dict[str, str]]
    source: str

    @classmethod
    def read(cls, path: Path) -> "SplitTable":
        """Reads a CSV (`read_table`) with the columns case, patient, split; above it, # lines say where it is from.

        Raises:
            TaskError: If it is missing or malformed, a name cannot be one, a case is there twice, two names are alike,
                a split is unknown, or a patient is on two sides.
        """
        rows = read_table(path, COLUMNS, what="split file", comments=True)
        return cls.of([(row["case"], row["patient"], row["split"]) for row in rows], str(path.name), where=str(path))

    @classmethod
    def of(cls, rows: Collection[tuple[str, str, str]], source: str, *, where: str) -> "SplitTable":
        """Returns the table of (case, patient, split) rows; `where` is named in errors, which are those of `read`."""
        cases: dict[Split, dict[str, str]] = {split: {} for split in SPLITS}
        side: dict[str, str] = {}
        seen: dict[str, None] = {}
        for case, patient, split in rows:
            _check_names(case, patient, where)
            known = next((s for s in SPLITS if s == split), None)
            if known is None:
                raise TaskError(f"{where}: case {case} is in the unknown split '{split}'")
            if case in seen:
                raise TaskError(f"{where}: case {case} is there twice")
            if side.setdefault(patient, known) != known:
                raise TaskError(f"{where}: patient {patient} is in {side[patient]} and in {split}")
            seen[case] = None
            cases[known][case] = patient
        _refuse_alike(seen, side, where)
        return cls(cases, source)

    @cached_property
    def sha256(self) -> str:
        """Hash of the rows, sorted; comments and order do not change it."""
        return hashlib.sha256("\n".join(sorted(self._rows())).encode()).hexdigest()

    @property
    def counts(self) -> dict[Split, int]:
        """Number of cases by split."""
        return {split: len(cases) for split, cases in self.cases.items()}

    def without(self, excluded: Collection[str]) -> "SplitTable":
        """Returns the table without these cases."""
        kept = {s: {c: p for c, p in cases.items() if c not in excluded} for s, cases in self.cases.items()}
        return SplitTable(kept, self.source)

    def reported_alone(self, *, whole: bool = False) -> "SplitTable":
        """Returns the table of a task that trains nothing: the reported cases, or (`whole`) all of them as reported."""
        every = {case: patient for of in self.cases.values() for case, patient in of.items()}
        return SplitTable({"train": {}, "val": {}, "test": every if whole else self.cases["test"]}, self.source)

    def to_csv(self, *comments: str) -> str:
        """Returns the file that `read` reads, with its provenance in comments."""
        return "\n".join([*(f"# {line}" for line in comments), ",".join(COLUMNS), *self._rows(), ""])

    def _rows(self) -> list[str]:
        """Returns the rows as CSV; a name with a comma in it is quoted, so that no two tables have the same rows."""
        text = io.StringIO()
        rows = ((case, patient, split) for split, cases in self.cases.items() for case, patient in cases.items())
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().splitlines()


@dataclass(frozen=True)
class FoldTable(SplitTable):
    """Cases that are cross-validated: in each repeat, every fold is reported by a head that the others trained.

    Every case trains and is reported: both parts hold all of them, and none selects.

    Attributes:
        folds: By repeat, patient to fold, from 0.
    """

    folds: tuple[dict[str, int], ...]

    @classmethod
    def read(cls, path: Path) -> "FoldTable":
        """Reads a CSV with the columns case, patient, fold_0, fold_1, ..., one a repeat; above it, # lines.

        Raises:
            TaskError: If it is missing or malformed, a name cannot be one, a case is there twice, two names are alike,
                a fold is not a number or empty, or a patient is in two folds of a repeat.
        """
        repeats = [name for name in header_of(path) if re.fullmatch(r"fold_\d+", name)]
        columns = [f"fold_{number}" for number in range(max(1, len(repeats)))]
        rows = read_table(path, ("case", "patient", *columns), what="file of folds", comments=True)
        for row in rows:
            for name in columns:
                if re.fullmatch(r"\d{1,3}", row[name]) is None:
                    raise TaskError(f"{path}: {name} of case {row['case']} is '{row[name]}', and must be 0, 1, 2, ...")
        folds = [(row["case"], row["patient"], *(int(row[name]) for name in columns)) for row in rows]
        return cls.of_folds(folds, path.name, where=str(path))

    @classmethod
    def of_folds(cls, rows: Collection[tuple[Any, ...]], source: str, *, where: str) -> "FoldTable":
        """Returns the table of (case, patient, fold, fold, ...) rows; `where` is named in errors, those of `read`."""
        cases: dict[str, str] = {}
        folds: list[dict[str, int]] = []
        for case, patient, *numbers in rows:
            _check_names(case, patient, where)
            if case in cases:
                raise TaskError(f"{where}: case {case} is there twice")
            cases[case] = patient
            folds = folds or [{} for _ in numbers]
            for repeat, (of_repeat, number) in enumerate(zip(folds, numbers, strict=True)):
                if of_repeat.setdefault(patient, number) != number:
                    raise TaskError(f"{where}: patient {patient} is in two folds of repeat {repeat}")
        _refuse_alike(cases, cases.values(), where)
        numbers_used = {tuple(sorted(set(of_repeat.values()))) for of_repeat in folds}
        last = max((number for used in numbers_used for number in used), default=0)
        if last < 1 or numbers_used != {tuple(range(last + 1))}:
            raise TaskError(f"{where}: every repeat must have the same folds, two at least, and none without a patient")
        return cls({"train": cases, "val": {}, "test": dict(cases)}, source, tuple(folds))

    @property
    def repeats(self) -> int:
        """How often the patients are dealt out anew."""
        return len(self.folds)

    @property
    def number(self) -> int:
        """Folds of a repeat."""
        return 1 + max(self.folds[0].values())

    @override
    def without(self, excluded: Collection[str]) -> "FoldTable":
        kept = super().without(excluded)
        patients = set(kept.cases["train"].values())
        folds = tuple({p: fold for p, fold in of_repeat.items() if p in patients} for of_repeat in self.folds)
        return FoldTable(kept.cases, kept.source, folds)

    @override
    def to_csv(self, *comments: str) -> str:
        header = ",".join(["case", "patient", *(f"fold_{number}" for number in range(self.repeats))])
        return "\n".join([*(f"# {line}" for line in comments), header, *self._rows(), ""])

    @override
    def _rows(self) -> list[str]:
        text = io.StringIO()
        rows = ((case, p, *(of[p] for of in self.folds)) for case, p in self.cases["train"].items())
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().splitlines()


def read_split(path: Path) -> SplitTable:
    """Reads a split, or folds where the columns are theirs.

    Raises:
        TaskError: As `SplitTable.read` and `FoldTable.read`.
    """
    return FoldTable.read(path) if "fold_0" in header_of(path) else SplitTable.read(path)


def _refuse_alike(cases: Iterable[str], patients: Iterable[str], where: str) -> None:
    """Refuses names that only a machine can tell apart."""
    for what, names_of in (("cases", cases), ("patients", dict.fromkeys(patients))):
        if (pair := names.alike(names_of)) is not None:
            raise TaskError(
                f"{where}: the {what} {pair[0]!r} and {pair[1]!r} differ by blanks, case or Unicode form alone. If "
                "they are one, write it in one way; if not, rename one"
            )


def _check_names(case: str, patient: str, where: str) -> None:
    if (wrong := names.path_fault(case)) is not None:
        raise TaskError(f"{where}: the case {case!r} {wrong}. Rename it")
    if case.startswith("#"):
        raise TaskError(f"{where}: the case {case!r} begins as a comment. Rename it")
    if (wrong := names.fault(patient)) is not None:
        raise TaskError(f"{where}: the patient {patient!r} of case {case} {wrong}. Rename it")


def set_aside(patients: Collection[str], seed: str) -> set[str]:
    """Returns the tenth of the training patients that settings are chosen on: those whose SHA-256 comes first.

    Args:
        patients: Names; of a release that names none, each case counts as one.
        seed: What makes the tenth of a task another than that of others, such as "kits23 v1".
    """
    shuffled = sorted(set(patients), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    return set(shuffled[: round(len(shuffled) / SELECTION_SHARE)])


def stratified(patients: Mapping[str, str], strata: Mapping[str, str], seed: str, where: str) -> SplitTable:
    """Returns our own split: by patient, stratified, seeded, the same on every machine.

    Patients are put in the order of their stratum and, within it, of the SHA-256 of seed and name; then they are
    dealt out in turn: of ten in a row seven train, one selects and two are reported. Every stratum is thus
    shared out evenly to within one patient, and no generator's version matters.

    Args:
        patients: Case to patient.
        strata: Patient to stratum, such as the labels.
        seed: What makes this split another than that of another task or version, such as "luna25 v1".
        where: What the cases were read from, for errors.

    Raises:
        TaskError: If a patient has no stratum.
    """
    missing = sorted(set(patients.values()) - set(strata))
    if missing:
        raise TaskError(f"{where}: no stratum for {len(missing)} patients, such as {', '.join(missing[:3])}")

    def order(patient: str) -> tuple[str, str]:
        return strata[patient], hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()

    side = {p: _PATTERN[i % len(_PATTERN)] for i, p in enumerate(sorted(set(patients.values()), key=order))}
    rows = [(case, patient, side[patient]) for case, patient in patients.items()]
    return SplitTable.of(rows, f"ours: stratified by patient, seed '{seed}'", where=where)


def hashed(patients: Mapping[str, str], seed: str, where: str) -> SplitTable:
    """Returns our own split of a release whose list of patients is not known here: each by a hash of the name alone.

    The SHA-256 of seed and name is a number in [0, 1): below 0.7 a patient trains, below 0.8 they select, and from
    there on they are reported. Who else is in the release, or was left out, changes nobody's side.

    Args:
        patients: Case to patient.
        seed: What makes this split another than that of another task or version, such as "osic_fvc v1".
        where: What the cases were read from, for errors.
    """

    def side(patient: str) -> Split:
        place = uniform(f"{seed}:{patient}")
        return "train" if place < 0.7 else "val" if place < 0.8 else "test"

    rows = [(case, patient, side(patient)) for case, patient in patients.items()]
    return SplitTable.of(rows, hash_rule(seed), where=where)


def hash_rule(seed: str) -> str:
    """Returns what the table of `hashed` is called."""
    return f"ours: by hash of the patient, seed '{seed}'"


def uniform(text: str) -> float:
    """Returns a number in [0, 1) that depends on the text alone: the first 52 bits of its SHA-256."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def read_exclusions(path: Path) -> dict[str, str]:
    """Returns the cases that are left out, with the reason; empty where there is no such file.

    Args:
        path: A CSV with the columns case, reason; above it, lines that start with # say where it is from.

    Raises:
        TaskError: If it is malformed, or a case is there twice.
    """
    if not path.is_file():
        return {}
    excluded: dict[str, str] = {}
    for row in read_table(path, ("case", "reason"), what="list of exclusions", comments=True):
        if row["case"] in excluded:
            raise TaskError(f"{path}: case {row['case']} is there twice")
        excluded[row["case"]] = row["reason"]
    return excluded
