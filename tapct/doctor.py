"""Checks of an installation, each with what to do about it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from tapct import tested
from tapct._utils import telemetry
from tapct._utils.files import features_folder, innermost_existing
from tapct._utils.system import cores
from tapct.checks import Check, locks_check
from tapct.errors import TapctError, WeightsError
from tapct.sweep.asked import results_folder

if TYPE_CHECKING:
    from tapct.encoders import Encoder
    from tapct.tasks.checks import CaseCheck


READERS = min(8, cores())
"""Processes that read cases."""


def checks(
    task: str | None = None,
    root: str | None = None,
    encoder: str | None = None,
    options: dict[str, Any] | None = None,
    split_file: str | None = None,
    accept_orientation: Sequence[str] = (),
    look: Path | None = None,
) -> Iterator[Check]:
    """Yields the checks of this machine, and of a task's data and an encoder where they are named.

    Args:
        task: Name of a task.
        root: Folder that holds one folder per task; by default the variable DATA_ROOT.
        encoder: Name of an encoder, with options such as `tap-b-3d+in_plane_size=512`.
        options: Settings of the task's dataset.
        split_file: Another split than the task's own.
        accept_orientation: Cases that may lie otherwise than their headers say.
        look: Where to draw a sheet of some cases of the task, as a PNG.
    """
    yield _python()
    yield from _packages()
    yield _telemetry()
    yield _device()
    yield _output()
    yield locks_check("locks results", results_folder(None), "--results or RESULTS_ROOT")
    yield locks_check("locks features", features_folder(), "TAPCT_FEATURES")
    yield from _plugins()
    if task is not None:
        yield from _task(
            task,
            root or os.environ.get("DATA_ROOT"),
            look,
            options=options,
            split_file=split_file,
            accept_orientation=accept_orientation,
        )
    if encoder is not None:
        yield _encoder(encoder)


def _python() -> Check:
    version, *span = (".".join(map(str, one[:2])) for one in (sys.version_info, *tested.PYTHON))
    if tested.PYTHON[0] <= sys.version_info[:2] <= tested.PYTHON[1]:
        return Check("ok", "python", f"Python {version}")
    message = f"Python {version}; {' to '.join(span)} are tested"
    return Check("warn", "python", message, "nothing, if it works; else a Python of that range")


def _packages() -> Iterator[Check]:
    """Compares what is installed with what must be, and with what this project was tested with."""
    newest, newer = tested.newest(), []
    for wanted in tested.requirements():
        found, asked = tested.installed(wanted.name), f"{wanted.name}{wanted.specifier}"
        if found is None:
            yield Check("fail", wanted.name, "is not installed", f"pip install '{asked}'")
        elif not wanted.specifier.contains(found, prereleases=True):
            why = tested.FORBIDDEN.get(wanted.name)
            message = f"{found} is installed; {wanted.specifier} is {'tested' if why is None else f'needed: {why}'}"
            yield Check("warn" if why is None else "fail", wanted.name, message, f"pip install '{asked}'")
        elif found.release[:2] > newest[wanted.name].release[:2]:
            newer.append(f"{wanted.name} {found} (tested up to {newest[wanted.name]})")
    if newer:
        yield Check("warn", "newer", ", ".join(newer), "nothing, if it works; else pip install the version in brackets")
    yield Check("ok", "packages", f"eva {version('kaiko-eva')}, torch {torch.__version__}")


def _telemetry() -> Check:
    if telemetry.is_off():
        return Check("ok", "telemetry", f"{telemetry.VARIABLE}=1")
    return Check(
        "fail",
        "telemetry",
        f"{telemetry.VARIABLE} is not 1, and eva imports onnxruntime, which sends telemetry from 1.29 on",
        f"export {telemetry.VARIABLE}=1 before `eva`, in your shell's profile or the job script",
    )


def _device() -> Check:
    if torch.cuda.is_available():
        return Check("ok", "device", torch.cuda.get_device_name())
    return Check(
        "warn",
        "device",
        f"no GPU; {torch.get_num_threads()} CPU threads",
        "the quickstart needs none; for whole tasks use a machine with a CUDA GPU",
    )


def _output() -> Check:
    folder = Path(os.environ.get("OUTPUT_ROOT", "logs"))
    existing = innermost_existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check("fail", "output", f"cannot write to {existing}: {error.strerror}", "set OUTPUT_ROOT")
    free_gb = shutil.disk_usage(existing).free / 1e9
    status: Literal["ok", "warn"] = "ok" if free_gb > 1 else "warn"
    return Check(status, "output", f"{folder}: {free_gb:.0f} GB free", "" if status == "ok" else "set OUTPUT_ROOT")


def _plugins() -> Iterator[Check]:
    """Imports every encoder, kind of task and task that is installed, a third party's above all."""
    from tapct import kinds
    from tapct.encoders import encoder_class, list_encoders, refused_encoders
    from tapct.tasks import list_tasks, task_class
    from tapct.tasks.registry import refused_tasks

    yield from _importable("encoders", list_encoders(), encoder_class, refused_encoders())
    yield from _importable("kinds", kinds.list_kinds(), kinds.kind, kinds.refused_kinds())
    yield from _importable("tasks", list_tasks(), task_class, refused_tasks())


