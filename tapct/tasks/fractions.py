"""Few labels: which patients train when only a fraction of them may."""

import hashlib
import math
from collections.abc import Collection, Mapping

from tapct.errors import TaskError
from tapct.tasks.splits import uniform

Answers = Mapping[str, frozenset[str]]
"""Patient to what they are an example of, such as {"malignant", "not malignant"}; the same for all in segmentation."""


def check_fraction(fraction: float, draw: int) -> None:
    """Refuses what is not a fraction of the patients, or not a draw of it.

    Raises:
        TaskError: If the fraction is not in (0, 1], the draw is negative, or there is nothing to draw.
    """
    if not 0 < fraction <= 1:
        raise TaskError(
            f"train_fraction must be in (0, 1], not {fraction}: the share of the training patients that train"
        )
    if draw < 0:
        raise TaskError(f"train_draw must be 0, 1, 2, ..., not {draw}")
    if fraction == 1 and draw:
        raise TaskError(f"train_draw is {draw}, but with train_fraction 1 all patients train: there is only the draw 0")


def drawn_patients(answers: Answers, fraction: float, draw: int, seed: str) -> list[str]:
    """Returns the patients that train: a share of them, drawn at random, in the order of the draw.

    For each draw there is one order of the patients, of which a fraction takes the first: draws are nested (the 1 %
    are among the 10 %). It begins with patients who show every answer at least once, the rarest answer first, so that
    few patients train on all answers wherever that is possible. Then it goes through the strata (patients with the same
    answers) evenly: each stratum is in a random order, starts at a random place and is spread over the whole, so that
    any number of patients holds its share of each to about one, and each of the rest is as likely as any other. The
    order comes from SHA-256 of the names, as that of `splits.stratified`: the same on every machine.

    Args:
        answers: What each training patient is an example of.
        fraction: Share of the patients, in (0, 1]; rounded to whole patients, one at least.
        draw: Number of the draw.
        seed: What makes the draws of this task others than those of another.
    """
    if not answers:
        return []
    number = max(1, math.floor(fraction * len(answers) + 0.5))
    places = _places(answers, f"{seed}:{draw}")
    first = _cover(answers, places)
    rest = sorted(answers.keys() - set(first), key=places.__getitem__)
    return [*first, *rest][:number]


def _places(answers: Answers, seed: str) -> dict[str, tuple[float, str]]:
    """Returns where each patient stands in [0, 1): systematic sampling of every stratum from a random start."""
    strata: dict[frozenset[str], list[str]] = {}
    for patient in sorted(answers):
        strata.setdefault(answers[patient], []).append(patient)
    places = {}
    for stratum, patients in strata.items():
        start = uniform(f"{seed}:{sorted(stratum)}")
        for rank, patient in enumerate(sorted(patients, key=lambda name: _hash(f"{seed}:{name}"))):
            places[patient] = ((rank + start) / len(patients), _hash(f"{seed}:{patient}"))
    return places


def _cover(answers: Answers, places: Mapping[str, tuple[float, str]]) -> list[str]:
    """Returns a few patients who together show every answer: of the rarest that is still lacking, the first patient."""
    by_answer: dict[str, list[str]] = {}
    for patient in sorted(answers, key=places.__getitem__):
        for answer in answers[patient]:
            by_answer.setdefault(answer, []).append(patient)
    cover: list[str] = []
    shown: set[str] = set()
    for answer in sorted(by_answer, key=lambda a: (len(by_answer[a]), a)):
        if answer not in shown:
            patient = by_answer[answer][0]
            cover.append(patient)
            shown |= answers[patient]
    return cover


def patients_of(cases: Mapping[str, str], answers: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Returns what each patient is an example of: whatever one of their cases is.

    Args:
        cases: Case to patient.
        answers: Case to answers.
    """
    found: dict[str, frozenset[str]] = {}
    for case, patient in cases.items():
        found[patient] = found.get(patient, frozenset()) | frozenset(answers[case])
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
