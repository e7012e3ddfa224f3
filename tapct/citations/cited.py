"""Which works stand behind a task and an encoder, and why there are none where there are none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapct.citations.works import entries_of, works

if TYPE_CHECKING:
    from tapct.records import Record


@dataclass(frozen=True)
class Cited:
    """What is to be cited for one thing.

    Attributes:
        what: The thing, in words.
        entries: BibTeX by key; empty where none is established.
        why: Why there is none, or what is to be said next to them.
    """

    what: str
    entries: dict[str, str]
    why: str | None = None


_OURS = "a baseline of TAP-CT Bench: the benchmark is its citation"

_ENCODERS: dict[str, tuple[tuple[str, ...], str | None]] = {
    **{f"tap-{size}-{kind}": (("veenboer2025tapct",), None) for size in "sb" for kind in ("2d", "2.5d", "3d")},
    "tap-t-3d": (("veenboer2025tapct",), "pretrained by TAP-CT Bench itself after the recipe of this paper"),
    "curia": (("dancette2025curia",), None),
    "curia-2": (("saporta2026curia2",), None),
    "coralbay": (("gatopoulos2026coralbay",), None),
    "ct-clip": (("hamamci2026ctrate",), None),
    "suprem": (("li2024suprem",), None),
    "ct-fm": (("pai2025ctfm",), None),
    "vista3d": (("he2025vista3d",), None),
    "voco-b": (("wu2024voco", "wu2026voco"), None),
    "fmcib": (("pai2024fmcib",), None),
    "voxelfm": (("morenoaguado2026voxelfm",), None),
    "merlin": (("blankemeier_kumar2026merlin",), None),
    "astra": (("wang2026astra",), None),
    "flexict-3d": (("li2026universal",), None),
    "spectre": (("claessens2025spectre",), None),
    "colipri": (("wald2025colipri",), None),
    "nnfoundation-vit": (("harsy2026nnfoundation",), None),
    "radiomics": (("zwanenburg2016ibsi",), "a baseline of TAP-CT Bench; these are the definitions of its features"),
    **dict.fromkeys(("chance", "intensity", "body-size", "organ-centre", "random-pyramid"), ((), _OURS)),
    "eva:segresnet_encoder": (("myronenko2019segresnet",), "the architecture; no weights are published by this name"),
    "eva:radiology/swin_unetr_encoder": (
        ("hatamizadeh2022swinunetr",),
        "the architecture; no weights are published by this name",
    ),
    "eva:radiology/universal_swinunetr": (("liu2023universal",), None),
    **{f"eva:radiology/suprem_{network}": (("li2024suprem",), None) for network in ("swin_unetr", "segresnet")},
    **{f"eva:radiology/voco_{size}": (("wu2024voco", "wu2026voco"), None) for size in "blh"},
}
"""Of the encoders that ship, by name. Next to the adapters and not in them: these are compared with their authors' code
and key stored features, none of which a citation should undo."""

_TASKS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "quickstart": (("wasserthal2023totalsegmentator",), "its two scans are TotalSegmentator's reference files"),
    "amos22": (("ji2022amos",), None),
    "lits17": (("bilic2022lits",), None),
    "kits23": (("heller2023kits21",), "of the challenge before, as the TAP-CT paper cites it for KiTS23"),
    "totalsegmentator": (("wasserthal2023totalsegmentator",), None),
    "msd_pancreas": (("simpson2019msd",), None),
    "luna16": (("setio2017luna16", "armato2011lidc", "armato2015lidcidri"), None),
    "luna25": (("peeters2025luna25annotations", "peeters2025luna25images"), None),
    "rsna2022": (("lin2023rsnacspine",), None),
    "rsna2023": (("rudie2024ratic", "hermans2025rsnaabdominal"), None),
    "fdg_pet_ct": (("gatidis2022fdgpetct",), None),
    "btcv": (("landman2015btcv",), None),
    "flare22": (("ma2023flare22",), None),
    "word": (("luo2022word",), None),
    "cc_ccii": (("zhang2020ccccii",), None),
    "ictcf_lab": (("ning2020ictcf",), None),
    "osic_fvc": ((), "no work was found that its users are asked to cite: see the data use agreement of OSIC"),
}
"""Of the data of tasks that ship, by release, where the task's own module has none (`TaskSpec.citation`)."""

BENCHMARK = Cited("TAP-CT Bench", {"tapctbench": works()["tapctbench"]})
EVA = Cited("eva, which ran it", {"kaiko.ai2024eva": works()["kaiko.ai2024eva"]})


def of_task(name: str) -> Cited:
    """Returns what to cite for the data of a task.

    Args:
        name: Of a task; it need not be installed here.
    """
    from tapct.tasks.registry import spec_of

    spec = spec_of(name)
    what = f"the data of {name}"
    if spec is not None and spec.citation is not None:
        return Cited(what, entries_of(spec.citation))
    if (known := _TASKS.get(name if spec is None else spec.folder)) is not None:
        return _of(what, *known)
    if spec is None:
        return Cited(what, {}, "no such task is installed here, so what it asks to be cited is not known")
    return Cited(what, {}, f"the task states no citation; its data: {spec.source}")


def of_encoder(name: str, reference: str | None = None) -> Cited:
    """Returns what to cite for an encoder.

    Args:
        name: Of its card.
        reference: What its card says of its source, for an encoder of which no BibTeX is known here.
    """
    what = f"the encoder {name}"
    if (known := _ENCODERS.get(name)) is not None:
        return _of(what, *known)
    says = f"its card says: {reference}" if reference else "its card names no source either"
    return Cited(what, {}, f"no BibTeX of it is known here; {says}")


def of_record(record: "Record") -> list[Cited]:
    """Returns what to cite for a result: data, encoder, eva, and the benchmark."""
    card = record.encoder.card
    encoder = of_encoder(card.name, card.reference)
    if record.imported is not None:
        about = record.imported.about or "who imported it said nothing about it"
        encoder = Cited(f"the model {card.display_name}", {}, f"its predictions were made elsewhere; {about}")
    return [of_task(record.task.name), encoder, *([] if record.imported is not None else [EVA]), BENCHMARK]


def _of(what: str, keys: tuple[str, ...], why: str | None) -> Cited:
    return Cited(what, {key: works()[key] for key in keys}, why)
