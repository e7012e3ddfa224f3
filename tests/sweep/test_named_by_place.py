"""Encoders that are named by where they are: `package.module:Class`, and the folder of an exported one."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tapct.cli import main
from tapct.encoders import list_encoders, load_encoder
from tapct.encoders.registry import places_of
from tapct.encoders.tap_t import FOLDER
from tapct.sweep.bill.settings import wanted
from tapct.sweep.experiment import SweepError
from tapct.sweep.variants import variants
from tests.small import Small3D
from tests.sweep.fakes import Lab

BY_CLASS = "tests.small:Small3D"


class Unsafe(Small3D):
    """One whose name would be a path."""

    card = replace(Small3D.card, name="my group/model:2")


class Curia(Small3D):
    """One by the name of another."""

    card = replace(Small3D.card, name="curia")


@pytest.fixture
def exported(tmp_path) -> Path:
    folder = tmp_path / "runs" / "mine@last"
    shutil.copytree(FOLDER, folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(card | {"name": "mine"}))
    return folder


def test_their_experiments_are_called_by_their_cards(exported, tmp_path, real_record, capsys, monkeypatch):
    lab = Lab(tmp_path, real_record)
    encoders = f"{BY_CLASS}@random+precision=fp32,{exported}"
    names = ["small-3d@random+precision=fp32 on amos22", "mine on amos22"]
    monkeypatch.setattr("tapct.sweep.worker.parse_options", lambda *_: {})  # the record is of another encoder
    assert lab.run(encoders, "amos22") == 0
    assert lab.ran() == names
    assert lab.run(encoders, "amos22") == 0
    assert lab.ran() == names, "done"
    capsys.readouterr()
    for asked in (encoders, "mine,small-3d"):
        monkeypatch.setattr(sys, "argv", ["tapct", "status", "--json", "-e", asked, "--results", str(lab.results)])
        with pytest.raises(SystemExit):
            main()
        shown = json.loads(capsys.readouterr().out)
        assert {state["label"] for state in shown if state["status"] == "done"} == {
            "mine",
            "small-3d@random+precision=fp32",
        }


def test_their_needs_are_known_and_a_changed_card_is_another_setting(exported):
    from tapct.sweep.commands import Sweep

    by_class, by_folder = Sweep(encoders=f"{BY_CLASS}@random,{exported}", tasks="quickstart").experiments()
    assert wanted(by_class).encoding.load("random").card.name == "small-3d"
    assert wanted(by_folder).encoding.load(None).card.name == "mine"
    before = by_folder.settings()
    (exported / "card.json").write_text((exported / "card.json").read_text(encoding="utf-8").replace("TAP-T", "Mine"))
    assert by_folder.settings() != before


def test_an_exported_one_may_be_given_a_name(exported, tmp_path, real_record):
    """Two runs of one architecture have one card's name, and would be one model on the page."""
    lab = Lab(tmp_path, real_record)
    named = f"second={exported}"
    assert lab.run(f"{exported},{named}+precision=fp32", "amos22", dry_run=True) == 0
    plain, again = variants(f"{exported},{named}+in_plane_size=64", list_encoders())
    assert (plain.label, again.label) == ("mine", "second+in_plane_size=64")
    assert again.encoder == f"second={exported.absolute()}"
    encoder = load_encoder(again.encoder, "random", deferred=True, in_plane_size=64)
    assert (encoder.card.name, encoder.card.display_name, encoder.card.in_plane_size) == ("second", "second", 64)
    assert places_of(f"{exported},{named}") == {"mine": str(exported), "second": named}
    with pytest.raises(SweepError, match=r"the name 'curia' of another encoder.*NAME="):
        variants(f"curia={exported}", list_encoders())
    with pytest.raises(SweepError, match="there is no encoder 'second=nowhere'"):
        variants("second=nowhere", list_encoders())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{__name__}:Unsafe", "after which folders of results are called"),
        (f"{__name__}:Curia", "the name 'curia' of another encoder, which is installed"),
        ("no_such_module:Encoder", "cannot be imported .*PYTHONPATH"),
        ("tests.small:small_card", "is not a subclass of Encoder"),
    ],
)
def test_names_that_would_mix_results_are_refused(name, message):
    with pytest.raises(SweepError, match=message):
        variants(name, list_encoders())
