"""`tapct leaderboard RESULTS... -o SITE`: the page and the tables of results folders."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tapct._utils import files
from tapct.errors import RecordError
from tapct.leaderboard import (
    eva_results,
    exports,
    gains,
    imported,
    mistakes,
    robust_columns,
    shortcuts,
    similarity,
    tables,
    variations,
)
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.board import Board
from tapct.leaderboard.page import render
from tapct.leaderboard.text import as_csv
from tapct.records import find_records
from tapct.statistics.summary import RESAMPLES


def build(
    results: Sequence[Path],
    site: Path,
    *,
    suite: Sequence[str] = (),
    eva: Sequence[Path] = (),
    strict: bool = False,
    resamples: int = RESAMPLES,
) -> int:
    """Writes `index.html` and `leaderboard.csv`, `.json`, `.md` and `.tex`; the same records give the same bytes.

    Where records vary the training patients, the scans or the adaptor, also `label_efficiency.csv`, `robustness.csv`
    and `adaptors.csv`, and of tables next to features `gains.csv`; where some are of repeated or perturbed scans,
    `robustness_ranks.csv`; of a wrong input on purpose, `mistakes.csv`; where some are of an experiment of the paper,
    `paper_and_this_run.csv`; where some hold a shortcut audit, `shortcuts.csv`; of stock runs of eva's,
    `eva_results.csv`; of imported predictions, `imported.csv`; of what `tapct compare` left there, `similarity.csv`.

    Args:
        results: The results folders, each `RESULTS/TASK/EXPERIMENT/record.json`.
        site: Where to write.
        suite: The tasks that mean ranks are over; by default the core (see `tapct.leaderboard.suite`).
        eva: `results.json` of stock runs of eva's, or folders of such, to stand next to them as references.
        strict: Whether the exit status is 1 where anything was left out.
        resamples: Resamples of the patients.

    Returns:
        The exit status.

    Raises:
        RecordError: If there is nothing to show, two records are of one experiment, or a file cannot be written.
    """
    references = eva_results.read_all(eva)
    found = {folder: find_records(folder, bar=True) for folder in _each_once(results)}
    records = [record for of_folder in found.values() for record in of_folder.valid.values()]
    ranked = [record for record in records if record.imported is None]
    varied, unvaried, perturbed = variations.tables(ranked, resamples=resamples)
    board = replace(assemble(found, suite=suite, resamples=resamples), eva=references)
    names = names_on(board)
    alike, unread = similarity.found_in(results, [task.name for task in board.tasks if task.summaries])
    board = replace(
        board,
        robustness=robust_columns.assemble(board, perturbed, names),
        mistakes=mistakes.tables(ranked, names, resamples=resamples),
        imported=imported.references(records, board.ranked, {one.name: one.title for one in board.tasks}, resamples),
        similarities=alike,
    )
    _write(site, _tables(board) | varied | {"index.html": render(board)})  # last: a page that is there has its tables
    left_out = [*(f"{out.path}: {out.reason}" for out in board.left_out), *unvaried, *unread]
    _say(board, left_out, site)
    return int(strict and bool(left_out))


def _tables(board: Board) -> dict[str, str]:
    """Returns the files next to the page, by their names: those without a row are left out."""
    formats = {"csv": exports.to_csv, "json": exports.to_json, "md": tables.to_markdown, "tex": tables.to_latex}
    robust = board.robustness
    found: dict[str, str | None] = {
        **{f"leaderboard.{suffix}": table(board) for suffix, table in formats.items()},
        exports.ADAPTORS_FILE: exports.adaptors_to_csv(board),
        gains.FILE: gains.to_csv(board),
        exports.REPRODUCTION_FILE: exports.reproduction_to_csv(board),
        mistakes.FILE: as_csv(mistakes.as_rows(board.mistakes)) if board.mistakes else None,
        robust_columns.FILE: as_csv(robust_columns.as_rows(robust)) if robust and robust.columns else None,
        similarity.FILE: as_csv(similarity.as_rows(board.similarities)) if board.similarities else None,
        imported.FILE: as_csv(imported.as_rows(board.imported)) if board.imported else None,
        shortcuts.FILE: shortcuts.to_csv(board),
        exports.EVA_FILE: exports.eva_to_csv(board) if board.eva else None,
    }
    return {name: content for name, content in found.items() if content is not None}


def _say(board: Board, left_out: Sequence[str], site: Path) -> None:
    """Prints what is not on the page, what is in a section of its own, and where the page is."""
    for out in left_out:
        print(f"left out: {out}", file=sys.stderr)
    for own in board.own:
        print(f"in a section of its own: {own.task.title}: {own.why}", file=sys.stderr)
    boards = [board, *(own.board for own in board.own)]
    shown = sum(len(model.entries) for each in boards for model in each.models)
    print(f"{shown} records, {len(board.models)} models that compare: {(site / 'index.html').resolve()}")


def names_on(board: Board) -> dict[str, str]:
    """Returns what models are called on a board, by what tells them apart (`mistakes.model_of`)."""
    boards = [*(own.board for own in board.own), board]
    models = [model for each in boards for model in each.models]
    return {mistakes.model_of(entry.record): model.name for model in models for entry in model.entries.values()}


def _each_once(folders: Sequence[Path]) -> list[Path]:
    """Returns the folders, one that is named twice once."""
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def _write(site: Path, contents: Mapping[str, str]) -> None:
    """Writes the files of a site, and removes tables of records that are no longer there.

    Raises:
        RecordError: If one cannot be written.
    """
    for name, content in contents.items():
        try:
            files.write_atomically(site / name, content)
        except OSError as error:
            raise RecordError(f"cannot write {site / name}: {error.strerror or error}") from error
    optional = {exports.ADAPTORS_FILE, exports.REPRODUCTION_FILE, exports.EVA_FILE}
    optional |= {gains.FILE, mistakes.FILE, robust_columns.FILE, imported.FILE, shortcuts.FILE, similarity.FILE}
    for stale in {*variations.FILES, *optional} - set(contents):
        (site / stale).unlink(missing_ok=True)
