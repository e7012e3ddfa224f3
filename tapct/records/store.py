"""Writing records so that nothing is lost, and reading those of a folder."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tapct._utils import files
from tapct.errors import RecordError
from tapct.records.cases import CASES_FILE
from tapct.records.execution import Execution
from tapct.records.parquet import cases_parquet
from tapct.records.record import Record, Recorded

RECORD_FILE = "record.json"

MOST_BYTES = 2**30
"""What a record's file may have; 118 classes of 1,000 cases in five runs take a tenth of it."""


_Record = TypeVar("_Record", bound=Recorded)


@dataclass(frozen=True)
class RecordsFound(Generic[_Record]):
    """The records of a results folder.

    Attributes:
        valid: Path to record, sorted by path.
        invalid: Path to why it cannot be used.
    """

    valid: dict[Path, _Record]
    invalid: dict[Path, str]

    @classmethod
    def of(cls, paths: Iterable[Path], read: Callable[[Path], _Record]) -> "RecordsFound[_Record]":
        """Reads records; what cannot be read, or is not complete, is invalid."""
        found = cls({}, {})
        for path in paths:
            try:
                record = read(path)
            except RecordError as error:
                found.invalid[path] = str(error)
                continue
            if record.complete:
                found.valid[path] = record
            else:
                found.invalid[path] = f"{path} holds {len(record.runs)} of {record.runs_planned} runs"
        return found


def read_records(results: str | Path, task: str = "*") -> RecordsFound[Record]:
    """Reads the published records of a results folder, `RESULTS/TASK/EXPERIMENT/record.json`.

    What eva wrote under `EXPERIMENT/sessions/`, and records put aside (`replaced-TIME-record.json`), are not results.

    Args:
        results: The folder.
        task: Only this task's.

    Raises:
        RecordError: If the folder is not there.
    """
    return RecordsFound.of(paths_of(Path(results), task), read_record)


def paths_of(results: Path, task: str = "*") -> list[Path]:
    """Returns where the published records of a results folder are.

    Raises:
        RecordError: If the folder is not there.
    """
    if not results.is_dir():
        raise RecordError(f"there is no results folder {results}")
    return [
        experiment / RECORD_FILE for experiment in sorted(results.glob(f"{task}/*")) if _may_have_record(experiment)
    ]


def _may_have_record(experiment: Path) -> bool:
    """Returns whether a record is there or cannot be reached, which who reads it then says: no row just vanishes."""
    path = experiment / RECORD_FILE
    try:
        return path.exists() or path.is_symlink() or not experiment.exists()  # links to a disk that is not mounted
    except OSError:  # a folder that is not ours to read
        return True


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
    """Writes the record of a session into its folder, with the runs that ended before, and its cases as a table.

    Called as each run ends with that run alone: runs already on disk are kept, so a crash in the last
    run loses nothing. The table goes first: a record that is there has its table, and one that was not reached
    leaves a table of another fingerprint, which `read_cases` refuses and the next write replaces.

    Args:
        record: The experiment, holding the newest run (or runs).
        folder: The session's folder, where eva puts its `results.json`.

    Returns:
        The path of the record.

    Raises:
        RecordError: If the record there is of other settings, or either file cannot be written or would not be valid.
    """
    path = folder / RECORD_FILE
    if path.exists():
        record = _joined(read_record(path), record, path)
    text = record.to_json()
    Record.from_json(text, where=f"what would be written to {path}")
    write_atomically(folder / CASES_FILE, cases_parquet(record, text))
    write_atomically(path, text)
    return path


def read_record(path: str | Path) -> Record:
    """Reads a record.

    Raises:
        RecordError: If it is not there, cannot be read, or is not valid.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise RecordError(f"there is no record at {path}")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecordError(f"{path} is not a record: it has {size:,} bytes, and the largest have {MOST_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    return Record.from_json(text, where=str(path))


def _joined(earlier: Record, record: Record, path: Path) -> Record:
    """Returns a record with the runs of an earlier one that it does not have itself."""
    if _settings(earlier) != _settings(record):
        raise RecordError(f"{path} is of other settings than this run; use another OUTPUT_ROOT")
    runs = {run.run: run for run in [*earlier.runs, *record.runs]}
    execution = _with_all_runs(earlier.execution, record.execution)
    joined: dict[str, Any] = {"runs": [runs[run] for run in sorted(runs)], "execution": execution}
    if len(runs) > len(record.runs):  # one run of an older protocol makes the experiment one
        joined["older_schema"] = record.older_schema or earlier.older_schema
    return record.model_copy(update=joined)


def _with_all_runs(earlier: Execution, latest: Execution) -> Execution:
    """Returns how the latest runs were executed, with the times of those before and the seconds of all."""
    runs = {run.run: run for run in [*earlier.runs, *latest.runs]}
    if not runs:
        return latest
    seconds: dict[str, float] = defaultdict(float)
    for run in runs.values():
        for stage, value in run.seconds.items():
            seconds[stage] += value
    total = {stage: round(value, 2) for stage, value in seconds.items()}
    return latest.model_copy(update={"seconds": total, "runs": tuple(runs[run] for run in sorted(runs))})


def _settings(record: Record) -> dict[str, object]:
    return {"encoder": record.encoder.settings(), "task": record.task.content(), "probe": record.probe.content()}
