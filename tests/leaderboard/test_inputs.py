import numpy as np
import pytest
from pydantic import ValidationError
from scipy import special

from tapct.errors import RecordError
from tapct.records import CaseResult, Record, RunRecord, SteppedSelection
from tapct.statistics import TaskInputs, from_records, model_name, summarise_task
from tests.leaderboard.simulated import task
from tests.records.made import encoder

CLASSES = ["background", "liver", "spleen"]
TASK = {
    "name": "made",
    "version": 1,
    "kind": "segmentation",
    "classes": CLASSES,
    "options": {},
    "split_sha256": "0" * 64,
}


def case(name: str, liver: float | None, spleen: float | None, **changes) -> CaseResult:
    dice = {"liver": liver, "spleen": spleen}
    fields = {
        "case": name,
        "patient": name[0],
        "loss": 1.0,
        "dice": {"native": dice, "paper": {"liver": 0.1, "spleen": 0.1}},
        "nsd": dice,
        "hd95_mm": {"liver": 3.0, "spleen": None},
        "padding_voxels": (0, 0, 0),
    }
    return CaseResult(**{**fields, **changes})


def scan(name: str, probability: float, target: int, **changes) -> CaseResult:
    fields = {"case": name, "patient": name[0], "loss": 1.0, "padding_voxels": (0, 0, 0)}
    fields |= {"probabilities": {"x": probability, "y": 0.5}, "target": {"x": target, "y": 1 - target}}
    return CaseResult(**{**fields, **changes})


def record(name: str, *runs: list[CaseResult], **changes) -> Record:
    made = [
        RunRecord(run=i, seed=i, probe_sha256="0" * 64, metrics={}, cases={"test": cases})
        for i, cases in enumerate(runs)
    ]
    fields = {
        "notice": None,
        "encoder": encoder(name),
        "task": TASK if runs[0][0].target is None else TASK | {"kind": "classification", "classes": ["x", "y"]},
        "probe": {"nsd_tolerance_mm": 2.0},
        "runs_planned": len(made),
        "runs": made,
        "execution": {},
    }
    return Record(**{**fields, **changes})


def cases() -> list[CaseResult]:
    return [case("q1", 0.2, 0.6), case("p1", 0.5, None), case("p2", None, None)]


def test_scores_are_the_mean_over_a_cases_defined_classes_in_one_order_of_cases():
    second = [case("p1", 0.1, 0.3), case("p2", None, 0.9), case("q1", 0.0, 0.0)]
    inputs = from_records([record("one", cases(), second), record("two", second, cases())], "dice_native")
    assert (inputs.models, inputs.cases, inputs.patients) == (("one", "two"), ("p1", "p2", "q1"), ("p", "p", "q"))
    np.testing.assert_allclose(inputs.values[0], [[0.5, np.nan, 0.4], [0.2, 0.9, 0.0]])
    np.testing.assert_allclose(inputs.values[1], inputs.values[0][::-1])
    assert inputs.targets is None
    assert inputs.num_patients == 2
    np.testing.assert_allclose(from_records([record("one", cases())], "dice_paper").values, 0.1)
    np.testing.assert_allclose(from_records([record("one", cases())], "hd95_mm_native").values, 3.0)


def test_the_summary_agrees_with_the_records_own():
    one = record("one", cases())
    (model,) = summarise_task(from_records([one], "dice_native")).models
    assert model.estimate.value == pytest.approx(one.summaries("test", "dice_native")[0].headline)


def test_probabilities_take_the_place_of_logits_of_an_older_protocol():
    run = [scan("b1", 0.9, 1), scan("a1", 0.2, 0)]
    inputs = from_records([record("one", run, run)], "MicroAP")
    np.testing.assert_array_equal(inputs.values, [[[[0.2, 0.5], [0.9, 0.5]]] * 2])
    np.testing.assert_array_equal(inputs.targets, [[0, 1], [1, 0]])


def test_logits_are_ranked_where_there_are_any():
    """Probabilities of 1, in float64, of logits that differ: they are no ties."""
    logits = {"a1": 40.0, "a2": 50.0, "b1": 45.0, "b2": 60.0}
    run = [
        scan(name, 0, int(name > "b"), logits={"x": z, "y": -z}, probabilities=expit({"x": z, "y": -z}))
        for name, z in logits.items()
    ]
    inputs = from_records([record("one", run)], "MicroAUROC")
    np.testing.assert_array_equal(inputs.values[0, 0], [[z, -z] for z in logits.values()])
    only = {"values": inputs.values[..., :1], "targets": inputs.targets[:, :1]}
    (model,) = summarise_task(TaskInputs(**{**vars(inputs), **only})).models
    assert model.estimate.value == 3 / 4


