"""The `tapct` command."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from rich import box, console
from rich.table import Table
from rich.text import Text

from tapct import arguments, checks
from tapct._utils import telemetry, terminal
from tapct.arguments import ENCODER, JSON_OBJECT, OUT, TASK
from tapct.encoders import EncoderCard, encoder_class, licence, list_declared, list_encoders, refused_encoders
from tapct.errors import EncoderError, TapctError, TaskError, in_one_message, shows_trace


def list_(what: Literal["encoders", "tasks", "suites"], name: str | None = None, /) -> int:
    """Lists what there is.

    Args:
        what: What to list.
        name: The name or path of a suite, to list its experiments and what its source does not say.

    Returns:
        The exit status.
    """
    if name is not None and what != "suites":
        raise TapctError(f"tapct list {what} takes no name, such as '{name}'")
    if what == "suites":
        from tapct.sweep import suite_tables

        terminal.output().print(suite_tables.all_suites() if name is None else suite_tables.one_suite(name))
        return 0
    table, unusable = _tasks() if what == "tasks" else _encoders()
    terminal.output().print(table)
    for why in unusable:
        terminal.notices().print(f"left out: {why}", style="yellow", markup=False, soft_wrap=True)
    return 0


def doctor(
    *,
    task: Annotated[str | None, TASK] = None,
    root: str | None = None,
    options: Annotated[dict[str, Any] | None, JSON_OBJECT] = None,
    split_file: str | None = None,
    encoder: Annotated[str | None, ENCODER] = None,
    accept_orientation: list[str] | None = None,
    look: str | None = None,
    json: bool = False,
) -> int:
    """Checks this installation, and says what to do about each finding.

    Args:
        task: Also read every case of this task.
        root: The folder that holds one folder per task. The default is the variable DATA_ROOT.
        options: Settings of the task, such as '{"ct_file": "CTres.nii.gz"}'.
        split_file: A file of the cases to check, instead of the task's own split.
        encoder: Also load this encoder, such as tap-b-3d+in_plane_size=512 (its weights are those of the variable
            ENCODER_WEIGHTS), and try windows of two sizes, to see that it is what its card says.
        accept_orientation: A case of the task that may lie otherwise than its header says, or "all". The option may be
            given several times.
        look: Draw a few cases of the task in three planes, with their labels and sides, into this PNG file.
        json: Print JSON instead of a table.

    Returns:
        The exit status: 1 if a run would fail.
    """
    from tapct import doctor as looked_at

    if (look or accept_orientation) and task is None:
        raise TapctError("--look and --accept-orientation are about the cases of a task: name it with --task")
    picture = None
    if look is not None:
        from tapct.viz.canvas import png_path

        picture = png_path(look)
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints as it reads a task or loads an encoder
        found = list(looked_at.checks(task, root, encoder, options, split_file, accept_orientation or (), picture))
    if json:
        checks.print_json(checks.as_json(found))
    else:
        checks.print_table(found)
    return checks.exit_status(found)


def leaderboard(
    results: list[str],
    /,
    *,
    out: Annotated[str, OUT],
    suite: str | None = None,
    eva: list[str] | None = None,
    strict: bool = False,
) -> int:
    """Writes the leaderboard of results folders: a page, CSV, JSON, Markdown and LaTeX.

    Args:
        results: Folders of results.
        out: The folder to write to.
        suite: Comma-separated names of the tasks that mean ranks are over; the name or path of a suite stands for its
            tasks. The default are the shipped tasks that half of the models have.
        eva: A file results.json of stock runs of eva's, or a folder of such, shown as references and never ranked. The
            option may be given several times.
        strict: End with status 1 if anything was left out.

    Returns:
        The exit status.
    """
    from tapct.leaderboard import site
    from tapct.sweep import suites
    from tapct.tasks import core_tasks

    names = suites.tasks_of(suite or "", core_tasks())
    return site.build(
        [Path(folder) for folder in results], Path(out), suite=names, eva=list(map(Path, eva or [])), strict=strict
    )


def complete(shell: Literal["bash", "zsh"], /) -> int:
    """Prints what makes a shell complete commands, options and names: eval "$(tapct completion bash)" in ~/.bashrc.

    Args:
        shell: The shell.

    Returns:
        The exit status.
    """
    from tapct import completion
    from tapct.tasks import list_tasks

    names = {"-e": [*list_encoders(), *list_declared()], "-t": list_tasks()}
    print(completion.script(app, names, shell), end="")
    return 0


def record_schema() -> int:
    """Prints the JSON schema of a record's file.

    Returns:
        The exit status.
    """
    from tapct.records import Record

    print(Record.published_schema(), end="")
    return 0


def _encoders() -> tuple[console.Group, list[str]]:
    """Returns the encoders that can be used, eva's backbones apart for their long names, and why others cannot be."""
    unusable = refused_encoders()
    tables = [_cards(names, unusable) for names in (list_encoders(), list_declared())]
    legend = (
        f"{licence.NON_COMMERCIAL}: {licence.NC_MEANS}. gated: an account or an agreement is needed. "
        "?: none is stated. In full: tapct download -e NAME --dry-run"
    )
    return console.Group(tables[0], "", tables[1], "", legend), unusable


