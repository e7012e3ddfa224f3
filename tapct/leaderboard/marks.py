"""What must be known before a number is believed: one vocabulary, one legend, next to the number in every table."""

from collections.abc import Sequence
from dataclasses import dataclass

from tapct.leaderboard.adaptors import AdaptorGrid
from tapct.records import Recorded
from tapct.statistics.inputs import EXTERNAL, is_solved
from tapct.statistics.summary import ModelSummary, TaskSummary
from tapct.statistics.thin import FEW_OF_A_CLASS, FEW_PATIENTS


@dataclass(frozen=True)
class Mark:
    """A warning.

    Attributes:
        id: In files.
        sign: Next to a number.
        short: In a few words.
        text: In the legend.
    """

    id: str
    sign: str
    short: str
    text: str


@dataclass(frozen=True)
class Marked:
    """A warning next to a number.

    Attributes:
        mark: The warning.
        detail: What was found of this number; empty where the mark says it all.
    """

    mark: Mark
    detail: str = ""

    @property
    def says(self) -> str:
        """What it says of this number."""
        return self.detail or self.mark.short

    @property
    def brief(self) -> str:
        """The same, but for what is said once of the whole task, or is the same of all numbers: that in a few words."""
        return self.mark.short if self.mark in _IN_GENERAL else self.says


DEMONSTRATED = "A demonstration"
"""How the notice of a task begins that is one."""

DEMONSTRATION = Mark(
    "demonstration", "demo", "a demonstration", "a demonstration, not a benchmark score; it enters no mean rank"
)
NOTICED = Mark("notice", "note", "a notice", "a notice stands over the task: read it; it enters no mean rank")
EXTERNALLY_TRAINED = Mark(
    "external",
    "external",
    "external validation",
    "external validation: the heads were trained on another task or split",
)
FEW = Mark(
    "few-patients",
    "few",
    f"under {FEW_PATIENTS} patients",
    f"under {FEW_PATIENTS} patients: intervals are often too short",
)
FEW_POSITIVES = Mark(
    "few-positives",
    "rare",
    "few cases of a class",
    "few patients with, or few without, what is looked for: intervals are often too short, however many patients there "
    "are",
)
FEW_DECIDE = Mark(
    "few-decide",
    "fragile",
    "few patients decide the interval",
    "a few patients, far from the others, decide how long the interval is: one more or less would make another",
)
ONE_SEED = Mark("one-seed", "1 seed", "one seed", "one run: what another start of the head would give is not known")
NOT_CONVERGED = Mark(
    "not-converged",
    "unfinished",
    "training had not converged",
    "the head was still improving: more steps would change it",
)
AT_CHANCE = Mark("at-chance", "chance", "at chance", "no better than what knows nothing of the cases")
TOO_FEW = Mark(
    "too-few-to-tell",
    "inconclusive",
    "too few to tell from chance",
    "too few patients to tell it from what knows nothing of them",
)
OLDER = Mark(
    "older-protocol", "older", "an older protocol", "a number of an older protocol, not made as those next to it"
)
SEEN = Mark(
    "seen-in-pretraining",
    "seen",
    "scans of the task were in the pretraining data",
    "the model's pretraining data hold scans of the task, by its card; which patients is not known, and no mark does "
    "not mean that there is no overlap",
)
INT8 = Mark(
    "int8-features",
    "int8",
    "features in int8",
    "the stored features were in int8, a scale a channel and case: coarser than bf16, though measured scores moved by "
    "less than 0.002 (docs/features.md)",
)
FLAGGED = Mark(
    "red-flag",
    "flag",
    "a red flag",
    "a red flag of the record: look at the model's section before you believe the number",
)
DECLARED = Mark(
    "inputs-as-declared",
    "declared",
    "inputs as declared",
    "what the network was given was declared in a card (a backbone of eva's), and not held against the authors' code",
)
REGION = Mark(
    "region-by-rule",
    "rule",
    "a region that a rule finds",
    "hand-made features of a region that a rule finds in each scan (the body; in the crop of a nodule what a threshold "
    "or a sphere gives), and not of a mask that somebody drew",
)
NOT_IN_PAPER = Mark(
    "not-in-paper",
    "not in the paper",
    "the paper has no number",
    "an experiment that the paper left empty, or out of memory on 80 GB",
)
OTHER_PROTOCOL = Mark(
    "other-protocol",
    "protocol",
    "another protocol",
    "next to the paper's number: not of the shipped protocol, or with other windows than the paper's",
)

