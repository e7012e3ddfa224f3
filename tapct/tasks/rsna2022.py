"""RSNA 2022: fractures of the cervical spine, by vertebra (Lin et al. 2023, doi:10.1148/ryai.230034)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.own_split import SplitPin
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.shortcuts import DICOM
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable, stratified
from tapct.tasks.tables import flag, read_table

RELEASE = "rsna-2022-cervical-spine-fracture-detection"

# The paper does not say whether `patient_overall` is among its labels. With it, a predictor of prevalences has a
# micro AP of 0.34, without it 0.16; the paper expects about 0.33 by chance, hence eight.
LABELS = ("patient_overall", "C1", "C2", "C3", "C4", "C5", "C6", "C7")

SPEC = TaskSpec(
    name="rsna2022",
    display_name="RSNA2022",
    kind="classification",
    adaptor="abmil",
    version=1,
    classes=LABELS,
    metric="MicroAP",
    source_data=("rsna ?2022",),
    licence="RSNA AI challenge licence: non-commercial use only, with citation; the label file may not be passed on",
    source=f"the Kaggle competition '{RELEASE}', after its rules are accepted (about 343 GB); unpacked, so that "
    "rsna2022/train.csv and rsna2022/train_images/<StudyInstanceUID>/<n>.dcm are there",
    shortcuts=DICOM,
)


class RSNA2022(ClassificationDataset):
    """2019 studies of as many patients (2 left out), one DICOM folder each, with eight labels.

    The folder of the task is the release's, or holds it under its own name. Slices are put in order by position:
    in some studies the numbers of the files run the other way. `train.csv` may not be passed on, so the split is
    made here from it, by our own rule, stratified by `patient_overall`; the paper's is unpublished.
    """

    spec = SPEC
    window = "bone"
    # Of the public copy of train.csv in the repository darraghdog/RSNA22 (datamount/train_folded_v01.csv): 2019
    # rows, whose order and `patient_overall` reproduce the folds that another team published with its own code
    # (yomura-yomura/rsna-2022-cervical-spine-fracture-detection) to the last row.
    split_pin = SplitPin(
        sha256="8285e49ce74382983ac6e62cb4bccd78cf418817055128d290281f9bb1ace78a",
        counts=(1412, 202, 403),
    )
    scan_patterns = ("train_images/*", f"{RELEASE}/train_images/*")

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("train.csv", "train_images/*"), ("", f"{RELEASE}/"))

    @property
    def label_file(self) -> Path:
        """The release's table of labels."""
        return self._files.find("train.csv")

    @cached_property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """Study to its labels, in the order of `LABELS`.

        Raises:
            TaskError: If the file cannot be read, a study is there twice, or its labels contradict each other.
        """
        labels: dict[str, tuple[int, ...]] = {}
        for row in read_table(self.label_file, ("StudyInstanceUID", *LABELS)):
            study = row["StudyInstanceUID"]
            where = f"{self.label_file}, study {study}"
            if study in labels:
                raise TaskError(f"{where}: it is there twice. Use the release's own file")
            overall, *vertebrae = (flag(row, name, where) for name in LABELS)
            if overall != max(vertebrae):
                raise TaskError(
                    f"{where}: patient_overall is {overall}, but of C1 to C7 {sum(vertebrae)} are fractured"
                )
            labels[study] = (overall, *vertebrae)
        return labels

    @override
    def derive_split(self) -> SplitTable:
        patients = {study: study for study in self.labels if study not in self.excluded}
        strata = {study: str(self.labels[study][0]) for study in patients}
        return stratified(patients, strata, "rsna2022 v1", str(self.label_file))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(f"train_images/{case}")

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.label_file]

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        if case not in self.labels:
            raise TaskError(f"it has no row in {self.label_file}")
        return self.labels[case]
