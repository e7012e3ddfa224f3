"""Localisation: points in whole scans, compared by how many are found at so many false positives a scan."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tapct.kinds.base import ByField, Cases, Field, Kind, Metric, Statistic, linear_head_fault
from tapct.metrics.froc import LIMIT, RATE_NAMES, Detections, mark

POINT = ("point_x_mm", "point_y_mm", "point_z_mm")
CANDIDATE = ("candidate_x_mm", "candidate_y_mm", "candidate_z_mm")
OF_POINTS, OF_CANDIDATES = (*POINT, "diameter_mm", "excluded"), (*CANDIDATE, "score")

BEST = 20
"""Candidates of a scan that are compared where they are computed again."""

_NOTHING = "no reported case has a finding that counts"


def detections(cases: Cases) -> Detections:
    """Returns what the candidates of the cases come to, all classes together."""
    each = range(len(cases)), range(len(cases.classes))
    return Detections.of([[mark(*_of(cases, case, label)) for label in each[1]] for case in each[0]])


def places(cases: Cases, case: int, label: int, fields: tuple[str, ...]) -> np.ndarray:
    """Returns (n, 3) the points or candidates of a case and class, x, y, z in mm, RAS+."""
    return np.stack([cases[field][case, label] for field in fields], axis=1)


def _of(cases: Cases, case: int, label: int) -> tuple[np.ndarray, ...]:
    candidates, points = (places(cases, case, label, fields) for fields in (CANDIDATE, POINT))
    score, diameter, excluded = (cases[name][case, label] for name in ("score", "diameter_mm", "excluded"))
    return candidates, score, points, diameter, excluded != 0


def _statistic(of: Callable[[Detections, np.ndarray], np.ndarray]) -> Statistic:
    return Statistic(lambda cases, counts: of(detections(cases), counts))


def _sensitivity(place: int) -> Metric:
    rate = RATE_NAMES[place]
    return Metric(
        name=f"sensitivity@{rate}",
        title=f"sensitivity at {rate} false positives a scan",
        column=f"sensitivity at {rate}",
        of=_statistic(lambda found, counts: found.sensitivities(counts)[place]),
        shown=rate in ("1/8", "1", "8"),
        undefined=_NOTHING,
        needs=_with_findings,
    )


def _with_findings(cases: Cases) -> Mapping[str, np.ndarray]:
    has = [any((excluded == 0).any() for excluded in of_case) for of_case in cases["excluded"]]
    return {"with a finding": np.array(has, dtype=bool)}


def _one_score(cases: Cases) -> Cases:
    """Returns the same candidates, none of them surer than another: what of a FROC is no merit of the scores."""
    scores = cases["score"].copy()
    for place in np.ndindex(*scores.shape):
        scores[place] = np.zeros_like(scores[place])
    return replace(cases, values={**cases.values, "score": scores})


def _matched(now: ByField, then: ByField) -> tuple[ByField, ByField]:
    """Returns the best candidates of a record next to the nearest ones of what came out again.

    Scores that are nearly equal change their order by a rounding, and the last of a hundred candidates come and go.
    """
    both: tuple[dict[str, dict[str, Any]], ...] = tuple({field: dict(of[field]) for field in of} for of in (now, then))
    for name in then["score"]:
        places, wanted = (np.array([of[field][name] for field in CANDIDATE]).T.reshape(-1, 3) for of in (now, then))
        best = range(min(BEST, len(wanted)))
        nearest = [int(np.linalg.norm(places - wanted[one], axis=1).argmin()) for one in best if len(places)]
        for field in OF_CANDIDATES:
            both[0][field][name] = [now[field][name][one] for one in nearest]
            both[1][field][name] = [then[field][name][one] for one in best]
    return both[0], both[1]


def _fault(outcome: Mapping[str, Mapping[str, Any]]) -> str | None:
    for fields in (OF_POINTS, OF_CANDIDATES):
        for name in outcome[fields[0]]:
            lengths = {len(outcome[field][name]) for field in fields}
            if len(lengths) > 1:
                return f"{', '.join(fields)} of {name} must be lists of one length"
            if fields is OF_CANDIDATES and max(lengths) > LIMIT:
                return f"{name} has {max(lengths)} candidates, and a scan may have {LIMIT}"
    for name, values in outcome["excluded"].items():
        if not set(values) <= {0.0, 1.0}:
            return f"excluded of {name} is neither 0 nor 1"
    return None


_MM: dict[str, Any] = {"many": True}

KIND = Kind(
    name="localisation",
    title="Localisation",
    target="points in mm of the patient's world, with diameters",
    metrics=(
        Metric(
            name="FROC",
            title="FROC",
            of=_statistic(Detections.froc),
            undefined=_NOTHING,
            needs=_with_findings,
        ),
        *(_sensitivity(place) for place in range(len(RATE_NAMES))),
        Metric(
            name="MedianError_mm",
            title="median error",
            of=_statistic(Detections.error_mm),
            high=np.inf,
            lower_is_better=True,
            unit="mm",
            digits=1,
            undefined="nothing was found",
        ),
    ),
    ranked=("FROC",),
    fields=(
        *(Field(name=name, title=f"finding, {name[6]}, RAS+", given=True, **_MM) for name in POINT),
        Field(name="diameter_mm", title="diameter of the finding", given=True, low=np.nextafter(0, 1), **_MM),
        Field(name="excluded", title="1 where it counts neither way", given=True, low=0, high=1, **_MM),
        *(Field(name=name, title=f"candidate, {name[10]}, RAS+", **_MM) for name in CANDIDATE),
        Field(name="score", title="score of the candidate, a logit", **_MM),
    ),
    probe="tapct.probes.localisation:LocalisationProbe",
    dataset="tapct.tasks.localisation:LocalisationDataset",
    page="tapct.leaderboard.page.kinds.localisation",
    fault=_fault,
    chance=_one_score,
    head_fault=linear_head_fault,
    matched=_matched,
    settings=("apart_mm",),
    rows_to_beat=("chance", "intensity", "organ-centre", "random-pyramid", "random weights"),
)
