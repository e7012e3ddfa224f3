"""Options of an encoder, and how they are written: `tap-b-3d+in_plane_size=512+window_size=24x512x512`.

An option is what a keyword of an encoder's constructor sets: those of its card, its `precision`, and what its class has
of its own. Each value has one spelling, and an option that changes nothing is none: two texts of one setting are equal.
"""

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from tapct.encoders.card import EncoderCard
from tapct.encoders.eva_names import card_file, from_folders, in_folders
from tapct.encoders.places import exported
from tapct.encoders.registry import encoder_class, load_encoder
from tapct.errors import EncoderError, nearest

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder

RANDOM = "random"
"""The only weights that stand in a name: `curia@random`."""

_NO_OPTIONS = frozenset({"self", "weights", "deferred"})
_TEXT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
"""Text that every file system takes in a name, and that cannot be mistaken for the end of an option."""
_LONGEST_WORDS = 60
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_SEVERAL = re.compile(r"-?[0-9.]+(x-?[0-9.]+)+")


class Spec(NamedTuple):
    """What a name on the command line asks for.

    Attributes:
        encoder: Name of the encoder, `eva:PATH.yaml`, or a folder that `python -m pretrain.export` wrote.
        random: Whether with random weights.
        options: Its options as they were written, joined by `+`.
    """

    encoder: str
    random: bool
    options: str

    def behind(self, name: str) -> str:
        """Returns a name with what stands behind this one."""
        return "+".join(filter(None, [f"{name}@random" if self.random else name, self.options]))

    def weights(self, named: str | None) -> str | None:
        """Returns the weights to load, of those that are named next to it.

        Raises:
            EncoderError: If both name some, and not the same.
        """
        if self.random and named not in (None, RANDOM):
            raise EncoderError(f"{self.encoder}@random has random weights, and not {named}: leave one of the two out")
        return RANDOM if self.random else named


@dataclass(frozen=True)
class Option:
    """An option of an encoder's class.

    Attributes:
        name: Its name.
        kind: The type of its values.
        default: Of the constructor; None where the card has it.
        of_card: Whether it is one of the card's.
    """

    name: str
    kind: Any
    default: Any
    of_card: bool = False


def parse_spec(text: str) -> Spec:
    """Takes `ENCODER[@random][+OPTION=VALUE...]` apart; `@random` may stand at the end as well.

    Raises:
        EncoderError: If something else stands behind an `@`.
    """
    text = text.strip()
    ends = [match.start() for match in re.finditer(r"[+@]|$", text)]
    # The path of an exported encoder, or of a card, may hold the same signs: as much of it as is one.
    name = next((text[:end] for end in reversed(ends) if _is_a_path(text[:end])), text[: ends[0]])
    behind, marks = re.subn(r"\s*@random\s*(?=\+|$)", "", text[len(name) :])
    if "@" in behind or marks > 1:
        raise EncoderError(f"'{text}': only @random may stand behind an encoder, once; --weights names a file")
    return Spec(name.strip(), marks == 1, behind.strip("+ "))


def names_in(options: str) -> set[str]:
    """Returns the names of options that are written as text; whether there are such is not asked."""
    return {part.partition("=")[0].strip() for part in options.split("+")} - {""}


