"""`tapct describe`."""

import base64
import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.chance import Chance
from baselines.suprem import SuPreM
from tapct import cli
from tapct.report.input_sheet import findings, write_sheet
from tapct.viz.received import received_of, shipped_scan
from tapct.volumes import resample_image
from tests.small import Drifting, known_by_name


class Mirrored(Drifting):
    """An encoder that mirrors a scan on the way to its network, and does not say so."""

    def _encode(self, windows_hu):
        return super()._encode(windows_hu.flip(-1))


def describe(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tapct", "describe", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_without_a_file_it_prints_a_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    assert describe(monkeypatch, "suprem+features=decoder") == 0
    table = capsys.readouterr().out
    assert re.search(r"HU window +-175 to 250 HU +\n +authors: supervised_pretraining/train.py", table)
    assert re.search(r"Stride +1 x 1 x 1 voxels", table)


def test_the_page_needs_nothing_beside_it_and_shows_three_slices(monkeypatch, tmp_path):
    assert describe(monkeypatch, "tap-t-3d", "-o", str(tmp_path / "sheet.html")) == 0
    page = (tmp_path / "sheet.html").read_text("utf-8")
    assert not re.search(r"https?://|<script|<link", page)
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
    assert np.ptp(grey) > 200
    assert "SPL, as declared" in page
    assert "-1008 to 822 HU, as declared" in page


def test_an_encoder_that_contradicts_its_sheet_ends_with_an_error_status(monkeypatch, tmp_path, capsys):
    with known_by_name("drifting", "tests.report.test_input_sheet:Mirrored"):
        assert describe(monkeypatch, "drifting@random", "-o", str(tmp_path / "sheet.html")) == 1
    assert "likest to SPR, not to SPL as declared" in capsys.readouterr().err
    assert "Contradicts the sheet." in (tmp_path / "sheet.html").read_text("utf-8")


def test_what_is_shown_is_the_scan_at_the_encoders_grid_turned_back():
    found = received_of(SuPreM(deferred=True), shipped_scan())
    ct = shipped_scan()
    hu = torch.from_numpy(ct.hu)
    grid = ct.grid.respaced((1.5, 1.5, 1.5))
    image = resample_image(hu, ct.grid, grid).clamp(-175, 250).add(175).div(425)
    windows = image.unfold(0, 96, 1).unfold(1, 96, 1).unfold(2, 96, 1)
    starts = [sorted({*range(0, n - 96, 96), (n - 96) // 8 * 8}) for n in image.shape]
    distances = [
        float((windows[z, y, x] - torch.from_numpy(found.images[0])).abs().max())
        for z in starts[0]
        for y in starts[1]
        for x in starts[2]
    ]
    assert min(distances) < 1e-5
    assert (found.shape, found.orientation) == ((1, 1, 96, 96, 96), ("RAS", True))
    assert found.spacing_mm == pytest.approx((1.5, 1.5, 1.5))


def test_the_page_of_what_never_calls_its_network_says_so(tmp_path):
    said = write_sheet(Chance(), tmp_path / "sheet.html")
    assert [finding.name for finding in said] == ["Network"]
    assert "never called" in (tmp_path / "sheet.html").read_text("utf-8")
    assert findings(Chance(), None) == said
