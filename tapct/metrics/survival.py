"""Metrics of predicted survival: who dies first, who dies within a time, and how far probabilities are off.

A patient who is censored is known to have lived for so long and no longer. Harrell's index leaves out the pairs that
nobody could order, and with them changes with the length of follow-up; Uno's index, the AUROC at a horizon and the
Brier score weight what was seen by the inverse of the probability G of still being under observation, which is the
Kaplan-Meier estimate of the censoring. All follow scikit-survival (`sksurv.metrics`), to which tests hold them:

* A patient censored on the day of another's death has outlived them; two deaths on one day are no pair.
* Of the deaths and the losses on one day, the deaths come first, and G counts the losses of that very day.
* Equal risks count half.

Each is computed for any number of resamples at once, from how often each patient was drawn; G is estimated anew in each
resample, as its uncertainty is part of the metric's. What is undefined is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tapct import numeric

YEAR_DAYS = 365.25

HORIZONS_DAYS = (1 * YEAR_DAYS, 2 * YEAR_DAYS, 3 * YEAR_DAYS)
"""At which the AUROC is asked for. The last also ends what Uno's index and the Brier score are of: later on few are
left under observation, and their weights would decide."""

GRID_DAYS = tuple(YEAR_DAYS * quarter / 4 for quarter in range(1, 13))
"""At which survival is predicted, for the integral of the Brier score: each quarter of a year to the last horizon."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of N patients.

    Attributes:
        days: (N,) float64, until death or until the patient was last seen, positive.
        event: (N,) bool, whether it is death.
    """

    days: np.ndarray
    event: np.ndarray

    def __post_init__(self) -> None:
        if self.days.shape != self.event.shape or self.days.ndim != 1 or self.event.dtype != np.bool_:
            raise ValueError(f"(N,) days and (N,) booleans, not {self.days.shape} and {self.event.shape}")
        if not (np.isfinite(self.days) & (self.days > 0)).all():
            raise ValueError("times must be positive numbers of days")

    def __getitem__(self, rows: np.ndarray) -> "Outcomes":
        """Returns the outcomes of some patients."""
        return Outcomes(self.days[rows], self.event[rows])

    @cached_property
    def moments(self) -> np.ndarray:
        """(U,) the days on which something happened, ascending."""
        return np.unique(self.days)

    @cached_property
    def place(self) -> np.ndarray:
        """(N,) where the time of each patient is among them."""
        return np.searchsorted(self.moments, self.days)

    def per_moment(self, which: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Returns (U, R): how many of the patients chosen by (N,) booleans have each moment, in each resample."""
        total = np.zeros((len(self.moments), counts.shape[1]))
        np.add.at(total, self.place[which], counts[which])
        return total


@dataclass(frozen=True, eq=False)
class Curve:
    """A step function that is 1 before its first moment, and constant from each moment on.

    Attributes:
        days: (U,) ascending.
        values: (U, R).
    """

    days: np.ndarray
    values: np.ndarray

    def at(self, days: np.ndarray | float) -> np.ndarray:
        """Returns the values at (...,) times, (..., R)."""
        from_start = np.concatenate([np.ones((1, self.values.shape[1])), self.values])
        return from_start[np.searchsorted(self.days, days, side="right")]


def kaplan_meier(outcomes: Outcomes, counts: np.ndarray | None = None) -> Curve:
    """Returns the share of patients alive from each moment on.

    Args:
        outcomes: Of N patients.
        counts: (N, R) how often each was drawn; None for each once.
    """
    counts = _counts(outcomes, counts)
    deaths, at_risk = outcomes.per_moment(outcomes.event, counts), at_risk_of(outcomes, counts)
    return Curve(outcomes.moments, _product(deaths, at_risk))


def at_risk_of(outcomes: Outcomes, counts: np.ndarray) -> np.ndarray:
    """Returns (U, R): how many were under observation just before each moment."""
    everyone = outcomes.per_moment(np.ones(len(outcomes.days), dtype=bool), counts)
    return np.cumsum(everyone[::-1], axis=0)[::-1]


def under_observation(outcomes: Outcomes, counts: np.ndarray) -> Curve:
    """Returns G: the probability of not being lost up to each moment, that moment's losses included."""
    deaths, lost = (outcomes.per_moment(which, counts) for which in (outcomes.event, ~outcomes.event))
    return Curve(outcomes.moments, _product(lost, at_risk_of(outcomes, counts) - deaths))


