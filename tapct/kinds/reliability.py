"""Reliability: whether two scans of a patient between which nothing changed have the same features; nothing is trained.

A case is a scan, and each patient has two: test and retest, or two reconstructions of one acquisition. A record holds
the pooled features of every scan, each less its mean and over its deviation over all reported scans; so no number here
depends on the shift or the scale of a feature (`tapct.metrics.reliability`). They do depend on which features there
are: a rotation of them has other intraclass correlations, as it has other features.

When patients are resampled, those that a scan is told from stay whole, and so do mean and deviation: the interval is of
the patients whose scans are asked about. Only the intraclass correlation takes its variances of the patients drawn.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tapct import numeric
from tapct.kinds.base import Cases, Field, Kind, Mean, Metric, Number, Statistic
from tapct.metrics.reliability import EXCELLENT, GOOD, LEAST, agreement, icc_in_blocks
from tapct.metrics.retrieval import RandomOrder

DIGITS = 5
"""Decimals of a standardised feature in a record: what is lost moves an intraclass correlation by 1e-6 or so."""

FEATURES = "features"

AGREEMENT = ("cosine", "identified", "reciprocal_rank", "distance_ratio")
"""Fields of a scan and its partner, as `tapct.metrics.reliability.agreement` gives them."""


# -- A scan --------------------------------------------------------------------------------------------


def outcomes(vectors: np.ndarray, patients: np.ndarray, targets: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Returns what a record holds of each scan, by field and class.

    Args:
        vectors: (N, P) standardised features.
        patients: (N,) of each, as numbers; of each patient there are two scans.
        targets: (N, 3) occasion (1 or 2), whether the kernel is another one than that of the patient's other scan, and
            slice thickness in mm; NaN where the last two are not known.
        name: The class.
    """
    vectors = np.round(vectors, DIGITS) + 0.0
    same, occasion = patients[:, None] == patients, targets[:, 0]
    partner = (same & ~np.eye(len(patients), dtype=bool)).argmax(axis=1)
    others = ~same & (occasion[:, None] != occasion)
    said = agreement(vectors, partner, others)
    found = []
    for row, of_pair in enumerate(said):
        kernel, thickness = (None if math.isnan(one) else float(one) for one in targets[row, 1:])
        about = {
            **{"occasion": float(occasion[row]), "others": float(others[row].sum())},
            **{"other_kernel": kernel, "slice_thickness_mm": thickness},
        }
        values = {**about, **of_pair, FEATURES: vectors[row].tolist()}
        found.append({field.name: {name: values[field.name]} for field in KIND.fields})
    return found


