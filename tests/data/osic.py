"""A tiny OSIC: baselines.csv and the first CT of each patient."""

from pathlib import Path

from tests.data.abdomen import block, save

HEAD = "PATIENT ID,AGE,SEX,FVC PREDICTED,DLCO"
FVC = {"329205": "71.5", "000123": "95", "A-7": "63.2", "A-8": "", "A-9": "80.25", "B-1": "55", "B-2": "104"}
"""Patient to value; an ID may begin with zeros."""
WITHOUT_SCAN = "B-2"


def write(root: Path) -> list[str]:
    """Writes the table and the scans; returns the patients that can be used."""
    for number, patient in enumerate(FVC):
        if patient != WITHOUT_SCAN:
            slab = block(8 * number, slices=8)
            save(root / "ct" / f"{patient}_0.nii.gz", slab.hu, slab.affine)
    rows = [f"{patient},70,1,{value},50" for patient, value in FVC.items()]
    (root / "baselines.csv").write_text("\n".join([HEAD, *rows, ""]), encoding="utf-8")
    return [patient for patient, value in FVC.items() if value and patient != WITHOUT_SCAN]
