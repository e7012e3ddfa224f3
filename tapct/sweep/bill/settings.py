"""What the configs of an experiment say of what it reads, encodes, stores and trains, as values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapct import kinds
from tapct.encoders import Encoder, load_encoder
from tapct.encoders.options import RANDOM, parse_options, spell_options, with_precision
from tapct.sweep.experiment import Experiment, SweepError

MODEL, DATA, TRAINER = "model.init_args.", "data.init_args.", "trainer.init_args."

DEFAULTS: dict[str, Any] = {
    **{"weights": None, "precision": "auto", "encoder_options": None, "window_overlap": 0.0, "fit_windows": False},
    **{"learning_rates": None, "runs_together": True, "adaptor": "abmil", "bag": "auto"},
    **{"features": "use", "feature_folder": None, "feature_dtype": "bf16", "feature_budget_gb": None},
}
"""What the probes take where a config leaves it out; a test holds them to the probes' own signatures."""

DATA_DEFAULTS: dict[str, Any] = {
    **{"data_root": None, "split_file": None, "options": None, "batch_size": 1},
    **{"train_fraction": 1.0, "train_draw": 0, "perturbation": None, "pack": None},
}
"""Likewise, of `tapct.tasks.TaskData`."""


@dataclass(frozen=True)
class Encoding:
    """What features depend on next to the scans.

    Attributes:
        encoder: Name of the encoder.
        options: Its options, as `tapct.encoders.options` spells them.
        weights: None for the published ones, a path, or "random".
        precision: "auto", "fp32" or "bf16".
        overlap: Share of overlap between windows.
        fit_windows: Whether windows shrink to small scans.
        dtype: What features are stored as.
    """

    encoder: str
    options: str
    weights: str | None
    precision: str
    overlap: float
    fit_windows: bool
    dtype: str

    def load(self, weights: str | None, *, deferred: bool = True) -> Encoder:
        """Returns the encoder with these weights, as `load_encoder` takes them.

        Raises:
            TapctError: If there is no such encoder, or its weights are named and not there.
        """
        options = {**parse_options(self.encoder, self.options), "precision": self.precision}
        return load_encoder(self.encoder, weights, deferred=deferred, **options)


@dataclass(frozen=True)
class Data:
    """What scans are read.

    Attributes:
        task: Name of the task.
        root: Folder of the data sets; None where it is not set.
        split_file: Another split than the task's own.
        options: Of the task's dataset, as JSON.
        fraction: Share of the training patients.
        draw: Number of the draw.
        perturbation: Of the reported scans.
        pack: A feature pack in the place of the scans.
    """

    task: str
    root: str | None
    split_file: str | None
    options: str
    fraction: float
    draw: int
    perturbation: str | None
    pack: str | None


@dataclass(frozen=True)
class Wanted:
    """What an experiment wants.

    Attributes:
        encoding: What is encoded.
        data: From what.
        kind: The kind of task, which says what stands on the features.
        adaptor: Of heads that do not stand on the map.
        bag: Of its attention.
        heads: Heads that train side by side.
        batch_size: Cases that they see at once.
        mode: What is done with stored features; see `tapct.features.CacheMode`.
        folder: Where they are stored; None is the usual folder.
        budget_gb: What the folder may take, in GiB; None is no limit.
    """

    encoding: Encoding
    data: Data
    kind: str
    adaptor: str
    bag: str
    heads: int
    batch_size: int
    mode: str
    folder: str | None
    budget_gb: float | None


def wanted(experiment: Experiment) -> Wanted:
    """Returns what an experiment wants.

    Raises:
        SweepError: If its config has something else than a probe of ours, or an encoder by class_path: what such a one
            needs is not known.
        EncoderError: If the encoder or an option is unknown.
    """
    settings = experiment.settings()
    kind = kinds.of_probe(settings.get("model.class_path", ""))
    if kind is None:
        raise SweepError(f"its config has the model {settings.get('model.class_path')}, whose needs are not known")
    if MODEL + "encoder" not in settings:
        raise SweepError(
            "its config gives the encoder by class_path: name it by a variable, ENCODER, to have it counted"
        )
    model, data = _Values(settings, MODEL, DEFAULTS), _Values(settings, DATA, DATA_DEFAULTS)
    trainer = _Values(settings, TRAINER, {"n_runs": 1})
    name = settings[MODEL + "encoder"]
    options = parse_options(name, model["encoder_options"] or model.mapping("encoder_options"))
    encoding = Encoding(
        encoder=name,
        options=spell_options({key: value for key, value in options.items() if key != "precision"}),
        weights=model["weights"],
        precision=with_precision(options, model["precision"])["precision"],
        overlap=float(model["window_overlap"]),
        fit_windows=bool(model["fit_windows"]),
        dtype=load_encoder(name, RANDOM, deferred=True).feature_dtype or model["feature_dtype"],
    )
    rates = model["learning_rates"] or [None]
    return Wanted(
        encoding=encoding,
        data=_data(experiment, settings, data),
        kind=kind.name,
        adaptor=model["adaptor"] if MODEL + "adaptor" in settings else kind.usual_head or "".join(kind.heads[:1]),
        bag=model["bag"],
        heads=len(rates) * (int(trainer["n_runs"]) if model["runs_together"] else 1),
        batch_size=int(data["batch_size"]),
        mode=model["features"],
        folder=model["feature_folder"],
        budget_gb=model["feature_budget_gb"],
    )


def _data(experiment: Experiment, settings: Mapping[str, str], data: "_Values") -> Data:
    # The settings leave the data root out, which decides no result.
    root = data["data_root"] or experiment.variables.get("DATA_ROOT")
    return Data(
        task=settings.get(DATA + "task", experiment.task),
        root=str(Path(root).expanduser()) if root else None,
        split_file=data["split_file"],
        options=json.dumps(data.mapping("options"), sort_keys=True),
        fraction=float(data["train_fraction"]),
        draw=int(data["train_draw"]),
        perturbation=data["perturbation"],
        pack=data["pack"],
    )


class _Values:
    """The settings under a path of the config, as values, with what is left out."""

    def __init__(self, settings: Mapping[str, str], path: str, defaults: Mapping[str, Any]) -> None:
        self._settings, self._path, self._defaults = settings, path, defaults

    def __getitem__(self, name: str) -> Any:
        text = self._settings.get(self._path + name)
        return self._defaults[name] if text is None else _value(text)

    def mapping(self, name: str) -> dict[str, Any]:
        """Returns a mapping, which settings hold key by key."""
        below = f"{self._path}{name}."
        return {key.removeprefix(below): _value(text) for key, text in self._settings.items() if key.startswith(below)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
