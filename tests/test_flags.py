"""Red flags: each is raised by what it is for, and not by what is valid."""

import hashlib

import numpy as np
import pytest
import torch

from tapct.flags import MESSAGES, cross_flags, own_flags, with_cross_checks, with_own_checks
from tapct.metrics.dice import confusion_matrix, dice_per_class, summarise
from tapct.records import CaseResult, Flag, ProbeRecord, Record, RunRecord, TaskRecord, write_record
from tests.flags_simulated import rates
from tests.records.made import changed, encoder

TASK = {
    "name": "made",
    "version": 1,
    "kind": "classification",
    "metric": "MicroAUROC",
    "classes": ["l0"],
    "options": {},
    "split_sha256": "0" * 64,
    "train_fraction": 1.0,
    "train_draw": 0,
    "perturbation": None,
}
ENCODER = encoder("curia", weights="/weights/curia.safetensors", precision_used="fp32")
PROBE = {"seed": 0, "feature_dtype": "bf16", "nsd_tolerance_mm": 2.0}


def record(*runs: list[CaseResult], split="test", selection=None, metrics=None, **changes) -> Record:
    made = [
        RunRecord(
            run=i,
            seed=i,
            probe_sha256=f"{i:064}",
            selection=selection,
            metrics={split: metrics or {}},
            cases={split: cases},
        )
        for i, cases in enumerate(runs)
    ]
    sections = {"encoder": ENCODER, "task": TASK, "probe": PROBE}
    fields = {key: {**of, **changes.pop(key, {})} for key, of in sections.items()}
    return Record(notice=None, runs_planned=len(made), runs=made, **fields, **{"execution": {}, **changes})


def scans(probabilities, targets, patients=None) -> list[CaseResult]:
    """Cases of (cases, labels) probabilities and targets."""
    names = [f"l{k}" for k in range(np.shape(probabilities)[1])]
    return [
        CaseResult(
            case=f"case {i}",
            patient=f"patient {i if patients is None else patients[i]}",
            loss=1.0,
            padding_voxels=(0, 0, 0),
            probabilities=dict(zip(names, map(float, p), strict=True)),
            target=dict(zip(names, map(int, t), strict=True)),
        )
        for i, (p, t) in enumerate(zip(probabilities, targets, strict=True))
    ]


def ids(flags: list[Flag]) -> list[str]:
    return [flag.id for flag in flags]


def found(one: Record, name: str) -> str | None:
    """What was found of a flag in a record by itself."""
    return next((flag.detail for flag in own_flags(one) if flag.id == name), None)


def informed(targets, rng, strength: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(strength * (2 * targets - 1) + rng.normal(size=targets.shape))))


# -- Chance ------------------------------------------------------------------------------------------------


def verdict(one: Record) -> str | None:
    """Which of the two flags of chance a record has."""
    names = [flag.id for flag in own_flags(one) if flag.id in ("chance-level", "too-few-to-tell")]
    assert len(names) <= 1
    return names[0] if names else None


@pytest.mark.parametrize(
    ("metric", "sets", "large"),
    [
        *(("MicroAUROC", 10, 4), ("MicroAP", 10, 10)),
        *(pytest.param(metric, 30, 10, marks=pytest.mark.thorough) for metric in ("MicroAUROC", "MicroAP")),
    ],
)
def test_what_knows_something_is_rarely_called_at_chance_and_what_guesses_mostly(metric, sets, large, monkeypatch):
    """The quick version of `benchmarks/flags.py`, at 10 % positives."""
    monkeypatch.setattr("tapct.flags.chance.DEALS", 200)
    knows, guesses = (rates(100, 10, auroc, metric, simulations=sets, runs=1) for auroc in (0.8, 0.5))
    assert knows["chance-level"] <= 0.1
    assert guesses["chance-level"] >= 0.6
    assert guesses["chance-level"] + guesses["too-few-to-tell"] >= 0.9
    many = rates(400, 40, 0.5, metric, simulations=large, runs=1)
    assert many["chance-level"] >= 0.8


