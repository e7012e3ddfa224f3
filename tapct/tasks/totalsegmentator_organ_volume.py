"""Volumes of five organs in TotalSegmentator's scans: a task whose truth is known, as it is counted from the masks."""

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from tapct.tasks.regression import MissingTarget, RegressionDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.totalsegmentator_scans import LICENCE, RELEASE, SHORTCUTS, SOURCE
from tapct.tasks.totalsegmentator_volumes import ORGANS, OrganVolumes

SPEC = TaskSpec(
    name="totalsegmentator_organ_volume",
    display_name="TotalSegmentator, organ volumes",
    kind="regression",
    adaptor="ridge",
    version=1,
    classes=tuple(f"{organ} (ml)" for organ in ORGANS),
    unit="SD",
    metric="MAE",
    licence=LICENCE,
    source=SOURCE,
    source_data=(RELEASE,),
    release=RELEASE,
    shortcuts=SHORTCUTS,
)


class TotalSegmentatorOrganVolume(OrganVolumes, RegressionDataset):
    """The volume of each organ that the scan shows whole; see `OrganVolumes`."""

    spec = SPEC

    @override
    def target_paths(self, case: str) -> list[Path]:
        return self.organ_paths(case)

    @override
    def numbers(self, case: str) -> Sequence[float | MissingTarget]:
        return [MissingTarget(value) if isinstance(value, str) else value for value in self.volumes_ml(case)]
