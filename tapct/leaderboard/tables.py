"""The board as tables for a paper or a repository: Markdown and LaTeX, under the native protocol."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tapct import kinds, numeric
from tapct.encoders.licence import NC_MEANS, NON_COMMERCIAL
from tapct.leaderboard import imported, mistakes, paper_tables
from tapct.leaderboard.board import ALL, Board, Model, Task, families
from tapct.leaderboard.eva_results import NOT_RANKED
from tapct.leaderboard.exports import ordered, share_reached
from tapct.leaderboard.marks import Marked
from tapct.leaderboard.mistakes import MistakeTable
from tapct.leaderboard.paper import AVERAGE, PAPER
from tapct.leaderboard.reproduction import SPLITS_DIFFER, PaperCell
from tapct.leaderboard.text import for_latex, for_markdown
from tapct.statistics.intervals import Estimate

NONE = "–"
"""Where there is no number."""
READ_AS = (
    "Mean over seeds, 95 % interval over patients, [ranks that are left open] and tie groups: models that share a "
    "letter cannot be told apart. Native grid. A dash: no number; leaderboard.csv says why."
)
CELLS = (
    "Below a Dice: the size of a patch, and the Dice that perfect patches of this size would reach: a "
    "reference, not a bound."
)

BESIDE = (
    "In a cell: the paper's mean and standard deviation over three runs; ours, with that over seeds and the 95 % "
    "interval over patients; ours minus the paper's; and the number that the task is ranked by here, if it is another."
)


@dataclass(frozen=True)
class TextTable:
    """A table in plain text: each cell is of lines.

    Attributes:
        title: What it is of.
        notices: What must stand on top.
        heads: The columns.
        rows: Cells, the model first.
    """

    title: str
    notices: list[str]
    heads: list[str]
    rows: list[list[list[str]]]


def tables(board: Board) -> list[TextTable]:
    """Returns a table per family, those of what is in a section of its own, and the paper's with ours."""
    found = [_of_family(board, family) for family in families()[1:] if board.family(family)]
    found += [_of_own(own.task, own.why, own.board) for own in board.own]
    return (
        found
        + [_of_mistakes(table) for table in board.mistakes]
        + _of_paper(board)
        + _of_imported(board)
        + _of_eva(board)
    )


def _of_family(board: Board, family: str) -> TextTable:
    tasks, models = board.family(family), ordered(board, family)
    ranks = [_rank(board, family, model) for model in models]
    is_ranked = any(rank != NONE for rank in ranks)
    rows = [
        [[_named(model)], *([[rank]] if is_ranked else []), *(_cell(board, task, model) for task in tasks)]
        for model, rank in zip(models, ranks, strict=True)
    ]
    columns = [f"{task.title}, {task.heading}" for task in tasks]
    heads = ["Model", *(["Mean rank"] if is_ranked else []), *columns]
    return TextTable(kinds.kind(family).title, _notices(board, tasks), heads, rows)


def _of_own(task: Task, why: str, board: Board) -> TextTable:
    rows = [[[_named(model)], _cell(board, task, model)] for model in ordered(board, task.family)]
    heads = ["Model", f"{task.title}, {task.heading}"]
    return TextTable(f"{task.title}, not comparable: {why}", _notices(board, [task]), heads, rows)


def _of_mistakes(table: MistakeTable) -> TextTable:
    """Returns what mistakes cost on a task."""
    rows = [
        [
            [f"{cost.model}, {cost.mistake}"],
            *([NONE if of.value is None else _with_interval(of, table.digits)] for of in cost.numbers),
            [cost.changed_in_words],
        ]
        for cost in table.costs
    ]
    heads = ["Model, mistake", "Right input", "Wrong input", "Lost", "Scans that it changes"]
    return TextTable(
        f"{mistakes.TITLE}: {table.title}, {table.heading}", [*table.notices, mistakes.READ_AS], heads, rows
    )


