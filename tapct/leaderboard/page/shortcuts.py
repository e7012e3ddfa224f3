"""The shortcut audit: what the nearest scan shares, and how well it can be read, one picture per model and tables."""

from collections.abc import Iterator, Mapping
from itertools import islice

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from tapct import numeric
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.leaderboard.page.svg import INK, LINE, MUTED, STYLE, colour, dots, figure, lines, render
from tapct.leaderboard.shortcuts import SHORTCUT, audited, reasons
from tapct.leaderboard.text import plain
from tapct.records.shortcuts import LABEL, Estimated, ShortcutRecord

DRAWN = 9
"""Models with panels at most."""

COLUMNS, WIDTH_IN, ROW_IN = 3, 7.4, 0.155
"""Panels in a row; of the figure; height of a line of a panel."""

NAMES_IN, SHARES_IN, BETWEEN_IN, READ_IN = 0.98, 0.74, 0.12, 0.5
"""Of a panel, from the left: names, the scale of shares, nothing, the scale of AUROC."""

Audits = Mapping[str, Mapping[str, ShortcutRecord]]
"""By model and row, what its record says."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the picture and the tables, where records hold an audit."""
    audits = {name: found for name, record in shown.models.items() if (found := audited(record))}
    if not audits:
        return
    rows = list(dict.fromkeys(row for of_model in audits.values() for row in of_model))
    first = next(record.shortcuts for record in shown.models.values() if record.shortcuts is not None)
    yield Figure(
        title="What the nearest scan shares, and what can be read",
        svg=_panels(shown, dict(islice(audits.items(), DRAWN)), rows),
        note="Left, from 0 to 1: how often the nearest scan of another patient shares the label, and each column (dot, "
        "with its interval over patients), what chance gives (upright line), and what the label alone would give "
        "(small dot). Right, from 0.5 to 1: how well a linear probe reads it, AUROC, mean over levels; less stands at "
        "0.5. A model whose neighbours share the scanner more than the label sorts scans by how they were taken."
        f"{_of_many(shown, DRAWN)}",
    )
    yield _shared(shown, audits, rows, reasons(first))
    yield _read(shown, audits, rows, first.read_by)


def _shared(shown: DrawnTask, audits: Audits, rows: list[str], left_out: str) -> PageTable:
    """Returns what the nearest scan shares in numbers."""
    found = []
    for row in rows:
        shared = {name: of_model[row].shared for name, of_model in audits.items() if row in of_model}
        one = next((each for each in shared.values() if each is not None), None)
        if one is not None:
            texts = [_text(of.nearest) if (of := shared.get(name)) else "" for name in audits]
            by_label = "" if one.by_label is None else numeric.fixed(one.by_label, 2)
            found.append([_name(row), str(one.scans), numeric.fixed(one.chance, 2), by_label, *texts])
    return PageTable(
        title="What the nearest scan shares, in numbers",
        corner="shared",
        heads=["scans", "chance", "by label", *audits],
        rows=found,
        note="Share of the scans, with 95 % intervals over patients (of the queries; the gallery stays). Chance: any "
        "other patient's scan in the place of the nearest. By label: any of those with the same label, which share "
        f"more than chance does where label and scanner go together.{left_out}{shown.of_many}",
    )


def _read(shown: DrawnTask, audits: Audits, rows: list[str], read_by: str) -> PageTable:
    """Returns how well label and columns can be read, and below each column its levels."""
    found = []
    for row in rows:
        of_row = {name: of_model[row] for name, of_model in audits.items() if row in of_model}
        read = {name: one.read for name, one in of_row.items() if one.read is not None}
        found.append([row, "", *(_text(read[name].auroc) if name in read else "" for name in audits)])
        levels = {level: of for one in read.values() for level, of in one.levels.items()}
        for level, of in levels.items():
            texts = [_text(read[name].levels[level].auroc) if name in read else "" for name in audits]
            found.append([f"– {level}", f"{of.train_patients}, {of.patients}", *texts])
        first = next(iter(of_row.values()))
        why = {level: f"not read: {reason}" for level, reason in first.left_out.items()}
        why |= {level: f"not read: no training case has it; {n} reported patients" for level, n in first.unseen.items()}
        found += [[f"– {level}", reason, *([""] * len(audits))] for level, reason in why.items()]
    return PageTable(
        title="What a linear probe reads",
        corner="read",
        heads=["patients: training, reported", *audits],
        rows=found,
        note="AUROC of the probe `linear` on the same features (0.5 is chance), with 95 % intervals over patients: "
        f"mean over levels, and each against all others. Heads are trained on {read_by}. Never ranked.{shown.of_many}",
    )


