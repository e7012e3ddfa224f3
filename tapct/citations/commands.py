"""What `tapct cite` does."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tapct.errors import RecordError

if TYPE_CHECKING:
    from tapct.citations.cited import Cited


def cite(
    records: list[str],
    /,
) -> int:
    """Prints what to cite for results, as BibTeX: the task's data, the encoder, eva and TAP-CT Bench.

    Where nothing is established, a comment says so; nothing is made up.

    Args:
        records: Files record.json, folders of one, folders of results, or names of encoders and tasks.

    Returns:
        The exit status.
    """
    from tapct.citations.cited import BENCHMARK

    found = [one for what in records for one in _cited(what)]
    print(*_lines([*found, BENCHMARK]), sep="\n")
    return 0


def _cited(what: str) -> "Iterator[Cited]":
    """Yields what to cite for a record, for the records of a folder, or for an encoder or a task by its name.

    Raises:
        RecordError: If it is none of them.
    """
    from tapct.citations import cited
    from tapct.encoders import list_declared, list_encoders
    from tapct.encoders.registry import card_of
    from tapct.errors import nearest
    from tapct.records import RECORD_FILE, read_record
    from tapct.records.store import paths_of
    from tapct.tasks import list_tasks

    path = Path(what).expanduser()
    if path.is_file() or (path / RECORD_FILE).is_file():
        yield from cited.of_record(read_record(path if path.is_file() else path / RECORD_FILE))
    elif what in list_tasks():
        yield cited.of_task(what)
    elif what in (encoders := [*list_encoders(), *list_declared()]):
        yield cited.of_encoder(what, card_of(what).reference)
    elif path.is_dir() and (paths := [one for one in paths_of(path) if one.is_file()]):
        for one in paths:
            yield from cited.of_record(read_record(one))
    elif "/" in what or what.endswith(".json"):
        raise RecordError(f"there is no record at {what}, and none below it")
    else:
        raise RecordError(
            f"'{what}' is neither a record, a folder of results, nor the name of an encoder or a task. "
            f"{nearest(what, [*encoders, *list_tasks()])}"
        )


def _lines(all_cited: "Iterable[Cited]") -> Iterator[str]:
    """Yields the text: each thing once with its reason as a comment, each entry once."""
    said: set[str] = set()
    printed: set[str] = set()
    for one in all_cited:
        if one.what in said:
            continue
        said.add(one.what)
        yield f"% {one.what}{'' if one.why is None else f': {_in_one_line(one.why)}'}"
        again = [key for key in one.entries if key in printed]
        if again:
            yield f"% as above: {', '.join(again)}"
        for key, entry in one.entries.items():
            if key not in printed:
                printed.add(key)
                yield entry
        yield ""


def _in_one_line(text: str) -> str:
    """Returns a text whose every line is a comment; what begins an entry would be read as one in a comment as well."""
    return " ".join(text.split()).replace("@", "(at)")
