"""The bibliography, `works.bib`, by key."""

import functools
import re
from importlib.resources import files


@functools.cache
def works() -> dict[str, str]:
    """Returns the entries by key."""
    return entries_of((files("tapct.citations") / "works.bib").read_text(encoding="utf-8"))


def entries_of(text: str) -> dict[str, str]:
    """Returns the entries of a BibTeX text by key.

    Braces decide where an entry ends, as BibTeX has it, so that an entry may be laid out in any way.

    Raises:
        ValueError: If an entry has no key, or does not end.
    """
    found: dict[str, str] = {}
    start = text.find("@")
    while start >= 0:
        end = _end_of(text, start)
        entry = text[start:end]
        key = re.match(r"@\w+\s*\{\s*([^,\s}]+)\s*,", entry)
        if key is None:
            raise ValueError(f"an entry of BibTeX without a key: {entry[:60]!r}")
        found[key[1]] = entry
        start = text.find("@", end)
    return found


def _end_of(text: str, start: int) -> int:
    """Returns the place behind the brace that closes the entry which starts there."""
    depth = 0
    for place in range(text.find("{", start), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise ValueError(f"an entry of BibTeX does not end: {text[start : start + 60]!r}")
