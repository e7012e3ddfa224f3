"""How the head that a run reports was chosen, and from what."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from tapct.records.types import Count, Finite, FiniteFloat, Frozen, Name, NotNegative, Switch


class RateScores(Frozen):
    """A candidate of a stepped head.

    Attributes:
        learning_rate: Its rate; None for the optimizer's own.
        scores: Step and score of every validation evaluation at the selection cases; a score is None where it was
            undefined.
    """

    learning_rate: FiniteFloat | None = None
    scores: tuple[tuple[Count, Finite | None], ...] = ()


class SteppedSelection(Frozen):
    """The rate and the step at which a stepped head was taken.

    Attributes:
        learning_rate: Its rate; None for the optimizer's own.
        step: Its step.
        score: Its score on the selection cases; None if it was not chosen by it.
        loss: Its loss there.
        patients: The selection patients.
        candidates: Per rate, every validation evaluation.
    """

    learning_rate: FiniteFloat | None
    step: Count
    score: Finite | None
    loss: Finite | None = None
    patients: Count | None = None
    candidates: tuple[RateScores, ...]


class Solved(Frozen):
    """A candidate of a solved head: its setting, and how it did."""

    setting: FiniteFloat
    score: Finite
    loss: Finite


class SolvedSelection(Frozen):
    """What a solved head was chosen from; empty where there was nothing to choose.

    Attributes:
        setting: Penalty, or neighbours.
        score: Its score on the patients that decide.
        loss: Its loss on them.
        patients: Their number.
        folds: Of the cross-validation.
        candidates: All settings.
        gradient: What is left of it at the solution.
        is_solved: Whether that is little enough.
        targets: Where each target has a setting of its own: what that was chosen from, by target.
    """

    setting: FiniteFloat | None = None
    score: Finite | None = None
    loss: Finite | None = None
    patients: Count | None = None
    folds: Count | None = None
    candidates: tuple[Solved, ...] = ()
    gradient: NotNegative | None = None
    is_solved: Switch | None = None
    targets: dict[Name, "SolvedSelection"] = Field(default_factory=dict, exclude_if=lambda targets: not targets)


class FoldedSelection(Frozen):
    """What the solved heads of a repeat were chosen from, each by cross-validation within its own training patients.

    Attributes:
        by_fold: Of each fold, in order.
    """

    by_fold: tuple[SolvedSelection, ...]

    @property
    def candidates(self) -> tuple[Solved, ...]:
        """The candidates of all folds."""
        return tuple(one for selection in self.by_fold for one in selection.candidates)


def solved_selections(selection: SteppedSelection | SolvedSelection | FoldedSelection | None) -> list[SolvedSelection]:
    """Returns what solved heads were chosen from: by fold, by target or of the one head; of a stepped one nothing."""
    if isinstance(selection, FoldedSelection):
        return list(selection.by_fold)
    if not isinstance(selection, SolvedSelection):
        return []
    return list(selection.targets.values()) or [selection]


def _how(selection: Any) -> str:
    keys = selection if isinstance(selection, dict) else getattr(type(selection), "model_fields", {})
    if "by_fold" in keys:
        return "folded"
    return "stepped" if "learning_rate" in keys else "solved"


Selection = Annotated[
    Annotated[SteppedSelection, Tag("stepped")]
    | Annotated[SolvedSelection, Tag("solved")]
    | Annotated[FoldedSelection, Tag("folded")],
    Discriminator(_how),
]
