"""Stochastic depth by batch subset: right in expectation, seeded, silent in evaluation."""

import itertools

import pytest
import torch

from tapct.vit import VisionTransformer
from tapct.vit.blocks import draw_kept_samples
from tests.vit.helpers import noise, randomise

CPU = torch.device("cpu")


def build(rate: float, depth: int = 1) -> VisionTransformer:
    model = VisionTransformer(
        window_size=(4, 4), patch_size=(2, 2), embed_dim=6, depth=depth, num_heads=2, drop_path_rate=rate
    ).double()
    randomise(model)
    return model


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int) -> torch.Tensor:
    return noise(batch, 1, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("silent", ["ls1", "ls2"])
def test_mean_over_all_subsets_is_the_full_residual(silent):
    model = build(0.4)
    block = model.blocks[0]
    with torch.no_grad():
        getattr(block, silent).gamma.zero_()  # one branch at a time: the second sees what the first left
        tokens = model.embed(images(5))
        full = block(tokens)
        outputs = [block(tokens, torch.tensor([kept, kept])) for kept in itertools.combinations(range(5), 3)]
    assert (full - tokens).abs().max() > 0.1
    torch.testing.assert_close(torch.stack(outputs).mean(0), full, rtol=0, atol=1e-12)


def test_mean_over_many_draws_nears_the_full_residual():
    model = build(0.4)
    block, draws, generator = model.blocks[0], 1500, seeded(0)
    with torch.no_grad():
        block.ls2.gamma.zero_()
        tokens = model.embed(images(5))
        full = block(tokens) - tokens
        total = torch.zeros_like(full)
        for _ in range(draws):
            kept = draw_kept_samples(5, 0.4, 1, device=CPU, generator=generator)[0]
            total += block(tokens, kept) - tokens
    # Each draw gives 5/3 of the residual with probability 3/5: a standard deviation of sqrt(2/3) of it.
    error = (total / draws - full).abs() / full.abs()
    assert error.max() < 5 * (2 / 3 / draws) ** 0.5


@pytest.mark.parametrize(
    ("batch", "rate", "count"), [(10, 0.2, 8), (32, 0.1, 29), (8, 0.3, 6), (4, 0.9, 1), (2, 0.9, 1)]
)
def test_number_of_kept_samples(batch, rate, count):
    kept = draw_kept_samples(batch, rate, 3, device=CPU, generator=seeded(0))
    assert kept.shape == (3, 2, count)
    for branch in kept.reshape(-1, count).tolist():
        assert len(set(branch)) == count
        assert set(branch) <= set(range(batch))


@pytest.mark.parametrize(("batch", "rate"), [(8, 0.0), (1, 0.5), (4, 0.1)])
def test_nothing_is_drawn_where_all_are_kept(batch, rate):
    assert draw_kept_samples(batch, rate, 3, device=CPU) is None


@pytest.mark.thorough
def test_samples_are_kept_equally_often_and_branches_independently():
    generator = seeded(0)
    kept = torch.stack([draw_kept_samples(5, 0.4, 2, device=CPU, generator=generator) for _ in range(2000)])
    chosen = torch.zeros(2000, 4, 5).scatter_(2, kept.flatten(1, 2), 1.0)
    assert (chosen.mean(0) - 0.6).abs().max() < 5 * (0.24 / 2000) ** 0.5
    # If two branches are independent, a sample passes both with probability 0.36.
    both = torch.einsum("nas,nbs->ab", chosen, chosen) / (2000 * 5)
    apart = both[~torch.eye(4, dtype=torch.bool)]
    assert (apart - 0.36).abs().max() < 0.03


def test_training_scales_the_kept_samples_and_leaves_the_others():
    model = build(0.2).train()
    with torch.no_grad():
        model.blocks[0].ls2.gamma.zero_()
        model.norm = torch.nn.Identity()
        batch = images(10)
        before = model.embed(batch)[:, 0]
        ratio = (model(batch, generator=seeded(0)).cls - before) / (model.eval()(batch).cls - before)
    kept = ratio.abs().amax(dim=1) > 0
    assert kept.sum() == 8
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 10 / 8))


def test_each_branch_has_its_own_samples():
    block = build(0.5).blocks[0]
    tokens, kept = noise(4, 5, 6, dtype=torch.float64), torch.tensor([[0, 1], [2, 3]])
    with torch.no_grad():
        assert (block(tokens, kept) != tokens).flatten(1).any(1).all(), "two pass attention, the other two the MLP"
        block.ls2.gamma.zero_()
        assert (block(tokens, kept) != tokens).flatten(1).any(1).tolist() == [True, True, False, False]


def test_each_block_has_its_own_samples():
    model, batch = build(0.5, depth=2).train(), images(10)
    passed = []
    with torch.no_grad():
        unchanged = model.norm(model.embed(batch)[:, 0])
        for active in model.blocks:
            for block in model.blocks:
                block.ls1.gamma.fill_(float(block is active))
                block.ls2.gamma.zero_()
            passed.append((model(batch, generator=seeded(0)).cls != unchanged).any(1).tolist())
    assert [sum(samples) for samples in passed] == [5, 5], "the rate is uniform over the blocks"
    assert passed[0] != passed[1]


def test_evaluation_keeps_every_residual():
    dropping, plain = build(0.5, depth=3).eval(), build(0.0, depth=3).train()
    batch = images(6)
    first, again, expected = dropping(batch), dropping(batch, generator=seeded(1)), plain(batch)
    for one, two, three in zip(first[:3], again[:3], expected[:3], strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_the_generator_alone_decides_the_draw():
    model = build(0.5, depth=3).train()
    batch = images(6)
    torch.manual_seed(0)
    first = model(batch, generator=seeded(1)).cls
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = model(batch, generator=seeded(1)).cls
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"
    assert not torch.equal(first, model(batch, generator=seeded(2)).cls)


def test_without_a_generator_the_global_seed_decides():
    model = build(0.5, depth=3).train()
    batch = images(6)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(model(batch).cls)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_gradient_of_dropped_samples_is_the_identity():
    model = build(0.5).train()
    tokens = model.embed(images(4)).detach().requires_grad_()
    kept = torch.tensor([[0, 1], [0, 1]])
    model.blocks[0](tokens, kept).sum().backward()
    assert torch.equal(tokens.grad[2:], torch.ones_like(tokens.grad[2:]))
    assert not torch.equal(tokens.grad[:2], torch.ones_like(tokens.grad[:2]))
