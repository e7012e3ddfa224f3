"""Encoders of third parties: one that is broken, one that takes a shipped name, two of one name."""

import sys

import pytest

import tapct
from baselines.curia import Curia
from tapct import doctor
from tapct.cli import main
from tapct.encoders import encoder_class
from tapct.errors import EncoderError
from tests.small import Small3D

MODULES = {
    "raises": "raise ImportError('needs cuda-ops 3')",
    "ends": "import sys; sys.exit('no licence')",
    "wrong": "class NoEncoder: pass",
}
INSTALLED = {
    "broken-pack": {"raises": "raises:X", "ends": "ends:X", "wrong": "wrong:NoEncoder", "gone": "not_there:X"},
    "curia-too": {"curia": "tests.small:Small3D", "not-small": "tests.small:Small3D"},
    "one": {"twin": "tests.small:Small3D"},
    "two": {"twin": "tests.small:Small3D"},
    "good-pack": {"small-3d": "tests.small:Small3D"},
}
WHY = {
    "raises": r"'raises' of broken-pack 1\.2 cannot be imported \(raises:X\): ImportError: needs cuda-ops 3",
    "ends": r"'ends' of broken-pack 1\.2 cannot be imported \(ends:X\): SystemExit: no licence",
    "gone": r"'gone' of broken-pack 1\.2 cannot be imported \(not_there:X\): ModuleNotFoundError",
    "wrong": r"'wrong' = wrong:NoEncoder of broken-pack 1\.2 is not a subclass of Encoder",
    "not-small": r"of curia-too 1\.2 has a card of another name, 'small-3d'",
    "twin": r"two encoders have the name 'twin', of (one 1\.2 and two 1\.2|two 1\.2 and one 1\.2)",
}
THIEF = "the encoder 'curia' of curia-too 1.2 is refused: the name ships with tapct-bench"


@pytest.fixture(autouse=True)
def _third_parties(tmp_path, monkeypatch):
    """Installs packages of third parties, as pip lays them out."""
    site = tmp_path / "site"
    for distribution, points in INSTALLED.items():
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[tapct.encoders]\n{lines}")
    for name, code in MODULES.items():
        (site / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("COLUMNS", "250")


@pytest.mark.parametrize("name", WHY)
def test_what_cannot_be_used_is_named_with_its_distribution(name):
    with pytest.raises(EncoderError, match=WHY[name]):
        encoder_class(name)


def test_the_others_work_and_a_shipped_name_stays_ours():
    assert encoder_class("curia") is Curia
    assert encoder_class("small-3d") is Small3D
    assert tapct.load_encoder("small-3d", "random").card.name == "small-3d"
    assert "twin" not in tapct.list_encoders()


def test_the_list_shows_the_others_and_says_what_is_left_out_and_why(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tapct", "list", "encoders"])
    with pytest.raises(SystemExit, match="0"):
        main()
    captured = capsys.readouterr()
    listed = {line.split()[0] for line in captured.out.splitlines() if line.strip()}
    assert {"tap-b-3d", "curia", "small-3d"} < listed
    assert not set(WHY) & listed
    found = [check.message for check in doctor.checks() if check.name == "encoders"]
    for said in (captured.err.splitlines(), found):
        assert sum("left out" in line or line in found for line in said) == len(WHY) + 1
        assert any(THIEF in line for line in said), said


def test_all_encoders_run_but_the_broken_ones(tmp_path):
    from tapct.sweep.asked import Sweep

    plain = Sweep(encoders="all", tasks="amos22", results=str(tmp_path)).experiments()
    assert {"curia", "small-3d", "raises"} < {patch.label for patch in plain}, "a patch that fails says why"
    random = Sweep(encoders="all@random", tasks="amos22", results=str(tmp_path)).experiments()
    labels = {patch.label for patch in random}
    assert {"curia@random", "small-3d@random"} < labels
    assert not {f"{name}@random" for name in WHY} & labels