def test_of_few_cases_neither_is_said():
    rng = np.random.default_rng(6)
    targets = np.array([[1], [0], [0], [0], [1]])
    assert verdict(record(scans(np.array([[0.5], [0.6], [0.3], [0.2], [0.1]]), targets))) == "too-few-to-tell"
    targets = (rng.permutation(200) < 100).astype(int)[:, None]
    assert verdict(record(scans(rng.random((200, 1)), targets))) == "chance-level"
    assert verdict(record(scans(informed(targets, rng, 1.5), targets))) is None


@pytest.mark.parametrize(("sets", "most"), [(10, 2), pytest.param(40, 4, marks=pytest.mark.thorough)])
def test_the_scores_of_a_patient_are_no_evidence_each_for_itself(sets, most):
    """Twelve patients with twenty scans of one answer each: an order of patients by luck is no order of 240 scans."""
    targets, patients = np.repeat([0, 1] * 6, 20)[:, None], np.repeat(np.arange(12), 20)
    better = 0
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        p = np.clip(0.5 + 0.1 * rng.normal(size=12)[patients] + 0.01 * rng.normal(size=240), 0, 1)[:, None]
        better += verdict(record(scans(p, targets, patients))) is None
    assert better <= most  # nominal 1 of 40; scan by scan it would be most of them


def test_a_micro_auroc_that_is_only_the_frequency_of_labels_is_chance():
    """Over all pairs, a constant prediction of common and rare labels is far above 0.5."""
    rng = np.random.default_rng(1)
    targets = (rng.random((100, 4)) < [0.9, 0.7, 0.2, 0.05]).astype(int)
    constant = np.broadcast_to([0.9, 0.7, 0.2, 0.05], targets.shape) + rng.normal(0, 0.01, targets.shape)
    for metric in ("MicroAUROC", "MicroAP"):
        detail = found(record(scans(constant, targets), task={"metric": metric}), "chance-level")
        assert detail.startswith(f"{metric} 0."), "the ranked metric, and no other"
        assert "Macro" not in detail
    assert found(record(scans(informed(targets, rng, 1.5), targets)), "chance-level") is None


def test_a_mean_over_labels_is_judged_label_by_label_and_rare_ones_are_no_part_of_it():
    rng = np.random.default_rng(1)
    targets = (rng.random((120, 4)) < [0.6, 0.5, 0.3, 0.03]).astype(float)
    guessed = np.broadcast_to([0.6, 0.5, 0.3, 0.03], targets.shape) + rng.normal(0, 0.01, targets.shape)
    guessed[:, 3] = np.clip(guessed[:, 3] + 0.5 * targets[:, 3], 0, 1)  # it knows the rare one
    detail = found(record(scans(guessed, targets.astype(int)), task={"metric": "MacroAUROC"}), "chance-level")
    assert 0.35 < float(detail.split()[1].rstrip(":")) < 0.6
    for metric in ("MacroAUROC", "MacroAP", "MacroAPSkill"):
        assert verdict(record(scans(informed(targets, rng, 1.5), targets.astype(int)), task={"metric": metric})) is None
    few = record(scans(guessed[:15], targets[:15].astype(int)), task={"metric": "MacroAUROC"})
    assert verdict(few) is None, "it is undefined"


def test_scores_that_are_all_the_same_are_at_chance_however_few_they_are():
    assert verdict(record(scans(np.full((4, 1), 0.5), np.array([[1], [0], [1], [0]])))) == "chance-level"


def test_one_patient_cannot_be_told_from_chance():
    """Whatever is dealt out to one patient is what was said of it: a model that is right throughout was *at chance*."""
    rng = np.random.default_rng(4)
    targets, one = rng.integers(0, 2, (60, 3)), np.zeros(60, dtype=int)
    for p in (informed(targets, rng, 3.0), rng.random((60, 3))):
        assert "one patient" in found(record(scans(p, targets, one)), "too-few-to-tell")
        assert found(record(scans(p, targets, one)), "chance-level") is None
    prior = np.broadcast_to([0.2, 0.5, 0.7], targets.shape)
    assert verdict(record(scans(prior, targets, one))) == "chance-level", "it says the same of every case"


