"""LUNA25 from a tree like the release's to a record, from its blocks and from its scans."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tapct.errors import TaskError, VolumeError
from tapct.tasks import SplitTable, TaskData
from tapct.tasks.luna25 import COLUMNS, LUNA25
from tapct.tasks.luna25_blocks import read_block
from tapct.tasks.nodules import lps_to_ras_point, read_nodules
from tests.data import luna25
from tests.data.luna16 import CUBE_HU, scan
from tests.data.luna25 import Annotation
from tests.tasks import end_to_end
from tests.tasks.shipped import SPLITS
from tools.splits import luna_splits

SPLIT = SPLITS / "luna25.csv"
RELEASED = Path(__file__).parents[3] / "shared" / "reference" / "labels" / luna25.LIST
needs_released = pytest.mark.skipif(not RELEASED.is_file(), reason="../shared/reference is not here")

NODULES = [
    Annotation(100570, 1),
    Annotation(100570, 1, date=20000103),  # the same nodule a year later
    Annotation(106364, 0, (30.64, -95.96, -128.59)),
    Annotation(106364, 0, (70.2, -60.13, -101.77), lesion=2),  # two in one scan
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A release of four nodules; not to be changed."""
    root = tmp_path_factory.mktemp("release") / "luna25"
    luna25.write(root, NODULES)
    luna25.write_split(root / "split.csv", test=NODULES)
    return root


@pytest.fixture
def copy(tree, tmp_path):
    """The same, for spoiling, under the data root tmp_path."""
    shutil.copytree(tree, tmp_path / "luna25")
    return tmp_path / "luna25"


def dataset(root, **options) -> LUNA25:
    return LUNA25(root, "test", root / "split.csv", **options)


# -- The list and the split ----------------------------------------------------------------------------


def test_the_split_has_the_numbers_of_the_release():
    table = SplitTable.read(SPLIT)  # refuses a patient on two sides
    assert table.counts == {"train": 4293, "val": 599, "test": 1271}
    patients = {split: set(cases.values()) for split, cases in table.cases.items()}
    assert {split: len(p) for split, p in patients.items()} == {"train": 1484, "val": 212, "test": 424}
    assert len(set.union(*patients.values())) == 2120
    assert all(case.startswith(f"{patient}_") for cases in table.cases.values() for case, patient in cases.items())


@needs_released
def test_the_released_list_has_the_published_numbers_and_makes_the_split_byte_for_byte():
    listed = read_nodules(RELEASED, COLUMNS)
    assert len(listed) == 6163
    assert len({n.series for n in listed.values()}) == 4069
    assert len({n.patient for n in listed.values()}) == 2120
    assert sum(n.malignant for n in listed.values()) == 555
    assert len({n.patient for n in listed.values() if n.malignant}) == 333
    assert luna_splits.to_csv("luna25", RELEASED) == SPLIT.read_text(encoding="utf-8")
    malignant = {
        split: sum(listed[case].malignant for case in cases) for split, cases in SplitTable.read(SPLIT).cases.items()
    }
    assert malignant == {"train": 377, "val": 56, "test": 122}


@needs_released
def test_train_val_and_test_are_not_the_same_cases(tmp_path):
    """eva 0.4.5's LUNA25 never uses its split: train, val and test are all 6163. Nor can it be instantiated."""
    shutil.copyfile(RELEASED, tmp_path / luna25.LIST)
    parts = [set(LUNA25(tmp_path, split).cases) for split in ("train", "val", "test")]
    assert [len(p) for p in parts] == [4293, 599, 1271]
    assert len(set.union(*parts)) == 6163


