"""What is beaten by what: each model of a task next to the rows to beat, pair by pair.

A model that is not better than voxel statistics, hand-made features, random filters or its own random weights has not
been shown to know anything that its pretraining gave it; one that is not better than age and sex, nothing that the scan
was needed for. The differences are those that ranks are made of; tables, which have no rank, are compared with the
models in the same way.
"""

from collections.abc import Iterator, Mapping, Sequence

from tapct.encoders import is_installed
from tapct.leaderboard.board import Model, Task
from tapct.leaderboard.gains import columns_of, tables_alone
from tapct.leaderboard.page.sections import PageTable
from tapct.names import TABLE, adaptor_parts
from tapct.statistics.inputs import from_records
from tapct.statistics.summary import Difference, TaskSummary, summarise_task
from tapct.tasks import list_tasks, task_class

MOST_LINES = 20
"""Models that are lines at most, the best; and all controls."""

OWN = "its own random weights"
TITLE = "What is beaten by what"


def beaten(task: Task, models: Sequence[Model]) -> PageTable | None:
    """Returns the table of a task; None where there is no row to beat.

    Args:
        task: The task.
        models: Those that have a number on it, best first.
    """
    own = {model.name: twin.name for model in models if (twin := _random_twin(model, models)) is not None}
    plain = [model.name for model in models if model.is_control and not model.random]
    lines = [model for place, model in enumerate(models) if place < MOST_LINES or model.is_control]
    tables = _tables(task)
    if len(models) + len(tables) < 2 or not (own or plain or tables):
        return None
    found = _with_tables(task, lines, tables) if tables else None
    pairs, values = _pairs(found) | _pairs(task.summaries["native"]), _values(found) | _values(task.summaries["native"])

    def line(name: str) -> list[str]:
        twin = [_said(task, name, own.get(name), pairs, values)] if own else []
        return [name, *twin, *(_said(task, name, other, pairs, values) for other in (*plain, *tables))]

    return PageTable(
        title=TITLE,
        corner="model",
        heads=[*([OWN] if own else []), *plain, *tables],
        rows=[line(name) for name in (*(model.name for model in lines), *tables)],
        note=_note(task, models, found),
        open=True,
    )


def _tables(task: Task) -> dict[str, tuple[str, str]]:
    """Returns the experiments of tables alone, by what they are called here."""
    experiments = tables_alone(task.crossed).values()
    return {
        f"table: {adaptor_parts(adaptor)[2].replace('+', ' + ')}": (model, adaptor) for model, adaptor in experiments
    }


def _with_tables(task: Task, models: Sequence[Model], tables: Mapping[str, tuple[str, str]]) -> TaskSummary:
    """Returns the statistics of models and tables together."""
    records = {model.name: model.entries[task.name].record for model in models}
    records |= {name: task.crossed[experiment] for name, experiment in tables.items()}
    inputs = from_records([*records.values()], task.metric, names=[*records], vary={"adaptor"})
    return summarise_task(inputs, task.summaries["native"].bootstrap.shape[-1])


def _random_twin(model: Model, models: Sequence[Model]) -> Model | None:
    """Returns the model with the same settings and random weights; None where nobody ran it."""
    if model.is_control:
        return None
    wanted = model.label.replace("@random", "")
    return next((one for one in models if one.random and one.label.replace("@random", "") == wanted), None)


def _pairs(found: TaskSummary | None) -> dict[tuple[str, str], Difference]:
    return {(one.first, one.second): one for one in found.comparison.differences} if found else {}


def _values(found: TaskSummary | None) -> dict[str, float | None]:
    return {one.name: one.estimate.value for one in found.models} if found else {}


def _said(
    task: Task,
    name: str,
    other: str | None,
    pairs: Mapping[tuple[str, str], Difference],
    values: Mapping[str, float | None],
) -> str:
    """Returns what one model's number is against another's: above 0 is better, whatever the metric."""
    if other is None or name == other:
        return ""
    sign, digits = task.of_metric.sign, task.of_metric.digits
    found = pairs.get((name, other)) or pairs.get((other, name))
    if found is None:
        one, two = values.get(name), values.get(other)
        if one is None or two is None:
            return "not compared"
        return f"{_number(sign * (one - two), digits, '+')}, not compared"
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


def _note(task: Task, models: Sequence[Model], with_tables: TaskSummary | None) -> str:
    unit = f", in {unit}" if (unit := task.of_metric.unit_of(task.target_unit)) else ""
    said = (
        f"The model of a line less that of a column ({task.of_metric.title}{unit}; above 0 is better), with the 95 % "
        "interval of that pair over patients. It beats, or is beaten, only where that holds for all pairs of the task "
        "at once; all else cannot be told apart."
    )
    if with_tables is not None:
        said += " Tables (what is known of a case without its scan) are corrected for all pairs with them as well."
    summary = with_tables or task.summaries["native"]
    if reason := summary.comparison.reason:
        said += f" Of the comparison: {reason}."
    missing = [*_not_run(task, models)]
    return said + (f" Rows to beat that nobody ran here: {', '.join(missing)}." if missing else "")


def _not_run(task: Task, models: Sequence[Model]) -> Iterator[str]:
    """Yields the rows to beat of the task's kind that have no number on it."""
    there = {model.card.name for model in models}
    if any(model.random for model in models):
        there.add("random weights")
    for name in task.kind.rows_to_beat:
        if name not in there and (is_installed(name) or name == "random weights"):
            yield name
    head, tables = task.kind.table_head, {columns for _, columns in tables_alone(task.crossed)}
    rows = task_class(task.name).spec.rows_to_beat if head and task.name in list_tasks() else ()
    yield from (f"{head}:{TABLE}{'+'.join(row)}" for row in rows if columns_of("+".join(row)) not in tables)
