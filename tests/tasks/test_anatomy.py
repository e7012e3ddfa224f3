"""Anatomy as a check: what is stored the wrong way round is named, and what only looks odd is not."""

from dataclasses import dataclass

import numpy as np
import pytest

from tapct.tasks import Quickstart, anatomy, task_class
from tapct.tasks.alignment import better_turned
from tapct.tasks.landmarks import LUNGS, MIDDLE, SPINE, landmarks
from tapct.volumes import Volume, read_ct, read_labels
from tests.data.amos22 import ORGANS
from tests.data.totalsegmentator import NAMES

AMOS = task_class("amos22").spec.classes
ALL = anatomy.AXES
WRONG = {0: "upside down", 1: "back to front", 2: "mirrored"}
"""By axis (z, y, x) of the array."""


@dataclass(frozen=True)
class Case:
    """A scan and the ids of TotalSegmentator's organs in it."""

    ct: Volume
    organs: np.ndarray

    def labels(self, ids: dict[int, int]) -> np.ndarray:
        lookup = np.zeros(256, dtype=np.uint8)
        lookup[list(ids)] = list(ids.values())
        return lookup[self.organs]

    def judge(self, ids, classes, flipped=(), affine=None) -> anatomy.AnatomicalOrientation:
        """Judges the case with some axes of its arrays turned round under the same header."""
        hu, labels = (np.ascontiguousarray(np.flip(one, flipped)) for one in (self.ct.hu, self.labels(ids)))
        return anatomy.judge(Volume(hu, self.ct.affine if affine is None else affine, "scan"), labels, classes)


def quickstart(split: str) -> Case:
    dataset = Quickstart(Quickstart.shipped_root, split)
    ct = dataset.read_scan(dataset.cases[0])
    return Case(ct, read_labels(dataset.label_path(dataset.cases[0]), reference=ct).labels)


@pytest.fixture(scope="module")
def fine() -> Case:
    return quickstart("train")


@pytest.fixture(scope="module")
def abdomen(fine) -> Case:
    """Every other voxel along each axis: organs lie where they did, and are found in an eighth of the time."""
    some = (slice(None, None, 2),) * 3
    ct = Volume(fine.ct.hu[some].copy(), fine.ct.affine @ np.diag([2, 2, 2, 1]), "abdomen")
    return Case(ct, fine.organs[some].copy())


@pytest.fixture(scope="module")
def chest() -> Case:
    return quickstart("test")


def is_right(found: anatomy.AnatomicalOrientation) -> bool:
    return not found.wrong and not found.odd


@pytest.mark.parametrize("flipped", [(), (0,), (1,), (2,), (1, 2), (0, 2), (0, 1, 2)])
def test_whatever_is_turned_round_is_named_and_nothing_else(abdomen, flipped):
    found = abdomen.judge(ORGANS, AMOS, flipped)
    assert found.judged == ALL
    assert {axis for axis, word in WRONG.items() if word in found.wrong.partition(":")[0]} == set(flipped)
    assert not found.odd
    if 2 in flipped:
        assert "spleen 180 mm right of liver" in found.wrong


def test_a_slab_of_another_patient_is_judged_by_what_it_shows(chest):
    dataset = Quickstart(Quickstart.shipped_root, "test")
    ct, labels = dataset.read("chest")
    assert is_right(anatomy.judge(ct, labels.numpy(), dataset.classes))
    for axis in (1, 2):
        flipped = Volume(np.ascontiguousarray(np.flip(ct.hu, axis)), ct.affine, "scan")
        assert anatomy.judge(flipped, np.flip(labels.numpy(), axis), dataset.classes).wrong.startswith(WRONG[axis])
    assert "head and feet" not in anatomy.judge(ct, labels.numpy(), dataset.classes).judged, "4 cm do not tell"


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_an_array_that_was_saved_transposed_is_named(abdomen, order):
    ct = Volume(np.ascontiguousarray(abdomen.ct.hu.transpose(order)), abdomen.ct.affine, "scan")
    found = anatomy.judge(ct, np.ascontiguousarray(abdomen.labels(ORGANS).transpose(order)), AMOS)
    assert found.wrong.startswith("turned: ")


def test_the_header_is_what_counts_and_not_the_order_of_the_array(abdomen):
    """What is stored in another order and says so is right, and so is what lies askew."""
    tilt = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    assert is_right(abdomen.judge(ORGANS, AMOS, affine=turn @ abdomen.ct.affine))
    mirrored = abdomen.ct.affine @ np.diag([1, 1, -1, 1])
    assert is_right(abdomen.judge(ORGANS, AMOS, (2,), affine=mirrored))


