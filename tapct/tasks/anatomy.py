"""Whether a scan lies in the patient as its header says: its labels are held against where organs lie.

A scan that is mirrored or upside down in its file looks like any other, and no score shows it: scan and labels turn
together, and the encoder sees a body that nobody has. Here pairs of organs vote, of which one always lies to the same
side of the other. Only what lies far on the wrong side votes against, and a single odd organ accuses nobody. Labels
that are turned against their scan, which do spoil a score, are found by the scan's own edges (`alignment`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np

from tapct.tasks.alignment import Turn, better_turned
from tapct.tasks.landmarks import LUNGS, SPINE, landmarks
from tapct.tasks.organs import UPPER_ABDOMEN, organs, place, without_side
from tapct.volumes import Volume

AXES = ("right and left", "front and back", "head and feet")
"""What may be exchanged, along the axes of a `Place`."""

_SIDES = (("right of", "left of"), ("in front of", "behind"), ("below", "above"))
_WRONG = ("mirrored", "back to front", "upside down")

_LEAST_GAP_MM = (30.0, 30.0, 80.0)
"""Two organs are a pair along an axis if they usually lie this far apart. More along the body: where a scan ends, what
it shows of an organ has another centre than the organ."""

_VOTES_FROM = 0.5
"""Share of its usual distance from which a pair votes, for or against: a child of five has about half of an adult's."""

_CLEAR = 0.8
"""Share of the votes that decides. Of three organs one may lie anywhere: two of the three pairs decide nothing."""

_TO_LPS = np.array([-1, -1, 1])

_OTHER_PAIR_MM = 40.0
"""How far apart other things that are called right and left usually are at least."""

_LEAST_ML = 1.0
"""Less of an organ is no place to go by; an adrenal gland has 4 ml."""

_COARSE_MM = 4.0
_SHOWN = 3


@dataclass(frozen=True)
class AnatomicalOrientation:
    """What the organs of a case say of its orientation.

    Attributes:
        judged: Of `AXES`, those that enough organs speak of.
        wrong: What is wrong and what shows it; empty if nothing is.
        odd: Pairs that lie unlike in most people where all in all nothing is wrong; empty if none.
    """

    judged: tuple[str, ...] = ()
    wrong: str = ""
    odd: str = ""


class _Pair(NamedTuple):
    """Two organs, and how far the second lies to the left of, behind and above the first (NaN: it varies)."""

    first: str
    second: str
    usual_mm: np.ndarray
    found_mm: np.ndarray


