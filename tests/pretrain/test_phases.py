"""Small crops first: the change of size alters no function, resumes to the bit, and is counted, told and exported."""

import pytest
import torch

import tapct
from pretrain import export
from pretrain.errors import PretrainError
from pretrain.observe.monitor import read_events
from pretrain.ssl.model import Pretrainer, build_backbone
from pretrain.training.flops import run_flops, sample_flops
from pretrain.training.optim import build_optimizer
from pretrain.training.phases import POSITIONS, grown
from tests.pretrain.runs import checkpoint, differing, logged, run_here
from tests.pretrain.tiny import random_batch, tiny_config
from tests.vit.helpers import noise, randomise

EARLY = ("early.global_size=[4, 16, 16]", "early.local_size=[4, 8, 8]", "early.full_size_last=0.5")
STEPS, CHANGE = 4, 2
OPTIONS = (*(f"--{option}" for option in EARLY), f"--run.steps={STEPS}", "--run.micro_batches=1")


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    """All steps without interruption, with one thread as the runs that are compared with it."""
    output = tmp_path_factory.mktemp("runs") / "grows"
    assert run_here(store, output, *OPTIONS, "--run.checkpoint_every=1", "--run.keep=9") == 0
    return output


def test_a_run_has_one_phase_or_two():
    config = tiny_config("run.steps=61")
    assert config.phases == ((0, config),)
    assert config.at(60) is config
    config = tiny_config("run.steps=100", *EARLY[:2])
    (start, small), (change, full) = config.phases
    assert (start, change) == (0, 90)
    assert (small.global_grid, small.local_grid) == ((1, 2, 2), (1, 1, 1))
    assert (full.crops, config.at(89), config.at(90)) == (config.crops, small, full)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("early.local_size=null", "early.global_size and early.local_size go together"),
        ("early.global_size=[4, 20, 16]", "early.global_size height 20 is not a positive multiple"),
        ("early.global_size=[16, 16]", "early.* must have as many axes"),
        ("early.local_size=[4, 24, 16]", r"early.local_size \(4, 24, 16\) must not be larger than crops.local_size"),
        ("early.full_size_last=1.0", "early.full_size_last"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(override, says):
    with pytest.raises(PretrainError, match=says):
        tiny_config(*EARLY, override)


def test_networks_compute_the_same_after_the_change_as_before():
    (_, small), (_, full) = tiny_config(*EARLY).phases
    model = Pretrainer(small)
    randomise(model, seed=3)
    optimizer = build_optimizer(model.student, small)
    for parameter in model.student.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = grown({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, small, full)
    after = Pretrainer(full)
    after.load_state_dict(state["model"])
    windows = noise(2, 1, *full.crops.global_size)
    for name in ("student", "teacher"):
        one, other = (getattr(m, name).backbone.eval()(windows) for m in (model, after))
        assert torch.equal(one.patches, other.patches)
        assert torch.equal(one.cls, other.cls)
    assert after.student.backbone.pos_embed.shape == (1, 1 + 16, 96)
    grew = build_optimizer(after.student, full)
    grew.load_state_dict(state["optimizer"])
    fresh = [name for name, p in after.student.named_parameters() if p not in grew.state]
    assert fresh == [POSITIONS], "the moments of all others stay"


@pytest.mark.parametrize("stop", [CHANGE - 1, CHANGE])
def test_a_run_that_stops_about_the_change_resumes_to_the_bit(store, straight, tmp_path, stop):
    assert run_here(store, tmp_path, *OPTIONS, f"--run.stop_at={stop}") == 0
    assert run_here(store, tmp_path, *OPTIONS) == 0
    assert differing(checkpoint(tmp_path, STEPS), checkpoint(straight, STEPS)) == []
    assert logged(tmp_path) == logged(straight)
    (told,) = (event for event in read_events(tmp_path) if event["event"] == "phase")
    assert (told["step"], told["global_size"]) == (CHANGE, [4, 32, 32])


def test_exports_have_the_window_of_the_run_also_before_the_change(straight, tmp_path):
    (_, small), _ = tiny_config(*EARLY).phases
    windows = noise(2, 1, 4, 32, 32) * 300
    for step in (1, STEPS):
        assert export.main([str(straight), "-o", str(tmp_path), "--step", str(step)]) == 0
        encoder = tapct.load_encoder(str(tmp_path))
        assert encoder.card.window_size == (4, 32, 32)
        state = checkpoint(straight, step)["model"]
        teacher = build_backbone(small if step == 1 else tiny_config()).eval()
        prefix = "teacher.backbone."
        teacher.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        normal = (windows.clamp(-1008.0, 822.0) + 86.8086) / 322.6347
        torch.testing.assert_close(encoder(windows).map, teacher(normal).map, atol=1e-5, rtol=1e-5)
        said = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert f"steps up to {min(step, CHANGE)} with crops of (4, 16, 16) and (4, 8, 8)" in said


def test_flops_of_a_run_are_those_of_its_phases():
    config = tiny_config("run.steps=20", "run.micro_batches=2", *EARLY[:2], "early.full_size_last=0.15")
    small, full = (6 * sample_flops(phase).total for _, phase in config.phases)
    assert small < full / 2
    assert run_flops(config) == pytest.approx(17 * small + 3 * full)
    assert run_flops(config, 15, 18) == pytest.approx(2 * small + full)
    assert run_flops(tiny_config("run.steps=20", "run.micro_batches=2")) == pytest.approx(20 * full)


def test_an_early_phase_trains_as_a_run_of_its_size_does():
    """Its step is that of a run with such crops and nothing else."""
    (_, small), _ = tiny_config(*EARLY).phases
    alone = tiny_config("crops.global_size=[4, 16, 16]", "crops.local_size=[4, 8, 8]")
    batch = random_batch(alone, torch.float32, masks=torch.eye(4, dtype=torch.bool).repeat(2, 1)[:6])
    losses = [
        Pretrainer(config).forward_backward(batch, teacher_temperature=0.05, scale=1.0).total
        for config in (small, alone)
    ]
    assert torch.equal(*losses)
