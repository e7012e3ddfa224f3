"""Stored features of a task's cases as one vector each, and what encoders have in common. Nothing is encoded."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tapct.encoders import options
from tapct.errors import FeatureError
from tapct.features import FeatureBank
from tapct.metrics.similarity import linear_cka, neighbour_overlap
from tapct.probes.adaptors import Pooling
from tapct.probes.vectors import pooling_of, stored_vectors
from tapct.similarity.found import FEWEST_PATIENTS, Described, EncoderPair, Similarity
from tapct.tasks import TaskData


def compare(
    banks: Sequence[FeatureBank], data: TaskData, *, pooling: str | None = None, neighbours: int = 10
) -> Similarity:
    """Returns what the encoders of some banks have in common on a task.

    All cases of the task count, trained on or not: no label is looked at.

    Args:
        banks: One an encoder, of a store that has its features of the task.
        data: The task; all its files are there.
        pooling: How features become one vector a case; None is each encoder's own choice.
        neighbours: How many nearest cases.

    Raises:
        FeatureError: If features are missing, two encoders are one, or there are too few of something.
        TaskError: If a case cannot be used, or the task has no masks to pool over.
    """
    described = [_described(bank, pooling) for bank in banks]
    labels = [label for label, *_ in described]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise FeatureError(f"{twice[0]} is named twice: compare takes each encoder once")
    if len(banks) < 2:
        raise FeatureError("compare takes two encoders at least")
    data.setup("fit")  # reads what was not found valid before
    cases = [(part, index) for part in _parts(data) for index in range(len(part))]
    names = [part.patient(part.cases[index]) for part, index in cases]
    patients = np.unique(names, return_inverse=True)[1]
    if (number := len(set(names))) < FEWEST_PATIENTS:
        raise FeatureError(
            f"{data.spec.name} has {number} patients here: of fewer than {FEWEST_PATIENTS}, any two encoders look alike"
        )
    if not 1 <= neighbours < number:
        raise FeatureError(f"--neighbours must be from 1 to {number - 1}, the patients less one, not {neighbours}")
    vectors = {label: stored_vectors(bank, cases, how) for bank, (label, _, how) in zip(banks, described, strict=True)}
    return Similarity(
        task=data.spec.name,
        cases=len(cases),
        patients=number,
        neighbours=neighbours,
        encoders=tuple(
            Described(label=label, title=title, pooling=how, features=vectors[label].shape[1])
            for label, title, how in described
        ),
        pairs=tuple(_pair(vectors, *pair, patients, neighbours) for pair in combinations(labels, 2)),
    )


def _described(bank: FeatureBank, pooling: str | None) -> tuple[str, str, Pooling]:
    """Returns an encoder's label, its name in tables, and how its features are pooled."""
    encoder = bank.encoder
    is_random = not encoder.awaits_weights and encoder.weights_source == options.RANDOM
    label = options.label(encoder.card.name, is_random, encoder.options)
    return label, encoder.full_name + (" (random weights)" if is_random else ""), pooling_of(encoder.card, pooling)


def _parts(data: TaskData) -> list:
    """Returns the parts of a task; of a cross-validated one, whose cases are in each, those that are reported."""
    return [data.datasets.test] if data.folds is not None else list(data.parts)


def _pair(
    vectors: Mapping[str, np.ndarray], first: str, second: str, patients: np.ndarray, neighbours: int
) -> EncoderPair:
    alike = linear_cka(vectors[first], vectors[second])
    overlap = neighbour_overlap(vectors[first], vectors[second], patients, neighbours)
    return EncoderPair(first=first, second=second, cka=alike.cka, cka_biased=alike.cka_biased, neighbours=overlap)