def parse_options(encoder: str, asked: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the options that change something about an encoder, each of its type.

    Args:
        encoder: Its name, or the folder of an exported one.
        asked: Text such as `in_plane_size=512+precision=fp32`, or values by name.

    Raises:
        EncoderError: If there is no such encoder or option, or it cannot have that value.
    """
    given = _written(encoder, asked) if isinstance(asked, str) else dict(asked or {})
    if not given:
        return {}
    known = options_of(_class_of(encoder))
    for name in given:
        if name not in known:
            raise EncoderError(f"{encoder} has no option '{name}'. {nearest(str(name), known)}")
    typed = {name: _typed(encoder, known[name], value) for name, value in given.items()}
    try:
        return load_encoder(encoder, RANDOM, deferred=True, **typed).options
    except TypeError as error:  # of a constructor that is not ours
        raise EncoderError(f"{encoder} does not take {', '.join(typed)}: {error}") from error


def load_spec(
    text: str, weights: str | None = None, options: Mapping[str, Any] | None = None, *, deferred: bool = False
) -> "Encoder":
    """Builds the encoder that a name on the command line asks for: `tap-b-3d+in_plane_size=512`, `curia@random`.

    Args:
        text: The name, with what stands behind it.
        weights: As `load_encoder` takes them.
        options: Further options by name.
        deferred: Whether its network waits for the first windows.

    Raises:
        EncoderError: If the name or an option is unknown, or something is named twice.
    """
    spec = parse_spec(text)
    named = parse_options(spec.encoder, spec.options)
    others = parse_options(spec.encoder, options)
    if twice := sorted(named.keys() & others.keys()):
        raise EncoderError(f"{text}: the option '{twice[0]}' is named next to it as well; leave one out")
    return load_encoder(spec.encoder, spec.weights(weights), deferred=deferred, **named, **others)


def with_precision(options: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Returns options with the precision that a probe's own setting names.

    Raises:
        EncoderError: If both name one, and not the same.
    """
    asked = options.get("precision", precision)
    if precision not in ("auto", asked):
        raise EncoderError(f"the precision is {precision}, and that of the encoder's options {asked}: leave one out")
    return {**options, "precision": asked}


def spell_options(options: Mapping[str, Any]) -> str:
    """Returns options as text, sorted by name: `in_plane_size=512+spacing_mm=1.5x1.5x1.5`.

    Raises:
        EncoderError: If a value cannot be written so.
    """
    return "+".join(f"{name}={_spelt(name, options[name])}" for name in sorted(options))


def label(encoder: str, random: bool, options: Mapping[str, Any]) -> str:
    """Returns what experiments of an encoder are called: `tap-b-3d@random+in_plane_size=512`; any value can be in it.

    It is the name of a folder too (see `eva_names.in_folders`).
    """
    values = {
        name: value if is_spellable(value) and len(_spelt(name, value)) <= _LONGEST_WORDS else _short_hash(value)
        for name, value in options.items()
    }
    return Spec(encoder, random, spell_options(values)).behind(in_folders(encoder))


def encoder_of(label: str) -> str:
    """Returns the encoder that an experiment's label names."""
    return from_folders(label.partition("@")[0].partition("+")[0])


def in_words(options: Mapping[str, Any]) -> list[str]:
    """Returns options as a reader has them: "512 px", "spacing 1.5 mm", "features decoder"."""
    return [_in_words(name, options[name]) for name in sorted(options)]


def full_name(name: str, options: Mapping[str, Any]) -> str:
    """Returns what an encoder with options is called in tables and on pictures: "TAP-B-3D, 512 px"."""
    return ", ".join([name, *in_words(options)])


def options_of(cls: "type[Encoder]") -> dict[str, Option]:
    """Returns the options of a class by name: its own first, then those of the classes before it and the card's."""
    found: dict[str, Option] = {}
    for each in cls.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters, hints = inspect.signature(each.__init__).parameters, _hints(each.__init__)  # type: ignore[misc]
        for name, one in parameters.items():
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.default is not one.empty:
                kind = hints.get(name, type(one.default))
                found.setdefault(name, Option(name, kind, one.default))
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return _without(found)
        if each.__module__ == "tapct.encoders.base":
            break
    kinds = _hints(EncoderCard)
    of_card = {name: Option(name, kinds[name], None, of_card=True) for name in EncoderCard.OPTIONS}
    return _without(of_card | found)


def arguments_of(encoder: "Encoder", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that an encoder was made with, each by its name."""
    bound = inspect.signature(type(encoder).__init__).bind(encoder, *args, **kwargs)
    _, *names = bound.arguments  # the first is the encoder
    found: dict[str, Any] = {}
    for name in names:
        is_rest = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        found |= bound.arguments[name] if is_rest else {name: bound.arguments[name]}
    return found


def set_options(encoder: "Encoder", given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns which of the arguments of an encoder's constructor are options that change something about it.

    Args:
        encoder: The encoder, built.
        given: All arguments by name, as they were given.
    """
    known = options_of(type(encoder))
    found = {
        name: value
        for name, value in sorted(given.items())
        if name in known and (known[name].of_card or not _same(value, known[name].default))
    }
    for name in [name for name in found if known[name].of_card]:
        # Another option may decide what the card has without this one: it is asked, not guessed.
        rest = {key: value for key, value in found.items() if key != name}
        needed = {key: value for key, value in given.items() if key not in known}
        try:
            without = type(encoder)(**{**needed, **rest, "weights": RANDOM, "deferred": True})
        except (TypeError, ValueError):  # it cannot be without
            continue
        if without.card == encoder.card:
            found = rest
    return found


def is_spellable(value: Any) -> bool:
    """Returns whether a value can stand in the name of an experiment."""
    try:
        _spelt("", value)
    except EncoderError:
        return False
    return True


def _is_a_path(name: str) -> bool:
    file = card_file(name)
    return exported(name) is not None if file is None else file.is_file()


def _class_of(encoder: str) -> "type[Encoder]":
    from tapct.encoders.exported import Exported

    return Exported if exported(encoder) is not None else encoder_class(encoder)


def _without(found: dict[str, Option]) -> dict[str, Option]:
    return {name: option for name, option in found.items() if name not in _NO_OPTIONS}


def _hints(of: Any) -> dict[str, Any]:
    try:
        return get_type_hints(of)
    except NameError:  # a name that its module has for type checkers alone
        return {}


# -- Reading -------------------------------------------------------------------------------------------


def _written(encoder: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split("+"))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (equals and name and value):
            raise EncoderError(f"{encoder}+{part}: write OPTION=VALUE, such as in_plane_size=512")
        if name in found:
            raise EncoderError(f"{encoder}: the option '{name}' is there twice; leave one out")
        found[name] = value
    return found


def _typed(encoder: str, option: Option, value: Any) -> Any:
    """Returns a value as its option's type has it, from text or from what YAML makes of it."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if option.kind is type(None) or option.kind is inspect.Parameter.empty:
        raise EncoderError(f"{encoder}: its option '{option.name}' has no type, so text is no value of it: annotate it")
    try:
        adapter = TypeAdapter(option.kind, config=ConfigDict(arbitrary_types_allowed=True))
    except TypeError:  # the type has a configuration of its own
        adapter = TypeAdapter(option.kind)
    for candidate in _candidates(value):
        try:
            typed = adapter.validate_python(candidate)
        except ValidationError:
            continue
        if not isinstance(value, str) or is_spellable(typed):
            return typed
    raise EncoderError(f"{encoder}: the option {option.name} cannot be {value!r}: {_wants(option, value)}")


def _candidates(value: Any) -> list[Any]:
    """Returns what a text may stand for, what it looks like first."""
    if not isinstance(value, str):
        return [value]
    found: list[Any] = [value]
    if value == "null":
        found.insert(0, None)
    if _SEVERAL.fullmatch(value):
        found.insert(0, value.split("x"))
    if _WHOLE_NUMBER.fullmatch(value):
        found.append(int(value))  # of a Literal of numbers; where text is wanted, it stays text
    return found


def _wants(option: Option, value: Any) -> str:
    kinds = get_args(option.kind) if type(None) in get_args(option.kind) else (option.kind,)
    if words := next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), None):
        return nearest(str(value), map(str, words))
    several = next((kind for kind in kinds if get_origin(kind) is tuple), None)
    if several is not None:
        count = len(get_args(several))
        return f"write {count} numbers, such as {'x'.join(['1'] * count)}" + (" or null" if len(kinds) > 1 else "")
    names = ["null" if kind is type(None) else getattr(kind, "__name__", str(kind)) for kind in kinds]
    return f"it is of the type {' or '.join(names)}"


# -- Writing -------------------------------------------------------------------------------------------


def _spelt(name: str, value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            short = f"{value + 0.0:g}"  # of -0 too
            return (short if float(short) == value else repr(value)).replace("e+", "e")
        case str() if _TEXT.fullmatch(value):
            return value
        case [_, _, *_] if all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
            return "x".join(_spelt(name, one) for one in value)
    raise EncoderError(
        f"the option {name}={value!r} cannot stand in the name of an experiment: write a finite number, several as "
        "AxBxC, true, false, null, or a word of letters, digits, '_', '.' and '-'"
    )


def _short_hash(value: Any) -> str:
    """Returns what tells a value from others that cannot be spelt: of what has a hash (a file, a buffer), that."""
    if isinstance(value, Mapping):
        for part in value.values():
            if isinstance(part, str) and len(part) == 64:
                return part[:8]
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _same(one: Any, other: Any) -> bool:
    if is_spellable(one) and is_spellable(other):
        return isinstance(one, str) == isinstance(other, str) and _spelt("", one) == _spelt("", other)
    return one is other


def _in_words(name: str, value: Any) -> str:
    words = value if isinstance(value, str) and len(value) <= _LONGEST_WORDS else _short_hash(value)
    if value is None:
        words = "native" if name in ("in_plane_size", "spacing_mm") else "none"
    elif is_spellable(value) and not isinstance(value, str):
        numbers = _spelt(name, value).split("x") if isinstance(value, tuple | list) else [_spelt(name, value)]
        words = numbers[0] if len(set(numbers)) == 1 and name == "spacing_mm" else " × ".join(numbers)
    match name:
        case "in_plane_size":
            return f"{words} px" if value is not None else f"in-plane size {words}"
        case "spacing_mm":
            return f"spacing {words} mm" if value is not None else f"spacing {words}"
        case "window_size":
            return f"window {words}"
        case "pad_hu":
            return f"padding {words} HU"
    return f"{name} {words}"
