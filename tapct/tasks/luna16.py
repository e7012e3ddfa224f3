"""LUNA16: malignancy of lung nodules, as LIDC-IDRI's readers rated it (Setio et al. 2017; Armato et al. 2011)."""

from importlib.resources import files
from pathlib import Path

from typing_extensions import override

from tapct.tasks.luna16_scans import LICENCE, SOURCE, LUNA16Scans
from tapct.tasks.nodules import NoduleColumns, NoduleDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="luna16",
    display_name="LUNA16",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=("malignant",),
    metric="MicroAUROC",
    mask="a sphere round the nodule, of the mean diameter of its readers' outlines; that alone has an AUROC of 0.96",
    source_data=("luna16", "lidc-idri"),
    licence=LICENCE,
    source=SOURCE,
)

LIST = Path(str(files("tapct.tasks"))) / "labels" / "luna16_nodules.csv"
COLUMNS = NoduleColumns("nodule", "patient", "series_uid", "x_mm", "y_mm", "z_mm", "label", "diameter_mm")


class LUNA16(LUNA16Scans, NoduleDataset):
    """The 677 nodules that at least three readers of LIDC-IDRI outlined and rated as benign or malignant.

    LUNA16's own files know no malignancy: labels, patients and places are in `labels/luna16_nodules.csv`, which
    ships with the project (`tools/splits/luna16.py` says how it is made). A case is `<SeriesInstanceUID>_<number>`.
    455 of the 888 scans have none of these nodules and need not be there.
    """

    spec = SPEC
    columns = COLUMNS

    @property
    @override
    def list_path(self) -> Path:
        return LIST

    @override
    def ct_path(self, case: str) -> Path:
        return self.series_path(self.nodules[case].series)

    @override
    def target_paths(self, case: str) -> list[Path]:
        return self.voxel_paths(self.nodules[case].series)  # labels ship with the project