def judge(ct: Volume, labels: np.ndarray, classes: Sequence[str]) -> AnatomicalOrientation:
    """Returns what the labelled organs of a case say of its orientation.

    Args:
        ct: The scan, as it was read.
        labels: (D, H, W) labels on its grid.
        classes: Names by label, background first. Those that are no organs known here say nothing.
    """
    step = np.array([max(1, int(_COARSE_MM // mm)) for mm in ct.spacing_mm])
    coarse = tuple(slice(None, None, s) for s in step)
    hu, labels = ct.hu[coarse], labels[coarse]
    spacing_mm = step * np.array(ct.spacing_mm)
    centres = _centres(hu, labels, classes, spacing_mm)
    placed = {name: ct.index_to_world(at[None] * step)[0] * _TO_LPS for name, at in centres.items()}
    found = _verdict(list(_pairs(placed)))
    turn = better_turned(hu, labels, spacing_mm)
    return found if turn is None else replace(found, wrong=_against_scan(turn), odd="")


def _against_scan(turn: Turn) -> str:
    how = ["with the rows and columns of each slice exchanged"] if turn.is_transposed else []
    if turn.axes:
        how.append(f"turned round along {' and '.join(AXES[2 - axis] for axis in turn.axes)}")
    return f"labels turned against the scan: {', '.join(how)}, they would lie on what they name"


def _centres(
    hu: np.ndarray, labels: np.ndarray, classes: Sequence[str], spacing_mm: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the index (z, y, x) of the centres of organs and landmarks, by the names here."""
    names = organs(classes)
    united = np.array([names.index(name) for name in names], dtype=labels.dtype)  # lesions have the name of their organ
    where = np.argwhere(labels)
    label = united[labels[tuple(where.T)]]
    counts = np.bincount(label, minlength=len(names))
    sums = np.stack([np.bincount(label, weights=axis, minlength=len(names)) for axis in where.T], axis=1)
    least = max(1.0, 1000 * _LEAST_ML / float(np.prod(spacing_mm)))
    found = {names[i]: sums[i] / counts[i] for i in np.flatnonzero(counts >= least) if names[i]}
    upper = [i for i, name in enumerate(names) if name in found and without_side(name)[0] in UPPER_ABDOMEN]
    if upper:
        slices = where[np.isin(label, upper), 0]
        seen = landmarks(hu, spacing_mm, (int(slices.min()), int(slices.max())))
        labelled = {LUNGS: "lung", SPINE: "vertebrae"}
        found |= {name: at for name, at in seen.items() if labelled.get(name) not in found}
    return found


def _pairs(centres: dict[str, np.ndarray]) -> Iterator[_Pair]:
    """Yields any two organs of known places, and the right and the left one of whatever else there is two of."""
    usual = {name: np.array(at, dtype=float) for name in centres if (at := place(name)) is not None}
    for first, second in combinations(usual, 2):
        yield _Pair(first, second, usual[second] - usual[first], centres[second] - centres[first])
    for name in centres:
        organ, side = without_side(name)
        other = f"left {organ}"
        if side == -1 and other in centres and name not in usual:
            apart = np.array([_OTHER_PAIR_MM, np.nan, np.nan])
            yield _Pair(name, other, apart, centres[other] - centres[name])


class _Votes(NamedTuple):
    """Pairs that speak for an axis, and against it."""

    agree: list[_Pair]
    contradict: list[_Pair]

    @property
    def total(self) -> int:
        return len(self.agree) + len(self.contradict)

    @property
    def winning(self) -> int:
        return max(len(self.agree), len(self.contradict))

    @property
    def is_against(self) -> bool:
        return len(self.contradict) > 0 and len(self.contradict) >= _CLEAR * self.total


def _votes(pairs: Sequence[_Pair], axis: int, along: int) -> _Votes:
    """Counts the pairs that should lie apart along an axis of the body, by how they do along an axis of the scan."""
    votes = _Votes([], [])
    for pair in pairs:
        usual, found = pair.usual_mm[axis], pair.found_mm[along]
        if abs(usual) >= _LEAST_GAP_MM[axis] and abs(found) >= _VOTES_FROM * abs(usual):  # never of NaN
            (votes.agree if usual * found > 0 else votes.contradict).append(pair)
    return votes


def _verdict(pairs: Sequence[_Pair]) -> AnatomicalOrientation:
    votes = [_votes(pairs, axis, axis) for axis in range(3)]
    judged = tuple(name for name, of in zip(AXES, votes, strict=True) if of.total)
    if turned := _turned(pairs, votes):
        return AnatomicalOrientation(judged, turned)
    wrong = [axis for axis in range(3) if votes[axis].is_against]
    if wrong:
        what = " and ".join(_WRONG[axis] for axis in wrong)
        exchanged = "; ".join(f"{AXES[axis]} are exchanged: {_evidence(votes[axis], axis)}" for axis in wrong)
        return AnatomicalOrientation(judged, f"{what}: {exchanged}")
    odd = [_evidence(of, axis) for axis, of in enumerate(votes) if of.contradict]
    return AnatomicalOrientation(judged, odd="; ".join(odd))


def _turned(pairs: Sequence[_Pair], votes: Sequence[_Votes]) -> str:
    """Returns which axes of the scan are other axes of the body, as in an array that was saved transposed."""
    for order in list(permutations(range(3)))[1:]:
        moved = [axis for axis in range(3) if order[axis] != axis]
        turned = [_votes(pairs, axis, order[axis]) for axis in moved]
        agreed, count = sum(of.winning for of in turned), sum(of.total for of in turned)
        straight = sum(votes[axis].winning for axis in moved), sum(votes[axis].total for axis in moved)
        fits = agreed >= 0.9 * count and all(of.winning >= 3 for of in turned)
        if fits and agreed >= 1.5 * straight[0] and straight[0] < _CLEAR * straight[1]:
            runs = [f"{AXES[axis]} lie along the scan's {AXES[order[axis]]}" for axis in moved]
            return f"turned: {', '.join(runs)} ({agreed} of {count} pairs)"
    return ""


def _evidence(votes: _Votes, axis: int) -> str:
    """Returns in words how the pairs lie that contradict, those that are the farthest apart first."""
    far = sorted(votes.contradict, key=lambda pair: -abs(pair.found_mm[axis]))
    words = [
        f"{pair.first} {abs(pair.found_mm[axis]):.0f} mm {_SIDES[axis][int(pair.found_mm[axis] < 0)]} {pair.second}"
        for pair in far[:_SHOWN]
    ]
    return f"{', '.join(words)} ({len(votes.contradict)} of {votes.total} pairs)"
