"""Linear heads on pooled features, solved in float64: no rate, no step, no start decides the answer.

The objectives are scikit-learn's, to which tests hold them: `LogisticRegression(C=1 / (strength * n))` and
`Ridge(alpha=strength * n)`, both with an intercept that is free and not penalised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

STRENGTHS = tuple(10.0**power for power in range(-6, 5))
"""L2 penalties on the mean loss that are chosen from, for features of unit deviation."""

GRADIENT = 1e-9
"""A logistic head is solved where no component of its gradient is larger; of features of unit deviation."""

SOLVED = 1e-6
"""It counts as solved up to here: what L-BFGS reaches before differences of the loss drown in rounding."""


TABLE_STRENGTH = 1e-3
"""L2 penalty of columns of a table, of unit deviation: so weak that it moves no coefficient by more than its error, and
enough that columns which say the same (a missing stage and a missing T stage) have one answer."""

NEWTON_STEPS, DISTANCE = 5, 1e-9
"""Steps of Newton's method after L-BFGS at most, and how far from the minimum, in weights, they are not needed."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear head on P features for K outputs.

    Attributes:
        weight: (K, P) float64.
        bias: (K,) float64.
        gradient: Largest component of the gradient of the objective where it was left; 0 of a closed form.
    """

    weight: np.ndarray
    bias: np.ndarray
    gradient: float = 0.0

    @property
    def is_solved(self) -> bool:
        """Whether it is the optimum, as far as floats go."""
        return self.gradient <= SOLVED

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns (N, K) outputs of (N, P) features."""
        return features @ self.weight.T + self.bias


class Design:
    """Training features, turned so that the solvers work in as few dimensions as the cases span.

    A penalised solution lies in the span of the (centred) cases: of 60 crops with 768 features, in 60 dimensions. The
    free intercept takes the centre up again, so that centring changes nothing here.

    Columns of a table (age, stage) stand next to the features and are not turned: their penalty is their own, and weak.
    Penalised with hundreds of features, the few that are known to count would be drowned by those that are asked about;
    and where the features are worth nothing, what is left is the head of the table alone.
    """

    def __init__(self, features: np.ndarray, table: int = 0) -> None:
        """Decomposes the features.

        Args:
            features: (N, P) float64.
            table: How many of the columns, the last ones, are of a table.
        """
        own = features.shape[1] - table
        self.centre = features.mean(axis=0)
        centred = features - self.centre
        left, singular, right = np.linalg.svd(centred[:, :own], full_matrices=False)
        kept = singular > singular.max(initial=0) * max(features.shape) * np.finfo(np.float64).eps
        self.turned = np.concatenate([left[:, kept] * singular[kept], centred[:, own:]], axis=1)
        self._right = right[kept]

    def penalties(self, strength: float) -> np.ndarray:
        """Returns the penalty of each turned column: the strength, and `TABLE_STRENGTH` of those of a table."""
        number = len(self._right)
        return np.concatenate([np.full(number, strength), np.full(self.turned.shape[1] - number, TABLE_STRENGTH)])

    def weight(self, turned: np.ndarray) -> np.ndarray:
        """Returns the (..., P) weights of the columns from (..., R) weights of the turned ones."""
        number = len(self._right)
        return np.concatenate([turned[..., :number] @ self._right, turned[..., number:]], axis=-1)

    def linear(self, turned: np.ndarray, bias: np.ndarray, gradient: float = 0.0) -> Linear:
        """Returns the head of (K, R) weights on the turned columns."""
        weight = self.weight(turned)
        return Linear(weight, bias - weight @ self.centre, gradient)


def ridge(design: Design, targets: np.ndarray, strength: float) -> Linear:
    """Returns the minimum of mean squared error + strength x squared length of the weights, in closed form.

    Args:
        design: The training features.
        targets: (N, K) numbers.
        strength: L2 penalty, positive.
    """
    mean = targets.mean(axis=0)
    curvature = design.turned.T @ design.turned + np.diag(design.penalties(strength)) * len(targets)
    return design.linear(cho_solve(cho_factor(curvature), design.turned.T @ (targets - mean)).T, mean)


def logistic(design: Design, targets: np.ndarray, strengths: Sequence[float] = STRENGTHS) -> list[Linear]:
    """Returns the minima of mean cross-entropy + strength / 2 x squared length of the weights, one label at a time.

    Args:
        design: The training features.
        targets: (N, K) of 0 and 1, NaN where a case does not count for a label; a label with one value alone gets no
            weights, and the logit of its rate.
        strengths: L2 penalties, positive; the answers come in their order.
    """
    order = np.argsort(strengths)[::-1]  # from the strongest on, each starts where the last one ended
    by_label = [_path(design, labels, [strengths[i] for i in order]) for labels in targets.T]
    found: list[Linear | None] = [None] * len(strengths)
    for position, index in enumerate(order):
        parts = [path[position] for path in by_label]
        weight, bias = np.stack([part[0][1:] for part in parts]), np.array([part[0][0] for part in parts])
        found[index] = design.linear(weight, bias, max(part[1] for part in parts))
    return [one for one in found if one is not None]


