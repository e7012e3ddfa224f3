"""The comparison with the authors' code: what it finds, what it keeps, what it says, and what it refuses to run."""

import json
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

from tapct.cli import main
from tapct.encoders import tap_t, verified
from tapct.encoders.weights import content_sha256
from tapct.errors import EncoderError
from tapct.probes.recording import encoder_record
from tapct.records import EncoderRecord, Record, write_record
from tapct.verification.commands import NOT_COMPARED, verify_encoder
from tests.leaderboard.results import record
from tests.verification import code

ADAPTER = "tests.verification.code:Adapter"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path):
    """Published weights of the encoder."""
    network = code.Network(1e-6)
    torch.save({"model": {f"backbone.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "model.pt")
    return tmp_path / "model.pt", content_sha256(network.state_dict())


def known(**about):
    return verified.verification_of(code.Adapter("random"), **about)


def test_an_adapter_that_does_what_its_authors_do_passes_on_random_weights(capsys):
    assert verify_encoder(ADAPTER) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^ +(voxels|map|embedding) +\d\.\de[-+]\d\d", out, re.M) == ["voxels", "map", "embedding"]
    assert "Compared with random weights alone" in out
    assert "Patchwork: tested on randomised weights only (patchwork 1.0, 20" in out
    found = known()
    assert found.status == "randomised"
    assert found.comparison.versions.keys() == {"tapct-bench", "torch"}
    assert all(difference < 1e-6 for difference in found.comparison.differences.values())


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        ({"clip_hu": (-1000.0, 410.0)}, "voxels"),
        ({"clip_hu": (-1000.0, 4000.0)}, "voxels"),
        ({"axes": "LAS"}, "voxels"),
        ({"axes": "RAI"}, "voxels"),
        ({"axes": "ARS"}, "voxels"),
        ({"eps": 1e-5}, "map"),
        ({"pooled": 1.001}, "embedding"),
    ],
    ids=str,
)
def test_a_fault_is_found_at_its_stage(fault, stage, monkeypatch, capsys):
    for name, value in fault.items():
        monkeypatch.setattr(code.Adapter, name, value)
    assert verify_encoder(ADAPTER) == 1
    assert f"differs from its authors' code (patchwork 1.0) at the stage '{stage}'" in capsys.readouterr().out
    found = known()
    assert (found.status, found.comparison.fault.name) == ("none", stage)


def test_with_the_published_weights_it_is_verified_for_these_alone(published, capsys):
    file, sha256 = published
    assert verify_encoder(ADAPTER, weights=str(file)) == 0
    assert "Patchwork: verified here against the authors' code (patchwork 1.0, 20" in capsys.readouterr().out
    assert known(weights_sha256=sha256).status == "verified"
    other = known(weights_sha256="0" * 64)
    assert (other.status, other.why) == ("randomised", "what passed besides are other weights")
    assert known().status == "randomised"  # it is one of random weights


def test_a_stored_result_of_other_code_or_settings_is_not_used(monkeypatch):
    verify_encoder(ADAPTER)
    monkeypatch.setattr(code.Adapter, "clip_hu", (-900.0, 400.0))
    assert known().status == "none"
    assert "its code or settings have changed since" in known().why
    monkeypatch.undo()


def test_a_stored_result_of_another_source_is_not_used(cache):
    verify_encoder(ADAPTER)
    (file,) = (cache / "verifications").iterdir()
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"who": content["who"] | {"code_sha256": "0" * 64}}))
    assert "its code or settings have changed since" in known().why
    file.write_text("{")
    assert "what was stored cannot be used" in known().why
    file.unlink()
    assert known().why.startswith("not compared on this machine: `tapct verify-encoder patchwork`")


def test_a_failed_comparison_replaces_one_that_passed(monkeypatch):
    verify_encoder(ADAPTER)
    monkeypatch.setattr(code.Published, "tolerance", -1.0)
    assert verify_encoder(ADAPTER) == 1
    assert known().status == "none"


def test_a_record_carries_it_outside_its_fingerprint_and_its_model(tmp_path):
    encoder = code.Adapter("random")
    before = encoder_record(encoder, encoder.describe() | {"precision_used": "fp32"})
    verify_encoder(ADAPTER)
    after = encoder_record(encoder, encoder.describe() | {"precision_used": "fp32"})
    assert before.verification.status == "none"
    assert after.verification.status == "randomised"
    assert after.verification.differences.keys() == {"voxels", "map", "embedding"}
    assert after.verification.text.startswith("tested on randomised weights only (patchwork 1.0, 20")
    assert before.settings() == after.settings()
    one = record("tap-s-3d", "amos22")
    told = [one.model_copy(update={"encoder": each}) for each in (before, after)]
    assert told[0].fingerprint == told[1].fingerprint
    path = write_record(told[0], tmp_path)
    write_record(told[1], tmp_path)  # the same patch
    read = Record.from_json(path.read_text(encoding="utf-8"), where=str(path))
    assert read.encoder.verification == after.verification


