"""Two files of one scan are refused by every task, for scans, labels and tables alike; none is taken by chance."""

import pytest

from tapct.errors import TaskError
from tapct.tasks import task_class
from tapct.tasks.findings import findings
from tapct.tasks.luna16 import LIST as LUNA16_LIST
from tapct.tasks.luna25 import LIST as LUNA25_LIST
from tapct.tasks.nodules import read_nodules
from tapct.tasks.rsna2022 import RELEASE as RSNA2022
from tapct.tasks.rsna2023 import RELEASE as RSNA2023
from tests.tasks.end_to_end import write_split

LUNA16_CASE, LUNA16_NODULE = next(iter(read_nodules(LUNA16_LIST, task_class("luna16").columns).items()))
SERIES = LUNA16_NODULE.series
CASES = {
    "amos22": "amos_0001",
    "fdg_pet_ct": "PETCT_01/02-28-2005-PET  CT",
    "kits23": "case_00000",
    "lits17": "volume-0",
    "luna16": LUNA16_CASE,
    "luna25": "100570_1_19990102",
    "msd_pancreas": "pancreas_001",
    "quickstart": "abdomen",
    "rsna2022": "1.2.826.0.1.3680043.10001",
    "rsna2023": "10004/21057",
    "totalsegmentator": "s0011",
}
STUDY = CASES["fdg_pet_ct"]
SCANS = [
    ("amos22", ("imagesTr/amos_0001.nii.gz", "imagesVa/amos_0001.nii.gz")),
    ("amos22", ("imagesTr/amos_0001.nii.gz", "imagesTr/amos_0001.nii")),
    ("amos22", ("imagesTr/amos_0001.nii.gz", "amos22/imagesTr/amos_0001.nii.gz")),
    ("fdg_pet_ct", (f"{STUDY}/CT.nii.gz", f"{STUDY}/CT.nii")),
    ("fdg_pet_ct", (f"{STUDY}/CT.nii.gz", f"FDG-PET-CT-Lesions/{STUDY}/CT.nii.gz")),
    ("kits23", ("dataset/case_00000/imaging.nii.gz", "case_00000/imaging.nii.gz")),
    ("kits23", ("dataset/case_00000/imaging.nii.gz", "images/case_00000.nii.gz")),
    ("kits23", ("case_00000/imaging.nii.gz", "case_00000/imaging.nii")),
    ("lits17", ("volume-0.nii", "volume-0.nii.gz")),
    ("lits17", ("batch1/volume-0.nii", "Task03_Liver/imagesTr/liver_0.nii.gz")),
    ("luna16", (f"subset0/{SERIES}.mhd", f"subset3/{SERIES}.mhd")),
    ("luna16", (f"{SERIES}.mhd", f"LUNA16/{SERIES}.mhd")),
    ("luna16", (f"subset0/{SERIES}.mhd", f"subset0/{SERIES}.mha")),
    ("luna25", ("luna25_images/1.2.3.mha", "luna25_images/1.2.3.mhd")),
    ("msd_pancreas", ("imagesTr/pancreas_001.nii.gz", "imagesTr/pancreas_001_0000.nii.gz")),
    ("msd_pancreas", ("imagesTr/pancreas_001.nii.gz", "imagesTr/pancreas_001.nii")),
    ("msd_pancreas", ("a/imagesTr/pancreas_001.nii.gz", "b/imagesTr/pancreas_001.nii.gz")),
    ("quickstart", ("abdomen/ct.nii.gz", "abdomen/ct_dicom/1.dcm")),
    ("rsna2022", (f"train_images/{CASES['rsna2022']}/1.dcm", f"{RSNA2022}/train_images/{CASES['rsna2022']}/1.dcm")),
    ("rsna2023", ("train_images/10004/21057/1.dcm", f"{RSNA2023}/train_images/10004/21057/1.dcm")),
    ("totalsegmentator", ("s0011/ct.nii.gz", "s0011/ct.nii")),
    ("totalsegmentator", ("s0011/ct.nii.gz", "v201/s0011/ct.nii.gz")),
]
LABELS = [
    ("amos22", ("labelsTr/amos_0001.nii.gz", "labelsVa/amos_0001.nii.gz")),
    ("fdg_pet_ct", ("Clinical_Metadata_FDG_PET_CT_Lesions.csv", "home/x/fdg_metadata.csv")),
    ("fdg_pet_ct", ("fdg_metadata.csv", "FDG-PET-CT-Lesions/fdg_metadata.csv")),
    ("kits23", ("case_00000/segmentation.nii.gz", "dataset/case_00000/segmentation.nii.gz")),
    ("lits17", ("segmentation-0.nii", "predicted/segmentation-0.nii.gz")),
    ("msd_pancreas", ("labelsTr/pancreas_001.nii.gz", "labelsTr/pancreas_001.nii")),
    ("quickstart", ("abdomen/organs.nii.gz", "abdomen/organs.nii")),
    ("rsna2022", ("train.csv", f"{RSNA2022}/train.csv")),
    ("rsna2023", ("train_series_meta.csv", f"{RSNA2023}/train_series_meta.csv")),
    ("totalsegmentator", ("s0011/segmentations/liver.nii.gz", "s0011/segmentations/liver.nii")),
]


