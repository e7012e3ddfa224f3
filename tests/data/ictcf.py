"""A tiny iCTCF: clinical.csv and a folder of DICOM slices a patient, all values invented."""

from pathlib import Path

from tests.data.slabs import write_dicom

HEAD = "ID,Age,SARS-CoV-2 nucleic acids,Morbidity outcome,HGB,WBC,CRP,PCT,CK"
VALUES = {
    "Patient 1": "131,5.2,12.5,0.05,88",
    "Patient 2": "118,9.9,,0.4,150",
    "Patient 3": "145,4.1,3.1,NA,61",
    "Patient 4": "102,12.5,96.5,1.2,420",
    "Patient 5": ",,,,",
    "Patient 6": "127,6.6,22,0.11,",
    "Control 7": "139,7.0,0.8,0.03,95",
}
WITHOUT_SCAN = "Control 7"


def write(root: Path) -> list[str]:
    """Writes the table and the scans; returns the cases that can be used."""
    for number, patient in enumerate(VALUES):
        if patient != WITHOUT_SCAN:
            write_dicom(root / "ct" / patient.replace(" ", "_"), number, f"1.2.7.{number}")
    rows = [f"{patient},50,Positive,Mild,{values}" for patient, values in VALUES.items()]
    (root / "clinical.csv").write_text("\n".join([HEAD, *rows, ""]), encoding="utf-8")
    return [p.replace(" ", "_") for p, v in VALUES.items() if v.strip(",") and p != WITHOUT_SCAN]
