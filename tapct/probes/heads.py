"""Heads that train side by side: the runs of a session and the learning rates to choose from."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tapct.errors import TaskError


@dataclass(frozen=True)
class Snapshot:
    """A head at a step: how it did on the selection cases (None: not asked), and its weights."""

    step: int
    score: float | None
    state: dict[str, torch.Tensor]


@dataclass
class Candidate:
    """A head in training.

    Attributes:
        run: Its run; the head starts from the session's seed plus this.
        rate: Its learning rate; None is the optimizer's own.
        head: The module.
        best: Where it did best on the selection cases so far.
        scores: Step and score of every look at the selection cases.
    """

    run: int
    rate: float | None
    head: nn.Module
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
            self.all += [Candidate(run, rate, copy.deepcopy(head)) for rate in (rates or (None,))]
        self.modules = nn.ModuleList(candidate.head for candidate in self.all)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns one group of parameters per head, with its learning rate where it has its own."""
        rates = [{} if c.rate is None else {"lr": c.rate} for c in self.all]
        return [{"params": list(c.head.parameters()), **rate} for c, rate in zip(self.all, rates, strict=True)]

    def observe(self, scores: Sequence[float | None], step: int) -> None:
        """Notes how each head does on the selection cases, and keeps it where it never did better (ties: the first)."""
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
            return Chosen(run, only.rate, Snapshot(step, None, _state(only.head)), looks)
        scored = [(c.best.score, c) for c in mine if c.best is not None and c.best.score is not None]
        if not scored:
            raise TaskError(
                "no head has a score on the selection cases: they were never looked at (trainer.val_check_interval "
                "must be at most max_steps x accumulate_grad_batches), or the metric is undefined on them. "
                "With select: last, the last head is reported"
            )
        best = max(score for score, _ in scored)
        first = next(c for score, c in scored if score == best)
        assert first.best is not None
        return Chosen(run, first.rate, first.best, looks)


@dataclass(frozen=True)
class Chosen:
    """The head that a run reports: its learning rate, where it was taken, and what it was chosen from."""

    run: int
    rate: float | None
    at: Snapshot
    looks: list[dict[str, Any]]

    def describe(self) -> dict[str, Any]:
        """Returns how the head was chosen, for the record."""
        return {"learning_rate": self.rate, "step": self.at.step, "score": self.at.score, "candidates": self.looks}


class Session:
    """What the runs of a session share: eva copies the model for each run, and a copy of this is itself."""

    def __init__(self) -> None:
        self.padded: set[str] = set()
        self.by_run: dict[int, Chosen] = {}
        self.settings: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Session":
        """Returns itself: see the class."""
        return self


def _state(head: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
