"""The recorded sex of TotalSegmentator's patients, from the scan alone."""

from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.shortcuts import SEX
from tapct.tasks.spec import TaskSpec
from tapct.tasks.totalsegmentator_scans import LICENCE, RELEASE, SHORTCUTS, SOURCE
from tapct.tasks.totalsegmentator_volumes import COLUMNS, ROW, OrganVolumes

SPEC = TaskSpec(
    name="totalsegmentator_sex",
    display_name="TotalSegmentator, sex",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=("female",),
    metric="MicroAUROC",
    licence=LICENCE,
    source=SOURCE,
    release=RELEASE,
    source_data=(RELEASE,),
    shortcuts=tuple(column for column in SHORTCUTS if column != SEX),
    table=COLUMNS,
    rows=(ROW,),
)


class TotalSegmentatorSex(OrganVolumes, ClassificationDataset):
    """The column `gender` of `meta.csv`: f is 1, m is 0. Two scans of which it is not known are left out."""

    spec = SPEC

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.meta_path]

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        gender = self.meta_row(case)["gender"].strip()
        if gender not in ("f", "m"):
            raise TaskError(f"{self.meta_path}, {case}: gender is '{gender}', and must be f or m. Leave the case out")
        return (int(gender == "f"),)