def case_loss(fields: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns 1 minus the cosine of a scan with its partner."""
    (cosine,) = fields["cosine"].values()
    return 1 - cosine


def _fault(fields: Mapping[str, Mapping[str, Any]]) -> str | None:
    (occasion,), (others,) = fields["occasion"].values(), fields["others"].values()
    if occasion not in (1, 2) or others % 1:
        return f"the occasion is {occasion:g} and other scans are {others:g}: of two occasions, and whole numbers"
    (features,) = fields[FEATURES].values()
    return None if features else "it has no features"


# -- Metrics -------------------------------------------------------------------------------------------


def in_pairs(cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (n, P) the features of the first scans of n patients, those of the second, and (n,) the first's places.

    Features that are the same for all scans are left out.
    """
    occasion = cases["occasion"][:, 0]
    places: dict[str, list[int]] = {}
    for place in np.argsort(occasion, kind="stable").tolist():
        places.setdefault(cases.patients[place], []).append(place)
    rows = np.array([places[patient] for patient in sorted(places)])
    features = np.stack(list(cases[FEATURES][:, 0]))
    features = features[:, features.any(axis=0)]
    return features[rows[:, 0]], features[rows[:, 1]], rows[:, 0]


def correlations(cases: Cases) -> np.ndarray:
    """Returns (P,) the intraclass correlation of each feature that is not the same for all scans."""
    first, second, _ = in_pairs(cases)
    return next(icc_in_blocks(first, second, np.ones((len(first), 1))))[:, 0]


def _of_features(summary: Callable[[np.ndarray], np.ndarray]) -> Statistic:
    """Returns a summary over features, from (P, R) with NaN where one is undefined to (R,)."""

    def value(cases: Cases, counts: np.ndarray) -> np.ndarray:
        first, second, rows = in_pairs(cases)
        if not first.shape[1]:
            return np.full(counts.shape[1], np.nan)
        return np.concatenate([summary(found) for found in icc_in_blocks(first, second, counts[rows])])

    return Statistic(value)


def _median(found: np.ndarray) -> np.ndarray:
    undefined = np.isnan(found)
    if not undefined.any():
        return np.median(found, axis=0)
    some = ~undefined.all(axis=0)
    result = np.full(found.shape[1], np.nan)
    result[some] = np.nanmedian(found[:, some], axis=0)
    return result


def _share_from(least: float) -> Callable[[np.ndarray], np.ndarray]:
    def share(found: np.ndarray) -> np.ndarray:
        number = (~np.isnan(found)).sum(axis=0).astype(float)
        with np.errstate(invalid="ignore"):
            reached = numeric.at_least(found, least).sum(axis=0)
        return np.divide(reached, number, out=np.full(len(number), np.nan), where=number > 0)

    return share


def _mean(field: str) -> Mean:
    return Mean(lambda cases: cases[field][:, 0])


def _constant(cases: Cases) -> float:
    return float((~np.stack(list(cases[FEATURES][:, 0])).any(axis=0)).sum())


def at_chance(cases: Cases) -> Cases:
    """Returns the cases as somebody would have them who cannot tell patients apart.

    Of the other scan they say what an order at random gives, in expectation; and the features of second scans are those
    of the next patient by name.
    """
    _, _, first = in_pairs(cases)
    second = np.array([partner(cases, row) for row in first])
    features = cases[FEATURES].copy()
    features[second] = cases[FEATURES][np.roll(second, 1)]
    chances = [RandomOrder(1, int(others) + 1) for others in cases["others"][:, 0]]
    said = {
        "cosine": np.zeros(len(cases)),
        "identified": np.array([one.hit(1) for one in chances]),
        "reciprocal_rank": np.array([one.average_precision() for one in chances]),
        "distance_ratio": np.ones(len(cases)),
    }
    return replace(cases, values={**cases.values, FEATURES: features} | {k: v[:, None] for k, v in said.items()})


def partner(cases: Cases, row: int) -> int:
    """Returns the place of the other scan of a scan's patient."""
    return next(i for i, who in enumerate(cases.patients) if who == cases.patients[row] and i != row)


_NOTHING = "all features are the same for every scan"


def _icc(name: str, title: str, summary: Callable[[np.ndarray], np.ndarray], **about: Any) -> Metric:
    return Metric(name=name, title=title, of=_of_features(summary), undefined=_NOTHING, **about)


KIND = Kind(
    name="reliability",
    title="Reliability",
    target="which of two scans of a patient it is, between which nothing changed; what was set otherwise for it",
    metrics=(
        _icc("MedianICC", "median ICC", _median, low=LEAST, column="ICC(2,1), median over features"),
        _icc("GoodICC", f"ICC ≥ {GOOD:g}", _share_from(GOOD), column=f"share of features with ICC ≥ {GOOD:g}"),
        _icc(
            "ExcellentICC",
            f"ICC ≥ {EXCELLENT:g}",
            _share_from(EXCELLENT),
            column=f"share of features with ICC ≥ {EXCELLENT:g}",
        ),
        Metric(
            name="PairCosine",
            title="cosine of pairs",
            of=_mean("cosine"),
            low=-1.0,
            column="cosine of a pair, standardised features",
        ),
        Metric(
            name="Identification",
            title="identified",
            of=_mean("identified"),
            column="identification rate (R@1): the patient's other scan is nearest",
        ),
        Metric(
            name="PartnerMRR",
            title="MRR",
            of=_mean("reciprocal_rank"),
            column="mean reciprocal rank of the patient's other scan",
        ),
        Metric(
            name="DistanceRatio",
            title="within / between",
            of=_mean("distance_ratio"),
            high=math.inf,
            lower_is_better=True,
            column="distance within patients / between",
            undefined=_NOTHING,
        ),
        Metric(
            name="ConstantFeatures",
            title="constant features",
            of=Number(_constant),
            high=math.inf,
            lower_is_better=True,
            digits=0,
        ),
    ),
    ranked=("MedianICC", "Identification", "PairCosine", "DistanceRatio"),
    fields=(
        Field(name="occasion", title="first (1) or second (2) scan", given=True, low=1, high=2),
        Field(name="others", title="other patients' scans that the partner is among", given=True, low=1),
        Field(
            name="other_kernel",
            title="whether the kernel differs from that of the other scan",
            given=True,
            low=0,
            high=1,
            missing=True,
        ),
        Field(name="slice_thickness_mm", title="slice thickness, mm", given=True, low=0, missing=True),
        Field(name="cosine", title="cosine with the other scan", low=-1, high=1),
        Field(name="identified", title="whether the other scan is nearest", low=0, high=1),
        Field(name="reciprocal_rank", title="reciprocal rank of the other scan", low=0, high=1),
        Field(
            name="distance_ratio",
            title="distance to the other scan over that to other patients",
            low=0,
            missing=True,
        ),
        Field(name=FEATURES, title="standardised features", many=True),
    ),
    probe="tapct.probes.reliability:ReliabilityProbe",
    dataset="tapct.tasks.reliability:ReliabilityDataset",
    page="tapct.leaderboard.page.kinds.reliability",
    fault=_fault,
    loss=case_loss,
    heads=("cosine",),
    trains=False,
    chance=at_chance,
    rows_to_beat=("chance", "body-size", "intensity", "radiomics", "random-pyramid", "random weights"),
)
