"""Patches that the student leaves out are as if they were not there; masked ones are never among them."""

import pytest
import torch
from torch.nn import functional

from pretrain.data.counters import Stream, generator
from pretrain.data.masking import block_masks, draw_computed
from pretrain.errors import PretrainError
from pretrain.ssl.model import Pretrainer
from tests.pretrain.test_model import TEMPERATURE, build
from tests.pretrain.tiny import random_batch, tiny_config
from tests.vit.helpers import noise


def draw(step: int = 0) -> torch.Generator:
    return generator(0, step, 0, Stream.DROP_PATCHES)


def test_masked_patches_stay_and_others_are_left_out_alike():
    config = tiny_config("crops.global_size=[8, 64, 64]").masking
    masks = block_masks(8, (2, 8, 8), config, generator(0, 0, 0, Stream.MASKS))
    times, steps = torch.zeros(masks.shape), 400
    for step in range(steps):
        computed = draw_computed(masks, 90, draw(step))
        assert computed.shape == (8, 90)
        assert (computed.diff(dim=1) > 0).all(), "each once, ascending"
        times += torch.zeros_like(times).scatter(1, computed, 1.0)
    assert (times[masks] == steps).all()
    masked = masks.sum(1)
    for crop, count in enumerate(masked.tolist()):
        share = (90 - count) / (128 - count)
        seen = times[crop][~masks[crop]] / steps
        assert seen.mean().item() == pytest.approx(share, rel=1e-5)
        assert (seen - share).abs().max() < 5 * (share * (1 - share) / steps) ** 0.5
    assert torch.equal(draw_computed(masks, 90, draw()), draw_computed(masks, 90, draw()))
    assert not torch.equal(draw_computed(masks, 90, draw()), draw_computed(masks, 90, draw(1)))


@pytest.mark.parametrize("prune", [True, False])
def test_what_is_left_out_is_as_if_it_were_not_there(monkeypatch, prune):
    """Against whole attention whose weights for these patches are nought; tokens and gradients."""
    backbone = build().student.backbone
    images, masks = noise(3, 1, 4, 32, 32, dtype=torch.float64), noise(3, 16, seed=2) > 1.0
    patches, computed = masks.flatten().nonzero().squeeze(1), draw_computed(masks, 11, draw())
    assert 0 < len(patches) < 20
    cls, tokens = backbone.forward_at(images, patches, masks=masks, computed=computed, most_patches=9, prune=prune)
    (cls.square().sum() + tokens.cos().sum()).backward()
    gradients = [parameter.grad.clone() for parameter in backbone.parameters()]

    there = torch.zeros(3, 16, dtype=torch.bool).scatter(1, computed, True)
    keys = torch.cat((torch.ones(3, 5, dtype=torch.bool), there), dim=1)
    attention = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda q, k, v: attention(q, k, v, keys[:, None, None])
    )
    backbone.zero_grad()
    whole = backbone(images, masks)
    torch.testing.assert_close(cls, whole.cls, rtol=0, atol=1e-12)
    torch.testing.assert_close(tokens, whole.patches.flatten(0, 1)[patches], rtol=0, atol=1e-12)
    (whole.cls.square().sum() + whole.patches.flatten(0, 1)[patches].cos().sum()).backward()
    for one, parameter in zip(gradients, backbone.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=0, atol=1e-11)


def test_leaving_out_none_is_the_whole_step():
    model = build("model.drop_path_rate=0.4")
    batch = random_batch(model.config)
    every = torch.arange(16).expand(6, -1)
    plain, through = [], []
    for computed, kept in ((None, plain), (every, through)):
        model._computed_patches = lambda batch, computed=computed: computed
        model.student.zero_grad()
        model.forward_backward(batch, teacher_temperature=TEMPERATURE, scale=1.0)
        kept += [parameter.grad.clone() for parameter in model.student.parameters()]
    for one, other in zip(plain, through, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_step_and_index_decide_what_is_left_out():
    model = Pretrainer(tiny_config("masking.drop=0.25"))
    batch = random_batch(model.config, torch.float32)
    first, again = (model.forward_backward(batch, teacher_temperature=0.05, scale=1.0).total for _ in range(2))
    plain = Pretrainer(tiny_config()).forward_backward(batch, teacher_temperature=0.05, scale=1.0)
    assert torch.equal(first, again)
    assert not torch.equal(first, plain.total)


def test_more_than_the_masks_leave_is_refused():
    assert tiny_config("masking.drop=0.4").computed_patches == 10
    with pytest.raises(PretrainError, match=r"masking.drop leaves 8 patches of a crop, and up to 9 are masked"):
        tiny_config("masking.drop=0.5")
    early = ("early.global_size=[4, 16, 16]", "early.local_size=[4, 8, 8]")
    with pytest.raises(PretrainError, match=r"masking.drop leaves 2 patches of a crop, and up to 3 are masked"):
        tiny_config("masking.drop=0.4", *early)
