"""The retrieval probe: every reported scan asks for those like it, and the features as they are answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.kinds.retrieval import case_loss, outcome
from tapct.metrics.retrieval import similarities
from tapct.metrics.shortcuts import as_numbers
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.records import CaseResult, SolvedSelection


class GalleryHead(nn.Module):
    """The scans that are searched, as (N, P) unit vectors in float64, in the order of the reported cases."""

    gallery: torch.Tensor

    def __init__(self, scans: int, features: int) -> None:
        super().__init__()
        self.register_buffer("gallery", torch.zeros(scans, features, dtype=torch.float64))


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
        """Returns reported cases as queries.

        Args:
            cases: The cases.
            scanners: See the class.
            gallery: See the class.

        Raises:
            TaskError: If the gallery is not of as many.
        """
        if len(gallery) != len(cases.names):
            raise TaskError(
                f"the head holds {len(gallery)} scans, and {len(cases.names)} are reported: it is of another split"
            )
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
                task has masks, "cosine:mask". "cosine" pools class tokens where the model has some, else all cells.
            settings: As in `tapct.probes.base.Probe`.

        Raises:
            TaskError: If there is no such adaptor, or it is of another kind of task.
        """
        super().__init__(encoder, weights, adaptor, "auto", criterion=nn.Identity(), **settings)

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        head = GalleryHead(*train.features.shape)
        head.gallery.copy_(torch.from_numpy(train.unit_vectors()))
        return Solution(head, None, SolvedSelection())

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        return GalleryHead(*state["gallery"].shape)

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        assert self.pooling is not None
        cases = self.source.pooled_cases(self.trainer, "test", self.pooling)
        assert cases is not None
        scanners = scanners_of(self.trainer.datamodule.datasets.test, cases.names)
        self._queries = Queries.of(cases, scanners, self.trained_head.state_dict()["gallery"].cpu().numpy())

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        queries = self._queries
        assert queries is not None
        row = queries.row[case.name]
        others = np.flatnonzero(queries.patients != queries.patients[row])
        if not len(others):
            raise TaskError(f"{case.name}: all reported scans are of its patient, so that there is nothing to find")
        similarity, like = queries.similarity(row), queries.alike(row)
        found = outcome(queries.targets[row], queries.targets, similarity, self.classes, others, like)
        loss = torch.tensor(case_loss(found), dtype=torch.float64)
        return {"loss": loss}, self.result(case, loss, found)


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
