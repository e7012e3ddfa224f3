"""One micro-batch of student and teacher against DINOv2 written out plainly in float64, and every off-switch."""

import copy
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from pretrain.ssl.model import Pretrainer
from pretrain.training.optim import build_optimizer, clip_per_module
from tests.pretrain.test_losses import brute_force_koleo, h
from tests.pretrain.tiny import random_batch, tiny_config
from tests.vit.helpers import randomise

TEMPERATURE = 0.06


def build(*overrides: str) -> Pretrainer:
    """A model in float64 whose teacher differs from its student and whose centres are not zero."""
    model = Pretrainer(tiny_config(*overrides)).double()
    randomise(model.student, seed=1, std=0.2)
    randomise(model.teacher, seed=2, std=0.2)
    for seed, name in enumerate(("dino_centre", "ibot_centre")):
        centre = getattr(model, name)
        centre.copy_(torch.randn(len(centre), generator=torch.Generator().manual_seed(seed)) * 0.1)
    return model


def logits(head, tokens):
    vectors = head.mlp(tokens)
    rows = head.last_layer.weight
    return (vectors / vectors.norm(dim=-1, keepdim=True)) @ (rows / rows.norm(dim=-1, keepdim=True)).t()


def reference(model, batch) -> dict[str, torch.Tensor]:
    """DINOv2's step on whole feature maps and all logits, image by image; no drop path."""
    config, size = model.config, len(batch.global_crops) // 2
    student, teacher = model.student, model.teacher
    with torch.no_grad():
        whole = teacher.backbone(batch.global_crops)
        t_cls = ((logits(teacher.dino_head, whole.cls) - model.dino_centre) / TEMPERATURE).chunk(2)
        t_patches = (logits(teacher.ibot_head, whole.patches) - model.ibot_centre) / TEMPERATURE
    masked = student.backbone(batch.global_crops, batch.masks)
    s_global = (logits(student.dino_head, masked.cls) / 0.1).chunk(2)
    s_local = (logits(student.dino_head, student.backbone(batch.local_crops).cls) / 0.1).chunk(config.crops.num_local)
    s_patches = logits(student.ibot_head, masked.patches) / 0.1
    divisor = 2 + 2 * config.crops.num_local
    images = range(2 * size)
    out = {
        "dino_local": sum(h(t, s).mean() for t in t_cls for s in s_local) / divisor,
        "dino_global": (h(t_cls[1], s_global[0]).mean() + h(t_cls[0], s_global[1]).mean()) / divisor,
        "ibot": sum(
            h(t_patches[i][batch.masks[i]], s_patches[i][batch.masks[i]]).mean() for i in images if batch.masks[i].any()
        )
        / len(images),
        "koleo": sum(brute_force_koleo(view) for view in masked.cls.chunk(2)),
    }
    p = torch.cat(t_cls).softmax(-1)
    out["dino_teacher_entropy"] = -(p * p.log()).sum(-1).mean()
    out["total"] = out["dino_local"] + out["dino_global"] + out["ibot"] + 0.1 * out["koleo"]
    return out


SWITCHES = {
    "as shipped": (),
    "all logits held": ("losses.chunk_rows=null",),
    "whole last block": ("run.prune_last_block=false",),
    "centre from all logits": ("losses.centre_from_bottleneck=false",),
    "all plain": ("losses.chunk_rows=null", "run.prune_last_block=false", "losses.centre_from_bottleneck=false"),
    "2D": ("model.patch_size=[8, 8]", "crops.global_size=[32, 32]", "crops.local_size=[16, 16]"),
    "2.5D": ("model.patch_size=[1, 16, 16]", "masking.ratio=[0.1, 1.0]"),
}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_losses_and_gradients_equal_dinov2_written_out(switches):
    model = build(*switches)
    batch = random_batch(model.config)
    expected = reference(model, batch)
    (0.25 * expected["total"]).backward()
    wanted = {name: parameter.grad for name, parameter in model.student.named_parameters()}
    model.student.zero_grad()
    computed = model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=0.25)
    for name, value in expected.items():
        torch.testing.assert_close(computed.scalars()[name], value.detach(), rtol=1e-12, atol=1e-13, msg=name)
    for name, parameter in model.student.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=0, atol=1e-12, msg=name)
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_gradients_of_micro_batches_add_up():
    model = build()
    batches = [random_batch(model.config, seed=seed) for seed in (1, 20)]
    alone = []
    for batch in batches:
        model.student.zero_grad()
        model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=0.5)
        alone.append([parameter.grad.clone() for parameter in model.student.parameters()])
    model.student.zero_grad()
    for batch in batches:
        model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=0.5)
    for parameter, one, two in zip(model.student.parameters(), *alone, strict=True):
        torch.testing.assert_close(parameter.grad, one + two, rtol=0, atol=1e-13)


