"""The collapse alarm: a representation that no longer tells crops apart, judged at each line of the log.

The entropy of the teacher's distributions falls when one prototype takes all crops; the effective rank of its class
tokens falls when they come to lie in few directions.
"""

from typing import Any

from pretrain.config import Config
from pretrain.distributed import World


class CollapseAlarm:
    """Tells a collapse when it begins, not at every line while it lasts.

    Args:
        config: Settings of the run (`run.collapse`).
        world: The processes.
    """

    def __init__(self, config: Config, world: World) -> None:
        self._limits, self._world = config.run.collapse, world
        self._bounds = dict.fromkeys(("entropy_dino", "entropy_ibot"), self._limits.min_entropy)
        if 2 * config.batch_size >= 4 * self._limits.min_effective_rank:
            self._bounds["effective_rank"] = self._limits.min_effective_rank
        self._low: set[str] = set()

    def __call__(self, step: int, scalars: dict[str, float]) -> list[dict[str, Any]]:
        """Judges the scalars of a step.

        Args:
            step: Steps done.
            scalars: Of the log.

        Returns:
            What has fallen below its limit since the last call: message, name, value and limit of each. Where an alarm
            stops the run, the same on every process.
        """
        if step <= self._limits.after_steps:
            return []
        low = {name for name, bound in self._bounds.items() if scalars[name] < bound}
        if self._limits.stop:  # at the bound, hosts may round differently; all stop, or none
            low = self._world.from_first(low)
        new, self._low = sorted(low - self._low), low
        return [
            {
                "message": f"collapse: {name} = {scalars[name]:.3g} is below {self._bounds[name]:g} (run.collapse)",
                "name": name,
                "value": scalars[name],
                "limit": self._bounds[name],
            }
            for name in new
        ]