MARKS = (
    *(DEMONSTRATION, NOTICED, EXTERNALLY_TRAINED, FEW, FEW_POSITIVES, FEW_DECIDE, ONE_SEED, NOT_CONVERGED, AT_CHANCE),
    *(TOO_FEW, OLDER, SEEN, DECLARED, REGION, INT8, FLAGGED, NOT_IN_PAPER, OTHER_PROTOCOL),
)
"""All of them, in the order in which they stand."""

_IN_GENERAL = frozenset({DEMONSTRATION, NOTICED, EXTERNALLY_TRAINED, FEW, FEW_POSITIVES, FEW_DECIDE, ONE_SEED})

_BY_FLAG = {"not-converged": NOT_CONVERGED, "chance-level": AT_CHANCE, "too-few-to-tell": TOO_FEW}
"""Red flags of a record that are marks of their own."""


def of_task(summary: TaskSummary | AdaptorGrid) -> list[Marked]:
    """Returns what must stand next to every number of a task."""
    found = []
    if summary.notice:
        says = {EXTERNAL: EXTERNALLY_TRAINED, DEMONSTRATED: DEMONSTRATION}  # what stands in the task's comes first
        mark = next((mark for words, mark in says.items() if words in summary.notice), NOTICED)
        found.append(Marked(mark, summary.notice))
    for warning in summary.warnings:
        found.append(Marked(FEW_POSITIVES if f"under {FEW_OF_A_CLASS} of a class" in warning else FEW, warning))
    return found


def of_number(
    summary: TaskSummary, model: ModelSummary, record: Recorded, seen: Sequence[str], older: str | None
) -> tuple[Marked, ...]:
    """Returns what must stand next to a number.

    Args:
        summary: The task's statistics.
        model: The number.
        record: Its record.
        seen: The model's pretraining data that hold scans of the task.
        older: Of what older protocol the number is, if it is.
    """
    found = of_task(summary)
    found += [Marked(FEW_DECIDE, warning) for warning in model.warnings]
    if len(record.runs) == 1 and not is_solved(record):
        found.append(Marked(ONE_SEED))
    for flag in record.flags:
        mark = _BY_FLAG.get(flag.id, FLAGGED)
        found.append(Marked(mark, f"{flag.id}: {flag.detail}"))
    if older:
        found.append(Marked(OLDER, f"older protocol: {older}"))
    if record.probe.feature_dtype == "int8":
        found.append(Marked(INT8))
    if seen:
        found.append(Marked(SEEN, f"pretraining data: {', '.join(seen)}"))
    if record.encoder.card.inputs_as_declared:
        found.append(Marked(DECLARED))
    if record.probe.pooling not in ("mask", "none") and _finds_a_region(record):
        found.append(Marked(REGION))
    return ordered(found)


def _finds_a_region(record: Recorded) -> bool:
    sheet = record.encoder.input_sheet
    return sheet is not None and any(row.name == "Region" for row in sheet.rows)


def ordered(found: Sequence[Marked]) -> tuple[Marked, ...]:
    """Returns marks in the order of the legend, several of a kind as one."""
    return tuple(
        Marked(mark, "; ".join(dict.fromkeys(one.detail for one in found if one.mark is mark and one.detail)))
        for mark in MARKS
        if any(one.mark is mark for one in found)
    )
