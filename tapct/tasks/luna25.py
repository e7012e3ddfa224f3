"""LUNA25: malignancy of lung nodules in the National Lung Screening Trial (Peeters et al. 2025)."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.columns import Value
from tapct.tasks.luna25_blocks import block_grid, read_block
from tapct.tasks.nodules import NoduleColumns, NoduleDataset
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.shortcuts import AGE, SEX
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split
from tapct.tasks.tables import number, read_table
from tapct.volumes import Grid, Volume, read_grid

SPEC = TaskSpec(
    name="luna25",
    display_name="LUNA25",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=("malignant",),
    metric="MicroAUROC",
    source_data=("luna25", "nlst"),
    licence="CC BY 4.0",
    source="download LUNA25_Public_Training_Development_Data.csv of https://zenodo.org/records/14673658 and "
    "luna25_nodule_blocks.zip.001 and .002 (6 GB) of https://zenodo.org/records/14223624 (or, for whole scans, the "
    "46 parts of luna25_images.zip, 205 GB), join the parts (cat NAME.zip.0* > NAME.zip), and unpack in luna25/",
    shortcuts=(SEX, AGE),
)

LIST = "LUNA25_Public_Training_Development_Data.csv"
COLUMNS = NoduleColumns("AnnotationID", "PatientID", "SeriesInstanceUID", "CoordX", "CoordY", "CoordZ", "label")
SOURCES = ("blocks", "scans")


class LUNA25(NoduleDataset):
    """The 6163 annotated nodules of the public release; the same nodule at several dates is several cases.

    A case is an AnnotationID. Crops are cut out of `luna25_nodule_blocks`, or of the whole scans in
    `luna25_images`. Both give the same voxels, except where 64 slices, the depth of a block, are less than
    50 mm: there the crop of a block ends in padding and that of a scan does not.
    """

    spec = SPEC
    described = ("source",)
    columns = COLUMNS

    def __init__(
        self,
        root: str | Path,
        split: Split,
        split_file: str | Path | None = None,
        source: Literal["blocks", "scans"] = "blocks",
    ) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.
            source: What the crops are cut out of.

        Raises:
            TaskError: If the split or the release's list cannot be read, or the source is unknown.
        """
        if source not in SOURCES:
            raise TaskError(f"luna25 has no source '{source}' to cut crops out of; it is one of {', '.join(SOURCES)}")
        self.source = source
        self.scan_patterns = ("luna25_images/*.mha" if source == "scans" else "luna25_nodule_blocks/image/*.npy",)
        super().__init__(root, split, split_file)

    @property
    @override
    def list_path(self) -> Path:
        return self.root / LIST

    @cached_property
    def _scans(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("luna25_images/*.mha", "luna25_images/*.mhd"), tops=("",))

    @override
    def ct_path(self, case: str) -> Path:
        if self.source == "scans":
            series = self.nodules[case].series
            return self._scans.find(f"luna25_images/{series}.mha", f"luna25_images/{series}.mhd")
        return self.root / "luna25_nodule_blocks" / "image" / f"{case}.npy"

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.list_path] if self.source == "scans" else [self.list_path, self._metadata_path(case)]

    @override
    def read_volume(self, case: str) -> Volume:
        if self.source == "scans":
            return super().read_volume(case)
        return read_block(self.ct_path(case), self._metadata_path(case))

    @override
    def volume_grid(self, case: str) -> Grid:
        if self.source == "scans":
            return read_grid(self.ct_path(case))
        return block_grid(self.ct_path(case), self._metadata_path(case))

    @cached_property
    def _about(self) -> dict[str, dict[str, Value]]:
        """Case to what the release's list says of its patient, by column of `spec.shortcuts`."""
        rows = read_table(self.list_path, ("AnnotationID", "Age_at_StudyDate", "Gender"), comments=True)
        found: dict[str, dict[str, Value]] = {}
        for row in rows:
            where = f"{self.list_path}, {row['AnnotationID']}"
            age = number(row, "Age_at_StudyDate", where, low=0, high=120, unit="years")
            found[row["AnnotationID"]] = {SEX.name: row["Gender"], AGE.name: age}
        return found

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [self.list_path]

    @override
    def read_value(self, case: str, column: str) -> Value:
        return self._about.get(case, {}).get(column)

    def _metadata_path(self, case: str) -> Path:
        return self.root / "luna25_nodule_blocks" / "metadata" / f"{case}.npy"
