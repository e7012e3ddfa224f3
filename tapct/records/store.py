"""Writing records so that nothing is lost: atomically, as each run ends."""

from pathlib import Path

from tapct import files
from tapct.errors import RecordError
from tapct.records.record import Record

RECORD_FILE = "record.json"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Raises:
        RecordError: If it cannot be written (a full disk, a read-only folder); the old file stays.
    """
    try:
        files.write_atomically(path, content)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error


def write_record(record: Record, folder: Path) -> Path:
    """Writes the record of a session into its folder, with the runs that ended before.

    Called as each run ends with that run alone: runs already on disk are kept, so a crash in the last
    run loses nothing.

    Args:
        record: The cell, holding the newest run (or runs).
        folder: The session's folder, where eva puts its `results.json`.

    Returns:
        The path of the record.

    Raises:
        RecordError: If the record there is of other settings, or cannot be written.
    """
    path = folder / RECORD_FILE
    if path.exists():
        earlier = read_record(path)
        if _settings(earlier) != _settings(record):
            raise RecordError(f"{path} is of other settings than this run; use another OUTPUT_ROOT")
        new = {run.run for run in record.runs}
        runs = sorted([*(r for r in earlier.runs if r.run not in new), *record.runs], key=lambda run: run.run)
        record = record.model_copy(update={"runs": runs})
    write_atomically(path, record.to_json())
    return path


def read_record(path: Path) -> Record:
    """Reads a record.

    Raises:
        RecordError: If it is not there, or not valid.
    """
    if not path.is_file():
        raise RecordError(f"there is no record at {path}")
    return Record.from_json(path.read_text(encoding="utf-8"), where=str(path))


def _settings(record: Record) -> dict[str, object]:
    return record.model_dump(mode="json", include={"encoder", "task", "probe"})
