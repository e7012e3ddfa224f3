"""Kinds of task: what is predicted, what a record holds of it, how it is compared and shown; one module each.

Everything else (split, features, seeds, selection, record, bootstrap, page) is written once, and asks the kind.
"""

import functools
import importlib
from importlib.metadata import EntryPoint, entry_points

from tapct.errors import TaskError, nearest
from tapct.installed import sorted_out
from tapct.kinds.base import (
    STEPPED_HEADS,
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
    "GROUP",
    "KINDS",
    "STEPPED_HEADS",
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
]

KINDS = ("segmentation", "classification", "regression", "survival", "localisation")
"""Ours, in the order of the page, each in the module of its name here."""

GROUP = "tapct.kinds"
"""Entry points of strangers' kinds: NAME = "module:KIND"."""


def list_kinds() -> list[str]:
    """Returns the names of all kinds: ours, then those of other packages in alphabetical order."""
    return [*KINDS, *sorted(_others())]


@functools.cache
def kind(name: str) -> Kind:
    """Returns a kind.

    Raises:
        TaskError: If there is none of that name, or its entry point gives none of that name.
    """
    if name in KINDS:
        return importlib.import_module(f"{__name__}.{name}").KIND
    if name not in _others():
        raise TaskError(f"there is no kind of task '{name}'. {nearest(name, list_kinds())}")
    point = _others()[name]
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise TaskError(f"the kind of task '{name}' cannot be imported ({point.value}): {error}") from error
    if not isinstance(found, Kind) or found.name != name:
        raise TaskError(f"the entry point '{name}' = {point.value} is no `tapct.kinds.Kind` of that name")
    return found


def of_probe(class_path: str) -> Kind | None:
    """Returns the kind whose probe a config names, by the last part of its path; None if it is none of a kind."""
    by_probe = {kind(name).probe.rpartition(":")[2]: kind(name) for name in list_kinds()}
    return by_probe.get(class_path.rpartition(".")[2])


@functools.cache
def metric(name: str) -> Metric:
    """Returns a metric by its name in records.

    Raises:
        TaskError: If no kind has it.
    """
    for each in map(kind, list_kinds()):
        if name in each.by_name:
            return each.by_name[name]
    raise TaskError(f"no kind of task has the metric '{name}'")


@functools.cache
def _others() -> dict[str, EntryPoint]:
    """Returns the entry points of strangers; a name of ours is ours alone."""
    found, _ = sorted_out(entry_points(group=GROUP), "kind of task")
    return {name: point for name, point in found.items() if name not in KINDS}
