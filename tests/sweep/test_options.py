"""Options of an encoder as experiments of their own: labels, folders, variables."""

import pytest

from tapct.encoders.options import encoder_of
from tapct.sweep.experiment import SweepError
from tapct.sweep.variants import meant, one_spelling
from tests.sweep.test_variants import experiments

LARGE = "tap-b-3d+in_plane_size=512"


def test_an_option_is_an_experiment_beside_the_encoder_as_it_is():
    found = experiments(encoders=f"tap-b-3d,{LARGE}", weights="tap-b-3d=/w.pt")
    assert list(found) == ["tap-b-3d", LARGE]
    assert [experiment.environment.get("ENCODER_OPTIONS") for experiment in found.values()] == [
        None,
        "in_plane_size=512",
    ]
    assert {experiment.environment["ENCODER_WEIGHTS"] for experiment in found.values()} == {"/w.pt"}
    assert {experiment.environment["ENCODER"] for experiment in found.values()} == {
        encoder_of(label) for label in found
    }
    assert len({experiment.folder for experiment in found.values()}) == 2
    assert found[LARGE].settings()["model.init_args.encoder_options"] == "in_plane_size=512"
    assert found[LARGE].settings() != found["tap-b-3d"].settings(), "one cannot pass for the other"


@pytest.mark.parametrize(
    ("encoder", "label"),
    [
        ("tap-b-3d+in_plane_size=512@random", "tap-b-3d@random+in_plane_size=512"),
        ("tap-b-3d @random + in_plane_size = 512", "tap-b-3d@random+in_plane_size=512"),
        ("tap-b-3d@random+in_plane_size=0512", "tap-b-3d@random+in_plane_size=512"),
        ("tap-b-3d+window_size=24x224x224+in_plane_size=512", "tap-b-3d+in_plane_size=512+window_size=24x224x224"),
        ("tap-b-3d+pad_hu=-1000.0+precision=fp32", "tap-b-3d+pad_hu=-1000+precision=fp32"),
        ("ct-fm+spacing_mm=1.50x1.5x1.5", "ct-fm+spacing_mm=1.5x1.5x1.5"),
        ("ct-fm+spacing_mm=null", "ct-fm+spacing_mm=null"),
        ("tap-b-3d+pad_hu=1e6", "tap-b-3d+pad_hu=1e06"),
        ("tap-b-3d+pad_hu=-1000.0000001", "tap-b-3d+pad_hu=-1000.0000001"),
        ("suprem+features=decoder", "suprem+features=decoder"),
        # What changes nothing is not in the name, and so one setting has one experiment.
        ("tap-b-3d+in_plane_size=224", "tap-b-3d"),
        ("suprem+features=encoder+precision=auto", "suprem"),
        ("astra+region=abdomen+spacing_mm=3x1.5x1.5", "astra+region=abdomen"),
        ("astra+region=abdomen+spacing_mm=2x1.5x1.5", "astra+region=abdomen+spacing_mm=2x1.5x1.5"),
    ],
)
def test_two_spellings_of_one_setting_are_one_experiment(encoder, label):
    found = experiments(encoders=f"{encoder},{label}")
    assert list(found) == [label]
    assert not set(label) & set(':*?"<>|/\\ ')


def test_all_with_an_option_is_all_that_have_it(capsys):
    found = experiments(encoders="all+ in_plane_size=512")
    assert {LARGE, "tap-s-2d+in_plane_size=512", "chance+in_plane_size=512"} <= set(found)
    assert "curia" in found, "slices of 512 are its own"
    assert not any(label.startswith("ct-fm") for label in found)
    assert "left out: ct-fm+in_plane_size=512: its card has no in_plane_size" in capsys.readouterr().err
    assert list(experiments(encoders="all+region=abdomen")) == ["astra+region=abdomen"]


def test_options_cross_with_what_else_is_varied():
    found = experiments(encoders=LARGE, tasks="luna16", adaptors="knn", fractions=(0.1,), draws=1)
    assert list(found) == [f"{LARGE}+adaptor=knn+fraction=0.1+draw=0"]


def test_the_variable_is_that_of_the_encoders_that_name_none(monkeypatch):
    monkeypatch.setenv("ENCODER_OPTIONS", "in_plane_size=512")
    found = experiments(encoders="tap-b-3d,tap-b-3d+in_plane_size=448,tap-s-3d@random")
    assert list(found) == [LARGE, "tap-b-3d+in_plane_size=448", "tap-s-3d@random+in_plane_size=512"]
    assert found[LARGE].environment["ENCODER_OPTIONS"] == "in_plane_size=512"


PLAIN = ["tap-b-3d", "tap-b-3d@random"]
LARGER = [LARGE, "tap-b-3d@random+in_plane_size=512", f"{LARGE}+bag=patch"]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("tap-b-3d", [*PLAIN, *LARGER]),
        ("tap-b-3d+in_plane_size=0512", LARGER),
        ("tap-b-3d + in_plane_size = 512 + bag=patch", LARGER[-1:]),
        ("tap-b-3d+in_plane_size=224", PLAIN[:1]),
        ("tap-b-3d@random+in_plane_size=224", PLAIN[1:]),
        ("tap-b-3d+in_plane_size=448", []),
        ("bag=patch", LARGER[-1:]),
        ("elsewhere+size=2", []),
    ],
)
def test_a_name_beside_experiments_means_them_however_its_options_are_spelt(name, labels):
    assert meant(name, [*PLAIN, *LARGER]) == labels


def test_a_name_beside_experiments_has_options_that_there_are():
    with pytest.raises(SweepError, match="Did you mean 'in_plane_size'"):
        meant("tap-b-3d+in_plane_sise=512", PLAIN)
    assert one_spelling("tap-b-3d@random+in_plane_size=448.0+fraction=0.1") == (
        "tap-b-3d@random+in_plane_size=448+fraction=0.1"
    )


def test_what_an_encoder_has_by_itself_is_said_and_nothing_else(capsys):
    experiments(encoders="tap-b-3d + in_plane_size = 512+pad_hu=-1008")
    assert "tap-b-3d: pad_hu is what it has by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("tap-b-3d+in_plane_sise=512", "Did you mean 'in_plane_size'"),
        ("tap-b-3d+in_plane_size=large", "in_plane_size cannot be 'large': it is of the type int or null"),
        ("tap-b-3d+in_plane_size=512.5", "in_plane_size cannot be '512.5'"),
        ("tap-b-3d+in_plane_size", "write OPTION=VALUE"),
        ("tap-b-3d+in_plane_size=512+in_plane_size=448", "is there twice"),
        ("tap-b-3d+window_size=24x224", "write 3 numbers"),
        ("tap-b-3d+window_size=25x224x224", "not a multiple of feature_stride"),
        ("tap-b-3d+pad_hu=nan", "pad_hu cannot be 'nan'"),
        ("tap-b-3d+weights=random", "has no option 'weights'"),
        ("suprem+features=decodr", "Did you mean 'decoder'"),
        ("all+region=thorax", "no encoder can be had as"),
        ("tap-b-3d+in_plane_size=512@published", "only @random may stand behind"),
    ],
)
def test_an_option_that_cannot_be_is_refused(encoder, words):
    with pytest.raises(SweepError, match=words):
        experiments(encoders=encoder)