# -- Tasks of one organ ---------------------------------------------------------------------------------------------

LITS = {5: 1}
ONE_ORGAN = {
    "lits17": (LITS, {1, 2}),
    "kits23": ({2: 1, 3: 1}, {1}),
    "msd_pancreas": ({7: 1}, {1}),
}
"""Task to its labels, and the axes that spine and body tell of in a scan that shows hardly any lung."""


@pytest.mark.parametrize("task", ONE_ORGAN)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_of_a_single_organ_spine_and_body_say_what_they_can(abdomen, task, axis):
    ids, told = ONE_ORGAN[task]
    found = abdomen.judge(ids, task_class(task).spec.classes, () if axis is None else (axis,))
    assert found.wrong.startswith(WRONG[axis]) if axis in told else is_right(found)
    assert found.judged == tuple(name for name, a in zip(ALL, (2, 1, 0), strict=True) if a in told)


def test_lungs_above_the_liver_tell_head_from_feet(shared_data):
    ct = read_ct(shared_data / "crlm" / "CRLM-CT-1004_1.5x5mm.nii.gz")
    z, y, x = np.indices(ct.shape)
    liver = (((z - 20) * 5) ** 2 + ((y - 130) * 1.5) ** 2 + ((x - 85) * 1.5) ** 2 < 45**2).astype(np.uint8)
    case, classes = Case(ct, liver), ["background", "liver"]
    assert case.judge({1: 1}, classes) == anatomy.AnatomicalOrientation(ALL)
    for axis, word in WRONG.items():
        assert case.judge({1: 1}, classes, (axis,)).wrong.startswith(word)


def test_a_liver_is_judged_with_its_lesions(abdomen):
    """A lesion in place of the right lobe: what is left of the label "liver" lies in the middle."""
    labels = abdomen.labels(LITS)
    labels[:, :, :30] *= 2
    found = anatomy.judge(abdomen.ct, labels, ["background", "liver", "lesion"])
    assert is_right(found)
    assert "right and left" in found.judged


# -- Real copies of a release ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s9001", pytest.param("s9004", marks=pytest.mark.thorough)])
def test_scans_of_totalsegmentator_are_right_as_they_are_and_wrong_turned_round(shared_data, name, tmp_path):
    (tmp_path / "split.csv").write_text(f"case,patient,split\n{name},p,train\n")
    dataset = task_class("totalsegmentator")(shared_data / "totalsegmentator", "train", tmp_path / "split.csv")
    ct, target = dataset.read(name)
    labels = target.numpy()
    assert anatomy.judge(ct, labels, dataset.classes) == anatomy.AnatomicalOrientation(ALL)
    for axis, word in WRONG.items():
        flipped = Volume(np.ascontiguousarray(np.flip(ct.hu, axis)), ct.affine, "scan")
        assert anatomy.judge(flipped, np.flip(labels, axis), dataset.classes).wrong.startswith(word)


def test_the_release_names_of_totalsegmentator_are_known(shared_data):
    """A task of one's own with the 117 names: right and left of whatever there is, vertebrae by their numbers."""
    folder = shared_data / "totalsegmentator" / "s9001"
    ct = read_ct(folder / "ct.nii.gz")
    names = [name for name in NAMES if name.startswith(("vertebrae", "rib", "gluteus", "kidney"))]
    labels = np.zeros(ct.shape, dtype=np.uint8)
    for label, name in enumerate(names, start=1):
        labels[read_labels(folder / "segmentations" / f"{name}.nii.gz", reference=ct).labels > 0] = label
    case = Case(ct, labels)
    ids = {label: label for label in range(1, len(names) + 1)}
    assert case.judge(ids, ["background", *names]) == anatomy.AnatomicalOrientation(ALL)
    assert "rib right 8 " not in case.judge(ids, ["background", *names], (0,)).wrong, "of ribs only the sides are known"
    assert case.judge(ids, ["background", *names], (0, 2)).wrong.startswith("mirrored and upside down")


# -- What looks similar and is right --------------------------------------------------------------------------------


def moved(case: Case, organ: int, mm: tuple[float, float, float]) -> Case:
    """The case with an organ's labels elsewhere, such as a transplanted kidney; (z, y, x)."""
    organs = np.where(case.organs == organ, 0, case.organs)
    steps = [round(m / s) for m, s in zip(mm, case.ct.spacing_mm, strict=True)]
    organs[np.roll(case.organs == organ, steps, (0, 1, 2))] = organ
    return Case(case.ct, organs)