def test_logits_beyond_where_sigmoids_are_1_are_no_guesses():
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 2, (60, 2))
    logits = 60 + 2 * targets + rng.random(targets.shape)
    older = scans(1 / (1 + np.exp(-logits)), targets)
    assert "MicroAUROC" in found(record(older), "chance-level"), "all probabilities are 1"
    cases = [
        case.model_copy(update={"logits": dict(zip(case.probabilities, row.tolist(), strict=True))})
        for case, row in zip(older, logits, strict=True)
    ]
    assert verdict(record(cases)) is None


def segmented(references: list[np.ndarray], predictions: list[np.ndarray], names: list[str]) -> list[CaseResult]:
    cases = []
    for i, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        counts = confusion_matrix(*(torch.from_numpy(a) for a in (prediction, reference)), len(names))
        dice = {
            n: None if np.isnan(d) else float(d) for n, d in zip(names, dice_per_class(counts.numpy()), strict=True)
        }
        voxels = dict(zip(names, counts.sum(1).tolist(), strict=True))
        for of in (dice, voxels):
            del of["background"]
        cases.append(
            CaseResult(
                case=f"case {i}",
                patient=f"patient {i}",
                loss=1.0,
                padding_voxels=(0, 0, 0),
                dice={"native": dice, "paper": dice},
                voxels=reference.size,
                reference_voxels=voxels,
            )
        )
    return cases


def headline(cases) -> float:
    rows = [list(case.dice["native"].values()) for case in cases]
    return summarise(np.array([[np.nan, *(np.nan if v is None else v for v in row)] for row in rows])).headline


def test_one_class_everywhere_is_chance_in_segmentation_as_is_background_everywhere():
    rng = np.random.default_rng(3)
    names = ["background", "body", "rare"]
    references = [rng.choice(3, size=500, p=[0.3, 0.6, 0.1] if i % 4 else [0.4, 0.6, 0.0]) for i in range(12)]
    constants = {k: segmented(references, [np.full(500, k) for _ in references], names) for k in range(3)}
    best = max(constants, key=lambda k: headline(constants[k]))
    assert best == 1
    for cases in constants.values():
        detail = next(flag.detail for flag in own_flags(record(cases)) if flag.id.startswith(("chance", "too-few")))
        gap = float(detail.split("best single class by ")[1].split()[0])
        assert gap == pytest.approx(headline(cases) - headline(constants[best]), abs=6e-4), (
            "against the best of them, by brute force"
        )
    noisy = [np.where(rng.random(500) < 0.7, r, rng.permutation(r)) for r in references]
    assert verdict(record(segmented(references, noisy, names))) is None


def test_a_single_patient_is_flagged_only_if_it_is_no_better_than_the_constant():
    reference = np.repeat([0, 1, 2], [100, 300, 100])
    names = ["background", "body", "rare"]
    for prediction, expected in ((reference, None), (np.zeros(500, dtype=int), "too-few-to-tell")):
        assert verdict(record(segmented([reference], [prediction], names))) == expected


def test_references_of_one_class_say_nothing_of_chance():
    assert verdict(record(scans(np.random.rand(5, 1), np.ones((5, 1))))) is None


# -- One record --------------------------------------------------------------------------------------------

GOOD = scans(np.linspace(0, 1, 40)[:, None], np.repeat([0, 1], 20)[:, None])
OTHER = scans(np.linspace(0, 0.9, 40)[:, None], np.repeat([0, 1], 20)[:, None])
SEEN = {
    "cases": 16,
    "channels": 100,
    "values_per_channel": 8,
    "non_finite": 0,
    "constant_channels": 0,
    "repeated_cases": 0,
}