def test_pruning_changes_nothing_under_stochastic_depth():
    results = []
    for switches in (("run.prune_last_block=true",), ("run.prune_last_block=false",)):
        model = build("model.drop_path_rate=0.4", *switches)
        model.forward_backward(random_batch(model.config), teacher_temperature=TEMPERATURE, scale=1.0)
        results.append([parameter.grad for parameter in model.student.parameters()])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


def test_step_and_index_decide_stochastic_depth_and_nothing_else_does():
    model = build("model.drop_path_rate=0.4")
    batch = random_batch(model.config)

    def loss(batch):
        return model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=1.0).total.item()

    first = loss(batch)
    torch.manual_seed(5)
    assert loss(batch) == first
    others = [loss(dataclasses.replace(batch, **change)) for change in ({"step": 4}, {"index": 2})]
    assert len({first, *others}) == 3


def test_teacher_ignores_the_mode_and_the_drop_path():
    model = build("model.drop_path_rate=0.4")
    assert model.train().student.training
    assert not any(module.training for module in model.teacher.modules())
    batch = random_batch(model.config)
    seen = [
        model.forward_backward(dataclasses.replace(batch, step=step), teacher_temperature=0.05, scale=1.0)
        for step in (1, 2)
    ]
    assert torch.equal(seen[0].teacher_cls, seen[1].teacher_cls)
    torch.testing.assert_close(seen[0].teacher_cls, model.teacher.backbone(batch.global_crops).cls, rtol=0, atol=1e-12)


@pytest.mark.parametrize("switch", ["true", "false"])
def test_centres_move_to_the_mean_logits_of_the_whole_step_and_apply_a_step_late(switch):
    model = build(f"losses.centre_from_bottleneck={switch}")
    batches = [random_batch(model.config, seed=seed) for seed in (1, 20)]
    before = {name: getattr(model, f"{name}_centre").clone() for name in ("dino", "ibot")}
    means = {}
    with torch.no_grad():
        whole = [model.teacher.backbone(batch.global_crops) for batch in batches]
        rows = {
            "dino": torch.cat([tokens.cls for tokens in whole]),
            "ibot": torch.cat([tokens.patches[batch.masks] for tokens, batch in zip(whole, batches, strict=True)]),
        }
        means = {name: logits(model.teacher.get_submodule(f"{name}_head"), rows[name]).mean(0) for name in rows}
    for batch in batches:
        model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=0.5)
        assert torch.equal(model.dino_centre, before["dino"]), "the centre of a step is that of the steps before"
    model.update_centres(model.centre_statistics())
    for name in before:
        expected = 0.9 * before[name] + 0.1 * means[name]
        torch.testing.assert_close(getattr(model, f"{name}_centre"), expected, rtol=0, atol=1e-13)
    assert not model.centre_statistics().any(), "the next step starts anew"


def test_statistics_of_processes_add_up():
    model = build()
    batches = [random_batch(model.config, seed=seed) for seed in (1, 20)]
    parts = []
    for batch in batches:
        model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=0.5)
        parts.append(model.centre_statistics().clone())
        model.discard_step()
    assert parts[0].ndim == 1
    assert parts[0].numel() == 2 * (12 + 1), "two sums of bottleneck vectors and two counts, not the prototypes"
    other = copy.deepcopy(model)
    for batch in batches:
        other.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=0.5)
    other.update_centres(other.centre_statistics())
    model.update_centres(parts[0] + parts[1])
    torch.testing.assert_close(model.dino_centre, other.dino_centre, rtol=0, atol=1e-14)
    torch.testing.assert_close(model.ibot_centre, other.ibot_centre, rtol=0, atol=1e-14)


def test_without_masks_ibot_is_zero_and_its_centre_stays():
    model = build()
    masks = torch.zeros(6, 16, dtype=torch.bool)
    batch = random_batch(model.config, masks=masks)
    computed = model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=1.0)
    assert computed.ibot.item() == 0
    assert computed.total.isfinite()
    before = model.ibot_centre.clone()
    model.update_centres(model.centre_statistics())
    assert torch.equal(model.ibot_centre, before)


def test_a_single_sample_trains():
    model = build("run.micro_batch_size=1")
    computed = model.forward_backward(random_batch(model.config), teacher_temperature=TEMPERATURE, scale=1.0)
    assert computed.koleo.item() == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.student.parameters())


def test_teacher_is_the_moving_average_of_the_student():
    model = build()
    student = {name: value.clone() for name, value in model.student.state_dict().items()}
    teacher = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    model.update_teacher(0.992)
    for name, value in model.teacher.state_dict().items():
        torch.testing.assert_close(value, 0.992 * teacher[name] + 0.008 * student[name], rtol=0, atol=1e-14)
    model.update_teacher(1.0)
    after = model.teacher.state_dict()
    model.update_teacher(1.0)
    assert all(torch.equal(value, after[name]) for name, value in model.teacher.state_dict().items())


