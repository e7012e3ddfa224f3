"""`tapct config`: the configs that are installed with the package, for those who have no checkout."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from rich import box
from rich.table import Table

from tapct._utils import terminal
from tapct._utils.files import write_atomically
from tapct.arguments import OUT
from tapct.errors import nearest
from tapct.sweep.experiment import SHIPPED_CONFIGS, SUITES_FOLDER, SweepError, runnable

PRETRAINING = "pretrain"
"""What names of pretraining configs begin with; also the package whose folder `configs` holds them."""

USED_BY = """\
eva fit --config $(tapct config amos22)
tapct run --suite quick
python -m pretrain.train --config $(tapct config pretrain/tap_debug)"""
"""What runs a config of each sort."""

NOT_SAID = re.compile(r"\. |: [\d ]+(%|scans)? ?train the probe| \(docs/")
"""Where the comment at a config's head ends to say what it is: with its sentence, or before the counts of the split."""


def config(
    name: str | None = None,
    /,
    *,
    out: Annotated[str | None, OUT] = None,
) -> int:
    """Lists the configs that are installed, prints where one lies, or copies it.

    Args:
        name: The name of a config: of a task, such as amos22, or suites/NAME or pretrain/NAME. Without a name, all
            configs are listed.
        out: The file to copy it to, which must not exist yet.

    Returns:
        The exit status.

    Raises:
        SweepError: If there is no such config, or the copy would replace a file.
    """
    known = installed_configs()
    if name is None:
        if out is not None:
            raise SweepError("-o copies one config: name it, as in `tapct config quickstart -o mine.yaml`")
        terminal.output().print(_table(known))
        return 0
    if name not in known:
        raise SweepError(f"there is no config '{name}'. {nearest(name, known)}")
    if out is None:
        print(known[name])  # nothing else: it is made for $(...)
        return 0
    copy = Path(out).expanduser()
    if copy.exists():
        raise SweepError(f"{copy} is there already, and a copy replaces nothing: give -o the name of a new file")
    write_atomically(copy, known[name].read_bytes())
    return 0


def installed_configs() -> dict[str, Path]:
    """Returns the configs by name: of tasks, also of those that other packages bring; of suites; of pretraining."""
    from tapct.sweep.suites import shipped_suites  # pydantic

    pretraining = SHIPPED_CONFIGS.parent / PRETRAINING / "configs"  # found as a folder: tapct does not import pretrain
    return {
        **dict(sorted(runnable().items(), key=lambda item: (item[1].parent != SHIPPED_CONFIGS, item[0]))),
        **{f"{SUITES_FOLDER}/{name}": path for name, path in shipped_suites().items()},
        **{f"{PRETRAINING}/{path.stem}": path for path in sorted(pretraining.glob("*.yaml"))},
    }


def _table(known: dict[str, Path]) -> Table:
    table = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    table.add_column("config", no_wrap=True)
    table.add_column("is")
    names = list(known)
    for name, following in zip(names, [*names[1:], ""], strict=True):
        table.add_row(name, _about(known[name]), end_section=_group(name) != _group(following))
    table.caption = USED_BY
    table.caption_justify = "left"
    return table


def _group(name: str) -> str:
    return name.rpartition("/")[0]


def _about(path: Path) -> str:
    """Returns what stands at the head of a config, up to the first command, as far as it says what the config is."""

    def is_prose(line: str) -> bool:
        return line.startswith("# ") and not line.startswith("#   ")

    comment = takewhile(is_prose, path.read_text(encoding="utf-8").splitlines())
    return NOT_SAID.split(" ".join(line.removeprefix("# ") for line in comment), maxsplit=1)[0].rstrip(".:")
