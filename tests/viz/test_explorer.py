"""The page in which a click shows what is alike: what is packed into it, and that it needs nothing else."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from tapct.viz.explorer import Packed, write_explorer
from tapct.viz.feature_maps import similarity
from tests.small import abdomen
from tests.viz.encoders import encoded


@pytest.fixture(scope="module")
def scan():
    return encoded(abdomen((slice(30, 80), slice(None), slice(None)))[0])


@pytest.fixture(scope="module")
def page(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "x.html"
    write_explorer(path, scan, "<script>alert(1)</script>", "soft-tissue")
    return path.read_text(encoding="utf-8")


def content(page):
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)[1])


def test_what_is_packed_gives_the_cosines(scan, page):
    data = content(page)
    codes = np.frombuffer(base64.b64decode(data["codes"]), dtype=np.int8).reshape(*data["cells"], data["directions"])
    unit = codes * np.array(data["scales"])
    shown = np.array(data["layers"])
    expected = similarity(scan, scan.features.map[:, shown[5], 12, 14])[shown]
    found = unit @ unit[5, 12, 14]
    inside = ~np.isnan(expected)
    bound = float(re.search(r"off by at most ([\d.]+)", page)[1])
    assert bound < 0.02
    assert np.abs(found - expected)[inside].max() < 2 * bound + 1e-3


def test_patches_and_pictures_lie_where_they_belong(scan, page):
    data = content(page)
    grid = scan.features.feature_grid
    assert np.array(data["affine"]) == pytest.approx(grid.affine)
    left, top, right, bottom = data["extent"]
    width_mm = scan.ct.shape[2] * scan.ct.spacing_mm[2]
    assert (right - left) * width_mm == pytest.approx(grid.shape.x * grid.spacing_mm[2])
    first = scan.ct.world_to_index(grid.affine[None, :3, 3])[0]
    patch = (right - left) / grid.shape.x
    assert (left + patch / 2) * scan.ct.shape[2] - 0.5 == pytest.approx(first[2])
    assert bottom > 0.9 > 0.1 > top
    assert len(data["pictures"]) == len(data["layers"]) == len(data["slices"]) == data["cells"][0]
    assert base64.b64decode(data["pictures"][0])[:2] == b"\xff\xd8"


def test_the_page_stands_alone_and_names_stay_text(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)\s*=|https?://|@import", page.replace("base64,", ""))
    assert len(page) < 3e6


def test_directions_are_enough_for_many_channels():
    torch.manual_seed(0)
    low_rank = torch.randn(3000, 20) @ torch.randn(20, 384) + 3
    assert Packed.of(low_rank).error < 0.02
