"""The `tapct` command."""

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from rich import box, console
from rich.table import Table
from rich.text import Text

from tapct import arguments, cache, checks, completion
from tapct._utils import telemetry, terminal
from tapct.arguments import Commands, Group
from tapct.citations import commands as citation_commands
from tapct.encoders import EncoderCard, encoder_class, licence, list_declared, list_encoders, refused_encoders
from tapct.encoders import commands as encoder_commands
from tapct.errors import EncoderError, TapctError, TaskError, in_one_message, shows_trace
from tapct.imported import commands as import_commands
from tapct.packs import commands as pack_commands
from tapct.report import commands as report_commands
from tapct.similarity import commands as similarity_commands
from tapct.submission import commands as submission_commands
from tapct.sweep import shipped
from tapct.verification import commands as verification_commands
from tapct.viz import commands as viz_commands


def list_(what: Literal["encoders", "tasks", "suites"], name: str | None = None) -> int:
    """Lists what there is.

    Args:
        what: Encoders, tasks or suites.
        name: Name or path of a suite: lists its cells, and what its source does not say.

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
    task: str | None = None,
    root: str | None = None,
    options: dict[str, Any] | None = None,
    split_file: str | None = None,
    encoder: str | None = None,
    accept_orientation: list[str] | None = None,
    look: str | None = None,
    json: bool = False,
) -> int:
    """Checks this installation, and says what to do about each finding.

    Args:
        task: Also read every case of this task.
        root: Folder that holds one folder per task; by default the variable DATA_ROOT.
        options: Settings of the task, such as '{"ct_file": "CTres.nii.gz"}'.
        split_file: Cases to check instead of the task's own split.
        encoder: Also load this encoder, such as tap-b-3d+in_plane_size=512 (weights: the variable ENCODER_WEIGHTS), and
            try windows of two sizes: is it what its card says?
        accept_orientation: A case of the task that may lie otherwise than its header says, or "all"; may be given
            several times.
        look: Draw a few cases of the task in three planes, with their labels and sides: a PNG.
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


def run(
    encoders: str | None = None,
    tasks: str | None = None,
    suite: str | None = None,
    weights: str | None = None,
    results: str | None = None,
    launcher: Literal["local", "slurm"] = "local",
    dry_run: bool = False,
    replace: bool = False,
    max_steps: int | None = None,
    runs: int | None = None,
    accelerator: str | None = None,
    configs: str | None = None,
    override: list[str] | None = None,
    adaptors: str | None = None,
    bags: str | None = None,
    fractions: str | None = None,
    draws: int = 3,
    perturbations: str | None = None,
    mistakes: str | None = None,
    keep_features: Literal["all", "embeddings", "none"] = "all",
    jobs: int | None = None,
    detach: bool = False,
    partition: str | None = None,
    gpus: int | None = None,
    time: int | None = None,
    cpus: int | None = None,
    mem_gb: float | None = None,
    slurm_extra: list[str] | None = None,
    card: str | None = None,
    measure: bool = False,
    json: bool = False,
) -> int:
    """Runs encoders on tasks: every cell that is not done. The same command again resumes where it stopped.

    Args:
        encoders: Names by comma, or "all"; "curia@random" is curia with random weights, "tap-b-3d+in_plane_size=512"
            TAP-B-3D with an option of its card or constructor, several joined by +. Beside --suite: those of it.
        tasks: Names by comma, or "all": the ten of the benchmark. Beside --suite: those of it.
        suite: Cells that a file names: one of `tapct list suites`, such as paper-table-3, or the path of a YAML file.
        weights: A path, "random" or "null" (published) for all, or ENCODER=VALUE by comma; else ENCODER_WEIGHTS.
        results: Folder of the results; by default the variable RESULTS_ROOT, else "results".
        launcher: Processes on this machine, or jobs of a Slurm cluster.
        dry_run: Only show what is done, what would run, and what that takes: windows, TFLOP, hours, disk, memory.
        replace: Put records aside that are broken or of other settings, and run their cells again.
        max_steps: Optimizer steps, instead of the configs'.
        runs: Runs, one seed each, instead of the configs'.
        accelerator: cpu, gpu or auto.
        configs: Folder of KIND/TASK.yaml; by default the ones that `tapct config` lists.
        override: YAML file that is passed to eva after the task's config; may be given several times.
        adaptors: What stands on the features, by comma: linear, knn, prototype, abmil; ridge, attention; cox;
            cosine; nearest, vote. Those that pool with :cls, :mean, :max, :mean+max or :mask behind them. "all" is each
            that a task's kind takes. By default ADAPTOR, else each task's own.
        bags: What attention looks at, by comma: cls (the windows' class tokens), patch (a scan's patch features), auto
            (class tokens where the model has some). By default BAG, else each task's own, which is auto.
        fractions: Shares of the training patients by comma, such as 0.01,0.1,1: label efficiency.
        draws: How often patients are drawn for each share below 1.
        perturbations: Of the test scans, by comma, or "all": robustness, beside the unperturbed scans.
        mistakes: Usual mistakes with the encoders' input, by comma, or "all": what each costs, beside the right input.
        keep_features: What stays of a cell's stored features once no cell needs them: "embeddings" of windows without
            the maps, or "none".
        jobs: Processes at once on this machine; by default one a GPU.
        detach: Do not wait for Slurm's jobs.
        partition: Of the Slurm jobs.
        gpus: Of each Slurm job; by default 1, and 0 with --accelerator cpu.
        time: Minutes of each Slurm job (240); one that needs more is queued again.
        cpus: Cores of each Slurm job (8).
        mem_gb: Memory of each Slurm job, in GB.
        slurm_extra: KEY=VALUE, a further option of sbatch; may be given several times.
        card: Of a dry run: estimate hours for this card (a100, h100, h200, ...) instead of the device at hand.
        measure: Of a dry run: first measure each encoder on the device at hand, for at most 20 s.
        json: Of a dry run: print JSON instead of tables.

    Returns:
        The exit status: 1 if a cell failed, 128 + N if signal N ended the launcher.
    """
    from tapct.sweep import commands
    from tapct.sweep.asked import Sweep
    from tapct.sweep.bill import Shown

    sweep = Sweep(
        encoders=encoders,
        tasks=tasks,
        suite=suite,
        weights=weights,
        results=results,
        configs=configs,
        overrides=override or (),
        max_steps=max_steps,
        runs=runs,
        accelerator=accelerator,
        adaptors=adaptors,
        bags=bags,
        fractions=commands.shares(fractions),
        draws=draws,
        perturbations=perturbations,
        mistakes=mistakes,
    )
    if (card or measure or json) and not dry_run:
        raise TapctError("--card, --measure and --json say how a dry run shows its bill: add --dry-run")
    resources = commands.job_resources(partition, gpus, time, cpus, mem_gb, slurm_extra or (), sweep)
    return commands.run(
        sweep,
        launcher=launcher,
        dry_run=dry_run,
        replace=replace,
        jobs=jobs,
        detach=detach,
        resources=resources,
        shown=Shown(card=card, measure=measure, json=json),
        keep=keep_features,
    )


