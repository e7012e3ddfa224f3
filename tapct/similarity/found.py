"""What was found of the encoders of a task, and the file that holds it next to the task's records."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapct._utils.files import write_atomically
from tapct.errors import RecordError

FILE = "similarity.json"
"""RESULTS/TASK/ holds it, next to the patches."""

SAME_CKA, SAME_NEIGHBOURS = 0.999, 0.9
"""From where on two encoders say the same of these cases but for rotation, shift, scale and the rounding of bf16."""

FEWEST_PATIENTS = 10
"""Of fewer, models cannot be told to be alike: any two are on three cases."""

_Text = Annotated[str, Field(min_length=1, max_length=400)]


class StrictModel(BaseModel):
    """Holds what it was made with, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Described(StrictModel):
    """An encoder whose features were compared.

    Attributes:
        label: As a sweep's patches name it: `tap-b-3d@random+in_plane_size=512`.
        title: Its name in tables.
        pooling: How its features became one vector a case.
        features: Their number.
    """

    label: _Text
    title: _Text
    pooling: _Text
    features: int = Field(ge=1)


class EncoderPair(StrictModel):
    """Two encoders.

    Attributes:
        first: Label of one.
        second: Label of the other.
        cka: Debiased linear CKA; None where one of them says the same of every case.
        cka_biased: Likewise, as it is defined.
        neighbours: Share of nearest cases that both have; None likewise.
    """

    first: _Text
    second: _Text
    cka: float | None = Field(le=1)
    cka_biased: float | None = Field(ge=0, le=1)
    neighbours: float | None = Field(ge=0, le=1)

    @property
    def is_same(self) -> bool:
        """Whether they say the same of these cases, but for rotation, shift, scale and rounding."""
        return (self.cka or 0) >= SAME_CKA and (self.neighbours or 0) >= SAME_NEIGHBOURS


class Similarity(StrictModel):
    """What the encoders of a task have in common.

    Attributes:
        task: Name of the task.
        cases: How many cases.
        patients: Of how many patients.
        neighbours: How many nearest cases are asked for.
        encoders: The encoders.
        pairs: All pairs of them.
    """

    task: _Text
    cases: int = Field(ge=1)
    patients: int = Field(ge=1)
    neighbours: int = Field(ge=1)
    encoders: tuple[Described, ...]
    pairs: tuple[EncoderPair, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> "Similarity":
        labels = [one.label for one in self.encoders]
        wanted = {frozenset((a, b)) for place, a in enumerate(labels) for b in labels[place + 1 :]}
        found = [frozenset((pair.first, pair.second)) for pair in self.pairs]
        if len(set(labels)) < len(labels) or len(found) != len(wanted) or set(found) != wanted:
            raise ValueError("its pairs are not those of its encoders, each once")
        return self

    @property
    def by_chance(self) -> float:
        """About what share of nearest cases two have in common that have nothing in common."""
        return min(1.0, self.neighbours / max(self.cases - 1, 1))

    def pair(self, one: str, other: str) -> EncoderPair | None:
        """Returns a pair by its labels, None of an encoder with itself."""
        return next((pair for pair in self.pairs if {pair.first, pair.second} == {one, other}), None)

    @property
    def same(self) -> tuple[EncoderPair, ...]:
        """Pairs of which one is the other under a new name."""
        return tuple(pair for pair in self.pairs if pair.is_same)


def write(found: Similarity, results: Path) -> Path:
    """Writes what was found next to the records of the task, and returns the file.

    Raises:
        RecordError: If it cannot be written.
    """
    path = results / found.task / FILE
    try:
        write_atomically(path, found.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def read(path: Path) -> Similarity:
    """Reads such a file.

    Raises:
        RecordError: If it cannot be read, or is not what `write` makes.
    """
    try:
        found = Similarity.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecordError(f"{path} cannot be read: {said}. Make it anew: tapct compare ... --results") from error
    if found.task != path.parent.name:
        raise RecordError(f"{path} is of the task {found.task}: put it into that task's folder")
    return found
