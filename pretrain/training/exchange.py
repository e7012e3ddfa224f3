"""What a step sends: one tensor to the other processes, and a few scalars to the host."""

from dataclasses import dataclass

import torch
from torch import Tensor


class Flat:
    """Gradients, centre statistics and scalars of a step, in one tensor.

    The gradients of the parameters are views into it, so accumulating needs no copy and reducing one call.

    Args:
        parameters: Those that are trained.
        statistics: Number of centre statistics.
        scalars: Number of scalars.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], statistics: int, scalars: int) -> None:
        sizes = [p.numel() for p in parameters]
        self.all = torch.zeros(sum(sizes) + statistics + scalars, device=parameters[0].device)
        self._parameters = parameters
        *gradients, self.statistics, self.scalars = self.all.split([*sizes, statistics, scalars])
        self._gradients = [g.view_as(p) for g, p in zip(gradients, parameters, strict=True)]
        self.clear()

    def clear(self) -> None:
        """Zeroes everything and ties the gradients to it."""
        self.all.zero_()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient


@dataclass(frozen=True)
class StepReport:
    """What the device will have to say of a step.

    Attributes:
        step: The step.
        names: What the values are.
        values: Float64 scalars on the host, there once `arrived` has passed.
        matrix: What else was asked for, on the host likewise.
        arrived: The event of the copies; None on a CPU.
    """

    step: int
    names: list[str]
    values: Tensor
    matrix: Tensor | None
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, values: dict[str, Tensor], matrix: Tensor | None = None) -> "StepReport":
        """Starts copying scalars, and a matrix, to the host."""
        stacked = torch.stack([value.detach().double() for value in values.values()])
        if not stacked.is_cuda:
            return cls(step, list(values), stacked, matrix, None)
        on_host = [None if part is None else _to_host(part) for part in (stacked, matrix)]
        event = torch.cuda.Event()
        event.record()
        assert on_host[0] is not None
        return cls(step, list(values), on_host[0], on_host[1], event)

    def read(self) -> dict[str, float]:
        """Returns the scalars."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


def _to_host(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
