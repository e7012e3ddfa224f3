"""eva's backbones in sweeps: their experiments, and what is refused."""

import json

import pytest
import yaml

from tapct.encoders import registry
from tapct.encoders.eva_cards import SHIPPED
from tapct.encoders.options import encoder_of
from tapct.sweep.asked import Sweep
from tapct.sweep.commands import status
from tapct.sweep.experiment import CARD_CONTENT, SweepError
from tapct.sweep.lock import LOCK_FILE
from tapct.sweep.variants import parts_of
from tests.small import known_by_name


def experiments(tmp_path, encoders, **more):
    return Sweep(encoders=encoders, tasks="amos22", results=str(tmp_path / "results"), **more).experiments()


def own(path, **changes):
    content = yaml.safe_load((SHIPPED / "segresnet_encoder.yaml").read_text()) | {"name": "mine"} | changes
    path.write_text(yaml.safe_dump(content))
    return f"eva:{path}"


def test_an_experiment_has_a_folder_that_every_file_system_takes(tmp_path):
    plain, random = experiments(tmp_path, "eva:radiology/voco_l,eva:radiology/voco_l@random+window_size=64x64x64")
    assert plain.encoder == plain.environment["ENCODER"] == "eva:radiology/voco_l"
    assert plain.folder == tmp_path / "results" / "amos22" / "eva~radiology~voco_l"
    assert random.label == "eva~radiology~voco_l@random+window_size=64x64x64"
    assert encoder_of(random.label) == "eva:radiology/voco_l"
    assert parts_of("eva:radiology/voco_l@random") <= parts_of(random.label)
    assert plain.settings()["model.init_args.encoder"] == "eva:radiology/voco_l"


def test_a_card_of_a_users_is_called_by_its_name_and_its_content_counts(tmp_path, monkeypatch):
    card = own(tmp_path / "a+b@c.yaml")
    monkeypatch.chdir(tmp_path)
    (experiment,) = experiments(tmp_path, "eva:a+b@c.yaml+window_size=64x64x64")
    assert experiment.label == "eva~mine+window_size=64x64x64"
    assert experiment.encoder == card, "absolute: a worker may run elsewhere"
    before = experiment.settings()[CARD_CONTENT]
    own(tmp_path / "a+b@c.yaml", clip_hu=[-1000, 1000])
    assert experiment.settings()[CARD_CONTENT] != before


def test_status_takes_the_path_of_a_card_with_options(tmp_path, capsys):
    card = own(tmp_path / "own.yaml")
    for label in ("eva~mine", "eva~mine@random+window_size=64x64x64"):
        (tmp_path / "results" / "amos22" / label).mkdir(parents=True)
        (tmp_path / "results" / "amos22" / label / LOCK_FILE).touch()
    assert status(results=str(tmp_path / "results"), encoders=f"{card}@random+window_size=64x64x64", json=True) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["label"] == "eva~mine@random+window_size=64x64x64"


def test_two_cards_of_one_name_never_share_a_folder(tmp_path):
    one, other = own(tmp_path / "one.yaml"), own(tmp_path / "other.yaml")
    with pytest.raises(SweepError, match=r"have one name, which names their experiments"):
        experiments(tmp_path, f"{one},{other}")


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(SweepError, match="there is no card 'eva:voco_l'"):
        experiments(tmp_path, "eva:voco_l")


@pytest.mark.parametrize("name", ["eva:mine", "eva~mine"])
def test_a_third_parties_encoder_cannot_have_a_name_of_evas(name):
    with known_by_name(name, "tests.small:Small3D"):
        assert name not in registry.list_encoders()
        assert any("names of eva's backbones begin so" in why for why in registry.refused_encoders())
