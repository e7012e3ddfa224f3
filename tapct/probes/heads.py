"""Heads that train side by side: the runs of a session and the learning rates to choose from."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tapct.encoders.weights import content_sha256
from tapct.errors import TaskError
from tapct.features import FeatureStatistics
from tapct.probes.cell_size import CellSizes


class DivergedError(TaskError):
    """A head whose numbers are no longer finite: its learning rate is too high."""


def finite_loss(loss: torch.Tensor, case: str) -> float:
    """Returns the loss of a head on a case.

    Raises:
        DivergedError: If it is not finite.
    """
    value = float(loss)
    if not math.isfinite(value):
        raise DivergedError(
            f"the loss on {case} is {value}: the head has diverged. Lower the learning rate (model.learning_rates, or "
            "the optimizer's)"
        )
    return value


@dataclass(frozen=True)
class Snapshot:
    """A head at a step: how it did on the selection cases (None: not asked), and its weights."""

    step: int
    score: float | None
    state: dict[str, torch.Tensor]


@dataclass(eq=False)
class Candidate:
    """A head in training.

    Attributes:
        run: Its run; the head starts from the session's seed plus this.
        rate: Its learning rate; None is the optimizer's own.
        head: The module.
        start_sha256: Hash of the weights that it started from.
        best: Where it did best on the selection cases so far.
        scores: Step and score of every look at the selection cases.
    """

    run: int
    rate: float | None
    head: nn.Module
    start_sha256: str
    best: Snapshot | None = None
    scores: list[tuple[int, float | None]] = field(default_factory=list)


class Candidates:
    """The heads of several runs and learning rates, which see the same cases in the same order.

    Each has its own loss and its own parameters, and the optimizer works on each number alone, so that the heads
    come out as if each had been trained by itself.
    """

    def __init__(
        self, runs: Sequence[int], rates: Sequence[float] | None, build: Callable[[], nn.Module], seed: int
    ) -> None:
        """Builds the heads.

        Args:
            runs: Indices of the runs.
            rates: Learning rates to choose from; None for the optimizer's own alone.
            build: Makes a freshly initialised head.
            seed: The heads of run k start from seed + k, all rates from the same numbers.
        """
        self.all: list[Candidate] = []
        for run in runs:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + run)
                head = build()
            start = content_sha256(head.state_dict())
            self.all += [Candidate(run, rate, copy.deepcopy(head), start) for rate in (rates or (None,))]
        self._losses = LossCurve()
        self.modules = nn.ModuleList(candidate.head for candidate in self.all)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns one group of parameters per head, with its learning rate where it has its own."""
        rates = [{} if c.rate is None else {"lr": c.rate} for c in self.all]
        return [{"params": list(c.head.parameters()), **rate} for c, rate in zip(self.all, rates, strict=True)]

    def trained(self, losses: torch.Tensor) -> None:
        """Notes the (heads,) losses of a training batch."""
        self._losses.add(losses.detach())

    def observe(self, scores: Sequence[float | None], step: int) -> None:
        """Notes how each head does on the selection cases, and keeps it where it never did better (ties: the first).

        Args:
            scores: One a head; None where the metric is undefined, or the head has diverged.
            step: The step.
        """
        for candidate, score in zip(self.all, scores, strict=True):
            candidate.scores.append((step, score))
            best = None if candidate.best is None else candidate.best.score
            if score is not None and (best is None or score > best):
                candidate.best = Snapshot(step, score, _state(candidate.head))

    def choose(self, run: int, step: int, *, by_score: bool) -> "Chosen":
        """Returns the head of a run that is reported.

        Args:
            run: The run.
            step: The step that training ended at.
            by_score: Whether the best on the selection cases is taken, else the last.

        Raises:
            TaskError: If no head of the run has a score.
        """
        mine = [c for c in self.all if c.run == run]
        looks = [{"learning_rate": c.rate, "scores": [list(s) for s in c.scores]} for c in mine]
        if not by_score:
            (only,) = mine
            return self._chosen(only, Snapshot(step, None, _state(only.head)), looks)
        scored = [(c.best.score, c) for c in mine if c.best is not None and c.best.score is not None]
        if not scored:
            raise TaskError(
                "no head has a score on the selection cases: they were never looked at (trainer.val_check_interval "
                "must be at most max_steps x accumulate_grad_batches), the metric is undefined on them, or all heads "
                "diverged (lower model.learning_rates). With select: last, the last head is reported"
            )
        best = max(score for score, _ in scored)
        first = next(c for score, c in scored if score == best)
        assert first.best is not None
        return self._chosen(first, first.best, looks)

    def _chosen(self, candidate: Candidate, at: Snapshot, looks: list[dict[str, Any]]) -> "Chosen":
        losses = self._losses.means(self.all.index(candidate))
        return Chosen(candidate.run, candidate.rate, at, looks, candidate.start_sha256, losses)


@dataclass(frozen=True)
class Chosen:
    """The head that a run reports: its learning rate, where it was taken, and what it was chosen from.

    Attributes:
        run: Its run.
        rate: Its learning rate; None is the optimizer's own.
        at: Where it was taken.
        looks: Every look at the selection cases, of all heads of the run.
        start_sha256: Hash of the weights that it started from.
        losses: Its training loss, see `LossCurve`.
    """

    run: int
    rate: float | None
    at: Snapshot
    looks: list[dict[str, Any]]
    start_sha256: str
    losses: list[float]

    def describe(self) -> dict[str, Any]:
        """Returns how the head was chosen, for the record."""
        return {"learning_rate": self.rate, "step": self.at.step, "score": self.at.score, "candidates": self.looks}


class LossCurve:
    """The training losses of several heads, as means over stretches of batches of equal length.

    There are at most twice `BINS` of them: when they are full, each two become one. They stay on the device until they
    are asked for, so that no batch waits.
    """

    BINS = 10

    def __init__(self) -> None:
        self._per_bin, self._batches = 1, 0
        self._sums: list[torch.Tensor] = []

    def add(self, losses: torch.Tensor) -> None:
        """Adds the (heads,) losses of a batch."""
        if self._batches == 2 * self.BINS * self._per_bin:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._per_bin *= 2
        if self._batches % self._per_bin == 0:
            self._sums.append(losses.clone())
        else:
            self._sums[-1] += losses
        self._batches += 1

    def means(self, head: int) -> list[float]:
        """Returns the mean loss of a head in each stretch; an unfinished last one is left out."""
        whole = self._batches // self._per_bin
        return [] if not whole else (torch.stack(self._sums[:whole])[:, head] / self._per_bin).tolist()


class Session:
    """What the runs of a session share: eva copies the model for each run, and a copy of this is itself."""

    def __init__(self) -> None:
        self.by_run: dict[int, Chosen] = {}
        self.settings: dict[str, Any] = {}
        self.features = FeatureStatistics()
        self.cells = CellSizes()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Session":
        """Returns itself: see the class."""
        return self


def _state(head: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