def _path(design: Design, labels: np.ndarray, strengths: Sequence[float]) -> list[tuple[np.ndarray, float]]:
    """Returns, for each strength, intercept and weights, and the largest component of the gradient there."""
    stated = ~np.isnan(labels)
    turned, labels = design.turned[stated], labels[stated]
    count, positives = len(labels), float(labels.sum())
    if positives in (0, count):
        rate = (positives + 0.5) / (count + 1)
        constant = np.zeros(1 + design.turned.shape[1])
        constant[0] = np.log(rate / (1 - rate))
        return [(constant, 0.0)] * len(strengths)
    signs = 2.0 * labels - 1
    at = np.zeros(1 + design.turned.shape[1])
    at[0] = np.log(positives / (count - positives))
    found = []
    for strength in strengths:
        penalty = design.penalties(strength)
        at = _minimum(turned, signs, penalty, at)
        found.append((at, float(np.abs(_objective(at, turned, signs, penalty)[1]).max())))
    return found


def _minimum(turned: np.ndarray, signs: np.ndarray, penalty: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns where the objective is least.

    Turned features are orthogonal, so that with every probability at one half the curvature along each is known. In
    units of it L-BFGS needs a tenth of the steps where there are many cases, and comes no less close.
    """
    curvature = np.concatenate([[1.0], (turned**2).sum(axis=0) / len(signs)]) / 4
    curvature[1:] += penalty
    unit = 1 / np.sqrt(curvature)

    def scaled(at: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = _objective(at * unit, turned, signs, penalty)
        return loss, gradient * unit

    options = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 0.0, "gtol": GRADIENT}
    at = minimize(scaled, start / unit, method="L-BFGS-B", jac=True, options=options).x * unit
    return _polished(at, turned, signs, penalty)


def _polished(at: np.ndarray, turned: np.ndarray, signs: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Returns the minimum from close by, by steps of Newton's method, as long as they come closer.

    Under a weak penalty the bottom is so flat that a gradient of nearly nothing is still a way off: the distance is up
    to gradient / strength.
    """
    gradient = _objective(at, turned, signs, penalty)[1]
    for _ in range(NEWTON_STEPS):
        if np.abs(gradient).max() <= DISTANCE * penalty.min(initial=np.inf):
            break
        chance = expit(turned @ at[1:] + at[0])
        columns = np.column_stack([np.ones(len(signs)), turned]) * np.sqrt(chance * (1 - chance) / len(signs))[:, None]
        curvature = columns.T @ columns
        curvature[np.arange(1, len(at)), np.arange(1, len(at))] += penalty
        try:
            step = cho_solve(cho_factor(curvature), gradient)
        except LinAlgError:  # all probabilities are 0 or 1 as far as floats go: there is no closer
            break
        closer = _objective(at - step, turned, signs, penalty)[1]
        if not np.abs(closer).max() < np.abs(gradient).max():
            break
        at, gradient = at - step, closer
    return at


def _objective(at: np.ndarray, turned: np.ndarray, signs: np.ndarray, penalty: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the penalised loss and its gradient; `at` is the intercept, then the weights."""
    margins = signs * (turned @ at[1:] + at[0])
    pull = -signs * expit(-margins) / len(signs)
    loss = float(np.logaddexp(0, -margins).mean()) + float(penalty @ (at[1:] * at[1:])) / 2
    return loss, np.concatenate([[pull.sum()], turned.T @ pull + penalty * at[1:]])


def prototype(features: np.ndarray, targets: np.ndarray) -> Linear:
    """Returns the nearest class mean as a linear head.

    The logit is half the squared distance to the negatives' mean minus that to the positives': the Bayes rule of two
    round normal distributions of one size.

    Args:
        features: (N, P) float64.
        targets: (N, K) of 0 and 1, NaN where a case does not count; a label with one value alone gets no weights.
    """
    weights, biases = [], []
    for labels in targets.T:
        if (labels == 0).any() and (labels == 1).any():
            means = [features[labels == value].mean(axis=0) for value in (0, 1)]
            weights.append(means[1] - means[0])
            biases.append((means[0] @ means[0] - means[1] @ means[1]) / 2)
        else:
            weights.append(np.zeros(features.shape[1]))
            biases.append(0.0)
    return Linear(np.stack(weights), np.array(biases))


def neighbour_votes(train: np.ndarray, targets: np.ndarray, features: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Returns (len(counts), N, K): the share of positives among the nearest training cases by cosine similarity.

    Of equally near cases those that come first in the training split count, as in scikit-learn. A label asks the
    nearest cases that state it: all of them where they are fewer, and where there are none the share is 0.

    Args:
        train: (M, P) features.
        targets: (M, K) of 0 and 1, NaN where a case does not state a label.
        features: (N, P) features to judge.
        counts: Numbers of neighbours, each at most M.
    """
    similar = _unit(features) @ _unit(train).T
    order, found = np.argsort(-similar, axis=1, kind="stable"), np.zeros((len(counts), len(features), targets.shape[1]))
    for k, labels in enumerate(targets.T):
        stated = ~np.isnan(labels)
        number = int(stated.sum())
        if number:
            nearest = order[stated[order]].reshape(len(features), number)[:, : max(counts)]
            votes = np.cumsum(labels[nearest], axis=1)  # (N, neighbours)
            for place, count in enumerate(min(count, number) for count in counts):
                found[place, :, k] = votes[:, count - 1] / count
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)
