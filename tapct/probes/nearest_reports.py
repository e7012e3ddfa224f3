"""The floor of reports without a language model: what was written of the training scans that lie nearest.

`nearest` hands out the report of the nearest one; `vote` that one of the k nearest whose findings differ least from
those of all k, which is the one that fits their vote best, and of several the nearest. How many are asked is chosen on
the patients that decide.

Scans whose similarities differ by no more than `numeric.TOLERANCE` from one to the next are tied. They are taken in the
order of the SHA-256 of their names, from a place on that the SHA-256 of the asking scan's name draws: where all are
tied, as with features that are the same for every scan, that is a random report.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tapct import numeric
from tapct.errors import TaskError
from tapct.metrics.report import Counts
from tapct.metrics.retrieval import ordered, similarities
from tapct.probes.solved import Parts, PooledCases, Predict, Problem, Solution, choose, deal_folds, joined
from tapct.records import SolvedSelection

NEIGHBOURS = (100, 50, 20, 10, 5, 3)
"""Scans that may vote; of equally good numbers the smallest is taken."""

_SLACK = 1e3 * numeric.TOLERANCE


def name_sha256(name: str) -> bytes:
    """Returns the hash by which a head names a case or a patient."""
    return hashlib.sha256(name.encode()).digest()


def drawn(name: str, number: int) -> int:
    """Returns a place among `number`, drawn by the hash of a name."""
    return int.from_bytes(name_sha256(name)) % number


class NearestReports(nn.Module):
    """The training scans as unit vectors, whose report each is, its findings, and how many of the nearest vote."""

    cases: torch.Tensor
    names: torch.Tensor
    patients: torch.Tensor
    findings: torch.Tensor
    neighbours: torch.Tensor

    def __init__(self, scans: int, features: int, findings: int) -> None:
        """Initializes a head.

        Args:
            scans: M training scans.
            features: P numbers of each.
            findings: K findings of its report.
        """
        super().__init__()
        self.register_buffer("cases", torch.zeros(scans, features, dtype=torch.float64))
        self.register_buffer("names", torch.zeros(scans, 32, dtype=torch.uint8))
        self.register_buffer("patients", torch.zeros(scans, 32, dtype=torch.uint8))
        self.register_buffer("findings", torch.zeros(scans, findings, dtype=torch.uint8))
        self.register_buffer("neighbours", torch.tensor(1))

    def pick(self, name: str, patient: str, vector: np.ndarray) -> bytes:
        """Returns the hash of the training case whose report a scan is given; none of its own patient.

        Args:
            name: Of the scan.
            patient: Its patient.
            vector: (P,) its features, of length 1.

        Raises:
            TaskError: If all training scans are of its patient.
        """
        own = torch.frombuffer(bytearray(name_sha256(patient)), dtype=torch.uint8).to(self.patients.device)
        others = (self.patients != own).any(dim=1).nonzero().flatten().cpu().numpy()
        if not len(others):
            raise TaskError(f"{name}: all training scans are of its patient, so that there is no report to give")
        similarity = (self.cases.cpu().numpy() @ vector)[others]
        names = self.names.cpu().numpy()[others]
        near = nearest_places(similarity, int(self.neighbours), name, names)
        chosen = near[medoid(self.findings.cpu().numpy()[others[near]])]
        return names[chosen].tobytes()


def nearest_places(
    similarity: np.ndarray, count: int, name: str | None = None, names: np.ndarray | None = None
) -> np.ndarray:
    """Returns the places of the nearest scans, the nearest first.

    Args:
        similarity: (M,) to them.
        count: How many; all where there are fewer.
        name: Of the scan that asks, by which tied ones are drawn; None leaves them in their order.
        names: (M, 32) uint8, the hashes of the scans' names, for that.
    """
    count = min(count, len(similarity))
    least = np.partition(similarity, len(similarity) - count)[len(similarity) - count]
    among = np.flatnonzero(similarity >= least - _SLACK)
    order, level = ordered(similarity[among])
    if level[count - 1] == level[-1] and len(among) < len(similarity):  # ties may reach beyond the slack
        among = np.arange(len(similarity))
        order, level = ordered(similarity)
    places = among[order]
    for one in np.unique(level[:count]):
        start, end = np.searchsorted(level, (one, one + 1))
        tied = np.sort(places[start:end])
        places[start:end] = tied if name is None or names is None else _by_lot(tied, name, names)
    return places[:count]


def _by_lot(places: np.ndarray, name: str, names: np.ndarray) -> np.ndarray:
    """Returns tied places in the order of their names' hashes, from the one on that a name draws."""
    order = sorted(places.tolist(), key=lambda place: names[place].tobytes())
    return np.roll(order, -drawn(name, len(order)))


