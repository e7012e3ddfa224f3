"""What a record says of how it was run: nothing of it decides the result, and it is not signed."""

from pydantic import Field

from tapct.records.types import Count, Finite, FiniteFloat, Frozen, Index, Name, NotNegative, Sha256, Switch, Text

Seconds = dict[Name, NotNegative]
"""By stage: extract, fit, val, test; `surfaces` is part of the last two."""


class Training(Frozen):
    """How the reported head of a run trained.

    Attributes:
        loss: Mean training loss over stretches of equal length; None where it is not finite.
        start_sha256: Hash of the weights that it started from.
        is_zero: Whether all its weights are 0.
    """

    loss: tuple[Finite | None, ...]
    start_sha256: Sha256
    is_zero: Switch


class RunExecution(Frozen):
    """How a run was executed."""

    run: Index
    ended_at: Name | None = None
    seconds: Seconds
    training: Training | None = None


class FeaturesSeen(Frozen):
    """What the head saw of the first training cases (`tapct.features.statistics`); None where a value is not finite."""

    cases: Count
    channels: Count
    values_per_channel: Count
    non_finite: Count
    repeated_cases: Count
    constant_channels: Count | None = None
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    mean: FiniteFloat | None = None
    std: FiniteFloat | None = None


class GitState(Frozen):
    """The checkout that ran: commit and whether it had changes, or why git could not be asked."""

    commit: Name | None = None
    dirty: Switch | None = None
    unavailable: Text | None = None


class Execution(Frozen):
    """Where and when a record was made.

    Attributes:
        written_at: When the last run ended, UTC.
        seconds: Wall time of the stages, added up over the runs.
        features: What the head saw of the first training cases.
        runs: Times and training of each run.
        packages: Versions.
        device: Name of the GPU, or the machine's architecture.
        peak_memory_bytes: `host` and `device`: the most memory of the process.
    """

    written_at: Name | None = None
    seconds: Seconds = Field(default_factory=dict)
    python: Name | None = None
    platform: Text | None = None
    packages: dict[Name, Text | None] = Field(default_factory=dict)
    git: GitState | None = None
    device: Text | None = None
    device_type: Name | None = None
    processor: Text | None = None
    cuda: Text | None = None
    cudnn: Count | None = None
    float32_matmul_precision: Name | None = None
    threads: Count | None = None
    peak_memory_bytes: dict[Name, Count] = Field(default_factory=dict)
    features: FeaturesSeen | None = None
    runs: tuple[RunExecution, ...] = ()
