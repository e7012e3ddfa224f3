"""The 888 scans of LUNA16 and the files of their voxels, for every task that is made of this release."""

import contextlib
from functools import cached_property
from pathlib import Path

from tapct.errors import VolumeError
from tapct.tasks.dataset import CTDataset
from tapct.tasks.release_files import ReleaseFiles
from tapct.volumes.metaimage import data_files

RELEASE = "luna16"
LICENCE = "CC BY 4.0 (LUNA16), CC BY 3.0 (LIDC-IDRI)"
SOURCE = (
    "download subset0.zip to subset9.zip of https://zenodo.org/records/3723295 (0 to 6) and "
    "https://zenodo.org/records/4121926 (7 to 9), about 120 GB unpacked, and unpack them in luna16/"
)


class LUNA16Scans(CTDataset):
    """Scans are `<SeriesInstanceUID>.mhd` with its `.raw`, in `subset0` to `subset9` or directly in the root.

    The root may also be the folder that holds `LUNA16/`. The lung masks in `seg-lungs-LUNA16` have the names of the
    scans and are not read.
    """

    window = "lung"

    @cached_property
    def _scans(self) -> ReleaseFiles:
        tops = [f"{top}{folder}" for top in ("", "LUNA16/") for folder in ("", "subset[0-9]/")]
        return ReleaseFiles(self.root, ("*.mhd", "*.mha"), tops)

    def series_path(self, series: str) -> Path:
        """Returns the scan of a series; it need not be there."""
        return self._scans.find(f"{series}.mhd", f"{series}.mha")

    def voxel_paths(self, series: str) -> list[Path]:
        """Returns the files of the voxels that the header of a series names; they need not be there."""
        header = self.series_path(series)
        with contextlib.suppress(VolumeError, OSError):  # where it is missing or damaged, its reader says so
            return data_files(header)
        return []