def test_a_single_organ_elsewhere_accuses_nobody(abdomen):
    pelvic_kidney = moved(abdomen, 3, (-120, 0, -130))
    found = pelvic_kidney.judge(ORGANS, AMOS)
    assert not found.wrong
    wandering = moved(abdomen, 1, (-60, 0, -210))
    found = wandering.judge({1: 1, 5: 2, 6: 3}, ["background", "spleen", "liver", "stomach"])
    assert not found.wrong
    assert "spleen" in found.odd, "it is shown, though"


def test_two_labels_that_are_exchanged_are_odd_and_not_a_mirrored_scan(abdomen):
    found = abdomen.judge({**ORGANS, 2: 3, 3: 2}, AMOS)
    assert not found.wrong
    assert "right kidney 148 mm left of left kidney" in found.odd


def test_organs_that_are_not_there_and_a_child_change_nothing(abdomen):
    few = {id_: label for id_, label in ORGANS.items() if id_ not in (1, 3, 4)}  # no spleen, left kidney, gallbladder
    assert abdomen.judge(few, AMOS).judged == ALL
    assert is_right(abdomen.judge(few, AMOS))
    child = abdomen.ct.affine @ np.diag([0.62, 0.62, 0.62, 1])
    assert is_right(abdomen.judge(ORGANS, AMOS, affine=child))
    assert abdomen.judge(ORGANS, AMOS, (2,), affine=child).wrong.startswith("mirrored")


@pytest.mark.parametrize(
    "part",
    [
        np.s_[35:, :, :],  # upper abdomen
        np.s_[:30, :, :],  # pelvis
        np.s_[:, :, :30],  # right half
        np.s_[:, :, 30:],
        np.s_[:, :25, :],  # front
        np.s_[40:45, 15:35, 10:30],  # a block of liver
    ],
)
def test_a_part_of_a_scan_is_not_accused(abdomen, part):
    block = Case(Volume(np.ascontiguousarray(abdomen.ct.hu[part]), abdomen.ct.affine, "block"), abdomen.organs[part])
    for ids, classes in (
        (ORGANS, AMOS),
        *((ids, task_class(task).spec.classes) for task, (ids, _) in ONE_ORGAN.items()),
    ):
        assert not block.judge(ids, classes).wrong


def test_classes_that_are_no_organs_say_nothing(abdomen):
    names = ["background", "tumor", "lesion", "contents", "GTV-1"]
    assert abdomen.judge({5: 1, 1: 2, 6: 3, 3: 4}, names, (2,)) == anatomy.AnatomicalOrientation()
    assert (
        anatomy.judge(abdomen.ct, np.zeros(abdomen.ct.shape, dtype=np.uint8), AMOS) == anatomy.AnatomicalOrientation()
    )


def test_names_are_known_however_they_are_written(abdomen):
    for right, left in (
        ("kidney_right", "kidney_left"),
        ("Right Kidney", "Left Kidney"),
        ("right-kidneys", "left-kidneys"),
    ):
        found = abdomen.judge({2: 1, 3: 2, 21: 3}, ["background", right, left, "urinary_bladder"], (2,))
        assert "right kidney 148 mm left of left kidney" in found.wrong
        assert found.judged == ALL


# -- Labels that are turned against their scan ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "classes"),
    [(ORGANS, AMOS), (LITS, ["background", "liver", "lesion"]), ({2: 1, 3: 1}, ["background", "kidney"])],
    ids=["amos22", "lits17", "kits23"],
)
@pytest.mark.parametrize("flipped", [(0,), (1,), (2,), (1, 2)])
@pytest.mark.parametrize("of", [pytest.param("labels", marks=pytest.mark.thorough), "scan"])
def test_labels_and_scan_that_are_turned_against_each_other_are_named(fine, ids, classes, flipped, of):
    """A mask in another order than its scan: whatever is labelled, and whichever of the two is right."""
    hu, labels = fine.ct.hu, fine.labels(ids)
    if of == "labels":
        labels = np.ascontiguousarray(np.flip(labels, flipped))
    else:
        hu = np.ascontiguousarray(np.flip(hu, flipped))
    found = anatomy.judge(Volume(hu, fine.ct.affine, "scan"), labels, classes)
    along = " and ".join(ALL[2 - axis] for axis in flipped)
    assert found.wrong == (
        f"labels turned against the scan: turned round along {along}, they would lie on what they name"
    )


def test_labels_with_rows_and_columns_exchanged_are_named(chest):
    labels = np.ascontiguousarray(chest.labels({5: 1, 1: 2}).transpose(0, 2, 1))
    found = anatomy.judge(chest.ct, labels, ["background", "a", "b"])
    assert "with the rows and columns of each slice exchanged, they would lie" in found.wrong
    labels = np.ascontiguousarray(np.rot90(chest.labels({5: 1, 1: 2}), axes=(1, 2)))
    found = anatomy.judge(chest.ct, labels, ["background", "a", "b"])
    assert "exchanged, turned round along" in found.wrong