def test_older_records_lack_it_and_stay_as_they_are():
    older = record("tap-s-3d", "amos22")
    assert older.encoder.verification is None
    assert "verification" not in older.content()["encoder"]
    assert Record.from_json(older.to_json(), where="older").fingerprint == older.fingerprint
    assert isinstance(older.encoder, EncoderRecord)


@pytest.mark.parametrize("name", ["sides.png", "sides.html"])
def test_a_picture_shows_both_inputs(name, tmp_path, capsys):
    assert verify_encoder(ADAPTER, out=str(tmp_path / name)) == 0
    if name.endswith("png"):
        assert min(Image.open(tmp_path / name).size) > 400
    else:
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert page.count("data:image/png;base64,") == 2
        assert "patchwork 1.0" in page


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch, capsys):
    monkeypatch.setattr(code.Published, "requires", ("no-such-package==1.2", "torch<1"))
    monkeypatch.setattr(sys, "argv", ["tapct", "verify-encoder", ADAPTER])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == NOT_COMPARED == 3
    said = capsys.readouterr().err
    assert "no-such-package is not installed; torch " in said
    assert "pip install 'no-such-package==1.2' 'torch<1'" in said


@pytest.mark.parametrize(
    ("name", "called"),
    [("chance", "chance"), (str(tap_t.FOLDER), "tap-t-3d"), ("eva:radiology/voco_b", "eva:radiology/voco_b")],
    ids=["installed", "exported folder", "eva's"],
)
def test_an_encoder_without_such_code_says_so(name, called, capsys):
    assert verify_encoder(name) == NOT_COMPARED
    assert f"{called} cannot be compared with its authors' code" in capsys.readouterr().err


def test_an_encoder_that_is_wrong_on_purpose_is_not_compared():
    with pytest.raises(EncoderError, match="with the mistake 'mirrored' is wrong on purpose: compare it without"):
        verify_encoder(f"{ADAPTER}+mistake=mirrored")
    assert known().why.startswith("not compared on this machine")


MODULE = """
import pathlib
pathlib.Path({mark!r}).touch()
VALUE = {value}
"""


class FromRepository(code.Published):
    """The same, whose number is in a repository."""

    repository = "example.org/group/patchwork"
    read_at = "0" * 40

    def build(self):
        import patchwork_of_authors

        assert patchwork_of_authors.VALUE == 1
        return super().build()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone whose working tree is not what was committed; the mark that its code leaves when it runs; the commit."""
    folder, mark = tmp_path / "clone", tmp_path / "ran"
    folder.mkdir()
    file = folder / "patchwork_of_authors.py"
    file.write_text(MODULE.format(mark=str(mark), value=1))
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "code"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    file.write_text("raise SystemExit('not committed')")
    asked = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, check=True)
    monkeypatch.setattr(code.Adapter, "authors", f"{__name__}:FromRepository")
    return folder, mark, asked.stdout.decode().strip()


def test_remote_code_runs_at_the_commit_that_was_named(clone, capsys):
    folder, mark, commit = clone
    assert verify_encoder(ADAPTER, code=str(folder), code_revision=commit, trust_remote_code=True) == 0
    assert mark.exists()
    assert "patchwork_of_authors" not in sys.modules
    assert f"patchwork 1.0 at {commit[:12]}" in capsys.readouterr().out


@pytest.mark.parametrize("left_out", ["code", "code_revision", "trust_remote_code"])
def test_remote_code_does_not_run_without_clone_commit_and_consent(left_out, clone, capsys):
    folder, mark, commit = clone
    given = {"code": str(folder), "code_revision": commit, "trust_remote_code": True}
    assert verify_encoder(ADAPTER, **{key: value for key, value in given.items() if key != left_out}) == NOT_COMPARED
    assert not mark.exists()
    said = capsys.readouterr().err
    assert "git clone https://example.org/group/patchwork" in said
    assert f"--code-revision {'0' * 40} --trust-remote-code" in said


@pytest.mark.parametrize("revision", ["main", "HEAD", "0" * 40])
def test_a_branch_or_a_commit_that_is_not_there_is_refused(revision, clone):
    folder, mark, _ = clone
    with pytest.raises(ValueError, match=r"full commit that you have read|has no commit"):
        verify_encoder(ADAPTER, code=str(folder), code_revision=revision, trust_remote_code=True)
    assert not mark.exists()