def _of_paper(board: Board) -> list[TextTable]:
    """Returns the paper's tables of which a cell was run, with the rows that have one."""
    titles = {task.name: task.title for task in board.tasks} | {AVERAGE: "Average"}
    return [
        TextTable(
            f"The paper and this run. {table.title}",
            [f"{PAPER}. {SPLITS_DIFFER}", BESIDE],
            ["Model", *(f"{titles[cell.row.task]}, {cell.row.metric}" for cell in table.rows[0].cells)],
            [
                [[" ".join(filter(None, [row.model, row.size]))], *([*_beside(cell)] for cell in row.cells)]
                for row in table.rows
                if any(cell.ours for cell in row.cells)
            ],
        )
        for table in (paper_tables.tables(board.reproduction) if board.reproduction else ())
        if table.run
    ]


def _of_imported(board: Board) -> list[TextTable]:
    """Returns imported predictions, with the best ranked model of their task."""
    heads = ["Reference", "Task", "Metric", "Mean and interval", "Best ranked model", "Model minus reference", "About"]
    rows = [
        [
            [one.name],
            [one.title],
            [one.heading],
            [NONE if one.value.value is None else _with_interval(one.value, one.digits)],
            *_best(one),
            [". ".join(filter(None, [one.about, one.trained_on and f"trained on {one.trained_on}"])) or "not said"],
        ]
        for one in board.imported
    ]
    return [TextTable(imported.TITLE, [imported.NOT_RANKED], heads, rows)] if rows else []


def _best(of: imported.Reference) -> list[list[str]]:
    """Returns the best ranked model next to a reference, and what it differs by."""
    if not of.models:
        return [[NONE, of.reason or ""], [NONE]]
    model, apart = next(iter(of.models.items()))
    return [[model], [_with_interval(apart, of.digits)]]


def _of_eva(board: Board) -> list[TextTable]:
    """Returns the numbers of stock runs of eva's."""
    heads = ["Model", "Data", "Metric", "Mean ± SD over runs", "Runs", "Protocol"]
    rows = [
        [
            [one.model],
            [f"{one.data}, {one.split}"],
            [one.metric],
            [NONE if one.mean is None else _with_spread(one.mean, one.stdev)],
            [str(one.runs)],
            ["; ".join(one.protocol)],
        ]
        for one in board.eva
    ]
    return [TextTable("eva's own runs, for reference", [NOT_RANKED], heads, rows)] if rows else []


def _beside(cell: PaperCell) -> Iterator[str]:
    """Yields the paper's number, and the lines of each of ours."""
    row = cell.row
    theirs = "" if row.mean is None else _with_spread(row.mean, row.std)
    yield "".join([theirs, *(sign for sign, _ in paper_tables.signs(row))])
    for one in cell.ours or (None,):
        if one is None or one.estimate.value is None:
            yield NONE
            continue
        value, low, high = one.estimate.value, one.estimate.low, one.estimate.high
        ends = "" if low is None or high is None else f" ({numeric.fixed(low, 3)}–{numeric.fixed(high, 3)})"
        yield _marked(f"ours {_with_spread(value, one.seed_spread)}{ends}", one.marks)
        if one.difference is not None and one.difference.value is not None:
            yield paper_tables.signed(one.difference.value)
        if one.ranked is not None and one.ranked.value is not None:
            yield f"{one.ranked_as} {numeric.fixed(one.ranked.value, 3)}"


def _with_spread(value: float, spread: float | None) -> str:
    return numeric.fixed(value, 3) + ("" if spread is None else f" ± {numeric.fixed(spread, 3)}")


def legend(board: Board) -> list[str]:
    """Returns how all tables are read, and the marks that stand in them, and only these."""
    has_cells = any(
        entry.record.cell_size is not None
        for each in [board, *(own.board for own in board.own)]
        for model in each.models
        for entry in model.entries.values()
    )
    signs = [f"{mark.sign}: {mark.text}." for mark in board.legend]
    suite = ", ".join(task.title for task in board.in_suite(ALL))
    over = [f"Mean ranks are over the tasks of the family among {suite}."] if suite else []
    boards = [board, *(own.board for own in board.own)]
    restricted = any(model.non_commercial for each in boards for model in each.models)
    licences = [f"({NON_COMMERCIAL}): {NC_MEANS}."] if restricted else []
    return [" ".join([READ_AS, *over, *([CELLS] if has_cells else [])]), *licences, *signs]


