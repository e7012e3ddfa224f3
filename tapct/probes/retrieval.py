"""The retrieval probe: every reported scan asks for those like it, and the features as they are answer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from tapct import numeric
from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.kinds.retrieval import case_loss, outcome
from tapct.metrics.retrieval import similarities, unit
from tapct.metrics.shortcuts import as_numbers
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.records import CaseResult, SolvedSelection


class GalleryHead(nn.Module):
    """The scans that are searched: (N, P) unit vectors in float64, and the (N, 32) SHA-256 of their cases' names."""

    gallery: torch.Tensor
    cases: torch.Tensor

    def __init__(self, scans: int, features: int) -> None:
        super().__init__()
        self.register_buffer("gallery", torch.zeros(scans, features, dtype=torch.float64))
        self.register_buffer("cases", torch.zeros(scans, 32, dtype=torch.uint8))

    def hold(self, names: Sequence[str]) -> None:
        """Says of which cases the vectors are."""
        self.cases.copy_(torch.tensor([list(_hash(name)) for name in names], dtype=torch.uint8))

    def of(self, names: Sequence[str]) -> np.ndarray:
        """Returns the (N, P) vectors of cases, in their order.

        Raises:
            TaskError: If it holds others.
        """
        if len(names) != len(self.gallery):
            raise TaskError(
                f"the head holds {len(self.gallery)} scans, and {len(names)} are reported: it is of another split"
            )
        place = {bytes(row): number for number, row in enumerate(self.cases.cpu().numpy())}
        for name in names:
            if _hash(name) not in place:
                raise TaskError(f"the head does not hold {name}, which is reported: it is of another split")
        gallery, rows = self.gallery.cpu().numpy(), [place[_hash(name)] for name in names]
        return gallery if rows == [*range(len(rows))] else gallery[rows]  # no copy of what may be large

    def apart(self, names: Sequence[str], name: str, now: np.ndarray) -> dict[str, float]:
        """Returns how far a vector of a case that was computed again lies from what is held of it (`Probe.apart`).

        Args:
            names: The cases that are held.
            name: The case.
            now: Its vector.
        """
        away = np.linalg.norm(self.of(names) - now, axis=1)
        row = list(names).index(name)
        others = np.delete(away, row)
        same = away[row] <= numeric.TOLERANCE
        share = 0.0 if same else float(away[row] / max(others.min(initial=np.inf), numeric.TOLERANCE))
        return {"the distance of its features from those of the head, as a share of that to the nearest other": share}


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@dataclass(eq=False)
class Queries:
    """The reported cases, and how similar each is to those of a gallery, some at a time.

    Attributes:
        row: Case to its place.
        patients: (N,) of each, as a number.
        targets: (N, K) 0, 1, or NaN.
        scanners: (N, A) what `MatchedMAP` matches on, as numbers; -1 where that is not known.
        vectors: (N, P) unit vectors.
        gallery: (N, P) unit vectors, of the same cases.
    """

    row: Mapping[str, int]
    patients: np.ndarray
    targets: np.ndarray
    scanners: np.ndarray
    vectors: np.ndarray
    gallery: np.ndarray
    _next: int = field(default=0, init=False)
    _rest: Any = field(default=None, init=False)

    @classmethod
    def of(cls, cases: PooledCases, scanners: np.ndarray, gallery: np.ndarray) -> "Queries":
        """Returns reported cases as queries; for the rest see the class."""
        patients = np.unique(cases.patients, return_inverse=True)[1]
        row = {name: place for place, name in enumerate(cases.names)}
        targets = np.asfortranarray(cases.targets)  # read by label
        return cls(row, patients, targets, scanners, cases.unit_vectors(), gallery)

    def alike(self, row: int) -> np.ndarray | None:
        """Returns (N,) which cases share all that is known of a case's scanner; None where nothing is."""
        own = self.scanners[row]
        known = own >= 0
        return (self.scanners[:, known] == own[known]).all(axis=1) if known.any() else None

    def similarity(self, row: int) -> np.ndarray:
        """Returns (N,) the cosines of a case with the gallery, which are computed in blocks, in the cases' order."""
        if self._rest is None or row != self._next:
            self._rest = similarities(self.vectors[row:], self.gallery)
        self._next = row + 1
        return next(self._rest)


class RetrievalProbe(ScanProbe):
    """Evaluates in eva how well scans find their like; nothing is trained, and no seed decides anything."""

    kind = "retrieval"

    _queries: Queries | None = None

    def __init__(
        self, encoder: str | Encoder, weights: str | None = None, adaptor: str = "cosine", **settings: Any
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: How features are pooled: "cosine:cls", "cosine:mean", "cosine:max", "cosine:mean+max" or, where the
                task has masks, "cosine:mask". "cosine" pools class tokens where the model has some, else all patches.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor, or it is of another kind of task.
        """
        super().__init__(encoder, weights, adaptor, "auto", criterion=nn.Identity(), **settings)

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        head = GalleryHead(*train.features.shape)
        head.gallery.copy_(torch.from_numpy(train.unit_vectors()))
        head.hold(train.names)
        return Solution(head, None, SolvedSelection())

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        return GalleryHead(*state["gallery"].shape)

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self._queries = self._asked(self.reported_cases(), self.trained_head)

    def _asked(self, cases: PooledCases, head: nn.Module) -> Queries:
        assert isinstance(head, GalleryHead)
        scanners = scanners_of(self.trainer.datamodule.datasets.test, cases.names)
        return Queries.of(cases, scanners, head.of(cases.names))

    def _as_they_were(self, head: nn.Module) -> Queries:
        """Returns the reported cases as queries, with the vectors that the head holds of them."""
        assert isinstance(head, GalleryHead)
        part = self.trainer.datamodule.datasets.test
        names = tuple(part.cases)
        targets = np.stack([part.target(name).double().numpy() for name in names])
        return self._asked(PooledCases(names, [part.patient(name) for name in names], head.of(names), targets), head)

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        queries = self._queries
        if queries is None:  # of a head by itself
            queries = self._queries = self._as_they_were(head)
        row = queries.row[case.name]
        others = np.flatnonzero(queries.patients != queries.patients[row])
        if not len(others):
            raise TaskError(f"{case.name}: all reported scans are of its patient, so that there is nothing to find")
        similarity, like = queries.similarity(row), queries.alike(row)
        found = outcome(queries.targets[row], queries.targets, similarity, self.classes, others, like)
        loss = torch.tensor(case_loss(found), dtype=torch.float64)
        return {"loss": loss}, self.result(case, loss, found)

    @override
    def apart(self, head: nn.Module, case: EncodedCase) -> dict[str, float]:
        assert isinstance(head, GalleryHead)
        assert self.pooling is not None
        part = self.trainer.datamodule.datasets.test
        return head.apart(part.cases, case.name, unit(self.source.vector(part, case, self.pooling).cpu().numpy()[None]))


def scanners_of(part: Any, cases: Sequence[str]) -> np.ndarray:
    """Returns (N, A) what cases are in each column that their task matches on, as numbers; -1 where it is not known.

    Args:
        part: The dataset that they are of; one that is none of a task has no columns.
        cases: N names.
    """
    spec = getattr(part, "spec", None)
    columns = [] if spec is None else [column for column in spec.shortcuts if column.name in spec.matched]
    levels = [part.levels(case, columns) for case in cases] if columns else []
    coded = [as_numbers([of_case[column.name] for of_case in levels]) for column in columns]
    return np.array(coded, dtype=np.int64).reshape(len(columns), len(cases)).T
