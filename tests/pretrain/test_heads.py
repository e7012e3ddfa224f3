"""The projection head against DINOv2's, built from PyTorch's own parts."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from pretrain.ssl.heads import ProjectionHead
from tests.vit.helpers import noise

SIZES = {"hidden_dim": 20, "bottleneck_dim": 6, "prototypes": 11, "num_layers": 3}


def test_logits_and_gradients_are_those_of_dinov2s_head():
    head = ProjectionHead(9, **SIZES).double()
    last = weight_norm(nn.Linear(6, 11, bias=False).double())
    last.parametrizations.weight.original0.data.fill_(1)  # the gain
    last.parametrizations.weight.original1.data.copy_(head.last_layer.weight.data)
    mlp = nn.Sequential(nn.Linear(9, 20), nn.GELU(), nn.Linear(20, 20), nn.GELU(), nn.Linear(20, 6)).double()
    mlp.load_state_dict(head.mlp.state_dict())
    x = noise(5, 9, dtype=torch.float64)
    expected = last(nn.functional.normalize(mlp(x), dim=-1, p=2))
    computed = head(x) @ head.prototypes().t()
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-14)
    target = noise(5, 11, seed=2, dtype=torch.float64)
    (expected * target).sum().backward()
    (computed * target).sum().backward()
    gradient = last.parametrizations.weight.original1.grad
    torch.testing.assert_close(head.last_layer.weight.grad, gradient, rtol=0, atol=1e-13)
    for ours, theirs in zip(head.mlp.parameters(), mlp.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-13)


def test_a_trained_gain_is_that_of_dinov2s_head():
    head = ProjectionHead(9, **SIZES, train_gain=True).double()
    assert head.gain.unique().tolist() == [1.0]
    head.gain.data.copy_(noise(11, 1, seed=3, dtype=torch.float64).abs() + 0.1)
    last = weight_norm(nn.Linear(6, 11, bias=False).double())
    last.parametrizations.weight.original0.data.copy_(head.gain.data)
    last.parametrizations.weight.original1.data.copy_(head.last_layer.weight.data)
    vectors, target = head(noise(5, 9, dtype=torch.float64)), noise(5, 11, seed=2, dtype=torch.float64)
    for logits in (computed := vectors @ head.prototypes().t(), expected := last(vectors)):
        (logits * target).sum().backward(retain_graph=True)
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-14)
    for ours, number in ((head.gain, 0), (head.last_layer.weight, 1)):
        theirs = getattr(last.parametrizations.weight, f"original{number}")
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-13)
    assert ProjectionHead(9, **SIZES).state_dict().keys() == head.state_dict().keys() - {"last_layer.gain"}


def test_bottleneck_and_prototypes_have_length_one_in_bfloat16_too():
    head = ProjectionHead(9, **SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        vectors, prototypes = head(noise(50, 9)), head.prototypes()
    for rows in (vectors, prototypes):
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)), rtol=0, atol=1e-6)


def test_initialisation_is_dinov2s():
    torch.manual_seed(0)
    head = ProjectionHead(64, hidden_dim=256, bottleneck_dim=64, prototypes=512, num_layers=3)
    linears = [module for module in head.mlp if isinstance(module, nn.Linear)]
    assert [tuple(linear.weight.shape) for linear in linears] == [(256, 64), (256, 256), (64, 256)]
    for linear in linears:
        assert 0.019 < linear.weight.std() < 0.021
        assert not linear.bias.any()
    # PyTorch's own for a linear layer: uniform within 1 / sqrt(fan in).
    assert 0.12 < head.last_layer.weight.abs().max() <= 1 / 8
    assert isinstance(head.mlp[-1], nn.Linear), "no activation after the bottleneck"
