"""What `tapct import-predictions` does."""

from pathlib import Path
from typing import Annotated, Any

from tapct.arguments import JSON_OBJECT, NAME, NUMBER, TASK


def import_predictions(
    predictions: list[str],
    /,
    *,
    task: Annotated[str, TASK],
    name: Annotated[str, NAME],
    results: str | None = None,
    root: str | None = None,
    labels: str | None = None,
    about: str | None = None,
    trained_on: str | None = None,
    split_file: str | None = None,
    options: Annotated[dict[str, Any] | None, JSON_OBJECT] = None,
    accept_orientation: list[str] | None = None,
    nsd_tolerance_mm: Annotated[float, NUMBER] = 2.0,
) -> int:
    """Scores what a model predicted that was trained elsewhere, such as an nnU-Net: a reference, never ranked.

    Args:
        predictions: A folder with CASE.nii.gz of every reported case, or a CSV with the columns case and each label,
            values from 0 to 1. Several are runs of one model.
        task: The name of the task, of segmentation or classification.
        name: The name of the model on the page.
        results: The folder of the results. The default is the variable RESULTS_ROOT, or "results".
        root: The folder that holds one folder per task. The default is the variable DATA_ROOT.
        labels: The file that says what the numbers of label maps are: nnU-Net's dataset.json, with the task's names. By
            default the numbers are the task's own.
        about: What the model is and how it was trained, for the page.
        trained_on: The cases that trained it, for the page.
        split_file: A file of the cases to score, instead of the task's own split.
        options: Settings of the task, such as '{"ct_file": "CTres.nii.gz"}'.
        accept_orientation: A case that may lie otherwise than its header says, or "all". The option may be given
            several times.
        nsd_tolerance_mm: The distance at which surfaces still agree, in mm.

    Returns:
        The exit status.
    """
    from tapct.imported.importing import import_predictions as score
    from tapct.records import print_summary
    from tapct.sweep.asked import results_folder

    path = score(
        task,
        [Path(one) for one in predictions],
        name,
        results_folder(results),
        data_root=root,
        labels=None if labels is None else Path(labels),
        about=about,
        trained_on=trained_on,
        nsd_tolerance_mm=nsd_tolerance_mm,
        split_file=split_file,
        options=options,
        accept_orientation=accept_orientation,
    )
    print_summary(path)
    print(f"{path}: a reference; `tapct leaderboard` shows it next to the ranked models of {task}")
    return 0
