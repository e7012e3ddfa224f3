"""The free-response ROC: how many findings a detector finds, at so many false positives a scan.

A candidate hits a finding when it lies within its radius, and counts for the nearest one that it hits. Of several that
hit one finding the highest score counts and the others count neither way, as in LUNA16's evaluation (Setio et al. 2017,
section 2.4); so does what hits an excluded finding alone. All the rest are false positives, those of scans without a
finding too. (LUNA16's script lets one candidate find two findings whose spheres overlap; here it finds the nearest.)

Equal scores are one threshold, between thresholds the curve is straight, and beyond its last point it stays there: a
detector that never gives eight false positives a scan has at eight what it has at its last. Numbers are counted whole,
and one division ends in float64, so neither the order of scans and candidates nor the machine can change them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which sensitivity is told; the mean over them is LUNA16's score."""

RATE_NAMES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")

BLOCK = 256
"""Resamples at a time, so that those of thousands of thresholds take some tens of MB."""

LIMIT = 100
"""Candidates that a scan may have: the best of so many are what LUNA16's evaluation looks at."""

BANDS_MM = ((0.0, 6.0), (6.0, 10.0), (10.0, 20.0), (20.0, math.inf))
"""Diameters [from, to) by which sensitivity is told apart: LUNA16's nodules of at least 3 mm, at the sizes at which
guidelines change what is done (Fleischner Society 2017: 6 mm), and the masses that are hard for crops of nodules."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What the candidates of one scan come to.

    Attributes:
        scores: (L,) float64 of each finding that counts, the score that it is found at; NaN where it is not.
        errors_mm: (L,) distance of the candidate that finds it; NaN likewise.
        diameters_mm: (L,) its diameter.
        false: (F,) scores of the false positives.
    """

    scores: np.ndarray
    errors_mm: np.ndarray
    diameters_mm: np.ndarray
    false: np.ndarray


def mark(
    candidates_mm: np.ndarray, scores: np.ndarray, points_mm: np.ndarray, diameters_mm: np.ndarray, excluded: np.ndarray
) -> Marks:
    """Compares the candidates of a scan with its findings.

    Args:
        candidates_mm: (N, 3) places of the candidates, in mm.
        scores: (N,) their scores, the higher the surer.
        points_mm: (L, 3) centres of the findings, in the same world.
        diameters_mm: (L,) their diameters.
        excluded: (L,) booleans: those that count neither way.

    Raises:
        ValueError: If a number is not finite, or a diameter not positive.
    """
    candidates, points = (np.asarray(of, dtype=np.float64).reshape(-1, 3) for of in (candidates_mm, points_mm))
    scores, diameters = (np.asarray(of, dtype=np.float64) for of in (scores, diameters_mm))
    excluded = np.asarray(excluded, dtype=bool)
    if not all(np.isfinite(of).all() for of in (candidates, scores, points, diameters)) or (diameters <= 0).any():
        raise ValueError("places, scores and diameters must be finite, and diameters positive")
    apart = np.linalg.norm(candidates[:, None] - points[None], axis=-1)
    hits = apart < diameters / 2
    counting = np.flatnonzero(~excluded)
    reach = np.where(hits, apart, np.inf)[:, counting]
    false = scores[~hits.any(axis=1)]
    found, errors = (np.full(len(counting), np.nan) for _ in range(2))
    if len(counting):
        of = np.where(np.isfinite(reach.min(axis=1)), reach.argmin(axis=1), -1)
        for finding in np.unique(of[of >= 0]):
            mine = of == finding
            found[finding] = scores[mine].max()
            errors[finding] = reach[mine & (scores == found[finding]), finding].min()
    return Marks(found, errors, diameters[counting], false)