def execution(**training):
    usual = {"loss": [2.0**-i for i in range(10)], "start_sha256": "5" * 64, "is_zero": False}
    return {"features": SEEN, "runs": [{"run": i, "seconds": {}, "training": {**usual, **training}} for i in (0, 1)]}


def test_a_valid_record_has_no_flag():
    assert own_flags(record(GOOD, OTHER, execution=execution())) == []


@pytest.mark.parametrize(
    ("seen", "flag", "detail"),
    [
        ({"constant_channels": 9}, None, None),
        ({"constant_channels": 10}, "constant-features", "10 of 100 channels"),
        ({"repeated_cases": 1}, "repeated-features", "1 of 16"),
        ({"non_finite": 7, "constant_channels": None}, "non-finite-features", "7 values"),
    ],
)
def test_features_that_say_nothing_are_flagged(seen, flag, detail):
    flags = own_flags(record(GOOD, OTHER, execution={"features": {**SEEN, **seen}}))
    assert ids(flags) == ([flag] if flag else [])
    assert all(detail in one.detail for one in flags)


@pytest.mark.parametrize(
    ("training", "flag", "detail"),
    [
        ({"loss": [1.0] * 10}, "loss-never-fell", "runs 0, 1: from 1.0 to 1.0"),
        ({"loss": [1.0] * 9 + [None]}, "loss-never-fell", "1.0 to None"),
        ({"loss": [1.0] * 9}, None, None),
        ({"loss": [float(10 - i) for i in range(10)]}, "not-converged", "runs 0, 1"),
        ({"loss": [1.0, 0.2, *[0.1] * 8]}, None, None),
        ({"start_sha256": f"{1:064}"}, "head-unchanged", "run 1"),
        ({"is_zero": True}, "zero-head", "runs 0, 1"),
    ],
)
def test_training_that_did_nothing_is_flagged(training, flag, detail):
    flags = own_flags(record(GOOD, OTHER, execution=execution(**training)))
    assert ids(flags) == ([flag] if flag else [])
    assert all(detail in one.detail for one in flags)


def test_seeds_that_give_the_same_numbers_or_heads_are_flagged():
    assert "2 runs have 1 different numbers" in found(record(GOOD, GOOD), "seeds-without-effect")
    same_head = record(GOOD, OTHER)
    twins = [run.model_copy(update={"probe_sha256": "f" * 64}) for run in same_head.runs]
    assert "heads" in found(same_head.model_copy(update={"runs": twins}), "seeds-without-effect")


def test_fewer_cases_than_the_split_has_are_flagged():
    task = {"cases": {"train": 3, "val": 0, "test": 41}}
    assert found(record(GOOD, OTHER[:-1], task=task), "cases-missing") == "39 of 41 test cases"
    assert found(record(GOOD, task={"cases": {"train": 3, "val": 0, "test": 40}}), "cases-missing") is None


def test_a_metric_that_some_cases_do_not_define_is_flagged_with_their_number():
    def case(name, liver, hd95):
        dice = {"liver": liver, "spleen": None}
        return CaseResult(
            case=name,
            patient=name,
            loss=1.0,
            dice={"native": dice, "paper": dice},
            hd95_mm={"liver": hd95, "spleen": None},
            padding_voxels=(0, 0, 0),
        )

    one = record([case("a", 0.5, 3.0), case("b", 0.5, 2.0), case("c", 0.1, None)], [case("a", 0.5, None)] * 1)
    assert found(one, "metric-on-fewer-cases") == "hd95_mm_native on 0 of 1 cases"
    whole = record([case("a", 0.5, 3.0), case("b", None, None)])
    assert "dice_native on 1 of 2 cases" in found(whole, "metric-on-fewer-cases")


