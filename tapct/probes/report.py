"""The report probe: a text for each scan, and what one reader finds in it and in the radiologist's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import nn
from typing_extensions import override

from tapct._utils.files import write_atomically
from tapct.encoders import Encoder
from tapct.features import EncodedCase
from tapct.features.channels import Channels
from tapct.kinds.report import case_loss
from tapct.metrics.retrieval import unit
from tapct.probes import nearest_reports
from tapct.probes.generated import FEATURE_WEIGHTS, Generator, ScanPatches, Writer, WrittenAhead, WrittenReport
from tapct.probes.merged_patches import Merging
from tapct.probes.nearest_reports import NearestReports
from tapct.probes.report_cases import TaskReports
from tapct.probes.scaling import ChannelScale
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.probes.source import needed_parts
from tapct.records import CaseResult
from tapct.records.case import ReportText
from tapct.report_texts.reader import text_sha256

TEXTS_FILE = "texts.jsonl"
"""In the folder of a run, where texts are asked for. They are under the licence of the data, and in no record."""


class SharedReports:
    """What the runs of a session share: eva copies the probe for each, and a copy of this is itself."""

    reports: TaskReports | None = None
    writer: Writer | None = None
    cut_reports: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedReports":
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
        generator: Generator | None = None,
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: Where the text is from: "nearest" or "vote", both with ":cls", ":mean", ":max" or ":mean+max"
                behind them to say how features are pooled; see `tapct.probes.nearest_reports`. Or "generated": a
                language model writes it; see `tapct.probes.generated`.
            reader_weights: The file RadBertClassifier.pth of what reads findings; None for the published one.
            reader_backbone: The folder, or the repository of the hub, with its config and tokenizer; None for its own.
            write_texts: Whether the texts are written too, as texts.jsonl in the folder of each run.
            generator: Of "generated", what writes.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor, it is of another kind of task, or the generator lacks something.
        """
        super().__init__(encoder, weights, adaptor, "auto", criterion=nn.Identity(), **settings)
        self.generator = generator or Generator()
        if self.adaptor.head == "generated":
            self.generator.require()
            self.source.most_cells, self.feature_weights = self.generator.most_cells, FEATURE_WEIGHTS
        self.reader_weights, self.reader_backbone, self.write_texts = reader_weights, reader_backbone, write_texts
        self._shared = SharedReports()
        self._texts: dict[str, dict[str, str | None]] = {}
        self._ahead = WrittenAhead()

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
        if self.adaptor.head == "generated" and self._shared.writer is None:
            self._shared.writer = writer = Writer(self.generator, self.trainer.strategy.root_device)
            if "train" in parts:
                self._shared.cut_reports = self._cut(writer, parts["train"].cases)

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
        """Returns the result of a case that is given a text; the text itself is not a part of it.

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

    # -- A language model ------------------------------------------------------------------------------

    @property
    def _writer(self) -> Writer:
        assert self._shared.writer is not None
        return self._shared.writer

    def _cut(self, writer: Writer, cases: Sequence[str]) -> int:
        """Returns how many training reports are longer than what is trained on, and says so."""
        cut = sum(writer.is_cut(self.reports.text(case)) for case in cases)
        if cut:
            most = self.generator.decoding.most_tokens
            logger.warning(
                f"{cut} of {len(cases)} training reports are longer than {most} tokens and are cut there: raise "
                "generator.decoding.most_tokens"
            )
        return cut

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        return self._writer.head(self.encoder.card.feature_dim)

    @override
    def head_input(self, case: EncodedCase) -> Channels:
        return self.source.merged_patches(case) if self.adaptor.head == "generated" else super().head_input(case)

    @override
    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        reports = [self.reports.text(case.name) for case in cases]
        scans = [self._patches(case, self.session.scale) for case in cases]
        each = [[self._writer.prompted(head, scan) for scan in scans] for head in heads]
        return torch.stack(
            [self._writer.losses(head, of_head, reports).mean() for head, of_head in zip(heads, each, strict=True)]
        )

    def _patches(self, case: EncodedCase, scale: ChannelScale | None = None) -> ScanPatches:
        """Returns what a head sees of a case."""
        patches = self.head_input(case).whole().to(self.device, torch.float32)
        places = Merging.of(case.features, self.generator.most_cells).places_mm(case.features).to(self.device)
        return ScanPatches(patches if scale is None else scale.divided(patches, 0), places)

    def _prompted(self, head: Any, case: EncodedCase) -> torch.Tensor:
        return self._writer.prompted(head, self._patches(case))

    def _written(self, head: Any, case: EncodedCase) -> WrittenReport:
        """Returns the report of a case, which is written together with those of the cases behind it."""

        def write_next() -> dict[str, WrittenReport]:
            cases, part = [case], getattr(self.trainer.datamodule.datasets, self.split)
            if (bank := self.source.bank) is not None:
                at = part.cases.index(case.name)
                cases += [bank.case(part, place) for place in range(at + 1, min(at + self.generator.batch, len(part)))]
            names = [one.name for one in cases]
            found = self._writer.write(head, [self._prompted(head, one) for one in cases], names)
            self.reports.read.findings([report.text for report in found], keep=False)  # at once, not one by one
            return dict(zip(names, found, strict=True))

        return self._ahead.take(head, case.name, write_next)

    def _of_language_model(self, head: Any, case: EncodedCase) -> tuple[dict[str, Any], CaseResult]:
        """Returns what comes out for a case whose report is written."""
        loss = self._writer.losses(head, [self._prompted(head, case)], [self.reports.text(case.name)])[0]
        written = self._written(head, case)
        if written.is_cut:
            most = self.generator.decoding.most_tokens
            case = replace(case, notes=(*case.notes, f"The report that was written had not ended at {most} tokens."))
        found = self.outcome(case, written.text)
        return {"loss": loss}, self.text_result(case, loss, written.text, None, found)

    # -- What comes out --------------------------------------------------------------------------------

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        if self.adaptor.head == "generated":
            return self._of_language_model(head, case)
        text, of = self.text_of(head, case)
        found = self.outcome(case, text)
        loss = torch.tensor(case_loss(found), dtype=torch.float64)
        return {"loss": loss}, self.text_result(case, loss, text, of, found)

    def text_of(self, head: nn.Module, case: EncodedCase) -> tuple[str, str | None]:
        """Returns the text that a case is given, and the training case whose report it is."""
        assert isinstance(head, NearestReports)
        assert self.pooling is not None
        part = getattr(self.trainer.datamodule.datasets, self.split)
        vector = self.source.vector(part, case, self.pooling).cpu().numpy()
        of = self.reports.named(head.pick(case.name, case.patient, unit(np.atleast_2d(vector))[0]))
        return self.reports.text(of), of

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._ahead.forget()

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self._ahead.forget()
        self._texts = {}

    @override
    def on_test_end(self) -> None:
        super().on_test_end()
        if self.write_texts:
            path = Path(str(self.trainer.log_dir)) / TEXTS_FILE
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in self._texts.values()))
            logger.warning(f"{path} holds reports: they are under the licence of the data, and not to be passed on")

    @override
    def seen_by_heads(self) -> dict[str, Any]:
        if self.adaptor.head != "generated":
            return super().seen_by_heads()
        return {**super().seen_by_heads(), "generator": self._writer.seen_by_heads()}

    @override
    def describe(self) -> dict[str, Any]:
        reports, written = self.reports, {}
        if self.adaptor.head == "generated":
            cut = self._shared.cut_reports
            written = {**self._writer.describe(), **({} if cut is None else {"cut_reports": cut})}
        return {
            **super().describe(),
            **written,
            "reader": reports.read.reader.describe(),
            "reader_agreement": reports.agreement,
            "word_scores": reports.words.describe(),
        }
