"""Reports: a text for each scan, scored by the findings that one reader finds in it and in the radiologist's.

Classes are the findings. Behind them records hold three more, of whole texts: the text itself, and those of two that
know nothing of the scan. These two stand next to every model and are never ranked as one: *the most common report*, the
one training report that is given to everybody, and *a random report*, a training report drawn by lot. Findings of a
random report are those of the expected counts over all training reports (the share of them that has a finding); its
words are those of one draw a case, by the hash of both names.

F1 is over findings that are in a reference. Scores of words are weak, and no task is ranked by one: a report that says
"no effusion" where the other says "effusion" shares most of its words with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tapct.kinds.base import Cases, Field, Kind, Mean, Metric, Number, Statistic
from tapct.metrics.report import ORDERS, Counts, bleu

TEXT, COMMON, RANDOM = "text", "most common report", "random report"
"""Classes of whole texts."""

WHOLE = (TEXT, COMMON, RANDOM)

OF_FINDINGS = ("found", "reference", "common", "random")
"""Fields of findings: in the text, in the reference, in the most common report; the share of training reports."""

MATCHED = tuple(f"matched_{order}" for order in ORDERS)

OF_WORDS = (*MATCHED, "words", "reference_words", "rouge_l", "meteor")
"""Fields of whole texts."""


def outcome(
    findings: Sequence[str], of_findings: Mapping[str, np.ndarray], of_words: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float | None]]:
    """Returns what a record holds of a case.

    Args:
        findings: The names of K findings.
        of_findings: By each of `OF_FINDINGS`, (K,).
        of_words: By each of `WHOLE`, its numbers in the order of `OF_WORDS`, NaN where one is not known.
    """
    classes = (*findings, *WHOLE)
    made: dict[str, dict[str, float | None]] = {name: dict.fromkeys(classes) for name in (*OF_FINDINGS, *OF_WORDS)}
    for field in OF_FINDINGS:
        made[field] |= dict(zip(findings, map(float, of_findings[field]), strict=True))
    for name, numbers in of_words.items():
        for field, number in zip(OF_WORDS, numbers, strict=True):
            made[field][name] = None if math.isnan(number) else float(number)
    return made


def case_loss(fields: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the share of findings that a text has and its reference has not, or the other way round."""
    found, reference = ([one for one in fields[name].values() if one is not None] for name in ("found", "reference"))
    return sum(one != other for one, other in zip(found, reference, strict=True)) / len(found)


