"""Suites as tables, for `tapct list suites`."""

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tapct._utils.terminal import Columns
from tapct.sweep import suites
from tapct.sweep.asked import Sweep


def all_suites() -> Table:
    """Returns the suites that ship, without those that only others include.

    Raises:
        SweepError: If one is malformed.
    """
    table = Table("suite", "experiments", "encoders", "tasks", "what", box=box.SIMPLE)
    for name in suites.shipped_suites():
        suite = suites.read_suite(name)
        if suite.blocks:
            experiments = Sweep(suite=name).experiments()
            counts = (
                len(experiments),
                len({experiment.encoder for experiment in experiments}),
                len({experiment.task for experiment in experiments}),
            )
            table.add_row(name, *map(str, counts), escape(suite.title))
    return table


def one_suite(name: str) -> Group:
    """Returns the experiments of a suite and what its source does not say.

    Raises:
        SweepError: If there is none, or it is malformed.
    """
    suite = suites.read_suite(name)
    experiments = Sweep(suite=name).experiments() if suite.blocks else []
    tasks = list(dict.fromkeys(experiment.task for experiment in experiments))
    grid = Columns("", *map(escape, tasks), box=box.SIMPLE)
    grid.columns[0].min_width = max((len(experiment.label) for experiment in experiments), default=0)
    there = {(experiment.label, experiment.task) for experiment in experiments}
    for label in dict.fromkeys(experiment.label for experiment in experiments):
        grid.add_row(escape(label), *("x" if (label, task) in there else "" for task in tasks))
    unsaid = [Text.assemble((f"{what}: ", "bold"), text) for what, text in suite.unspecified]
    heading = [Text("Not said by its source, and what is done here", style="bold")] if unsaid else []
    return Group(Text(suite.title, style="bold"), *([grid] if experiments else []), *heading, *unsaid)