def test_labels_that_are_left_out_are_flagged():
    assert found(record(GOOD, metrics={"UndefinedLabels": 1.0}), "undefined-labels") == "1 of 1 labels"
    assert found(record(GOOD, metrics={"UndefinedLabels": 0.0}), "undefined-labels") is None
    unnamed = record(GOOD, metrics={"UndefinedLabels": 1.0}, task={"classes": []})
    assert found(unnamed, "undefined-labels") == "1 of 1 labels", "the task's record need not name them"


def selection(rate, step, rates=(0.001, 0.01, 0.1), steps=(10, 20, 30)):
    candidates = [{"learning_rate": r, "scores": [[s, 0.5] for s in steps]} for r in rates]
    return {"learning_rate": rate, "step": step, "score": 0.5, "candidates": candidates}


@pytest.mark.parametrize(
    ("chosen", "flags"),
    [
        (selection(0.01, 20), []),
        (selection(0.01, 10), ["best-at-first-look"]),
        (selection(0.1, 20), ["learning-rate-at-edge"]),
        (selection(0.001, 30), ["learning-rate-at-edge"]),
        (selection(0.1, 20, rates=(0.01, 0.1)), []),
        (selection(0.01, 10, steps=(10, 20)), []),
        (selection(None, 30, rates=(None,)) | {"score": None}, []),
    ],
)
def test_a_choice_at_the_edge_of_what_was_tried_is_flagged(chosen, flags):
    assert ids(own_flags(record(GOOD, OTHER, selection=chosen))) == flags


def test_what_a_record_of_before_does_not_hold_raises_no_flag():
    assert own_flags(record(GOOD, OTHER, execution={"runs": [{"run": 1, "seconds": {}}]})) == []
    bare = record(GOOD).model_copy(update={"task": TaskRecord(name="made", version=1), "probe": ProbeRecord()})
    assert own_flags(bare) == []


# -- Next to other experiments ------------------------------------------------------------------------------------


def heads(one: Record, name: str) -> Record:
    runs = [
        run.model_copy(update={"probe_sha256": hashlib.sha256(f"{name}{run.run}".encode()).hexdigest()})
        for run in one.runs
    ]
    return one.model_copy(update={"runs": runs})


MINE = heads(record(GOOD, OTHER), "mine")
MERLIN = {"card": {**ENCODER["card"], "name": "merlin"}, "weights_sha256": "e" * 64}
NOISE = {"perturbation": "noise"}


@pytest.mark.parametrize(
    ("changes", "flag", "detail"),
    [
        ({}, None, None),
        ({"encoder": MERLIN}, "equal-to-another-encoder", "are those of merlin"),
        ({"encoder": {"weights": "random", "weights_sha256": "d" * 64}}, "setting-without-effect", "weights_sha256"),
        ({"encoder": {"weights": "/elsewhere/curia.safetensors"}}, None, None),
        ({"probe": {"seed": 7}}, "setting-without-effect", "probe.seed"),
        ({"probe": {"nsd_tolerance_mm": 3.0}}, None, None),
        ({"probe": {"learning_rates": [1, 2]}}, None, None),
        ({"task": {"train_fraction": 0.1}}, "setting-without-effect", "task.train_fraction"),
        ({"task": {"train_draw": 1}}, None, None),
        ({"task": NOISE}, "setting-without-effect", "task.perturbation"),
        ({"task": {**NOISE, "split_sha256": "1" * 64}}, None, None),
        ({"task": {**NOISE, "version": 2}}, None, None),
    ],
)
def test_the_same_numbers_under_what_must_matter_are_flagged(changes, flag, detail):
    other = heads(record(GOOD, OTHER, **changes), "other")
    flags = [one for one in cross_flags(MINE, [other]) if one.id != "no-better-than-random-weights"]
    assert ids(flags) == ([flag] if flag else [])
    assert all("the numbers of the cases" in one.detail and detail in one.detail for one in flags)


