"""Retrieval in the scans of TotalSegmentator: those with the same pathology, and those of the same study type."""

from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.retrieval import RetrievalDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.totalsegmentator_scans import LICENCE, RELEASE, SHORTCUTS, SOURCE, TotalSegmentatorScans

PATHOLOGIES = ("tumor", "vascular", "trauma", "inflammation")
"""Of 20 scans at least."""

UNKNOWN = ("", "unclear")

OTHER_PATHOLOGIES = ("no_pathology", "other", "bleeding")

STUDY_TYPES = (
    *("ct abdomen", "ct abdomen-pelvis", "ct angiography head", "ct angiography neck-thx-abd-pelvis-leg"),
    *("ct aortic valve", "ct heart", "ct heart-thorakale aorta", "ct intervention", "ct neck"),
    *("ct neck-thorax-abdomen-pelvis", "ct pelvis", "ct polytrauma", "ct spine", "ct thorax-abdomen"),
    *("ct thorax-abdomen-pelvis", "ct thorax-chest", "ct thorax-neck"),
)
"""Of 20 scans at least, as the release spells them but for doubled blanks; the scans of 21 rarer ones are in the
gallery, and are not queries."""


def _spec(name: str, display_name: str, labels: tuple[str, ...]) -> TaskSpec:
    return TaskSpec(
        name=name,
        display_name=display_name,
        kind="retrieval",
        adaptor="cosine",
        version=1,
        classes=labels,
        metric="mAP",
        licence=LICENCE,
        source=SOURCE,
        source_data=(RELEASE,),
        release=RELEASE,
        shortcuts=SHORTCUTS,
    )


class TotalSegmentatorRetrieval(TotalSegmentatorScans, RetrievalDataset):
    """Scans with the same `pathology` in `meta.csv`; what is unclear there, or empty, is not known."""

    spec = _spec("totalsegmentator_retrieval", "TotalSegmentator, pathology", PATHOLOGIES)
    whole_release = True

    def _value(self, case: str, column: str) -> str:
        return " ".join(self.meta_row(case)[column].split())

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.meta_path]

    @override
    def labels(self, case: str) -> tuple[int | None, ...]:
        found = self._value(case, "pathology")
        if found not in (*PATHOLOGIES, *OTHER_PATHOLOGIES, *UNKNOWN):
            raise TaskError(f"{self.meta_path}, {case}: pathology is '{found}'. Use the release's own file")
        return tuple(None if found in UNKNOWN else int(found == name) for name in PATHOLOGIES)


class TotalSegmentatorStudyRetrieval(TotalSegmentatorRetrieval):
    """Scans of the same `study_type` in `meta.csv`."""

    spec = _spec("totalsegmentator_study_retrieval", "TotalSegmentator, study type", STUDY_TYPES)

    @override
    def labels(self, case: str) -> tuple[int | None, ...]:
        found = self._value(case, "study_type")
        return tuple(int(found == name) if found else None for name in STUDY_TYPES)
