"""Random weights, adaptors, shares of the training patients and perturbations as experiments of their own."""

import pytest

from tapct.encoders.options import encoder_of
from tapct.sweep import commands
from tapct.sweep.experiment import SweepError
from tapct.volumes.perturb import PERTURBATIONS


def experiments(**asked):
    return {
        experiment.label: experiment
        for experiment in commands.Sweep(
            **{"encoders": "curia", "tasks": "amos22", "results": "r", **asked}
        ).experiments()
    }


def test_random_weights_are_an_experiment_beside_the_published_ones():
    found = experiments(encoders="curia,curia@random", weights="curia=/w.pt")
    assert list(found) == ["curia", "curia@random"]
    assert [experiment.environment["ENCODER_WEIGHTS"] for experiment in found.values()] == ["/w.pt", "random"]
    assert {experiment.environment["ENCODER"] for experiment in found.values()} == {"curia"}
    assert len({experiment.folder for experiment in found.values()}) == 2


def test_all_with_random_weights():
    found = experiments(encoders="all@random")
    assert {"tap-b-3d@random", "curia@random"} <= set(found)
    assert all(label.endswith("@random") for label in found)
    assert "chance@random" not in found, "what has no weights is the same experiment with random ones"


def test_each_share_and_draw_is_an_experiment_and_all_patients_are_one():
    found = experiments(fractions=(0.01, 0.1, 1), draws=2)
    assert list(found) == [
        "curia",
        *(f"curia+fraction={share}+draw={draw}" for share in ("0.1", "0.01") for draw in (0, 1)),
    ]
    few = found["curia+fraction=0.01+draw=1"]
    assert (few.environment["TRAIN_FRACTION"], few.environment["TRAIN_DRAW"]) == ("0.01", "1")
    assert "TRAIN_FRACTION" not in found["curia"].environment
    assert few.settings()["data.init_args.train_fraction"] == "0.01"
    assert few.settings() != found["curia"].settings(), "one cannot pass for the other"


def test_each_perturbation_is_an_experiment_beside_the_unperturbed_one():
    found = experiments(perturbations="all")
    assert list(found) == ["curia", *(f"curia+perturbation={name}" for name in PERTURBATIONS)]
    assert {experiment.settings()["data.init_args.perturbation"] for experiment in found.values()} == {
        "null",
        *PERTURBATIONS,
    }


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
        ({"adaptors": "knnn"}, "there is no adaptor 'knnn'. Did you mean 'knn'"),
        ({"adaptors": "abmil:max"}, "attention pools by itself"),
        ({"adaptors": "abmil:mask"}, "attention pools by itself"),
        ({"adaptors": "abmil:patch"}, "--adaptors abmil --bags patch"),
        ({"bags": "pach"}, "there is no bag 'pach'. Did you mean 'patch'"),
        ({"bags": ","}, "name at least one bag"),
        ({"adaptors": "linear:median"}, "not by 'median'"),
        ({"adaptors": ","}, "name at least one adaptor"),
    ],
)
def test_what_cannot_be_is_refused(asked, words):
    with pytest.raises(SweepError, match=words):
        experiments(**asked)


def test_each_adaptor_is_an_experiment_and_the_tasks_own_has_no_label_of_its_own():
    asked = "knn,linear:mean+max,abmil,linear, knn"
    whole_scan = experiments(tasks="fdg_pet_ct", adaptors=asked)  # its own is abmil
    crop = experiments(tasks="luna16", adaptors=asked)  # its own is linear
    assert list(whole_scan) == [
        "curia+adaptor=knn",
        "curia+adaptor=linear-mean-max",
        "curia",
        "curia+adaptor=linear",
    ]
    assert list(crop) == ["curia+adaptor=knn", "curia+adaptor=linear-mean-max", "curia+adaptor=abmil", "curia"]
    assert [c.settings()["model.init_args.adaptor"] for c in crop.values()] == [
        "knn",
        "linear:mean+max",
        "abmil",
        "linear",
    ]
    assert crop["curia"].settings() == experiments(tasks="luna16")["curia"].settings(), (
        "the experiment that a plain sweep has"
    )
    assert {encoder_of(label) for label in (*crop, *whole_scan)} == {"curia"}
    assert not any(set(label) & set(':*?"<>|/\\ ') for label in (*crop, *whole_scan))


def test_all_adaptors_are_the_heads_and_cross_with_encoders_and_shares():
    found = experiments(encoders="curia,curia@random", tasks="luna16", adaptors="all", fractions=(0.1,), draws=1)
    assert {label.removesuffix("+fraction=0.1+draw=0") for label in found} == {
        f"{encoder}{adaptor}"
        for encoder in ("curia", "curia@random")
        for adaptor in ("", "+adaptor=knn", "+adaptor=prototype", "+adaptor=abmil")
    }
    assert found["curia@random+adaptor=knn+fraction=0.1+draw=0"].environment["ADAPTOR"] == "knn"


def test_each_kind_of_task_takes_its_own_heads(capsys):
    found = experiments(tasks="totalsegmentator_age", adaptors="all,ridge:max,knn")  # its own is ridge
    assert list(found) == ["curia", "curia+adaptor=attention", "curia+adaptor=ridge-max"]
    assert "left out: knn on totalsegmentator_age: its probe takes ridge, attention" in capsys.readouterr().err
    assert found["curia+adaptor=ridge-max"].environment["ADAPTOR"] == "ridge:max"


