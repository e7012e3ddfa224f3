"""What the golden tests of the adapters share: comparison, light files, and builds without initialisation."""

import numpy as np
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


def light(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same names and shapes, each tensor one number repeated: a file of a few kilobytes."""
    return {k: v.flatten()[0].clone().expand_as(v) for k, v in state.items()}


def uninitialised(adapter: type[Encoder]) -> type[Encoder]:
    """The same adapter without the time of an initialisation that the file replaces."""

    class Uninitialised(adapter):
        def build(self):
            with torch.device("meta"):
                network = super().build()
            return network.to_empty(device="cpu")

    return Uninitialised
