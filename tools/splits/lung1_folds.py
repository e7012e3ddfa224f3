r"""Makes the folds of LUNG1 from the release's clinical table.

    python -m tools.splits.lung1_folds \
        --clinical NSCLC-Radiomics-Lung1.clinical-version3-Oct-2019.csv -o lung1_survival_folds.csv

The table itself (CC BY-NC 3.0) is not passed on: the file holds names of patients and numbers of folds.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonargparse

from tapct._utils.files import write_atomically
from tapct.errors import TapctError
from tapct.tasks.lung1_survival import LUNG1Survival, read_clinical, without_time
from tapct.tasks.splits import FoldTable

REPEATS, FOLDS, BANDS = 10, 5, 4

PROVENANCE = """\
The patients of NSCLC-Radiomics (LUNG1; Aerts HJWL et al., The Cancer Imaging Archive, doi
10.7937/K9/TCIA.2015.PF0M9REI), dealt out to five folds, ten times. Ours: patients are put in the order of their event,
of the quarter that their time is in among those of the same event, and of the SHA-256 of seed, repeat and name; then
they are dealt out in turn. So each fold has its share of early and late deaths and losses to within one patient.
Made by tools/splits/lung1_folds.py from version 3 (October 2019) of the clinical table, in the copy of
lavrovaliz/radiomics-training at 14936c38; folds hold no clinical value."""


def bands(days: Mapping[str, float], event: Mapping[str, bool]) -> dict[str, tuple[bool, int]]:
    """Returns the event of each patient, and the quarter of the times of those with the same event."""
    found: dict[str, tuple[bool, int]] = {}
    for outcome in (False, True):
        names = sorted((name for name in days if event[name] is outcome), key=lambda name: (days[name], name))
        found |= {name: (outcome, place * BANDS // len(names)) for place, name in enumerate(names)}
    return found


def dealt(strata: Mapping[str, tuple[bool, int]], seed: str) -> dict[str, int]:
    """Returns the fold of each patient."""

    def order(name: str) -> tuple[tuple[bool, int], str]:
        return strata[name], hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    return {name: place % FOLDS for place, name in enumerate(sorted(strata, key=order))}


def table(clinical: Path) -> FoldTable:
    """Returns the folds of the patients who can be used."""
    rows = read_clinical(clinical)
    out = {*without_time(rows), *LUNG1Survival.shipped_exclusions()}
    days = {name: row.days for name, row in rows.items() if row.days is not None and name not in out}
    strata = bands(days, {name: rows[name].event for name in days})
    repeats = [dealt(strata, f"lung1_survival v1:{repeat}") for repeat in range(REPEATS)]
    return FoldTable.of_folds(
        [(name, name, *(of[name] for of in repeats)) for name in days], "ours", where=str(clinical)
    )


def main() -> None:
    """Runs the script."""
    parser = jsonargparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clinical", type=Path, required=True, help="the clinical table of the release")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the CSV to write")
    arguments = parser.parse_args()
    try:
        write_atomically(arguments.output, table(arguments.clinical).to_csv(*PROVENANCE.splitlines()))
    except (TapctError, OSError) as error:
        sys.exit(f"lung1_folds: {error}")


if __name__ == "__main__":
    main()
