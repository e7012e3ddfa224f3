"""The report probe: a text for each scan, and what one reader finds in it and in the radiologist's."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.features import EncodedCase
from tapct.files import write_atomically
from tapct.kinds.report import case_loss
from tapct.metrics.retrieval import unit
from tapct.probes import nearest_reports
from tapct.probes.nearest_reports import NearestReports
from tapct.probes.report_cases import TaskReports
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.probes.source import needed_parts
from tapct.records import CaseResult
from tapct.records.case import ReportText
from tapct.report_texts.reader import text_sha256

TEXTS_FILE = "texts.jsonl"
"""In the folder of a run, where texts are asked for. They are under the licence of the data, and in no record."""


class Shared:
    """What the runs of a session share: eva copies the probe for each, and a copy of this is itself."""

    reports: TaskReports | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        return self


class ReportProbe(ScanProbe):
    """Evaluates in eva which findings are in the text that a scan is given.

    The reports of the training, selection and reported cases are read before anything is encoded.
    """

    kind = "report"

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        adaptor: str = "nearest",
        reader_weights: str | None = None,
        reader_backbone: str | None = None,
        write_texts: bool = False,
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: Where the text is from: "nearest" or "vote", both with ":cls", ":mean", ":max" or ":mean+max"
                behind them to say how features are pooled; see `tapct.probes.nearest_reports`.
            reader_weights: The file RadBertClassifier.pth of what reads findings; None for the published one.
            reader_backbone: The folder, or the repository of the hub, with its config and tokenizer; None for its own.
            write_texts: Whether the texts are written too, as texts.jsonl in the folder of each run.
            settings: As in `tapct.probes.base.Probe`.

        Raises:
            TaskError: If there is no such adaptor, or it is of another kind of task.
        """
        super().__init__(encoder, weights, adaptor, "auto", criterion=nn.Identity(), **settings)
        self.reader_weights, self.reader_backbone, self.write_texts = reader_weights, reader_backbone, write_texts
        self._shared = Shared()
        self._texts: dict[str, dict[str, str | None]] = {}

    # -- Reports ---------------------------------------------------------------------------------------

    @property
    def reports(self) -> TaskReports:
        """The reports of the task.

        Raises:
            TapctError: If the reader cannot be had, or the task has no reports.
        """
        if self._shared.reports is None:
            from tapct.report_texts.radbert import RadBERT

            datasets = self.trainer.datamodule.datasets
            part = next(part for part in (datasets.test, datasets.val, datasets.train) if part is not None)
            strategy = getattr(self.trainer, "strategy", None)
            device = self.device if strategy is None else strategy.root_device  # where the probe will be
            reader = RadBERT(self.reader_weights, self.reader_backbone, device)
            self._shared.reports = TaskReports(part, reader)
        return self._shared.reports

    @override
    def require_data(self) -> None:
        super().require_data()
        parts = {part.split: part for part in needed_parts(self.trainer)}
        self.reports.prepare([case for split, part in parts.items() if split != "train" for case in part.cases])

    def outcome(self, case: EncodedCase, text: str) -> dict[str, dict[str, float | None]]:
        """Returns what a record holds of a case that is given a text."""
        return self.reports.outcome(case.name, text)

    def text_result(
        self,
        case: EncodedCase,
        loss: torch.Tensor,
        text: str,
        of: str | None,
        outcome: Mapping[str, Mapping[str, float | None]],
    ) -> CaseResult:
        """Returns the result of a case that is given a text; the text itself is no part of it.

        Args:
            case: The case.
            loss: Of the head on it.
            text: The text.
            of: The training case whose report it is; None of one that was written anew.
            outcome: As `outcome` returns it.
        """
        reference = self.reports.text(case.name)
        if self.write_texts:
            self._texts[case.name] = {"case": case.name, "text": text, "reference": reference, "of": of}
        named = {} if of is None else {"of": of}
        said = ReportText(sha256=text_sha256(text), reference_sha256=text_sha256(reference), **named)
        return self.result(case, loss, outcome).model_copy(update={"report": said})

    # -- The nearest training scans --------------------------------------------------------------------

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        train, selection = self._with_findings(train), None if selection is None else self._with_findings(selection)
        votes = self.adaptor.head == "vote"
        return nearest_reports.solve(train, selection, votes=votes, metric=self.ranked.name)

    def _with_findings(self, cases: PooledCases) -> PooledCases:
        """Returns cases with the findings of their reports as targets, in the place of the release's labels."""
        return replace(cases, targets=self.reports.findings(cases.names))

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        (scans, features), findings = state["cases"].shape, state["findings"].shape[1]
        return NearestReports(scans, features, findings)

    # -- What comes out --------------------------------------------------------------------------------

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        text, of = self.text_of(head, case)
        found = self.outcome(case, text)
        loss = torch.tensor(case_loss(found), dtype=torch.float64)
        return {"loss": loss}, self.text_result(case, loss, text, of, found)

    def text_of(self, head: nn.Module, case: EncodedCase) -> tuple[str, str | None]:
        """Returns the text that a case is given, and the training case whose report it is."""
        assert isinstance(head, NearestReports)
        assert self.pooling is not None
        part = getattr(self.trainer.datamodule.datasets, self._split)
        vector = self.source.vector(part, case, self.pooling).cpu().numpy()
        of = self.reports.named(head.pick(case.name, case.patient, unit(np.atleast_2d(vector))[0]))
        return self.reports.text(of), of

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self._texts = {}

    @override
    def on_test_end(self) -> None:
        super().on_test_end()
        if self.write_texts:
            path = Path(str(self.trainer.log_dir)) / TEXTS_FILE
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in self._texts.values()))
            logger.warning(f"{path} holds reports: they are under the licence of the data, and not to be passed on")

    @override
    def describe(self) -> dict[str, Any]:
        reports = self.reports
        return {
            **super().describe(),
            "reader": reports.read.reader.describe(),
            "reader_agreement": reports.agreement,
            "word_scores": reports.words.describe(),
        }
