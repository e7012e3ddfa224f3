"""Whether what would be stored has room, and what is known of the data and weights of every experiment."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tapct._utils.files import innermost_existing
from tapct.checks import Check, locks_check
from tapct.errors import TapctError, TaskError
from tapct.sweep.bill.count import Bill
from tapct.sweep.bill.folder import Folder
from tapct.sweep.bill.settings import Data
from tapct.sweep.bill.sizes import root_of
from tapct.sweep.bill.weights import weights_check
from tapct.tasks import task_class, task_datasets

GIB = 2**30
WAYS_OUT = (
    "Keep less of it (--keep-features embeddings, or none), store it in half (FEATURE_DTYPE=int8), or name a folder "
    "with more room (TAPCT_FEATURES)"
)


def free_bytes(folder: Path) -> int:
    """Returns what the file system of a folder, which need not be there, has free."""
    return shutil.disk_usage(innermost_existing(folder)).free


def refusals(bill: Bill, jobs: int) -> list[str]:
    """Returns, a sentence each, why what would be stored does not fit; nothing where it does.

    Args:
        bill: The bill.
        jobs: Experiments that run at once.
    """
    about = {True: "", False: "by typical sizes, "}
    return [about[folder.exact] + why for folder in bill.folders for why in _does_not_fit(folder, jobs)]


def _does_not_fit(folder: Folder, jobs: int) -> Iterator[str]:
    free, missing = free_bytes(folder.path), folder.peak_bytes(jobs)
    if folder.budget_gb is None:
        if missing > free:
            yield (
                f"the features of these experiments take {gb(missing)} more in {folder.path}, and {gb(free)} are free "
                f"there. {WAYS_OUT}"
            )
        return
    # The least recently used entries make room for new ones, so the folder never grows beyond its budget.
    budget = int(folder.budget_gb * GIB)
    if folder.largest > budget:
        yield (
            f"the features of one experiment take {gb(folder.largest)}, and the budget of {folder.path} is "
            f"{gb(budget)} (feature_budget_gb). Raise it. {WAYS_OUT}"
        )
    elif (growth := min(missing, max(0, budget - folder.stored.nbytes))) > free:
        yield f"{folder.path} may grow by {gb(growth)} to its budget, and {gb(free)} are free there. {WAYS_OUT}"


def checks_of(bill: Bill, results: Path) -> list[Check]:
    """Returns what is known of the data and weights of experiments, and whether locks hold where they write."""
    data = dict.fromkeys(wanted.data for wanted in bill.wanted.values())
    by_weights = {(w.encoding.encoder, w.encoding.weights): w.encoding for w in bill.wanted.values()}
    found = [weights_check(encoding) for encoding in by_weights.values()]
    found += [data_check(one) for one in {(d.task, d.root, d.split_file, d.options): d for d in data}.values()]
    features = [locks_check(f"locks features {f.path}", f.path, "TAPCT_FEATURES") for f in bill.folders]
    return [*found, locks_check("locks results", results, "--results or RESULTS_ROOT"), *features]


def data_check(data: Data) -> Check:
    """Returns whether the files of an experiment's task are there; they are not opened."""
    name = f"data {data.task}"
    try:
        root = root_of(data)
        if root is None:
            source = task_class(data.task).spec.source
            where = "DATA_ROOT is not set" if data.root is None else f"there is no folder {Path(data.root) / data.task}"
            return Check("fail", name, where, source)
        return _files_check(name, data, root)
    except TapctError as error:
        return Check("fail", name, str(error), "see the message")


def _files_check(name: str, data: Data, root: Path) -> Check:
    cases = 0
    for part in task_datasets(data.task, root, data.split_file, json.loads(data.options)).values():
        if part is not None:
            try:
                part.validate()
            except TaskError as error:
                return Check("fail", name, str(error), f"`tapct doctor --task {data.task}` says more")
            cases += len(part)
    return Check("ok", name, f"the files of {cases} cases are in {root}")


def gb(nbytes: float) -> str:
    """Returns bytes in GB, 10^9 bytes, as a reader has them."""
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.1f} MB"