def _product(gone: np.ndarray, at_risk: np.ndarray) -> np.ndarray:
    share = np.divide(gone, at_risk, out=np.zeros(gone.shape), where=at_risk > 0)
    return np.cumprod(1 - share, axis=0)


def _counts(outcomes: Outcomes, counts: np.ndarray | None) -> np.ndarray:
    return np.ones((len(outcomes.days), 1)) if counts is None else counts.astype(np.float64)


def harrell_c(outcomes: Outcomes, risk: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Returns the share of comparable pairs in which who died first had the higher risk.

    Args:
        outcomes: Of N patients.
        risk: (N,) predicted, higher for those who die sooner.
        counts: (N, R) how often each patient was drawn; None for each once.

    Returns:
        (R,), NaN where no pair is comparable.
    """
    counts = _counts(outcomes, counts)
    return _concordance(outcomes, risk, counts, np.flatnonzero(outcomes.event), np.ones((1, 1)))


def uno_c(
    outcomes: Outcomes,
    risk: np.ndarray,
    counts: np.ndarray | None = None,
    until_days: float | None = HORIZONS_DAYS[-1],
) -> np.ndarray:
    """Returns Uno's concordance (2011, doi:10.1002/sim.4154): each pair weighted by 1/G of the first death, squared.

    Args:
        outcomes: Of N patients.
        risk: (N,) predicted, higher for those who die sooner.
        counts: (N, R) how often each patient was drawn; None for each once.
        until_days: Pairs are asked for whose first death comes before; None for all.

    Returns:
        (R,), NaN where no pair is comparable, or one that is has no weight (nobody was left under observation).
    """
    counts = _counts(outcomes, counts)
    first = np.flatnonzero(outcomes.event & (outcomes.days < (np.inf if until_days is None else until_days)))
    weight = _inverse(under_observation(outcomes, counts).values[outcomes.place[first]], counts[first])
    return _concordance(outcomes, risk, counts, first, weight * weight)


def _concordance(
    outcomes: Outcomes, risk: np.ndarray, counts: np.ndarray, first: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Returns the weighted share of ordered pairs of these deaths with whom they are comparable."""
    outlived = outcomes.days > outcomes.days[first, None]
    outlived |= (outcomes.days == outcomes.days[first, None]) & ~outcomes.event
    return _share(risk, outlived, first, counts, counts[first] * weight)


def _share(
    risk: np.ndarray, pairs: np.ndarray, first: np.ndarray, counts: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Returns the weighted share of pairs in which the first has the higher risk, ties half.

    Args:
        risk: (N,) of all patients.
        pairs: (M, N) whom each of the first is paired with.
        first: (M,) their places.
        counts: (N, R) how often each patient was drawn.
        weight: (M, R) of the first.
    """
    level = numeric.levels(risk)
    twice = np.sign(level[first, None] - level) + 1.0  # 2 in order, 1 tied, 0 the other way round
    ordered, all_pairs = (((pairs * of) @ counts * weight).sum(axis=0) for of in (twice, 2.0))
    return np.divide(ordered, all_pairs, out=np.full(len(all_pairs), np.nan), where=all_pairs > 0)


def _inverse(probability: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns 1 / G; where G is 0 for a death that was drawn, NaN, which leaves the metric undefined."""
    nothing = np.where(counts > 0, np.nan, 0.0)
    return np.divide(1.0, probability, out=np.broadcast_to(nothing, probability.shape).copy(), where=probability > 0)


def auroc(outcomes: Outcomes, risk: np.ndarray, horizon_days: float, counts: np.ndarray | None = None) -> np.ndarray:
    """Returns the cumulative/dynamic AUROC: those who died by a time, weighted by 1/G, against those who outlived it.

    Patients who were lost before are on neither side (Uno 2007, doi:10.1198/016214507000000149).

    Args:
        outcomes: Of N patients.
        risk: (N,) predicted, higher for those who die sooner.
        horizon_days: The time.
        counts: (N, R) how often each patient was drawn; None for each once.

    Returns:
        (R,), NaN where nobody died by then, or nobody outlived it.
    """
    counts = _counts(outcomes, counts)
    first = np.flatnonzero(outcomes.event & (outcomes.days <= horizon_days))
    weight = _inverse(under_observation(outcomes, counts).values[outcomes.place[first]], counts[first])
    outlived = np.broadcast_to(outcomes.days > horizon_days, (len(first), len(risk)))
    return _share(risk, outlived, first, counts, counts[first] * weight)


def brier(
    outcomes: Outcomes, survival: np.ndarray, grid_days: Sequence[float], counts: np.ndarray | None = None
) -> np.ndarray:
    """Returns the Brier score at each time: mean squared distance of predicted survival from what came true.

    Who died by then counts by 1/G of their death, who outlived it by 1/G of the time, who was lost before not at all
    (Graf 1999, doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5).

    Args:
        outcomes: Of N patients.
        survival: (N, T) predicted probabilities to outlive each time.
        grid_days: (T,) the times.
        counts: (N, R) how often each patient was drawn; None for each once.

    Returns:
        (T, R), NaN where nobody is under observation any more.
    """
    counts = _counts(outcomes, counts)
    observed = under_observation(outcomes, counts)
    own, found = observed.values[outcomes.place], []
    of_death = np.divide(counts, own, out=np.zeros(counts.shape), where=(own > 0) & outcomes.event[:, None])
    for predicted, days in zip(survival.T, grid_days, strict=True):
        later = outcomes.days > days
        left = counts[later].sum(axis=0)
        died = (predicted * predicted * ~later) @ of_death
        lived = ((1 - predicted) ** 2 * later) @ counts / np.where(left > 0, observed.at(days), np.nan)
        found.append((died + lived) / counts.sum(axis=0))
    return np.stack(found)


def integrated_brier(
    outcomes: Outcomes,
    survival: np.ndarray,
    grid_days: Sequence[float] = GRID_DAYS,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the mean of the Brier score from 0, where it is 0, to the last time, by the trapezoidal rule, (R,).

    For the arguments see `brier`.
    """
    scores = brier(outcomes, survival, grid_days, counts)
    from_start, days = np.concatenate([np.zeros((1, scores.shape[1])), scores]), np.array([0.0, *grid_days])
    return np.trapezoid(from_start, days, axis=0) / days[-1]


def evaluate(
    outcomes: Outcomes, risk: np.ndarray, survival: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Returns every metric by its name in records, (R,) each, NaN where undefined.

    Args:
        outcomes: Of N patients.
        risk: (N,) predicted, higher for those who die sooner.
        survival: (N, len(GRID_DAYS)) predicted probabilities to outlive the times of the grid.
        counts: (N, R) how often each patient was drawn; None for each once.
    """
    return {
        "UnoC": uno_c(outcomes, risk, counts),
        "HarrellC": harrell_c(outcomes, risk, counts),
        **{auroc_name(days): auroc(outcomes, risk, days, counts) for days in HORIZONS_DAYS},
        "IBS": integrated_brier(outcomes, survival, GRID_DAYS, counts),
    }


def auroc_name(days: float) -> str:
    """Returns the name of the AUROC at a horizon: "AUROC@365d"."""
    return f"AUROC@{int(days)}d"


@dataclass(frozen=True)
class LogRank:
    """The log-rank test of no difference between groups.

    Attributes:
        statistic: Chi-squared.
        freedom: Degrees of freedom.
        p: Its p-value.
    """

    statistic: float
    freedom: int
    p: float


def log_rank(outcomes: Outcomes, groups: np.ndarray) -> LogRank:
    """Returns the log-rank test of the survival of groups.

    Groups that were made by predicted risk are not a hypothesis that was there before the data: then it only describes.

    Args:
        outcomes: Of N patients.
        groups: (N,) labels of at least two groups.

    Raises:
        ValueError: If there are fewer.
    """
    from scipy.special import chdtrc  # not needed by those who only look at records

    labels = np.unique(groups)
    if len(labels) < 2:
        raise ValueError("a log-rank test compares at least two groups")
    counts = (groups[:, None] == labels).astype(np.float64)
    at_risk = at_risk_of(outcomes, counts)
    deaths = outcomes.per_moment(outcomes.event, counts)
    total, died = at_risk.sum(axis=1), deaths.sum(axis=1)
    share = at_risk / total[:, None]
    excess = (deaths - died[:, None] * share).sum(axis=0)[:-1]
    spread = died * np.divide(total - died, total - 1, out=np.zeros(len(total)), where=total > 1)
    diagonal = np.einsum("u,ug->g", spread, share)
    covariance = (np.diag(diagonal) - np.einsum("u,ug,uh->gh", spread, share, share))[:-1, :-1]
    statistic = float(excess @ np.linalg.pinv(covariance) @ excess)
    return LogRank(statistic, len(labels) - 1, float(chdtrc(len(labels) - 1, statistic)))