@dataclass(frozen=True, eq=False)
class Detections:
    """The marks of all scans, ready to be counted in resamples of scans.

    Attributes:
        scans: How many scans there are.
        owners: (L,) index of the scan of each finding.
        scores: (L,) the score that it is found at; NaN where it is not.
        errors_mm: (L,) distance of the candidate that finds it; NaN likewise.
        diameters_mm: (L,) its diameter.
        false_owners: (F,) index of the scan of each false positive.
        false_scores: (F,) its score.
    """

    scans: int
    owners: np.ndarray
    scores: np.ndarray
    errors_mm: np.ndarray
    diameters_mm: np.ndarray
    false_owners: np.ndarray
    false_scores: np.ndarray

    @classmethod
    def of(cls, marks: Sequence[Sequence[Marks]]) -> "Detections":
        """Returns the detections of scans, each with the marks of every class that is looked for in it."""
        each = [(scan, one) for scan, of_scan in enumerate(marks) for one in of_scan]
        scan = np.array([scan for scan, _ in each], dtype=np.int64)
        return cls(
            scans=len(marks),
            owners=np.repeat(scan, [len(one.scores) for _, one in each]),
            scores=_joined([one.scores for _, one in each]),
            errors_mm=_joined([one.errors_mm for _, one in each]),
            diameters_mm=_joined([one.diameters_mm for _, one in each]),
            false_owners=np.repeat(scan, [len(one.false) for _, one in each]),
            false_scores=_joined([one.false for _, one in each]),
        )

    def within(self, low_mm: float, high_mm: float) -> "Detections":
        """Returns the detections with the findings of diameters in [low, high) alone; false positives stay."""
        kept = (self.diameters_mm >= low_mm) & (self.diameters_mm < high_mm)
        mine = {name: getattr(self, name)[kept] for name in ("owners", "scores", "errors_mm", "diameters_mm")}
        return replace(self, **mine)

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the (T,) false positives a scan and sensitivities at all thresholds, from (0, 0) on."""
        true, false, findings = self._counted(np.ones((self.scans, 1)))
        return false[:, 0] / self.scans, true[:, 0] / findings

    def sensitivities(self, counts: np.ndarray) -> np.ndarray:
        """Returns (rates, R) the sensitivity at each of `RATES`, in each resample.

        Args:
            counts: (scans, R) how often each scan was drawn, whole numbers. A column of ones is no resampling.

        Returns:
            NaN where a resample has no finding.
        """
        found = []
        for start in range(0, counts.shape[1], BLOCK):
            drawn = np.asarray(counts[:, start : start + BLOCK], dtype=np.float64)
            true, false, findings = self._counted(drawn)
            scans = drawn.sum(axis=0)
            found.append(np.stack([_at(rate * scans, true, false) for rate in RATES]) / findings)
        return np.concatenate(found, axis=1)

    def froc(self, counts: np.ndarray) -> np.ndarray:
        """Returns (R,) the mean of the sensitivities; for `counts` see `sensitivities`."""
        return np.cumsum(self.sensitivities(counts), axis=0)[-1] / len(RATES)

    def error_mm(self, counts: np.ndarray) -> np.ndarray:
        """Returns (R,) the median distance in mm of what was found from where it is; NaN where nothing was found."""
        found = np.flatnonzero(~np.isnan(self.errors_mm))
        if not len(found):
            return np.full(counts.shape[1], np.nan)
        found = found[np.argsort(self.errors_mm[found], kind="stable")]
        errors, drawn = self.errors_mm[found], np.cumsum(counts[self.owners[found]], axis=0)
        half = drawn[-1] / 2
        low, high = (drawn < half).sum(axis=0), (drawn <= half).sum(axis=0)  # of an even number, the middle two
        middle = (errors[low] + errors[np.minimum(high, len(errors) - 1)]) / 2
        return np.where(half > 0, middle, np.nan)

    def _counted(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what was drawn: (T, R) found and false from each threshold on, and (R,) findings, NaN for none.

        The first row is 0: a threshold that nothing reaches.
        """
        is_found = ~np.isnan(self.scores)
        places = _thresholds(self.scores[is_found], self.false_scores)
        thresholds = 1 + max(int(place.max(initial=-1)) for place in places)
        nothing = np.zeros((1, counts.shape[1]))
        sums = []
        for place, owners in zip(places, (self.owners[is_found], self.false_owners), strict=True):
            table = np.bincount(place * self.scans + owners, minlength=thresholds * self.scans)
            # Sums of products of whole numbers: exact in any order.
            drawn = table.reshape(thresholds, self.scans).astype(np.float64) @ counts
            sums.append(np.concatenate([nothing, np.cumsum(drawn, axis=0)]))
        findings = np.bincount(self.owners, minlength=self.scans) @ counts
        return sums[0], sums[1], np.where(findings > 0, findings, np.nan)


def _at(allowed: np.ndarray, true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Returns (R,) how many are found where (R,) so many false positives are allowed, between (T, R) points."""
    columns = np.arange(len(allowed))
    low = (false <= allowed).sum(axis=0) - 1
    high = np.minimum(low + 1, len(true) - 1)
    start, width = false[low, columns], false[high, columns] - false[low, columns]
    share = np.divide(allowed - start, width, out=np.zeros(len(allowed)), where=width > 0)
    return true[low, columns] + share * (true[high, columns] - true[low, columns])


def _thresholds(found: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns at which threshold each found finding and each false positive is, numbered from the highest score on.

    Neighbouring scores of false positives alone are one threshold, and of findings alone too: the curve is level, or
    rises straight up, between them, whichever scans are drawn.
    """
    values, place = np.unique(np.concatenate([found, false]), return_inverse=True)
    place = len(values) - 1 - place
    parts = place[: len(found)], place[len(found) :]
    has_found, has_false = (np.bincount(part, minlength=len(values)) > 0 for part in parts)
    begins = np.ones(len(values), dtype=bool)
    begins[1:] = (has_found[1:] != has_found[:-1]) | (has_false[1:] != has_false[:-1]) | (has_found & has_false)[1:]
    number = np.cumsum(begins) - 1
    return number[parts[0]], number[parts[1]]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0), *parts])
