"""What `tapct run` shows while it works."""

import time
from collections.abc import Iterator
from typing import Literal

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tapct._utils import terminal
from tapct.sweep import matrix
from tapct.sweep.experiment import Order
from tapct.sweep.progress import EVERY_S, progress_of
from tapct.sweep.state import state_of

MOST_LINES = 8
"""Experiments that run whose progress is shown: of a cluster's hundreds, what a terminal holds."""


class Notices:
    """Says which experiment started or ended, above a bar of how many did, and how far those are that run below it."""

    def __init__(self, total: int) -> None:
        """Initializes the bar; it is shown inside `with`."""
        columns = (TextColumn("experiments"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = terminal.progress(*columns, transient=False, below=self._lines)
        self._bar = self._progress.add_task("", total=total)
        self._running: dict[str, Order] = {}
        self._shown: list[Text] = []
        self._looked_s = 0.0

    def __enter__(self) -> "Notices":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, order: Order, what: Literal["started", "ended"]) -> None:
        """Takes notice of a start or an end."""
        name = order.experiment.name
        if what == "started":
            self._running[name] = order
            self._progress.console.print(f"{name}: started; log: {order.experiment.folder / 'log.txt'}", soft_wrap=True)
        else:
            self._running.pop(name, None)
            state = state_of(order.experiment.folder, order.experiment.settings())
            colour = matrix.COLOURS[state.status]
            text = f"{escape(name)}: [{colour}]{state.status}[/] {escape(state.detail)}"
            self._progress.console.print(text, soft_wrap=True, highlight=False)
        self._looked_s = 0.0
        self._progress.update(self._bar, advance=int(what == "ended"))

    def _lines(self) -> list[Text]:
        """Returns a line for each experiment that runs; it is drawn ten times a second, and looked for once."""
        if time.monotonic() - self._looked_s >= EVERY_S:
            self._shown, self._looked_s = list(self._look()), time.monotonic()
        return self._shown

    def _look(self) -> Iterator[Text]:
        running = list(self._running.items())
        if len(running) > MOST_LINES:
            yield Text(f"{len(running)} run (`tapct status` has all of them), the first {MOST_LINES}:")
        for name, order in running[:MOST_LINES]:
            progress = progress_of(order.experiment.folder, order.attempts_seen + 1)
            yield Text(f"{name}: {'starting' if progress is None else progress.in_words()}")
