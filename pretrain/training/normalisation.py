"""The run's clipping and normalisation: the paper's, one's own, or those of the store."""

import logging

import yaml

from pretrain.config import Config, DataConfig
from pretrain.data.intensities import is_far, read_fingerprint
from pretrain.data.locations import open_store
from pretrain.errors import PretrainError
from pretrain.settings import parse_config
from pretrain.training.checkpoint import checkpoints_in

_KEYS = ("clip_hu", "mean_hu", "std_hu")

log = logging.getLogger(__name__)


def with_intensities(config: Config) -> Config:
    """Returns the settings with the numbers that `data.intensities` stands for.

    A run that has begun keeps its numbers, also where its store has grown since.

    Raises:
        PretrainError: The store has no fingerprint.
    """
    if config.data.intensities == "given":
        return config
    begun = _begun(config)
    if begun is not None:
        return _with(config, {key: getattr(begun, key) for key in _KEYS})
    store = open_store(config.data)
    found = read_fingerprint(store)
    low = max(float(found.percentile_00_5_hu), store.clip_hu[0])
    high = min(float(found.percentile_99_5_hu), store.clip_hu[1])
    log.info(
        "data.intensities=store: clipped to %g and %g HU (percentiles %d and %d, inside the store's %g to %g), "
        "mean %.4f, standard deviation %.4f HU",
        *(low, high, found.percentile_00_5_hu, found.percentile_99_5_hu, *store.clip_hu, found.mean_hu, found.std_hu),
    )
    return _with(config, {"clip_hu": (low, high), "mean_hu": found.mean_hu, "std_hu": found.std_hu})


def far_from_store(config: Config) -> str | None:
    """Says that a store's intensities are far from the run's normalisation, or not known; None where all is well."""
    try:
        found = read_fingerprint(open_store(config.data))
    except PretrainError as error:
        return f"the store's intensities are not compared with the run's normalisation: {error}"
    if not is_far(found, config.data.mean_hu, config.data.std_hu):
        return None
    return (
        f"the foreground of {config.data.store} has mean {found.mean_hu:.1f} and standard deviation {found.std_hu:.1f} "
        f"HU, and is normalised by {config.data.mean_hu:.1f} and {config.data.std_hu:.1f}: the network sees a mean of "
        f"{(found.mean_hu - config.data.mean_hu) / config.data.std_hu:.2f} and a standard deviation of "
        f"{found.std_hu / config.data.std_hu:.2f} instead of 0 and 1. --data.intensities=store takes the store's own"
    )


def _with(config: Config, numbers: dict[str, object]) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=numbers)})


def _begun(config: Config) -> DataConfig | None:
    """The data section of a run that has checkpoints, and took its store's intensities."""
    path = config.run.output / "config.yaml"
    if not checkpoints_in(config.run.output / "checkpoints") or not path.exists():
        return None
    begun = parse_config(yaml.safe_load(path.read_text(encoding="utf-8")), str(path)).data
    return begun if begun.intensities == "store" else None
