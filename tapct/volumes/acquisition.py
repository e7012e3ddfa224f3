"""What the headers of a DICOM series say of how it was taken, and of whom."""

from pathlib import Path

from tapct.volumes.dicom_files import first_header
from tapct.volumes.dicom_header import texts

TAGS = (
    *("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "KVP", "SliceThickness"),
    *("InstitutionName", "PatientSex", "PatientAge"),
)
"""What is read, by keyword."""


def acquisition(scan: Path) -> dict[str, str]:
    """Returns what the first slice of a series says, by tag of `TAGS`; what it does not say is left out.

    One slice speaks for all: a folder whose slices differ in series, kernel or kVp is refused when it is read.

    Args:
        scan: The folder of the series, or a slice of it; a file of another format says nothing.

    Raises:
        VolumeError: If a slice cannot be read.
    """
    header = first_header(scan, TAGS)
    return {} if header is None else texts(header, TAGS)
