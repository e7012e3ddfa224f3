"""The localisation probe: a 1x1x1 convolution gives every patch of a scan a score; its peaks are candidates."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from eva.core.models.modules import head as eva_head
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.features.channels import Channels, scan_patches
from tapct.kinds.localisation import CANDIDATE, POINT
from tapct.probes.heatmap import Heatmap, Stamp, focal_loss, heatmap, stamps
from tapct.probes.map_probe import MapProbe, PictureOf
from tapct.probes.peaks import APART_MM, CandidatePlaces, candidates
from tapct.records import CaseResult, PatchSize
from tapct.viz.marks import draw_marks
from tapct.volumes import Findings, Grid

_VALUES_AT_ONCE = 2**22
"""Values of features that are held in float64 at a time."""


class LocalisationProbe(MapProbe, eva_head.HeadModule):
    """Trains and evaluates a linear detector on whole scans in eva.

    Places are those of patches in the world: of the feature grid, whose affine knows the stride, the padding and where
    in its stride an encoder's feature is centred. Patches in the padding behind a scan neither train nor answer.
    """

    kind: ClassVar[str] = "localisation"
    head_name = "head"
    undecayed = ("bias",)

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        overlays: int = 0,
        apart_mm: float = APART_MM,
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            overlays: Reported cases to draw a picture of, in the first run.
            apart_mm: Least distance between two candidates of a scan.
            settings: As in `tapct.probes.settings.ProbeSettings`; whole scans are never smaller than they should be, so
                without `fit_windows`.

        Raises:
            TaskError: If the distance is none.
        """
        if not 0 <= apart_mm < math.inf:
            raise TaskError(f"apart_mm must be a distance in mm, not {apart_mm}")
        of_eva = {"head": nn.Identity(), "criterion": nn.Identity()}
        super().__init__(encoder, weights, of_eva=of_eva, fit_windows=False, **settings)
        self.overlays, self.apart_mm = overlays, apart_mm
        self._stamps: dict[str, list[Stamp]] = {}

    @override
    def head_input(self, case: EncodedCase) -> Channels:
        return scan_patches(case.features)

    @override
    def prepare(self) -> None:
        super().prepare()
        self.prior = self._mean_targets()

    @override
    def seen_by_heads(self) -> dict[str, Any]:
        return {**super().seen_by_heads(), "apart_mm": self.apart_mm}

    @override
    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        scale, each = self.session.scale, []
        for case in cases:
            patches = scan_patches(case.features).stored
            scaled = patches if scale is None else scale.divided(patches, 0)
            target = self._heatmap(case).to(patches.device)
            each.append(torch.stack([focal_loss(head(scaled), target) for head in heads]))
        return torch.stack(each).mean(dim=0)

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        scores = _scores(head, scan_patches(case.features))
        loss = focal_loss(scores, self._heatmap(case).to(scores.device))
        if reported and case.name not in self.session.patches:
            self.session.patches.add(case.name, case.features.feature_grid.spacing_mm)
        found = [candidates(of.cpu().numpy(), case.features.feature_grid, self.apart_mm) for of in scores]
        if reported and (picture := self.picture_of(case)) is not None:
            self._draw(picture, case, found)
        return {"loss": loss}, self.result(case, loss, self._outcome(case, found))

    @override
    def cell_size(self) -> PatchSize | None:
        return self.session.patches.summary([case.case for case in self.recorder.cases[self.split]], ())

    def _outcome(self, case: EncodedCase, found: Sequence[CandidatePlaces]) -> dict[str, dict[str, list[float]]]:
        """Returns what the record holds of a case: what is to be found, and the candidates, places to 0.01 mm."""
        findings = self._findings(case)
        outcome: dict[str, dict[str, list[float]]] = {}
        for label, name in enumerate(self.classes):
            mine = findings.only(findings.classes == label)
            columns = {
                **dict(zip(POINT, mine.places_mm.T, strict=True)),
                "diameter_mm": mine.diameters_mm,
                "excluded": mine.excluded.astype(np.float64),
                **dict(zip(CANDIDATE, found[label].places_mm.round(2).T, strict=True)),
                "score": found[label].scores,
            }
            for field, values in columns.items():
                outcome.setdefault(field, {})[name] = values.tolist()
        return outcome

    def _draw(self, picture: PictureOf, case: EncodedCase, found: Sequence[CandidatePlaces]) -> None:
        best = np.argsort(-np.concatenate([one.scores for one in found]), kind="stable")
        places = np.concatenate([one.places_mm for one in found])[best]
        window = getattr(getattr(self.trainer.datamodule.datasets, self.split), "window", "soft-tissue")
        path, scan, title = picture
        draw_marks(path, scan.hu, scan.grid, self._findings(case), places, title, notice=self.notice, window=window)

    def _mean_targets(self) -> torch.Tensor:
        """Returns (K,) the logit of the mean target of the training scans' patches: what a head says that sees nothing.

        Half a patch more counts on either side, so that it is finite.
        """
        found, patches = torch.zeros(len(self.classes), dtype=torch.float64), 0
        for case in self.source.training_cases(self.trainer):
            target = self._heatmap(case).target
            found += target.double().sum(dim=(1, 2, 3))
            patches += target[0].numel()
        return torch.logit((found + 0.5) / (patches + 1)).float()

    def _heatmap(self, case: EncodedCase) -> Heatmap:
        shape = scan_patches(case.features).stored.shape[1:]
        if case.name not in self._stamps:
            patches = Grid.of(shape, case.features.feature_grid.affine)
            self._stamps[case.name] = stamps(self._findings(case), patches)
        return heatmap(self._stamps[case.name], shape, len(self.classes))

    def _findings(self, case: EncodedCase) -> Findings:
        """Returns what is to be found in a case.

        Raises:
            TaskError: If its target is not the rows of findings of the task's classes.
        """
        target = case.target.cpu().numpy()
        if target.ndim != 2 or not np.isin(target[:, 0], range(len(self.classes))).all():
            raise TaskError(
                f"{case.name}: the target is of shape {target.shape}, and must be the rows of `tapct.volumes.Findings` "
                f"with a class from 0 to {len(self.classes) - 1}"
            )
        return Findings.of(target)


def _scores(head: nn.Module, patches: Channels) -> torch.Tensor:
    """Returns (K, d, h, w) float32 logits, computed in float64: patches with the same features have the same score."""
    weight, bias = (head.get_parameter(name).double() for name in ("weight", "bias"))
    parts = [
        weight.flatten(1) @ slab + bias[:, None]
        for slab in patches.slabs(_VALUES_AT_ONCE // patches.shape[0] + 1, weight)
    ]
    return torch.cat(parts, dim=1).view(len(weight), *patches.stored.shape[1:]).float()
