"""What identifies an encoder: everything that its features depend on, told without building its network.

The one list of it goes into the keys of stored features and into records: class, source, libraries, card, settings,
weights, precision.
"""

import dataclasses
import enum
import functools
import hashlib
import re
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tapct._utils.content_hashes import ContentHashes
from tapct.encoders import weights as weights_lib
from tapct.encoders.card import EncoderCard
from tapct.errors import EncoderError
from tapct.source_code import code_of

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder

CARD = (
    *("name", "window_size", "spacing_mm", "in_plane_size", "in_plane_filter", "pad_hu"),
    *("feature_stride", "feature_dim", "embedding_dim", "has_cls"),
)
"""What of a card decides the features; the rest is about them."""

HARNESS = "tapct.encoders.base"
"""The code that all encoders share. It is in the keys of features by itself, and does not tell encoders apart."""

_INTERNALS = frozenset(vars(nn.Module()))
_ELSEWHERE = frozenset(
    {
        *(
            "card",
            "precision",
            "weights_source",
            "_weights_source",
            "awaits_weights",
            "_deferred",
            "_set_while_building",
        ),
        *("_given", "authors", "mistake"),
    }
)
"""Attributes of an encoder that stand elsewhere in its identity, or are none of its settings."""
_LIBRARIES = ("torch", "builtins", "abc", "typing")
_CONSTANTS = (str, float, tuple, Path, torch.Tensor, np.ndarray)
_MOST_FILES = 10_000


def identity(encoder: "Encoder", device: torch.device, weights: str | None = None) -> dict[str, Any]:
    """Returns everything about an encoder that its features depend on, without building its network.

    Of its settings and buffers the values count, of a path the content behind it; of its code the sources of its own
    package and of what they import, and the versions of libraries; of its weights the file. Nothing of it depends on
    where something lies.

    Args:
        encoder: The encoder; it may be deferred.
        device: Where it runs, which settles the precision.
        weights: The hash of the weights' file where it is known; else the file is read.

    Raises:
        EncoderError: If it holds a setting, or is of a class, that cannot be told from another.
    """
    settings = _Settings(encoder)
    roots = (type(encoder).__module__, *sorted(settings.modules))
    try:
        code = code_of(*roots)
    except LookupError as error:
        raise EncoderError(
            f"{type(encoder).__qualname__} is defined in no file, so a change of its code could not be told ({error}). "
            "Put it into a module, or use features: off"
        ) from error
    own = {name: sha256 for name, sha256 in code.modules.items() if name not in _shared_modules()}
    code = dataclasses.replace(code, modules=own)
    return {
        "class": _name_of(type(encoder)),
        "code_sha256": code.sha256,
        "libraries": code.libraries,
        "settings": settings.values,
        "weights": weights or _weights(encoder),
        "card": {key: getattr(encoder.card, key) for key in CARD},
        "precision": encoder.precision_on(device.type),
    }


@functools.cache
def _shared_modules() -> frozenset[str]:
    """Returns the names of the modules that stand behind every encoder."""
    return frozenset(code_of(HARNESS).modules)


