"""Heads that train side by side: the runs of a session and the learning rates to choose from."""

import copy
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tapct import numeric
from tapct.encoders.weights import content_sha256
from tapct.errors import TaskError
from tapct.features import FeatureStatistics
from tapct.probes.patch_size import PatchSizes
from tapct.probes.scaling import ChannelScale
from tapct.records import RateScores, Selection, SteppedSelection
from tapct.records.shortcuts import ShortcutsRecord

HeadState = Mapping[str, torch.Tensor]
"""The weights of a head by name."""


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
    """A head at a step, with its weights for features as they are.

    Attributes:
        step: The step.
        score: Its score on the selection cases; None where they were not asked.
        loss: Its mean loss on them.
        state: Its weights.
    """

    step: int
    score: float | None
    loss: float
    state: dict[str, torch.Tensor]


def is_better(one: Snapshot, other: Snapshot, sign: int = 1) -> bool:
    """Returns whether a head takes the place of another one that came before it.

    A better score does, and of equal scores a lower loss; else the one before stays. What is equal is decided by
    `tapct.numeric`, so never by rounding.

    Args:
        one: The head.
        other: The one before.
        sign: -1 where a lower score is better.
    """
    assert one.score is not None
    assert other.score is not None
    if not numeric.equal(one.score, other.score):
        return sign * one.score > sign * other.score
    return one.loss < other.loss and not numeric.equal(one.loss, other.loss)


@dataclass(eq=False)
class Candidate:
    """A head in training.

    Attributes:
        run: Its run; the head starts from the session's seed plus this.
        rate: Its learning rate; None is the optimizer's own.
        head: The module.
        start_sha256: Hash of the weights that it started from.
        best: Where it did best on the selection cases so far.
        scores: Step and score of every validation evaluation at the selection cases.
    """

    run: int
    rate: float | None
    head: nn.Module
    start_sha256: str
    best: Snapshot | None = None
    scores: list[tuple[int, float | None]] = field(default_factory=list)


