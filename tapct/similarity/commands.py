"""What `tapct compare` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tapct.arguments import TASK, WEIGHTS, WHOLE

if TYPE_CHECKING:
    from tapct._utils.terminal import Columns
    from tapct.similarity.found import Similarity


def compare(
    encoders: list[str],
    /,
    *,
    task: Annotated[str, TASK],
    pooling: Literal["cls", "mean", "max", "mean+max", "mask"] | None = None,
    neighbours: Annotated[int, WHOLE] = 10,
    weights: Annotated[str | None, WEIGHTS] = None,
    root: str | None = None,
    results: str | None = None,
    config: str | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    folder: str | None = None,
) -> int:
    """Says what encoders have in common by their stored features of a task, and which is another one under a new name.

    Nothing is encoded: run the encoders on the task first. No label is looked at, so all cases count.

    Args:
        encoders: Names of two encoders or more, with options such as tap-b-3d+in_plane_size=512; curia@random is curia
            with random weights.
        task: The name of the task.
        pooling: How features become one vector a case. The default are class tokens where an encoder has some, else the
            mean.
        neighbours: The number of nearest cases to compare.
        weights: The weights of all encoders (a path, "random" or "null"), or comma-separated pairs ENCODER=VALUE. The
            default is the variable ENCODER_WEIGHTS.
        root: The folder that holds one folder per task. The default is the variable DATA_ROOT. The scans say which
            features are theirs.
        results: A folder of results, to leave what was found there for the page of `tapct leaderboard`.
        config: The YAML config of the runs whose features they are. The default is the task's own.
        accelerator: The accelerator that the runs were on, which decides their precision.
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.

    Returns:
        The exit status.
    """
    import os

    from tapct._utils import terminal
    from tapct.encoders.options import RANDOM, parse_spec
    from tapct.packs.commands import stored_run
    from tapct.similarity.found import write
    from tapct.similarity.stored import compare as of_banks
    from tapct.sweep.experiment import weights_by_encoder

    named = [parse_spec(one).encoder for one in encoders]
    of_each = weights_by_encoder(weights or os.environ.get("ENCODER_WEIGHTS"), named)
    runs = []
    for text, name in zip(encoders, named, strict=True):
        own = RANDOM if parse_spec(text).random else of_each.get(name, "null")
        runs.append(stored_run(text, task, own, root, config, accelerator, folder))
    found = of_banks([bank for bank, _ in runs], runs[0][1], pooling=pooling, neighbours=neighbours)
    for table in _tables(found):
        terminal.output().print(table)
    for line in in_words(found):
        terminal.output().print(line, markup=False, soft_wrap=True)
    if results is not None:
        print(write(found, Path(results).expanduser()))
    return 0


def in_words(found: "Similarity") -> list[str]:
    """Returns what is to be said next to the tables: of how many cases, and which encoders are the same."""
    titles = {one.label: one.title for one in found.encoders}
    said = [
        f"{found.cases} cases of {found.patients} patients. By chance, {found.by_chance:.2f} of the nearest "
        f"{found.neighbours} are the same, and the CKA is about 0."
    ]
    said += [
        f"{titles[pair.second]} is {titles[pair.first]} under another name: on these cases their features are the same "
        "but for rotation, shift and scale."
        for pair in found.same
    ]
    return said


def _tables(found: "Similarity") -> "list[Columns]":
    from rich import box

    from tapct._utils.terminal import Columns

    tables = []
    for title, what in (("linear CKA, debiased", "cka"), (f"nearest {found.neighbours} in common", "neighbours")):
        table = Columns("", *(one.label for one in found.encoders), title=title, box=box.SIMPLE)
        for one in found.encoders:
            pairs = [found.pair(one.label, other.label) for other in found.encoders]
            table.add_row(one.label, *("" if pair is None else _text(getattr(pair, what)) for pair in pairs))
        tables.append(table)
    return tables


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
