"""What changes over a run: learning rate, weight decay, teacher temperature and teacher momentum, as in DINOv2."""

import math
from dataclasses import dataclass

from pretrain.config import Config


def linear(start: float, end: float, step: int, steps: int) -> float:
    """Goes from ``start`` at step 0 to ``end`` at the last of ``steps`` steps (not one later, as in DINOv2)."""
    return end if steps <= 1 else start + (end - start) * step / (steps - 1)


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Goes from ``start`` at step 0 to ``end`` at step ``steps`` (one after the last) along half a cosine."""
    return end if step >= steps else end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass(frozen=True)
class Schedules:
    """The schedules of a run; all are functions of the optimizer step, counted from 0.

    Attributes:
        config: The settings of the run.
    """

    config: Config

    def lr(self, step: int) -> float:
        """Returns the learning rate before the factors of a parameter group: linear warm-up from 0, then cosine."""
        optim, steps = self.config.optim, self.config.run.steps
        if step < optim.warmup_steps:
            return linear(0, self.config.peak_lr, step, optim.warmup_steps)
        return cosine(self.config.peak_lr, optim.min_lr, step - optim.warmup_steps, steps - optim.warmup_steps)

    def last_layer_lr(self, step: int) -> float:
        """Returns the learning rate of the prototypes: 0 at first, then that of the others."""
        return 0.0 if step < self.config.optim.freeze_last_layer_steps else self.lr(step)

    def weight_decay(self, step: int) -> float:
        """Returns the weight decay, along a cosine over the whole run."""
        return cosine(*self.config.optim.weight_decay, step, self.config.run.steps)

    def teacher_temperature(self, step: int) -> float:
        """Returns the temperature of the teacher's softmax: linear, then constant."""
        start, end = self.config.losses.teacher_temperature
        warmup = self.config.losses.teacher_temperature_warmup_steps
        return linear(start, end, step, warmup) if step < warmup else end

    def momentum(self, step: int) -> float:
        """Returns the momentum of the teacher, along a cosine over the whole run."""
        return cosine(*self.config.optim.teacher_momentum, step, self.config.run.steps)
