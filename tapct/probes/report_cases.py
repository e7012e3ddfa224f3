"""The reports of a task's cases: their texts, what the reader finds in them, and two that know nothing of a scan."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from tapct.errors import TaskError
from tapct.kinds.report import COMMON, RANDOM, TEXT, outcome
from tapct.probes.nearest_reports import drawn, name_sha256
from tapct.report_texts.reader import Reader, ReadTexts, text_sha256
from tapct.report_texts.words import WordScores
from tapct.tasks.report import ReportDataset
from tapct.tasks.splits import FoldTable


class TaskReports:
    """The reports of a task, each read once.

    The floor is of all training cases of the split, whoever of them trained: what is reached from few is measured as
    what is reached from all.

    Attributes:
        read: Texts as the reader reads them.
        words: Scores of their words.
        training: The training cases, in the order of the SHA-256 of their names.
    """

    def __init__(self, part: Any, reader: Reader) -> None:
        """Initializes the reports; nothing is read yet.

        Args:
            part: A part of the task, of whatever split.
            reader: Reads findings.

        Raises:
            TaskError: If it has no reports, the reader finds other findings than its classes, it is cross-validated, or
                nothing trains.
        """
        if not isinstance(part, ReportDataset):
            raise TaskError(
                f"{type(part).__name__} has no reports: they come from a `tapct.tasks.report.ReportDataset`. Of a "
                "feature pack, leave the pack out (data.init_args.pack, or the variable PACK) and give DATA_ROOT"
            )
        if tuple(part.classes) != reader.findings:
            raise TaskError(
                f"the reader finds {', '.join(reader.findings)}, and the classes of {part.spec.name} are "
                f"{', '.join(part.classes)}"
            )
        if isinstance(part.table, FoldTable) or not part.table.cases["train"]:
            raise TaskError(
                f"{part.spec.name}: reports are handed out of the training cases of a split. Give a split_file with "
                "the columns case, patient, split, and cases of 'train'"
            )
        self._part, self.read, self.words = part, ReadTexts(reader), WordScores()
        self.training = sorted(part.table.cases["train"], key=name_sha256)
        self._by_hash = {name_sha256(name): name for name in self.training}

    def text(self, case: str) -> str:
        """Returns the report of a case."""
        return self._part.report(case)

    def named(self, hashed: bytes) -> str:
        """Returns the training case of whose name this is the hash.

        Raises:
            TaskError: If there is none.
        """
        if hashed not in self._by_hash:
            raise TaskError(
                "the head hands out the report of a case that is no training case here: it was made of another split. "
                "Give the split_file and the data that it was made with"
            )
        return self._by_hash[hashed]

    def findings(self, cases: Sequence[str]) -> np.ndarray:
        """Returns (N, K) which findings the reader finds in the reports of N cases."""
        return self.read.findings([self.text(case) for case in cases])

    @cached_property
    def _training_findings(self) -> np.ndarray:
        return self.findings(self.training)

    @cached_property
    def shares(self) -> np.ndarray:
        """(K,) the share of the training reports with each finding: what a random report has, in expectation."""
        return self._training_findings.mean(axis=0)

    @cached_property
    def common(self) -> str:
        """The text of the most common report.

        Texts are seldom the same to the letter: it is, of the training reports with the most frequent set of findings,
        the most frequent text, and of several the one with the smallest SHA-256.
        """
        texts = [self.text(case) for case in self.training]
        sets = [tuple(row) for row in self._training_findings.tolist()]
        of_set, of_text = Counter(sets), Counter(zip(sets, texts, strict=True))
        return min(of_text, key=lambda one: (-of_set[one[0]], -of_text[one], text_sha256(one[1])))[1]

    def random(self, case: str) -> str:
        """Returns the text of a random training report: the one that the hash of a case's name draws."""
        return self.text(self.training[drawn(case, len(self.training))])

    @cached_property
    def agreement(self) -> float | None:
        """The share of the release's labels of the training reports that the reader gives too; None if it has none.

        The labels of CT-RATE were made by its own reader: another one shows here.
        """
        labels = torch.stack([self._part.target(case) for case in self.training]).double().numpy()
        stated = ~np.isnan(labels)
        return float((labels == self._training_findings)[stated].mean()) if stated.any() else None

    def prepare(self, cases: Sequence[str]) -> None:
        """Reads the reports of all training cases and of these ones, and compares the words of what knows nothing."""
        self.findings([*self.training, *cases])
        references = [self.text(case) for case in cases]
        self.words.of([self.common] * len(cases) + [self.random(case) for case in cases], references * 2)

    def outcome(self, case: str, text: str) -> dict[str, dict[str, float | None]]:
        """Returns what a record holds of a case that is given a text."""
        reference = self.text(case)
        found, there, common = self.read.findings([text, reference, self.common])
        words = [self.words.of([text], [reference], keep=False)[0]]
        words.extend(self.words.of([self.common, self.random(case)], [reference] * 2))
        return outcome(
            self._part.classes,
            {"found": found, "reference": there, "common": common, "random": self.shares},
            dict(zip((TEXT, COMMON, RANDOM), words, strict=True)),
        )
