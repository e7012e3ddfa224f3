"""Columns of a table in front of a solved head: levels told apart, numbers scaled, and what is not known filled in.

A level is one column that is 1 where it is that level; the most common one of the training cases has none. What is not
known is filled in with the mean of the training cases, and a further column is 1 where that was done: who has no stage
in the records is not like those of the average stage. All of it is taken from training cases alone, and stays with the
head, which fills in any later case in the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import nn

from tapct.errors import TaskError
from tapct.probes.solved import PooledCases, Solution
from tapct.tasks.columns import Column

Solve = Callable[[PooledCases, PooledCases | None], Solution]
"""Solves a head on training cases, with what there is to choose chosen on them and on selection cases."""

HEAD = "head."
"""What the names of the weights of the head itself begin with, behind those of the table."""

FEWEST = 5
"""Training cases that a level has at least. One of fewer, and one that none has, is as good as not known: its weight
would be learnt of one or two cases, and a hundred kernels would each be somebody's name."""

CONSTANT = 1e-9
"""As in `tapct.probes.scaling`, of numbers about their mean."""


@dataclass(frozen=True, eq=False)
class TableEncoding:
    """How the numbers of a table become columns of a head.

    Attributes:
        mean: (T,) of the training cases in which a number is known; 0 of codes.
        divisor: (T,) their deviation; 1 where there is none, and of codes.
        indicated: (M,) numbers that some training case lacks, one of those that the same cases lack.
        coded: (C,) which numbers are codes of levels.
        levels: (L, 3) of each level the place of its number, its code, and its share of the training cases in which
            that is known; the most common one of each number first.
    """

    mean: np.ndarray
    divisor: np.ndarray
    indicated: np.ndarray
    coded: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray, coded: Sequence[int] = ()) -> "TableEncoding":
        """Returns how a table is filled in.

        Args:
            table: (N, T) numbers of the training cases, NaN where nothing is known.
            coded: Which of them are codes of levels.
        """
        places = np.array(coded, dtype=np.int64)
        levels = np.array([row for place in coded for row in _levels(table, place)]).reshape(-1, 3)
        known = _known(table, places, levels)
        plain = known.copy()
        plain[:, places] = False
        number = np.maximum(plain.sum(axis=0), 1)
        mean = np.where(plain, table, 0.0).sum(axis=0) / number
        deviation = np.sqrt((np.where(plain, table - mean, 0.0) ** 2).sum(axis=0) / number)
        _, first = np.unique(known, axis=1, return_index=True)
        indicated = np.sort(first[~known[:, first].all(axis=0)])
        divisor = np.where(deviation > CONSTANT * np.maximum(np.abs(mean), 1), deviation, 1.0)
        return cls(mean, divisor, indicated, places, levels)

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Returns the (N, P) columns of (N, T) numbers: these scaled, each level but the first, what was filled in."""
        known = _known(table, self.coded, self.levels)
        scaled = np.delete(np.where(known, (table - self.mean) / self.divisor, 0.0), self.coded, axis=1)
        places = self.levels[:, 0].astype(int)
        told = np.flatnonzero(places[1:] == places[:-1]) + 1  # all but the first of each number
        place, (_, code, share) = places[told], self.levels[told].T
        is_level = np.where(known[:, place], (table[:, place] == code) - share, 0.0) / np.sqrt(share * (1 - share))
        return np.concatenate([scaled, is_level, ~known[:, self.indicated]], axis=1)

    def filled(self, cases: PooledCases) -> PooledCases:
        """Returns cases with the columns of a head in place of the numbers of their table."""
        own = cases.features.shape[1] - cases.table
        columns = self(cases.features[:, own:])
        features = np.concatenate([cases.features[:, :own], columns], axis=1)
        return replace(cases, features=features, table=columns.shape[1], coded=())


def _levels(table: np.ndarray, place: int) -> list[tuple[float, float, float]]:
    """Returns the rows of `TableEncoding.levels` of a number: the most common level first, equally common by code."""
    codes, counts = np.unique(table[~np.isnan(table[:, place]), place], return_counts=True)
    codes, counts = codes[counts >= FEWEST], counts[counts >= FEWEST]
    return [(place, float(codes[one]), float(counts[one] / counts.sum())) for one in np.lexsort((codes, -counts))]


def _known(table: np.ndarray, coded: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Returns (N, T) which numbers are known: of codes, those of the levels."""
    known = ~np.isnan(table)
    for place in coded:
        known[:, place] = np.isin(table[:, place], levels[levels[:, 0] == place, 1])
    return known


class TabledHead(nn.Module):
    """A head behind a table: of a vector of features and numbers, NaN where one is not known."""

    mean: torch.Tensor
    divisor: torch.Tensor
    indicated: torch.Tensor
    coded: torch.Tensor
    levels: torch.Tensor

    def __init__(self, head: nn.Module, numbers: int, indicated: int, coded: int, levels: int) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(numbers, dtype=torch.float64))
        self.register_buffer("divisor", torch.ones(numbers, dtype=torch.float64))
        self.register_buffer("indicated", torch.zeros(indicated, dtype=torch.int64))
        self.register_buffer("coded", torch.zeros(coded, dtype=torch.int64))
        self.register_buffer("levels", torch.zeros((levels, 3), dtype=torch.float64))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns what the head says of (P + T,) features and numbers."""
        features, numbers = pooled.double().tensor_split([len(pooled) - len(self.mean)])
        filling = TableEncoding(*(self.get_buffer(one.name).cpu().numpy() for one in fields(TableEncoding)))
        columns = torch.from_numpy(filling(numbers.cpu().numpy()[None])[0]).to(pooled.device)
        return self.head(torch.cat([features, columns]))


def solved(solve: Solve, train: PooledCases, selection: PooledCases | None) -> Solution:
    """Returns the head of training cases, behind their table where they have one."""
    if not train.table:
        return solve(train, selection)
    filling = TableEncoding.of(train.features[:, -train.table :], train.coded)
    solution = solve(filling.filled(train), None if selection is None else filling.filled(selection))
    head = TabledHead(solution.head, train.table, len(filling.indicated), len(filling.coded), len(filling.levels))
    for name, values in vars(filling).items():
        head.get_buffer(name).copy_(torch.from_numpy(values))
    return replace(solution, head=head)


def head_of(build: Callable[[Mapping[str, torch.Tensor]], nn.Module], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Returns a head that these weights fit into.

    Args:
        build: Gives the head of weights without a table.
        state: The weights.

    Raises:
        TaskError: If they are of a table that was read in another way than tables are now.
    """
    if "indicated" not in state:
        return build(state)
    if "levels" not in state:
        raise TaskError("the head is from before levels were told apart by the training cases. Train it again")
    inner = {name.removeprefix(HEAD): tensor for name, tensor in state.items() if name.startswith(HEAD)}
    return TabledHead(
        build(inner), len(state["mean"]), *(len(state[name]) for name in ("indicated", "coded", "levels"))
    )


def require_table(head: nn.Module, columns: Sequence[Column]) -> None:
    """Makes sure that a head stands behind as many numbers as there are columns: else features would pass for numbers.

    Raises:
        TaskError: If not.
    """
    numbers = len(head.mean) if isinstance(head, TabledHead) else 0
    if numbers != len(columns):
        raise TaskError(
            f"the head was trained next to {numbers} numbers of a table, and {len(columns)} stand here "
            f"({', '.join(column.name for column in columns) or 'none'}). Train it again"
        )