def _cards(names: Sequence[str], unusable: list[str]) -> Table:
    """Returns a row for each encoder; why one cannot be used is added to those that cannot."""
    table = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False, show_edge=False)
    for column in ("encoder", "params", "window", "grid", "stride", "dim", "terms"):
        table.add_column(column, no_wrap=column not in ("grid", "terms"))
    for name in names:
        try:
            card = encoder_class(name).card
        except EncoderError as error:
            unusable.append(str(error))
            continue
        table.add_row(
            name,
            f"{card.num_params / 1e6:.1f} M",
            _sizes(card.window_size),
            _grid(card),
            _sizes(card.feature_stride),
            str(card.feature_dim),
            licence.brief(card.weights),
        )
    return table


def _sizes(zyx: tuple[float, float, float]) -> str:
    return f"{zyx[0]:g}³" if len(set(zyx)) == 1 else "x".join(f"{n:g}" for n in zyx)


def _grid(card: EncoderCard) -> str:
    spacing = "" if card.spacing_mm is None else f"{_sizes(card.spacing_mm)} mm"
    slices = "" if card.in_plane_size is None else f"slices {card.in_plane_size}²"
    return " ".join(filter(None, (spacing, slices))) or "native"


def _tasks() -> tuple[console.Group, list[str]]:
    """Returns the tasks that can be used, and why each other one cannot."""
    from tapct.kinds import refused_kinds
    from tapct.tasks import core_tasks, list_tasks, task_class
    from tapct.tasks.registry import refused_tasks

    last, unusable = core_tasks()[-1], [*refused_kinds(), *refused_tasks()]
    table = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False, show_edge=False)
    for column in ("task", "kind", "classes", "train", "val", "test"):
        table.add_column(column, no_wrap=True)
    by_licence: dict[str, list[str]] = {}
    for name in list_tasks():
        try:
            task = task_class(name)
            counts = [str(n) for n in task.split_counts() or ("?",) * 3]
        except TaskError as error:
            unusable.append(str(error))
            continue
        by_licence.setdefault(task.spec.licence, []).append(name)
        row = name, task.spec.kind, str(len(task.spec.classes)), *counts
        table.add_row(*row, end_section=name in ("quickstart_organs", last))  # between them is what "all" means
    licences = (Text.assemble((", ".join(names), "bold"), f": {text}") for text, names in by_licence.items())
    return console.Group(table, "", "Licences of the data", *licences), unusable


COMMANDS: dict[str, Callable[..., int] | str] = {
    "list": list_,
    "config": "tapct.sweep.shipped:config",
    "download": "tapct.encoders.commands:download",
    "doctor": doctor,
    "run": "tapct.sweep.commands:run",
    "status": "tapct.sweep.commands:status",
    "leaderboard": leaderboard,
    "cache ls": "tapct.cache:ls",
    "cache verify": "tapct.cache:verify",
    "cache rm": "tapct.cache:rm",
    "import-predictions": "tapct.imported.commands:import_predictions",
    "submit": "tapct.submission.commands:submit",
    "verify": "tapct.submission.commands:verify",
    "pack": "tapct.packs.commands:pack",
    "unpack": "tapct.packs.commands:unpack",
    "export-embeddings": "tapct.packs.commands:export_embeddings",
    "embed": "tapct.viz.commands:embed",
    "features": "tapct.viz.commands:features",
    "retrieve": "tapct.viz.commands:retrieve",
    "overlay": "tapct.report.commands:overlay",
    "report": "tapct.report.commands:report",
    "describe": "tapct.report.commands:describe",
    "compare": "tapct.similarity.commands:compare",
    "verify-encoder": "tapct.verification.commands:verify_encoder",
    "cite": "tapct.citations.commands:cite",
    "record-schema": record_schema,
    "completion": complete,
}
"""What does each command, or where that is: it is imported only where it is called, or its help shown."""

app = arguments.app(COMMANDS, groups={"cache": "Looks after stored features."})
app.console = terminal.Output()

FIRST = """\
The first five commands:

  tapct list encoders                  what there is; also: tapct list tasks
  tapct doctor                         what this machine lacks, how to fix it
  tapct run -e tap-t-3d -t quickstart  an encoder on a task: two scans that ship
  tapct status                         what is done, running, failed and why
  tapct leaderboard results -o site    the page of all results

All of them: tapct --help. What one takes: tapct run --help.
"""
"""What is said where no command is."""


def main() -> None:
    """Runs the command; the exit status is 0 if all is well, 1 if not, 2 for a wrong command line."""
    terminal.accept_any_text()
    if len(sys.argv) == 1:
        sys.stderr.write(f"{sys.modules['tapct'].__doc__}\n\n{FIRST}")
        sys.exit(2)
    try:
        command, given = arguments.parsed(app, sys.argv[1:])
        if command is not doctor:
            os.environ[telemetry.VARIABLE] = "1"  # before anything imports eva; the doctor judges what `eva` would see
        status = command(*given.args, **given.kwargs) or 0  # --help and --version return nothing
        sys.stdout.flush()
    except BrokenPipeError:
        if not terminal.reader_is_gone():
            raise
        status = 141  # 128 + SIGPIPE, what a shell says of a command that ended so
    except TapctError as error:
        if shows_trace():
            raise
        sys.exit(in_one_message(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
