"""The header of a NIfTI file: what it says of the voxels and of the patient, and whether it contradicts itself."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from tapct._utils.content import HEAD, what_it_is
from tapct.errors import VolumeError

TOLERANCE = 0.01
"""Share by which two statements of one length or direction may differ. The float32 quaternions of a qform alone turn
a scan by up to 7e-4."""

_UNSAID, _MM = 0, 2
_OTHER_UNITS = {1: "meter", 3: "micron"}
_AGAIN = (
    "convert the scan again from its DICOM files (for example with dcm2niix); a scan with a tilted gantry is read from "
    "these as it is"
)
_FIX = "Convert the scan again (for example with dcm2niix from its DICOM files)"


def unreadable(path: Path, reason: str) -> VolumeError:
    """Returns the error of a file that is not a valid NIfTI; `reason` says what is wrong, and how to fix it."""
    return VolumeError(f"{path} cannot be read as NIfTI ({reason}).")


@dataclass(frozen=True)
class NiftiHeader:
    """A header as it is in the file, nothing fixed.

    Attributes:
        path: The file.
        fields: Its fields.
        image: The class of images in nibabel that has this header.
    """

    path: Path
    fields: nib.Nifti1Header
    image: type[nib.Nifti1Image]

    @classmethod
    def read(cls, path: Path, stream: BinaryIO) -> "NiftiHeader":
        """Reads the header at the start of a stream, unpacked if it was packed.

        Raises:
            VolumeError: There is none, or its fields have no meaning.
        """
        start = stream.read(HEAD + nib.Nifti2Header.sizeof_hdr)
        for image in (nib.Nifti1Image, nib.Nifti2Image):
            kind = image.header_class
            for endian in ("<", ">"):
                if start[:4] == struct.pack(f"{endian}i", kind.sizeof_hdr) and len(start) >= kind.sizeof_hdr:
                    header = cls(path, kind(start[: kind.sizeof_hdr], endian, check=False), image)
                    header._check_fields()
                    return header
        reason = what_it_is(start) or (
            f"it begins with no header of NIfTI; it is {path.stat().st_size:,} bytes long. If a download was "
            "interrupted, or something else was saved under its name: Download it again"
        )
        raise unreadable(path, reason)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis, the fastest first."""
        return tuple(int(size) for size in self.fields["dim"][1 : int(self.fields["dim"][0]) + 1])

    @property
    def dtype(self) -> np.dtype:
        """The stored numbers."""
        known: Any = nib.nifti1.data_type_codes.dtype
        return np.dtype(known[int(self.fields["datatype"])])

    @property
    def start(self) -> int:
        """First byte of the voxels."""
        return int(self.fields["vox_offset"])

    @property
    def step(self) -> float:
        """Distance in value of neighbouring stored whole numbers; 0 where values are not scaled."""
        slope = float(self.fields["scl_slope"])
        is_scaled = np.isfinite(slope) and slope not in (0, 1)
        return abs(slope) if is_scaled and self.dtype.kind in "iu" else 0.0

    def affine(self) -> np.ndarray | None:
        """Returns the affine (4, 4), index (x, y, z) to mm in RAS+: the sform, else the qform, else None.

        Raises:
            VolumeError: The positions are not in mm, or sform, qform and pixdim contradict each other.
        """
        unit = int(self.fields["xyzt_units"]) % 8  # time is in the higher bits, and does not matter
        if unit not in (_UNSAID, _MM):
            named = _OTHER_UNITS.get(unit, f"a unit that NIfTI does not know (xyzt_units {unit})")
            raise VolumeError(
                f"{self.path} gives its positions in {named}, not mm. Scale its affine to mm and set the unit to mm."
            )
        sform = self.fields.get_sform().astype(np.float64) if int(self.fields["sform_code"]) > 0 else None
        qform = self._qform() if int(self.fields["qform_code"]) > 0 else None
        if sform is not None:
            self._check_sizes(sform)
        if sform is not None and qform is not None:
            self._check_places(sform, qform)
        # Without both codes nibabel invents an affine from the voxel sizes: left and right would be a guess.
        return qform if sform is None else sform

    def _check_fields(self) -> None:
        fields, path = self.fields, self.path
        magic = bytes(fields["magic"].item())
        if magic[:3] in (b"ni1", b"ni2"):
            raise unreadable(
                path, "it is the header of a pair .hdr and .img under another name: save the pair as one .nii file"
            )
        if magic[:3] not in (b"n+1", b"n+2"):
            raise unreadable(
                path,
                f"its magic is {magic!r}, not that of NIfTI; if it is ANALYZE 7.5, that does not say which side is "
                f"left. {_FIX}",
            )
        if not 1 <= int(fields["dim"][0]) <= 7:
            raise unreadable(path, f"dim[0] is {int(fields['dim'][0])}, and an image has 1 to 7 axes. {_FIX}")
        if int(fields["datatype"]) not in nib.nifti1.data_type_codes.dtype:
            raise unreadable(path, f"datatype is {int(fields['datatype'])}, which NIfTI does not know. {_FIX}")
        if self.dtype.kind not in "iuf":
            raise VolumeError(
                f"{path} holds {self.dtype} voxels (colours or complex numbers), not one number a voxel. "
                "Export the scan itself, not a rendering of it."
            )
        bits = int(fields["bitpix"])
        if bits not in (0, 8 * self.dtype.itemsize):
            raise unreadable(
                path,
                f"its header contradicts itself: datatype {int(fields['datatype'])} is {self.dtype}, of "
                f"{8 * self.dtype.itemsize} bits, but bitpix is {bits}. {_FIX}",
            )
        first, offset = self.image.header_class.single_vox_offset, float(fields["vox_offset"])
        if not (offset >= first and offset.is_integer()):
            raise unreadable(
                path,
                f"its header contradicts itself: vox_offset says that the voxels begin at byte {offset:g}, but the "
                f"header itself takes the first {first}. Set vox_offset to {first} if they follow it, or convert the "
                "scan again",
            )

    def _qform(self) -> np.ndarray:
        """The qform, with the signs read as by the NIfTI library: sizes without one, any below 0 as -1."""
        fields = self.fields.copy()
        qfac = float(fields["pixdim"][0])
        if qfac < 0 and qfac != -1:
            raise unreadable(
                self.path, f"pixdim[0] is {qfac:g}, and only 1, 0 or -1 says how the qform is turned. {_FIX}"
            )
        fields["pixdim"][0] = -1 if qfac < 0 else 1
        fields["pixdim"][1:4] = abs(fields["pixdim"][1:4])
        try:
            return np.asarray(fields.get_qform(), dtype=np.float64)
        except (ValueError, nib.spatialimages.HeaderDataError) as error:
            quaternion = [float(fields[f"quatern_{part}"]) for part in "bcd"]
            raise unreadable(
                self.path, f"its qform is not a rotation: quatern_b, c and d are {quaternion}. {_FIX}"
            ) from error

    def _check_sizes(self, sform: np.ndarray) -> None:
        """Refuses voxels of two sizes; a pixdim of 0 says nothing, and one below 0 is an old way to turn an axis."""
        sizes, said = np.linalg.norm(sform[:3, :3], axis=0), abs(self.fields["pixdim"][1:4].astype(np.float64))
        agree = (said == 0) | (abs(sizes - said) <= TOLERANCE * sizes)
        if not agree.all():
            raise unreadable(
                self.path,
                f"its header contradicts itself: voxels are {_listed(sizes)} mm apart by the sform, {_listed(said)} mm "
                "by pixdim. If pixdim is right, scale the sform, or set sform_code to 0 where there is a qform; if the "
                f"sform is right, write its sizes into pixdim; else {_AGAIN}",
            )

    def _check_places(self, sform: np.ndarray, qform: np.ndarray) -> None:
        """Refuses an sform and a qform that turn, flip or move the scan against each other."""
        forms = (sform, qform)
        axes = np.stack([form[:3, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in forms])
        turned = np.linalg.norm(axes[0] - axes[1], axis=0)
        moved = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
        if not (turned.max() <= TOLERANCE and moved <= np.linalg.norm(sform[:3, :3], axis=0).min() / 2):  # NaN fails
            worst = int(turned.argmax())
            by_sform, by_qform = (
                f"axis {worst + 1} of the array runs along {_listed(axis[:, worst])}, from a first voxel at "
                f"{_listed(form[:3, 3])} mm"
                for axis, form in zip(axes, forms, strict=True)
            )
            raise unreadable(
                self.path,
                f"its header contradicts itself: by the sform {by_sform}; by the qform {by_qform}. Set the code of the "
                f"wrong one to 0, or {_AGAIN}",
            )


def _listed(numbers: np.ndarray) -> str:
    return f"({', '.join(f'{number + 0.0:.4g}' for number in numbers)})"  # + 0.0: no minus before 0
