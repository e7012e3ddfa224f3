"""`tapct leaderboard RESULTS -o SITE`: the page and the tables of a results folder."""

import sys
from pathlib import Path

from tapct import files
from tapct.errors import RecordError
from tapct.leaderboard import exports, variations
from tapct.leaderboard.board import assemble
from tapct.leaderboard.page import render
from tapct.leaderboard.summary import RESAMPLES
from tapct.records import read_records


def build(results: Path, site: Path, *, resamples: int = RESAMPLES) -> int:
    """Writes `index.html` and `leaderboard.csv`, `.json`, `.md` and `.tex`; the same records give the same bytes.

    Where records vary the training patients, the scans or the adaptor, also `label_efficiency.csv`, `robustness.csv`
    and `adaptors.csv`.

    Args:
        results: The results folder, `RESULTS/TASK/CELL/record.json`.
        site: Where to write.
        resamples: Resamples of the patients.

    Returns:
        The exit status: 0.

    Raises:
        RecordError: If there is nothing to show, two records are of one cell, or a file cannot be written.
    """
    found = read_records(results)
    board = assemble(found, results, resamples=resamples)
    tables = {"csv": exports.to_csv, "json": exports.to_json, "md": exports.to_markdown, "tex": exports.to_latex}
    contents = {f"leaderboard.{suffix}": table(board) for suffix, table in tables.items()}
    varied, unvaried = variations.tables(list(found.sound.values()), resamples=resamples)
    contents |= varied
    if (adaptors := exports.adaptors_to_csv(board)) is not None:
        contents[exports.ADAPTORS_FILE] = adaptors
    contents["index.html"] = render(board)  # last: a page that is there has its tables
    for name, content in contents.items():
        try:
            files.write_atomically(site / name, content)
            for stale in {*variations.FILES, exports.ADAPTORS_FILE} - set(
                contents
            ):  # of records that are no longer there
                (site / stale).unlink(missing_ok=True)
        except OSError as error:
            raise RecordError(f"cannot write {site / name}: {error.strerror or error}") from error
    for out in board.left_out:
        print(f"left out: {out.path}: {out.reason}", file=sys.stderr)
    for reason in unvaried:
        print(f"left out: {reason}", file=sys.stderr)
    shown = sum(len(model.entries) for model in board.models)
    print(f"{shown} records, {len(board.models)} models: {(site / 'index.html').resolve()}")
    return 0
