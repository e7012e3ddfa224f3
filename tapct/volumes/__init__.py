"""CT volumes: reading, orienting, resampling, tiling into windows and stitching back."""

from tapct.volumes.crop import crop_grid, crop_mm
from tapct.volumes.findings import Findings
from tapct.volumes.geometry import Grid, Size
from tapct.volumes.masks import Mask
from tapct.volumes.read import files_of, read_ct, read_grid, read_labels
from tapct.volumes.resample import LinearMap, resample_image, resample_labels
from tapct.volumes.volume import LabelMap, Volume, check_same_grid
from tapct.volumes.windows import Stitcher, WindowPlan

__all__ = [
    "Findings",
    "Grid",
    "LabelMap",
    "LinearMap",
    "Mask",
    "Size",
    "Stitcher",
    "Volume",
    "WindowPlan",
    "check_same_grid",
    "crop_grid",
    "crop_mm",
    "files_of",
    "read_ct",
    "read_grid",
    "read_labels",
    "resample_image",
    "resample_labels",
]
