"""Random weights, shares of the training patients and perturbations as cells of their own."""

import pytest

from tapct.sweep import commands
from tapct.sweep.cell import SweepError
from tapct.volumes.perturb import PERTURBATIONS


def cells(**asked):
    return {
        cell.label: cell
        for cell in commands.Sweep(**{"encoders": "curia", "tasks": "amos22", "results": "r", **asked}).cells()
    }


def test_random_weights_are_a_cell_beside_the_published_ones():
    found = cells(encoders="curia,curia@random", weights="curia=/w.pt")
    assert list(found) == ["curia", "curia@random"]
    assert [cell.environment["ENCODER_WEIGHTS"] for cell in found.values()] == ["/w.pt", "random"]
    assert {cell.environment["ENCODER"] for cell in found.values()} == {"curia"}
    assert len({cell.folder for cell in found.values()}) == 2


def test_all_with_random_weights():
    found = cells(encoders="all@random")
    assert {"tap-b-3d@random", "curia@random"} <= set(found)
    assert all(label.endswith("@random") for label in found)
    assert "chance@random" not in found, "what has no weights is the same cell with random ones"


def test_each_share_and_draw_is_a_cell_and_all_patients_are_one():
    found = cells(fractions=(0.01, 0.1, 1), draws=2)
    assert list(found) == [
        "curia",
        *(f"curia+fraction={share}+draw={draw}" for share in ("0.1", "0.01") for draw in (0, 1)),
    ]
    few = found["curia+fraction=0.01+draw=1"]
    assert (few.environment["TRAIN_FRACTION"], few.environment["TRAIN_DRAW"]) == ("0.01", "1")
    assert "TRAIN_FRACTION" not in found["curia"].environment
    assert few.settings()["data.init_args.train_fraction"] == "0.01"
    assert few.settings() != found["curia"].settings(), "one cannot pass for the other"


def test_each_perturbation_is_a_cell_beside_the_unperturbed_one():
    found = cells(perturbations="all")
    assert list(found) == ["curia", *(f"curia+perturbation={name}" for name in PERTURBATIONS)]
    assert {cell.settings()["data.init_args.perturbation"] for cell in found.values()} == {"null", *PERTURBATIONS}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"encoders": "curai@random"}, "Did you mean 'curia'"),
        ({"encoders": "curia@published"}, "only @random may stand behind"),
        ({"encoders": "chance@random"}, "has no weights that could be random"),
        ({"encoders": ","}, "name at least one encoder"),
        ({"fractions": (0.0,)}, "must be in"),
        ({"fractions": (0.5,), "draws": 0}, "must be in"),
        ({"perturbations": "nois"}, "there is no perturbation"),
    ],
)
def test_what_cannot_be_is_refused(asked, words):
    with pytest.raises(SweepError, match=words):
        cells(**asked)


def test_shares_are_numbers():
    assert commands.shares("0.01, 1") == [0.01, 1]
    assert commands.shares(None) == []
    with pytest.raises(SweepError, match="write numbers"):
        commands.shares("a tenth")
