"""TotalSegmentator v2: 117 structures, merged to the 48 of the paper's Table 8 (Wasserthal et al., 2023)."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split
from tapct.tasks.totalsegmentator_scans import LICENCE, SOURCE, TotalSegmentatorScans
from tapct.volumes import LabelMap, Volume, read_labels

S1Side = Literal["vertebrae", "sacrum"]


def _both(name: str) -> tuple[str, str]:
    return f"{name}_left", f"{name}_right"


STRUCTURES: dict[str, tuple[str, ...]] = {
    "lungs": (*_both("lung_upper_lobe"), *_both("lung_lower_lobe"), "lung_middle_lobe_right"),
    "kidneys": _both("kidney"),
    "ribs": tuple(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)),
    "vertebrae": (
        "vertebrae_S1",
        *(f"vertebrae_L{n}" for n in range(5, 0, -1)),
        *(f"vertebrae_T{n}" for n in range(12, 0, -1)),
        *(f"vertebrae_C{n}" for n in range(7, 0, -1)),
    ),
    "spleen": ("spleen",),
    "gallbladder": ("gallbladder",),
    "liver": ("liver",),
    "stomach": ("stomach",),
    "pancreas": ("pancreas",),
    "adrenal glands": _both("adrenal_gland"),
    "esophagus": ("esophagus",),
    "trachea": ("trachea",),
    "thyroid glands": ("thyroid_gland",),
    "small bowel": ("small_bowel",),
    "duodenum": ("duodenum",),
    "colon": ("colon",),
    "urinary bladder": ("urinary_bladder",),
    "prostate": ("prostate",),
    "kidney cysts": _both("kidney_cyst"),
    "sacrum": ("sacrum",),
    "superior vena cava": ("superior_vena_cava",),
    "inferior vena cava": ("inferior_vena_cava",),
    "portal vein and splenic vein": ("portal_vein_and_splenic_vein",),
    "atrial appendage": ("atrial_appendage_left",),
    "iliac artery": _both("iliac_artery"),
    "iliac vein": _both("iliac_vena"),
    "humerus": _both("humerus"),
    "scapula": _both("scapula"),
    "clavicula": _both("clavicula"),
    "femur": _both("femur"),
    "hips": _both("hip"),
    "spinal cord": ("spinal_cord",),
    "gluteus maximus": _both("gluteus_maximus"),
    "gluteus medius": _both("gluteus_medius"),
    "gluteus minimus": _both("gluteus_minimus"),
    "autochthon": _both("autochthon"),
    "iliopsoas": _both("iliopsoas"),
    "brain": ("brain",),
    "skull": ("skull",),
    "sternum": ("sternum",),
    "costal cartilages": ("costal_cartilages",),
    "heart": ("heart",),
    "aorta": ("aorta",),
    "pulmonary vein": ("pulmonary_vein",),
    "brachiocephalic trunk": ("brachiocephalic_trunk",),
    "subclavian artery": _both("subclavian_artery"),
    "common carotid artery": _both("common_carotid_artery"),
    "brachiocephalic vein": _both("brachiocephalic_vein"),
}
"""The classes of Table 8, in its order, each with the masks of the release that it unites."""

SPEC = TaskSpec(
    name="totalsegmentator",
    display_name="TotalSegmentator",
    kind="segmentation",
    version=1,
    classes=("background", *STRUCTURES),
    metric="dice_native",
    source_data=("totalsegmentator",),
    licence=LICENCE,
    source=SOURCE,
)


class TotalSegmentator(TotalSegmentatorScans, SegmentationDataset):
    """117 binary masks a scan, merged as read.

    Masks are laid down in the order of the classes: where two overlap, the later class has the voxel.
    """

    spec = SPEC
    described = ("s1",)

    def __init__(
        self, root: str | Path, split: Split, split_file: str | Path | None = None, s1: S1Side = "vertebrae"
    ) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.
            s1: Class of the first sacral vertebra. The paper merges "specific vertebrae" and does not say.

        Raises:
            TaskError: If the split cannot be read, or `s1` is not a class for it.
        """
        super().__init__(root, split, split_file)
        if s1 not in get_args(S1Side):
            raise TaskError(f"totalsegmentator: the option s1 is 'vertebrae' or 'sacrum', not {s1!r}")
        self.s1 = s1
        self._masks = dict(STRUCTURES)
        if s1 == "sacrum":
            self._masks["vertebrae"] = STRUCTURES["vertebrae"][1:]
            self._masks["sacrum"] = ("sacrum", "vertebrae_S1")

    @override
    def label_path(self, case: str) -> Path:
        return self.ct_path(case).parent / "segmentations"

    @override
    def target_paths(self, case: str) -> list[Path]:
        # Each of the 117: a mask that is missing is not the same as a structure that is not there.
        return [self.mask_path(case, name) for names in self._masks.values() for name in names]

    @override
    def read_labels(self, case: str, ct: Volume) -> LabelMap:
        merged = np.zeros(ct.shape, dtype=np.uint8)
        for label, names in enumerate(self._masks.values(), start=1):
            for name in names:
                mask = read_labels(self.mask_path(case, name), reference=ct)
                if mask.labels.max() > 1:
                    raise TaskError(f"{mask.source} holds values up to {mask.labels.max()}; a mask has 0 and 1")
                np.copyto(merged, np.uint8(label), where=mask.labels.view(bool))
        return LabelMap(merged, ct.affine, str(self.label_path(case)))
