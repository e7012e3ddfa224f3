"""Cards of eva's own backbones: short YAML files that say what one is given and which of its maps is read.

`eva:radiology/voco_l` is a card that ships (`eva_cards/`), `eva:PATH.yaml` one of a user's. Nothing here imports eva.
What a card declares, nobody has held against the authors' code, as the adapters are: a record says so.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from yaml import YAMLError

from tapct.encoders.card import EncoderCard, InPlaneFilter, Weights
from tapct.encoders.eva_names import CARD_SUFFIXES, PREFIX, card_file
from tapct.errors import EncoderError, nearest

SHIPPED = Path(__file__).with_name("eva_cards")

_Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
_Name = Annotated[
    str, StringConstraints(strict=True, max_length=60, pattern=r"^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?(/[a-z0-9_-]+)*$")
]
"""Lower case, since some file systems take 'A' and 'a' for one."""
_Sizes = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
Spacing = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
_Range = tuple[float, float]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DeclaredWeights(_Model):
    """Where the weights are, and how the names in their file become the network's."""

    repository: _Text | None = None
    """Such as `huggingface.co/Luffy503/VoCo`."""
    revision: _Text | None = None
    """Commit of the repository; null is the newest."""
    file: _Text | None = None
    """Path of the file in the repository."""
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    """Of that file, as eva has it."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    licence: _Text | None = None
    gated: bool = False
    inside: _Text | None = None
    """Key of the checkpoint under which the state dict is; null where it is the checkpoint."""
    keep: _Text | None = None
    """Regular expression of the names that are the backbone's, of what else is in the file; null is all of them."""
    strip: str = ""
    """What these names begin with in the file, and not in the network."""


