"""What the golden tests of the adapters share: comparison, light files, and builds without initialisation."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from tapct.encoders import Encoder


def assert_close(ours: torch.Tensor, expected: np.ndarray) -> None:
    """Compares element by element, to 1e-5 of the largest value."""
    assert tuple(ours.shape) == expected.shape
    assert np.abs(ours.numpy() - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-5 of the length: norms over few voxels raise the rounding of fp32 in single ones above that."""
    assert actual.shape == expected.shape
    assert torch.dist(actual, expected.to(actual)) <= 1e-5 * torch.linalg.vector_norm(expected)


def light(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same names, shapes and types in a file as large as the largest tensor: each is a view of the same numbers.

    Each starts elsewhere, so that no two are the same.
    """
    return views({name: tensor.shape for name, tensor in state.items()}, lambda name: state[name].dtype)


def views(
    shapes: Mapping[str, torch.Size], dtype: Callable[[str], torch.dtype] = lambda _: torch.float32, scale: float = 1
) -> dict[str, torch.Tensor]:
    """Random numbers up to `scale` in magnitude under these names, as in `light`; whole ones are 0."""
    kinds = {name: dtype(name) for name in shapes}
    numbers: dict[torch.dtype, torch.Tensor] = {}
    for kind in set(kinds.values()):
        count = max(math.prod(shape) for name, shape in shapes.items() if kinds[name] == kind) + 31 * len(shapes)
        generator = torch.Generator().manual_seed(0)
        numbers[kind] = torch.empty(count).uniform_(-scale, scale, generator=generator).to(kind)
    return {
        name: numbers[kinds[name]][31 * i :][: math.prod(shape)].view(shape)
        for i, (name, shape) in enumerate(shapes.items())
    }


def on_meta(adapter: type[Encoder], **options: object) -> torch.nn.Module:
    """The network that an adapter builds, without its numbers and the memory that they take."""
    linspace = torch.linspace
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch, "linspace", lambda *of, **how: linspace(*of, **how | {"device": "cpu"}))
        return adapter("random", deferred=True, **options).build()


def uninitialised(adapter: type[Encoder]) -> type[Encoder]:
    """The same adapter without the time of an initialisation that the file replaces."""

    class Uninitialised(adapter):
        def build(self):
            with torch.device("meta"):
                network = super().build()
            return network.to_empty(device="cpu")

    return Uninitialised
