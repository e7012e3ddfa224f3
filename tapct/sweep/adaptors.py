"""The adaptors of a sweep: which experiments of a task they make, next to the one of the task's own adaptor."""

from collections.abc import Mapping, Sequence

from tapct.encoders import card_of
from tapct.errors import EncoderError, TaskError
from tapct.sweep.experiment import SweepError
from tapct.sweep.said import say
from tapct.sweep.variants import Variant
from tapct.sweep.varied import TaskConfig

ALL = "all"
"""The heads of a task's kind, in its order, but for those of `ASKED_FOR`; how features are pooled is each encoder's."""

ASKED_FOR = ("generated",)
"""Heads that need more than features, a language model: who wants one names it."""

SETTING = "model.init_args.adaptor"
"""Where a config names its adaptor."""


def parse(asked: str | None) -> list[str]:
    """Returns the names of a comma-separated list, each once, "all" among them; none where nothing is asked for.

    Raises:
        SweepError: If a name does not exist.
    """
    if asked is None:
        return []
    from tapct.probes.adaptors import HEADS, Adaptor  # torch and eva, only where adaptors are asked for

    names = [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise SweepError(f"name at least one adaptor ({', '.join(HEADS)}), or all")
    try:
        adaptors = {name: Adaptor.parse(name) for name in names if name != ALL}
    except TaskError as error:
        raise SweepError(str(error)) from error
    if with_bag := next((one for one in adaptors.values() if one.bag), None):
        raise SweepError(f"'{with_bag.name}': bags are asked for by themselves: --adaptors abmil --bags {with_bag.bag}")
    return list(dict.fromkeys(name if name == ALL else adaptors[name].name for name in names))


def of_task(config: TaskConfig, asked: Sequence[str]) -> list[str | None]:
    """Returns what `variants` takes for a task: None for its own adaptor, so that one experiment never has two labels.

    Args:
        config: The task's config.
        asked: The adaptors; none means the task's own.

    Raises:
        SweepError: If the config names its adaptor, but not by the variable ADAPTOR.
    """
    if not asked:
        return [None]
    plain, heads = config.settings(), config.heads
    own = plain.get(SETTING)
    if own is None and not heads:
        say(f"{config.task} has no adaptors: only its plain experiments run")
        return [None]
    every = [head for head in heads if head not in ASKED_FOR]
    asked = list(dict.fromkeys(one for name in asked for one in (every if name == ALL else [name])))
    asked = [
        one
        for one in asked
        if _is_taken(config.task, heads, one) and _has_masks(config.task, plain, one) and _has_columns(plain, one)
    ]
    if not asked:
        return []
    default = own or heads[0]
    config.require_variable("ADAPTOR", SETTING, next((one for one in asked if one != own), f"{default}:max"), default)
    return [None if one == own else one for one in asked]


def _is_taken(task: str, heads: Sequence[str], adaptor: str) -> bool:
    """Returns whether the probe of a task takes the head of an adaptor, and says so where it does not."""
    head = adaptor.partition(":")[0]
    if not heads or head in heads:
        return True
    say(f"left out: {adaptor} on {task}: its probe takes {', '.join(heads)}")
    return False


def _has_masks(task: str, settings: Mapping[str, str], adaptor: str) -> bool:
    """Returns whether a task has the masks that an adaptor pools over, and says so where it has not."""
    from tapct.probes.adaptors import Adaptor
    from tapct.tasks import list_tasks, task_class

    name = settings.get("data.init_args.task")
    if Adaptor.parse(adaptor).pooling != "mask" or name not in list_tasks() or task_class(name).spec.mask is not None:
        return True
    say(f"left out: {adaptor} on {task}: {name} has no masks to pool over")
    return False


def _has_columns(settings: Mapping[str, str], adaptor: str) -> bool:
    """Returns whether a task has the columns of an adaptor's table, and says so where it has not."""
    from tapct.probes.adaptors import Adaptor
    from tapct.tasks import list_tasks, task_class

    name, table = settings.get("data.init_args.task"), Adaptor.parse(adaptor).table
    if not table or name not in list_tasks():
        return True
    try:
        task_class(name).spec.named(table)
    except TaskError as error:
        say(f"left out: {adaptor}: {error}")
        return False
    return True


def fits(variant: Variant) -> bool:
    """Returns whether an encoder has what its adaptor pools, and says so where it has not."""
    if "ADAPTOR" not in variant.variables:
        return True
    from tapct.probes.adaptors import Adaptor

    adaptor = Adaptor.parse(variant.variables["ADAPTOR"])
    try:
        if adaptor.is_solved:
            adaptor.pooling_of(card_of(variant.encoder))
    except (TaskError, EncoderError) as error:
        say(f"left out: {variant.label}: {error}")
        return False
    return True
