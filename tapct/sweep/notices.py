"""What `tapct run` shows while it works."""

from typing import Literal

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from tapct import terminal
from tapct.sweep import matrix
from tapct.sweep.cell import Order
from tapct.sweep.state import state_of


class Notices:
    """Says which cell started or ended, above a bar of how many did."""

    def __init__(self, total: int) -> None:
        """Initializes the bar; it is shown inside `with`."""
        columns = (
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = terminal.progress(*columns, transient=False)
        self._bar = self._progress.add_task("", total=total)
        self._running: list[str] = []

    def __enter__(self) -> "Notices":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, order: Order, what: Literal["started", "ended"]) -> None:
        """Takes notice of a start or an end."""
        name = order.cell.name
        if what == "started":
            self._running.append(name)
            self._progress.console.print(f"{name}: started; log: {order.cell.folder / 'log.txt'}", soft_wrap=True)
        else:
            self._running = [other for other in self._running if other != name]
            state = state_of(order.cell.folder, order.cell.settings())
            colour = matrix.COLOURS[state.status]
            text = f"{escape(name)}: [{colour}]{state.status}[/] {escape(state.detail)}"
            self._progress.console.print(text, soft_wrap=True, highlight=False)
        done = what == "ended"
        self._progress.update(self._bar, advance=int(done), description=", ".join(self._running))