def test_a_list_that_lacks_nodules_of_the_split_is_refused(tree):
    with pytest.raises(TaskError, match=r"lacks 61\d\d of the 6163 nodules of the split luna25\.csv, such as 1"):
        LUNA25(tree, "train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",1,63,Male", ",2,63,Male", "nodule 100570_1_19990102 cannot be read: label is '2', not 0 or 1"),
        ("-163.28", "", "nodule 100570_1_19990102 cannot be read: could not convert string to float"),
        ("-163.28", "nan", "nodule 100570_1_19990102 cannot be read: its place is"),
        ("CoordX", "X", "lacks the columns CoordX"),
        ("106364_2_19990102", "106364_1_19990102", "nodule 106364_1_19990102 is there twice"),
    ],
)
def test_a_spoilt_list_is_refused(old, new, message, copy):
    path = copy / luna25.LIST
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1))
    with pytest.raises(TaskError, match=message):
        dataset(copy)


def test_a_missing_list_says_how_to_get_it(copy):
    (copy / luna25.LIST).unlink()
    with pytest.raises(TaskError, match=rf"no list of nodules .*{luna25.LIST}.*zenodo"):
        dataset(copy)


# -- Crops ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flipped", [False, True])
def test_a_crop_has_its_nodule_in_the_middle_and_is_the_same_from_blocks_and_scans(flipped, tmp_path):
    luna25.write(tmp_path, NODULES, flipped)
    luna25.write_split(tmp_path / "split.csv", test=NODULES)
    blocks, scans = dataset(tmp_path), dataset(tmp_path, source="scans")
    for i, annotation in enumerate(NODULES):
        volume, target, metadata = blocks[i]
        assert volume.shape == (17, 1, 17, 17)  # 50 mm at 3 mm
        assert np.argwhere(volume[:, 0].numpy() == CUBE_HU).mean(axis=0) == pytest.approx([8, 8, 8], abs=1e-9)
        x, y, z, _ = metadata["affine"].numpy() @ [8, 8, 8, 1]
        assert (-x, -y, z) == pytest.approx(annotation.place, abs=1.51)
        assert target.tolist() == [annotation.label]
        assert metadata["patient"] == str(annotation.patient)
        other, _, other_metadata = scans[i]
        assert (volume == other).all()
        assert np.allclose(metadata["affine"], other_metadata["affine"], atol=1e-3)


def test_both_sources_pad_what_is_outside_the_scan_alike(copy):
    """A nodule at the border: the block has the padding in it, the crop of the scan gets it."""
    (annotation, *_) = NODULES
    path = copy / "luna25_images" / f"{annotation.series}.mha"
    image = sitk.ReadImage(str(path))
    at = image.TransformPhysicalPointToIndex(annotation.place)
    thin = image[at[0] - 3 :, :, : at[2] + 4]
    sitk.WriteImage(thin, str(path))
    luna25.write_block(copy, annotation.case, luna25.block(thin, annotation.place))
    crop, other = dataset(copy)[0][0], dataset(copy, source="scans")[0][0]
    assert (crop == other).all()
    assert (crop[-5:] == -1024).all()  # above
    assert (crop[..., :5] == -1024).all()  # to the right
    assert crop[8, 0, 8, 8] == CUBE_HU
    assert (crop[:12, ..., 5:] > -1024).float().mean() > 0.9


@pytest.mark.parametrize(
    "direction",
    [
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        (-1, 0, 0, 0, -1, 0, 0, 0, 1),
        (1, 0, 0, 0, 1, 0, 0, 0, -1),  # slices from head to feet
        (1, 0, 0, 0, 0, 1, 0, -1, 0),  # coronal slices
        (1, 0, 0, 0, np.cos(0.3), -np.sin(0.3), 0, np.sin(0.3), np.cos(0.3)),  # a tilted gantry
    ],
)
def test_a_block_lies_where_itk_has_it(direction, tmp_path):
    """Anisotropic: in the metadata, a step along an axis is not a direction times its spacing."""
    image = scan([(0.0, 0.0, 0.0)])
    image.SetSpacing((0.6, 0.8, 2.5))
    image.SetDirection(direction)
    image.SetOrigin((-71.3, 12.9, 455.0))
    voxels = sitk.GetArrayFromImage(image)
    z, y, x = np.argwhere(voxels == CUBE_HU)[13].tolist()
    cut = luna25.block(image, image.TransformIndexToPhysicalPoint((x, y, z)))
    luna25.write_block(tmp_path, "1_1_20000101", cut)
    blocks = tmp_path / "luna25_nodule_blocks"
    ct = read_block(blocks / "image" / "1_1_20000101.npy", blocks / "metadata" / "1_1_20000101.npy")
    place = lps_to_ras_point(*image.TransformIndexToPhysicalPoint((x, y, z)))
    index = ct.world_to_index(np.array([place]))[0]
    assert np.argwhere(ct.hu == CUBE_HU).mean(axis=0) == pytest.approx(index, abs=1e-3)
    assert sorted(ct.spacing_mm) == pytest.approx([0.6, 0.8, 2.5], abs=1e-4)


