"""Results of stock eva runs, to stand next to ours as references: never ranked, each with its protocol in words.

eva's `results.json` says neither model nor data. Both are in the config of the session next to it: in
`run_0/config.yaml` of the callback `ConfigurationLogger`, which has everything, else in eva's own copy `config.yaml`.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tapct.errors import RecordError

RESULTS_FILE = "results.json"
CONFIG_FILES = ("run_0/config.yaml", "config.yaml")

NOT_RANKED = (
    "Numbers that eva's own modules reported, read from their results.json: for reference, never ranked. They are of "
    "other protocols than ours, and say nothing of single cases, so that nothing pairs them with our numbers."
)

TASKS: Mapping[str, str] = {
    "BTCV": "btcv",
    "FLARE22": "flare22",
    "WORD": "word",
    "CC_CCII": "cc_ccii",
    "LiTS17": "lits17",
    "KiTS23": "kits23",
    "MSDTask7Pancreas": "msd_pancreas",
    "LUNA25": "luna25",
}
"""Our task with the scans of each of eva's data sets, by the name of its class."""

ABSENT_CLASSES = (
    "what a class absent from mask and prediction counts, the torchmetrics that was installed decided: 1 in 1.6, 0 in "
    "1.7, left out since 1.8"
)

_TOLERANCE = 1e-6


