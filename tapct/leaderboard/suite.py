"""The suite: which tasks a mean rank is over.

It is declared for the page, never made of what a model happens to have. Unless `--suite` names it, it is the *core*:
the tasks of the benchmark (`core_tasks`) without a notice that at least half of the models, and two at least, have a
number on, of those models that have one on any such task of the family. So one record of a task that nobody else has
run takes no mean rank from those who have not run it, and neither does a task of somebody's own or one that eva adds;
what is run widely enters by itself.

A model that misses a task of the suite has no mean rank over it. A mean over the tasks that it has would be of easier
or harder tasks than the others', and of ranks among fewer or weaker models: run where it is strong, it would lead. It
keeps its ranks on each task, and its mean rank over a family that it has in full.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapct.errors import RecordError

if TYPE_CHECKING:
    from tapct.leaderboard.board import Task

FEWEST_MODELS = 2


@dataclass(frozen=True)
class RankedSuite:
    """The tasks of mean ranks.

    Attributes:
        tasks: Their names, in the order of the page.
        declared: Whether they were named, and are not the core.
    """

    tasks: tuple[str, ...]
    declared: bool = False


def core(tasks: Sequence["Task"], shipped: Collection[str]) -> RankedSuite:
    """Returns the tasks of the benchmark that half of the models have a number on.

    Args:
        tasks: The tasks of a board.
        shipped: Names of the tasks of the benchmark.
    """
    found = [
        (task.name, task.family, {model.name for model in summary.models if model.estimate.value is not None})
        for task in tasks
        if task.name in shipped and (summary := task.summaries.get("native")) and not summary.notice
    ]
    of_family: dict[str, set[str]] = defaultdict(set)
    for _, family, models in found:
        of_family[family] |= models
    return RankedSuite(
        tuple(name for name, family, models in found if len(models) >= max(FEWEST_MODELS, len(of_family[family]) / 2))
    )


def declared(names: Sequence[str], tasks: Sequence["Task"]) -> RankedSuite:
    """Returns a suite of named tasks.

    Args:
        names: Their names.
        tasks: The tasks of a board.

    Raises:
        RecordError: If one has no record that compares, or is a demonstration.
    """
    there = {task.name: task for task in tasks if task.summaries}
    for name in names:
        if name not in there:
            raise RecordError(f"--suite: no record is of {name}. There are some of {', '.join(there) or 'no task'}")
        if notice := there[name].summaries["native"].notice:
            raise RecordError(f"--suite: {name} enters no mean rank: {notice}")
    return RankedSuite(tuple(name for name in there if name in names), declared=True)
