"""From one phase of a run to the next: the crops grow, and with them the grid of positions that the weights hold.

The positions are brought onto the new grid exactly as the vision transformer itself brings them onto the grid of a
window that is not its own (`tapct.vit.positions`), so the networks compute the same after the change as before it, on
every window of the new size. The moments that AdamW keeps of the positions belong to the old grid, and begin anew, as
at a run's start; all others stay.
"""

from typing import Any

from torch import Tensor

from pretrain.config import Config
from tapct.vit.positions import positions_on_grid

POSITIONS = "backbone.pos_embed"


def grown(state: dict[str, Any], before: Config, after: Config) -> dict[str, Any]:
    """Returns what a run is made of, for the next phase.

    Args:
        state: "model" and "optimizer": their state dicts.
        before: The settings of the phase that it comes from.
        after: Those of the next.

    Returns:
        The two, in the shapes of the next phase; nothing of `state` is changed.
    """
    optimizer = state["optimizer"]
    numbers = {
        number
        for group in optimizer["param_groups"]
        for number, name in zip(group["params"], group["names"], strict=True)
        if name == POSITIONS
    }
    kept = {number: moments for number, moments in optimizer["state"].items() if number not in numbers}
    return {
        "model": grown_weights(state["model"], before, after),
        "optimizer": {**optimizer, "state": kept},
    }


def grown_weights(weights: dict[str, Tensor], before: Config, after: Config) -> dict[str, Tensor]:
    """Returns the weights of student and teacher with their positions on the grid of the next phase.

    Args:
        weights: State dict of a `pretrain.ssl.model.Pretrainer`.
        before: The settings of the phase that it comes from.
        after: Those of the next.
    """
    return {
        name: positions_on_grid(value, before.global_grid, after.global_grid) if name.endswith(POSITIONS) else value
        for name, value in weights.items()
    }
