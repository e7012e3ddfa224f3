"""Attention by slabs: what eva's own forward gives on a padded batch, without holding one."""

import copy

import pytest
import torch
from eva.vision.models.networks import ABMIL
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from tapct.features.channels import Channels
from tapct.features.values import quantised
from tapct.probes import attention
from tapct.probes.attention import Bag
from tapct.probes.scaling import ChannelScale

CHANNELS, LABELS = 24, 3
SHAPES = ((1, 1, 1), (50, 4, 5), (7, 3, 3), (301, 2, 2))
"""Patches of four scans: one of one, and the longest 1204 times that."""


def bags() -> list[Bag]:
    """Bags of very different lengths, as stored: bfloat16, the second one a view of a larger map."""
    rng = torch.Generator().manual_seed(0)
    maps = [torch.randn(CHANNELS, *shape, generator=rng).mul(3).bfloat16() for shape in SHAPES]
    maps[1] = torch.nn.functional.pad(maps[1], (0, 2, 0, 1))[:, :, :4, :5]
    divisor = torch.rand(CHANNELS, generator=rng).double() + 0.5
    return [Bag(Channels(one), ChannelScale(divisor, 0)) for one in maps]


def heads(dtype: torch.dtype) -> list[ABMIL]:
    torch.manual_seed(0)
    return [ABMIL(CHANNELS, LABELS, None, hidden_sizes_mlp=()).to(dtype) for _ in range(3)]


def target() -> torch.Tensor:
    return torch.rand(len(SHAPES), LABELS, generator=torch.Generator().manual_seed(1)).round()


def plain(heads: list[ABMIL], bags: list[Bag]) -> torch.Tensor:
    """eva's forward of each head on the batch padded to its longest bag."""
    dtype = next(heads[0].parameters()).dtype
    whole = [bag.features.whole().to(dtype).T / bag.scale.divisor.to(dtype) for bag in bags]
    padded = pad_sequence(whole, batch_first=True, padding_value=float("-inf"))
    return torch.stack([head(padded) for head in heads])


def losses_and_gradients(logits, heads) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    found = logits(heads, bags())
    each = torch.stack([binary_cross_entropy_with_logits(one, target().to(one)) for one in found])
    each.sum().backward()
    named = {f"{i}.{name}": p.grad for i, head in enumerate(heads) for name, p in head.named_parameters()}
    return each.detach(), named


@pytest.mark.parametrize("slab", [16, 2**13])
@pytest.mark.parametrize("padded_values", [0, 2**22], ids=["by slabs", "padded"])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_losses_and_gradients_are_those_of_the_padded_batch(monkeypatch, dtype, within, padded_values, slab):
    wanted, wanted_gradients = losses_and_gradients(plain, heads(torch.float64))
    monkeypatch.setattr(attention, "INSTANCES", slab)
    monkeypatch.setattr(attention, "PADDED_VALUES", padded_values)
    same = [copy.deepcopy(head).to(dtype) for head in heads(torch.float64)]
    found, gradients = losses_and_gradients(attention.logits, same)
    torch.testing.assert_close(found.double(), wanted, rtol=within, atol=within)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.double(), wanted_gradients[name], rtol=0, atol=within, msg=name)
    assert min(float(g.abs().max()) for n, g in wanted_gradients.items() if not n.endswith("c.bias")) > 1e-4


def test_each_head_is_trained_as_if_alone(monkeypatch):
    monkeypatch.setattr(attention, "PADDED_VALUES", 0)
    together, alone = heads(torch.float32), heads(torch.float32)
    _, gradients = losses_and_gradients(attention.logits, together)
    for place, head in enumerate(alone):
        _, own = losses_and_gradients(attention.logits, [head])
        assert all(torch.equal(own[f"0.{n}"], gradients[f"{place}.{n}"]) for n, _ in head.named_parameters())


def test_no_bag_is_kept_for_the_gradient(monkeypatch):
    """eva's forward keeps a float32 copy of the padded batch a head; by slabs only pooled vectors stay."""

    def kept(logits) -> int:
        values: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            values[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            found = logits(heads(torch.float32), bags())
            assert found.requires_grad
        return sum(values.values())

    of_bags = sum(bag.features.stored.numel() for bag in bags())
    parameters = sum(p.numel() for head in heads(torch.float32) for p in head.parameters())
    monkeypatch.setattr(attention, "PADDED_VALUES", 0)
    monkeypatch.setattr(attention, "INSTANCES", 16)
    assert kept(plain) > 3 * of_bags
    assert kept(attention.logits) < parameters + of_bags / 20


def test_slabs_are_all_instances_once_and_no_larger_than_asked(monkeypatch):
    monkeypatch.setattr(attention, "INSTANCES", 40)
    like = torch.zeros((), dtype=torch.float64)
    for bag in bags():
        slabs = [*bag.slabs(like)]
        whole = bag.features.whole().double().T / bag.scale.divisor
        torch.testing.assert_close(torch.cat(slabs), whole, rtol=1e-14, atol=0)
        assert all(len(slab) <= 40 for slab in slabs)


def test_a_bag_in_int8_is_that_of_its_values_and_never_whole_in_float32(monkeypatch):
    """The same logits to the bit as from values that were made float32 at once, with slabs that are made one by one."""
    monkeypatch.setattr(attention, "PADDED_VALUES", 0)
    monkeypatch.setattr(attention, "INSTANCES", 40)
    of_values, of_steps = [], []
    for bag in bags():
        steps, scale = quantised(bag.features.stored)
        of_steps.append(Bag(Channels(steps, scale), bag.scale))
        of_values.append(Bag(Channels(steps.float() * scale[:, None, None, None]), bag.scale))
    made = []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.dtype == torch.float32:
                made.append(found.numel())
            return found

    trained = heads(torch.float32)
    with Seen():
        found = attention.logits(trained, of_steps)
    assert torch.equal(found, attention.logits(trained, of_values))
    assert max(made) < max(bag.features.stored.numel() for bag in of_steps) / 5
    assert not torch.equal(found, attention.logits(trained, bags())), "or there was no int8"


def test_evaluation_builds_no_graph(monkeypatch):
    monkeypatch.setattr(attention, "PADDED_VALUES", 0)
    with torch.inference_mode():
        found = attention.logits(heads(torch.float32), bags())
    assert not found.requires_grad
    assert torch.allclose(found, plain(heads(torch.float32), bags()), atol=1e-5)
