"""What is beaten by what: each model of a task beside the rows to beat, pair by pair.

A model that is not better than voxel statistics, hand-made features, random filters or its own random weights has not
been shown to know anything that its pretraining gave it. The differences are those that ranks are made of.
"""

from collections.abc import Iterator, Mapping, Sequence

from tapct.encoders import is_installed
from tapct.leaderboard.board import Model, Task
from tapct.leaderboard.page.sections import Table
from tapct.leaderboard.summary import Difference

MOST_LINES = 20
"""Models that are lines at most, the best; and all controls."""

OWN = "its own random weights"
TITLE = "What is beaten by what"


def beaten(task: Task, models: Sequence[Model]) -> Table | None:
    """Returns the table of a task; None where there is no row to beat.

    Args:
        task: The task.
        models: Those that have a number on it, best first.
    """
    own = {model.name: twin.name for model in models if (twin := _random_twin(model, models)) is not None}
    plain = [model for model in models if model.is_control and not model.random]
    if len(models) < 2 or not (own or plain):
        return None
    pairs = _pairs(task)

    def line(model: Model) -> list[str]:
        twin = [_said(task, model.name, own.get(model.name), pairs)] if own else []
        return [model.name, *twin, *(_said(task, model.name, other.name, pairs) for other in plain)]

    lines = [model for place, model in enumerate(models) if place < MOST_LINES or model.is_control]
    return Table(
        title=TITLE,
        corner="model",
        heads=[*([OWN] if own else []), *(model.name for model in plain)],
        rows=[line(model) for model in lines],
        note=_note(task, models),
        open=True,
    )


def _random_twin(model: Model, models: Sequence[Model]) -> Model | None:
    """Returns the model with the same settings and random weights; None where nobody ran it."""
    if model.is_control:
        return None
    wanted = model.label.replace("@random", "")
    return next((one for one in models if one.random and one.label.replace("@random", "") == wanted), None)


def _pairs(task: Task) -> Mapping[tuple[str, str], Difference]:
    return {(one.first, one.second): one for one in task.summaries["native"].comparison.differences}


def _said(task: Task, name: str, other: str | None, pairs: Mapping[tuple[str, str], Difference]) -> str:
    """Returns what one model's number is against another's: above 0 is better, whatever the metric."""
    if other is None or name == other:
        return ""
    sign, digits = task.of_metric.sign, task.of_metric.digits
    found = pairs.get((name, other)) or pairs.get((other, name))
    if found is None:
        one, two = (task.summary(each, "native") for each in (name, other))
        values = [each.estimate.value for each in (one, two) if each is not None]
        if len(values) < 2 or None in values:
            return "not compared"
        return f"{_number(sign * (values[0] - values[1]), digits, '+')}, not compared"  # type: ignore[operator]
    sign = sign if found.first == name else -sign
    of = found.estimate
    verdict = "" if found.better is None else "beats " if found.better == name else "beaten "
    gap = f"{verdict}{_number(sign * (of.value or 0.0), digits, '+')}"
    if of.low is None or of.high is None:
        return gap
    low, high = (_number(end, digits) for end in sorted((sign * of.low, sign * of.high)))
    return f"{gap} ({low} to {high})"


def _number(value: float, digits: int, sign: str = "") -> str:
    """Returns a number as text; what rounds to 0 has no minus."""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def _note(task: Task, models: Sequence[Model]) -> str:
    unit = f", in {unit}" if (unit := task.of_metric.unit_of(task.target_unit)) else ""
    said = (
        f"The model of a line less that of a column ({task.of_metric.title}{unit}; above 0 is better), with the 95 % "
        "interval of that pair over patients. It beats, or is beaten, only where that holds for all pairs of the task "
        "at once; all else cannot be told apart."
    )
    if reason := task.summaries["native"].comparison.reason:
        said += f" Of the comparison: {reason}."
    missing = [*_not_run(task, models)]
    return said + (f" Rows to beat that nobody ran here: {', '.join(missing)}." if missing else "")


def _not_run(task: Task, models: Sequence[Model]) -> Iterator[str]:
    """Yields the rows to beat of the task's kind that have no number on it."""
    there = {model.card.name for model in models} | {adaptor for _, adaptor in task.crossed} | {task.adaptor}
    if any(model.random for model in models):
        there.add("random weights")
    for name in task.kind.beside:
        if name not in there and (is_installed(name) or name == "random weights" or ":" in name):
            yield name
