"""The bill of `tapct run`: shown by a dry run, and asked for room before a run starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapct._utils import terminal
from tapct.errors import TapctError
from tapct.names import Keep
from tapct.sweep.bill import BillOptions
from tapct.sweep.bill.cards import Card
from tapct.sweep.bill.count import bill_of
from tapct.sweep.bill.fit import checks_of, refusals
from tapct.sweep.bill.settings import wanted
from tapct.sweep.bill.sizes import root_of
from tapct.sweep.bill.table import as_json, table
from tapct.sweep.experiment import Experiment, SweepError


def show(
    experiments: Sequence[Experiment],
    results: Path,
    shown: BillOptions,
    card: Card | None,
    *,
    jobs: int,
    accelerator: str | None,
    keep: Keep,
) -> dict[str, Any] | None:
    """Prints the bill of experiments, or returns it as JSON has it where that is asked for.

    Args:
        experiments: Those that would run, in their order.
        results: Folder of the results.
        shown: How it is shown.
        card: The card that hours are estimated for; None for what was measured here.
        jobs: Experiments that run at once.
        accelerator: As the configs have it.
        keep: What stays of features.
    """
    bill = bill_of(experiments, card=card, measure=shown.measure, accelerator=accelerator, keep=keep)
    checks, refused = checks_of(bill, results), refusals(bill, jobs)
    if shown.json:
        return as_json(bill, jobs, checks, refused)
    terminal.output().print(table(bill, jobs, checks, refused))
    return None


def require_room(experiments: Sequence[Experiment], *, jobs: int, keep: Keep) -> None:
    """Makes sure before any work that what experiments would store has room.

    Experiments whose data are not there are not asked: they say so themselves.

    Raises:
        SweepError: If it has not, with how much is lacking and what can be done.
    """
    bill = bill_of([experiment for experiment in experiments if _has_data(experiment)], keep=keep, arithmetic=False)
    if refused := refusals(bill, jobs):
        raise SweepError("nothing was started: " + "; ".join(refused))


def _has_data(experiment: Experiment) -> bool:
    try:
        data = wanted(experiment).data
        return data.pack is None and root_of(data) is not None
    except TapctError:
        return False
