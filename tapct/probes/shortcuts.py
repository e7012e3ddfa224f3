"""The shortcut audit: what the nearest scan shares with a reported one, and what a linear probe can read of features.

Of everything that scans may be sorted by in place of what is asked (`TaskSpec.audited`), and of the label next to it.
It is made of features as heads see them, pooled to one vector a scan, which are stored: nothing is encoded for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from loguru import logger

from tapct.kinds import Kind
from tapct.metrics import retrieval, shortcuts
from tapct.probes import audited, label_heads, reading, solved, solvers
from tapct.probes.adaptors import Pooling
from tapct.probes.audited import Audited, patients_with
from tapct.probes.folds import folds_of
from tapct.probes.reading import as_recorded, read
from tapct.probes.source import CaseSource
from tapct.records.shortcuts import LABEL, Shared, ShortcutRecord, ShortcutsRecord
from tapct.statistics import intervals, resampling
from tapct.statistics.intervals import estimate
from tapct.tasks.shortcuts import VOLUME, of_grid

MOST_LEVELS = 10
"""Of a column that are read: the most common ones. Each is a head, and some releases have a hundred kernels."""

MODULES = [one.__name__ for one in (audited, reading, shortcuts, retrieval, label_heads, solvers, solved)]
MODULES += [__name__, intervals.__name__, resampling.__name__]
"""Whose code decides an audit."""


def of_session(
    source: CaseSource, trainer: pl.Trainer, kind: Kind, pooling: Pooling, *, scale: bool, trains: bool
) -> ShortcutsRecord:
    """Returns the audit of a session's patch, from the store where it is there.

    Args:
        source: With the features of all cases.
        trainer: Whose datamodule and device are used.
        kind: Of the task.
        pooling: How features are pooled.
        scale: Whether heads divide channels by their deviation over the training cases.
        trains: Whether there are training cases; else heads were trained before, elsewhere (`eva test`).

    Raises:
        TapctError: If a table or header cannot be read.
    """
    assert source.bank is not None
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    spec, folds = datamodule.spec, folds_of(datamodule)
    splits = ("train", "val", "test") if trains and kind.trains and folds is None else ("test",)
    by_split = {split: source.pooled_cases(trainer, split, pooling) for split in splits}  # type: ignore[arg-type]
    there = {split: of for split, of in by_split.items() if of is not None}
    cases = {split: replace(of, features=of.encoded, table=0, coded=()) for split, of in there.items()}
    parts = [getattr(datamodule.datasets, split) for split in cases]
    unread = _unread(parts, pooling)
    columns = [column for column in spec.audited if column.name not in unread]
    of = Audited(
        reported=cases["test"],
        train=cases.get("train"),
        selection=cases.get("val"),
        folds=None if folds is None else folds.folds[0],
        labels=spec.classes if kind.labels else (),
        titles={column.name: column.title for column in columns},
        levels={case: levels for part in parts for case, levels in _levels(source, part, columns)},
        scale=scale,
        key=f"{spec.name}:{spec.version}:shortcuts",
    )

    def compute() -> dict[str, torch.Tensor]:
        logger.info(f"the shortcut audit of {len(of.titles)} columns")
        text = json.dumps(audit(of, pooling, unread).content())
        return {"record": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    asked = {"what": "shortcut audit", "pooling": pooling, "unread": unread, "of": of.sha256}
    stored = source.bank.derived("all cases", asked, MODULES, compute)["record"]
    return ShortcutsRecord.model_validate_json(stored.numpy().tobytes())


def _unread(parts: Sequence[Any], pooling: Pooling) -> dict[str, str]:
    """Returns the columns that are not audited, by name: why; those of which something is not there, and of no mask."""
    found = {}
    for column in parts[0].spec.shortcuts:
        if column == VOLUME and pooling != "mask":
            found[column.name] = "features are not pooled over the masks"
            continue
        paths = dict.fromkeys(
            path for part in parts for case in part.cases for path in part.column_paths(case, column.name)
        )
        if missing := [path.name for path in paths if not path.exists()]:
            found[column.name] = f"{missing[0]} is not there"
    return found


def _levels(source: CaseSource, part: Any, columns: Sequence[Any]) -> list[tuple[str, dict[str, str | None]]]:
    """Returns what each case of a part is in each column."""
    assert source.bank is not None
    read_by_task = [column for column in columns if column in part.spec.shortcuts]
    found = []
    for index, case in enumerate(part.cases):
        sizes = of_grid(source.bank.native_grid(part, index))
        of_grids = {column.name: column.level(sizes[column.name]) for column in columns if column.name in sizes}
        found.append((case, {**part.levels(case, read_by_task), **of_grids}))
    return found


def audit(of: Audited, pooling: str, left_out: Mapping[str, str]) -> ShortcutsRecord:
    """Returns the audit of a patch.

    Args:
        of: Its cases.
        pooling: How features were pooled.
        left_out: Columns that could not be read, and why.
    """
    names = {column: shortcuts.names_of(of.said(column, of.reported)) for column in of.titles}
    alone = {
        column: f"of the reported scans {f'all are {levels[0]!r}' if levels else 'nothing is known'}"
        for column, levels in names.items()
        if len(levels) < 2
    }
    members = {
        column: of.members(column, levels)(of.reported) for column, levels in names.items() if column not in alone
    }
    labels = {LABEL: shortcuts.both_ways(of.reported.targets)} if of.labels else {}
    every = {**labels, **members}
    near = dict(
        zip(every, shortcuts.nearest(of.reported.unit_vectors(), of.patients, list(every.values())), strict=True)
    )
    return ShortcutsRecord(
        pooling=pooling,
        read_by=of.read_by,
        label=_label(of, near[LABEL], labels[LABEL]) if labels else None,
        columns={
            column: _column(of, column, near[column], member, labels.get(LABEL)) for column, member in members.items()
        },
        left_out={**left_out, **alone},
    )


def _label(of: Audited, near: np.ndarray, labels: np.ndarray) -> ShortcutRecord:
    targets = of.reported.targets
    return ShortcutRecord(
        title=LABEL,
        known=int((~np.isnan(targets)).any(axis=1).sum()),
        levels=dict(zip(of.labels, patients_with(targets, of.patients), strict=True)),
        shared=_shared(of, near, shortcuts.by_chance(labels, of.patients), None),
        **read(of, list(of.labels), lambda cases: cases.targets),
    )


def _column(
    of: Audited, column: str, near: np.ndarray, member: np.ndarray, labels: np.ndarray | None
) -> ShortcutRecord:
    said = of.said(column, of.reported)
    names = shortcuts.names_of(said)
    patients = dict(zip(names, patients_with(member, of.patients), strict=True))
    trained = names if of.train is None else of.said(column, of.train)
    unseen = {name: number for name, number in patients.items() if name not in trained}
    common = sorted((name for name in names if name not in unseen), key=lambda name: -patients[name])
    asked = sorted(common[:MOST_LEVELS])
    found = read(of, asked, of.members(column, asked))
    rare = dict.fromkeys(common[MOST_LEVELS:], f"it is not among the {MOST_LEVELS} most common ones")
    return ShortcutRecord(
        title=of.titles[column],
        known=sum(level is not None for level in said),
        levels=patients,
        shared=_shared(
            of,
            near,
            shortcuts.by_chance(member, of.patients),
            None if labels is None else shortcuts.by_label(labels, member, of.patients),
        ),
        unseen=unseen,
        **{**found, "left_out": {**found["left_out"], **rare}},
    )


def _shared(of: Audited, near: np.ndarray, chance: np.ndarray, by_label: np.ndarray | None) -> Shared | None:
    """Returns what the nearest scan shares, as a mean over the scans that count; None where none does."""
    counts = ~np.isnan(near)
    if not counts.any():
        return None
    number = of.drawn.shape[0]
    total = np.bincount(of.patients, np.where(counts, near, 0.0), minlength=number)
    scans = np.bincount(of.patients, counts, minlength=number)
    with np.errstate(invalid="ignore", divide="ignore"):
        bootstrap, without = (total @ of.drawn) / (scans @ of.drawn), (total.sum() - total) / (scans.sum() - scans)
    found = estimate(float(near[counts].mean()), bootstrap, without, number, "no reported patient defines it")
    return Shared(
        scans=int(counts.sum()),
        patients=int((scans > 0).sum()),
        nearest=as_recorded(found),
        chance=float(chance[counts].mean()),
        by_label=None if by_label is None else float(np.where(np.isnan(by_label), chance, by_label)[counts].mean()),
    )
