"""What `pretrain.prepare` shows: progress, and tables of what the store holds and what is not in it."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pretrain.data.fingerprint import Fingerprint
from pretrain.data.index import StoredVolume
from pretrain.data.intensities import distance_in_words

SHOWN = 20
"""Quarantined scans that are listed on the screen; the file lists all."""


@dataclass
class Tally:
    """What a preparation did.

    Attributes:
        added: Number of volumes that were made.
        present: Number of scans that the store had under their paths.
        moved: Number of scans that it had under other paths.
        refused: The quarantined scans: path to reason.
        skipped: What is not a CT at all: path to what it is.
    """

    added: int = 0
    present: int = 0
    moved: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def progress_beside(console: Console) -> Progress:
    """Returns a progress bar next to the tables, which are what was asked for."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # FORCE_COLOR does not make a terminal of a file.
    beside = Console(stderr=True, force_terminal=sys.stderr.isatty(), quiet=console.quiet)
    return Progress(*columns, TimeRemainingColumn(), console=beside, redirect_stdout=sys.stdout.isatty())


def show(
    console: Console,
    store: Path,
    rows: Mapping[str, StoredVolume],
    tally: Tally,
    seconds: float,
    fingerprint: Fingerprint | None,
    code_sha256: str,
) -> None:
    """Shows the table of a store, and one of what was quarantined."""
    volumes = rows.values()
    table = Table("what", "value", title=f"store {store}")
    table.add_row("added now", f"{tally.added:,} in {seconds:,.0f} s")
    table.add_row("already there", f"{tally.present:,}")
    if tally.moved:
        table.add_row("already there under another path", f"{tally.moved:,}")
    if tally.skipped:
        path, what = next(iter(sorted(tally.skipped.items())))
        table.add_row("skipped, no CT (skipped.jsonl)", f"{len(tally.skipped):,}, such as {path}: {what}")
    if other := sum(row.code_sha256 != code_sha256 for row in volumes):
        table.add_row("made by other code than today's", f"{other:,} (--verify makes them again)")
    patients = {row.patient for row in volumes}
    table.add_row("volumes, patients", f"{len(rows):,}, {len(patients):,}{_examples(patients)}")
    table.add_row("slices", f"{sum(row.shape[0] for row in volumes):,}")
    if noted := [row for row in volumes if row.notes]:
        table.add_row("with notes (index.jsonl)", f"{len(noted):,}, such as {noted[0].source}: {noted[0].notes[0]}")
    if fingerprint is not None:
        _add_fingerprint(table, volumes, fingerprint)
    console.print(table)
    _show_quarantine(console, store, tally.refused)


def _examples(patients: Collection[str]) -> str:
    """Some names, for a look at whether they are patients."""
    shown = sorted(patients)[:3]
    return f" ({', '.join(shown)}{', ...' if len(patients) > len(shown) else ''}; --patient names them otherwise)"


def _add_fingerprint(table: Table, volumes: Collection[StoredVolume], fingerprint: Fingerprint) -> None:
    raw = sum(2 * row.shape[0] * row.shape[1] * row.shape[2] for row in volumes)
    stored = sum(row.size_bytes for row in volumes)
    table.add_row("size", f"{stored / 1e9:,.2f} GB, {raw / stored:.2f} times smaller than int16")
    table.add_row("files of volumes", f"{len({row.file for row in volumes}):,}")
    table.add_row("foreground", f"mean {fingerprint.mean_hu:.2f} HU, standard deviation {fingerprint.std_hu:.2f} HU")
    table.add_row("0.5 and 99.5 percentiles", f"{fingerprint.percentile_00_5_hu}, {fingerprint.percentile_99_5_hu} HU")
    table.add_row("against the paper's (Appendix B)", distance_in_words(fingerprint))


def _show_quarantine(console: Console, store: Path, refused: Mapping[str, str]) -> None:
    if not refused:
        return
    table = Table(title=f"{len(refused):,} quarantined: {store / 'quarantine.jsonl'}")
    for heading in ("quarantined", "why"):
        table.add_column(heading, overflow="fold")
    for path in sorted(refused)[:SHOWN]:
        table.add_row(path, refused[path].removeprefix(path).lstrip(": "))
    console.print(table)
