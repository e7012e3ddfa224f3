"""Reads MetaImage (`.mha`, `.mhd` with its `.raw`) through SimpleITK, with any direction matrix."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.orient import Stored, as_3d, lps_to_ras

if TYPE_CHECKING:
    import SimpleITK as sitk


def load_metaimage(path: Path) -> Stored:
    """Reads the voxels and where they lie.

    Args:
        path: A `.mha` or `.mhd` file.

    Returns:
        The voxels in axis order (x, y, z), the file's own.

    Raises:
        VolumeError: The file is damaged or not MetaImage, its raw file is missing, or it is not 3-D.
    """
    import SimpleITK as sitk  # 90 MB, which readers of other formats need not load

    _check_data_file(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")  # by content, not by name: a renamed file of another kind is refused
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise VolumeError(
            f"{path} cannot be read as MetaImage ({reason}). The header is damaged, or the voxels are cut "
            "short by an interrupted download: fetch it again."
        ) from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError(
            f"{path} holds {image.GetNumberOfComponentsPerPixel()} numbers a voxel (colours or vectors), "
            "not one. Export the scan itself, not a rendering of it."
        )
    return Stored(as_3d(sitk.GetArrayFromImage(image).T, str(path)), _affine(image))


def _affine(image: "sitk.Image") -> np.ndarray:
    """Index (x, y, z) to mm in RAS+; a fourth axis of length one has no part in it."""
    axes = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return lps_to_ras(affine)


def _check_data_file(path: Path) -> None:
    """Names the missing file of voxels; ITK would only say that the header cannot be read."""
    with path.open("rb") as stream:
        header = stream.read(8192).decode("latin-1")
    for line in header.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "ElementDataFile":
            one_file = not value.upper().startswith(("LOCAL", "LIST")) and "%" not in value
            if one_file and not (path.parent / value).is_file():
                raise VolumeError(
                    f"{path} keeps its voxels in {value!r}, and there is no such file beside it. Put "
                    f"{value} into {path.parent}, under exactly this name."
                )
            return