class DeclaredCard(_Model):
    """A backbone of eva's, its inputs and its outputs. Sizes and spacings are along (z, y, x) unless said otherwise."""

    name: _Name
    """By which it is loaded, behind `eva:`. Of a card that ships, its path below `eva_cards/`."""
    display_name: _Text
    """The name in tables."""
    backbone: _Text
    """Name in eva's `backbone_registry`, of a class whose `forward_intermediates` gives an embedding and 3D maps."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of its constructor."""
    patch_merging: Literal["monai-1.4", "monai-1.5"] | None = None
    """Of a Swin transformer: the MONAI whose patch merging the weights were trained with."""

    axes: Annotated[str, StringConstraints(pattern=r"^[SIPALR]{3}$")]
    """How the network's axes grow: SPL is (z, y, x) as here, RAS the (x, y, z) of MONAI's `Orientationd("RAS")`."""
    spacing_mm: Spacing | None
    """Voxels that scans are resampled to; null keeps theirs."""
    in_plane_size: Annotated[int, Field(gt=0)] | None = None
    """Pixels (square) that slices are resized to; null keeps theirs."""
    in_plane_filter: InPlaneFilter = "antialias"
    """How scans shrink along every axis: averaged, or ("linear") interpolated, as MONAI's `Spacing` does."""
    window_size: _Sizes
    """Voxels of one window."""
    window_multiple: _Sizes | None = None
    """What windows must be multiples of; null is `feature_stride`. Larger where an earlier map is read."""
    clip_hu: _Range
    """HU at which values are clipped."""
    scaled_to: _Range = (0.0, 1.0)
    """What these two become; between them it is linear."""
    pad_hu: float
    """HU of the padding where a scan is smaller than a window."""

    feature: int
    """Which of the backbone's maps is the feature map, by its index in their list; -1 is the last."""
    feature_stride: _Sizes
    """Voxels between neighbouring features of that map."""
    feature_dim: Annotated[int, Field(gt=0)]
    """Its channels."""
    patch_centre: tuple[float, float, float] | None = Field(
        default=None, validation_alias=AliasChoices("patch_centre", "cell_centre")
    )
    """Voxel on which the first feature is centred, along the network's own axes; null is the middle of the stride, as
    for patches and pooling. Convolutions of kernel 3, stride 2 and padding 1 have (0, 0, 0)."""
    least_patches: Annotated[int, Field(gt=0)] = Field(
        default=1, validation_alias=AliasChoices("least_patches", "least_cells")
    )
    """`window_multiple`s that a window must hold: 2 where the last map has an instance norm."""
    embedding: Literal["backbone", "feature"]
    """The embedding of a window: the backbone's own, or the mean of the feature map."""
    embedding_dim: Annotated[int, Field(gt=0)]
    """Its length."""
    num_params: Annotated[int, Field(gt=0)]
    """Parameters of the network."""

    weights: DeclaredWeights = DeclaredWeights()
    pretraining_data: tuple[_Text, ...] = ()
    """Names of the data it was trained on, to tell overlap with a task."""
    reference: _Text
    """Paper or page, and where the inputs are declared."""

    @model_validator(mode="after")
    def _checksum(self) -> "DeclaredCard":
        of = self.weights
        if of.file is not None and (of.repository or "").startswith("zenodo.org/") and not (of.md5 or of.sha256):
            raise ValueError(
                "weights: name the md5 of the file, as zenodo.org shows it: it is kept under the card's name, and "
                "after a change of the card would pass for another"
            )
        return self

    @model_validator(mode="after")
    def _ranges(self) -> "DeclaredCard":
        if not self.clip_hu[0] < self.clip_hu[1]:
            raise ValueError(f"clip_hu {list(self.clip_hu)} must rise")
        if sorted("SIPALR".index(letter) // 2 for letter in self.axes) != [0, 1, 2]:
            raise ValueError(f"axes {self.axes} must name each of S/I, P/A and L/R once")
        if self.name.endswith(CARD_SUFFIXES):
            raise ValueError(f"name {self.name} would be taken for the path of a card: leave its ending out")
        if self.scaled_to[0] == self.scaled_to[1]:
            raise ValueError(f"scaled_to {list(self.scaled_to)} makes every voxel the same")
        if self.patch_centre is not None and not all(
            0 <= voxel <= s - 1 for voxel, s in zip(self.patch_centre, self.stride_along_axes, strict=True)
        ):
            raise ValueError(f"patch_centre {list(self.patch_centre)} must lie in a stride of {self.stride_along_axes}")
        if any(m % s for m, s in zip(self.multiple, self.feature_stride, strict=True)):
            raise ValueError(f"window_multiple {list(self.multiple)} must be multiples of feature_stride")
        if any(w % m for w, m in zip(self.window_size, self.multiple, strict=True)):
            raise ValueError(f"window_size {list(self.window_size)} must be multiples of {list(self.multiple)}")
        try:
            re.compile(self.weights.keep or "")
        except re.error as error:
            raise ValueError(f"weights.keep is not a regular expression: {error}") from error
        return self

    @property
    def stride_along_axes(self) -> list[int]:
        """Returns the stride along the network's own axes."""
        return [self.feature_stride["SIPALR".index(letter) // 2] for letter in self.axes]

    @property
    def multiple(self) -> _Sizes:
        """What the sizes of windows must be multiples of."""
        return self.window_multiple or self.feature_stride

    def inputs(self) -> dict[str, Any]:
        """Returns what decides the features and does not stand on an `EncoderCard`, as JSON has it."""
        own = {"name", "display_name", "num_params", "pretraining_data", "reference", "weights"}
        content = self.model_dump(mode="json", exclude=own | {*EncoderCard.OPTIONS})
        return content | {"weights": self.weights.model_dump(mode="json", include={"inside", "keep", "strip"})}

    def card(self) -> EncoderCard:
        """Returns the card of the encoder."""
        of = self.weights
        return EncoderCard(
            name=PREFIX + self.name,
            display_name=self.display_name,
            window_size=self.window_size,
            spacing_mm=self.spacing_mm,
            in_plane_size=self.in_plane_size,
            in_plane_filter=self.in_plane_filter,
            pad_hu=self.pad_hu,
            feature_stride=self.feature_stride,
            feature_dim=self.feature_dim,
            embedding_dim=self.embedding_dim,
            has_cls=False,
            num_params=self.num_params,
            weights=Weights(
                repository=of.repository,
                revision=of.revision,
                file=of.file,
                sha256=of.sha256,
                md5=of.md5,
                licence=of.licence,
                gated=of.gated,
            ),
            pretraining_data=self.pretraining_data,
            reference=self.reference,
            inputs_as_declared=True,
        )


def shipped_names() -> list[str]:
    """Returns the names of the cards that ship, such as `eva:radiology/voco_b`."""
    return [PREFIX + path.relative_to(SHIPPED).with_suffix("").as_posix() for path in sorted(SHIPPED.rglob("*.yaml"))]


def read_declared(name: str) -> DeclaredCard:
    """Returns what a card declares.

    Args:
        name: Of one that ships, or `eva:PATH.yaml`.

    Raises:
        EncoderError: If there is none, it is malformed (with file and key), or it has the name of one that ships.
    """
    own = card_file(name)
    if own is None:
        if name not in (shipped := shipped_names()):
            raise EncoderError(
                f"there is no card '{name}'. {nearest(name, shipped)} A card of your own goes as eva:PATH.yaml"
            )
        return _read(SHIPPED / f"{name.removeprefix(PREFIX)}.yaml")
    found = _read(own)
    if PREFIX + found.name in shipped_names():
        raise EncoderError(f"{own}: name: a card that ships is called {found.name}; give yours another name")
    return found


def _read(path: Path) -> DeclaredCard:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError as error:
        raise EncoderError(f"there is no card {path}") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise EncoderError(f"the card {path} cannot be read: {error}") from error
    try:
        return DeclaredCard.model_validate(content)
    except ValidationError as error:
        raise EncoderError("\n".join(f"{path}: {fault}" for fault in _faults(error))) from error


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = DeclaredWeights if "weights" in fault["loc"] else DeclaredCard
            yield f"unknown key {key}. {nearest(str(fault['loc'][-1]), known.model_fields)}"
        elif fault["type"] == "missing":
            yield f"the key {key} is missing"
        else:
            yield f"{key}: {fault['msg']}" if key else fault["msg"].removeprefix("Value error, ")
