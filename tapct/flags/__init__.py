"""Red flags: what must be looked at before the numbers of a record are believed.

A flag is not a verdict. It says what was found, what that would mean, and what to check. Some show in a record by
itself (`own_flags`), some only next to the other experiments of its task (`cross_flags`). All of it is advice: a check
that fails is a flag itself, and never fails an experiment that has trained.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from tapct.flags import alone, pairs
from tapct.flags.chance import against_chance
from tapct.flags.messages import CROSS, MESSAGES, RaisedFlags, flag
from tapct.records import Flag, Record, Recorded, find_records
from tapct.records.paths import without_folders
from tapct.records.types import shown

__all__ = ["CROSS", "MESSAGES", "cross_flags", "own_flags", "with_cross_checks", "with_own_checks"]


def with_own_checks(record: Record) -> Record:
    """Returns a record with the flags that show in it alone, and none other."""
    return record.model_copy(update={"flags": own_flags(record)})


def with_cross_checks(record: Record, results: Path) -> Record:
    """Returns a record with the flags that show next to the other experiments of its task; its own ones stay.

    Args:
        record: The record that is to be published.
        results: The results folder; its records of the task are read (those that are not valid are passed over), the
            record's own among them if it is there.
    """
    others: list[Recorded] = []

    def reading_the_other_experiments() -> RaisedFlags:
        if results.is_dir():
            others.extend(find_records(results, record.task.name).valid.values())
        yield from ()

    failed = _found(reading_the_other_experiments)
    kept = [one for one in record.flags if one.id not in CROSS]
    return record.model_copy(update={"flags": [*kept, *failed, *cross_flags(record, others)]})


def own_flags(record: Record) -> list[Flag]:
    """Returns the flags of a record by itself."""
    return [one for check in (against_chance, *alone.CHECKS) for one in _found(check, record)]


def cross_flags(record: Record, others: Sequence[Recorded]) -> list[Flag]:
    """Returns the flags of a record next to others; of another task or split they say nothing."""
    comparable = [other for other in others if pairs.same_question(record, other)]
    equal = [one for other in comparable for one in _found(pairs.equal, record, other)]
    random = [one for other in comparable for one in _found(pairs.random_weights, record, other)]
    return [*equal, *random[:1]]


def _found(check: Callable[..., RaisedFlags], *records: Recorded) -> list[Flag]:
    """Returns what a check finds; where it fails, that."""
    try:
        return [flag(*found) for found in check(*records)]
    except Exception as error:  # noqa: BLE001 a check is advice: whatever is wrong with it, the experiment has trained
        why = shown(without_folders(f"{type(error).__name__}: {error}"), 300)
        return [flag("check-failed", f"{check.__name__.strip('_').replace('_', ' ')}: {why}")]