def test_the_variable_is_the_option(monkeypatch):
    monkeypatch.setenv("ADAPTOR", "linear")
    assert list(experiments(tasks="luna16")) == ["curia"]
    assert list(experiments(tasks="fdg_pet_ct")) == ["curia+adaptor=linear"]
    assert list(experiments(tasks="luna16", adaptors="knn")) == ["curia+adaptor=knn"]


def test_segmentation_has_no_adaptors_and_says_so(capsys):
    found = experiments(tasks="amos22,luna16", adaptors="knn")
    assert list(found) == ["curia", "curia+adaptor=knn"]
    assert "ADAPTOR" not in found["curia"].environment
    assert "amos22 has no adaptors" in capsys.readouterr().err


def test_an_encoder_without_class_tokens_is_left_out_of_what_pools_them(capsys):
    found = experiments(encoders="tap-b-3d,suprem", tasks="luna16", adaptors="linear:cls,linear:mean")
    assert list(found) == [
        "tap-b-3d+adaptor=linear-cls",
        "tap-b-3d+adaptor=linear-mean",
        "suprem+adaptor=linear-mean",
    ]
    assert "suprem has no class token" in capsys.readouterr().err


def test_a_task_without_masks_is_left_out_of_what_pools_over_them(capsys):
    found = experiments(tasks="luna16,luna25,amos22", adaptors="linear:mask,knn")
    assert found["curia+adaptor=linear-mask"].task == "luna16"
    assert "left out: linear:mask on luna25: luna25 has no masks" in capsys.readouterr().err
    assert list(experiments(tasks="luna25", adaptors="linear:mask,knn")) == ["curia+adaptor=knn"]
    with pytest.raises(SweepError, match=r"what linear:mask needs: nothing runs"):
        experiments(tasks="luna25,rsna2023", adaptors="linear:mask")
    with pytest.raises(SweepError, match=r"what linear:cls needs: nothing runs"):
        experiments(encoders="suprem", tasks="luna16", adaptors="linear:cls")


def test_each_bag_is_an_experiment_and_the_encoders_own_has_no_label_of_its_own(capsys):
    found = experiments(encoders="tap-b-3d,suprem", tasks="fdg_pet_ct", bags="auto,cls,patch")
    assert list(found) == ["tap-b-3d", "tap-b-3d+bag=patch", "suprem"]
    assert "left out: suprem on fdg_pet_ct with the bag cls: suprem has no class tokens" in capsys.readouterr().err
    assert [experiment.settings()["model.init_args.bag"] for experiment in found.values()] == ["auto", "patch", "auto"]
    plain = experiments(encoders="tap-b-3d,suprem", tasks="fdg_pet_ct")
    assert all(plain[label].settings() == found[label].settings() for label in ("tap-b-3d", "suprem"))
    assert encoder_of("tap-b-3d+bag=patch") == "tap-b-3d"


def test_bags_are_of_attention_and_cross_with_what_else_is_varied(capsys):
    found = experiments(tasks="luna16", adaptors="linear,abmil", bags="auto,patch", fractions=(0.1,), draws=1)
    assert [label.removesuffix("+fraction=0.1+draw=0") for label in found] == [
        "curia",
        "curia+adaptor=abmil",
        "curia+bag=patch+adaptor=abmil",
    ]
    assert "curia on luna16 with the bag patch: linear pools features by itself" in capsys.readouterr().err
    with pytest.raises(SweepError, match=r"what the bag patch needs: nothing runs"):
        experiments(tasks="luna16", bags="patch")
    assert list(experiments(tasks="amos22", bags="patch")) == ["curia"]
    assert "amos22 has no bags" in capsys.readouterr().err


def test_the_variable_is_the_option_and_a_config_may_have_its_own_bag(monkeypatch, tmp_path):
    monkeypatch.setenv("BAG", "patch")
    assert list(experiments(tasks="fdg_pet_ct")) == ["curia+bag=patch"]
    monkeypatch.delenv("BAG")
    own = tmp_path / "own.yaml"
    own.write_text("model:\n  init_args:\n    bag: ${oc.env:BAG, patch}\n")
    assert list(experiments(tasks="fdg_pet_ct", overrides=[str(own)], bags="auto,patch")) == ["curia+bag=cls", "curia"]
    own.write_text("model:\n  init_args:\n    bag: patch\n")
    with pytest.raises(SweepError, match=r"bag does not follow the variable BAG.*Write: bag: \$\{oc.env:BAG, patch\}"):
        experiments(tasks="fdg_pet_ct", overrides=[str(own)], bags="cls")


def test_a_config_that_fixes_its_adaptor_cannot_be_swept_over(tmp_path):
    override = tmp_path / "fixed.yaml"
    override.write_text("model:\n  init_args:\n    adaptor: knn\n")
    assert list(experiments(tasks="luna16", overrides=[str(override)])) == ["curia"]
    with pytest.raises(SweepError, match=r"does not follow the variable ADAPTOR"):
        experiments(tasks="luna16", overrides=[str(override)], adaptors="linear")
    other = tmp_path / "other.yaml"
    other.write_text("model:\n  init_args:\n    adaptor: ${oc.env:ADAPTOR, knn}\n")
    found = experiments(tasks="luna16", overrides=[str(other)], adaptors="linear,knn")
    assert list(found) == ["curia+adaptor=linear", "curia"], "the override's default is the task's own"