def _of_many(shown: DrawnTask, drawn: int) -> str:
    """Returns what is to be said where there are more models than panels."""
    number = len(shown.models) + shown.left_out
    return f" Of {number} models, the {drawn} best." if number > drawn else ""


def _name(row: str) -> str:
    return row.removeprefix(SHORTCUT)


def _text(one: Estimated) -> str:
    value = numeric.fixed(one.value, 2)
    if one.low is None or one.high is None:
        return value
    return f"{value} ({numeric.fixed(one.low, 2)} to {numeric.fixed(one.high, 2)})"


@matplotlib.rc_context(STYLE)
def _panels(shown: DrawnTask, audits: Audits, rows: list[str]) -> str:
    """Returns a panel per model: a line for each row, with the two scales side by side."""
    height = 0.42 + ROW_IN * len(rows)
    across = WIDTH_IN / COLUMNS
    made = figure(WIDTH_IN, height * -(-len(audits) // COLUMNS) + 0.05)
    axes = made.add_axes((0, 0, 1, 1))  # in inches, for all panels
    axes.set(xlim=(0, WIDTH_IN), ylim=(made.get_figheight(), 0))
    axes.axis("off")
    for place, (name, of_model) in enumerate(audits.items()):
        down, right = divmod(place, COLUMNS)
        x, y = right * across + 0.05, down * height
        axes.text(x, y + 0.14, plain(name, 34), fontsize=7.5, color=INK)
        for line, row in enumerate(rows):
            at = y + 0.27 + ROW_IN * line
            axes.text(x, at + 0.025, plain(_name(row), 17), fontsize=6.5, color=INK if row == LABEL else MUTED)
            if row in of_model:
                _line(axes, of_model[row], x + NAMES_IN, at, colour(shown.kind.name))
        bottom = y + 0.24 + ROW_IN * len(rows)
        _ticks(axes, x + NAMES_IN, bottom, SHARES_IN, ("0", "shared", "1"))
        _ticks(axes, x + NAMES_IN + SHARES_IN + BETWEEN_IN, bottom, READ_IN, (".5", "read", "1"))
    label = f"What the nearest scan shares with one of {shown.title}, and what can be read, one panel per model"
    return render(made, f"shortcuts {shown.task}", label)


def _ticks(axes: Axes, x: float, y: float, width: float, texts: tuple[str, str, str]) -> None:
    """Writes what a scale is of between its two ends."""
    for text, of, aligned in zip(texts, (0.0, 0.5, 1.0), ("left", "center", "right"), strict=True):
        axes.text(x + width * of, y, text, fontsize=6.5, color=MUTED, ha=aligned, va="top")


def _line(axes: Axes, one: ShortcutRecord, x: float, y: float, ink: str) -> None:
    """Draws what is shared and how well it is read, side by side."""
    read_x = x + SHARES_IN + BETWEEN_IN
    lines(axes, [np.array([[x, y], [x + SHARES_IN, y]]), np.array([[read_x, y], [read_x + READ_IN, y]])], LINE, 0.5)
    if one.shared is not None:
        at = x + SHARES_IN * one.shared.chance
        lines(axes, [np.array([[at, y - 0.05], [at, y + 0.05]])], INK, 0.9)
        _estimate(axes, one.shared.nearest, (0, 1), (x, x + SHARES_IN), y, ink)
        if one.shared.by_label is not None:
            dots(axes, [x + SHARES_IN * one.shared.by_label], [y], 2.2, INK)
    if one.read is not None:
        _estimate(axes, one.read.auroc, (0.5, 1), (read_x, read_x + READ_IN), y, ink)


def _estimate(
    axes: Axes, one: Estimated, scale: tuple[float, float], place: tuple[float, float], y: float, ink: str
) -> None:
    """Draws a number and its interval; what is below the scale stands at its end."""
    ends = [one.value if end is None else end for end in (one.low, one.high)]
    value, low, high = np.interp([one.value, *ends], scale, place)
    if low < high:
        lines(axes, [np.array([[low, y], [high, y]])], ink, 1.6)
    dots(axes, [value], [y], 4.2, ink)
