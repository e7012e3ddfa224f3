"""The encoder: a sealed function from Hounsfield units to features."""

import abc
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from tapct._utils import renamed
from tapct.encoders import options as options_lib
from tapct.encoders import promises
from tapct.encoders import weights as weights_lib
from tapct.encoders.axes import from_axes, to_axes, turn_of
from tapct.encoders.card import EncoderCard
from tapct.encoders.download import fetch
from tapct.encoders.hounsfield import not_hu
from tapct.encoders.identity import identity
from tapct.encoders.input_sheet import InputSheet
from tapct.encoders.mistake_names import MistakeName
from tapct.encoders.mistakes import Way, require_it_can_be_made, way_of
from tapct.encoders.outputs import Features
from tapct.encoders.statistics import problem_with
from tapct.errors import EncoderError, WeightsError

Precision = Literal["auto", "fp32", "bf16"]


class _NotesArguments(abc.ABCMeta):
    """Keeps the arguments of an encoder's constructor: a class may keep an option by another name, or not at all."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        encoder = super().__call__(*args, **kwargs)
        object.__setattr__(encoder, "_given", options_lib.arguments_of(encoder, args, kwargs))
        require_it_can_be_made(encoder)
        return encoder


RENAMED = {
    "cell_centre": "patch_centre",
    "least_cells": "least_patches",
    "accepts": "supports",
    "wants": "input_requirement",
    "materialise": "load",
}
"""What adapters set, by its old name."""


class Encoder(nn.Module, metaclass=_NotesArguments):
    """Base class of every encoder: a card, a network, and the way from HU to features.

    A new encoder sets `card` and implements `build` and `_encode`. `axes` says how its network takes the
    array, and `_convert` renames the keys of its published checkpoint. This class owns the checks of
    the input, orientation, precision, loading and freezing.

    An encoder is sealed: always in eval mode, without gradients, and a copy of it is itself, since nothing
    can change it (eva copies the model for every run).
    """

    card: EncoderCard
    """The card; a class sets its own, an instance holds it with its options applied."""

    axes: str = "SPL"
    """Directions in which the axes of the network's array grow: "SPL" is (z, y, x) as everything here has it,
    "RAS" is the (x, y, z) of MONAI's `Orientationd("RAS")`. Windows are turned so, the map back; may be an option."""

    patch_centre: ClassVar[tuple[float, float, float] | None] = None
    """Voxel of a window, along the network's own axes, on which its first feature is centred. None is the
    middle of the stride, as for patches and pooling. A convolution of kernel 3, stride 2 and padding 1 is
    centred on the first voxel of its stride instead, and so is a chain of them: (0, 0, 0). Mistaken by half a
    stride, every prediction is shifted (by 23 mm at stride 32 and 1.5 mm), and no 1x1x1 probe can undo it."""

    least_patches: ClassVar[int] = 1
    """Features that a window must have. Instance norm has nothing to normalise over in a map of one."""

    seed: ClassVar[int] = 0
    """Seed of the weights "random"."""

    feature_dtype: ClassVar[str | None] = None
    """What its features are stored as, whatever a probe asks for; None leaves it to the probe."""

    authors: ClassVar[str | None] = None
    """What runs its authors' own code, `package.module:Class` of a `tapct.encoders.Authors`, for
    `tapct verify-encoder`. It decides no feature, and no setting is it."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuses the names that adapters set before they were called otherwise."""
        super().__init_subclass__(**keywords)
        renamed.refuse(cls, RENAMED, EncoderError)

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        precision: Precision = "auto",
        mistake: MistakeName | None = None,
        deferred: bool = False,
        **options: Any,
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: None for the published file, a path to a file of the published layout, or "random"
                for seeded random initialisation. Of an encoder without parameters, None and "random" are the same.
            precision: "bf16" or "fp32"; "auto" is bf16 autocast on a GPU and fp32 elsewhere.
            mistake: One that is made with its input on purpose, to see what it costs (see `mistakes`); None for none.
            deferred: Whether to wait with the network until the first windows come, and with a download until the file
                is asked for: with stored features no windows come, with a feature pack nothing asks for the file.
            options: The card's preprocessing settings to change, such as `in_plane_size=512`.

        Raises:
            EncoderError: If an option, the precision or the mistake is unknown, or the mistake cannot be made with it.
            WeightsError: If the weights cannot be had or do not fit.
        """
        super().__init__()
        self.mistake = mistake
        if precision not in ("auto", "fp32", "bf16"):
            raise EncoderError(f"precision must be 'auto', 'fp32' or 'bf16', not {precision!r}")
        self.card = self.card.with_options(**options)
        self.precision = precision
        if weights is None and not self.card.weights.needed:
            weights = weights_lib.NONE
        self._weights_source = None if weights is None else weights_lib.source_of(weights, self.card)
        self._deferred = deferred
        if not deferred:
            self.load()

    _given: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """What it was set to otherwise than its class is, by name: the card's, `precision`, its constructor's own."""
        return options_lib.set_options(self, self._given)

    @property
    def way(self) -> Way:
        """How a scan gets to its network: the right way, or its mistake's."""
        return way_of(self.mistake)

    @property
    def full_name(self) -> str:
        """What it is called in tables and on pictures: the card's name, and what was set."""
        return options_lib.full_name(self.card.display_name, self.options)

    @property
    def weights_source(self) -> str | Path:
        """Where its weights come from; published ones are downloaded when this is first asked.

        Raises:
            WeightsError: If they cannot be had.
        """
        if self._weights_source is None:
            self._weights_source = weights_lib.source_of(self.published_weights(), self.card)
        return self._weights_source

    @weights_source.setter
    def weights_source(self, source: str | Path) -> None:
        self._weights_source = source

    @property
    def awaits_weights(self) -> bool:
        """Whether its weights are the published ones, and nothing has asked for their file yet."""
        return self._weights_source is None

    @property
    def fetches_itself(self) -> bool:
        """Whether its class has a way of its own to its published weights."""
        return type(self).published_weights is not Encoder.published_weights

    @property
    def is_built(self) -> bool:
        """Whether the network is there; a deferred encoder has none before its first windows."""
        return "network" in self._modules

    def load(self) -> None:
        """Builds the network and loads its weights, if that has not been done.

        Raises:
            WeightsError: If the weights do not fit.
            EncoderError: If the card says that there are none, and there are.
        """
        if self.is_built:
            return
        before = self._attribute_names()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = self.build()
        if self._deferred:
            self._set_while_building = self._attribute_names() - before
        if self.weights_source == weights_lib.NONE and self.network.state_dict():
            del self.network
            raise EncoderError(f"{self.card.name} has parameters, but its card says weights=Weights(needed=False)")
        if self.weights_source not in (weights_lib.RANDOM, weights_lib.NONE):
            state = self._converted(weights_lib.read_state_dict(self.weights_source))
            weights_lib.load_strict(self.network, state, where=f"{self.card.name} from {self.weights_source}")
        self.requires_grad_(False)
        self.eval()

    _set_while_building: frozenset[str] = frozenset()

    @property
    def set_while_building(self) -> frozenset[str]:
        """Names that a deferred encoder got while its network was built, such as a buffer.

        They are not settings: before there were windows they were not there, and it is the same encoder.
        """
        return self._set_while_building

    def _attribute_names(self) -> frozenset[str]:
        return frozenset().union(vars(self), self._parameters, self._buffers, self._modules)

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """Returns the network, with its own initialisation."""

    @abc.abstractmethod
    def _encode(self, windows_hu: torch.Tensor, *args: Any, **kwargs: Any) -> Features:
        """Encodes checked windows, float32 HU (B, 1, ...) with the spatial axes as `axes` says.

        An encoder with `scan_statistics` has a second argument, `statistics`: each of them as (B, 1, 1, 1, 1). All
        others have `windows_hu` alone.
        """

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns what `_encode` must know of whole scans, such as mean and deviation; here nothing.

        Extraction asks for it once a scan, at the encoder's grid, before padding and tiling, and each of its windows
        gets the same. Windows that are given to the encoder alone are scans of their own.

        Args:
            scan_hu: (B, 1, D, H, W) float32 HU, in SPL order whatever `axes` says.

        Returns:
            By name (B,) float32; compute them in float64, as `tapct.encoders.mean_and_std` does.
        """
        return {}

    def scan_notes(self, statistics: dict[str, torch.Tensor]) -> tuple[str, ...]:
        """Returns what a user should know of how a scan with these statistics was described, a sentence each."""
        return ()

    def input_sheet(self) -> InputSheet:
        """Returns what `tapct describe` cannot take from the built encoder; here nothing, as it may be left out."""
        return InputSheet()

    def statistics_of(self, scan_hu: torch.Tensor, *, checked: bool = False) -> dict[str, torch.Tensor]:
        """Returns its `scan_statistics`, checked.

        Args:
            scan_hu: As there.
            checked: Whether the scan's values were checked already, as in `forward`: then these are not.

        Raises:
            EncoderError: If they are not what they must be.
        """
        with torch.no_grad(), torch.autocast(scan_hu.device.type, enabled=False):
            statistics = self.scan_statistics(scan_hu)
        if problem := problem_with(statistics, scan_hu.shape[0], checked=checked):
            raise EncoderError(f"{self.card.name}: scan_statistics gave {problem}")
        return statistics

    def published_weights(self) -> Path:
        """Returns the published file, downloading it if it is not in the cache."""
        return fetch(self.card)

    def _converted(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        try:
            return self._convert(state_dict)
        except (AttributeError, TypeError, LookupError, RuntimeError) as error:  # names, values, shapes of no weights
            raise WeightsError(
                f"{self.card.name} finds no weights in {self.weights_source} ({type(error).__name__}: {error}). It "
                f"holds {', '.join(list(state_dict)[:4])} ...: is it the checkpoint that the card names, and whole?"
            ) from error

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Returns the published checkpoint under the names of the network; the default changes nothing."""
        return state_dict

    def feature_centre(self) -> tuple[float, float, float]:
        """Returns the voxel within its stride on which a feature is centred, along (z, y, x) in SPL order."""
        stride = self.card.feature_stride
        centre = [(s - 1) / 2 for s in stride]
        if self.patch_centre is not None:
            order, flips = turn_of(self.axes)
            for i, (axis, voxel) in enumerate(zip(order, self.patch_centre, strict=True)):
                centre[axis] = stride[axis] - 1 - voxel if i in flips else voxel
        return centre[0], centre[1], centre[2]

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Returns whether the network can take windows of `size` (D, H, W): here, multiples of the stride."""
        stride = self.card.feature_stride
        whole = all(n > 0 and n % s == 0 for n, s in zip(size, stride, strict=True))
        return whole and math.prod(size) // math.prod(stride) >= self.least_patches

    def input_requirement(self) -> str:
        """Returns what `supports` asks of a window's size, for its error."""
        least = f", and at least {self.least_patches} features" if self.least_patches > 1 else ""
        return f"each size must be a multiple of its stride {self.card.feature_stride}{least}"

    def forward(
        self,
        windows_hu: torch.Tensor,
        *,
        checked: bool = False,
        statistics: dict[str, torch.Tensor] | None = None,
        mistake_made: bool = False,
    ) -> Features:
        """Encodes a batch of windows.

        Args:
            windows_hu: (B, 1, D, H, W) float32 HU, at the card's spacing, in SPL order; any size that is
                a multiple of the feature stride.
            checked: Whether the values were checked already, as extraction checks a whole scan: one window of it may
                hold anything (a fill of 0 and 1, say), and what it gives must not depend on those next to it.
            statistics: What `statistics_of` says of the scan of each window, (B,) each; None takes each window's own.
            mistake_made: Whether a mistake was made already, as extraction makes it with the whole scan.

        Returns:
            Their features, float32.

        Raises:
            EncoderError: If the input cannot be such windows, or the features are not what the card says.
        """
        self._check_shape(windows_hu)
        if not checked and (problem := not_hu(windows_hu)):
            raise EncoderError(f"{self.card.name}: {problem}")
        if self.mistake is not None and not mistake_made:
            return self.way.encoded(self, windows_hu, statistics)
        if not self.is_built:
            self.load()
            self.to(windows_hu.device)
        device = windows_hu.device.type
        more = self._statistics_argument(windows_hu, statistics, checked=checked)
        bf16 = self.precision_on(device) == "bf16"
        # An enclosing autocast (Lightning's) is overruled: features must not depend on the stage.
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            features = self._encode(to_axes(windows_hu, self.axes), *more)
        cls = None if features.cls is None else features.cls.float()
        feature_map = from_axes(features.map, self.axes) if features.map.ndim == 5 else features.map
        found = Features(feature_map.float(), features.embedding.float(), cls)
        if problem := promises.broken_by_features(self.card, windows_hu.shape, found):
            raise EncoderError(f"{self.card.name}: {problem}")
        return found

    def _statistics_argument(
        self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor] | None, *, checked: bool
    ) -> list[dict[str, torch.Tensor]]:
        """Returns what `_encode` gets after the windows: nothing, or the statistics."""
        if type(self).scan_statistics is Encoder.scan_statistics:
            return []
        if statistics is None:
            statistics = self.statistics_of(windows_hu, checked=checked)
        elif problem := problem_with(statistics, windows_hu.shape[0], checked=checked):
            raise EncoderError(f"{self.card.name} was given {problem}")
        return [{name: value.view(-1, 1, 1, 1, 1) for name, value in statistics.items()}]

    def _check_shape(self, x: torch.Tensor) -> None:
        name = self.card.name
        if x.ndim != 5 or x.shape[1] != 1 or x.shape[0] == 0:
            raise EncoderError(f"{name} takes windows (B, 1, D, H, W), but got {tuple(x.shape)}")
        if x.dtype != torch.float32:
            raise EncoderError(f"{name} takes float32 Hounsfield units, but got {x.dtype}")
        if not self.supports((x.shape[2], x.shape[3], x.shape[4])):
            raise EncoderError(f"{name} cannot take windows of {tuple(x.shape[2:])}: {self.input_requirement()}")
        if self.card.window_size[0] == 1 and x.shape[2] != 1:
            raise EncoderError(f"{name} is a 2D encoder: it takes windows with D = 1, but got D = {x.shape[2]}")

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in eval mode: a frozen encoder in train mode drops paths and drifts batch statistics."""
        return super().train(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Encoder":
        """Returns itself: see the class."""
        return self

    def precision_on(self, device_type: str) -> Literal["fp32", "bf16"]:
        """Returns the precision on a type of device, such as "cuda"; it settles "auto"."""
        if self.precision == "auto":
            return "bf16" if device_type == "cuda" else "fp32"
        return self.precision

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: weights, their hash, precision and what identifies it, as they are."""
        self.load()
        state = self.network.state_dict()
        return {
            "identity": self._recorded_identity(),
            "weights": str(self.weights_source),
            "weights_sha256": None if self.weights_source == weights_lib.NONE else weights_lib.content_sha256(state),
            "precision": self.precision,
            "feature_centre_voxel": self.feature_centre(),
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }

    def _recorded_identity(self) -> dict[str, Any]:
        """Returns class, source and settings; where they cannot be told, that: without stored features it runs."""
        try:
            who = identity(self, torch.device("cpu"))
        except EncoderError as error:
            name = f"{type(self).__module__}.{type(self).__qualname__}"
            return {"class": name, "code_sha256": None, "settings": {"cannot be told": str(error)}}
        return {key: who[key] for key in ("class", "code_sha256", "settings")}

    def describe_options(self) -> dict[str, Any]:
        """Returns its `options` as a record holds them: of a file or a buffer the hash, as its settings have it."""
        options = self.options
        odd = [key for key, value in options.items() if not options_lib.is_spellable(value)]
        settings = self._recorded_identity()["settings"] if odd else {}
        return options | {key: settings.get(key, "cannot be told") for key in odd}