def status(
    results: str | None = None,
    encoders: str | None = None,
    tasks: str | None = None,
    watch: bool = False,
    json: bool = False,
) -> int:
    """Shows which cells are done, running (where, since when), failed (why) or missing.

    Args:
        results: Folder of the results; by default the variable RESULTS_ROOT, else "results".
        encoders: Names by comma, with all that is varied about them, or only such as tap-b-3d+in_plane_size=512; by
            default those that have been run.
        tasks: Likewise.
        watch: Refresh until Ctrl-C.
        json: Print JSON instead of a table.

    Returns:
        The exit status.
    """
    from tapct.sweep import commands

    return commands.status(results, encoders, tasks, watch=watch, as_json=json)


def leaderboard(
    results: list[str], out: str, suite: str | None = None, eva: list[str] | None = None, strict: bool = False
) -> int:
    """Writes the leaderboard of results folders: a page, CSV, JSON, Markdown and LaTeX.

    Args:
        results: Folders of results.
        out: Folder to write to.
        suite: Tasks that mean ranks are over, by comma; a suite's name or path stands for its tasks. By default the
            shipped ones that half of the models have.
        eva: Files results.json of stock runs of eva's, or folders of such, shown as references and never ranked.
        strict: End with status 1 where anything was left out.

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


def complete(shell: Literal["bash", "zsh"]) -> int:
    """Prints what makes a shell complete commands, options and names: eval "$(tapct completion bash)" in ~/.bashrc.

    Args:
        shell: Which shell.

    Returns:
        The exit status.
    """
    from tapct.tasks import list_tasks

    names = {"-e": [*list_encoders(), *list_declared()], "-t": list_tasks()}
    print(completion.script(COMMANDS, names, shell), end="")
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


COMMANDS: Commands = {
    "list": list_,
    "config": shipped.config,
    "download": encoder_commands.download,
    "doctor": doctor,
    "run": run,
    "status": status,
    "leaderboard": leaderboard,
    "cache": Group("Looks after stored features.", {"ls": cache.ls, "verify": cache.verify, "rm": cache.rm}),
    "import-predictions": import_commands.import_predictions,
    "submit": submission_commands.submit,
    "verify": submission_commands.verify,
    "pack": pack_commands.pack,
    "unpack": pack_commands.unpack,
    "export-embeddings": pack_commands.export_embeddings,
    "embed": viz_commands.embed,
    "features": viz_commands.features,
    "retrieve": viz_commands.retrieve,
    "overlay": report_commands.overlay,
    "report": report_commands.report,
    "describe": report_commands.describe,
    "compare": similarity_commands.compare,
    "verify-encoder": verification_commands.verify_encoder,
    "cite": citation_commands.cite,
    "record-schema": record_schema,
    "completion": complete,
}

FIRST = """\
The first five commands:

  tapct list encoders                  what there is; also: tapct list tasks
  tapct doctor                         what this machine lacks, how to mend it
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
    given = parser().parse_args()
    if given.subcommand != "doctor":
        os.environ[telemetry.VARIABLE] = "1"  # before anything imports eva; the doctor judges what `eva` would see
    try:
        status = _call(COMMANDS, given)
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


def parser() -> arguments.Parser:
    """Returns what reads the command line."""
    return arguments.parser(COMMANDS, sys.modules["tapct"].__doc__, version("tapct-bench"))


def _call(commands: Commands, given: jsonargparse.Namespace) -> int:
    command, settings = commands[given.subcommand], given[given.subcommand]
    return _call(command.commands, settings) if isinstance(command, Group) else command(**vars(settings))


if __name__ == "__main__":
    main()
