"""What a feature pack says of itself, and finding one that was unpacked."""

import hashlib
import json
import math
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapct._utils.files import features_folder
from tapct.encoders.weights import RANDOM
from tapct.errors import FeatureError
from tapct.records.types import CaseName, FeatureDtype, Name

if TYPE_CHECKING:
    import torch

MANIFEST_FILE = "pack.json"
MOST_BYTES = 2**28
"""Of a manifest: one of 100,000 cases has about 50 MB."""

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


PackedNumber = int | float | None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PackedEntry(_Model):
    """A file of a pack.

    Attributes:
        sha256: The checksum that the entry holds, of its tensors, key and description.
        nbytes: Bytes of the file.
    """

    sha256: Hash
    nbytes: int = Field(ge=1)


class PackedCase(_Model):
    """A case of a pack.

    Attributes:
        case: Its name.
        patient: Its patient.
        split: Its side.
        features: Key of its features.
        labels: Key of its label maps; None where the pack holds none.
        targets: What the target of its kind of task is, null where it is missing; None where the pack holds none.
        levels: By column of the task's shortcuts, its level, null where nothing is known; None as the targets.
    """

    case: CaseName
    patient: Name
    split: Literal["train", "val", "test"]
    features: Hash
    labels: Hash | None
    targets: tuple[PackedNumber | tuple[PackedNumber, ...], ...] | None
    levels: dict[Name, Name | None] | None = Field(default=None, exclude_if=lambda levels: levels is None)


class Manifest(_Model):
    """What is in a pack, and what its maker says of it: none of it can be checked without the scans.

    Attributes:
        format: Version of this layout.
        made_with: The release of tapct-bench that made it.
        notice: What its licences may forbid.
        licences: Of the data set, and of the weights (None: not known).
        has_targets: Whether labels or targets of the data set are in it.
        task: What a record holds of the task.
        encoder: What a record holds of the encoder, as it was when the features were extracted.
        identity: What the keys of the features say of the encoder (`tapct.encoders.identity`).
        windows: How windows lay: `overlap`, and whether they were fitted to small scans (`fit`).
        dtype: Of the features.
        options: What the encoder was set to, as the variable ENCODER_OPTIONS has it; of a pack from before this was
            named, and of options that no text can say, nothing.
        cases: The cases, in the order of the split.
        entries: The files, by key.
    """

    format: Literal[1] = 1
    made_with: str
    notice: str
    licences: dict[Literal["data", "weights"], str | None]
    has_targets: bool
    task: dict[str, Any]
    encoder: dict[str, Any]
    identity: dict[str, Any]
    windows: dict[Literal["overlap", "fit"], float | bool]
    dtype: FeatureDtype
    options: str = ""
    cases: tuple[PackedCase, ...] = Field(min_length=1)
    entries: dict[Hash, PackedEntry]

    @model_validator(mode="after")
    def _check(self) -> "Manifest":
        for name in (self.task.get("name"), self.identity.get("card", {}).get("name")):
            if not re.fullmatch(r"\w[\w.-]{0,99}", str(name), re.ASCII):  # the pack's folder is named by it
                raise ValueError(f"{name!r} is not a name of a task or encoder")
        doubled = [case for case, times in Counter(case.case for case in self.cases).items() if times > 1]
        if doubled:
            raise ValueError(f"the case {doubled[0]} is there twice")
        keys = {key for case in self.cases for key in (case.features, case.labels) if key is not None}
        if keys != set(self.entries):
            raise ValueError("the entries are not those of the cases")
        return self

    def to_json(self) -> str:
        """Returns the manifest as it stands in a pack: equal ones are equal byte by byte."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack that was unpacked.

    Attributes:
        folder: Where it lies: its manifest, and its entries as a store has them.
        manifest: What it says of itself.
        sha256: Hash of its manifest, and by that of all that is in it.
    """

    folder: Path
    manifest: Manifest
    sha256: str

    @property
    def variables(self) -> str:
        """The variables by which a run of the shipped configs reads it, as a shell takes them."""
        of = self.manifest
        asked = {"PACK": self.name, "ENCODER": of.identity["card"]["name"], "ENCODER_OPTIONS": of.options}
        asked["ENCODER_WEIGHTS"] = RANDOM if of.encoder.get("weights") == RANDOM else ""
        asked["FEATURE_DTYPE"] = "" if of.dtype == "bf16" else of.dtype
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in asked.items() if value)

    @classmethod
    def read(cls, folder: Path) -> "Pack":
        """Reads an unpacked pack; its entries are checked as they are used.

        Raises:
            FeatureError: If there is none, or its manifest is not valid.
        """
        path = folder / MANIFEST_FILE
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FeatureError(
                f"there is no pack at {folder} ({error.strerror}). `tapct unpack FILE` unpacks one and says its name"
            ) from error
        return cls(folder, parsed(content, str(path)), hashlib.sha256(content).hexdigest())

    @classmethod
    def find(cls, name: str) -> "Pack":
        """Returns an unpacked pack by its name in the feature folder, or by its own folder.

        Raises:
            FeatureError: As `read`.
        """
        named = packs_folder(features_folder()) / name
        return cls.read(named if named.is_dir() else Path(name).expanduser())

    @property
    def name(self) -> str:
        """Its name: task, encoder and the start of its hash."""
        return f"{self.manifest.task['name']}-{self.manifest.identity['card']['name']}-{self.sha256[:12]}"


def as_packed(target: "torch.Tensor") -> tuple[Any, ...]:
    """Returns a target as a manifest holds it: NaN, which JSON has not, is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(plain, value))
        return None if isinstance(value, float) and math.isnan(value) else value

    return plain(target.tolist())


def packs_folder(features: Path) -> Path:
    """Returns where packs are unpacked: next to the own features and never among them.

    The key of an entry says which scan and code it is of, and nobody can check that of somebody else's. Were it put
    among the own ones, a run on the scans would take it for what it has extracted itself.
    """
    return features / "packs"


def parsed(content: bytes, where: str) -> Manifest:
    """Returns the manifest that a file holds.

    Raises:
        FeatureError: If it is none.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FeatureError(f"{where} is not a manifest of a feature pack: {place} {first['msg']}") from error