class CandidateHeads:
    """The heads of several runs and learning rates, which see the same cases in the same order.

    Each has its own loss and its own parameters, and the optimizer works on each number alone, so that the heads
    come out as if each had been trained by itself.
    """

    def __init__(
        self,
        runs: Sequence[int],
        rates: Sequence[float] | None,
        build: Callable[[], nn.Module],
        seed: int,
        folded: Callable[[HeadState], dict[str, torch.Tensor]] = dict,
        patients: int = 0,
        sign: int = 1,
    ) -> None:
        """Builds the heads.

        Args:
            runs: Indices of the runs.
            rates: Learning rates to choose from; None for the optimizer's own alone.
            build: Makes a freshly initialised head.
            seed: The heads of run k start from seed + k, all rates from the same numbers.
            folded: Makes of a head's weights, which see scaled features, those for features as they are.
            patients: How many selection patients decide, for the record.
            sign: -1 where a lower score is better.
        """
        self._folded, self._sign = folded, sign
        self.all: list[Candidate] = []
        for run in runs:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + run)
                head = build()
            start = content_sha256(folded(head.state_dict()))
            self.all += [Candidate(run, rate, copy.deepcopy(head), start) for rate in (rates or (None,))]
        self._losses = LossCurve()
        self._patients = patients
        self.modules = nn.ModuleList(candidate.head for candidate in self.all)

    def parameter_groups(self, undecayed: Collection[str] = ()) -> list[dict[str, Any]]:
        """Returns one group of parameters per head, with its learning rate where it has its own.

        Args:
            undecayed: Names of parameters without weight decay, which are a second group.
        """
        groups: list[dict[str, Any]] = []
        for candidate in self.all:
            rate = {} if candidate.rate is None else {"lr": candidate.rate}
            named = list(candidate.head.named_parameters())
            groups.append({"params": [p for name, p in named if name not in undecayed], **rate})
            if free := [p for name, p in named if name in undecayed]:
                groups.append({"params": free, **rate, "weight_decay": 0.0})
        return groups

    def trained(self, losses: torch.Tensor) -> None:
        """Notes the (heads,) losses of a training batch."""
        self._losses.add(losses.detach())

    def state(self) -> dict[str, Any]:
        """Returns how far training has come, as a checkpoint holds it."""
        heads = [
            {
                "weights": candidate.head.state_dict(),
                "best": None if candidate.best is None else dict(vars(candidate.best)),
                "scores": candidate.scores,
            }
            for candidate in self.all
        ]
        return {"heads": heads, "losses": self._losses.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up training where `state` was called."""
        for candidate, of_head in zip(self.all, state["heads"], strict=True):
            candidate.head.load_state_dict(of_head["weights"])
            candidate.best = None if of_head["best"] is None else Snapshot(**of_head["best"])
            candidate.scores = [(step, score) for step, score in of_head["scores"]]
        self._losses.load(state["losses"])

    def observe(self, scores: Sequence[float | None], losses: Sequence[float], step: int) -> None:
        """Notes how each head does on the selection cases, and keeps it where it never did better; see `is_better`.

        Args:
            scores: One a head; None where the metric is undefined, or the head has diverged.
            losses: Its mean loss on these cases, which decides between equal scores.
            step: The step.
        """
        for candidate, score, loss in zip(self.all, scores, losses, strict=True):
            candidate.scores.append((step, score))
            if score is None:
                continue
            now = Snapshot(step, score, loss, self._state(candidate.head))
            if candidate.best is None or is_better(now, candidate.best, self._sign):
                candidate.best = now

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
        looks = tuple(RateScores(learning_rate=c.rate, scores=tuple(c.scores)) for c in mine)
        if not by_score:
            (only,) = mine
            return self._chosen(only, Snapshot(step, None, math.nan, self._state(only.head)), looks)
        scored = [(c, c.best) for c in mine if c.best is not None]
        if not scored:
            raise TaskError(
                "no head has a score on the selection cases: they were never looked at (trainer.val_check_interval "
                "must be at most max_steps x accumulate_grad_batches), the metric is undefined on them, or all heads "
                "diverged (lower model.learning_rates). With select: last, the last head is reported"
            )
        best = functools.reduce(lambda a, b: b if is_better(b[1], a[1], self._sign) else a, scored)
        return self._chosen(*best, looks)

    def _state(self, head: nn.Module) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._folded(head.state_dict()).items()}

    def _chosen(self, candidate: Candidate, at: Snapshot, looks: tuple[RateScores, ...]) -> "Chosen":
        decided: dict[str, Any] = {} if at.score is None else {"loss": at.loss, "patients": self._patients}
        selection = SteppedSelection(
            learning_rate=candidate.rate, step=at.step, score=at.score, **decided, candidates=looks
        )
        losses = self._losses.means(self.all.index(candidate))
        return Chosen(candidate.run, at.state, selection, candidate.start_sha256, losses)


@dataclass(frozen=True)
class Chosen:
    """The head that a run reports, and how it came about.

    Attributes:
        run: Its run.
        state: Its weights, for features as they are.
        selection: What was chosen, and from what, for the record; None where nothing is known of it.
        start_sha256: Hash of the weights that it started from; None of a head that was not stepped here.
        losses: Its training loss, see `LossCurve`.
    """

    run: int
    state: dict[str, torch.Tensor]
    selection: Selection | None
    start_sha256: str | None = None
    losses: Sequence[float] = ()


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

    def state(self) -> dict[str, Any]:
        """Returns the curve so far, as a checkpoint holds it."""
        return {"per_bin": self._per_bin, "batches": self._batches, "sums": self._sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues the curve that `state` was called on."""
        self._per_bin, self._batches, self._sums = state["per_bin"], state["batches"], list(state["sums"])

    def means(self, head: int) -> list[float]:
        """Returns the mean loss of a head in each stretch; an unfinished last one is left out."""
        whole = self._batches // self._per_bin
        return [] if not whole else (torch.stack(self._sums[:whole])[:, head] / self._per_bin).tolist()


class SharedByRuns:
    """What the runs of a session share: eva copies the model for each run, and a copy of this is itself."""

    def __init__(self) -> None:
        self.by_run: dict[int, Chosen] = {}
        self.settings: dict[str, Any] = {}
        self.features = FeatureStatistics()
        self.patches = PatchSizes()
        self.scale: ChannelScale | None = None
        self.checkpoints: list[Path] = []
        self.shortcuts: ShortcutsRecord | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedByRuns":
        """Returns itself: see the class."""
        return self