def _fault(fields: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name in fields["found"]:
        group, other = (OF_WORDS, OF_FINDINGS) if name in WHOLE else (OF_FINDINGS, OF_WORDS)
        if odd := [field for field in other if fields[field][name] is not None]:
            return f"{name} has {odd[0]}"
        if lacking := [field for field in group if fields[field][name] is None and field != "meteor"]:
            return f"{name} lacks {lacking[0]}"
        whole = [field for field in group if field not in ("random", "rouge_l", "meteor")]
        if odd := [field for field in whole if fields[field][name] % 1]:
            return f"{odd[0]} of {name} is {fields[odd[0]][name]:g}, and must be a whole number"
        if name in WHOLE:
            words = fields["words"][name]
            for order, field in zip(ORDERS, MATCHED, strict=True):
                if fields[field][name] > max(words - order + 1, 0):
                    return f"{field} of {name} is {fields[field][name]:g} of {words:g} words"
    return None


# -- Metrics -------------------------------------------------------------------------------------------


def counts_of(cases: Cases, counts: np.ndarray) -> Counts:
    """Returns how often findings are said rightly, wrongly and not, given (C, R) how often each case counts."""
    places = findings_of(cases)
    return Counts.of(cases["found"][:, places], cases["reference"][:, places], counts)


def findings_of(cases: Cases) -> list[int]:
    """Returns the places of the findings among the classes."""
    return [place for place, name in enumerate(cases.classes) if name not in WHOLE]


def of_text(cases: Cases, field: str, text: str = TEXT) -> np.ndarray:
    """Returns (C,) a number of whole texts, NaN where it is not known."""
    return cases[field][:, cases.classes.index(text)]


def _bleu(cases: Cases, counts: np.ndarray) -> np.ndarray:
    matched = np.stack([of_text(cases, field) for field in MATCHED], axis=1)
    return bleu(matched, of_text(cases, "words"), of_text(cases, "reference_words"), counts)


def knowing_nothing(cases: Cases, text: str) -> Cases:
    """Returns the cases as they would be with one text that knows nothing of them: `COMMON` or `RANDOM`."""
    said = {COMMON: "common", RANDOM: "random"}[text]
    values = {**cases.values, "found": cases[said]}
    for field in (*MATCHED, "words", "rouge_l", "meteor"):
        values[field] = cases[field].copy()
        values[field][:, cases.classes.index(TEXT)] = of_text(cases, field, text)
    return replace(cases, values=values)


def _nowhere(cases: Cases) -> float:
    return float((cases["reference"][:, findings_of(cases)] == 0).all(axis=0).sum())


def _with_a_finding(cases: Cases) -> dict[str, np.ndarray]:
    return {"with a finding": np.any(cases["reference"][:, findings_of(cases)] > 0, axis=1)}


_WEAK = "weak: words, not findings"

KIND = Kind(
    name="report",
    title="Report",
    target="a text; of it and of the radiologist's one reader finds which of some findings are there",
    metrics=(
        Metric(
            name="MacroF1",
            title="macro F1",
            of=Statistic(lambda cases, counts: counts_of(cases, counts).macro_f1()),
            undefined="no reference has a finding",
            needs=_with_a_finding,
        ),
        Metric(
            name="MicroF1",
            title="micro F1",
            of=Statistic(lambda cases, counts: counts_of(cases, counts).over_findings().f1()[0]),
            undefined="no text and no reference has a finding",
            needs=_with_a_finding,
        ),
        Metric(
            name="MicroPrecision",
            title="precision",
            of=Statistic(lambda cases, counts: counts_of(cases, counts).over_findings().precision()[0]),
            undefined="no text has a finding",
        ),
        Metric(
            name="MicroRecall",
            title="recall",
            of=Statistic(lambda cases, counts: counts_of(cases, counts).over_findings().recall()[0]),
            undefined="no reference has a finding",
        ),
        Metric(
            name="BLEU4",
            title="BLEU-4",
            column=f"BLEU-4, {_WEAK}",
            of=Statistic(_bleu),
            undefined="no text has four words",
        ),
        Metric(
            name="ROUGE-L",
            title="ROUGE-L",
            column=f"ROUGE-L, {_WEAK}",
            of=Mean(lambda cases: of_text(cases, "rouge_l")),
        ),
        Metric(
            name="METEOR",
            title="METEOR",
            column=f"METEOR, {_WEAK}",
            of=Mean(lambda cases: of_text(cases, "meteor")),
            undefined="WordNet was not there",
        ),
        Metric(
            name="FindingsNowhere",
            title="findings that no reference has",
            of=Number(_nowhere),
            high=math.inf,
            lower_is_better=True,
            digits=0,
            shown=False,
        ),
    ),
    ranked=("MacroF1", "MicroF1"),
    fields=(
        Field(name="found", title="finding in the text", low=0, high=1, missing=True, answer=True),
        Field(name="reference", title="finding in the reference", given=True, low=0, high=1, missing=True),
        Field(name="common", title="finding in the most common report", given=True, low=0, high=1, missing=True),
        Field(
            name="random",
            title="share of training reports with the finding",
            given=True,
            low=0,
            high=1,
            missing=True,
        ),
        *(
            Field(name=name, title=f"{order}-grams that the reference has too", low=0, missing=True)
            for name, order in zip(MATCHED, ORDERS, strict=True)
        ),
        Field(name="words", title="words of the text", low=0, missing=True),
        Field(name="reference_words", title="words of the reference", given=True, low=0, missing=True),
        Field(name="rouge_l", title="ROUGE-L", low=0, high=1, missing=True),
        Field(name="meteor", title="METEOR", low=0, high=1, missing=True),
    ),
    further_classes=WHOLE,
    probe="tapct.probes.report:ReportProbe",
    dataset="tapct.tasks.report:ReportDataset",
    page="tapct.leaderboard.page.kinds.report",
    fault=_fault,
    labels=True,
    heads=("nearest", "vote", "generated"),
    deals=True,
    rows_to_beat=("most common report", "random report", "chance", "intensity", "random-pyramid", "random weights"),
)
