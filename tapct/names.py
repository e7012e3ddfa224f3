"""Names of cases, patients, splits: which can be told apart by eye and on any disk, and stay in their folder.

How names of adaptors are put together, and a few names that several packages share.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

SHIPPED_SPLITS = ("eva",)
"""What stands for a file as another split than a task's own: "eva" is the lists of eva's class, for the tasks that ship
them (`splits/<task>-<name>.csv`)."""

ABOUT_FILE = "cell.json"
"""Next to a sweep's record: the settings that it was asked under, and its fingerprint, which binds the two."""

LISTED = 5
"""Names that a message lists."""

LONGEST_NAME = 100
"""Characters. With what a file is called next to it, it fits into the 255 bytes of a file's name."""

Keep = Literal["all", "embeddings", "none"]
"""What stays of stored features once every head of an experiment is scored: all; embeddings of windows without maps; or
nothing. Labels, pooled vectors and channel moments stay: they are small, and other experiments need them."""

TABLE = "table="
"""How an adaptor names columns of a table: `HEAD:table=COLUMN+COLUMN`, `HEAD:POOLING&table=COLUMN+COLUMN`."""


def adaptor_parts(adaptor: str) -> tuple[str, str, str]:
    """Returns the head of an adaptor, how it pools features (empty where it reads none, or says nothing), its columns.

    Of `cox:mean&table=age+stage`, "cox", "mean" and "age+stage"; without a table, the last is empty.
    """
    head, _, rest = adaptor.partition(":")
    if rest.startswith(TABLE):
        return head, "", rest.removeprefix(TABLE)
    pooling, _, table = rest.partition(f"&{TABLE}")
    return head, pooling, table


def reads_no_features(adaptor: str) -> bool:
    """Returns whether an adaptor is of a table alone: what it says is the same for every encoder."""
    _, pooling, table = adaptor_parts(adaptor)
    return bool(table) and not pooling


def fault(name: str) -> str | None:
    """Returns what is wrong with a name, to follow the name in a sentence; None if nothing is."""
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if not name.isprintable():
        odd = next(character for character in name if not character.isprintable())
        return f"holds U+{ord(odd):04X}, which is a control character, turns the direction of writing, or is not seen"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, more than {LONGEST_NAME}"
    return None


def path_fault(name: str) -> str | None:
    """Returns what is wrong with a name that files and folders are called after; None if nothing is.

    Such a name may be a path below the folder, as `PATIENT/SERIES`, and nowhere else.
    """
    if (wrong := fault(name)) is not None:
        return wrong
    parts = name.split("/")
    if "\\" in name or name.startswith("~") or (len(name) > 1 and name[1] == ":") or not all(parts):
        return "would lead out of its folder, or is not a path on every system"
    if any(part in (".", "..") for part in parts):
        return "would lead out of its folder"
    if any(part != part.strip() for part in parts):
        return "has a part that begins or ends with a blank"
    return None


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns two different names that differ by blanks, case or Unicode form alone; None if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        if seen.setdefault(form(name), name) != name:
            return seen[form(name)], name
    return None


def file_in(folder: Path, name: str, suffix: str) -> Path:
    """Returns the file of a folder that is called after a case.

    Args:
        folder: The folder.
        name: Name of the case.
        suffix: What follows it, such as ".png".

    Raises:
        ValueError: If the file would be elsewhere.
    """
    if (wrong := path_fault(name)) is not None:
        raise ValueError(f"no file can be called after {name!r}, which {wrong}")
    return folder / f"{name}{suffix}"


def form(name: str) -> str:
    """Returns what is the same for names that a reader, a disk or another program may take for one."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(folded.split())


def listed(names: Sequence[object], between: str = ", ") -> str:
    """Returns the first names as a message lists them, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return between.join(map(str, names[:LISTED])) + more
