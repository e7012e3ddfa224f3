"""What `tapct import-predictions` does."""

from pathlib import Path
from typing import Any


def import_predictions(
    predictions: list[str],
    task: str,
    *,
    name: str,
    results: str | None = None,
    root: str | None = None,
    labels: str | None = None,
    about: str | None = None,
    trained_on: str | None = None,
    split_file: str | None = None,
    options: dict[str, Any] | None = None,
    accept_orientation: list[str] | None = None,
    nsd_tolerance_mm: float = 2.0,
) -> int:
    """Scores what a model predicted that was trained elsewhere, such as an nnU-Net: a reference, never ranked.

    Args:
        predictions: Folder with CASE.nii.gz of every reported case, or CSV with the columns case and each label, values
            from 0 to 1; several are runs of one model.
        task: Name of the task, of segmentation or classification.
        name: What the model is called on the page.
        results: The results folder; by default the variable RESULTS_ROOT, else `results`.
        root: Folder that holds one folder per task; by default the variable DATA_ROOT.
        labels: What the numbers of label maps are: nnU-Net's dataset.json, with the task's names; by default they are
            the task's own.
        about: What the model is and how it was trained; it stands on the page.
        trained_on: The cases that trained it; it stands on the page.
        split_file: Cases to score instead of the task's own split.
        options: Settings of the task.
        accept_orientation: A case that may lie otherwise than its header says, or "all"; may be given several times.
        nsd_tolerance_mm: Distance at which surfaces still agree, in mm.

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
    print(f"{path}: a reference; `tapct leaderboard` shows it beside the ranked models of {task}")
    return 0
