"""Cox's proportional hazards with a ridge penalty, solved in float64 on the whole risk set.

The partial likelihood is Efron's (1977, doi:10.1080/01621459.1977.10480613): of d deaths on one day, the l-th is
compared with everybody at risk, the d deaths counted 1 - l/d each. A likelihood of batches, or one that orders tied
times as they come in a file, is another and depends on that order.

The objective is that of scikit-survival's `CoxPHSurvivalAnalysis(alpha=strength * deaths, ties="efron")`, to which
tests hold it, divided by the number of deaths: a strength means the same whatever the number of patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tapct.metrics.survival import Outcomes
from tapct.probes.solvers import Design

STRENGTHS = tuple(10.0**power for power in range(-3, 5))
"""L2 penalties that are chosen from, for features of unit deviation. Weaker ones, with more features than patients,
order all training patients as they died, and differ in nothing but how far apart they put them."""

SOLVED = 1e-8
"""A model is solved where no component of the gradient is larger."""

NEWTON_STEPS, HALVINGS = 100, 30
CLOSE = 1e-20
"""Newton's decrement, squared, at which its steps end: the loss is then right to the last digit."""

ROUNDING = 1e-12
"""Share of the loss by which a step may raise it: near the minimum its differences drown in rounding."""


class RiskSets:
    """Who was at risk when somebody died: of M deaths and N patients.

    Attributes:
        event: (N,) bool.
        log_share: (M, N) logarithm of how much of each patient counts in the risk set of each death: 1, Efron's part of
            those who die on the same day, 0 of those who were gone.
        days: (M,) when, ascending.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        """Finds them.

        Args:
            outcomes: Of the patients.

        Raises:
            ValueError: If nobody died.
        """
        self.event = outcomes.event
        if not self.event.any():
            raise ValueError("nobody died: there is nothing to fit a hazard to")
        deaths = np.sort(outcomes.days[self.event])
        of_day, first, tied = np.unique(deaths, return_index=True, return_counts=True)[0:3]
        place = np.searchsorted(of_day, deaths)
        earlier = (np.arange(len(deaths)) - first[place]) / tied[place]
        share = (outcomes.days >= deaths[:, None]).astype(np.float64)
        share -= earlier[:, None] * ((outcomes.days == deaths[:, None]) & outcomes.event)
        with np.errstate(divide="ignore"):
            self.log_share = np.log(share)
        self.days = deaths

    def log_totals(self, risk: np.ndarray) -> np.ndarray:
        """Returns (M,) the logarithm of the hazard that each death was drawn from."""
        terms = self.log_share + risk
        largest = terms.max(axis=1, keepdims=True)
        return np.log(np.exp(terms - largest).sum(axis=1)) + largest[:, 0]

    def loss(self, risk: np.ndarray) -> float:
        """Returns the negative partial log-likelihood of (N,) log hazards."""
        return self.loss_and_shares(risk)[0]

    def loss_and_shares(self, risk: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns it with (M, N) the probability that each of the deaths would have been that of each patient."""
        terms = self.log_share + risk
        largest = terms.max(axis=1, keepdims=True)
        shares = np.exp(terms - largest)
        totals = shares.sum(axis=1, keepdims=True)
        shares /= totals
        return float((np.log(totals) + largest).sum() - risk[self.event].sum()), shares


@dataclass(frozen=True, eq=False)
class Cox:
    """A hazard that is a baseline times the exponential of a linear function.

    Attributes:
        weight: (P,) of the features.
        centre: (P,) features at which the log hazard ratio is 0: the mean of the training patients.
        days: (M,) days of the training deaths, ascending.
        hazard: (M,) cumulative baseline hazard from each of them on (Efron's estimate), at the centre.
        gradient: Largest component of the gradient of the objective where it was left.
    """

    weight: np.ndarray
    centre: np.ndarray
    days: np.ndarray
    hazard: np.ndarray
    gradient: float

    @property
    def is_solved(self) -> bool:
        """Whether it is the optimum, as far as floats go."""
        return self.gradient <= SOLVED

    def risk(self, features: np.ndarray) -> np.ndarray:
        """Returns the (N,) log hazard ratios of (N, P) features."""
        return (features - self.centre) @ self.weight

    def baseline(self, days: Sequence[float]) -> np.ndarray:
        """Returns the cumulative baseline hazard at (T,) times."""
        return np.concatenate([[0.0], self.hazard])[np.searchsorted(self.days, days, side="right")]


def survival(risk: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Returns the (N, T) probabilities to outlive times, from (N,) log hazard ratios and (T,) cumulative hazards."""
    # A hazard without end is a survival of 0, but before the first death, where there is none: 0 times infinity.
    with np.errstate(over="ignore", divide="ignore"):
        return np.exp(-np.exp(np.add.outer(risk, np.log(baseline))))


def cox(design: Design, outcomes: Outcomes, strengths: Sequence[float] = STRENGTHS) -> list[Cox]:
    """Returns the minima of negative partial log-likelihood per death + strength / 2 x squared length of the weights.

    Args:
        design: The training features.
        outcomes: Of the same patients.
        strengths: L2 penalties, positive; the answers come in their order.

    Raises:
        ValueError: If nobody died.
    """
    sets, at = RiskSets(outcomes), np.zeros(design.turned.shape[1])
    found: dict[float, Cox] = {}
    for strength in sorted(strengths, reverse=True):  # from the strongest on, each starts where the last one ended
        at, gradient = _minimum(design.turned, sets, design.penalties(strength), at)
        hazard = np.cumsum(np.exp(-sets.log_totals(design.turned @ at)))
        found[strength] = Cox(design.weight(at), design.centre, sets.days, hazard, gradient)
    return [found[strength] for strength in strengths]


def _minimum(turned: np.ndarray, sets: RiskSets, penalty: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns where the objective is least, by Newton's method with halved steps, and what is left of the gradient."""
    deaths = len(sets.days)

    def objective(where: np.ndarray) -> tuple[float, np.ndarray]:
        loss, shares = sets.loss_and_shares(turned @ where)
        return loss / deaths + float(penalty @ (where * where)) / 2, shares

    value, shares = objective(at)
    for _ in range(NEWTON_STEPS):
        expected, means = shares.sum(axis=0), shares @ turned
        gradient = turned.T @ (expected - sets.event) / deaths + penalty * at
        curvature = ((turned.T * expected) @ turned - means.T @ means) / deaths + np.diag(penalty)
        step = cho_solve(cho_factor(curvature), gradient) if len(at) else gradient
        if gradient @ step <= CLOSE:
            break
        for halving in range(HALVINGS):
            closer = at - step / 2**halving
            lower, shares = objective(closer)
            if lower <= value + ROUNDING * abs(value):
                break
        else:
            break  # as low as floats can tell
        at, value = closer, lower
    return at, float(np.abs(gradient).max(initial=0.0))
