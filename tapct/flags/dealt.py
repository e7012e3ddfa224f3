"""Whether outcomes (`CaseResult.outcome`) are better than the same predictions dealt out to other patients at random.

A record that no deal in forty reaches is better than chance; any other is *at chance* if it is no better than the
median deal, else its patients are *too few to tell*.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tapct import numeric
from tapct.flags.messages import ONE_PATIENT, RaisedFlags
from tapct.kinds import Cases, Kind
from tapct.records import CaseResult
from tapct.records.case import as_cases

DEALS = 200
"""Fewer than of scores, whose ranks are counted for all deals at once."""

BY_LUCK = 0.025
"""Share of deals that may reach what is better than chance."""


def against_chance(kind: Kind, ranked: str | None, runs: Sequence[Sequence[CaseResult]]) -> RaisedFlags:
    """Compares the outcomes of runs, which are of the same cases, with chance.

    Args:
        kind: The kind of their task.
        ranked: Name of the metric that the task is ranked by; None for the usual one of its kind.
        runs: The reported cases of each run.
    """
    metric = kind.metric(ranked or kind.ranked[0])
    samples = [as_cases(kind, run) for run in runs]
    own = float(np.mean([metric.value(cases) for cases in samples]))
    drawn = [[metric.value(cases) for cases in deals(kind, one)] for one in samples]
    random = metric.sign * np.mean(drawn, axis=0)
    if np.isnan(own) or np.isnan(random).any():
        return
    if numeric.at_least(random, metric.sign * own).mean() <= BY_LUCK:
        return
    if len({case.patient for case in runs[0]}) == 1:
        yield "too-few-to-tell", f"{metric.name} {own:.3f}: {ONE_PATIENT}"
        return
    said = f"{metric.name} {own:.3f}: predictions dealt out to other patients give "
    if numeric.equal(random, random[0]).all():
        yield "chance-level", f"{said}the same, whoever gets which"
        return
    median, best = (metric.sign * np.quantile(random, share) for share in (0.5, 1 - BY_LUCK))
    flag = "too-few-to-tell" if metric.sign * own > metric.sign * median else "chance-level"
    yield flag, f"{said}{median:.3f} in the median, and up to {best:.3f}"


def deals(kind: Kind, cases: Cases) -> Iterator[Cases]:
    """Yields cases whose predictions were dealt out to other patients; those of a patient's cases stay together."""
    rng = np.random.default_rng(0)
    patients = np.unique(cases.patients, return_inverse=True)[1]
    by_patient = [np.flatnonzero(patients == patient) for patient in range(patients.max() + 1)]
    places, given = np.concatenate(by_patient), {field.name for field in kind.given}
    for _ in range(DEALS):
        order = np.concatenate([by_patient[k] for k in rng.permutation(len(by_patient))])
        source = np.empty_like(order)
        source[places] = order
        dealt = {name: of if name in given else of[source] for name, of in cases.values.items()}
        yield replace(cases, values=dealt)
