"""What `tapct cache` does with the store."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tapct._utils import terminal
from tapct.encoders.options import encoder_of
from tapct.errors import FeatureError, nearest
from tapct.features.store import TensorStore

LABELS = "labels"
"""Where a table names an encoder: the labels of a task, which encoders of one grid share."""

UNKNOWN = "?"
"""Encoder and task of an entry of which not even the header can be read."""

DAY_S = 24 * 3600


@dataclass(frozen=True)
class ListedEntry:
    """An entry of the store.

    Attributes:
        key: Its key.
        encoder: The encoder as a sweep's experiments name it, with its options; `LABELS` or `UNKNOWN`.
        task: Name of the task, or `UNKNOWN`.
        case: Case in the split file, or what it is derived from.
        kind: "features" (with their map), "embeddings" (alone), "labels", or "derived": made of those of cases, as
            their scale is.
        nbytes: Bytes on disk.
        used_at_s: When it was last used, in seconds since the epoch.
    """

    key: str
    encoder: str
    task: str
    case: str
    kind: str
    nbytes: int
    used_at_s: float


@dataclass(frozen=True)
class EncoderRow:
    """What is stored of one encoder for one task.

    Attributes:
        encoder: The encoder as a sweep's experiments name it, or `LABELS`.
        task: Name of the task.
        cases: Cases of which something is stored.
        maps: Those with their map.
        in_use: Those that a process needs that runs; None where that cannot be told.
        nbytes: Bytes on disk.
        last_used: UTC.
    """

    encoder: str
    task: str
    cases: int
    maps: int
    in_use: int | None
    nbytes: int
    last_used: str


def entries(store: TensorStore) -> Iterator[ListedEntry]:
    """Yields what is in a store, the least recently used first."""
    for file in store.files():
        try:
            about: dict[str, Any] = store.about(file.key)
        except FeatureError:
            if not file.path.exists():  # removed by another process meanwhile
                continue
            about = {"card": UNKNOWN, "task": UNKNOWN, "case": UNKNOWN}
        encoder = LABELS if about.get("kind") == "labels" else about["card"]
        yield ListedEntry(
            file.key, encoder, about["task"], about["case"], about.get("kind", UNKNOWN), file.nbytes, file.used_at_s
        )


def summarise(stored: Sequence[ListedEntry], in_use: Collection[str] | None = ()) -> list[EncoderRow]:
    """Returns a row for each encoder and task, by name.

    Args:
        stored: Entries.
        in_use: Keys that running processes need; None where that cannot be told.
    """
    rows = []
    for encoder, task in sorted({(entry.encoder, entry.task) for entry in stored}):
        group = [entry for entry in stored if (entry.encoder, entry.task) == (encoder, task)]
        used = datetime.fromtimestamp(max(entry.used_at_s for entry in group), UTC)
        of_cases = [entry for entry in group if entry.kind != "derived"]
        needed = None if in_use is None else len({e.case for e in of_cases if e.key in in_use})
        rows.append(
            EncoderRow(
                encoder=encoder,
                task=task,
                cases=len({entry.case for entry in of_cases}),
                maps=len({entry.case for entry in of_cases if entry.kind == "features"}),
                in_use=needed,
                nbytes=sum(entry.nbytes for entry in group),
                last_used=used.isoformat(timespec="seconds"),
            )
        )
    return rows


def broken(store: TensorStore, stored: Sequence[ListedEntry]) -> dict[str, str]:
    """Reads entries in full, and returns what is wrong with each broken one, by key."""
    found = {}
    for entry in terminal.track(stored, f"reading {store.folder}", total=len(stored)):
        if (problem := store.verify(entry.key)) is not None:
            found[entry.key] = problem
    return found


def select(
    store: TensorStore,
    *,
    only_broken: bool = False,
    encoder: str | None = None,
    task: str | None = None,
    unused_days: float | None = None,
) -> list[ListedEntry]:
    """Returns the entries that meet every condition.

    Args:
        store: The store; read in full if only broken ones are wanted.
        only_broken: Those that cannot be read.
        encoder: Those of this encoder, or `LABELS`; the plain name of one means it under all its options.
        task: Those of this task.
        unused_days: Those not used for so many days.

    Raises:
        FeatureError: If nothing is stored of the encoder or the task, or the days are negative.
    """
    if unused_days is not None and not unused_days >= 0:
        raise FeatureError(f"--unused-days must be 0 or more, not {unused_days:g}")
    chosen = list(entries(store))
    for what, wanted, names_of in (("encoder", encoder, _encoder_names), ("task", task, _task_names)):
        if wanted is None:
            continue
        known = {name for entry in chosen for name in names_of(entry)}
        if wanted not in known:
            raise FeatureError(f"nothing in {store.folder} is of the {what} '{wanted}'. {nearest(wanted, known)}")
        chosen = [entry for entry in chosen if wanted in names_of(entry)]
    if unused_days is not None:
        chosen = [entry for entry in chosen if entry.used_at_s < time.time() - unused_days * DAY_S]
    if only_broken:
        found = broken(store, chosen)
        chosen = [entry for entry in chosen if entry.key in found]
    return chosen


def _encoder_names(entry: ListedEntry) -> set[str]:
    return {entry.encoder, encoder_of(entry.encoder)}


def _task_names(entry: ListedEntry) -> set[str]:
    return {entry.task}
