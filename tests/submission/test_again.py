"""Cases that are encoded again: what was measured agrees, and a consistent lie does not."""

import functools
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from eva.core.trainers.functional import run_evaluation_session
from eva.vision.models.networks import ABMIL
from scipy.special import expit

from tapct.checks import Check
from tapct.encoders import registry
from tapct.encoders.registry import places_of
from tapct.encoders.weights import content_sha256
from tapct.features import CaseFeatures, EncodedCase
from tapct.kinds import kind
from tapct.probes import SegmentationProbe, Trainer
from tapct.probes.predictions import LocatedRecord
from tapct.records import RECORD_FILE, read_record
from tapct.submission import again as again_module
from tapct.submission import built
from tapct.submission.again import chosen, recompute
from tapct.submission.folder import Submission, submit
from tapct.submission.rules import RULES, expected_metrics
from tapct.tasks import TaskData, task_class
from tapct.volumes import Grid, Size
from tests.data.abdomen import block, save, write_slabs
from tests.small import known_by_name
from tests.submission.made import CLASSIFICATION, ENTRY_POINTS, lie, session

CASES = {"c0": "train", "c1": "test", "c2": "test", "c3": "val"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Four slabs of the quickstart's abdomen, as the cases of its task."""
    return write_slabs(tmp_path_factory.mktemp("data"), CASES)


@pytest.fixture(scope="module", autouse=True)
def _encoder_by_name():
    with known_by_name("small-3d", "tests.small:Small3D"):
        yield


@pytest.fixture(scope="module")
def submitted(root, tmp_path_factory) -> Path:
    """A submission of a real session."""
    tmp_path = tmp_path_factory.mktemp("session")
    trainer = Trainer(
        default_root_dir=str(tmp_path / "logs"),
        accelerator="cpu",
        n_runs=1,
        max_steps=4,
        accumulate_grad_batches=1,
        enable_progress_bar=False,
    )
    probe = SegmentationProbe("small-3d", "random", feature_folder=str(root / "features"))
    data = TaskData("quickstart", str(root), split_file=str(root / "split.csv"))
    run_evaluation_session(trainer, probe, data, n_runs=1, verbose=False)
    (path,) = (tmp_path / "logs").glob("*/record.json")
    return submit(LocatedRecord.at(path), tmp_path / "out", demonstration=True)


@pytest.fixture
def submission(submitted, tmp_path) -> Path:
    return Path(shutil.copytree(submitted, tmp_path / "submission"))


def again(folder: Path, root: Path, count: int = 2, salt: str = ""):
    settings = {"data_root": str(root), "weights": None, "salt": salt, "device": torch.device("cpu")}
    return list(recompute(Submission.read(folder), count, **settings))


def test_scans_weights_and_heads_give_what_the_record_says_and_a_consistent_lie_is_found(submission, root):
    assert {(check.status, check.name) for check in again(submission, root)} == {
        ("ok", "recompute c1"),
        ("ok", "recompute c2"),
    }

    def better(content):
        for run in content["runs"]:
            for case in run["cases"]["test"]:
                for row in case["dice"].values():
                    row |= {name: value if value is None else min(1.0, value + 0.3) for name, value in row.items()}
            record = Submission.read(submission).record
            cases = [type(record.runs[0].cases["test"][0]).model_validate(case) for case in run["cases"]["test"]]
            run["metrics"]["test"] |= expected_metrics(kind(content["task"]["kind"]), cases)

    lie(submission, better)
    assert {check.status for check in again(submission, root)} == {"fail"}


def test_an_encoder_that_is_not_installed_is_named_by_who_verifies_and_never_by_the_record(
    submission, root, monkeypatch, tmp_path
):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    settings = {"data_root": str(root), "weights": None, "salt": "", "device": torch.device("cpu")}

    def found(**places) -> list[Check]:
        one = Submission.read(submission)
        return [*built.checks(one.record, places), *recompute(one, 1, **settings, places=places)]

    assert [check.status for check in found(**places_of("tests.small:Small3D"))] == ["ok", "ok"]
    warned, failed = found()
    assert (warned.status, failed.status) == ("warn", "fail")
    assert "--encoders package.module:Class" in warned.fix
    assert "--encoders package.module:Class" in failed.message
    lie(submission, lambda content: content["encoder"]["card"].update(name="antigravity:Encoder"))
    assert "antigravity:Encoder, is not installed here" in found()[-1].message
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["files", "runs", "table", "metrics", "cases", "heads", "flags", "paths", "page"])
def test_what_eva_wrote_holds(name, submission):
    """Of a real session with selection cases; its split is not the shipped one."""
    rule = next(rule for rule in RULES if rule.name == name)
    assert rule.check(Submission.read(submission)) == Check("ok", name, rule.valid)