def test_a_place_outside_its_block_names_the_nodule(copy):
    path = copy / luna25.LIST
    path.write_text(path.read_text(encoding="utf-8").replace("-177.75", "1177.75"))
    with pytest.raises(VolumeError, match=r"luna25, case 100570_1_19990102: .*outside the scan"):
        dataset(copy)[0]


# -- Files that are damaged, or worse --------------------------------------------------------------------


def metadata_path(root):
    return root / "luna25_nodule_blocks" / "metadata" / f"{NODULES[0].case}.npy"


def image_path(root):
    return root / "luna25_nodule_blocks" / "image" / f"{NODULES[0].case}.npy"


class _Runs:
    """What a pickle does when it is trusted."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_a_malicious_block_runs_nothing(where, copy, tmp_path):
    marker = tmp_path / "executed"
    evil = _Runs(marker)
    content = {**luna25.metadata(scan([(0, 0, 0)])), "extra": evil} if where == "beside" else evil
    np.save(metadata_path(copy), np.array(content, dtype=object), allow_pickle=True)
    with pytest.raises(
        VolumeError, match=r"case 100570_1_19990102: .*not the metadata of a LUNA25 block: it names pathlib"
    ):
        dataset(copy)[0]
    assert not marker.exists()
    np.load(metadata_path(copy), allow_pickle=True)
    assert marker.exists(), "the pickle is one that NumPy would have run"


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "numpy.load", "numpy.ndarray.tofile"])
def test_nothing_that_a_pickle_names_is_imported(name, copy):
    module, _, attribute = name.partition(".") if name.startswith("numpy.nd") else name.rpartition(".")
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, attribute))
    head = metadata_path(copy).read_bytes()[:128]
    metadata_path(copy).write_bytes(head + b"\x80\x04" + words + b"\x93.")
    with pytest.raises(VolumeError, match=f"it names {name}"):
        dataset(copy)[0]


def test_metadata_written_by_numpy_1_are_read(copy):
    """Its np.save writes pickles of protocol 3, which name numpy.core where NumPy 2 says numpy._core."""
    before = dataset(copy)[0][0]
    path = metadata_path(copy)
    content = pickle.dumps(np.load(path, allow_pickle=True), protocol=3)
    assert b"numpy._core.multiarray" in content
    path.write_bytes(path.read_bytes()[:128] + content.replace(b"numpy._core", b"numpy.core"))
    assert (dataset(copy)[0][0] == before).all()


def _claims(root, shape):
    whole = image_path(root).read_bytes()
    header = whole[:128].replace(b"(64, 128, 128)", shape.ljust(14))
    image_path(root).write_bytes(header + whole[128:])


def _names_a_far_place(root):
    """A pickle whose memo would take 16 GB in the unpickler that is written in C."""
    head = metadata_path(root).read_bytes()[:128]
    metadata_path(root).write_bytes(head + b"\x80\x04Nr\xff\xff\xff\x7f.")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: _claims(root, b"(64,10**9,999)".replace(b"10**9", b"99999")), "cannot be read as a NumPy array"),
        (lambda root: _claims(root, b"(6, -128, 128)"), "cannot be read as a NumPy array|of int16"),
        (lambda root: np.savez(image_path(root).open("wb"), np.eye(3)), "it is a zip archive"),
        (lambda root: image_path(root).write_text("<html>", encoding="utf-8"), "it is a web page"),
        (
            lambda root: np.save(image_path(root), np.array([None]), allow_pickle=True),
            "cannot be read as a NumPy array",
        ),
        (lambda root: metadata_path(root).write_bytes(bytes(10**6)), "it is 1,000,000 bytes long"),
        (_names_a_far_place, "not the metadata of a LUNA25 block"),
        (lambda root: image_path(root).write_bytes(image_path(root).read_bytes()[:9999]), "cannot be read as a NumPy"),
        (lambda root: np.save(image_path(root), np.load(image_path(root)).T), r"\(128, 128, 64\) of int16"),
        (lambda root: np.save(image_path(root), np.random.default_rng(0).random((64, 128, 128))), "already normalised"),
        (lambda root: np.save(image_path(root), np.full((64, 128, 128), np.nan)), "NaN or infinite"),
        (lambda root: metadata_path(root).write_bytes(b"PK"), "not the metadata of a LUNA25 block"),
        (lambda root: np.save(metadata_path(root), np.eye(3)), "holds no pickled dict"),
        (lambda root: np.save(metadata_path(root), {"origin": np.zeros(3)}), "needs origin and spacing"),
    ],
)
def test_a_damaged_block_is_named_before_anything_is_encoded(spoil, message, copy, tmp_path):
    spoil(copy)
    with pytest.raises(TaskError, match=rf"1 cases cannot be used:\n  luna25, case 100570_1_19990102: .*{message}"):
        TaskData("luna25", str(tmp_path), split_file=str(copy / "split.csv")).setup("fit")


def test_a_spacing_that_contradicts_the_transform_is_refused(copy):
    content = luna25.metadata(scan([(0, 0, 0)]))
    np.save(metadata_path(copy), {**content, "transform": content["transform"] * 3})
    with pytest.raises(VolumeError, match="do not fit together"):
        dataset(copy)[0]


def test_missing_files_are_named_with_where_to_get_them(copy):
    metadata_path(copy).unlink()
    with pytest.raises(TaskError, match=r"1 of 4 cases .* lack files .*metadata/100570_1_19990102.npy.*zenodo"):
        dataset(copy).validate()
    dataset(copy, source="scans").validate()
    shutil.rmtree(copy / "luna25_images")
    (copy / "luna25_images.zip.001").touch()
    with pytest.raises(TaskError, match=r"4 of 4 cases .*archives that were not unpacked: luna25_images.zip.001"):
        dataset(copy, source="scans").validate()


def test_an_unknown_source_is_refused(tree):
    with pytest.raises(TaskError, match=r"no source 'nodules'.*blocks, scans"):
        TaskData("luna25", str(tree.parent), split_file=str(tree / "split.csv"), options={"source": "nodules"})


# -- The whole task ------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("source", ["blocks", "scans"])
def test_the_whole_task_runs_through_eva(source, tmp_path):
    parts = {
        split: [Annotation(first + label, label, (10.0 * label, 20, -30)) for label in (0, 1)]
        for split, first in {"train": 100000, "val": 200000, "test": 300000}.items()
    }
    luna25.write(tmp_path / "luna25", [a for part in parts.values() for a in part])
    shutil.rmtree(tmp_path / "luna25" / ("luna25_images" if source == "blocks" else "luna25_nodule_blocks"))
    split = luna25.write_split(tmp_path / "split.csv", **parts)
    options = {} if source == "blocks" else {"source": source}
    record = end_to_end.run("classification/luna25.yaml", tmp_path, split, tmp_path, "classification", **options)
    (run,) = record.runs
    for part in ("val", "test"):
        assert [r.case for r in run.cases[part]] == [a.case for a in parts[part]]
        assert [r.target for r in run.cases[part]] == [{"malignant": 0}, {"malignant": 1}]
    assert 0 <= run.metrics["test"]["MicroAUROC"] <= 1
    assert record.task.options == {"source": source}
    assert record.task.metric == "MicroAUROC"
    assert record.probe.fit_windows is True
