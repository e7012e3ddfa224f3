"""CT-RATE: scans with the same findings, among all that are reported (arXiv:2403.17834)."""

from typing_extensions import override

from tapct.tasks.ct_rate_release import FINDINGS, SHORTCUTS
from tapct.tasks.ct_rate_scans import CITATION, LICENCE, MACHINE_READ, RELEASE, SOURCE, SOURCE_DATA, CTRATEScans
from tapct.tasks.retrieval import RetrievalDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="ct_rate_retrieval",
    display_name="CT-RATE, retrieval",
    kind="retrieval",
    adaptor="cosine",
    version=1,
    classes=FINDINGS,
    metric="mAP",
    licence=LICENCE,
    source=SOURCE,
    notice=MACHINE_READ,
    source_data=SOURCE_DATA,
    release=RELEASE,
    shortcuts=SHORTCUTS,
    citation=CITATION,
)


class CTRATERetrieval(CTRATEScans, RetrievalDataset):
    """Scans of the official part `valid` that have the same findings; nothing of `train` is needed."""

    spec = SPEC
    parts = ("valid",)
    scan_patterns = ("valid_fixed/*/*", "dataset/valid_fixed/*/*")

    @override
    def labels(self, case: str) -> tuple[int, ...]:
        return self.of_release(case).findings
