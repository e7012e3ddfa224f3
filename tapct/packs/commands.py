"""What `tapct pack`, `tapct unpack` and `tapct export-embeddings` do."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tapct._utils.files import features_folder
from tapct.arguments import ENCODER, OUT, TASK, WEIGHTS
from tapct.encoders import options
from tapct.errors import FeatureError, nearest

if TYPE_CHECKING:
    from tapct.features import FeatureBank
    from tapct.tasks import TaskData


def pack(
    *,
    encoder: Annotated[str, ENCODER],
    task: Annotated[str, TASK],
    out: Annotated[str, OUT],
    weights: Annotated[str | None, WEIGHTS] = None,
    root: str | None = None,
    targets: bool = False,
    config: str | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    folder: str | None = None,
) -> int:
    """Exports the stored features of a task, so that others can probe without the scans.

    Without --targets the file holds nothing of the data set but case and patient names: labels are the data set's own,
    and its licence decides whether they may be passed on. Whether features may be, read the notice that is printed.

    Args:
        encoder: The name of the encoder, with options such as tap-b-3d+in_plane_size=512.
        task: The name of the task.
        out: The file to write, ending in .tar; or a folder, to name the file after task and encoder.
        weights: The weights: a path, "random", or "null" for the published ones. The default is the variable
            ENCODER_WEIGHTS.
        root: The folder that holds one folder per task. The default is the variable DATA_ROOT. The scans say which
            features are theirs.
        targets: Add the labels (or targets) of the cases.
        config: The YAML config of the run whose features they are. The default is the task's own.
        accelerator: The accelerator that the run was on, which decides its precision.
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.

    Returns:
        The exit status.
    """
    from tapct.packs import packing

    bank, data = stored_run(encoder, task, weights, root, config, accelerator, folder)
    path = Path(out)
    if path.suffix != ".tar":
        of = bank.encoder
        name = options.label(of.card.name, of.weights_source == options.RANDOM, of.options)
        path = path / f"{task}-{name}.tar"
    manifest = packing.pack(bank, data, path, targets=targets)
    cases = len(manifest.cases)
    print(f"{path}: features of {cases} cases, {path.stat().st_size / 2**20:.0f} MiB, {_targets(targets)}")
    print(manifest.notice)
    return 0


def export_embeddings(
    *,
    encoder: Annotated[str, ENCODER],
    task: Annotated[str, TASK],
    out: Annotated[str, OUT],
    format: Literal["eva"] = "eva",
    what: Literal["map", "embedding", "windows", "patches"] | None = None,
    label: str | None = None,
    weights: Annotated[str | None, WEIGHTS] = None,
    root: str | None = None,
    config: str | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    folder: str | None = None,
    replace: bool = False,
) -> int:
    """Writes the stored features of a task as another program reads them. The same command again does what is missing.

    Args:
        encoder: The name of the encoder, with options such as tap-b-3d+in_plane_size=512.
        task: The name of the task.
        out: The folder to write to.
        format: The format: manifest.csv and .pt files, for the embedding data sets of kaiko-eva.
        what: What to write: the map (segmentation), the embedding (one vector a scan), windows or patches (a bag a
            scan). The default is the map with its masks in segmentation, and the embedding in other tasks.
        label: The class that is the target, which must be named where a task has several labels a case.
        weights: The weights: a path, "random", or "null" for the published ones. The default is the variable
            ENCODER_WEIGHTS.
        root: The folder that holds one folder per task. The default is the variable DATA_ROOT. The scans say which
            features are theirs.
        config: The YAML config of the run whose features they are. The default is the task's own.
        accelerator: The accelerator that the run was on, which decides its precision.
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.
        replace: Replace an existing manifest of other features.

    Returns:
        The exit status.
    """
    from tapct.packs import embeddings, packing

    bank, data = stored_run(encoder, task, weights, root, config, accelerator, folder)
    done = embeddings.export(bank, data, Path(out), what=what, label=label, replace=replace)
    print(f"{out}: {done.cases} cases for {format}, {done.written} files written")
    print(packing.notice(data, bank.encoder))
    return 0


def unpack(
    file: str,
    /,
    *,
    folder: str | None = None,
) -> int:
    """Checks a feature pack and puts it next to the features that were extracted here.

    Args:
        file: The file that `tapct pack` wrote.
        folder: The folder of the store. The default is the variable TAPCT_FEATURES, or `features/` in the cache folder.

    Returns:
        The exit status.
    """
    from tapct.packs import unpacking

    found = unpacking.unpack(Path(file), Path(folder) if folder else features_folder())
    of = found.manifest
    print(f"{found.folder}: features of {len(of.cases)} cases, {_targets(of.has_targets)}")
    print(f"task     {of.task['name']}, version {of.task['version']}, split {of.task['split']}")
    print(f"encoder  {of.identity['card']['name']}, weights {of.encoder['weights']}, {of.identity['precision']}")
    print(f"sha256   {found.sha256}")
    print(of.notice)
    print("Which scans, weights and code they are of, the pack says; nobody can check it without the scans.")
    if of.has_targets:
        print(f"To probe it: {found.variables} eva fit --config CONFIG")
    return 0


def stored_run(
    encoder: str,
    task: str,
    weights: str | None,
    root: str | None,
    config: str | None,
    accelerator: str,
    folder: str | None,
    settings: Mapping[str, Any] | None = None,
) -> "tuple[FeatureBank, TaskData]":
    """Returns the bank and the task of a run of a config, as the command line names them.

    Args:
        encoder: Name of the encoder, with options.
        task: Name of the task.
        weights: A path, "random" or "null"; None is the variable ENCODER_WEIGHTS.
        root: Folder that holds one folder per task; None is the variable DATA_ROOT.
        config: YAML config of the run; None is that of the task.
        accelerator: Where the run was: "auto", "cpu" or "gpu".
        folder: The store; None is the usual one.
        settings: Settings of the run over those of the config, by name.

    Raises:
        FeatureError: If there is no such config, or a setting is none that decides which features it stored.
    """
    from tapct.packs import packing
    from tapct.sweep.experiment import environment, runnable

    configs = runnable() if config is None else {task: Path(config)}
    if task not in configs:
        raise FeatureError(f"there is no config of a task '{task}'. {nearest(task, configs)}")
    spec = options.parse_spec(encoder)
    of_encoder = {"ENCODER": spec.encoder, "ENCODER_WEIGHTS": spec.weights(weights), "ENCODER_OPTIONS": spec.options}
    given = {**of_encoder, "DATA_ROOT": root}
    variables = {name: value or os.environ.get(name) for name, value in given.items()}
    with environment({name: value for name, value in variables.items() if value is not None}):
        model, of_data = packing.settings_of(configs[task])
        for name, value in (settings or {}).items():
            if name not in (*packing.OF_FEATURES, *packing.OF_SCANS):
                known = nearest(name, [*packing.OF_FEATURES, *packing.OF_SCANS])
                raise FeatureError(f"there is no setting '{name}' that decides which features are stored. {known}")
            (model if name in packing.OF_FEATURES else of_data)[name] = value
        bank = packing.bank_of(model, Path(folder) if folder else features_folder(), _device(accelerator))
    return bank, packing.task_of(of_data)


def _targets(there: bool) -> str:
    return "with the data set's labels" if there else "without labels"


def _device(accelerator: str) -> str:
    if accelerator == "cpu":
        return "cpu"
    import torch

    if accelerator == "gpu" and not torch.cuda.is_available():
        raise FeatureError("there is no GPU here, whose precision decides the keys. Leave --accelerator out")
    return "cuda" if torch.cuda.is_available() else "cpu"
