"""Where the organs of an adult usually lie, and by which names tasks call them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tapct.tasks.landmarks import LUNGS, MIDDLE, SPINE


class UsualPlace(NamedTuple):
    """Where an organ usually lies: mm to the left of, behind and above the first lumbar vertebra of an adult.

    None where that varies with breath, posture, or how much of the organ is in the scan.
    """

    left: float | None
    behind: float | None
    above: float | None


PLACES = {
    "liver": UsualPlace(-65, -70, 20),
    "spleen": UsualPlace(95, -10, 20),
    "stomach": UsualPlace(45, -85, 10),
    "gallbladder": UsualPlace(-60, -95, -20),
    "pancreas": UsualPlace(10, -75, -10),
    "duodenum": UsualPlace(-30, -70, -40),
    "esophagus": UsualPlace(5, -35, 70),
    "small bowel": UsualPlace(None, -85, -110),
    "colon": UsualPlace(None, -85, -95),
    "bladder": UsualPlace(0, -60, -240),
    "prostate/uterus": UsualPlace(0, None, -270),
    "prostate": UsualPlace(0, -25, -275),
    "uterus": UsualPlace(0, None, -235),
    "aorta": UsualPlace(15, -45, None),
    "inferior vena cava": UsualPlace(-20, -55, None),
    "superior vena cava": UsualPlace(-25, None, 210),
    "portal vein and splenic vein": UsualPlace(0, -75, 0),
    "heart": UsualPlace(25, -60, 130),
    "pulmonary vein": UsualPlace(None, None, 180),
    "brachiocephalic trunk": UsualPlace(-15, None, 260),
    "trachea": UsualPlace(0, None, 250),
    "thyroid gland": UsualPlace(0, None, 320),
    "sternum": UsualPlace(0, -120, 180),
    "costal cartilage": UsualPlace(None, -115, 40),
    "rib": UsualPlace(None, None, 80),
    "vertebrae": UsualPlace(0, 0, None),
    "spinal cord": UsualPlace(0, 10, None),
    "sacrum": UsualPlace(0, 25, -180),
    "brain": UsualPlace(0, None, 580),
    "skull": UsualPlace(0, None, 570),
    SPINE: UsualPlace(0, 0, None),
    MIDDLE: UsualPlace(0, -60, None),
    LUNGS: UsualPlace(None, None, 100),
}
"""Rounded centres of one scan (s9001 of TotalSegmentator's reference files); of what it does not show, by anatomy, to
the next 10 mm. Of what a scan may show more or less of, so that pairs hold for all such scans."""

PAIRED = {
    "kidney": UsualPlace(65, -15, -30),
    "adrenal gland": UsualPlace(38, -38, 17),
    "lung": UsualPlace(80, None, 100),
    "hip": UsualPlace(75, -20, -205),
    "femur": UsualPlace(100, -20, -280),
    "gluteus maximus": UsualPlace(90, 25, -230),
    "gluteus medius": UsualPlace(120, -10, -190),
    "gluteus minimus": UsualPlace(115, -35, -210),
    "iliopsoas": UsualPlace(68, -45, -160),
    "iliac artery": UsualPlace(40, -60, -185),
    "iliac vein": UsualPlace(40, -50, -190),
    "autochthon": UsualPlace(38, 40, None),
    "scapula": UsualPlace(120, None, 230),
    "clavicle": UsualPlace(75, None, 270),
    "humerus": UsualPlace(180, None, None),
    "subclavian artery": UsualPlace(50, None, 270),
    "common carotid artery": UsualPlace(25, None, 290),
    "brachiocephalic vein": UsualPlace(30, None, 250),
}
"""The left one of each pair."""

_OTHERWISE = {
    "urinary bladder": "bladder",
    "postcava": "inferior vena cava",
    "oesophagus": "esophagus",
    "clavicula": "clavicle",
    "iliac vena": "iliac vein",
    "gall bladder": "gallbladder",
}

_LESIONS = {"lesion", "tumor", "tumour", "cancer", "cyst"}
"""Classes that are part of the task's organ, if it has one: without its tumour, half a liver has another centre."""

UPPER_ABDOMEN = {"liver", "spleen", "stomach", "gallbladder", "pancreas", "kidney", "adrenal gland"}
"""Organs at whose height the landmarks of the scan itself are sure enough to be looked for."""

_VERTEBRA = re.compile(r"vertebrae? ([ctls]) ?(\d+)")
_VERTEBRAE_MM = {"c": (18, 430, 7), "t": (24, 260, 12), "l": (35, 0, 1), "s": (35, -140, 0)}
"""By part of the spine: height of one, and where (mm above) which of them is."""


def organs(classes: Sequence[str]) -> list[str]:
    """Returns the names here of the classes, "" for what says nothing; lesions belong to the only organ of a task."""
    names = ["", *(_canonical(name) for name in classes[1:])]
    known = {name for name in names if place(name) is not None}
    if len(known) == 1:
        (organ,) = known
        names = [organ if name in _LESIONS else name for name in names]
    return names


def _canonical(name: str) -> str:
    """Returns a class's name in the words here: "kidney_left", "Left kidneys" -> "left kidney"."""
    words = re.sub(r"[\s_\-]+", " ", name.lower()).strip().split(" ")
    side = next((word for word in words if word in ("left", "right")), "")
    base = " ".join(word for word in words if word != side)
    base = _OTHERWISE.get(base, base)
    if base not in PLACES and base not in PAIRED:
        singular = base.removesuffix("s")
        base = singular if singular in PLACES or singular in PAIRED else base
    return f"{side} {base}".strip()


def without_side(name: str) -> tuple[str, int]:
    """Returns the organ, and -1 for the right, 1 for the left one, 0 if it does not say."""
    side, _, organ = name.partition(" ")
    return (organ, {"right": -1, "left": 1}[side]) if side in ("right", "left") else (name, 0)


def place(name: str) -> UsualPlace | None:
    """Returns where an organ usually lies, if that is known."""
    if vertebra := _VERTEBRA.fullmatch(name):
        height, above, number = _VERTEBRAE_MM[vertebra[1]]
        return UsualPlace(0, None, above - height * (int(vertebra[2]) - number))
    organ, side = without_side(name)
    if organ in PAIRED:
        left = PAIRED[organ].left
        return PAIRED[organ]._replace(left=side * left if side and left is not None else None)
    return None if side else PLACES.get(organ)
