"""What a sweep varies beside encoder and task: random weights, adaptor, a share of the training patients, perturbation.

Each combination is a cell of its own. Its label, which is also the name of its folder, is the encoder's name with what
is varied behind it: `curia`, `curia@random`, `curia+adaptor=linear-max`, `curia+fraction=0.1+draw=2`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tapct.encoders import encoder_class
from tapct.errors import EncoderError, nearest
from tapct.sweep.cell import SweepError, choose

_RANDOM = "@random"


@dataclass(frozen=True)
class Variant:
    """An encoder with what is varied about its cells.

    Attributes:
        label: Names the cell among those of its task.
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
    fractions: Sequence[float] = (),
    draws: int = 1,
    perturbations: str | None = None,
) -> list[Variant]:
    """Returns what was asked for, each once, the plain ones first.

    Encoders and adaptors cross; shares and perturbations are each of every such pair, but not of one another.

    Args:
        encoders: Names by comma, each with `@random` behind it for random weights; `all` or `all@random`.
        known: The encoders that exist.
        adaptors: Names of adaptors (see `tapct.sweep.adaptors`); None is the task's own, which has no label.
        fractions: Shares of the training patients; 1 is all of them. Empty is 1.
        draws: How often patients are drawn for each share below 1.
        perturbations: Of the test scans, by comma, or "all"; each beside the unperturbed cell.

    Raises:
        SweepError: If a name does not exist, or a number cannot be.
    """
    base = [
        one if adaptor is None else _with(one, f"+adaptor={_in_a_label(adaptor)}", {"ADAPTOR": adaptor})
        for one in (_of_encoder(name, known) for name in _names(encoders, known))
        for adaptor in adaptors
    ]
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
    return list({one.label: one for one in asked}.values())


def encoder_of(label: str) -> str:
    """Returns the encoder that a cell's label names."""
    return label.partition("@")[0].partition("+")[0]


def _names(encoders: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in encoders.split(",") if name.strip()]
    if not names:
        raise SweepError("name at least one encoder, or all")
    everything = {"all": lambda: known, f"all{_RANDOM}": lambda: [k + _RANDOM for k in known if _can_be_random(k)]}
    return [full for name in names for full in (everything[name]() if name in everything else [name])]


def _of_encoder(name: str, known: Sequence[str]) -> Variant:
    encoder, at, weights = name.partition("@")
    if at and weights != "random":
        raise SweepError(f"'{name}': only @random may stand behind an encoder; give a weights file with --weights")
    if encoder not in known:
        raise SweepError(f"there is no encoder '{encoder}'. {nearest(encoder, known)}")
    if at and not _has_weights(encoder):
        raise SweepError(f"'{name}': {encoder} has no weights that could be random; leave @random out")
    return Variant(name, encoder, {"ENCODER_WEIGHTS": "random"} if at else {})


def _can_be_random(encoder: str) -> bool:
    """Returns whether "all" has random weights of an encoder; one that cannot be imported is left out, and said."""
    try:
        return _has_weights(encoder)
    except EncoderError as error:
        print(f"left out: {encoder}{_RANDOM}: {error}", file=sys.stderr)
        return False


def _has_weights(encoder: str) -> bool:
    return encoder_class(encoder).card.weights.needed


def _in_a_label(adaptor: str) -> str:
    """Returns the name of an adaptor as every file system takes it: `linear-mean-max` for `linear:mean+max`."""
    return adaptor.replace(":", "-").replace("+", "-")


def _with(one: Variant, suffix: str, variables: Mapping[str, str]) -> Variant:
    return Variant(one.label + suffix, one.encoder, {**one.variables, **variables})


def _perturbations(asked: str | None) -> list[str]:
    if asked is None:
        return []
    from tapct.volumes.perturb import PERTURBATIONS

    return choose("perturbation", asked, dict.fromkeys(PERTURBATIONS, True))
