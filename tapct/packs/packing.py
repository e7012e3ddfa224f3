"""Making a pack of the stored features of a task."""

import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tapct._utils import terminal
from tapct.encoders import Encoder, load_encoder
from tapct.encoders.options import is_spellable, parse_options, spell_options, with_precision
from tapct.errors import FeatureError, TaskError
from tapct.features import CacheMode, FeatureBank, TensorStore
from tapct.features.store import StoredEntry
from tapct.tasks import CTDataset, TaskData
from tapct.tasks.pack import MANIFEST_FILE, Manifest, PackedCase, PackedEntry, as_packed

NOTICE = (
    "These features are derived from the scans of {task} ({data}) by the weights of {encoder} ({weights}). A licence "
    "or an agreement on use may cover derived data and forbid to pass them on, as may the licence of the weights. "
    "Nobody is given a right here that these licences do not give."
)


OF_FEATURES = ("precision", "feature_dtype", "window_overlap", "fit_windows")
"""Arguments of a probe that decide which features of a scan are stored, next to the encoder (`bank_of`)."""

OF_SCANS = ("num_workers", "split_file", "options", "accept_orientation")
"""Arguments of the data that decide of which scans (`task_of`)."""


def settings_of(config: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the arguments of the model and of the data in a config of eva, with the variables of this process.

    Raises:
        FeatureError: If it cannot be read.
    """
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
        return content["model"]["init_args"], content["data"]["init_args"]
    except (OSError, ValueError, LookupError, TypeError, OmegaConfBaseException) as error:
        raise FeatureError(f"the config {config} cannot be read: {error}") from error


def bank_of(model: dict[str, Any], store: Path, device: str) -> FeatureBank:
    """Returns the bank whose keys are those of a run of a config.

    Args:
        model: Arguments of the probe.
        store: The feature folder.
        device: Where the run was, which decides the precision: "cpu" or "cuda".
    """
    options = parse_options(model["encoder"], model.get("encoder_options"))
    asked = with_precision(options, model.get("precision", "auto"))
    # A variable comes as text: `ENCODER_WEIGHTS=null` are the published ones.
    weights = None if model.get("weights") == "null" else model.get("weights")
    encoder = load_encoder(model["encoder"], weights, deferred=True, **asked)
    return FeatureBank(
        encoder,
        TensorStore(store),
        mode=CacheMode.ONLY_CACHED,
        dtype=model.get("feature_dtype", "bf16"),
        overlap=model.get("window_overlap", 0.0),
        fit_windows=model.get("fit_windows", False),
        device=device,
    )


def task_of(data: dict[str, Any]) -> TaskData:
    """Returns the task of a config with all its patients, and its scans as they are.

    Args:
        data: Arguments of the data.
    """
    return TaskData(
        data["task"],
        data.get("data_root"),
        num_workers=int(data.get("num_workers") or 0),  # a variable comes as text
        split_file=data.get("split_file"),
        options=data.get("options"),
        accept_orientation=data.get("accept_orientation"),
    )


def pack(bank: FeatureBank, data: TaskData, path: Path, *, targets: bool) -> Manifest:
    """Writes the features of a task's cases into one file.

    Args:
        bank: Whose store has them.
        data: The task; all its files are there.
        path: The file: an uncompressed tar of safetensors files and a manifest.
        targets: Whether labels or targets of the data set go into it.

    Raises:
        FeatureError: If features are missing, or the file cannot be written.
        TaskError: If a case cannot be used.
    """
    if data.folds is not None:
        raise TaskError(
            f"{data.spec.name} is cross-validated: every case trains and is reported, and a pack has it once"
        )
    data.setup("fit")  # reads what was not found valid before
    bank.fill(data.parts)
    cases = [_case(bank, part, index, targets) for part in data.parts for index in range(len(part))]
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys(key for case in cases for key in (case.labels, case.features) if key is not None))
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            part = Path(folder) / path.name
            with tarfile.open(part, "w:", format=tarfile.PAX_FORMAT) as archive:
                copied = _copied(bank.store, keys, TensorStore(Path(folder) / "entries"), archive)
                manifest = _manifest(bank, data, cases, dict(zip(keys, copied, strict=True)), targets)
                _add(archive, MANIFEST_FILE, manifest.to_json().encode())
            part.replace(path)
    except OSError as error:
        raise FeatureError(f"cannot write {path}: {error.strerror or error}") from error
    return manifest


def _case(bank: FeatureBank, part: CTDataset, index: int, targets: bool) -> PackedCase:
    case = part.cases[index]
    features, labels = bank.keys(part, index)
    has_targets = targets and not part.spec.of_kind.dense
    return PackedCase(
        case=case,
        patient=part.patient(case),
        split=part.split,
        features=features,
        labels=labels if targets else None,
        targets=as_packed(part.target(case)) if has_targets else None,  # type: ignore[attr-defined]
        levels=part.levels(case, part.spec.shortcuts) if has_targets else None,
    )


def _copied(store: TensorStore, keys: list[str], own: TensorStore, archive: tarfile.TarFile) -> Iterator[PackedEntry]:
    """Adds entries to the archive, without the place that their weights had on this machine."""
    for key in terminal.track(keys, "packing", total=len(keys)):
        entry = store.load(key)
        if entry is None:
            raise FeatureError(f"{store.path(key)} is no longer there; run again")
        about = entry.about
        if "encoder" in about:
            about = about | {"encoder": _without_place(about["encoder"])}
        own.save(key, entry.tensors, about, compress=about["kind"] == "labels")
        path = own.path(key)
        archive.add(path, path.relative_to(own.folder).as_posix(), filter=_anonymous)
        yield PackedEntry(sha256=_loaded(own, key).sha256, nbytes=path.stat().st_size)
        own.remove(key)


def _loaded(store: TensorStore, key: str) -> StoredEntry:
    entry = store.load(key)
    assert entry is not None
    return entry


def _without_place(encoder: dict[str, Any]) -> dict[str, Any]:
    return encoder | {"weights": Path(str(encoder["weights"])).name}


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leaves time and owner out: equal features make equal packs, and none says whose machine it was."""
    info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode = 0, 0, 0, "", "", 0o644
    return info


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = _anonymous(tarfile.TarInfo(name))
    info.size = len(content)
    archive.addfile(info, BytesIO(content))


def _manifest(
    bank: FeatureBank, data: TaskData, cases: list[PackedCase], entries: dict[str, PackedEntry], targets: bool
) -> Manifest:
    spec, encoder = data.spec, bank.encoder
    licences: dict[Any, str | None] = {"data": spec.licence, "weights": encoder.card.weights.licence}
    return Manifest(
        made_with=version("tapct-bench"),
        notice=notice(data, encoder),
        licences=licences,
        has_targets=targets,
        task=data.describe(),
        encoder=_without_place(bank.description()),
        identity=bank.identity,
        windows={"overlap": bank.overlap, "fit": bank.fit_windows},
        options=spell_options({name: value for name, value in encoder.options.items() if is_spellable(value)}),
        dtype=bank.dtype,  # type: ignore[arg-type]  # checked by both
        cases=tuple(cases),
        entries=entries,
    )


def notice(data: TaskData, encoder: Encoder) -> str:
    """Returns what must be said of features that leave this machine: whose licences bind them."""
    card = encoder.card
    weights = card.weights.licence or "licence not known"
    if not card.weights.needed:
        weights = "none"
    return NOTICE.format(
        task=data.spec.display_name, data=data.spec.licence, encoder=card.display_name, weights=weights
    )
