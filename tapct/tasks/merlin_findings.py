"""Merlin Abdominal CT: thirty findings of an abdominal CT, as patterns read them from its report (arXiv:2406.06512)."""

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.ct_rate_scans import MACHINE_READ
from tapct.tasks.merlin_release import FINDINGS, SHORTCUTS
from tapct.tasks.merlin_scans import CITATION, LICENCE, NO_PATIENTS, SOURCE, SOURCE_DATA, MerlinScans
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="merlin_findings",
    display_name="Merlin, findings",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=FINDINGS,
    metric="MacroAUROC",
    licence=LICENCE,
    source=SOURCE,
    notice=f"{MACHINE_READ} {NO_PATIENTS}",
    shortcuts=SHORTCUTS,
    source_data=SOURCE_DATA,
    citation=CITATION,
)


class MerlinFindings(MerlinScans, ClassificationDataset):
    """The thirty findings of each study; what its report does not state is missing."""

    spec = SPEC

    @override
    def targets(self, case: str) -> tuple[int | None, ...]:
        if (labels := self.release.findings.get(case)) is None:
            raise TaskError(f"{self.release.labels} has no labels of the study {case}. Leave the case out")
        return labels
