"""Adaptors through eva: solved heads on stored and on fresh features, and what pooling takes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session

from tapct.errors import TaskError
from tapct.features import extract
from tapct.probes import ClassificationProbe, Trainer, attention
from tapct.probes.adaptors import Adaptor, instances, pooled
from tapct.probes.loaded import LoadedHead
from tapct.records import read_record
from tests.probes.test_classification import SlabData, Slabs, run
from tests.small import CubicMillimetres, Drifting, Rescaled, abdomen, small_encoder

ADAPTORS = ["linear", "linear:mean+max", "knn:mean", "prototype"]


@pytest.mark.parametrize("adaptor", ADAPTORS)
def test_a_solved_adaptor_is_reported_as_any_probe(tmp_path, adaptor):
    session, record = run(tmp_path, small_encoder(), [20, 95], {"adaptor": adaptor}, max_steps=3)
    assert record.complete
    assert record.probe.adaptor == adaptor
    assert record.probe.pooling == Adaptor.parse(adaptor).pooling_of(small_encoder().card)
    assert "optimizer" not in record.probe
    first, second = record.runs
    assert first.cases == second.cases  # no seed decides anything
    if not adaptor.startswith("prototype"):
        assert first.selection.patients == 4 + 2
    results = json.loads((session / "results.json").read_text(encoding="utf-8"))["metrics"]["test"][0]
    assert results["test/MicroAUROC"]["values"][0] == pytest.approx(first.metrics["test"]["MicroAUROC"])
    assert not {flag.id for flag in record.flags} & {"seeds-without-effect", "loss-never-fell", "head-unchanged"}


@pytest.mark.parametrize("adaptor", ["linear:mean", "knn:mean", "prototype:mean+max"])
def test_no_number_of_a_solved_adaptor_depends_on_scale_order_or_origin_of_features(tmp_path, adaptor):
    found = []
    others = ({"factor": 2.0**10, "permuted": True}, {"factor": 1e-3, "by_channel": True, "shift": 5.0})
    for settings in ({}, *others):
        folder = tmp_path / str(len(found))
        _, record = run(folder, Rescaled(**settings), None, {"adaptor": adaptor}, n_runs=1, max_steps=1)
        found.append([list(case.probabilities.values()) for case in record.runs[0].cases["test"]])
    for other in found[1:]:
        assert np.array(other) == pytest.approx(np.array(found[0]), abs=1e-5)


def test_pooling_is_over_the_patches_in_the_scan_not_over_padding():
    ct, _ = abdomen((slice(0, 13), slice(0, 40), slice(0, 50)))  # 4 mm cubes: padded to windows of (16, 32, 32)
    features = extract(small_encoder(CubicMillimetres), torch.from_numpy(ct.hu), ct.grid)
    assert features.padding != (0, 0, 0)
    where = features.feature_grid.coordinates_in(features.encoder_grid)
    inside = np.ix_(*(at <= size - 0.5 for at, size in zip(where, features.encoder_grid.shape, strict=True)))
    patches = features.map[0].double().numpy()[inside]
    assert patches.size < features.map[0].numel()
    assert pooled(features, "mean+max").numpy() == pytest.approx([patches.mean(), patches.max()])
    assert pooled(features, "cls").numpy() == pytest.approx(features.embeddings.double().mean(0).numpy())
    assert instances(features, "patch").stored.double().numpy() == pytest.approx(patches[None]), "nor are they in a bag"
    assert torch.equal(instances(features, "cls").whole(), features.embeddings.T)


@pytest.mark.parametrize(
    ("adaptor", "message"),
    [
        ("linaer", "linear"),
        ("abmil:mean", "write abmil, or name its bag: abmil:cls, abmil:patch"),
        ("abmil:cls", "no class tokens for abmil:cls"),
        ("linear:median", "mean\\+max"),
        ("linear:cls", "no class token"),
    ],
)
def test_an_adaptor_that_cannot_be_is_refused(adaptor, message):
    with pytest.raises(TaskError, match=message):
        ClassificationProbe(small_encoder(Drifting), adaptor=adaptor)


def again(tmp_path, session, **probe):
    """Reports the heads of a session again, as `eva test` does."""
    trainer = Trainer(default_root_dir=str(tmp_path), accelerator="cpu", n_runs=2, logger=False, max_steps=1)
    model = ClassificationProbe(small_encoder(), head=str(session), **probe)
    data = SlabData([0, 30], [10, 40, 70, 98])
    run_evaluation_session(trainer, model, data, n_runs=2, stages=["test"], verbose=False)
    (folder,) = tmp_path.iterdir()
    return read_record(folder / "record.json")


def test_a_head_is_never_given_other_features_than_it_was_trained_on(tmp_path):
    """The mean of the patches is as long as the class token: nothing but the record tells them apart."""
    session, record = run(tmp_path / "fit", small_encoder(), None, {"adaptor": "linear"}, max_steps=1)
    same = again(tmp_path / "same", session, adaptor="linear")
    assert [one.cases for one in same.runs] == [one.cases for one in record.runs]
    for other in ({"adaptor": "linear:mean"}, {"adaptor": "prototype"}, {"adaptor": "linear", "window_overlap": 0.5}):
        with pytest.raises(TaskError, match=r"trained with another (adaptor|pooling|window_overlap)"):
            again(tmp_path / "other", session, **other)


@pytest.mark.parametrize(
    ("adaptor", "bag", "message"),
    [
        ("abmil", "cls", "drifting has no class tokens for abmil:cls: use bag=patch"),
        ("abmil", "pacth", "Did you mean 'patch'"),
        ("linear", "patch", "linear has no bag: it pools features by itself"),
        ("abmil:patch", "cls", "name the bag in one place"),
    ],
)
def test_a_bag_that_cannot_be_is_refused_before_anything_is_encoded(adaptor, bag, message):
    with pytest.raises(TaskError, match=message):
        ClassificationProbe(small_encoder(Drifting), adaptor=adaptor, bag=bag)


def test_a_bag_is_in_the_adaptors_name_where_it_is_not_the_encoders_own():
    with_tokens, without = small_encoder(), small_encoder(Drifting)
    named = [("auto", "abmil", "cls"), ("cls", "abmil", "cls"), ("patch", "abmil:patch", "patch")]
    for bag, name, is_on in named:
        probe = ClassificationProbe(with_tokens, bag=bag)
        assert (probe.adaptor.name, probe.bag) == (name, is_on)
    for bag in ("auto", "patch"):
        probe = ClassificationProbe(without, bag=bag)
        assert (probe.adaptor.name, probe.bag) == ("abmil", "patch")
    assert ClassificationProbe(with_tokens, adaptor="abmil:patch").bag == "patch", "as records name it"
    assert ClassificationProbe(with_tokens, adaptor="linear").bag is None


def test_attention_on_the_patches_of_a_model_with_class_tokens(tmp_path, monkeypatch):
    rates = {"bag": "patch", "learning_rates": [1e-3, 0.05]}
    session, record = run(tmp_path / "padded", small_encoder(), [20, 95], rates, max_steps=3)
    assert (record.probe.adaptor, record.probe.bag, record.probe.pooling) == ("abmil:patch", "patch", None)
    logits = [list(case.logits.values()) for one in record.runs for case in one.cases["test"]]
    monkeypatch.setattr(attention, "PADDED_VALUES", 0)
    monkeypatch.setattr(attention, "INSTANCES", 32)
    _, slabs = run(tmp_path / "slabs", small_encoder(), [20, 95], rates, max_steps=3)
    found = [list(case.logits.values()) for one in slabs.runs for case in one.cases["test"]]
    assert np.array(found) == pytest.approx(np.array(logits), abs=1e-5), "the way through the bag changes nothing"
    _, tokens = run(tmp_path / "tokens", small_encoder(), [20, 95], {**rates, "bag": "auto"}, max_steps=3)
    other = [list(case.logits.values()) for one in tokens.runs for case in one.cases["test"]]
    assert np.abs(np.array(other) - np.array(logits)).max() > 1e-3
    with pytest.raises(TaskError, match=r"trained with another adaptor: abmil:patch, and now it is abmil\."):
        again(tmp_path / "again", session)
    same = again(tmp_path / "same", session, bag="patch")
    again_found = [list(case.logits.values()) for one in same.runs for case in one.cases["test"]]
    assert np.array(again_found) == pytest.approx(np.array(logits), abs=1e-5)


def test_heads_whose_bags_held_the_padding_are_refused():
    """Records from before bags were named are of class tokens, or of patches with those of the padding."""
    record = read_record(Path(__file__).parents[1] / "records" / "data" / "before-types.json")
    attends = record.model_copy(update={"probe": record.probe.model_copy(update={"adaptor": "abmil", "pooling": None})})
    with pytest.raises(TaskError, match=r"another bag: patch, with the padding, and now it is patch\."):
        LoadedHead({}, 0, attends).check({"bag": "patch"}, attends.encoder)
    card = attends.encoder.card.model_copy(update={"has_cls": True})
    of_tokens = attends.model_copy(update={"encoder": attends.encoder.model_copy(update={"card": card})})
    LoadedHead({}, 0, of_tokens).check({"bag": "cls"}, of_tokens.encoder)
    LoadedHead({}, 0, record).check({"bag": None}, record.encoder)


@pytest.mark.parametrize("adaptor", ["linear", "knn", "prototype"])
@pytest.mark.parametrize("target", [[0.5, 1, 0], [1, 0]], ids=["a half", "two of three"])
def test_targets_that_are_not_0_and_1_a_class_are_refused(tmp_path, monkeypatch, adaptor, target):
    item = Slabs.__getitem__
    monkeypatch.setattr(
        Slabs, "__getitem__", lambda self, i: (item(self, i)[0], torch.tensor(target), item(self, i)[2])
    )
    with pytest.raises(TaskError, match=r"slab-0: (targets must be 0 or 1|2 targets for 3 classes)"):
        run(tmp_path, small_encoder(), None, {"adaptor": adaptor}, max_steps=1)


def test_a_schedule_that_ends_at_zero_must_know_where_the_end_is(tmp_path):
    with pytest.raises(TaskError, match=r"set trainer\.max_steps"):
        run(tmp_path, small_encoder(), max_steps=-1, max_epochs=1)