def test_the_teacher_must_not_move_before_the_centres():
    model = build()
    model.forward_backward(random_batch(model.config), teacher_temperature=TEMPERATURE, scale=1.0)
    with pytest.raises(RuntimeError, match="update_centres must come before update_teacher"):
        model.update_teacher(0.9)
    model.discard_step()
    model.update_teacher(0.9)


def test_initial_weights_depend_on_the_seed_alone_and_the_teacher_starts_as_the_student():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Pretrainer(tiny_config())
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"
    torch.manual_seed(2)
    again, other = Pretrainer(tiny_config()), Pretrainer(tiny_config("run.seed=1"))
    name = "student.backbone.blocks.0.attn.qkv.weight"
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    for name, value in first.student.state_dict().items():
        assert torch.equal(value, first.teacher.state_dict()[name])
    assert not torch.equal(first.student.dino_head.last_layer.weight, first.student.ibot_head.last_layer.weight)


def test_state_dict_is_student_teacher_and_centres():
    model = Pretrainer(tiny_config())
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"student", "teacher", "dino_centre", "ibot_centre"}
    other = Pretrainer(tiny_config("run.seed=1"))
    other.load_state_dict(model.state_dict())
    batch = random_batch(model.config, torch.float32)
    one, two = (m.forward_backward(batch, teacher_temperature=0.05, scale=1.0).total for m in (model, other))
    assert torch.equal(one, two)


def test_bfloat16_stays_near_float32_with_float32_weights_and_gradients():
    totals, gradients = [], []
    for precision in ("fp32", "bf16"):
        model = Pretrainer(tiny_config(f"run.precision={precision}"))
        computed = model.forward_backward(
            random_batch(model.config, torch.float32), teacher_temperature=TEMPERATURE, scale=1.0
        )
        totals.append(computed.total)
        gradients.append(torch.cat([p.grad.flatten() for p in model.student.parameters()]))
    assert {parameter.dtype for parameter in model.student.parameters()} == {torch.float32}
    assert gradients[1].dtype == totals[1].dtype == torch.float32
    assert totals[1].item() == pytest.approx(totals[0].item(), rel=0.01)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.slow
def test_compiled_blocks_and_losses_equal_eager_ones():
    results = []
    for switches in (("run.compile=false",), ("run.recompute=false",), ("run.recompute=true",)):
        torch.compiler.reset()
        model = Pretrainer(tiny_config("run.compile=true", "model.drop_path_rate=0.4", *switches))
        batch = random_batch(model.config, torch.float32)
        held: dict[int, int] = {}

        def hold(tensor, held=held):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            totals = [model.forward_backward(batch, teacher_temperature=t, scale=1.0).total for t in (0.05, 0.06)]
        results.append((totals, [parameter.grad for parameter in model.student.parameters()], sum(held.values())))
    (totals, gradients, _), *compiled = results
    for other_totals, other_gradients, _ in compiled:
        for one, two in zip(totals, other_totals, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=0)
        # As wholes: KoLeo magnifies the rounding of CLS tokens that nearly coincide, so an element may be off by more.
        # (In float64 the compiled blocks do not run with PyTorch 2.11.)
        for one, two in zip(gradients, other_gradients, strict=True):
            assert (one - two).norm() <= 1e-3 * one.norm() + 1e-5
        one, two = (torch.cat([g.flatten() for g in some]) for some in (gradients, other_gradients))
        assert (one - two).norm() < 1e-5 * one.norm()
    assert compiled[1][2] < 0.9 * compiled[0][2], "run.recompute holds less"


def test_a_step_never_asks_the_device_for_a_value(monkeypatch):
    """Tensors without values stand for those of a GPU: whatever needs one, as to know a size, is an error."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # from PyTorch 2.13 on it asks
    config = tiny_config("model.drop_path_rate=0.4")
    batch = random_batch(config, torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Pretrainer(config)
        optimizer = build_optimizer(model.student, config)
        with pytest.raises(DynamicOutputShapeException):
            model.forward_backward(
                dataclasses.replace(batch, num_masked=None), teacher_temperature=TEMPERATURE, scale=1.0
            )
        model.discard_step()
        model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=1.0)
        norms = clip_per_module(model.student, 3.0)
        finite = torch.stack(list(norms.values())).isfinite().all()
        optimizer.found_inf = (~finite).float()
        optimizer.step()
        model.update_centres(model.centre_statistics().clone())
        model.update_teacher(0.99, applied=finite)
