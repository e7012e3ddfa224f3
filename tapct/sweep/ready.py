"""Before the first experiment runs: whether weights and data of each are there, so that none fails hours later."""

import sys
from collections.abc import Mapping, Sequence

from tapct.encoders.fetching import Fetching
from tapct.errors import TapctError
from tapct.sweep.bill.fit import data_check
from tapct.sweep.bill.settings import Data, Encoding, wanted
from tapct.sweep.experiment import Experiment, Order
from tapct.sweep.worker import note_refusal


def refused(experiments: Sequence[Experiment]) -> dict[str, str]:
    """Returns, by name, the experiments that cannot run, and why. Published weights that are not here are fetched.

    Of an experiment with a feature pack neither is asked, nor of one whose config has something else than our probes.
    """
    looked_at = _Readiness()
    reasons = {experiment.name: looked_at.why_not(experiment) for experiment in experiments}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def ready(orders: Sequence[Order], reasons: Mapping[str, str]) -> list[Order]:
    """Returns the orders that can run; the others are named, and the reason left in their folders, as of a failure."""
    for order in orders:
        if (reason := reasons.get(order.experiment.name)) is not None:
            print(f"{order.experiment.name}: not started: {reason}", file=sys.stderr)
            note_refusal(order, reason)
    return [order for order in orders if order.experiment.name not in reasons]


class _Readiness:
    """What was looked at, each thing once."""

    def __init__(self) -> None:
        self._fetching = Fetching()
        self._weights: dict[tuple[str, str | None], str | None] = {}
        self._data: dict[tuple[str, str | None, str | None, str], str | None] = {}

    def why_not(self, experiment: Experiment) -> str | None:
        try:
            asked = wanted(experiment)
        except TapctError:  # its needs are not known: it says itself what is wrong
            return None
        if asked.data.pack is not None:
            return None
        weights, data = self._of_weights(asked.encoding), self._of_data(asked.data)
        return "; ".join(filter(None, (weights, data))) or None

    def _of_weights(self, encoding: Encoding) -> str | None:
        key = encoding.encoder, encoding.weights
        if key not in self._weights:
            try:
                self._fetching.source(encoding.load(encoding.weights))
                self._weights[key] = None
            except TapctError as error:
                self._weights[key] = f"{type(error).__name__}: {error}"
        return self._weights[key]

    def _of_data(self, data: Data) -> str | None:
        key = data.task, data.root, data.split_file, data.options
        if key not in self._data:
            check = data_check(data)
            failed = check.status == "fail"
            self._data[key] = f"the data of {data.task}: {check.message}. {check.fix}" if failed else None
        return self._data[key]
