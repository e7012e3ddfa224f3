"""Names that third parties override, and that are called otherwise now."""

from collections.abc import Mapping

from tapct.errors import TapctError


def refuse(cls: type, renamed: Mapping[str, str], error: type[TapctError]) -> None:
    """Refuses a class that sets an old name: it would be passed over without a word.

    Args:
        cls: A class that is derived from one of ours.
        renamed: Old name to new.
        error: What is raised.

    Raises:
        TapctError: If the class itself sets an old name.
    """
    if old := next((name for name in renamed if name in vars(cls)), None):
        raise error(
            f"{cls.__module__}.{cls.__qualname__} sets `{old}`, which is called `{renamed[old]}` now: rename it"
        )
