"""Leaves out what Lightning and eva print next to the one table of results, once our trainer is named in a config."""

import logging
from typing import Any

from eva.core.trainers import _recorder
from lightning.fabric.utilities.rank_zero import rank_zero_module

_SAYS_NOTHING = ("💡 Tip:", "TPU available:")
"""How messages begin that advertise, or are about a device that no probe can use."""

_shown: list[bool] = []


def leave_out_adverts() -> None:
    """Makes Lightning keep its tips to itself, in whichever of its packages was imported last."""
    rank_zero_module.log.addFilter(_is_of_a_run)


def results_are_shown() -> None:
    """Makes eva leave out its own tables of the session that ends now: those of the record have been printed."""
    _shown.append(True)


def print_results_once() -> None:
    """Makes eva print its tables at the end of a session only where no record's were."""
    if hasattr(_recorder._print_results, "is_once"):
        return
    original = _recorder._print_results

    def print_results(results: Any) -> None:
        if not _shown:
            original(results)
        _shown.clear()

    print_results.is_once = True  # type: ignore[attr-defined]
    _recorder._print_results = print_results


def _is_of_a_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_SAYS_NOTHING)
