"""Reliability: how intraclass correlations are spread over features, and what kernel and thickness do to a pair."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tapct import numeric
from tapct.kinds import Cases
from tapct.kinds.reliability import at_chance, correlations, in_pairs, partner
from tapct.leaderboard.page.sections import DrawnTask, PageTable

_Runs = Mapping[str, Sequence[Cases]]

PERCENTILES = (5, 25, 50, 75, 95)

THICKER = 0.01
"""Share by which slices must differ in thickness to be told apart: headers round it."""


def pictures(shown: DrawnTask) -> Iterator[PageTable]:
    """Yields how correlations are spread, and pairs by what was set otherwise."""
    runs = {name: shown.cases(name) for name in shown.models}
    yield _spread(shown, runs)
    yield from _by_setting(shown, runs)


def _spread(shown: DrawnTask, runs: _Runs) -> PageTable:
    """Returns percentiles of the intraclass correlation over features, and what chance identifies."""
    first = next(iter(runs.values()))[0]
    chance = numeric.mean(at_chance(first)["identified"][:, 0])
    rows = []
    for name, of_model in runs.items():
        found = correlations(of_model[0])
        defined = found[~np.isnan(found)]
        spread = np.percentile(defined, PERCENTILES) if len(defined) else [np.nan] * len(PERCENTILES)
        features = len(of_model[0]["features"][0, 0])
        rows.append([name, str(features), str(features - len(defined)), *(_text(one) for one in spread)])
    return PageTable(
        title="ICC(2,1) over features",
        corner="model",
        heads=["features", "of which constant", *(f"{one} %" for one in PERCENTILES)],
        rows=rows,
        note="Percentiles over the features of the first seed; features that are the same for every scan have none. "
        "From 0.75 on reliability is called good, above 0.9 excellent (Koo and Li 2016). That features agree says "
        "nothing of their use: body size agrees with itself. "
        f"Chance identifies {100 * chance:.1f} % of scans.{shown.of_many}",
        open=True,
    )


def _by_setting(shown: DrawnTask, runs: _Runs) -> Iterator[PageTable]:
    """Yields the agreement of pairs with the same and with other kernel and thickness, where both kinds are there."""
    cases = next(iter(runs.values()))[0]
    groups = {name: rows for name, rows in settings_of(cases).items() if rows.any()}
    if len(groups) < 2:
        return
    rows = []
    for name, chosen in groups.items():
        row = [name, str(int(chosen.sum()) // 2)]
        for of_model in runs.values():
            cosine, hit = (
                np.mean([np.mean(run[field][chosen, 0]) for run in of_model]) for field in ("cosine", "identified")
            )
            row.append(f"{_text(float(cosine))}, {100 * float(hit):.0f} %")
        rows.append(row)
    yield PageTable(
        title="By what was set otherwise",
        corner="between the two scans",
        heads=["pairs", *runs],
        rows=rows,
        note=f"Cosine of a pair, and how many scans are identified among all patients' other scans.{shown.of_many}",
        open=True,
    )


def settings_of(cases: Cases) -> dict[str, np.ndarray]:
    """Returns (C,) which scans are of pairs with the same, or with other kernel and slice thickness, in words."""
    _, _, first = in_pairs(cases)
    second = np.array([partner(cases, row) for row in first])
    thickness, kernel = cases["slice_thickness_mm"][:, 0], cases["other_kernel"][:, 0]
    one, other = thickness[first], thickness[second]
    thicker = np.where(np.isnan(one + other), np.nan, np.abs(one - other) > THICKER * np.fmax(one, other))
    found = {
        "same kernel, same thickness": (kernel[first] == 0) & (thicker == 0),
        "other kernel": (kernel[first] == 1) & (thicker == 0),
        "other thickness": (kernel[first] == 0) & (thicker == 1),
        "other kernel and thickness": (kernel[first] == 1) & (thicker == 1),
        "not known": np.isnan(kernel[first] + thicker),
    }
    spread = {}
    for name, pairs in found.items():
        chosen = np.zeros(len(cases), dtype=bool)
        chosen[first[pairs]] = chosen[second[pairs]] = True
        spread[name] = chosen
    return spread


def _text(value: float) -> str:
    return "" if np.isnan(value) else numeric.fixed(value, 2)