class _Statistics(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mean: float
    stdev: float
    values: list[float]


class _Stages(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    val: list[dict[str, _Statistics]]
    test: list[dict[str, _Statistics]]


class _Results(BaseModel):
    """`results.json` as eva's recorder writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metrics: _Stages


@dataclass(frozen=True, kw_only=True)
class EvaNumber:
    """One metric of a stock run of eva's.

    Attributes:
        source: The file, as it is shown.
        model: The encoder or backbone, and what stands on it.
        data: eva's class of the data set, or ours.
        task: Our task with these scans, if there is one.
        split: Which of eva's lists: val or test.
        metric: eva's name of the metric, without the split in front.
        mean: Over the runs; None where a run's value is not finite.
        stdev: Standard deviation over the runs (n - 1); None of one run, and without a mean.
        runs: Number of runs.
        protocol: How the number was made, a sentence each.
    """

    source: str
    model: str
    data: str
    task: str | None
    split: str
    metric: str
    mean: float | None
    stdev: float | None
    runs: int
    protocol: tuple[str, ...]


def read_all(paths: Sequence[Path]) -> tuple[EvaNumber, ...]:
    """Returns the numbers of results files, and of those in folders, as they come.

    Raises:
        RecordError: If there is none, one is not as eva writes it, or what it is of cannot be told.
    """
    found: dict[Path, None] = {}
    for path in paths:
        files = sorted(path.rglob(RESULTS_FILE)) if path.is_dir() else [path]
        if not files:
            raise RecordError(f"there is no {RESULTS_FILE} of eva's in {path}")
        found |= dict.fromkeys(file.resolve() for file in files)
    return tuple(number for file in found for number in read(file))


def read(path: Path) -> list[EvaNumber]:
    """Returns the numbers of a results file but for losses, those of the reported list first.

    Raises:
        RecordError: If it is not as eva writes it, or what it is of cannot be told.
    """
    results, config = _results(path), _config(path)
    of = _Session(path, config)
    numbers = []
    for split, of_split in (("test", results.metrics.test), ("val", results.metrics.val)):
        for index, of_dataset in enumerate(of_split):
            for name, found in of_dataset.items():
                metric = name.removeprefix(f"{split}/").removesuffix(_numbered(index))
                if not name.startswith(f"{split}/"):
                    raise RecordError(f"{path}: metrics.{split}[{index}]: {name} does not begin with {split}/")
                _check(found, f"{path}: metrics.{split}[{index}].{name}")
                if "loss" not in metric.lower():
                    numbers.append(of.number(split, index, metric, found))
    if not numbers:
        raise RecordError(f"{path} has no metric but losses")
    return numbers


def as_rows(numbers: Sequence[EvaNumber]) -> list[dict[str, Any]]:
    """Returns numbers as tables have them."""
    return [asdict(one) | {"task": one.task or "", "protocol": "; ".join(one.protocol)} for one in numbers]


class _Session:
    """What the config of a session says of its numbers."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.trainer, self.model = _arguments(config, "trainer"), _arguments(config, "model")
        self.data = _arguments(config, "data")
        for key, section in (("trainer", self.trainer), ("model", self.model), ("data", self.data)):
            if not section:
                raise RecordError(f"{path}: the config next to it has no {key}.init_args: what it is of cannot be told")
        self.metrics = dict(_metrics(self.model.get("metrics")))

    def number(self, split: str, index: int, metric: str, found: _Statistics) -> EvaNumber:
        finite = all(map(math.isfinite, found.values))
        data = self._data(split, index)
        return EvaNumber(
            source=f"{self.path.parent.name}/{self.path.name}",
            model=self._model(),
            data=data,
            task=TASKS.get(data),
            split=split,
            metric=metric,
            mean=found.mean if finite else None,
            stdev=found.stdev if finite and len(found.values) > 1 else None,
            runs=len(found.values),
            protocol=tuple(self._protocol(split, index, metric, len(found.values))),
        )

    def _model(self) -> str:
        encoder = self.model.get("encoder") or self.model.get("backbone")
        head = self.model.get("decoder") or self.model.get("head")
        given = _arguments({"": encoder}, "")
        name = given.get("model_name") or given.get("encoder") or given.get("path") or _class(encoder)
        if encoder is None:  # offline: embeddings were written before
            name = "stored embeddings (the config does not name their encoder)"
        return f"{name}, {_class(head)}" if head else f"{name}"

    def _dataset(self, split: str, index: int) -> Mapping[str, Any]:
        of_all = self.data.get("datasets")
        listed = of_all.get(split) if isinstance(of_all, Mapping) else None
        dataset = dict(enumerate(listed if isinstance(listed, list) else [listed])).get(index)
        if isinstance(dataset, Mapping):
            return dataset
        raise RecordError(
            f"{self.path}: it has numbers of metrics.{split}[{index}], and the config next to it has no such data set "
            f"(data.init_args.datasets.{split})"
        )

    def _data(self, split: str, index: int) -> str:
        return _class(self._dataset(split, index))

    def _protocol(self, split: str, index: int, metric: str, runs: int) -> Iterator[str]:
        """Yields how a number was made."""
        yield f"eva's {split} list"
        checkpoint = self.trainer.get("checkpoint_type", "best")
        monitors = [monitor for monitor in map(_monitor, self.trainer.get("callbacks") or []) if monitor]
        if checkpoint == "best" and any(_is_of(monitor, split, index) for monitor in monitors):
            yield f"the checkpoint was chosen on the same list ({', '.join(monitors)})"
        else:
            yield f"checkpoint: {checkpoint}" + (f" by {', '.join(monitors)}" if monitors else "")
        yield f"{self._length()}, {runs} run{'s' if runs > 1 else ''}"
        if runs > 1 and "decoder" in self.model:
            yield "all runs start from one decoder"
        if spacing := [s for s in map(_spacing, _transforms(self._dataset(split, index))) if s]:
            yield f"scored on voxels of {spacing[0]} mm, the grid of its transforms"
        else:
            yield "scored on the grid that its transforms give"
        if inferer := self.model.get("inferer"):
            given = _arguments({"": inferer}, "")
            yield f"{_class(inferer)}, window {given.get('roi_size')}, overlap {given.get('overlap')}"
        yield self._of_metric(metric)

    def _length(self) -> str:
        """Returns how long a run is; -1, as Lightning has it, is no limit."""
        limits = [(self.trainer.get(f"max_{unit}"), unit) for unit in ("steps", "epochs")]
        said = [f"{limit} {unit}" for limit, unit in limits if limit not in (None, -1)]
        return " or ".join(said) or "steps not said"

    def _of_metric(self, metric: str) -> str:
        """Returns what a metric is; of one that is not known, that."""
        known = self.metrics.get(metric)
        if known is None:
            return f"{metric}: eva's name, of which the config says no more"
        path, given = known
        background = "without background" if given.get("include_background") is False else "with background"
        if path == "torchmetrics.segmentation.DiceScore" and given.get("average") == "macro":
            return f"Dice: mean over volumes of the mean over classes, {background}; {ABSENT_CLASSES}"
        if path == "torchmetrics.segmentation.DiceScore":
            return f"Dice ({given.get('average', 'micro')}), {background}; {ABSENT_CLASSES}"
        settings = ", ".join(f"{key} {value}" for key, value in given.items() if not isinstance(value, dict | list))
        return f"{metric}: {path}" + (f" ({settings})" if settings else "")


# -- Files ---------------------------------------------------------------------------------------------


def _results(path: Path) -> _Results:
    try:
        return _Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"])) or "the file"
        raise RecordError(f"{path} is not a results.json of eva's: {key}: {fault['msg']}") from error


def _check(found: _Statistics, where: str) -> None:
    """Refuses statistics that are not those of their values."""
    values = found.values
    if not values:
        raise RecordError(f"{where} has no values")
    if not all(map(math.isfinite, values)):
        return
    stdev = statistics.stdev(values) if len(values) > 1 else 0.0
    for name, said, counted in (("mean", found.mean, statistics.mean(values)), ("stdev", found.stdev, stdev)):
        if not math.isclose(said, counted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise RecordError(f"{where}: the {name} is {said:g}, and that of its values {counted:g}: it was changed")


def _config(path: Path) -> Mapping[str, Any]:
    file = next((path.parent / name for name in CONFIG_FILES if (path.parent / name).is_file()), None)
    if file is None:
        raise RecordError(
            f"{path} says neither model nor data, and there is no {' nor '.join(CONFIG_FILES)} next to it. Run eva "
            "with `--config FILE` (not --config=FILE) or the callback eva.callbacks.ConfigurationLogger, and keep its "
            "folder together"
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecordError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{file} is not a config of eva's")
    return content


def _arguments(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = config.get(key)
    given = section.get("init_args") if isinstance(section, Mapping) else None
    return given if isinstance(given, Mapping) else {}


def _class(section: Any) -> str:
    """Returns the last part of a class path; "not said" where there is none."""
    path = section.get("class_path") if isinstance(section, Mapping) else section
    return path.rpartition(".")[2] if isinstance(path, str) else "not said"


def _numbered(index: int) -> str:
    """Returns what Lightning puts behind the names of metrics where a split has several data sets."""
    return f"/dataloader_idx_{index}"


def _is_of(monitor: str, split: str, index: int) -> bool:
    """Returns whether a metric is of a data set: without an index, of whichever there is."""
    return monitor.startswith(f"{split}/") and ("/dataloader_idx_" not in monitor or monitor.endswith(_numbered(index)))


def _monitor(callback: Any) -> str | None:
    return _arguments({"": callback}, "").get("monitor") if _class(callback) == "ModelCheckpoint" else None


def _transforms(dataset: Mapping[str, Any]) -> list[Any]:
    found = _arguments({"": dataset}, "").get("transforms")
    inner = _arguments({"": found}, "").get("transforms")
    return inner if isinstance(inner, list) else [found]


def _spacing(transform: Any) -> str | None:
    pixdim = _arguments({"": transform}, "").get("pixdim") if _class(transform) == "Spacing" else None
    return None if pixdim is None else " x ".join(map(str, pixdim if isinstance(pixdim, list) else [pixdim]))


def _metrics(section: Any) -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
    """Yields the metrics of a config by the name that eva gives them."""
    groups = section.values() if isinstance(section, Mapping) else ()
    for metric in (one for group in groups if isinstance(group, list) for one in group):
        if isinstance(metric, Mapping) and isinstance(metric.get("class_path"), str):
            yield _class(metric), (metric["class_path"], _arguments({"": metric}, ""))
