"""What a record says of the encoder: taken from the objects that ran."""

from typing import Any

from pydantic import ConfigDict, Field

from tapct.encoders.card import InPlaneFilter
from tapct.encoders.mistake_names import OPTION as MISTAKE
from tapct.encoders.options import full_name, label
from tapct.encoders.verified import VerificationStatus, in_words
from tapct.records.paths import base_name
from tapct.records.types import (
    Count,
    FiniteFloat,
    Frozen,
    Name,
    NotNegative,
    Positive,
    Setting,
    Settings,
    Sha256,
    Switch,
    Text,
    optional,
)

RANDOM, NONE = "random", "none"
"""What stands for the name of a file of weights: drawn at random, or an encoder without parameters."""

Triple = tuple[Positive, Positive, Positive]
Sizes = tuple[Count, Count, Count]


class WeightsRecord(Frozen):
    """Where the published weights of the encoder are: `tapct.encoders.card.Weights`, whose fields it has."""

    repository: Text | None = None
    revision: Text | None = None
    file: Text | None = None
    sha256: Text | None = None
    md5: Text | None = None
    licence: Text | None = None
    gated: Switch = False
    needed: Switch = True


class CardRecord(Frozen):
    """The encoder's card as it was built: `tapct.encoders.EncoderCard`, whose fields it has.

    Older records have no `in_plane_filter`: all that was resampled was averaged.
    """

    name: Name
    display_name: Name
    window_size: Sizes
    spacing_mm: Triple | None
    in_plane_size: Count | None
    in_plane_filter: InPlaneFilter = "antialias"
    pad_hu: FiniteFloat
    feature_stride: Sizes
    feature_dim: Count
    embedding_dim: Count
    has_cls: Switch
    num_params: Count
    weights: WeightsRecord = WeightsRecord()
    pretraining_data: tuple[Text, ...] = ()
    reference: Text = ""
    inputs_as_declared: Switch = False


class IdentityRecord(Frozen):
    """What tells two encoders of one card apart.

    Attributes:
        cls: The path of its class; `class` in the file.
        code_sha256: Hash of its sources, without comments; None where they are in no file.
        settings: By name; of buffers, arrays and files the hash of the content.
    """

    model_config = ConfigDict(populate_by_name=True)

    cls: Text = Field(alias="class")
    code_sha256: Sha256 | None
    settings: dict[str, Setting]


RECORDED_NAMES = {"Centre of a patch": "Centre of a cell"}
"""What records call a row of a sheet, as they did before it had its name: the same experiment leaves the same one."""


class InputSheetRow(Frozen):
    """A row of `tapct.encoders.input_sheet`, whose fields it has."""

    name: Name
    text: Text
    source: Text

    @property
    def shown_name(self) -> str:
        """What the row is called where it is shown."""
        return next((now for now, before in RECORDED_NAMES.items() if before == self.name), self.name)


class InputSheetRecord(Frozen):
    """What the network was given: the rows of `tapct describe`, and what arrives of the scan that ships.

    Attributes:
        rows: Its rows.
        received_sha256: See `tapct.features.received.sha256_of`; None where nothing arrived.
        not_received: Why nothing did; None where something did.
    """

    rows: tuple[InputSheetRow, ...]
    received_sha256: Sha256 | None = None
    not_received: Text | None = None


class VerificationRecord(Frozen):
    """What was known, where an experiment ran, of its encoder next to the authors' own code (`tapct verify-encoder`).

    Attributes:
        status: "verified" with these weights, "randomised" with random ones alone, or "none".
        why: Why it is no better than that.
        date: When the two were compared.
        source: What was run of the authors.
        versions: Of that, of torch and of tapct, by name.
        differences: The largest difference by stage (voxels, map, embedding), relative to the stage's largest value.
        tolerance: The largest that rounding explains.
        left_out: What of the authors' preparation was not compared.
    """

    status: VerificationStatus
    why: Text | None = optional()
    date: Text | None = optional()
    source: Text | None = optional()
    versions: dict[Name, Text] = Field(default_factory=dict)
    differences: dict[Name, NotNegative] = Field(default_factory=dict)
    tolerance: Positive | None = optional()
    left_out: Text | None = optional()

    @property
    def text(self) -> str:
        """In words, for people."""
        return in_words(self.status, self.source, self.date, list(self.differences.values()), self.why)


class EncoderRecord(Frozen):
    """The encoder, as it was built. An adapter may add settings of its own, by other names.

    Attributes:
        card: Its card.
        weights: "random", "none" of an encoder without parameters, or the name of their file (older records: its path).
        weights_sha256: Hash of the weights' content, not of the file; None without parameters.
        precision: As asked for.
        precision_used: As computed.
        parameters: Parameters of the frozen encoder, counted.
        feature_centre_voxel: Voxel (z, y, x) of a window at which its first feature lies.
        options: What was set otherwise than the encoder has it by itself: of its card, `precision`, of its constructor.
            None in records of before it was kept.
        identity: Class, source and settings; None in records of before it was kept.
        input_sheet: What its network was given; None in records of before it was kept, and of feature packs.
        verification: Next to its authors' own code; None in records of before it was kept. It is not a part of what the
            model is, and outside the fingerprint, as `execution` is.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting] = Field(init=False)

    card: CardRecord
    weights: Text = Field(min_length=1)
    weights_sha256: Sha256 | None = None
    precision: Name | None = None
    precision_used: Name | None = None
    parameters: Count | None = None
    feature_centre_voxel: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    options: Settings | None = None
    identity: IdentityRecord | None = None
    input_sheet: InputSheetRecord | None = optional()
    verification: VerificationRecord | None = optional()

    def settings(self) -> dict[str, Any]:
        """Returns what decides the features, and so the result: its content without `verification`."""
        return {key: value for key, value in self.content().items() if key != "verification"}

    @property
    def own_settings(self) -> dict[str, Any]:
        """What its adapter says of itself next to the documented keys."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def is_random(self) -> bool:
        """Whether it has random weights."""
        return self.weights == RANDOM

    @property
    def mistake(self) -> str | None:
        """The mistake that was made with its input on purpose, None for the right input."""
        settings = self.identity.settings if self.identity else {}  # where it stands too: its absence is no proof
        return (self.options or {}).get(MISTAKE) or settings.get(MISTAKE)

    @property
    def full_name(self) -> str:
        """The card's name and what was set: "TAP-B-3D, 512 px"; of an older record, which does not say it, the name."""
        return full_name(self.card.display_name, self.options or {})

    @property
    def label(self) -> str:
        """What a sweep calls it: `tap-b-3d+in_plane_size=512`, `curia@random`."""
        return label(self.card.name, self.is_random, self.options or {})

    @property
    def weights_name(self) -> str:
        """The name of the weights' file, without the folders of somebody's machine."""
        return base_name(self.weights)
