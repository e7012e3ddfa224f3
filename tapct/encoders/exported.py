"""Encoders that `python -m pretrain.export` wrote: a folder that says everything about itself.

`card.json` is the `EncoderCard`, `config.json` has the network's sizes and the intensities that it was trained on, and
`model.safetensors` its weights, under the names of `tapct.vit`.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tapct import vit
from tapct.encoders.base import Encoder, Features
from tapct.encoders.card import EncoderCard, InPlaneFilter, Weights
from tapct.encoders.input_sheet import Declared, HuWindow, InputSheet
from tapct.encoders.places import CARD_FILE, EncoderFolder, exported
from tapct.errors import EncoderError, WeightsError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Intensities:
    """How Hounsfield units reach a network: clipped, then normalised.

    Attributes:
        clip_hu: Smallest and largest value.
        mean_hu: What is subtracted after clipping.
        std_hu: What divides last.
    """

    clip_hu: tuple[float, float]
    mean_hu: float
    std_hu: float

    def normalise(self, hu: torch.Tensor) -> torch.Tensor:
        """Returns the values that the network was trained on."""
        return (hu.clamp(*self.clip_hu) - self.mean_hu) / self.std_hu


class Exported(Encoder):
    """A DINOv2 vision transformer on CT, described by the folder that it lies in."""

    def __init__(self, folder: str | Path, weights: str | Path | None = None, **options: Any) -> None:
        """Builds the network that a folder describes, and loads its weights.

        Args:
            folder: What `python -m pretrain.export` wrote; as NAME=FOLDER, under a name of one's own.
            weights: None for the file in the folder, a path to another of the same network, or "random".
            options: As for every encoder.

        Raises:
            EncoderError: If the folder's descriptions are missing or not understood.
            WeightsError: If the weights do not fit.
        """
        place = exported(str(folder)) or EncoderFolder(Path(folder), None)
        self.card = read_card(place)
        config = _config(place.folder)
        self.architecture: dict[str, Any] = config["architecture"]
        self.intensities = asdict(_intensities(config, place.folder))
        super().__init__(place.folder / WEIGHTS_FILE if weights is None else weights, **options)

    def build(self) -> nn.Module:
        """Returns the vision transformer of the folder's sizes."""
        try:
            return vit.VisionTransformer(**self.architecture)
        except (TypeError, ValueError) as error:
            raise EncoderError(f"{CONFIG_FILE} of {self.card.name}: no such vision transformer ({error})") from error

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        used = Intensities(**self.intensities)
        return InputSheet(
            orientation="authors: arrays of pretrain, (z, y, x)",
            grid="authors: card.json of the folder",
            hu_window=HuWindow(*used.clip_hu, "authors: config.json of the folder"),
            normalisation=Declared(
                f"after clipping, z-score of mean {used.mean_hu} and deviation {used.std_hu} HU",
                "authors: config.json of the folder",
            ),
            padding="authors: card.json of the folder",
            window="authors: card.json of the folder",
            patches="authors: config.json of the folder, patches",
            embedding=Declared("after the final norm", "authors: config.json of the folder"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        return encode(self.network, Intensities(**self.intensities).normalise(windows_hu))


def encode(network: nn.Module, x: torch.Tensor) -> Features:
    """Returns the tokens of a `tapct.vit` network as features.

    Args:
        network: A `VisionTransformer`, 2D or 3D.
        x: (B, 1, D, H, W) normalised windows; D = 1 for a 2D one.
    """
    two_d = len(network.patch_size) == 2  # type: ignore[arg-type]
    tokens = network(x.squeeze(2) if two_d else x)
    return Features(tokens.map.unsqueeze(2) if two_d else tokens.map, tokens.cls, tokens.cls)


def check_trained_like(weights: Path, used: Intensities, in_plane_filter: InPlaneFilter, name: str) -> None:
    """Refuses exported weights in an encoder that would feed them other images than they were trained on.

    Args:
        weights: The weights file; only one with a `card.json` next to it is known to be exported.
        used: How the encoder scales HU.
        in_plane_filter: How it resizes slices.
        name: The encoder's name.

    Raises:
        WeightsError: If either differs.
    """
    folder = weights.parent
    if not (folder / CARD_FILE).is_file():
        return
    instead = f"Load it by its folder, which carries its own: ENCODER={folder}, ENCODER_WEIGHTS=null"
    trained = _intensities(_config(folder), folder)
    if trained != used:
        raise WeightsError(f"{weights} was trained on {trained}, but {name} gives its network {used}. {instead}")
    # Runs from before data.antialias took their crops without averaging, and their cards name no filter.
    cut = _read(folder / CARD_FILE).get("in_plane_filter", "linear")
    if cut != in_plane_filter:
        raise WeightsError(
            f"{weights} was trained on crops with in_plane_filter={cut}, but {name} resizes with {in_plane_filter}. "
            f"{instead}; or use {name}+in_plane_filter={cut}"
        )


def read_card(place: EncoderFolder) -> EncoderCard:
    """Reads the card of an exported encoder; where it was given a name, that is the card's.

    Raises:
        EncoderError: If there is none, or it is no card.
    """
    file = place.folder / CARD_FILE
    fields = _read(file)
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    try:
        card = EncoderCard(**values | {"weights": Weights(**fields.get("weights", {}))})
    except TypeError as error:  # a field that is missing or unknown
        raise EncoderError(f"{file} is not an encoder card: {error}") from error
    return card if place.name is None else replace(card, name=place.name, display_name=place.name)


def _config(folder: Path) -> dict[str, Any]:
    config = _read(folder / CONFIG_FILE)
    if not isinstance(config.get("architecture"), dict) or not isinstance(config.get("intensities"), dict):
        raise EncoderError(f"{folder / CONFIG_FILE} lacks its architecture or intensities; export the run again")
    return config


def _intensities(config: dict[str, Any], folder: Path) -> Intensities:
    try:
        low, high = config["intensities"]["clip_hu"]
        return Intensities(**config["intensities"] | {"clip_hu": (low, high)})
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{folder / CONFIG_FILE}: intensities must be clip_hu, mean_hu, std_hu ({error})") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise EncoderError(f"there is no {path}; `python -m pretrain.export RUN -o {path.parent}` writes it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EncoderError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path} must hold an object")
    return content