def test_the_same_head_is_flagged_but_not_where_only_the_reported_scans_differ():
    elsewhere = scans(np.linspace(0.1, 1, 40)[:, None], np.repeat([0, 1], 20)[:, None])
    for changes, flagged in (
        ({"encoder": MERLIN}, True),
        ({"task": NOISE}, False),
        ({"task": {"train_fraction": 0.1}}, True),
    ):
        other = heads(record(elsewhere, elsewhere[::-1], **changes), "mine")
        flags = cross_flags(MINE, [other])
        assert len(flags) == flagged
        assert all("the heads" in one.detail for one in flags)


def test_other_numbers_are_not_flagged():
    other = heads(record(scans(np.linspace(0.1, 1, 40)[:, None], np.repeat([0, 1], 20)[:, None])), "other")
    assert cross_flags(MINE, [changed(other, encoder=MERLIN)]) == []


def test_a_different_draw_of_few_patients_must_matter():
    few = {"train_fraction": 0.1}
    mine, other = (heads(record(GOOD, OTHER, task={**few, "train_draw": k}), str(k)) for k in (0, 1))
    assert ids(cross_flags(mine, [other])) == ["setting-without-effect"]


def test_published_weights_that_do_no_better_than_random_ones_are_flagged():
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 2, (80, 1))
    weak, strong = (scans(informed(targets, rng, s), targets) for s in (0.1, 2.0))
    random = {"weights": "random", "weights_sha256": "d" * 64}
    assert cross_flags(record(strong), [heads(record(weak, encoder=random), "r")]) == []
    (flag,) = cross_flags(record(weak), [heads(record(strong, encoder=random), "r")])
    assert flag.id == "no-better-than-random-weights"
    assert flag.detail.startswith("MicroAUROC 0.")
    assert "with random weights 0.9" in flag.detail
    # The random experiment itself, and one that trained otherwise, have nothing to answer for.
    assert cross_flags(record(weak, encoder=random), [heads(record(strong), "p")]) == []
    fewer = record(strong, encoder=random, task={"train_fraction": 0.1})
    assert cross_flags(record(weak), [heads(fewer, "r")]) == []


def test_flags_are_made_anew_and_the_two_kinds_keep_out_of_each_others_way(tmp_path):
    write_record(heads(record(GOOD, OTHER, encoder=MERLIN), "other"), tmp_path / "made" / "merlin")
    broken = tmp_path / "made" / "broken" / "record.json"
    broken.parent.mkdir()
    broken.write_text("{")
    mine = heads(record(GOOD, GOOD), "mine")
    once = with_cross_checks(with_own_checks(mine), tmp_path)
    assert ids(once.flags) == ["seeds-without-effect", "equal-to-another-encoder"]
    write_record(once, tmp_path / "made" / "curia")
    assert with_cross_checks(once, tmp_path) == once, "its own record in the folder is no other experiment"
    assert once.fingerprint == mine.fingerprint
    assert ids(with_cross_checks(once, tmp_path / "elsewhere").flags) == ["seeds-without-effect"]
    assert ids(with_own_checks(once).flags) == ["seeds-without-effect"]


def test_every_flag_has_a_sentence_that_says_what_to_check():
    for name, message in MESSAGES.items():
        assert Flag(id=name, message=message, detail="x")
        assert any(word in message for word in ("Check", "Read", "Widen", "Raise", "report"))


def test_a_check_that_cannot_be_made_is_a_flag_and_no_error(tmp_path, monkeypatch):
    write_record(heads(record(GOOD, OTHER), "other"), tmp_path / "made" / "other")

    def broken(*_):
        raise KeyError("/home/ann/results/x.json\x1b[2J")

    monkeypatch.setattr("tapct.flags.pairs.equal", broken)
    monkeypatch.setattr("tapct.flags.alone.CHECKS", (broken,))
    flags = with_cross_checks(with_own_checks(MINE), tmp_path).flags
    assert ids(flags) == ["check-failed"] * 2
    assert all("KeyError" in flag.detail and "/home" not in flag.detail for flag in flags)
    monkeypatch.setattr("tapct.flags.find_records", broken)
    assert ids(with_cross_checks(MINE, tmp_path).flags) == ["check-failed"]
