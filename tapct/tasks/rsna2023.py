"""RSNA 2023: injuries of kidney, liver and spleen (Hermans et al. 2025; Rudie et al., arXiv:2405.19595)."""

from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.own_split import SplitPin
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.shortcuts import DICOM
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable, stratified
from tapct.tasks.tables import flag, read_table

RELEASE = "rsna-2023-abdominal-trauma-detection"

# Bowel and extravasation are left out as in the paper (Appendix C.4). It does not say how the three grades of an
# organ become labels; of the encodings, one label an organ (injured or not) fits its numbers best: a predictor of
# prevalences then has a micro AUROC of 0.57, with six labels (low, high) 0.65, with nine 0.95.
ORGANS = ("kidney", "liver", "spleen")
GRADES = ("healthy", "low", "high")

SPEC = TaskSpec(
    name="rsna2023",
    display_name="RSNA2023",
    kind="classification",
    adaptor="abmil",
    version=1,
    classes=ORGANS,
    metric="MicroAUROC",
    source_data=("rsna ?2023",),
    licence="RSNA AI challenge licence: non-commercial use only, with citation; no attempt to identify anyone",
    source=f"the Kaggle competition '{RELEASE}', after its rules are accepted (about 460 GB); unpacked, so that "
    "rsna2023/train.csv, train_series_meta.csv and train_images/<patient_id>/<series_id>/<n>.dcm are there",
    shortcuts=DICOM,
)


class RSNA2023(ClassificationDataset):
    """4711 series of 3147 patients; each series has its patient's labels: kidney, liver, spleen injured or not.

    The folder of the task is the release's, or holds it under its own name. A case is "<patient_id>/<series_id>".
    All series are used, as the paper's "scan-level" says no more, also the 313 that are flagged `incomplete_organ`
    (an injury may lie outside the scan; `series` has the flag). The split is made here from
    the release's tables, by our own rule, by patient, stratified by the three labels; the paper's is unpublished.
    """

    spec = SPEC
    described = ("series",)
    # Of the public copy of both tables in the repository gunesevitan/rsna-2023-abdominal-trauma-detection.
    split_pin = SplitPin(
        sha256="eaf3bae303a94f991057e99e74e481dc7f8dcf9d0c5162c759016956a54ec7c4",
        counts=(3307, 466, 938),
    )
    scan_patterns = ("train_images/*/*", f"{RELEASE}/train_images/*/*")

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("train.csv", "train_series_meta.csv", "train_images/*/*"), ("", f"{RELEASE}/"))

    @property
    def label_file(self) -> Path:
        """The release's table of labels, one row a patient."""
        return self._files.find("train.csv")

    @property
    def series_file(self) -> Path:
        """The release's table of series, one or two a patient."""
        return self._files.find("train_series_meta.csv")

    @cached_property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """Patient to (kidney, liver, spleen), 1 where it is injured.

        Raises:
            TaskError: If the file cannot be read, a patient is there twice, or an organ has not one grade.
        """
        labels: dict[str, tuple[int, ...]] = {}
        for row in read_table(self.label_file, ("patient_id", *(f"{o}_{g}" for o in ORGANS for g in GRADES))):
            patient = row["patient_id"]
            where = f"{self.label_file}, patient {patient}"
            if patient in labels:
                raise TaskError(f"{where}: the patient is there twice. Use the release's own file")
            for organ in ORGANS:
                if sum(flag(row, f"{organ}_{grade}", where) for grade in GRADES) != 1:
                    raise TaskError(f"{where}: {organ} is not exactly one of {', '.join(GRADES)}")
            labels[patient] = tuple(1 - flag(row, f"{organ}_healthy", where) for organ in ORGANS)
        return labels

    @cached_property
    def series(self) -> dict[str, bool]:
        """Case to whether an organ is cut off in it (`incomplete_organ`).

        Raises:
            TaskError: If the file cannot be read, a series is there twice, or its patient has no labels.
        """
        series: dict[str, bool] = {}
        for row in read_table(self.series_file, ("patient_id", "series_id", "incomplete_organ")):
            case = f"{row['patient_id']}/{row['series_id']}"
            where = f"{self.series_file}, series {case}"
            if case in series:
                raise TaskError(f"{where}: it is there twice. Use the release's own file")
            if row["patient_id"] not in self.labels:
                raise TaskError(f"{where}: the patient has no row in {self.label_file}. Do both belong together?")
            series[case] = bool(flag(row, "incomplete_organ", where))
        return series

    @override
    def derive_split(self) -> SplitTable:
        patients = {case: case.split("/")[0] for case in self.series if case not in self.excluded}
        strata = {patient: "".join(map(str, self.labels[patient])) for patient in patients.values()}
        return stratified(patients, strata, "rsna2023 v1", str(self.series_file))

    @override
    def describe(self) -> dict[str, Any]:
        return {"series": "all, also those flagged incomplete_organ"}

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(f"train_images/{case}")

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.label_file, self.series_file]

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        if case not in self.series:
            raise TaskError(f"it has no row in {self.series_file}; a case is named <patient_id>/<series_id>")
        return self.labels[case.split("/")[0]]
