"""Heads of a cross-validated task: one a fold, each trained on the patients of all others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tapct.errors import TaskError
from tapct.probes.heads import Chosen
from tapct.probes.scaling import ChannelScale
from tapct.probes.solved import PooledCases, Solution
from tapct.records import FoldedSelection, Selection
from tapct.tasks.splits import FoldTable

_NAME = "fold_"


class FoldHeads(nn.Module):
    """The heads of a repeat, by fold."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        for fold, head in enumerate(heads):
            self.add_module(f"{_NAME}{fold}", head)

    def of(self, fold: int) -> nn.Module:
        """Returns the head that has not seen the patients of a fold."""
        return self.get_submodule(f"{_NAME}{fold}")


def solve_folds(
    solve: Callable[[PooledCases, PooledCases | None], Solution], train: PooledCases, folds: Mapping[str, int]
) -> tuple[FoldHeads, FoldedSelection]:
    """Solves a head for each fold of a repeat.

    Args:
        solve: Solves a head on training cases.
        train: The cases that train.
        folds: Patient to fold, of all patients of the task.

    Raises:
        TaskError: If a fold leaves nobody to train on.
    """
    of_case = np.array([folds[patient] for patient in train.patients])
    solutions = []
    for fold in range(1 + max(folds.values())):
        rows = np.flatnonzero(of_case != fold)
        if not len(rows):
            raise TaskError(f"no training case is outside of fold {fold}")
        solutions.append(solve(train.some(rows), None))
    heads = FoldHeads([solution.head for solution in solutions])
    return heads, FoldedSelection(by_fold=tuple(solution.selection for solution in solutions))


def solve_runs(
    solve: Callable[[PooledCases, PooledCases | None], Solution],
    runs: Iterable[int],
    train: PooledCases,
    selection: PooledCases | None,
    table: FoldTable | None,
) -> tuple[dict[int, Chosen], ChannelScale | None]:
    """Returns the heads of runs, and what the features are divided by: None where the folds each have their own.

    No seed decides anything of a head that is solved, so runs share one. Of a cross-validated task each run is another
    repeat of the folds, and has a head for each of them.

    Args:
        solve: Solves a head on training cases.
        runs: Indices of the runs.
        train: The cases that train.
        selection: The selection cases, if there are any.
        table: The folds of a cross-validated task.

    Raises:
        TaskError: If a fold leaves nobody to train on.
    """
    if table is None:
        one = solve(train, selection)
        return {run: _chosen(run, one.head, one.selection) for run in runs}, one.scale
    return {run: _chosen(run, *solve_folds(solve, train, table.folds[run])) for run in runs}, None


def _chosen(run: int, head: nn.Module, selection: Selection) -> Chosen:
    return Chosen(run, dict(head.state_dict()), selection)


def head_for(head: nn.Module, table: FoldTable | None, run: int, patient: str) -> nn.Module:
    """Returns the head that reports a patient: of several the one of their fold, which has not seen them."""
    if not isinstance(head, FoldHeads):
        return head
    assert table is not None
    return head.of(table.folds[run][patient])


def is_of_folds(state: Mapping[str, torch.Tensor]) -> bool:
    """Returns whether weights are those of `FoldHeads`."""
    return all(name.startswith(_NAME) for name in state)


def heads_of(build: Callable[[dict[str, torch.Tensor]], nn.Module], state: Mapping[str, torch.Tensor]) -> FoldHeads:
    """Returns the heads that the weights of `FoldHeads` fit into.

    Args:
        build: Gives the head of a fold's weights.
        state: The weights.
    """
    by_fold: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        fold, _, rest = name.removeprefix(_NAME).partition(".")
        by_fold.setdefault(int(fold), {})[rest] = tensor
    return FoldHeads([build(by_fold[fold]) for fold in sorted(by_fold)])


def head_of_state(
    build: Callable[[dict[str, torch.Tensor]], nn.Module], state: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Returns the head that weights fit into, be they of one head or of `FoldHeads`.

    Args:
        build: Gives the head of the weights of one.
        state: The weights.
    """
    return heads_of(build, state) if is_of_folds(state) else build(dict(state))


def folds_of(datamodule: Any) -> FoldTable | None:
    """Returns the folds of a task that is cross-validated, None of one that is not."""
    return getattr(datamodule, "folds", None)


def require_repeat(table: FoldTable, run: int) -> None:
    """Makes sure that a run has a repeat.

    Raises:
        TaskError: If not.
    """
    if run >= table.repeats:
        raise TaskError(
            f"{table.source} has {table.repeats} repeats, and run k is repeat k: set trainer.init_args.n_runs to at "
            f"most {table.repeats} (N_RUNS)"
        )
