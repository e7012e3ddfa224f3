"""Survival: Kaplan-Meier curves by thirds of predicted risk."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from tapct import numeric
from tapct.kinds import Cases
from tapct.kinds.survival import outcomes_of
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.leaderboard.page.svg import LINE, MUTED, STYLE, colour, figure, render
from tapct.leaderboard.text import plain
from tapct.metrics.survival import HORIZONS_DAYS, YEAR_DAYS, Outcomes, at_risk_of, kaplan_meier, log_rank

THIRDS = ("low", "middle", "high")
DASHES = {"low": "-", "middle": (0, (5, 2)), "high": (0, (1, 1.2))}
"""How the curve of each third of risk is drawn: told apart without colour."""

YEARS = 5
"""That curves are drawn for."""

COLUMNS, WIDTH_IN, HEIGHT_IN = 3, 2.44, 2.25
"""Panels in a row, and the room of each."""

PANEL_IN = (1.86, 1.15)
"""Width and height of a panel's axes."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the curves, and a table of them."""
    first = {name: shown.cases(name)[0] for name in shown.models}
    yield Figure(
        title="Kaplan-Meier",
        svg=curves(shown.task, first),
        note="Share of patients alive, by thirds of the risk that was predicted for them by heads that they did not "
        "train: low (solid), middle (dashed), high (dotted); below, how many of each are under observation. Of the "
        f"first repeat.{shown.of_many}",
    )
    yield PageTable(
        title="Survival by thirds of predicted risk",
        heads=[*shown.models],
        rows=list(_by_thirds(first)),
        note="Share alive after two years (low / middle / high risk), and the log-rank statistic of the three, with 2 "
        "degrees of freedom. It describes: groups that predictions made are not a hypothesis from before the data."
        f"{shown.of_many}",
    )


def thirds(risk: np.ndarray) -> np.ndarray:
    """Returns (N,) the third that each risk is in: 0, 1 or 2; equal risks are in one."""
    level = numeric.levels(risk)
    low, high = np.quantile(level, [1 / 3, 2 / 3])
    return (level > low).astype(int) + (level > high)


def _outcomes(cases: Cases) -> tuple[Outcomes, np.ndarray]:
    return outcomes_of(cases), thirds(cases["risk"][:, 0])


@matplotlib.rc_context(STYLE)
def curves(task: str, runs: Mapping[str, Cases]) -> str:
    """Returns the curves of each model, a panel each."""
    rows = -(-len(runs) // COLUMNS)
    height = rows * HEIGHT_IN + 0.1
    made = figure(7.4, height)
    for index, (model, cases) in enumerate(runs.items()):
        row, column = divmod(index, COLUMNS)
        origin = (column * WIDTH_IN + 0.5, (rows - row - 1) * HEIGHT_IN + 0.8)
        axes = made.add_axes((origin[0] / 7.4, origin[1] / height, PANEL_IN[0] / 7.4, PANEL_IN[1] / height))
        axes.set(xlim=(0, YEARS), ylim=(0, 1.02), xticks=range(YEARS + 1), yticks=(0, 0.5, 1))
        axes.set_title(plain(model, 34), fontsize=7.5, loc="left")
        axes.tick_params(labelsize=6.5, labelcolor=MUTED)
        axes.set_xlabel("years", fontsize=6.5, labelpad=1)
        axes.grid(True, axis="y")
        axes.spines["bottom"].set_color(LINE)
        _curves(axes, *_outcomes(cases))
    return render(made, f"kaplan-meier {task}", f"Kaplan-Meier curves of {task} by thirds of risk, one panel per model")


def _curves(axes: Axes, outcomes: Outcomes, third: np.ndarray) -> None:
    """Draws the curve of each third, and below it how many are under observation."""
    for group, name in enumerate(THIRDS):
        y = -0.34 - 0.12 * group
        axes.text(-0.06, y, name, transform=axes.transAxes, fontsize=6, color=MUTED, ha="right", va="center")
        if not (third == group).any():
            continue
        of = outcomes[third == group]
        curve, at_risk = kaplan_meier(of), at_risk_of(of, np.ones((len(of.days), 1)))[:, 0]
        until = min(YEARS, float(curve.days[-1]) / YEAR_DAYS)
        inside = curve.days / YEAR_DAYS <= until
        x = np.concatenate([[0.0], curve.days[inside] / YEAR_DAYS, [until]])
        alive = np.concatenate([[1.0], curve.values[inside, 0]])
        axes.step(x, np.append(alive, alive[-1]), where="post", color=colour("survival"), linestyle=DASHES[name], lw=1)
        for year in range(YEARS + 1):
            later = np.searchsorted(curve.days, year * YEAR_DAYS)
            number = int(at_risk[later]) if later < len(at_risk) else 0
            axes.text(year / YEARS, y, str(number), transform=axes.transAxes, fontsize=6, ha="center", va="center")


def _by_thirds(runs: Mapping[str, Cases]) -> Iterator[Sequence[str]]:
    alive, statistics = [], []
    for cases in runs.values():
        outcomes, third = _outcomes(cases)
        found = [kaplan_meier(outcomes[third == of]).at(HORIZONS_DAYS[1])[0] for of in range(3) if (third == of).any()]
        alive.append(" / ".join(numeric.fixed(float(value), 2) for value in found))
        several = len(np.unique(third)) > 1
        statistics.append(numeric.fixed(log_rank(outcomes, third).statistic, 1) if several else "one risk for all")
    yield ["alive after 2 years", *alive]
    yield ["log-rank statistic", *statistics]
