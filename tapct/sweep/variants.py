"""What a sweep varies next to encoder and task: weights, options, mistakes, bag, adaptor, patients, perturbation.

Each combination is an experiment of its own. Its label, which is also the name of its folder, is the encoder's name
with what is varied behind it, in one order and one spelling: `curia`, `curia@random`, `tap-b-3d+in_plane_size=512`,
`curia+mistake=mirrored`, `curia+bag=patch`, `curia+adaptor=linear-max`, `curia+fraction=0.1+draw=2`;
`eva:radiology/voco_l` is `eva~radiology~voco_l`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tapct.encoders import card_of, encoder_class
from tapct.encoders.eva_names import (
    PREFIX,
    card_file,
    encoder_name,
    from_folders,
    in_folders,
    is_eva,
    is_named_by_place,
)
from tapct.encoders.mistake_names import OPTION as MISTAKE
from tapct.encoders.options import RANDOM, Spec, names_in, parse_options, parse_spec, spell_options
from tapct.encoders.places import exported
from tapct.errors import EncoderError, nearest
from tapct.names import reads_no_features
from tapct.sweep.experiment import Experiment, SweepError, choose
from tapct.sweep.said import say

CHANCE = "chance"
"""The encoder that runs where no features are read."""

_RANDOM = "@random"
_ALL = "all"

_OURS = frozenset({"adaptor", "bag", "fraction", "draw", "perturbation"})
"""What stands in a label before an equals sign and is no option of an encoder."""

_SETTING = "model.init_args.encoder_options"
"""Where a config has the options of the encoder."""

LONGEST_LABEL = 255
"""Bytes that file systems take in the name of a folder."""


@dataclass(frozen=True)
class Variant:
    """An encoder with what is varied about its experiments.

    Attributes:
        label: Names the experiment among those of its task.
        encoder: Name of the encoder.
        variables: The config's variables that say what is varied.
    """

    label: str
    encoder: str
    variables: Mapping[str, str] = field(default_factory=dict)


def variants(
    encoders: str,
    known: Sequence[str],
    *,
    adaptors: Sequence[str | None] = (None,),
    bags: Callable[[str, str | None], Sequence[str | None]] = lambda encoder, adaptor: (None,),
    fractions: Sequence[float] = (),
    draws: int = 1,
    perturbations: str | None = None,
    mistakes: Mapping[str, bool] | None = None,
    options: str | None = None,
) -> list[Variant]:
    """Returns what was asked for, each once, the plain ones first.

    Encoders, bags and adaptors cross, with mistakes as without; shares and perturbations are each of every such pair
    without, but not of one another.

    Args:
        encoders: Names by comma, each with `@random` behind it for random weights, and options of the encoder
            (`tap-b-3d+in_plane_size=512`); `all` is every one that can have what stands behind it.
        known: The encoders that exist.
        adaptors: Names of adaptors (see `tapct.sweep.adaptors`); None is the task's own, which has no label.
        bags: Gives those of an encoder under an adaptor (see `tapct.sweep.bags`); None has no label.
        fractions: Shares of the training patients; 1 is all of them. Empty is 1.
        draws: How often patients are drawn for each share below 1.
        perturbations: Of the test scans, by comma, or "all"; each next to the unperturbed experiment.
        mistakes: With the encoders' input, each next to the right experiment: names, and whether each must be possible
            with one of the encoders (see `tapct.sweep.mistakes`).
        options: Those of the encoders that name none.

    Raises:
        SweepError: If a name or an option does not exist, a value cannot be, or a label is too long for a folder.
    """

    def crossed(of: Sequence[Variant]) -> list[Variant]:
        pairs = [(_read_by(one, adaptor, known), adaptor) for one in of for adaptor in adaptors]
        return [_on(one, bag, adaptor) for one, adaptor in pairs for bag in bags(one.encoder, adaptor)]

    plain = _of_encoders(encoders, known, options)
    base = crossed(plain)
    wrong = [share for share in fractions if not 0 < share <= 1]
    if wrong or draws < 1:
        raise SweepError(
            f"--fractions must be in (0, 1] and --draws 1 or more, not {', '.join(map(str, wrong)) or draws}"
        )
    asked = [*base] if not fractions or 1 in fractions else []
    for share in sorted({share for share in fractions if share < 1}, reverse=True):
        for draw in range(draws):
            varied = {"TRAIN_FRACTION": f"{share:g}", "TRAIN_DRAW": str(draw)}
            asked += [_with(one, f"+fraction={share:g}+draw={draw}", varied) for one in base]
    for name in _perturbations(perturbations):
        asked += [_with(one, f"+perturbation={name}", {"PERTURBATION": name}) for one in base]
    for mistake, is_needed in (mistakes or {}).items():
        asked += crossed(_mistaken(plain, mistake, known, is_needed=is_needed))
    for one in asked:
        if (length := len(one.label.encode())) > LONGEST_LABEL:
            raise SweepError(
                f"{one.label}: the name of this experiment has {length} bytes, and folders take {LONGEST_LABEL}. "
                "Register the encoder with its options under a name of its own (docs/add-an-encoder.md)"
            )
    found: dict[str, Variant] = {}
    for one in asked:
        if found.setdefault(one.label, one).encoder != one.encoder:
            raise SweepError(
                f"{one.encoder} and {found[one.label].encoder} have one name, which names their experiments: rename one"
            )
    return list(found.values())


def require_options(config: Path, overrides: tuple[Path, ...], varied: Sequence[Variant]) -> None:
    """Refuses configs by which encoders would run with other options than those that their experiments are named after.

    Raises:
        SweepError: If an override sets some, or a config has its own and not the variable's.
    """

    def options(text: str | None, *files: Path) -> dict[str, str]:
        variables = {} if text is None else {"ENCODER_OPTIONS": text}
        one = Experiment(
            task="", encoder="", label="", folder=Path(), config=config, overrides=files, variables=variables
        )
        return {key: value for key, value in one.settings().items() if key.startswith(_SETTING)}

    for text in dict.fromkeys(variant.variables.get("ENCODER_OPTIONS") for variant in varied):
        found = options(text, *overrides)
        if found != options(text):
            raise SweepError(
                f"{', '.join(map(str, overrides))}: {_SETTING} is part of who runs, and so of an experiment's name. "
                "Leave it out, and name it with the encoder: -e tap-b-3d+in_plane_size=512"
            )
        if text is not None and found != {_SETTING: text}:
            raise SweepError(
                f"{config}: {_SETTING} does not follow the variable ENCODER_OPTIONS, so no encoder can be run with "
                "options of its own. Write: encoder_options: ${oc.env:ENCODER_OPTIONS, null}"
            )


def parts_of(label: str) -> frozenset[str]:
    """Returns what a label, or a name on the command line, consists of: the encoder, and each thing that is varied."""
    return frozenset(filter(None, in_folders(label).replace("@", "+@").split("+")))


def meant(name: str, labels: Sequence[str]) -> list[str]:
    """Returns the labels that a name on the command line means: those with all its parts, whatever else is varied.

    Options may be spelt otherwise than labels have them. One that its encoder has by itself is in no label, and means
    the experiment without.

    Raises:
        SweepError: If its encoder has no such option.
    """
    if found := [label for label in labels if parts_of(name) <= parts_of(label)]:
        return found
    spelt = one_spelling(name)
    asked, kept = parts_of(name), parts_of(spelt)
    return [label for label in labels if (kept <= parts_of(label) if len(kept) == len(asked) else spelt == label)]


def one_spelling(name: str) -> str:
    """Returns a name as experiments have it; of an encoder that is not here, as it is.

    Raises:
        SweepError: If its encoder has no such option.
    """
    encoder, *behind = map(str.strip, in_folders(name).replace("@", "+@").split("+"))
    options = [part for part in behind if "=" in part and part.partition("=")[0].strip() not in _OURS]
    if not options:
        return name
    try:
        encoder_class(from_folders(encoder))
    except EncoderError:
        return name
    try:
        text = spell_options(parse_options(from_folders(encoder), "+".join(options)))
    except EncoderError as error:
        raise SweepError(str(error)) from error
    marks = "".join(part for part in behind if part.startswith("@"))
    others = [part for part in behind if part not in options and not part.startswith("@")]
    return "+".join(filter(None, [encoder + marks, text, *others]))


def _of_encoders(asked: str, known: Sequence[str], options: str | None) -> list[Variant]:
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise SweepError("name at least one encoder, or all")
    try:
        specs = [spec._replace(options=spec.options or options or "") for spec in map(parse_spec, names)]
    except EncoderError as error:
        raise SweepError(str(error)) from error
    return [
        one for spec in specs for one in (_of_all(spec, known) if spec.encoder == _ALL else [_of_encoder(spec, known)])
    ]


def _of_all(spec: Spec, known: Sequence[str]) -> list[Variant]:
    """Returns what "all" means: the encoders that can have what stands behind it; the others are left out, and said."""
    found = []
    for encoder in known:
        try:
            if spec.random and not _has_weights(encoder):
                continue
            if spec.options:
                _require_its_own(encoder, spec.options)
            found.append(_of_encoder(spec._replace(encoder=encoder), known))
        except (EncoderError, SweepError) as error:
            say(f"left out: {spec.behind(encoder)}: {error}")
    if not found:
        raise SweepError(f"no encoder can be had as {spec.behind(_ALL)}")
    return found


def _require_its_own(encoder: str, options: str) -> None:
    """Refuses an option of the card that an encoder has nothing of, such as a size of slices that it does not resize.

    By its name it may be set all the same.
    """
    card = card_of(encoder)
    for name in sorted(names_in(options)):
        if name in card.OPTIONS and getattr(card, name) is None:
            raise EncoderError(f"its card has no {name}; name the encoder itself to set it")


def _of_encoder(spec: Spec, known: Sequence[str]) -> Variant:
    encoder, name = _known(spec.encoder, known)
    if spec.random and not _has_weights(encoder):
        raise SweepError(f"'{encoder}{_RANDOM}': {encoder} has no weights that could be random; leave @random out")
    one = Variant(f"{name}{_RANDOM}", encoder, {"ENCODER_WEIGHTS": RANDOM}) if spec.random else Variant(name, encoder)
    if not spec.options:
        return one
    try:
        options = parse_options(encoder, spec.options)
        text = spell_options(options)
        if clash := sorted(_OURS & options.keys()):
            raise EncoderError(
                f"its option '{clash[0]}' has a name that experiments have for something else: rename it"
            )
    except EncoderError as error:
        raise SweepError(str(error)) from error
    if dropped := sorted(names_in(spec.options) - options.keys()):
        say(f"{encoder}: {', '.join(dropped)} is what it has by itself, and left out of the name")
    return _with(one, f"+{text}", {"ENCODER_OPTIONS": text}) if text else one


def _mistaken(plain: Sequence[Variant], mistake: str, known: Sequence[str], *, is_needed: bool) -> list[Variant]:
    """Returns encoders with a mistake; those with which it cannot be made are left out, and said.

    Raises:
        SweepError: If it is needed, and can be made with none of them.
    """
    found, refused = [], []
    for one in plain:
        options = "+".join(filter(None, [one.variables.get("ENCODER_OPTIONS"), f"{MISTAKE}={mistake}"]))
        try:
            found.append(_of_encoder(Spec(one.encoder, one.variables.get("ENCODER_WEIGHTS") == RANDOM, options), known))
        except SweepError as error:
            refused.append(str(error))
    if is_needed and not found:
        raise SweepError(f"no encoder can be run with the mistake '{mistake}': {'; '.join(refused)}")
    for why in refused:
        say(f"left out: {why}")
    return found


def _known(encoder: str, known: Sequence[str]) -> tuple[str, str]:
    """Returns an encoder as any process finds it, and its name as folders have it."""
    if not is_eva(encoder) and not is_named_by_place(encoder):
        if encoder not in known:
            raise SweepError(f"there is no encoder '{encoder}'. {nearest(encoder, known)}")
        return encoder, encoder
    try:
        name = in_folders(card_of(encoder).name if card_file(encoder) is None else encoder_name(encoder))
    except EncoderError as error:
        raise SweepError(str(error)) from error
    if (place := exported(encoder)) is not None:
        return place.absolute, name
    own = card_file(encoder)
    return encoder if own is None else f"{PREFIX}{own.absolute()}", name


def _has_weights(encoder: str) -> bool:
    return card_of(encoder).weights.needed


def _in_a_label(adaptor: str) -> str:
    """Returns the name of an adaptor as every file system takes it: `linear-mean-max` for `linear:mean+max`."""
    return re.sub(r"[:+&=]", "-", adaptor)


def _read_by(one: Variant, adaptor: str | None, known: Sequence[str]) -> Variant:
    """Returns the encoder that runs under an adaptor: where no features are read, chance for all, which costs least."""
    if adaptor is None or not reads_no_features(adaptor) or CHANCE not in known:
        return one
    if one.encoder != CHANCE:
        say(f"{adaptor} reads no features, and is the same for all encoders: it is run once, with {CHANCE}")
    return Variant(CHANCE, CHANCE, {"ENCODER_WEIGHTS": "null"})  # whatever weights were asked for the others


def _on(one: Variant, bag: str | None, adaptor: str | None) -> Variant:
    """Returns an encoder's experiment on a bag and under an adaptor; None of either is the plain one."""
    one = one if bag is None else _with(one, f"+bag={bag}", {"BAG": bag})
    return one if adaptor is None else _with(one, f"+adaptor={_in_a_label(adaptor)}", {"ADAPTOR": adaptor})


def _with(one: Variant, suffix: str, variables: Mapping[str, str]) -> Variant:
    return Variant(one.label + suffix, one.encoder, {**one.variables, **variables})


def _perturbations(asked: str | None) -> list[str]:
    if asked is None:
        return []
    from tapct.volumes.perturb import PERTURBATIONS

    return choose("perturbation", asked, dict.fromkeys(PERTURBATIONS, True))