def _importable(what: str, names: list[str], load: Callable[[str], Any], broken: list[str]) -> Iterator[Check]:
    for name in names:
        try:
            load(name)
        except TapctError as error:
            broken.append(str(error))
    for why in broken:
        yield Check("warn", what, why, "fix, rename or uninstall it; the others work")
    if not broken:
        yield Check("ok", what, f"{len(names)} are installed")


def _task(name: str, root: str | None, look: Path | None, **settings: Any) -> Iterator[Check]:
    from tapct.tasks.findings import findings

    shown: list[CaseCheck] = []
    show = None if look is None else shown.append
    try:
        for status, message, fix in findings(name, root, READERS, show=show, **settings):
            yield Check(status, f"task {name}", message, fix)
        if look is not None:
            yield _sheet(name, shown, look)
    except TapctError as error:
        yield Check("fail", f"task {name}", str(error), "see the message")


def _sheet(task: str, shown: "Sequence[CaseCheck]", path: Path) -> Check:
    """Draws the cases that were looked at."""
    from tapct.viz.sheet import draw_checks

    if not shown:
        return Check("fail", f"look {task}", "no case can be drawn", "see the findings of the task")
    draw_checks(path, shown)
    return Check("ok", f"look {task}", f"{path}: {', '.join(check.of.case for check in shown)}")


def _encoder(name: str) -> Check:
    """Encodes noise in windows of two sizes: what a card says of one size alone may be so by chance."""
    from tapct.encoders.options import load_spec

    of, weights = f"encoder {name}", os.environ.get("ENCODER_WEIGHTS")
    try:
        encoder = load_spec(name, weights)
    except WeightsError as error:
        return Check("fail", of, str(error), "set ENCODER_WEIGHTS to a file, or to random")
    except TapctError as error:
        return Check("fail", of, str(error), _GUIDE)
    sizes = [encoder.card.window_size, *_another_size(encoder)]
    for size in sizes:
        if (problem := _tried(encoder, size)) is not None:
            return Check("fail", of, problem, _GUIDE)
    words = f"{encoder.card.num_params:,} parameters, weights {encoder.weights_source}"
    tried = " and ".join("x".join(map(str, size)) for size in sizes)
    return Check("ok", of, f"{words}; of windows of {tried} it gives what its card says")


_GUIDE = "see the message; docs/add-an-encoder.md says what a card and _encode must say"


def _another_size(encoder: "Encoder") -> list[tuple[int, int, int]]:
    """Returns another size that the encoder says it takes, a smaller one if there is one; none if there is none."""
    window, stride = encoder.card.window_size, encoder.card.feature_stride
    per_axis = [
        [max(s, w // 2 // s * s) for w, s in zip(window, stride, strict=True)],
        [max(s, w - s) for w, s in zip(window, stride, strict=True)],
        [w if w == 1 else w + s for w, s in zip(window, stride, strict=True)],
        [w if w == 1 else 2 * w for w in window],
    ]
    sizes = [(d, h, w) for d, h, w in per_axis if (d, h, w) != window]
    return [size for size in sizes if encoder.supports(size)][:1]


def _tried(encoder: "Encoder", size: tuple[int, int, int]) -> str | None:
    """Returns what is wrong with the features of a window; None where nothing is."""
    from tapct.encoders.promises import require_parameters

    noise = torch.Generator().manual_seed(0)
    windows = torch.randn((1, 1, *size), generator=noise) * 300 - 300
    try:
        features = encoder(windows, mistake_made=True)  # what a card says holds with a mistake as without
        require_parameters(encoder)
    except TapctError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  whatever a third-party network raises
        return f"a window of {size}, which it says that it takes (`supports`), ends in {type(error).__name__}: {error}"
    if not all(torch.isfinite(part).all() for part in features if part is not None):
        return f"a window of {size} gives features that are NaN or infinite"
    return None