def make(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"same")


def dataset(root, task: str):
    root.mkdir(exist_ok=True)
    options = {}
    if task == "luna25":
        header = "AnnotationID,PatientID,SeriesInstanceUID,CoordX,CoordY,CoordZ,label\n"
        (root / LUNA25_LIST).write_text(f"{header}{CASES[task]},p1,1.2.3,0,0,0,1\n", encoding="utf-8")
        options = {"source": "scans"}
    patient = {"luna16": LUNA16_NODULE.patient, "luna25": "p1"}.get(task)
    split = write_split(root.parent / "split.csv", train=[CASES[task]])
    if patient is not None:
        split.write_text(f"case,patient,split\n{CASES[task]},{patient},train\n", encoding="utf-8")
    return task_class(task)(root, "train", split, **options)


@pytest.mark.parametrize(("task", "names"), SCANS)
def test_two_files_of_a_scan_are_refused_and_either_alone_is_taken(tmp_path, task, names):
    for name in names:
        root = tmp_path / name.replace("/", " ")
        make(root, name)
        assert dataset(root, task).ct_path(CASES[task]) in ((root / name), (root / name).parent)
    make(tmp_path / "both", *names)
    both = dataset(tmp_path / "both", task)
    for look in (lambda: both.ct_path(CASES[task]), both.validate, lambda: both[0]):
        with pytest.raises(TaskError, match=r"holds .* 2 times: .*Leave the one to be used") as raised:
            look()
        for name in names:
            shown = name.rpartition("/")[0] if name.endswith(".dcm") else name
            assert shown in str(raised.value)


@pytest.mark.parametrize(("task", "names"), LABELS)
def test_two_files_of_a_target_are_refused_and_either_alone_is_taken(tmp_path, task, names):
    for name in names:
        root = tmp_path / name.replace("/", " ")
        make(root, name)
        assert root / name in dataset(root, task).target_paths(CASES[task])
    make(tmp_path / "both", *names)
    with pytest.raises(TaskError, match=r"holds .* 2 times: "):
        dataset(tmp_path / "both", task).target_paths(CASES[task])


def test_shadows_of_macos_and_a_folder_round_each_file_are_no_second_file(tmp_path):
    make(
        tmp_path / "msd", "imagesTr/pancreas_001.nii.gz", "imagesTr/._pancreas_001.nii.gz", "__MACOSX/imagesTr/._x.nii"
    )
    assert dataset(tmp_path / "msd", "msd_pancreas").ct_path("pancreas_001").name == "pancreas_001.nii.gz"
    make(tmp_path / "lits", "volume-0.nii/volume-0.nii", "segmentation-0.nii.gz/segmentation-0.nii.gz")
    lits = dataset(tmp_path / "lits", "lits17")
    assert lits.ct_path("volume-0") == tmp_path / "lits" / "volume-0.nii" / "volume-0.nii"
    assert lits.label_path("volume-0") == tmp_path / "lits" / "segmentation-0.nii.gz" / "segmentation-0.nii.gz"


def test_two_ways_to_one_file_are_one_file(tmp_path):
    make(tmp_path / "kits", "dataset/case_00000/imaging.nii.gz")
    (tmp_path / "kits" / "case_00000").symlink_to("dataset/case_00000")
    assert dataset(tmp_path / "kits", "kits23").ct_path("case_00000").exists()


def test_neighbours_in_name_are_not_taken_for_copies(tmp_path):
    make(
        tmp_path / "lits", "volume-0.nii", "volume-00.nii", "test-volume-0.nii", "volume-0.nii.part", "x/liver_0.nii.gz"
    )
    assert dataset(tmp_path / "lits", "lits17").ct_path("volume-0") == tmp_path / "lits" / "volume-0.nii"
    make(tmp_path / "luna", f"subset1/{SERIES}.mhd", f"subset1/{SERIES}.raw", f"seg-lungs-LUNA16/{SERIES}.mhd")
    assert dataset(tmp_path / "luna", "luna16").ct_path(LUNA16_CASE).parent.name == "subset1"


def test_the_doctor_names_them_and_says_how_many(tmp_path):
    make(
        tmp_path / "quickstart",
        *(f"{case}/{name}" for case in ("abdomen", "chest") for name in ("ct.nii.gz", "ct.nii")),
    )
    report = list(findings("quickstart", str(tmp_path)))
    assert report[-1][0] == "fail"
    assert " 2 times: abdomen/ct.nii, abdomen/ct.nii.gz" in report[-1][1]
    assert report[-1][1].endswith("and so for 1 more cases")
