"""What is looked at before the first experiment runs: weights, on a network or without one, and data."""

import socket

import pytest

from tapct.encoders import Weights
from tapct.sweep import commands, ready
from tests.small import Small3D, known_by_name, small_card
from tests.sweep.fakes import Lab


class OnTheHub(Small3D):
    """An encoder whose weights are on the hub, and those of another as well."""

    card = small_card(name="on-hub", weights=Weights(repository="huggingface.co/group/model", file="w.safetensors"))


@pytest.fixture
def unreachable(monkeypatch, tmp_path) -> list[str]:
    """A machine without DNS; what names it asked for."""
    asked: list[str] = []

    def no_such_name(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    return asked


def reasons(**sweep) -> dict[str, str]:
    return ready.refused(commands.Sweep(accelerator="cpu", **sweep).experiments())


def test_experiments_whose_weights_or_data_cannot_be_had_are_refused_by_name(unreachable, tmp_path):
    found = reasons(encoders="tap-t-3d,ct-fm,suprem,chance,curia@random", tasks="quickstart,lits17")
    of_quickstart = {name: why for name, why in found.items() if name.endswith("on quickstart")}
    assert of_quickstart.keys() == {"ct-fm on quickstart", "suprem on quickstart"}
    assert "the name huggingface.co cannot be resolved" in of_quickstart["ct-fm on quickstart"]
    assert "huggingface.co was not asked again, see ct-fm" in of_quickstart["suprem on quickstart"]
    assert unreachable == ["huggingface.co"], "once, not once an experiment"
    assert "the data of lits17: DATA_ROOT is not set" in found["chance on lits17"]
    assert "cannot be resolved" in found["ct-fm on lits17"], "both are told at once"
    assert "DATA_ROOT" in found["ct-fm on lits17"]
    assert len(found) == 5 + 2


def test_a_file_of_weights_that_is_not_there_is_refused(unreachable, tmp_path):
    found = reasons(encoders="ct-fm", tasks="quickstart", weights=str(tmp_path / "none.pt"))
    assert f"there is no weights file {tmp_path}/none.pt" in found["ct-fm on quickstart"]
    assert unreachable == []


def test_the_others_run_and_the_refused_one_is_a_failure_with_its_reason(tmp_path, real_record, capsys):
    lab = Lab(tmp_path, real_record)
    asked = commands.Sweep(encoders="curia,suprem", tasks="amos22", results=str(lab.results))
    options = {"jobs": 1}

    def run(why: str | None) -> int:
        found = {} if why is None else {"suprem on amos22": why}
        return commands.run(asked, **options, start=lab.start, refused=lambda experiments: found)

    assert run("its weights are on the moon") == 1
    assert lab.ran() == ["curia on amos22"]
    printed = capsys.readouterr()
    assert "suprem on amos22: not started: its weights are on the moon" in printed.err
    assert "1 done, 1 failed" in printed.out
    assert "its weights are on the moon" in printed.out
    assert run("and now on Mars") == 1
    assert "and now on Mars" in capsys.readouterr().out
    assert run(None) == 0
    assert lab.ran() == ["curia on amos22", "suprem on amos22"]
    assert not (lab.folder("suprem on amos22") / "failure.json").exists()


def test_what_was_fetched_before_is_no_reason(unreachable, tmp_path):
    there = tmp_path / "hub" / "models--group--model"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("a" * 40)
    kept = there / "snapshots" / ("a" * 40) / "w.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    with known_by_name("on-hub", "tests.sweep.test_ready:OnTheHub"):
        assert reasons(encoders="on-hub", tasks="quickstart") == {}