def test_other_scans_and_other_weights_do_not_pass(submission, root, tmp_path):
    slab = block(90, slices=8)
    for case in CASES:
        save(tmp_path / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(tmp_path / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    assert "fail" in {check.status for check in again(submission, tmp_path)}
    lie(submission, lambda content: content["encoder"].update(weights_sha256="0" * 64))
    (check,) = again(submission, root)
    assert check.status == "fail"
    assert "other weights" in check.message


@pytest.mark.parametrize("adaptor", ["abmil", "linear", "linear:max", "knn"])
def test_logits_of_each_kind_of_head_come_out_again(adaptor, tmp_path, monkeypatch):
    """The features are given; what the heads make of them is computed here as its paper or name says."""
    monkeypatch.setattr(registry, "entry_points", lambda group: ENTRY_POINTS)
    rng = torch.Generator().manual_seed(0)
    grid = Grid.of((8, 64, 64), np.eye(4))
    embeddings, experiments = torch.randn(3, 48, generator=rng), torch.randn(48, 2, 8, 8, generator=rng)
    features = CaseFeatures(experiments, embeddings, grid, grid, grid.patches((4, 8, 8)), Size(0, 0, 0))
    heads, logits = zip(*(head_and_logit(adaptor, embeddings, experiments, rng) for _ in range(3)), strict=True)
    folder = tmp_path / "submission"
    session(folder, CLASSIFICATION)
    for number, head in enumerate(heads):
        safetensors.torch.save_file(head, folder / f"run_{number}" / "head.safetensors")
    (name,) = chosen(read_record(folder / RECORD_FILE), 1, "")

    def made(content, more=0.0):
        content["probe"]["adaptor"] = adaptor
        for run, head, logit in zip(content["runs"], heads, logits, strict=True):
            run["probe_sha256"] = content_sha256(head)
            case = next(case for case in run["cases"]["test"] if case["case"] == name)
            (label,) = case["logits"]
            case["logits"], case["target"] = {label: logit + more}, {label: 1}
            case["probabilities"] = {label: float(expit(logit + more))}

    case = EncodedCase(name, "p", features, torch.tensor([1]), None)
    part = task_class(CLASSIFICATION)(tmp_path, "test")
    data = SimpleNamespace(datasets=SimpleNamespace(train=None, val=None, test=part), folds=None)
    monkeypatch.setattr(again_module, "_encoded", lambda *asked: iter([(data, case)]))
    lie(folder, made)
    assert [check.status for check in again(folder, tmp_path, count=1)] == ["ok"]
    lie(folder, functools.partial(made, more=0.5))
    assert [check.status for check in again(folder, tmp_path, count=1)] == ["fail"]


def head_and_logit(adaptor: str, embeddings: torch.Tensor, experiments: torch.Tensor, rng: torch.Generator):
    """A head, and what it makes of the features of a scan."""
    if adaptor == "abmil":
        head = ABMIL(input_size=48, output_size=1, projected_input_size=None, hidden_sizes_mlp=()).eval()
        return dict(head.state_dict()), float(head(embeddings[None])[0].detach())
    vector = (experiments.amax((1, 2, 3)) if adaptor.endswith("max") else embeddings.mean(0)).double()
    if adaptor == "knn":
        cases = torch.randn(4, 48, generator=rng).double()
        near = torch.nn.functional.cosine_similarity(cases, vector[None]).argmax()
        targets = torch.tensor([[1.0], [0.0], [1.0], [0.0]]).double()
        zero, one = torch.zeros(48).double(), torch.ones(48).double()
        state = {"centre": zero, "divisor": one, "cases": cases, "targets": targets, "neighbours": torch.tensor(1)}
        return state, float(np.log(3)) * (1 if targets[near] else -1)  # (1 + 0.5) / (0 + 0.5)
    state = {"weight": torch.randn(1, 48, generator=rng).double(), "bias": torch.randn(1, generator=rng).double()}
    return state, float(state["weight"] @ vector + state["bias"])


def test_nobody_chooses_the_cases(submission):
    record = read_record(submission / RECORD_FILE)
    cases = [record.runs[0].cases["test"][0].model_copy(update={"case": f"c{k}"}) for k in range(100)]
    many = record.model_copy(update={"runs": [record.runs[0].model_copy(update={"cases": {"test": cases}})]})
    one = chosen(many, 3, "")
    assert one == chosen(many, 3, ""), "the same for everybody"
    assert one != chosen(many, 3, "a word of the maintainer")
    assert one != [case.case for case in cases[:3]]
