"""The bags of a sweep: what attention looks at in the experiments of a task, next to what each encoder's own bag is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapct.encoders import card_of
from tapct.errors import EncoderError
from tapct.kinds import ATTENTION_HEADS
from tapct.sweep import adaptors
from tapct.sweep.experiment import choose
from tapct.sweep.said import say
from tapct.sweep.varied import TaskConfig

if TYPE_CHECKING:
    from tapct.probes.adaptors import Adaptor

NAMES = ("auto", "cls", "patch")

SETTING = "model.init_args.bag"
"""Where a config names its bag."""


def parse(asked: str | None) -> list[str]:
    """Returns the names of a comma-separated list, each once; none where nothing is asked for.

    Raises:
        SweepError: If a name does not exist.
    """
    return [] if asked is None else choose("bag", asked, dict.fromkeys(NAMES, True))


@dataclass(frozen=True)
class Bags:
    """The bags of a task.

    Attributes:
        task: Name of the task.
        asked: The bags; none means that of its config.
        bag: That of its config.
        adaptor: The adaptor of its config.
    """

    task: str
    asked: Sequence[str] = ()
    bag: str = "auto"
    adaptor: str = "abmil"

    def of(self, encoder: str, adaptor: str | None) -> list[str | None]:
        """Returns the bags of an encoder's experiments; None is that of the plain one, so that none has two labels.

        What cannot be is left out, and said: class tokens of an encoder without, a bag of an adaptor that pools.

        Args:
            encoder: Name of the encoder.
            adaptor: Name of the adaptor; None is the task's own.
        """
        if not self.asked:
            return [None]
        from tapct.probes.adaptors import Adaptor  # torch and eva, only where bags are asked for

        on = Adaptor.parse(adaptor or self.adaptor)
        return list(dict.fromkeys(bag for asked in self.asked for bag in self._one(encoder, on, asked)))

    def _one(self, encoder: str, adaptor: "Adaptor", asked: str) -> list[str | None]:
        """Returns the one bag that is asked for, as `of` does; nothing if it cannot be."""
        from tapct.probes.adaptors import own_bag

        if adaptor.is_solved:
            if asked == "auto":
                return [None]
            reason = f"{adaptor.name} pools features by itself; bags are of attention"
        else:
            try:
                card = card_of(encoder)
            except EncoderError as error:
                reason = str(error)
            else:
                bag, plain = (own_bag(card) if one == "auto" else one for one in (asked, self.bag))
                if bag != "cls" or card.has_cls:
                    return [None if bag == plain else bag]
                reason = f"{encoder} has no class tokens"
        say(f"left out: {encoder} on {self.task} with the bag {asked}: {reason}")
        return []


def of_task(config: TaskConfig, asked: Sequence[str]) -> Bags:
    """Returns the bags of a task.

    Args:
        config: The task's config.
        asked: The bags; none means that of its config.

    Raises:
        SweepError: If the config names its bag, but not by the variable BAG.
    """
    if not asked:
        return Bags(config.task)
    if not set(config.heads) & set(ATTENTION_HEADS):
        say(f"{config.task} has no bags: only its plain experiments run")
        return Bags(config.task)
    plain = config.settings()
    own = plain.get(SETTING, "auto")
    config.require_variable("BAG", SETTING, next(name for name in (*asked, *NAMES) if name != own), own)
    return Bags(config.task, asked, own, plain.get(adaptors.SETTING, "abmil"))