def _named(model: Model) -> str:
    return f"{model.name} ({NON_COMMERCIAL})" if model.non_commercial else model.name


def _rank(board: Board, family: str, model: Model) -> str:
    """Returns a mean rank with its interval, a dash where there is none."""
    found = board.overall[family, "native"].get(model.name)
    if found is None or found.mean_rank.value is None:
        return NONE
    return _marked(_with_interval(found.mean_rank, 1), board.rank_marks(model, family))


def _cell(board: Board, task: Task, model: Model) -> list[str]:
    """Returns a number with its interval, ranks, tie groups and marks, and below it the size of its patches."""
    one = task.summary(model.name, "native")
    if one is None or one.estimate.value is None:
        return [NONE]
    ranks = task.rank_interval(model.name, "native")
    places = f" [{ranks[0]}–{ranks[1]}] {task.letters(model.name, 'native')}" if ranks else ""
    number = _marked(_with_interval(one.estimate, task.of_metric.digits) + places, board.marks(model, task))
    size = model.entries[task.name].record.cell_size
    if size is None:
        return [number]
    share = share_reached(model.entries[task.name].record, one.estimate.value)
    reached = "" if share is None else f" ({numeric.fixed(100 * share, 0)} %)"
    reference = "" if size.dice is None else f": {numeric.fixed(size.dice, 3)}{reached}"
    return [number, f"patch {patch_in_words(size.size_mm)} mm{reference}"]


def patch_in_words(size_mm: Sequence[float]) -> str:
    """Returns the size (z, y, x) of a patch, one number where all are equal."""
    lengths = [numeric.fixed(length, 1).removesuffix(".0") for length in size_mm]
    return lengths[0] if len(set(lengths)) == 1 else " × ".join(lengths)


def _marked(text: str, found: Sequence[Marked]) -> str:
    return f"{text} · {', '.join(one.mark.sign for one in found)}" if found else text


def _with_interval(found: Estimate, decimals: int) -> str:
    """Returns a number that there is, with its interval if it has one."""
    numbers = (found.value, found.low, found.high)
    value, low, high = ("" if number is None else numeric.fixed(number, decimals) for number in numbers)
    return f"{value} ({low}–{high})" if low else value


def _notices(board: Board, tasks: Sequence[Task]) -> list[str]:
    return [f"{task.title}: {board.notices[task.name]}" for task in tasks if task.name in board.notices]


# -- Formats -------------------------------------------------------------------------------------------


def to_markdown(board: Board) -> str:
    """Returns the tables as Markdown."""
    lines = ["# Leaderboard", ""]
    for table in tables(board):
        lines += [f"## {for_markdown(table.title)}", ""]
        lines += [line for notice in table.notices for line in (f"> {for_markdown(notice)}", "")]
        lines += [_markdown_row([*map(for_markdown, table.heads)]), f"| --- |{' ---: |' * (len(table.heads) - 1)}"]
        lines += [_markdown_row([for_markdown(name), *map("<br>".join, cells)]) for ((name,), *cells) in table.rows]
        lines.append("")
    how, *signs = map(for_markdown, legend(board))
    return "\n".join([*lines, how, *([""] if signs else []), *(f"* {sign}" for sign in signs)]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_latex(board: Board) -> str:
    """Returns the tables as LaTeX, with booktabs."""
    parts = ["% Needs the package booktabs."]
    for table in tables(board):
        caption = " ".join([f"{table.title}.", *table.notices, *legend(board)])
        parts += [
            r"\begin{table}",
            rf"\caption{{{for_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(for_latex, table.heads)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _latex_cell(lines: Sequence[str]) -> str:
    first, *more = map(for_latex, lines)
    if more:
        return rf"\shortstack[r]{{{first}\\{{\footnotesize {' '.join(more)}}}}}"
    return f"{{}}{first}" if first.startswith(("[", "*")) else first  # which would belong to the row's end before it
