"""What `tapct cache ls|verify|rm` does: looks after stored features."""

import json as json_lib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from rich import box

from tapct._utils import terminal
from tapct._utils.files import features_folder
from tapct.arguments import ENCODER, NUMBER, TASK
from tapct.errors import FeatureError

if TYPE_CHECKING:
    from tapct.features.store import TensorStore


def ls(
    *,
    folder: str | None = None,
    json: bool = False,
) -> int:
    """Lists what is stored, by encoder and task.

    Args:
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.
        json: Print JSON instead of a table.

    Returns:
        The exit status.
    """
    from tapct.features import commands, leases

    store = _store(folder)
    rows = commands.summarise(list(commands.entries(store)), leases.seen(store.folder))
    total = sum(row.nbytes for row in rows)
    if json:
        rows_found = [asdict(row) for row in rows]
        print(json_lib.dumps({"folder": str(store.folder), "nbytes": total, "rows": rows_found}, indent=1))
        return 0
    columns = ("encoder", "task", "cases", "with map", "in use", "GiB", "last used (UTC)")
    table = terminal.Columns(box=box.SIMPLE, collapse_padding=True, pad_edge=False, show_footer=True)
    for column in columns:
        table.add_column(column, no_wrap=True)
    table.columns[0].footer, table.columns[5].footer = "total", _gib(total)
    for row in rows:
        counts = (str(row.cases), str(row.maps), "?" if row.in_use is None else str(row.in_use))
        table.add_row(row.encoder, row.task, *counts, _gib(row.nbytes), row.last_used[:16].replace("T", " "))
    terminal.output().print(table)
    print(store.folder)
    return 0


def verify(
    *,
    folder: str | None = None,
) -> int:
    """Reads everything that is stored, and lists what is damaged.

    Args:
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.

    Returns:
        The exit status: 1 if anything is damaged.
    """
    from tapct.features import commands

    store = _store(folder)
    stored = list(commands.entries(store))
    found = commands.broken(store, stored)
    for entry in stored:
        if entry.key in found:
            print(f"{entry.encoder}, {entry.task}, case {entry.case}: {found[entry.key]}")
    print(f"{len(found)} of {len(stored)} entries in {store.folder} are damaged")
    return int(bool(found))


def rm(
    *,
    folder: str | None = None,
    broken: bool = False,
    encoder: Annotated[str | None, ENCODER] = None,
    task: Annotated[str | None, TASK] = None,
    unused_days: Annotated[float | None, NUMBER] = None,
    all: bool = False,
) -> int:
    """Removes stored features that meet every condition given; they are computed again when a run needs them.

    What a running process needs stays.

    Args:
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.
        broken: Remove entries that are damaged, and what killed processes left half written.
        encoder: Remove entries of this encoder, with all its options or only with those that are given; "labels" stands
            for the labels, which encoders share.
        task: Remove entries of this task.
        unused_days: Remove entries that no run has used for so many days.
        all: Remove everything.

    Returns:
        The exit status.
    """
    from tapct.features import commands, leases

    if not (broken or all) and encoder is None and task is None and unused_days is None:
        raise FeatureError(
            "say what to remove: --broken, --encoder NAME, --task NAME, --unused-days N (together: what meets all of "
            "them), or --all. `tapct cache ls` shows what there is"
        )
    store = _store(folder)
    found = commands.select(store, only_broken=broken, encoder=encoder, task=task, unused_days=unused_days)
    with leases.needed(store.folder) as needed:
        chosen = [entry for entry in found if entry.key not in needed]
        for entry in chosen:
            store.remove(entry.key)
    for row in commands.summarise(chosen):
        print(f"{row.encoder}, {row.task}: {row.cases} cases, {_gib(row.nbytes)} GiB")
    left = store.sweep() if broken or all else 0
    if left:
        print(f"half written: {_gib(left)} GiB")
    total = sum(entry.nbytes for entry in chosen) + left
    print(f"removed {len(chosen)} entries, {_gib(total)} GiB, from {store.folder}")
    if in_use := len(found) - len(chosen):
        print(f"left {in_use} entries, for running processes need them")
    return 0


def _store(folder: str | None) -> "TensorStore":
    from tapct.features.store import TensorStore

    store = TensorStore(folder or features_folder())
    if not store.folder.is_dir():
        raise FeatureError(
            f"there is no folder {store.folder}: nothing was stored there. Name another with --folder or TAPCT_FEATURES"
        )
    return store


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.3f}"
