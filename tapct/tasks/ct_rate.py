"""CT-RATE: eighteen findings of a chest CT, as a machine read them from its report (arXiv:2403.17834)."""

from typing_extensions import override

from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.ct_rate_release import FINDINGS, SHORTCUTS
from tapct.tasks.ct_rate_scans import CITATION, LICENCE, MACHINE_READ, RELEASE, SOURCE, SOURCE_DATA, CTRATEScans
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name=RELEASE,
    display_name="CT-RATE",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=FINDINGS,
    metric="MacroAUROC",
    licence=LICENCE,
    source=SOURCE,
    notice=MACHINE_READ,
    shortcuts=SHORTCUTS,
    source_data=SOURCE_DATA,
    citation=CITATION,
)


class CTRATE(CTRATEScans, ClassificationDataset):
    """The eighteen findings of each scan; none is missing."""

    spec = SPEC

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        return self.of_release(case).findings