def expit(logits: dict[str, float]) -> dict[str, float]:
    return {name: float(special.expit(z)) for name, z in logits.items()}


def other_task(**changes):
    return {"task": {**TASK, **changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (other_task(split_sha256="1" * 64), "split_sha256"),
        (other_task(version=2), "version is 1 and 2"),
        (other_task(classes=CLASSES[:2]), "classes"),
        (other_task(options={"s1": "sacrum"}), "options"),
        (other_task(name="other"), "name"),
        ({"notice": "a demonstration"}, "notice is None and 'a demonstration'"),
        ({"runs_planned": 3}, r"two: 1 of 3 runs have ended"),
        ({"encoder": encoder("one")}, "different names"),
        ({"probe": {"nsd_tolerance_mm": 1.0}}, "nsd_tolerance_mm is 2.0 and 1.0"),
    ],
)
def test_records_that_do_not_compare_are_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        from_records([record("one", cases()), record("two", cases(), **changes)], "nsd_native")


PROBE = {
    "module": "tapct.probes.segmentation.SegmentationProbe",
    "window_overlap": 0.0,
    "fit_windows": False,
    "seed": 0,
    "learning_rates": [0.001, 0.01],
    "select": "best",
    "feature_dtype": "bf16",
    "optimizer": {"class": "AdamW", "lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.01, "fused": None},
    "lr_scheduler": [{"class": "CosineAnnealingLR", "T_max": 100, "base_lrs": [0.01], "_last_lr": [0.0]}],
    "steps": 100,
    "accumulate_grad_batches": 4,
    "gradient_clip_val": None,
    "nsd_tolerance_mm": 2.0,
}


def probe(**changes):
    return {"probe": {**PROBE, **changes}}


def chosen(looks: int):
    candidates = [{"learning_rate": rate, "scores": [[10 * i, 0.5] for i in range(looks)]} for rate in (0.001, 0.01)]
    run = (
        record("two", cases())
        .runs[0]
        .model_copy(
            update={"selection": SteppedSelection(learning_rate=0.01, step=0, score=None, candidates=candidates)}
        )
    )
    return {"runs": [run]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (probe(module="tapct.probes.classification.ClassificationProbe"), "module"),
        (probe(steps=200), "steps is 100 and 200"),
        (probe(accumulate_grad_batches=1), "accumulate_grad_batches is 4 and 1"),
        (probe(gradient_clip_val=1.0), "gradient_clip_val"),
        (probe(optimizer={**PROBE["optimizer"], "weight_decay": 0.1}), "optimizer"),
        (probe(optimizer={"class": "SGD", "lr": 0.01}), "optimizer"),
        (probe(lr_scheduler=[]), "lr_scheduler"),
        (probe(lr_scheduler=[{**PROBE["lr_scheduler"][0], "T_max": 50}]), "lr_scheduler"),
        (probe(learning_rates=[0.001, 0.01, 0.1]), "number of learning rates is 2 and 3"),
        (probe(learning_rates=None), "number of learning rates is 2 and 1"),
        (probe(select="last"), "select is 'best' and 'last'"),
        (probe(window_overlap=0.5), "window_overlap"),
        (probe(fit_windows=True), "fit_windows"),
        (other_task(batch_size=64), "batch_size"),
        (other_task(train_fraction=0.1), "train_fraction is 1.0 and 0.1"),
        (other_task(train_draw=1), "train_draw is 0 and 1"),
        (other_task(perturbation="noise-30hu"), "perturbation"),
        (chosen(10), "looks at the selection cases"),
    ],
)
def test_records_of_another_training_are_refused_with_the_setting(changes, message):
    with pytest.raises(RecordError, match=f"one and two do not compare: {message}"):
        from_records(
            [record("one", cases(), **probe()), record("two", cases(), **{**probe(), **changes})], "nsd_native"
        )


def test_what_an_encoder_needs_for_itself_may_differ():
    own = probe(
        learning_rates=[0.02, 0.2],
        optimizer={**PROBE["optimizer"], "lr": 0.2, "betas": [0.9, 0.999], "fused": True},
        lr_scheduler=[{**PROBE["lr_scheduler"][0], "base_lrs": [0.2], "_last_lr": [0.1]}],
        feature_dtype="fp32",
        seed=7,
    )
    plain = {"train_fraction": 1.0, "train_draw": 0, "perturbation": None}  # as records from before say by silence
    pair = [record("one", cases(), **probe()), record("two", cases(), **own, **other_task(**plain))]
    assert from_records(pair, "dice_native").models == ("one", "two")
    read = Record.from_json(pair[1].to_json(), where="two")
    assert from_records([pair[0], read], "dice_native").models == ("one", "two")


