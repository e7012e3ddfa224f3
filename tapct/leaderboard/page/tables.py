"""What encoders and tables add to each other, of whatever kind a task is."""

from collections.abc import Iterator, Sequence

from tapct.leaderboard.gains import GainOver, of_task
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.names import adaptor_parts
from tapct.statistics.intervals import Estimate

TITLE = "What encoders add to tables, and tables to encoders"

HEADS = ("encoder and adaptor", "table alone", "encoder alone", "both", "gain over the table", "gain over the encoder")


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the table, where a head was run on a table and features together, and on either alone."""
    rows = list(_gains(shown))
    if rows:
        yield PageTable(
            title=f"{TITLE} ({shown.of.heading})",
            corner="table",
            heads=HEADS,
            rows=rows,
            note="The same patients, by heads that the same cases trained; 95 % intervals over patients, of a gain "
            "patient by patient. A gain above 0 is better, whatever the metric. Columns of a table keep their own weak "
            f"penalty, so that useless features leave the table as it is.{shown.of_many}",
            open=True,
        )


def _gains(shown: DrawnTask) -> Iterator[Sequence[str]]:
    digits = shown.metric.digits
    for one in of_task(shown.of, [model.name for model in shown.drawn]):
        where = f"{one.model}, {adaptor_parts(one.adaptor)[1]}"
        alone = [_alone(part, digits) for part in (one.over_table, one.over_encoder)]
        over = ["" if part is None else said(part.gain, digits, "+") for part in (one.over_table, one.over_encoder)]
        yield [one.table.replace("+", " + "), where, *alone, said(one.together, digits), *over]


def _alone(part: GainOver | None, digits: int) -> str:
    return "not run" if part is None else said(part.alone, digits)


def said(of: Estimate, digits: int, sign: str = "") -> str:
    """Returns a number with its interval, or why there is none."""
    if of.value is None:
        return of.reason or "undefined"
    ends = "" if of.low is None or of.high is None else f" [{of.low:{sign}.{digits}f}, {of.high:{sign}.{digits}f}]"
    return f"{of.value:{sign}.{digits}f}{ends}"
