"""`tapct.load_features`: stored features as arrays."""

import numpy as np
import pytest
import torch

import tapct
from tapct.errors import FeatureError
from tapct.features import extract
from tests.data import quickstart
from tests.small import Small3D, known_by_name


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = quickstart.write(tmp_path_factory.mktemp("arrays"))
    with known_by_name("small-3d", "tests.small:Small3D"):
        yield folder


def load(root, **changes):
    asked = {"encoder": "small-3d@random", "data_root": root, "folder": root / "features", "accelerator": "cpu"}
    return tapct.load_features(task="quickstart", **{**asked, **changes})


@pytest.fixture(scope="module", params=["bf16", "fp32", "int8"])
def features(root, request):
    return load(root, extract=True, feature_dtype=request.param)


def test_arrays_are_what_the_encoder_gives(features):
    assert (features.cases, features.splits) == (["abdomen", "chest"], ["train", "test"])
    assert len(set(features.patients)) == 2
    case = features["chest"]
    assert [one.case for one in features] == features.cases
    assert (features[1].case, [one.case for one in features[:1]]) == ("chest", ["abdomen"])
    scan, _ = case._part.read("chest")
    torch.manual_seed(0)
    expected = extract(Small3D("random"), torch.from_numpy(scan.hu), scan.grid)
    assert case.map.dtype == case.embeddings.dtype == np.float32
    assert case.map.shape == tuple(expected.map.shape)
    np.testing.assert_allclose(case.map, expected.map.numpy(), atol=0.02 * float(expected.map.abs().max()))
    np.testing.assert_allclose(case.embeddings, expected.embeddings.numpy(), rtol=0.01, atol=0.02)
    assert features.vectors().shape == (2, 48)
    np.testing.assert_allclose(features.vectors("mean")[1], case.map.mean((1, 2, 3)), atol=0.02)


def test_patches_lie_where_the_grid_says_and_labels_where_the_scan_has_them(features):
    case = features["abdomen"]
    positions = case.positions_mm
    assert positions.shape == (*case.map.shape[1:], 3)
    for index in ((0, 0, 0), (1, 5, 2)):
        np.testing.assert_allclose(positions[index], (case.grid.affine @ [*index, 1])[:3], rtol=1e-6)
    step = positions[1, 0, 0] - positions[0, 0, 0]
    assert step[2] > 0, "the first axis grows towards superior"
    assert case.target.shape == tuple(case.scan_grid.shape)
    assert case.labels.max() < len(features.classes)


def test_a_map_of_fp32_is_handed_out_as_it_lies_on_disk(root):
    case = load(root, extract=True, feature_dtype="fp32")["chest"]
    assert np.shares_memory(case.map, case.map)


def test_what_is_not_stored_is_an_error_unless_it_is_to_be_extracted(root):
    with pytest.raises(FeatureError, match=r"such as abdomen, chest, are not in .*extract=True"):
        load(root, feature_dtype="fp16")
    assert load(root, feature_dtype="fp16", extract=True, split="test").cases == ["chest"]
    with pytest.raises(FeatureError, match="features of 1 of 2 cases"):
        load(root, feature_dtype="fp16")
    assert load(root, feature_dtype="fp16", split="val").cases == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_dtyp": "bf16"}, "Did you mean 'feature_dtype'.*Known: .*window_overlap"),
        ({"split": "tset"}, "Did you mean 'test'"),
    ],
)
def test_names_that_do_not_exist_are_errors_that_name_those_that_do(root, changes, message):
    with pytest.raises(FeatureError, match=message):
        load(root, **changes)


def test_a_case_that_is_not_there_is_an_error_that_names_the_nearest(features):
    with pytest.raises(KeyError, match="Did you mean 'chest'"):
        features["chset"]
    with pytest.raises(FeatureError, match="Did you mean 'mean'"):
        features.vectors("meen")
