"""The reliability probe: the two scans of each patient, and the features as they are; nothing is trained."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import FeatureError, TaskError
from tapct.features import EncodedCase
from tapct.kinds.reliability import case_loss, outcomes
from tapct.metrics.reliability import standardised
from tapct.probes.retrieval import GalleryHead
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.records import CaseResult, SolvedSelection


class PairsHead(GalleryHead):
    """The reported scans, (N, P) standardised features in float64, and what standardised them."""

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, scans: int, features: int) -> None:
        super().__init__(scans, features)
        self.register_buffer("centre", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.zeros(features, dtype=torch.float64))

    @classmethod
    def of_cases(cls, cases: PooledCases) -> "PairsHead":
        """Returns the head of cases.

        Raises:
            FeatureError: If a feature of one is not finite.
        """
        if len(odd := np.flatnonzero(~np.isfinite(cases.features).all(axis=1))):
            raise FeatureError(f"{cases.names[odd[0]]}: its features are not finite, and agree with nothing")
        head = cls(*cases.features.shape)
        head.hold(cases.names)
        centre, scale = standardised(cases.features)
        head.centre.copy_(torch.from_numpy(centre))
        head.scale.copy_(torch.from_numpy(scale))
        head.gallery.copy_(torch.from_numpy(head.standardise(cases.features)))
        return head

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """Returns features less their mean and over their deviation over the scans of the head; 0 of constant ones."""
        centre, scale = self.centre.cpu().numpy(), self.scale.cpu().numpy()
        return np.where(scale > 0, (features - centre) / np.where(scale > 0, scale, 1.0), 0.0)


class ReliabilityProbe(ScanProbe):
    """Evaluates in eva how far two scans of a patient agree; nothing is trained, and no seed decides anything."""

    kind = "reliability"

    _found: dict[str, dict[str, Any]] | None = None

    def __init__(
        self, encoder: str | Encoder, weights: str | None = None, adaptor: str = "cosine", **settings: Any
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: How features are pooled: "cosine:cls", "cosine:mean", "cosine:max", "cosine:mean+max". "cosine"
                pools class tokens where the model has some, else all patches.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor, or it is of another kind of task.
        """
        # The nearest scan of other patients is asked for nothing here, so there is nothing to audit.
        super().__init__(encoder, weights, adaptor, "auto", criterion=nn.Identity(), shortcuts=False, **settings)

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        return Solution(PairsHead.of_cases(train), None, SolvedSelection())

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        return PairsHead(*state["gallery"].shape)

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        cases = self.reported_cases()
        assert isinstance(self.trained_head, PairsHead)
        self.trained_head.of(cases.names)  # one that was made before is of these scans, or refused
        self._found = self._outcomes(PairsHead.of_cases(cases), list(cases.names))

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        found = self._found
        if found is None:  # of a head by itself
            found = self._found = self._outcomes(head, list(self.trainer.datamodule.datasets.test.cases))
        loss = torch.tensor(case_loss(found[case.name]), dtype=torch.float64)
        return {"loss": loss}, self.result(case, loss, found[case.name])

    def _outcomes(self, head: nn.Module, names: list[str]) -> dict[str, dict[str, Any]]:
        """Returns what a record holds of each reported scan.

        Raises:
            TaskError: If a patient has not two scans, one of either occasion, or there is no other patient.
        """
        assert isinstance(head, PairsHead)
        part = self.trainer.datamodule.datasets.test
        targets = np.stack([part.target(name).double().numpy() for name in names])
        patients = [part.patient(name) for name in names]
        occasions = Counter(zip(patients, targets[:, 0].tolist(), strict=True))
        for patient in dict.fromkeys(patients):
            if [occasions[patient, occasion] for occasion in (1, 2)] != [1, 1] or patients.count(patient) != 2:
                raise TaskError(
                    f"the split has {patients.count(patient)} scans of {patient}, and needs a first and a second one. "
                    "Give both (split_file), or neither"
                )
        if len(set(patients)) < 2:
            raise TaskError("all reported scans are of one patient, from whom nobody can be told")
        numbers = np.unique(patients, return_inverse=True)[1]
        (name,) = self.classes
        return dict(zip(names, outcomes(head.of(names), numbers, targets, name), strict=True))

    @override
    def apart(self, head: nn.Module, case: EncodedCase) -> dict[str, float]:
        assert isinstance(head, PairsHead)
        assert self.pooling is not None
        part = self.trainer.datamodule.datasets.test
        now = head.standardise(self.source.vector(part, case, self.pooling).cpu().numpy())
        return head.apart(part.cases, case.name, now)
