"""Reports of CT-RATE: which findings are in the text that a scan is given, and which in the radiologist's."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.ct_rate_release import FINDINGS, PARTS, SHORTCUTS, VolumeName
from tapct.tasks.ct_rate_scans import CITATION, LICENCE, RELEASE, SOURCE, SOURCE_DATA, CTRATEScans
from tapct.tasks.report import ReportDataset
from tapct.tasks.spec import TaskSpec

READ_BY_MACHINE = "The findings of both texts were read by a machine, CT-RATE's own reader of reports."


class CTRATEReport(CTRATEScans, ReportDataset):
    """The report of each scan: findings, then impression, as CT-RATE's reader was trained on them."""

    spec = TaskSpec(
        name="ct_rate_report",
        display_name="CT-RATE, report",
        kind="report",
        adaptor="nearest",
        version=1,
        classes=FINDINGS,
        metric="MacroF1",
        licence=LICENCE,
        source=SOURCE,
        notice=READ_BY_MACHINE,
        release=RELEASE,
        shortcuts=SHORTCUTS,
        source_data=SOURCE_DATA,
        citation=CITATION,
    )

    @cached_property
    def _volumes(self) -> Mapping[str, list[VolumeName]]:
        """The volumes that have a report, by scan."""
        found: dict[str, list[VolumeName]] = {}
        for part in PARTS:
            for volume in self.release.texts(part):
                name = VolumeName.parse(volume, "")
                found.setdefault(name.scan, []).append(name)
        return found

    def _texts_of(self, case: str) -> list[str]:
        """Returns the different reports of a scan."""
        texts = (self.release.texts(name.part)[name.volume] for name in self._volumes.get(case, ()))
        return list(dict.fromkeys(texts))

    @override
    def left_out(self) -> dict[str, str]:
        faults = {case: _fault(self._texts_of(case)) for case in self.release.scans}
        return {**{case: why for case, why in faults.items() if why is not None}, **super().left_out()}

    @override
    def report(self, case: str) -> str:
        reports = self._texts_of(case)
        if (why := _fault(reports)) is not None:
            raise TaskError(f"{case}: {why}. Leave the case out")
        return reports[0]

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        return self.of_release(case).findings

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [*super().target_paths(case), self.release.reports(self.of_release(case).name.part)]


def _fault(reports: list[str]) -> str | None:
    """Returns why a scan with these reports cannot be a case; None where it can."""
    if not reports:
        return "it has no report"
    if len(reports) > 1:
        return "its reconstructions have different reports"
    return None if reports[0] else "its report is empty"
