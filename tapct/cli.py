"""The `tapct` command."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import jsonargparse
from rich import box
from rich.console import Console
from rich.table import Table

from tapct import telemetry
from tapct.encoders import EncoderCard, encoder_class, list_encoders
from tapct.errors import TapctError


def list_(what: Literal["encoders", "tasks"]) -> int:
    """Lists what there is.

    Args:
        what: Encoders or tasks.

    Returns:
        The exit status.
    """
    Console().print(_encoders() if what == "encoders" else _tasks())
    return 0


def doctor(task: str | None = None, root: str | None = None, encoder: str | None = None, json: bool = False) -> int:
    """Checks this installation, and says what to do about each finding.

    Args:
        task: Also read every case of this task.
        root: Folder that holds one folder per task; by default the variable DATA_ROOT.
        encoder: Also load this encoder (weights: the variable ENCODER_WEIGHTS) and run one window.
        json: Print JSON instead of a table.

    Returns:
        The exit status: 1 if a run would fail.
    """
    from tapct.doctor import checks

    found = list(checks(task, root, encoder))
    if json:
        print(_dump([asdict(check) for check in found]))
    else:
        table = Table("status", "check", "found", "what to do", box=box.SIMPLE)
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        for check in found:
            table.add_row(f"[{colours[check.status]}]{check.status}", check.name, check.message, check.mend)
        Console().print(table)
    return int(any(check.status == "fail" for check in found))


def _dump(content: object) -> str:
    return json.dumps(content, indent=1)


def _encoders() -> Table:
    table = Table(box=box.SIMPLE)
    for column in ("encoder", "params", "window", "grid", "stride", "features"):
        table.add_column(column, no_wrap=True)
    for name in list_encoders():
        card = encoder_class(name).card
        table.add_row(
            name,
            f"{card.num_params / 1e6:.1f} M",
            _sizes(card.window_size),
            _grid(card),
            _sizes(card.feature_stride),
            str(card.feature_dim),
        )
    return table


def _sizes(zyx: tuple[float, float, float]) -> str:
    return f"{zyx[0]:g}³" if len(set(zyx)) == 1 else "x".join(f"{n:g}" for n in zyx)


def _grid(card: EncoderCard) -> str:
    spacing = "" if card.spacing_mm is None else f"{_sizes(card.spacing_mm)} mm"
    slices = "" if card.in_plane_size is None else f"slices {card.in_plane_size}²"
    return " ".join(filter(None, (spacing, slices))) or "native"


def _tasks() -> Table:
    from tapct.tasks import list_tasks, task_class

    table = Table("task", "kind", "classes", "train", "val", "test", "licence", box=box.SIMPLE)
    for name in list_tasks():
        spec = task_class(name).spec
        counts = [str(len(cases)) for cases in spec.splits.values()]
        table.add_row(name, spec.kind, str(len(spec.classes)), *counts, spec.licence)
    return table


def main() -> None:
    """Runs the command; the exit status is 0 if all is well, 1 if not, 2 for a wrong command line."""
    commands: dict[str, Callable[..., int]] = {"list": list_, "doctor": doctor}
    parser = jsonargparse.ArgumentParser(prog="tapct", description=sys.modules["tapct"].__doc__)
    subcommands = parser.add_subcommands()
    for name, function in commands.items():
        subparser = jsonargparse.ArgumentParser(description=(function.__doc__ or "").split("\n")[0])
        subparser.add_function_arguments(function, as_group=False, as_positional=True, skip={"json"})
        if function is doctor:
            subparser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
        subcommands.add_subcommand(name, subparser, help=subparser.description)
    arguments = parser.parse_args()
    if arguments.subcommand != "doctor":
        os.environ[telemetry.VARIABLE] = "1"  # before anything imports eva; the doctor judges what `eva` would see
    try:
        sys.exit(commands[arguments.subcommand](**vars(arguments[arguments.subcommand])))
    except TapctError as error:
        sys.exit(f"tapct: {error}")


if __name__ == "__main__":
    main()
