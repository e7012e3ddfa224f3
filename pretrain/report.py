"""A run as one page: curves, GPU hours and energy, sessions, alarms. `python -m pretrain.report RUN`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.command import ExitStatus, run
from pretrain.files import write
from pretrain.observe.report import render


def main(arguments: Sequence[str] | None = None) -> ExitStatus:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.report", description=__doc__)
    parser.add_argument("run", type=Path, help="The folder of the run (its run.output).")
    parser.add_argument("-o", "--output", type=Path, help="The page to write. The default is RUN/report.html.")
    chosen = parser.parse_args(arguments)
    return run(lambda: _report(chosen.run, chosen.output or chosen.run / "report.html"))


def _report(folder: Path, page: Path) -> ExitStatus:
    write(page, render(folder))
    print(page)
    return ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main())
