"""A session that was ended in the middle of its training resumes, and nothing of its record tells."""

import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session

from baselines.intensity import Intensity
from tapct.errors import TaskError
from tapct.probes import ClassificationProbe, Trainer
from tapct.probes.checkpoints import FOLDER, Checkpoints
from tapct.probes.heads import CandidateHeads, SharedByRuns
from tapct.records import read_record
from tapct.tasks import TaskData
from tests.data import ct_rate

STEPS = 12


class Data(TaskData):
    """CT-RATE ranked over pairs: two selection cases define no mean over labels."""

    def describe(self):
        return {**super().describe(), "metric": "MicroAUROC"}


class Killed(Exception):
    """The end of a process, as far as what it leaves on disk is concerned."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    ct_rate.write(root / "ct_rate")
    return root


def fit(data, out, n_runs=2, trainer=None, **probe):
    """Trains attention side by side at two rates, with four looks at the selection cases."""
    settings = {
        "adaptor": "abmil",
        "learning_rates": [0.003, 0.03],
        "checkpoint_every": 2,
        "feature_folder": str(data / "features"),
        "feature_dtype": "fp32",
        **probe,
    }
    options = {"max_steps": STEPS, "accumulate_grad_batches": 2, "val_check_interval": 0.25, **(trainer or {})}
    session = Trainer(default_root_dir=str(out), accelerator="cpu", n_runs=n_runs, logger=False, **options)
    torch.manual_seed(99)  # whatever a process has drawn before is another number
    made = ClassificationProbe(Intensity(window_size=(8, 64, 64), in_plane_size=64), **settings)
    run_evaluation_session(session, made, Data("ct_rate", str(data)), n_runs=n_runs, verbose=False)


def counted(*args, ends_after=None, **settings):
    """As `fit`; returns the batches that were trained on. A process that is ended is, while that behind so many is."""
    trained, losses = [], ClassificationProbe.losses

    def mortal(self, heads, cases):
        if len(trained) == ends_after:
            raise Killed
        trained.append(cases)
        return losses(self, heads, cases)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationProbe, "losses", mortal)
        fit(*args, **settings)
    return len(trained)


def killed(*args, **settings):
    with pytest.raises(Killed):
        counted(*args, **settings)


def records(out):
    return [read_record(path) for path in sorted(out.glob("*/record.json"))]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    fit(data, out)
    (record,) = records(out)
    return record


def kept(out):
    return list((out / FOLDER).glob("*"))


def test_a_resumed_session_is_the_unbroken_one(data, tmp_path, whole):
    """Checkpoints lie behind batches 4, 8, 12 ..., looks at the selection cases behind 6, 12 ..."""
    killed(data, tmp_path, ends_after=13)
    assert len(kept(tmp_path)) == 1
    assert counted(data, tmp_path) == 12
    (record,) = records(tmp_path)
    assert record.fingerprint == whole.fingerprint
    assert [one.training for one in record.execution.runs] == [one.training for one in whole.execution.runs]
    assert record.execution.features == whole.execution.features
    assert kept(tmp_path) == []


def test_what_has_trained_is_not_trained_again_when_a_later_run_or_a_report_was_ended(
    data, tmp_path, whole, monkeypatch
):
    """Runs that train one after the other; the second is ended, then its report."""
    settings = {"runs_together": False}
    killed(data, tmp_path, ends_after=24 + 7, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationProbe, "on_test_start", ended_in_run_1)
        killed(data, tmp_path, **settings)
    assert counted(data, tmp_path, **settings) == 0
    assert records(tmp_path)[-1].runs == whole.runs
    assert kept(tmp_path) == []


def ended_in_run_1(self, of=ClassificationProbe.on_test_start):
    if self.run == 1:
        raise Killed
    of(self)


def test_other_settings_do_not_resume_and_what_cannot_be_read_is_named(data, tmp_path):
    killed(data, tmp_path, ends_after=9, n_runs=1)
    (path,) = kept(tmp_path)
    killed(data, tmp_path, ends_after=20, n_runs=1, learning_rates=[0.01])  # resumed, it would have ended
    assert len(kept(tmp_path)) == 2
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TaskError, match=f"{path.name} cannot be read.*Delete it to train from the start"):
        fit(data, tmp_path, n_runs=1)


@pytest.mark.parametrize(
    ("every", "wrong"), [(0, "at least 1, or null for none; not 0"), (5, "leave checkpoint_every")]
)
def test_checkpoints_that_cannot_be_are_refused(every, wrong):
    trainer = Trainer(logger=False, accelerator="cpu")  # without data whose order is known
    with pytest.raises(TaskError, match=wrong):
        Checkpoints(trainer, CandidateHeads([0], None, torch.nn.Flatten, 0), SharedByRuns(), of={}, every=every)
