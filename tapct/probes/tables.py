"""Columns of a table in front of a solved head: scaled, and filled in where nothing is known.

What is not known is filled in with the mean of the training cases, and a further column is 1 where that was done: who
has no stage in the records is not like those of the average stage. Both are taken from training cases alone, and stay
with the head, which fills in any later case in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from tapct.probes.solved import PooledCases, Solution

Solve = Callable[[PooledCases, PooledCases | None], Solution]
"""Solves a head on training cases, with what there is to choose chosen on them and on selection cases."""

HEAD = "head."
"""What the names of the weights of the head itself begin with, behind those of the table."""


@dataclass(frozen=True, eq=False)
class Filling:
    """How the numbers of a table become columns of a head.

    Attributes:
        mean: (T,) of the training cases in which a number is known.
        divisor: (T,) their deviation; 1 where there is none.
        indicated: (M,) numbers that some training case lacks, one of those that the same cases lack.
    """

    mean: np.ndarray
    divisor: np.ndarray
    indicated: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> "Filling":
        """Returns how a table is filled in.

        Args:
            table: (N, T) numbers of the training cases, NaN where nothing is known.
        """
        known = ~np.isnan(table)
        number = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, table, 0.0).sum(axis=0) / number
        deviation = np.sqrt((np.where(known, table - mean, 0.0) ** 2).sum(axis=0) / number)
        _, first = np.unique(known, axis=1, return_index=True)
        indicated = np.sort(first[~known[:, first].all(axis=0)])
        return cls(mean, np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1), deviation, 1.0), indicated)

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Returns the (N, T + M) columns of (N, T) numbers."""
        known = ~np.isnan(table)
        scaled = np.where(known, (table - self.mean) / self.divisor, 0.0)
        return np.concatenate([scaled, ~known[:, self.indicated]], axis=1)

    def filled(self, cases: PooledCases) -> PooledCases:
        """Returns cases with the columns of a head in place of the numbers of their table."""
        own = cases.features.shape[1] - cases.table
        columns = self(cases.features[:, own:])
        features = np.concatenate([cases.features[:, :own], columns], axis=1)
        return replace(cases, features=features, table=columns.shape[1])


class TabledHead(nn.Module):
    """A head behind a table: of a vector of features and numbers, NaN where one is not known."""

    mean: torch.Tensor
    divisor: torch.Tensor
    indicated: torch.Tensor

    def __init__(self, head: nn.Module, numbers: int, indicated: int) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(numbers, dtype=torch.float64))
        self.register_buffer("divisor", torch.ones(numbers, dtype=torch.float64))
        self.register_buffer("indicated", torch.zeros(indicated, dtype=torch.int64))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns what the head says of (P + T,) features and numbers."""
        features, numbers = pooled.double().tensor_split([len(pooled) - len(self.mean)])
        filling = Filling(*(of.cpu().numpy() for of in (self.mean, self.divisor, self.indicated)))
        columns = torch.from_numpy(filling(numbers.cpu().numpy()[None])[0]).to(pooled.device)
        return self.head(torch.cat([features, columns]))


def solved(solve: Solve, train: PooledCases, selection: PooledCases | None) -> Solution:
    """Returns the head of training cases, behind their table where they have one."""
    if not train.table:
        return solve(train, selection)
    filling = Filling.of(train.features[:, -train.table :])
    solution = solve(filling.filled(train), None if selection is None else filling.filled(selection))
    head = TabledHead(solution.head, train.table, len(filling.indicated))
    for buffer, values in zip((head.mean, head.divisor, head.indicated), vars(filling).values(), strict=True):
        buffer.copy_(torch.from_numpy(values))
    return replace(solution, head=head)


def head_of(build: Callable[[Mapping[str, torch.Tensor]], nn.Module], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Returns a head that these weights fit into.

    Args:
        build: Gives the head of weights without a table.
        state: The weights.
    """
    if "indicated" not in state:
        return build(state)
    inner = {name.removeprefix(HEAD): tensor for name, tensor in state.items() if name.startswith(HEAD)}
    return TabledHead(build(inner), len(state["mean"]), len(state["indicated"]))
