"""Which experiments still need stored features, and the removal of those that none does.

A launcher leaves a file in the feature folder that says which experiments it runs, for as long as it runs, or for Slurm
until they are done. An experiment lists the features that it used in a file of its own before it has its record;
whoever comes last of the experiments of the same features removes what is listed. It may be killed anywhere: the next
one, or the same command again, continues.
"""

import contextlib
import hashlib
import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapct._utils import locks
from tapct._utils.files import features_folder, write_atomically
from tapct.errors import TapctError
from tapct.names import Keep
from tapct.sweep.experiment import WEIGHTS_CONTENT, Experiment, SweepError
from tapct.sweep.state import recorded_state

FEATURES_FILE = "features.json"
"""In an experiment's folder: the features that it used, as long as they are to be removed."""

_FOLDER = "launches"
_OF_MODEL = ("encoder", "weights", "precision", "encoder_options", "window_overlap", "fit_windows", "feature_dtype")
_OF_DATA = ("task", "options", "accept_orientation")
_TASK = "data.init_args.task"


@dataclass(frozen=True)
class Used:
    """What decides which features an experiment uses.

    Attributes:
        folder: The feature folder.
        features: A hash of the settings of its features: experiments that differ in it share none.
    """

    folder: Path
    features: str

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Used":
        """Returns what an experiment of these settings uses. Whether it sees all cases is not asked: sharing counts.

        Tasks of one release share the features of its scans, whatever their options.
        """
        from tapct.tasks.registry import shared_scans  # torch

        release = shared_scans(settings.get(_TASK, ""))
        of_data = _OF_DATA if release is None else ()
        roots = (*(f"model.init_args.{name}" for name in _OF_MODEL), *(f"data.init_args.{name}" for name in of_data))
        of = {k: v for k, v in settings.items() if k == WEIGHTS_CONTENT or any(_is_at(k, root) for root in roots)}
        of |= {} if release is None else {"release": release}
        folder = settings.get("model.init_args.feature_folder", "null")
        place = features_folder() if folder == "null" else Path(folder).expanduser()
        return cls(place.absolute(), hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest())


@contextlib.contextmanager
def announced(experiments: Sequence[Experiment], keep: Keep, *, outlives: bool) -> Iterator[None]:
    """Says in the feature folders which experiments are run, so that no other launcher removes what they need.

    Args:
        experiments: All experiments of a launch, done ones too.
        keep: What of their features stays.
        outlives: Whether the experiments are run without this process, as Slurm's jobs are: then the file stays until
            all of them are done.

    Raises:
        SweepError: If a folder cannot be written, or its file system refuses locks, and features are to be removed.
    """
    of_folder: dict[Path, list[dict[str, Any]]] = {}
    for experiment in experiments:
        used = Used.of(experiment.settings())
        of_folder.setdefault(used.folder, []).append({"features": used.features, "experiment": experiment.to_dict()})
    with contextlib.ExitStack() as stack:
        for folder, said in of_folder.items():
            path = folder / _FOLDER / f"{uuid.uuid4().hex}.json"
            try:
                for _ in _living(folder):
                    pass  # those of launchers that are gone are swept out
                file = stack.enter_context(locks.hold(path, 0))
                assert file is not None  # nobody else knows its name
                if not outlives:
                    stack.callback(path.unlink, missing_ok=True)
                file.write(json.dumps({"outlives": outlives, "experiments": said}).encode())
            except OSError as error:
                if keep != "all":
                    raise SweepError(
                        f"features cannot be removed from {folder}: {error}. Leave --keep-features out, or name "
                        "another folder (TAPCT_FEATURES)"
                    ) from error
        yield


def note_features(experiment: Experiment, keep: Keep) -> None:
    """Lists the features that this process used for an experiment, so that they can be removed when none needs them."""
    from tapct.features import leases  # torch, which a worker has imported by now

    stores = {str(folder): keys for folder, keys in leases.taken().items()}
    if keep != "all" and stores:
        write_atomically(experiment.folder / FEATURES_FILE, json.dumps(stores))


def remove_unneeded(experiment: Experiment, keep: Keep) -> str | None:
    """Removes the listed features of a done experiment, and of the others of the same features, unless one is not done.

    Args:
        experiment: The experiment.
        keep: What stays of its features.

    Returns:
        What was done, in words; None where there was nothing to do.

    Raises:
        TapctError: If something cannot be removed.
    """
    if keep == "all" or not (experiment.folder / FEATURES_FILE).exists():
        return None
    used = Used.of(experiment.settings())
    sharing = {other.folder: other for other in (*_announced(used), experiment)}
    waiting = [other.name for other in sharing.values() if not _is_done(other)]
    if waiting:
        return f"features are kept for {', '.join(waiting[:3])}{' ...' if len(waiting) > 3 else ''}"
    words = [_remove(other.folder / FEATURES_FILE, keep) for other in sharing.values()]
    return "; ".join(filter(None, words)) or None


def remove_left(experiments: Sequence[Experiment], keep: Keep) -> None:
    """Removes what workers left because another process needed it, or were killed before they had removed."""
    for experiment in experiments:
        try:
            words = remove_unneeded(experiment, keep)
        except (TapctError, OSError) as error:
            words = f"features are not removed: {error}"
        if words is not None:
            print(f"{experiment.name}: {words}", file=sys.stderr)


def _remove(path: Path, keep: Keep) -> str | None:
    from tapct.features.keeping import release
    from tapct.features.store import TensorStore

    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # removed already
        return None
    found = [release(TensorStore(folder), keys, keep) for folder, keys in listed.items()]
    in_use = sum(len(one.in_use) for one in found)
    if not in_use:
        path.unlink(missing_ok=True)
    if not (in_use or any(one.entries for one in found)):
        return None
    gib, entries = sum(one.nbytes for one in found) / 2**30, sum(one.entries for one in found)
    stays = f"; those of {in_use} cases stay for a process that runs" if in_use else ""
    return f"removed {entries} entries of features, {gib:.3f} GiB{stays}"


def _announced(used: Used) -> Iterator[Experiment]:
    """Yields the experiments of the launchers that use the same features."""
    for said in _living(used.folder):
        yield from (Experiment.from_dict(one["experiment"]) for one in said if one["features"] == used.features)


def _living(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Yields what launchers that run, or whose jobs may, have announced; files of others are removed."""
    for path in (folder / _FOLDER).glob("*.json"):
        try:
            with path.open("rb", buffering=0) as file:
                is_held = locks.is_held(file, path)
                said = json.loads(file.read() or b"null")
        except FileNotFoundError:  # its launcher has ended
            continue
        except ValueError:  # being written at this moment, or was as its launcher was killed
            said = None
        if not (is_held or _is_awaited(said)):
            path.unlink(missing_ok=True)
        elif said is not None:
            yield said["experiments"]


def _is_awaited(said: dict[str, Any] | None) -> bool:
    """Returns whether experiments of a launcher that is gone may still be run, by Slurm's jobs."""
    return (
        said is not None
        and said["outlives"]
        and not all(_is_done(Experiment.from_dict(c["experiment"])) for c in said["experiments"])
    )


def _is_done(experiment: Experiment) -> bool:
    try:
        recorded = recorded_state(experiment.folder, experiment.settings(), whole=False)
    except TapctError:  # a config of another launcher that is no longer there: nobody can run it
        return True
    return recorded is not None and recorded["status"] == "done"


def _is_at(key: str, root: str) -> bool:
    return key == root or key.startswith((f"{root}.", f"{root}["))
