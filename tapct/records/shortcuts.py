"""What a record says of shortcuts: what the nearest scan shares with a reported one, and what can be read of it."""

from pydantic import Field, model_validator

from tapct.records.types import AtLeast1, Count, Frozen, Name, Share, Text, optional

LABEL = "label"
"""What the label itself is called, next to which shortcuts stand."""


class Estimated(Frozen):
    """A number with its 95 % interval over patients.

    Attributes:
        value: The number.
        low: Lower end; None where there is no interval.
        high: Upper end.
        reason: Why there is no interval.
    """

    value: Share
    low: Share | None = optional()
    high: Share | None = optional()
    reason: Text | None = optional()

    @model_validator(mode="after")
    def _check(self) -> "Estimated":
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.reason is not None):
            raise ValueError("an interval has two ends, and where there is none there is a reason")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("the interval ends below its beginning")
        return self


class Shared(Frozen):
    """How often the nearest scan of another patient shares something with a reported one.

    Attributes:
        scans: Reported scans that count: those of which it is known, where somebody else's could share it.
        patients: Theirs.
        nearest: Share of these scans whose nearest scan does.
        chance: The same of any scan of another patient.
        by_label: The same of any scan of another patient with the same label, of a scan without one that of chance;
            None of the label itself, and of tasks without labels.
    """

    scans: AtLeast1
    patients: AtLeast1
    nearest: Estimated
    chance: Share
    by_label: Share | None = optional()


class LevelRead(Frozen):
    """How well one level, or label, can be told from all others.

    Attributes:
        train_patients: Training patients with it.
        patients: Reported patients with it.
        auroc: Of the reported scans.
    """

    train_patients: Count
    patients: Count
    auroc: Estimated


class Read(Frozen):
    """How well something can be read from features by the linear probe.

    Attributes:
        auroc: Mean over levels.
        levels: Each by itself.
    """

    auroc: Estimated
    levels: dict[Name, LevelRead] = Field(min_length=1)


class ShortcutRecord(Frozen):
    """Something that scans may be sorted by: a column, or the label itself.

    Attributes:
        title: In words.
        known: Reported scans of which it is known.
        levels: Reported patients by level, or label.
        shared: What the nearest scan shares; None where there is nothing to share.
        read: How well it can be read; None where it was not tried.
        not_read: Why not.
        left_out: Levels that were not read, and why.
        unseen: Levels that no training case has: reported patients with them.
    """

    title: Name
    known: Count
    levels: dict[Name, Count]
    shared: Shared | None = optional()
    read: Read | None = optional()
    not_read: Text | None = optional()
    left_out: dict[Name, Text] = Field(default_factory=dict)
    unseen: dict[Name, Count] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> "ShortcutRecord":
        if (self.read is None) != (self.not_read is not None):
            raise ValueError("what is not read has a reason, and nothing else has one")
        return self


class ShortcutsRecord(Frozen):
    """The shortcut audit of an experiment: of its reported scans, by the features that heads see, pooled to one vector.

    Attributes:
        pooling: How they were pooled.
        read_by: Which cases the linear probe was trained on, in words.
        label: The label itself, next to which the others stand; None of tasks without labels.
        columns: By name, those that were audited.
        left_out: Those that were not, and why.
    """

    pooling: Name
    read_by: Text
    label: ShortcutRecord | None = optional()
    columns: dict[Name, ShortcutRecord]
    left_out: dict[Name, Text]
