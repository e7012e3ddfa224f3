"""The gradients of a step are the mean over its micro-batches, whoever computes them; and a run shows what it does."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain.data.batches import Batches
from pretrain.observe.monitor import read_events
from pretrain.settings import load_config
from pretrain.ssl.model import Pretrainer
from pretrain.training.schedules import Schedules
from tests.conftest import QUICKSTART
from tests.pretrain.runs import Running, arguments, checkpoint, logged, run_here

ONE_STEP = ("--run.steps=3", "--run.stop_at=1", "--optim.clip_norm=1e9")
BETA1 = 0.9


@pytest.fixture(scope="module")
def mean_gradients(store, tmp_path_factory):
    """Those of the first step in float64, each micro-batch by itself and then averaged."""
    output = tmp_path_factory.mktemp("none")
    config = load_config(arguments(store, output)[1], [*arguments(store, output)[2:], *ONE_STEP])
    model, batches = Pretrainer(config).double(), Batches(config, "cpu")
    parameters = dict(model.student.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for index in range(config.run.micro_batches):
        batch = batches.get(0, index)
        for name in ("global_crops", "local_crops"):
            object.__setattr__(batch, name, getattr(batch, name).double())
        model.zero_grad(set_to_none=True)
        model.forward_backward(batch, teacher_temperature=Schedules(config).teacher_temperature(0), scale=1.0)
        for name, parameter in parameters.items():
            total[name] += parameter.grad / config.run.micro_batches
    return total


def gradients(store, output, processes: int) -> dict[str, torch.Tensor]:
    """Those of the first step: after it, AdamW's first moment is (1 - beta1) times the gradient."""
    run = Running(store, output, *ONE_STEP, processes=processes)
    assert run.wait() == [0] * processes, run.said
    optimizer = checkpoint(output, 1)["optimizer"]
    names = [name for group in optimizer["param_groups"] for name in group["names"]]
    return {name: optimizer["state"][number]["exp_avg"].double() / (1 - BETA1) for number, name in enumerate(names)}


def largest_error(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference of a parameter's gradients, over the largest of these gradients."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-6)) for name in ours
    )


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory):
    return gradients(store, tmp_path_factory.mktemp("alone"), processes=1)


def test_gradients_are_the_mean_over_the_micro_batches(alone, mean_gradients):
    assert largest_error(alone, mean_gradients) < 5e-3, "float32, four blocks, logarithms of small distances"


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_gradients_are_the_same_whoever_computes_them(processes, alone, store, tmp_path):
    shared = gradients(store, tmp_path, processes)
    assert largest_error(shared, alone) < 1e-5, "only the order of sums may differ"


def test_a_run_leaves_what_it_says(store, tmp_path, caplog):
    caplog.set_level("INFO")
    probe = (f"--run.probe.folder={QUICKSTART}", "--run.probe.every_steps=2", "--crops.global_size=[4, 96, 96]")
    small = ("--run.steps=4", "--run.checkpoint_every=4", "--run.micro_batches=2")
    assert run_here(store, tmp_path, *small, *probe) == 0
    kinds = [event["event"] for event in read_events(tmp_path)]
    assert kinds == ["start", "probe", "metrics", "metrics", "probe", "metrics", "checkpoint", "metrics", "end"] or (
        sorted(kinds) == sorted(["start", "end", "checkpoint", *["metrics"] * 4, *["probe"] * 3])
    )
    values = logged(tmp_path)[4]
    for name in (
        "loss",
        "ibot",
        "entropy_dino",
        "centre_norm_ibot",
        "effective_rank",
        "grad_norm_backbone",
        "momentum",
    ):
        assert name in values
    assert 0 < values["entropy_dino"] <= 1
    assert 1 <= values["effective_rank"] <= 8, "8 class tokens: two views of four samples"
    scores = [event for event in read_events(tmp_path) if event["event"] == "probe"]
    assert [event["step"] for event in scores] == [0, 2, 4]
    assert all(event["organs"] >= 4 and 0 <= event["accuracy"] <= 1 for event in scores)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("metrics/loss")] == [1, 2, 3, 4]
    assert [event.step for event in board.Scalars("probe/accuracy")] == [0, 2, 4]
    assert "samples/s" in caplog.text
    assert "data wait" in caplog.text
    assert "ETA" in caplog.text


def test_collapse_is_told_and_can_stop_the_run(store, tmp_path, capsys):
    limits = ("--run.collapse.after_steps=1", "--run.collapse.min_entropy=0.9999", "--run.micro_batches=1")
    assert run_here(store, tmp_path / "told", "--run.steps=4", *limits) == 0
    alarms = [event for event in read_events(tmp_path / "told") if event["event"] == "alarm"]
    assert alarms
    assert alarms[0]["step"] == 2
    assert alarms[0]["limit"] == 0.9999
    assert len({alarm["name"] for alarm in alarms}) == len(alarms), "told once, not at every line"
    assert run_here(store, tmp_path / "stopped", "--run.steps=4", *limits, "--run.collapse.stop=true") == 1
    assert "collapse: entropy_" in capsys.readouterr().err


@pytest.mark.slow
def test_the_debug_config_trains_in_minutes_and_its_loss_goes_down(store, tmp_path):
    from pretrain import train
    from tests.pretrain.tiny import CONFIGS

    config = str(CONFIGS / "tap_debug.yaml")
    assert train.main(["--config", config, f"--data.store={store}", f"--run.output={tmp_path}"]) == 0
    losses = [values["loss"] for values in logged(tmp_path).values()]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