def medoid(findings: np.ndarray) -> int:
    """Returns which of (k, K) findings differ least from all k together; the first of several."""
    ours = findings.astype(np.int64)
    return int(np.abs(len(ours) * ours - ours.sum(axis=0)).sum(axis=1).argmin())


def solve(train: PooledCases, selection: PooledCases | None, *, votes: bool, metric: str) -> Solution:
    """Returns the head of training cases.

    Args:
        train: The training cases, whose targets are the findings of their reports.
        selection: The selection cases, likewise.
        votes: Whether several of the nearest vote, as many as is best on the patients that decide.
        metric: The ranked metric, by its name in records.

    Raises:
        TaskError: If the metric is undefined on the cases that decide.
    """
    (scans, features), findings = train.features.shape, train.targets.shape[1]
    head = NearestReports(scans, features, findings)
    head.cases.copy_(torch.from_numpy(train.unit_vectors()))
    head.names.copy_(_hashes(train.names))
    head.patients.copy_(_hashes(train.patients))
    head.findings.copy_(torch.from_numpy(train.targets))
    if not votes:
        return Solution(head, None, SolvedSelection())
    train, selection = _as_unit(train), None if selection is None else _as_unit(selection)
    problem = _problem(train, metric)
    chosen, about = choose(problem, train, selection)
    head.neighbours.fill_(int(problem.settings[chosen]))
    return Solution(head, None, SolvedSelection(**about))


def _as_unit(cases: PooledCases) -> PooledCases:
    return replace(cases, features=cases.unit_vectors())


def _hashes(names: Sequence[str]) -> torch.Tensor:
    return torch.tensor([list(name_sha256(name)) for name in names], dtype=torch.uint8)


def _problem(train: PooledCases, metric: str) -> Problem:
    fewest = min((len(rows) for rows, _ in deal_folds(train)), default=len(train.names))
    counts = [count for count in NEIGHBOURS if count <= fewest] or [fewest]

    def fit(cases: PooledCases) -> Sequence[Predict]:
        asked: list[tuple[np.ndarray, list[np.ndarray]]] = []  # all numbers of neighbours are asked of the same scans

        def near(features: np.ndarray) -> list[np.ndarray]:
            if not asked or asked[0][0] is not features:
                found = [nearest_places(one, max(counts)) for one in similarities(features, cases.features)]
                asked[:] = [(features, found)]
            return asked[0][1]

        def voted(features: np.ndarray, count: int) -> np.ndarray:
            of_scans = (cases.targets[places[:count]] for places in near(features))
            return np.array([findings[medoid(findings)] for findings in of_scans])

        return [functools.partial(voted, count=count) for count in counts]

    return Problem(settings=counts, fit=fit, score=_score(metric), loss=_loss, needs="a finding in a reference")


def _score(metric: str) -> Callable[[Parts], float | None]:
    def score(parts: Parts) -> float | None:
        found, reference = joined(parts)
        counts = Counts.of(found, reference, np.ones((len(found), 1)))
        value = counts.macro_f1()[0] if metric == "MacroF1" else counts.over_findings().f1()[0, 0]
        return None if np.isnan(value) else float(value)

    return score


def _loss(parts: Parts) -> float:
    found, reference = joined(parts)
    return float(np.abs(found - reference).mean())