@pytest.mark.parametrize("organ", sorted({1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 52, 63, 79, 86}))
def test_a_single_class_where_it_belongs_is_not_accused(fine, organ):
    """Gas in the bowel, a cord between bones, a gallbladder on its bed: some place is evener, or has sharper edges."""
    assert better_turned(fine.ct.hu, fine.labels({organ: 1}), fine.ct.spacing_mm) is None


def test_lesions_and_coarse_outlines_are_not_accused(shared_data):
    lidc, sts = shared_data / "lidc", shared_data / "sts"
    pairs = [(lidc / "LIDC-IDRI-0314_2mm.nii.gz", lidc / "LIDC-IDRI-0314_2mm_nodule.nii.gz")]
    pairs += [(folder / "CT.nii.gz", folder / "SEG_ct.nii.gz") for folder in sorted(sts.iterdir())]
    for scan, mask in pairs:
        ct = read_ct(scan)
        assert better_turned(ct.hu, read_labels(mask, reference=ct).labels, ct.spacing_mm) is None


def test_labels_drawn_anywhere_or_on_noise_are_not_accused(fine):
    random = np.random.default_rng(0)
    boxes = np.zeros(fine.ct.shape, dtype=np.uint8)
    boxes[10:40, 30:60, 20:50], boxes[60:80, 20:50, 70:100] = 1, 2
    assert better_turned(fine.ct.hu, boxes, (3, 3, 3)) is None
    noise = random.normal(0, 100, boxes.shape).astype(np.float32)[:40]
    for labels in (boxes[:40], random.integers(0, 3, noise.shape).astype(np.uint8), np.ones(noise.shape, np.uint8)):
        assert better_turned(noise, labels, (3, 3, 3)) is None
    assert better_turned(np.full(boxes.shape, -1000, dtype=np.float32), boxes, (3, 3, 3)) is None


# -- Landmarks ------------------------------------------------------------------------------------------------------


def trunk() -> np.ndarray:
    """A cylinder of tissue in 4 mm cubes, with a spine at the back and lungs in its upper third."""
    z, y, x = np.indices((60, 70, 90)) * 4.0
    hu = np.full(z.shape, -1000.0, dtype=np.float32)
    hu[((y - 140) / 100) ** 2 + ((x - 180) / 150) ** 2 < 1] = 40
    hu[(y - 190) ** 2 + (x - 180) ** 2 < 20**2] = 400
    for middle in (110, 250):
        hu[((z - 230) / 90) ** 2 + ((y - 140) / 60) ** 2 + ((x - middle) / 45) ** 2 < 1] = -800
    return hu


SPACING = np.array([4.0, 4.0, 4.0])


def test_landmarks_lie_where_they_were_put():
    found = landmarks(trunk(), SPACING, (0, 40))
    assert found[SPINE] * 4 == pytest.approx([80, 190, 180], abs=8)
    assert found[MIDDLE] * 4 == pytest.approx([80, 140, 180], abs=8)
    assert found[LUNGS][0] * 4 == pytest.approx(195, abs=12)


def test_contrast_in_the_stomach_is_no_spine():
    hu = trunk()
    hu[20:40, 12:25, 40:52] = 600
    assert landmarks(hu, SPACING, (0, 40))[SPINE] * 4 == pytest.approx([80, 190, 180], abs=8)
    hu[:, 12:25, 40:52] = 600  # from end to end: which of the two is it?
    assert SPINE not in landmarks(hu, SPACING, (0, 40))


def test_noise_and_phantoms_have_neither_spine_nor_middle():
    noise = np.random.default_rng(0).normal(0, 300, (40, 24, 60)).astype(np.float32)
    assert landmarks(noise, SPACING, (5, 30)) == {}
    water = np.full((40, 60, 60), -1000, dtype=np.float32)
    water[:, 5:55, 5:55] = 0
    assert landmarks(water, SPACING, (5, 30)) == {}


def test_a_foam_mattress_and_stool_are_no_lungs():
    hu = trunk()
    hu[hu == -800] = 40
    hu[:, 45:52, 60:75] = -850
    hu[20:24, 20:26, 30:36] = -700
    assert LUNGS not in landmarks(hu, SPACING, (0, 40))


def test_a_scan_of_air_has_no_landmarks():
    assert landmarks(np.full((20, 20, 20), -1000, dtype=np.float32), SPACING, (0, 19)) == {}
