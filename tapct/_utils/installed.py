"""What packages install under a group of entry points: ours and a third party's the same way.

A name that ships is ours alone, and one that two third parties give is nobody's: a record says little more of what it
was made with than the name.
"""

from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import EntryPoint

OURS = "tapct-bench"
"""The distribution whose names are taken."""

SortedEntryPoints = tuple[dict[str, EntryPoint], dict[str, str]]
"""Entry points by name, in alphabetical order, and by name what is refused and why."""


def sorted_out(points: Iterable[EntryPoint], what: str) -> SortedEntryPoints:
    """Returns the entry points of a group that can be used, and those that cannot.

    Args:
        points: All that are installed.
        what: What they are, for messages.
    """
    by_name: dict[str, list[EntryPoint]] = defaultdict(list)
    for point in points:
        by_name[point.name].append(point)
    found, refused = {}, {}
    for name, of_name in sorted(by_name.items()):
        third_parties = [point for point in of_name if not is_ours(point)]
        if len(third_parties) == len(of_name) == 1 or not third_parties:
            found[name] = of_name[0]
            continue
        who = " and ".join(distribution(point) for point in third_parties)
        if len(third_parties) == len(of_name):
            refused[name] = f"two {what}s have the name '{name}', of {who}: uninstall one, or rename it"
        else:
            found[name] = next(point for point in of_name if is_ours(point))
            refused[name] = f"the {what} '{name}' of {who} is refused: the name ships with {OURS}. Give it another"
    return found, refused


def is_ours(point: EntryPoint) -> bool:
    """Returns whether an entry point ships with us."""
    return point.dist is not None and point.dist.name == OURS


def distribution(point: EntryPoint) -> str:
    """Returns what installed an entry point, with its version."""
    return "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"
