"""A tiny TotalSegmentator v2.0.1: 117 masks a scan, meta.csv with a BOM, one direction that is not orthonormal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.data.abdomen import Block, block, save

_PARTS = (("L", 5), ("T", 12), ("C", 7))
_VERTEBRAE = " ".join(f"vertebrae_{part}{n}" for part, top in _PARTS for n in range(top, 0, -1))
_RIBS = " ".join(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13))
_NAMES = f"""
spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right adrenal_gland_left
lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right lung_lower_lobe_right
esophagus trachea thyroid_gland small_bowel duodenum colon urinary_bladder prostate kidney_cyst_left
kidney_cyst_right sacrum vertebrae_S1 {_VERTEBRAE} heart aorta pulmonary_vein brachiocephalic_trunk
subclavian_artery_right subclavian_artery_left common_carotid_artery_right common_carotid_artery_left
brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left superior_vena_cava inferior_vena_cava
portal_vein_and_splenic_vein iliac_artery_left iliac_artery_right iliac_vena_left iliac_vena_right humerus_left
humerus_right scapula_left scapula_right clavicula_left clavicula_right femur_left femur_right hip_left hip_right
spinal_cord gluteus_maximus_left gluteus_maximus_right gluteus_medius_left gluteus_medius_right
gluteus_minimus_left gluteus_minimus_right autochthon_left autochthon_right iliopsoas_left iliopsoas_right
brain skull {_RIBS} sternum costal_cartilages
"""
NAMES = _NAMES.split()
"""The masks in the order of their ids in the "total" task of v2, from 1."""

FIRST = {"s0001": 38, "s0013": 98, "s0029": 90}
"""Case to its first slice; s0001 shows the sacrum and S1, s0029 is sheared."""


VERTEBRAE = [name for name in NAMES if name.startswith("vertebrae_")]


def write(root: Path, slices: int = 8, names: Sequence[str] = NAMES) -> dict[str, Block]:
    """Writes the release's top folder; returns the cases.

    Args:
        root: The folder.
        slices: Of each case, of 3 mm; vertebrae are whole in some dozens.
        names: Masks to write.
    """
    blocks = {case: block(min(first, 112 - slices), slices) for case, first in FIRST.items()}
    for case, slab in blocks.items():
        if case == "s0029":
            slab.affine[0, 1] = 0.05  # 1 degree between x and y: ITK refuses such a file
        form = 0 if case == "s0029" else 1  # a qform cannot hold a shear
        save(root / case / "ct.nii.gz", slab.hu, slab.affine, qform=form)
        for number, name in enumerate(NAMES, start=1):
            if name not in names:
                continue
            mask = (slab.organs == number).astype(np.uint8)
            save(root / case / "segmentations" / f"{name}.nii.gz", mask, slab.affine, qform=form)
    write_meta(root, dict.fromkeys(blocks, ("50.00", "f")))
    return blocks


HEAD = "image_id;age;gender;institute;study_type;split;manufacturer;scanner_model;kvp;pathology;pathology_location"


def write_meta(root: Path, patients: Mapping[str, tuple[str, str]]) -> None:
    """Writes meta.csv as the release has it, of these cases with age and gender."""
    rows = [
        f"{case};{age};{gender};I;ct abdomen;train;siemens;sensation 64;120;unclear;unclear"
        for case, (age, gender) in patients.items()
    ]
    (root / "meta.csv").write_text("\n".join([HEAD, *rows, ""]), encoding="utf-8-sig")


PATIENTS = {
    "s0001": ("50.00", "f", 0),
    "s0002": ("60.00", "m", 1),
    "s0004": ("70.00", "f", 2),
    "s0011": ("40.00", "m", 3),
    "s0013": ("55.00", "f", 4),
    "s0029": ("65.00", "m", 5),
    "s0235": ("45.00", "f", 6),
}
"""Age and gender of patients, and by how many voxels their organs are longer than those of the first."""

ORGANS = ("liver", "spleen", "kidney_left", "kidney_right", "pancreas", "heart")


def write_patients(root: Path) -> None:
    """Writes `PATIENTS`, each with a slab, a row of meta.csv and masks of six organs: boxes within the scan.

    The spleen of s0002 is empty, and the heart of s0011 touches the border.
    """
    for case, (_, _, longer) in PATIENTS.items():
        slab = block(8 * longer, slices=12)
        save(root / case / "ct.nii.gz", slab.hu, slab.affine)
        for number, name in enumerate(ORGANS):
            mask = np.zeros(slab.hu.shape, dtype=np.uint8)
            first = 0 if (case, name) == ("s0011", "heart") else 1
            if (case, name) != ("s0002", "spleen"):
                mask[10 * number + 2 : 10 * number + 8, 30 : 35 + longer, first : first + 4] = 1
            save(root / case / "segmentations" / f"{name}.nii.gz", mask, slab.affine)
    write_meta(root, {case: (age, gender) for case, (age, gender, _) in PATIENTS.items()})


ABOUT = {
    "s0001": ("I", "ct abdomen ", "siemens", "120", "tumor"),
    "s0002": ("I", "ct abdomen", "siemens", "120", "tumor"),
    "s0004": ("B", "ct abdomen", "ge", "100", "trauma"),
    "s0011": ("B", "ct  intervention ", "ge", "100", "no_pathology"),
    "s0013": ("I", "ct head", "siemens", "100", "unclear"),
    "s0029": ("", "", "", "", ""),
    "s0235": ("I", "ct pelvis", "siemens", "120", "tumor"),
}
"""Institute, study type, manufacturer, kVp and pathology of patients, spelt as the release does."""


def write_about(root: Path) -> None:
    """Writes meta.csv of `PATIENTS` with what it says next to age and gender (`ABOUT`)."""
    rows = []
    for case, (age, gender, _) in PATIENTS.items():
        institute, study, maker, kvp, pathology = ABOUT[case]
        rows.append(f"{case};{age};{gender};{institute};{study};train;{maker};a scanner;{kvp};{pathology};thorax")
    (root / "meta.csv").write_text("\n".join([HEAD, *rows, ""]), encoding="utf-8-sig")


def volume_ml(case: str) -> float:
    """Returns the volume of an organ of a patient: of 3 mm cubes."""
    return 6 * (5 + PATIENTS[case][2]) * 4 * 27 / 1000
