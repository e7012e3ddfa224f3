"""LUNA16: malignancy of lung nodules, as LIDC-IDRI's readers rated it (Setio et al. 2017; Armato et al. 2011)."""

import contextlib
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from typing_extensions import override

from tapct.errors import VolumeError
from tapct.tasks.dataset import Index
from tapct.tasks.nodules import NoduleColumns, NoduleDataset
from tapct.tasks.spec import TaskSpec
from tapct.volumes.metaimage import data_files

SPEC = TaskSpec(
    name="luna16",
    display_name="LUNA16",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=("malignant",),
    metric="MicroAUROC",
    mask="a sphere round the nodule, of the mean diameter of its readers' outlines; that alone has an AUROC of 0.96",
    licence="CC BY 4.0 (LUNA16), CC BY 3.0 (LIDC-IDRI)",
    source="download subset0.zip to subset9.zip of https://zenodo.org/records/3723295 (0 to 6) and "
    "https://zenodo.org/records/4121926 (7 to 9), about 120 GB unpacked, and unpack them in luna16/",
)

LIST = Path(str(files("tapct.tasks"))) / "labels" / "luna16_nodules.csv"
COLUMNS = NoduleColumns("nodule", "patient", "series_uid", "x_mm", "y_mm", "z_mm", "label", "diameter_mm")


class LUNA16(NoduleDataset):
    """The 677 nodules that at least three readers of LIDC-IDRI outlined and rated as benign or malignant.

    LUNA16's own files know no malignancy: labels, patients and places are in `labels/luna16_nodules.csv`, which
    ships with the project (`tasks/sources/luna16.py` says how it is made). A case is `<SeriesInstanceUID>_<number>`.
    Scans are `<SeriesInstanceUID>.mhd` with its `.raw`, in `subset0` to `subset9` or directly in the root; the
    root may also be the folder that holds `LUNA16/`. The lung masks in `seg-lungs-LUNA16` have the names of the
    scans and are not read. 455 of the 888 scans have none of these nodules and need not be there.
    """

    spec = SPEC
    columns = COLUMNS

    @property
    @override
    def list_path(self) -> Path:
        return LIST

    @cached_property
    def _scans(self) -> Index:
        tops = [f"{top}{folder}" for top in ("", "LUNA16/") for folder in ("", "subset[0-9]/")]
        return Index(self.root, ("*.mhd", "*.mha"), tops)

    @override
    def ct_path(self, case: str) -> Path:
        series = self.nodules[case].series
        return self._scans.find(f"{series}.mhd", f"{series}.mha")

    @override
    def target_paths(self, case: str) -> list[Path]:
        header = self.ct_path(case)  # labels ship with the project; what else has to be there are the voxels
        with contextlib.suppress(VolumeError, OSError):  # where it is missing or damaged, its reader says so
            return data_files(header)
        return []
