"""The mistakes of a sweep: which of them make experiments of a task."""

from tapct.encoders.mistake_names import MISTAKE_NAMES, SHOWS_IN_MAPS
from tapct.sweep.experiment import choose
from tapct.sweep.said import say
from tapct.sweep.varied import TaskConfig

_OF_EMBEDDINGS = ("ClassificationProbe", "RegressionProbe", "SurvivalProbe")
"""Probes to which it makes no difference where a map lies."""


def of_task(config: TaskConfig, asked: str | None) -> dict[str, bool]:
    """Returns the mistakes to make on a task, and whether each was asked for by its name.

    A mistake that differs from another in where a map is taken to lie is left out of tasks that read embeddings, and
    that is said: there it would be the other one's number under a second name.

    Args:
        config: The task's config.
        asked: Names by comma, or "all"; None is none.

    Raises:
        SweepError: If there is no such mistake.
    """
    if asked is None:
        return {}
    found = dict.fromkeys(choose("mistake", asked, dict.fromkeys(MISTAKE_NAMES, True)), asked != "all")
    reads_embeddings = config.settings().get("model.class_path", "").endswith(_OF_EMBEDDINGS)
    for mistake, same in SHOWS_IN_MAPS.items():
        if mistake in found and reads_embeddings:
            del found[mistake]
            say(f"left out: {mistake} on {config.task}: where its map lies is not read there; {same} is the same")
    return found
