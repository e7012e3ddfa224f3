"""The age of TotalSegmentator's patients, from the scan alone."""

from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.regression import RegressionDataset
from tapct.tasks.shortcuts import AGE
from tapct.tasks.spec import TaskSpec
from tapct.tasks.tables import number
from tapct.tasks.totalsegmentator_scans import LICENCE, RELEASE, SHORTCUTS, SOURCE
from tapct.tasks.totalsegmentator_volumes import COLUMNS, ROW, OrganVolumes

SPEC = TaskSpec(
    name="totalsegmentator_age",
    display_name="TotalSegmentator, age",
    kind="regression",
    adaptor="ridge",
    version=1,
    classes=("age",),
    unit="years",
    metric="MAE",
    licence=LICENCE,
    source=SOURCE,
    source_data=(RELEASE,),
    release=RELEASE,
    shortcuts=tuple(column for column in SHORTCUTS if column != AGE),
    table=COLUMNS,
    rows=(ROW,),
)


class TotalSegmentatorAge(OrganVolumes, RegressionDataset):
    """The column `age` of `meta.csv`, in whole years. The one scan of which it is not known is left out."""

    spec = SPEC

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.meta_path]

    @override
    def numbers(self, case: str) -> tuple[float]:
        where = f"{self.meta_path}, {case}"
        age = number(self.meta_row(case), "age", where, low=0, high=120, unit="years")
        if age is None:
            raise TaskError(f"{where}: there is no age. Leave the case out with a split_file of your own")
        return (age,)