def test_records_may_differ_in_what_is_asked_for_alone():
    few = record("two", cases(), **probe(), **other_task(train_fraction=0.1, train_draw=3))
    pair = [record("one", cases(), **probe()), few]
    assert from_records(pair, "dice_native", vary=("train_fraction", "train_draw")).models == ("one", "two")
    with pytest.raises(RecordError, match="train_draw is 0 and 3"):
        from_records(pair, "dice_native", vary=("train_fraction",))


def test_random_weights_are_another_model():
    pair = [record("one", cases()), record("one", cases(), encoder=encoder("one", weights="random"))]
    assert [model_name(each) for each in pair] == ["one", "one@random"]
    assert from_records(pair, "dice_native").models == ("one", "one@random")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (cases()[1:], "case q1 is .* and 'missing'"),
        ([*cases(), case("r1", 0.1, 0.1)], "case r1 is 'missing' and"),
        ([*cases()[:2], case("p2", 0.1, 0.1, patient="z")], "case p2"),
    ],
)
def test_records_of_other_cases_are_refused(changed, message):
    with pytest.raises(RecordError, match=message):
        from_records([record("one", cases()), record("two", changed)], "dice_native")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (cases()[1:], "run 1: case q1 of 'test' is there not in every run"),
        ([*cases(), case("r1", 0.1, 0.1)], "run 0: case r1 of 'test' is there not in every run"),
        ([*cases()[:2], case("p2", 0.1, 0.1, patient="z")], "patient or the target of case p2"),
    ],
)
def test_runs_of_other_cases_are_refused(changed, message):
    with pytest.raises(RecordError, match=message):
        from_records([record("one", cases(), changed)], "dice_native")


def without_spleen(one: CaseResult) -> CaseResult:
    liver = {"native": {"liver": 0.9}, "paper": {"liver": 0.9}}
    return one.model_copy(update={"dice": liver, "nsd": None, "hd95_mm": None})


def test_a_record_that_leaves_a_class_of_its_task_out_is_refused():
    """Its mean would be over the easier ones."""
    with pytest.raises(RecordError, match="one: the class spleen is of the task, and missing in the cases of 'test'"):
        from_records([record("one", [without_spleen(each) for each in cases()])], "dice_native")
    with pytest.raises(ValidationError, match="native and paper must be of the same classes"):
        case("p1", 0.5, None, dice={"native": {"liver": 0.9}, "paper": {"liver": 0.1, "spleen": 0.1}})


def test_a_case_without_what_the_others_have_is_no_record():
    with pytest.raises(ValidationError, match=r"q1 and p2 have dice.native in only one of them"):
        record("two", [*cases()[:2], case("p2", 0.1, 0.1, dice=None)])


def test_records_of_other_references_or_numbers_of_runs_are_refused():
    with pytest.raises(RecordError, match="case a1"):
        from_records([record("one", [scan("a1", 0.2, 0)]), record("two", [scan("a1", 0.2, 1)])], "MicroAP")
    with pytest.raises(RecordError, match="runs is 1 and 2"):
        from_records([record("one", cases()), record("two", cases(), cases())], "dice_native")
    with pytest.raises(RecordError, match="no probabilities"):
        from_records([record("one", cases())], "MicroAUROC")
    with pytest.raises(RecordError, match="no record"):
        from_records([], "MicroAUROC")


def test_two_records_of_one_encoder_need_names():
    pair = [record("one", cases()), record("one", cases())]
    assert from_records(pair, "dice_native", names=["one", "one at 512"]).models == ("one", "one at 512")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("a", "a")}, "different names"),
        ({"models": ("a",)}, "values are"),
        ({"patients": ("p",)}, "one entry per case"),
        ({"metric": "MicroAP"}, "needs targets"),
        ({"targets": np.ones((3, 1))}, "takes no targets"),
        ({"values": np.full((2, 1, 3), np.inf)}, "finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes, message):
    good = vars(task(np.ones((2, 3))))
    with pytest.raises(ValueError, match=message):
        TaskInputs(**{**good, **changes})


def test_undefined_probabilities_are_refused():
    with pytest.raises(ValueError, match="defined"):
        task(np.full((1, 1, 2, 1), np.nan), targets=np.array([[0], [1]]))
