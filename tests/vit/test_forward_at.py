"""The pruned last block gives what the whole one gives: values, gradients, stochastic depth."""

import pytest
import torch

from tapct.vit import VisionTransformer
from tests.vit.helpers import noise, randomise
from tests.vit.test_drop_path import seeded

BATCH, PATCHES = 5, 12


def build(rate: float = 0.0) -> VisionTransformer:
    model = VisionTransformer(
        window_size=(2, 4, 6), patch_size=(1, 2, 2), embed_dim=12, depth=3, num_heads=3, drop_path_rate=rate
    ).double()
    randomise(model)
    return model


def crops() -> torch.Tensor:
    return noise(BATCH, 1, 2, 4, 6, dtype=torch.float64)


def random_masks() -> torch.Tensor:
    masks = torch.rand(BATCH, PATCHES, generator=seeded(3)) < 0.4
    masks[1], masks[3] = False, True
    return masks


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("most_patches", [None, PATCHES])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_equals_the_whole_forward(rate, most_patches, prune):
    model, x, masks = build(rate).train(), crops(), random_masks()
    patches = masks.flatten().nonzero().squeeze(1)
    weights = noise(BATCH + len(patches), 12, seed=7, dtype=torch.float64)

    whole = model(x, masks, generator=seeded(0))
    expected = torch.cat((whole.cls, whole.patches.flatten(0, 1)[patches]))
    chosen = torch.cat(
        model.forward_at(x, patches, masks=masks, most_patches=most_patches, generator=seeded(0), prune=prune)
    )
    torch.testing.assert_close(chosen, expected, rtol=0, atol=1e-12)

    parameters = list(model.parameters())
    wanted = torch.autograd.grad((expected * weights).sum(), parameters, allow_unused=True)
    computed = torch.autograd.grad((chosen * weights).sum(), parameters, allow_unused=True)
    for name, one, two in zip(dict(model.named_parameters()), computed, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("patches", [None, torch.zeros(0, dtype=torch.long)])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_cls_alone(rate, patches):
    model, x = build(rate).train(), crops()
    cls, none = model.forward_at(x, patches, generator=seeded(0))
    assert none.shape == (0, 12)
    torch.testing.assert_close(cls, model(x, generator=seeded(0)).cls, rtol=0, atol=1e-12)


def test_more_patches_than_the_bound_are_refused():
    model = build().eval()
    with pytest.raises(IndexError):
        model.forward_at(crops(), torch.arange(PATCHES), most_patches=PATCHES - 1)


def test_other_tokens_of_the_last_block_are_not_computed():
    model, rows = build().eval(), []
    model.blocks[-1].mlp.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].numel() // 12))
    model.blocks[-1].attn.proj.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    model.forward_at(crops(), torch.tensor([0, 1, 30]))
    assert rows == [BATCH + 3, BATCH + 3]
