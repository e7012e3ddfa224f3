"""Kinds of task: what is predicted, what a record holds of it, how it is compared and shown; one module each.

Everything else (split, features, seeds, selection, record, bootstrap, page) is written once, and asks the kind.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from tapct._utils.installed import OURS, SortedEntryPoints, distribution, sorted_out
from tapct.errors import TaskError, nearest
from tapct.kinds.base import (
    ATTENTION_HEADS,
    STEPPED_HEADS,
    TABLE_HEADS,
    TARGET,
    Cases,
    Field,
    Kind,
    Mean,
    Metric,
    Number,
    PairRank,
    Statistic,
)

__all__ = [
    "ATTENTION_HEADS",
    "GROUP",
    "KINDS",
    "STEPPED_HEADS",
    "TABLE_HEADS",
    "TARGET",
    "Cases",
    "Field",
    "Kind",
    "Mean",
    "Metric",
    "Number",
    "PairRank",
    "Statistic",
    "kind",
    "list_kinds",
    "metric",
    "of_probe",
    "refused_kinds",
]

KINDS = (
    *("segmentation", "classification", "regression", "survival", "localisation", "retrieval", "report"),
    "reliability",
)
"""Ours, in the order of the page, each in the module of its name here."""

GROUP = "tapct.kinds"
"""Entry points of third-party kinds: NAME = "module:KIND"."""


def list_kinds() -> list[str]:
    """Returns the names of all kinds: ours, then those of other packages in alphabetical order."""
    return [*KINDS, *_third_parties()[0]]


@functools.cache
def kind(name: str) -> Kind:
    """Returns a kind.

    Raises:
        TaskError: If there is none of that name, two packages give one, its entry point cannot be imported or gives
            none of that name, or a metric of it has the name of one of ours.
    """
    if name in KINDS:
        return importlib.import_module(f"{__name__}.{name}").KIND
    found, refused = _third_parties()
    if name not in found:
        raise TaskError(refused.get(name, f"there is no kind of task '{name}'. {nearest(name, list_kinds())}"))
    return _loaded(found[name])


def _loaded(point: EntryPoint) -> Kind:
    what = f"the kind of task '{point.name}' of {distribution(point)}"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"{what} cannot be imported ({point.value}): {type(error).__name__}: {error}. Fix or uninstall it"
        ) from error
    if not isinstance(found, Kind) or found.name != point.name:
        raise TaskError(f"{what} ({point.value}) is no `tapct.kinds.Kind` of that name")
    for ours in map(kind, KINDS):
        if taken := sorted(found.by_name.keys() & ours.by_name.keys()):
            raise TaskError(
                f"{what} has the metric '{taken[0]}', which is one of {ours.name}: numbers of both would stand under "
                "one name. Give it another"
            )
    return found


def of_probe(class_path: str) -> Kind | None:
    """Returns the kind whose probe a config names, by its package and class; None if it is none of a kind."""
    package, name = class_path.partition(".")[0], class_path.rpartition(".")[2]
    probes = ((each, *each.probe.partition(":")[::2]) for each in _usable())
    return next((each for each, module, cls in probes if (module.partition(".")[0], cls) == (package, name)), None)


@functools.cache
def metric(name: str) -> Metric:
    """Returns a metric by its name in records.

    Raises:
        TaskError: If no kind has it, or two of other packages do.
    """
    having = []
    for each in _usable():
        if name in each.by_name:
            if each.name in KINDS:
                return each.by_name[name]
            having.append(each)
    if not having:
        raise TaskError(f"no kind of task that can be used has the metric '{name}' (`tapct doctor` says which cannot)")
    if len(having) > 1:
        who = " and ".join(f"'{each.name}'" for each in having)
        raise TaskError(f"the kinds of task {who} have a metric '{name}' each: uninstall one, or rename it")
    return having[0].by_name[name]


def refused_kinds() -> list[str]:
    """Returns, a sentence each, the kinds that are installed and not listed, with the distribution and why."""
    return list(_third_parties()[1].values())


def _usable() -> Iterator[Kind]:
    """Yields the kinds: ours, then those of others; what cannot be used harms nobody who does not ask for it."""
    yield from map(kind, KINDS)
    for name in _third_parties()[0]:
        with contextlib.suppress(TaskError):
            yield kind(name)


@functools.cache
def _third_parties() -> SortedEntryPoints:
    """Returns third-party entry points by name, and by name what is refused and why; a name of ours is ours."""
    found, refused = sorted_out(entry_points(group=GROUP), "kind of task")
    for name in found.keys() & set(KINDS):
        refused[name] = (
            f"the kind of task '{name}' of {distribution(found.pop(name))} is refused: the name ships with {OURS}. "
            "Give it another"
        )
    return found, refused