def _name_of(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _weights(encoder: "Encoder") -> str:
    """Returns the hash of the weights' file, or where weights come from that are in no file."""
    source = encoder.weights_source
    if source == weights_lib.RANDOM:
        return f"random, seed {encoder.seed}"
    if source == weights_lib.NONE or not Path(source).is_file():
        return str(source)
    return ContentHashes().of_files([Path(source)])


class _Settings:
    """The settings of an encoder as JSON has them: equal ones are equal, and others are not.

    Attributes:
        values: By name: attributes, buffers, parameters and modules of the instance outside its network, and what its
            classes hold.
        modules: Modules whose code is behind one of them.
    """

    def __init__(self, encoder: "Encoder") -> None:
        self.modules: set[str] = set()
        self._open: list[int] = []
        self._hashes = ContentHashes()
        name = encoder.card.name
        self.values = self._of_classes(type(encoder), name)
        self.values |= self._of_module(encoder, name, _ELSEWHERE | {"network"} | encoder.set_while_building)
        # A class may keep an option under another name or not at all, and do something else for it.
        own = {key: value for key, value in encoder.options.items() if key not in (*EncoderCard.OPTIONS, "precision")}
        self.values = {key: self.plain(value, f"{name}.{key}") for key, value in own.items()} | self.values

    def _of_classes(self, cls: type, name: str) -> dict[str, Any]:
        """Returns what the classes hold: it may have been set after their source was read.

        Of a class that a function makes, the source does not say what it takes from there. Of others, what changes by
        itself, such as a counter, is not a setting.
        """
        found: dict[str, Any] = {}
        for each in reversed([c for c in cls.__mro__ if _top(c.__module__) not in _LIBRARIES]):
            self.modules.add(each.__module__)
            made = "<locals>" in each.__qualname__
            for key, value in vars(each).items():
                if key in _ELSEWHERE or key.startswith(("__", "_abc_")):
                    continue
                if (function := _function(value)) is not None:
                    if made:
                        found[f"{key}()"] = self._taken(function, f"{name}.{key}")
                elif made or isinstance(value, _CONSTANTS):
                    try:
                        found[key] = self.plain(value, f"{name}.{key}")
                    except EncoderError:
                        if made:
                            raise
        return found

    def _of_module(self, module: nn.Module, where: str, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
        held = {key: value for key, value in vars(module).items() if key not in _INTERNALS}
        held |= module._parameters | module._buffers | module._modules
        return {key: self.plain(held[key], f"{where}.{key}") for key in sorted(held) if key not in leave_out}

    def plain(self, value: Any, where: str) -> Any:
        """Returns a value as JSON has it.

        Raises:
            EncoderError: If it cannot be told from another.
        """
        if id(value) in self._open:
            raise EncoderError(f"{where} holds itself, which the key of stored features cannot")
        self._open.append(id(value))
        try:
            return self._plain(value, where)
        finally:
            self._open.pop()

    def _plain(self, value: Any, where: str) -> Any:
        match value:
            case enum.Enum():
                return [self._named(type(value)), value.name]
            case None | bool() | int() | float():
                return value
            case str():
                return self._text(value, where)
            case Path():
                return self._path(value, where) or str(value)
            case list() | tuple():
                return [self.plain(each, where) for each in value]
            case set() | frozenset():
                return sorted((self.plain(each, where) for each in value), key=repr)
            case dict():
                return {str(key): self.plain(each, f"{where}.{key}") for key, each in value.items()}
            case torch.Tensor():
                return {"tensor": weights_lib.content_sha256({"": value})}
            case np.ndarray() | np.generic() if value.dtype.kind in "biufcUS":
                array = value.astype(value.dtype.newbyteorder("<"))
                content = f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()
                return {"array": hashlib.sha256(content).hexdigest()}
            case bytes() | complex() | range() | slice() | re.Pattern() | torch.dtype() | np.dtype():
                return repr(value)
            case nn.Module():
                return {"class": self._named(type(value))} | self._of_module(value, where)
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
                return {"class": self._named(type(value))} | self.plain(fields, where)
            case type() | types.ModuleType() | types.BuiltinFunctionType():
                return self._named(value)
            case torch.no_grad() | torch.inference_mode():  # around a method
                return self._named(type(value))
            case types.FunctionType() if "<" not in value.__qualname__:
                return self._named(value)
        raise EncoderError(
            f"{where} is a {type(value).__name__}, which the key of stored features cannot hold: two encoders that "
            "differ in it would share features. Keep numbers, text, paths, lists, dictionaries, tensors or modules of "
            "these there, or use features: off"
        )

    def _named(self, thing: Any) -> str:
        """Returns the name of a class, function or module, whose code counts."""
        module = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
        if module is not None and _top(module) not in _LIBRARIES:
            self.modules.add(module)
        return module if isinstance(thing, types.ModuleType) else _name_of(thing)

    def _text(self, text: str, where: str) -> Any:
        """Returns a text; where it is the path of something, as YAML has paths, what is behind it."""
        if not text or len(text) > 1000 or "\0" in text:
            return text
        if "/" in text:
            return self._path(Path(text), where) or text
        return {"name": text, **self._path(Path(text), where)} if Path(text).is_file() else text

    def _path(self, path: Path, where: str) -> Any:
        """Returns what is behind a path; None where nothing is."""
        path = path.expanduser()
        try:
            if path.is_file():
                return {"file": self._hashes.of_files([path])}
            if path.is_dir():
                if sum(1 for _ in path.rglob("*")) > _MOST_FILES:
                    raise EncoderError(
                        f"{where} is the folder {path} of more than {_MOST_FILES} files, all of which the key of "
                        "stored features would have to hold. Name the files that are used"
                    )
                return {"folder": self._hashes.of_folder(path)}
        except OSError as error:
            raise EncoderError(f"{where} is the path {path}, which cannot be read: {error}") from error
        return None

    def _taken(self, function: types.FunctionType, where: str) -> dict[str, Any]:
        """Returns which function of its module it is, what it takes from the one that it was made in, its defaults."""
        self._named(function)
        patches = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        taken = {name: patch.cell_contents for name, patch in patches if name != "__class__"}
        taken |= {f"default {number}": value for number, value in enumerate(function.__defaults__ or ())}
        taken |= function.__kwdefaults__ or {}
        found: dict[str, Any] = {"line": function.__code__.co_firstlineno}
        for name, value in taken.items():
            inner = _function(value)
            if inner is None:
                found[name] = self.plain(value, f"{where}, {name}")
            elif inner is not function:
                found[name] = self._taken(inner, f"{where}, {name}")
        return found


def _function(value: Any) -> types.FunctionType | None:
    """Returns the function in a method or property; None for what is none."""
    match value:
        case staticmethod() | classmethod():
            value = value.__func__
        case property():
            value = value.fget
        case functools.cached_property():
            value = value.func
    return value if isinstance(value, types.FunctionType) else None


def _top(module: str) -> str:
    return module.partition(".")[0]
