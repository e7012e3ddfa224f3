"""What a downstream task is, apart from how its files are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tapct import kinds
from tapct.errors import TaskError, nearest
from tapct.tasks.columns import ACQUISITION, PATIENT, Column
from tapct.tasks.shortcuts import GEOMETRY, MATCHED, VOLUME


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A downstream task.

    Attributes:
        name: The name in commands and configs.
        display_name: The name in tables.
        kind: What is predicted: a name of `tapct.kinds`.
        version: Goes up whenever a number could change: labels, splits, metric.
        classes: Names by label; background first in segmentation.
        metric: The metric that is ranked, under its name in the record.
        licence: Of the data.
        source: How to obtain the data.
        notice: What must stand next to every number, if anything.
        adaptor: What the task is ranked on, as its config has it; None where features are not pooled.
        mask: In words, the part of each scan that features may be pooled over (`linear:mask`); None where there is no
            mask of every case, or none that does not give the answer away.
        table: What is known of each case besides its scan (`CTDataset.read_value`) and is not a shortcut, such as a
            stage; and shortcuts of which heads are to know more than the audit (levels in an order). See `columns`.
        rows: Columns that a model should beat, a row each, in addition to those of every task (`rows_to_beat`).
        shortcuts: What scans may be sorted by in place of what is asked, next to their geometry, which every scan has:
            columns (`tapct.tasks.shortcuts`) that `CTDataset.read_value` reads. What is asked itself is none.
        known_size: Whether the release says how large scans are in mm; where that is assumed, it is audited by nobody.
        matched: Of retrieval, what `MatchedMAP` has scans without a label share with the query, where it is a shortcut.
        release: The task whose data and split it shares, where several ask something of one release; None of its own.
        unit: Of the targets, where they have one: that of every number whose metric is in it.
        citation: BibTeX of what is to be cited for the data; None where it is not stated, or `tapct.citations` has it.
        source_data: How names of data begin that hold its scans (regular expressions, whatever the case): models that
            were pretrained on such data are marked.
    """

    name: str
    display_name: str
    kind: str
    version: int
    classes: tuple[str, ...]
    metric: str
    licence: str
    source: str
    notice: str | None = None
    adaptor: str | None = None
    mask: str | None = None
    table: tuple[Column, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    shortcuts: tuple[Column, ...] = ()
    known_size: bool = True
    matched: tuple[str, ...] = MATCHED
    release: str | None = None
    unit: str | None = None
    citation: str | None = None
    source_data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kind = self.of_kind
        if self.metric not in kind.ranked:
            known = ", ".join(kind.ranked)
            raise TaskError(f"{self.name}: a task of {self.kind} is ranked by {known}, not by {self.metric}")
        if kind.metric(self.metric).unit == kinds.TARGET and self.unit is None:
            raise TaskError(f"{self.name} is ranked by {self.metric}, which is in the unit of its targets: give `unit`")
        for column in self.shortcuts:
            if not column.has_levels or sum(one.name == column.name for one in self.audited) > 1:
                raise TaskError(
                    f"{self.name}: the shortcut '{column.name}' has no levels, is there twice, or is called as geometry"
                )

        named = {column.name: column for column in (*self.table, *self.audited)}
        volume = named.get(VOLUME.name)
        if ACQUISITION in named or (volume is not None and (volume != VOLUME or self.mask is None)):
            raise TaskError(
                f"{self.name}: '{ACQUISITION}' is several columns of every task, and '{VOLUME.name}' the volume of its "
                "mask. Give the column another name, or the task a mask"
            )
        for row in self.rows:
            self.named(row)
        if odd := set(self.matched) - {*MATCHED, *(column.name for column in self.shortcuts)}:
            raise TaskError(f"{self.name}: there is no shortcut '{min(odd)}' for scans to be matched on")

    @property
    def of_kind(self) -> kinds.Kind:
        """The kind of task that it is."""
        return kinds.kind(self.kind)

    @property
    def audited(self) -> tuple[Column, ...]:
        """What scans may be sorted by: the columns of the task, and the geometry of its scans."""
        return (*self.shortcuts, *(GEOMETRY if self.known_size else ()))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """By name, all that is known of a case besides its scan: what heads may be given (`linear:table=age+sex`).

        What scans may be sorted by, the volume of the mask where cases have one, and the task's own table.
        """
        volume = () if self.mask is None else (VOLUME,)
        return {column.name: column for column in (*self.audited, *volume, *self.table)}

    @property
    def acquisition(self) -> tuple[str, ...]:
        """Names of the columns that "acquisition" stands for: what scans may be sorted by, but for the patient."""
        return tuple(column.name for column in self.audited if column.name not in PATIENT and column != VOLUME)

    @property
    def rows_to_beat(self) -> tuple[tuple[str, ...], ...]:
        """Columns that a model should beat, a row each: age and sex, acquisition, volume, as far as there are some."""
        patient = tuple(name for name in PATIENT if name in self.columns)
        acquisition = (ACQUISITION,) if self.acquisition else ()
        volume = () if self.mask is None else (VOLUME.name,)
        return tuple(dict.fromkeys(row for row in (*self.rows, patient, acquisition, volume) if row))

    def named(self, names: Sequence[str]) -> list[Column]:
        """Returns the columns of these names, each once; "acquisition" is several.

        Raises:
            TaskError: If there is none of such a name.
        """
        found: dict[str, Column] = {}
        for name in names:
            several = self.acquisition if name == ACQUISITION else (name,) if name in self.columns else ()
            if not several:
                known = [*([ACQUISITION] if self.acquisition else []), *self.columns]
                has = nearest(name, known) if known else "Nothing is known of its cases: leave table= out"
                raise TaskError(f"{self.name} has no column '{name}'. {has}")
            found |= {one: self.columns[one] for one in several}
        return list(found.values())

    @property
    def folder(self) -> str:
        """The name of its folder under the data root, and of its split where it has none of its own."""
        return self.release or self.name
