"""The authors' own code for an encoder: what `tapct verify-encoder` runs next to the adapter.

A counterpart says which packages it needs, or which repository, builds the authors' network, and prepares a scan as
they do. An adapter names it as `authors = "package.module:Class"`; nothing but the command and tests imports it.
"""

import abc
import importlib
import importlib.util
import math
import sys
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from packaging.requirements import Requirement
from torch import nn

from tapct.encoders.weights import load_strict
from tapct.errors import EncoderError

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder, Features

Window = tuple[int, int, int]

_PATCHES = (3, 2, 4)
"""Patches of the window that is compared: another number along each axis, so that no two can be mistaken."""


class NotComparableError(EncoderError):
    """The authors' code cannot be run here; the message says what it takes."""


class Authors(abc.ABC):
    """An encoder by its authors' own code.

    A subclass sets `source`, and `requires` or `repository`, and implements `build`, `prepare` and `encode`. `axes` are
    the directions of the authors' arrays, stated on its own: what the adapter says of them is what is tested.
    """

    source: ClassVar[str]
    """What is run, for people: "colipri 0.1.3 (PyPI)"."""

    requires: ClassVar[tuple[str, ...]] = ()
    """What pip must have installed, such as "colipri==0.1.3"."""

    repository: ClassVar[str | None] = None
    """Where code is that no registry has: a git repository, of which the user names folder and commit."""

    paths: ClassVar[tuple[str, ...]] = ()
    """What of that repository is needed; all of it where nothing is named."""

    read_at: ClassVar[str | None] = None
    """The commit of that repository that this class was written for."""

    left_out: ClassVar[str] = "resampling and padding"
    """What of the authors' preparation is not compared, for people."""

    tolerance: ClassVar[float] = 1e-4
    """The largest difference of a stage, relative to its largest value: what rounding of fp32 explains."""

    axes: str = "SPL"

    def __init__(self, encoder: "Encoder", code: Path | None = None) -> None:
        """Takes down what is compared.

        Args:
            encoder: The adapter, built, with its options.
            code: The folder of the commit's files, of a counterpart with a `repository`.
        """
        self.encoder, self.code = encoder, code
        self.window = self.window_for(encoder)

    def window_for(self, encoder: "Encoder") -> Window:
        """Returns the (z, y, x) voxels of the scan that is compared: a few patches, or the only size that is taken."""
        card = encoder.card
        few = zip(card.window_size, card.feature_stride, _PATCHES, strict=True)
        d, h, w = (min(whole, stride * patches) for whole, stride, patches in few)
        return (d, h, w) if encoder.supports((d, h, w)) else card.window_size

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """Returns the authors' network, with its own initialisation."""

    @abc.abstractmethod
    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns what the authors give their network of a scan, (B, C, ...).

        Args:
            scan: A NIfTI file of whole HU (int16), indices towards left, posterior, superior, at the adapter's spacing.
        """

    def received(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what `prepare` gave as the adapter's network receives it; here as it is.

        For a network of the authors that turns or repeats its input first.
        """
        return x

    @abc.abstractmethod
    def encode(self, network: nn.Module, x: torch.Tensor) -> "Features":
        """Returns the features of what `prepare` gave, the map along `axes`."""

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns the authors' network as their file holds it."""
        return network.state_dict()

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads what their file holds into the authors' network.

        Raises:
            WeightsError: If it does not fit.
        """
        load_strict(network, published, where=f"the authors' network of {self.encoder.card.name}")


def counterpart_of(encoder: "Encoder | type[Encoder]") -> type[Authors]:
    """Returns the counterpart that an adapter names.

    Args:
        encoder: The adapter, or its class where that has a card: of an exported folder and of a card of eva's none has.

    Raises:
        NotComparableError: If it names none, or what it names needs what is not installed.
        EncoderError: If what it names is not a counterpart.
    """
    # The card of an exported encoder lies in its folder.
    name = encoder.card.name if hasattr(encoder, "card") else encoder.__name__
    if encoder.authors is None:
        raise NotComparableError(
            f"{name} cannot be compared with its authors' code: its adapter names none (docs/encoders.md, "
            "docs/add-an-encoder.md)"
        )
    module, _, attribute = encoder.authors.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EncoderError(f"{name}: its authors={encoder.authors!r} cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Authors)):
        raise EncoderError(f"{name}: its authors={encoder.authors!r} is not a subclass of tapct.encoders.Authors")
    return found


def require(authors: type[Authors], name: str) -> dict[str, str]:
    """Returns the versions of what a counterpart needs, by package.

    Raises:
        NotComparableError: If something is missing or of another version, with the command that installs it.
    """
    found, wanting = {}, []
    for text in authors.requires:
        requirement = Requirement(text)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wanting.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wanting.append(f"{requirement.name} {installed} is installed, not {requirement.specifier}")
        found[requirement.name] = installed
    if wanting:
        command = " ".join(["pip install", *(f"'{text}'" for text in authors.requires)])
        raise NotComparableError(
            f"{name}: its authors' code ({authors.source}) cannot be run: {'; '.join(wanting)}. In a virtual "
            f"environment of its own: {command}"
        )
    return found


def bare_package(name: str, folder: Path) -> types.ModuleType:
    """Returns a package whose modules can be imported without its `__init__`, which often asks for all of training.

    Args:
        name: The name by which its own modules import each other.
        folder: Where they lie.
    """
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return package


def module_at(file: Path) -> types.ModuleType:
    """Returns the module of one file, which needs no package around it."""
    name = f"authors_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise EncoderError(f"there is no {file}: is it the commit that the adapter's counterpart was written for?")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def patches_of(tokens: torch.Tensor, sizes: tuple[int, ...], patch: tuple[int, ...]) -> torch.Tensor:
    """Returns tokens (B, N, C) as a map (B, C, ...) of an image of `sizes` in patches.

    Raises:
        EncoderError: If they are not as many.
    """
    grid = tuple(n // p for n, p in zip(sizes, patch, strict=True))
    if math.prod(grid) != tokens.shape[1]:
        raise EncoderError(f"{tokens.shape[1]} tokens are not those of {sizes} voxels in patches of {patch}")
    return tokens.transpose(1, 2).unflatten(2, grid)
