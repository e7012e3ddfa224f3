"""The end of a session: its record is whole, and a user is told what came out."""

from pathlib import Path

from loguru import logger

from tapct import flags
from tapct.probes import checkpoints, quiet
from tapct.records import print_summary, read_record, write_record


def finish(record: Path, written: list[Path]) -> None:
    """Adds to the record of a session what is to be looked at, removes its checkpoints, and prints a summary.

    Args:
        record: The record, with all of its runs.
        written: The checkpoints of the session.
    """
    write_record(flags.with_own_checks(read_record(record)), record.parent)
    checkpoints.remove(written)
    try:
        print_summary(record)
        quiet.results_are_shown()
    except Exception as error:  # noqa: BLE001 the record is written: no screen fails an experiment that has trained
        logger.warning(f"the summary of {record} cannot be shown: {type(error).__name__}: {error}")
