"""Feature packs: what one holds, what is refused, and that a probe on one gives what one on the scans gives."""

import copy
import json
import shlex
import shutil
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session

from tapct.encoders.card import Weights
from tapct.encoders.identity import identity
from tapct.errors import FeatureError, TaskError, WeightsError
from tapct.features import CacheMode, FeatureBank, TensorStore
from tapct.features.packed import PackedBank
from tapct.packs import commands, packing
from tapct.packs.unpacking import unpack
from tapct.probes import SegmentationProbe, Trainer
from tapct.records import read_record
from tapct.tasks import TaskData
from tapct.tasks.columns import code_of
from tapct.tasks.pack import MANIFEST_FILE, Pack
from tapct.tasks.packed import packed_datasets
from tapct.tasks.rsna2023 import SPEC as RSNA2023
from tests.data.abdomen import write_slabs
from tests.small import Small3D, known_by_name

CASES = {"c0": "train", "c1": "val", "c2": "test"}


@pytest.fixture(scope="module", autouse=True)
def _encoder_by_name():
    with known_by_name("small-3d", "tests.small:Small3D"):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three slabs of the quickstart's abdomen, as the cases of its task, and the features of them."""
    root = write_slabs(tmp_path_factory.mktemp("data"), CASES)
    FeatureBank(Small3D("random"), TensorStore(root / "features")).fill(task(root).parts)
    return root


def task(root: Path) -> TaskData:
    return TaskData("quickstart", str(root), split_file=str(root / "split.csv"))


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory) -> Path:
    """A pack with labels."""
    path = tmp_path_factory.mktemp("packs") / "pack.tar"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPCT_CACHE", str(root / "cache"))
        make(root, path, targets=True)
    return path


def make(root: Path, path: Path, *, targets: bool):
    bank = packing.bank_of({"encoder": "small-3d", "weights": "random"}, root / "features", "cpu")
    return packing.pack(bank, task(root), path, targets=targets)


def run(data: TaskData, folder: Path, features: str):
    """One seed of a small probe; returns its record."""
    probe = SegmentationProbe("small-3d", "random", learning_rates=[0.01, 0.1], overlays=1, feature_folder=features)
    trainer = Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        n_runs=1,
        max_steps=4,
        accumulate_grad_batches=1,
        val_check_interval=2,
        enable_progress_bar=False,
    )
    run_evaluation_session(trainer, probe, data, n_runs=1, verbose=False)
    (path,) = folder.glob("*/record.json")
    return read_record(path)


def test_a_probe_on_a_pack_gives_what_one_on_the_scans_gives_and_says_so(root, packed, tmp_path, monkeypatch):
    on_scans = run(task(root), tmp_path / "scans", str(root / "features"))
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "elsewhere"))
    pack = unpack(packed, tmp_path / "elsewhere")
    assert TensorStore(tmp_path / "elsewhere").files() == [], "never among what was extracted here"
    on_pack = run(TaskData("quickstart", pack=pack.name), tmp_path / "pack", str(tmp_path / "unused"))
    assert on_pack.runs == on_scans.runs
    assert on_pack.cell_size == on_scans.cell_size
    assert on_pack.task.split_sha256 == on_scans.task.split_sha256
    assert on_scans.feature_pack is None
    assert on_pack.feature_pack.sha256 == pack.sha256
    assert "features-from-pack" in [flag.id for flag in on_pack.flags]
    assert on_pack.fingerprint != on_scans.fingerprint
    assert not (tmp_path / "unused").exists()


def test_a_pack_in_int8_reads_as_the_store_does_and_without_its_scales_is_refused(root, tmp_path, monkeypatch):
    bank = FeatureBank(Small3D("random"), TensorStore(root / "features"), dtype="int8")
    bank.fill(task(root).parts)
    packing.pack(bank, task(root), tmp_path / "int8.tar", targets=False)
    pack = unpack(tmp_path / "int8.tar", tmp_path / "elsewhere")
    there = TensorStore(pack.folder)
    for case in pack.manifest.cases:
        for name, tensor in bank.store.load(case.features).tensors.items():
            assert torch.equal(there.load(case.features).tensors[name], tensor)
    spoiled = Spoiled(tmp_path / "int8.tar")
    spoiled.store_again(spoiled.first, tmp_path, lambda tensors: {k: tensors[k] for k in ("map", "embeddings")})
    spoiled.write(tmp_path / "spoiled.tar")
    with pytest.raises(FeatureError, match="no scale of 48 channels"):
        unpack(tmp_path / "spoiled.tar", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("made", "variables"),
    [
        ({}, "ENCODER_WEIGHTS=random"),
        ({"feature_dtype": "int8"}, "ENCODER_WEIGHTS=random FEATURE_DTYPE=int8"),
        (
            {"encoder_options": "window_size=16x64x64+pad_hu=-900"},
            "ENCODER_OPTIONS=pad_hu=-900+window_size=16x64x64 ENCODER_WEIGHTS=random",
        ),
    ],
    ids=["plain", "int8", "options"],
)
def test_what_unpack_says_reads_the_pack(root, tmp_path, monkeypatch, capsys, made, variables):
    """The variables of the hint, through a shipped config, give a bank that takes the pack."""
    bank = packing.bank_of({"encoder": "small-3d", "weights": "random", **made}, root / "features", "cpu")
    FeatureBank(bank.encoder, bank.store, dtype=bank.dtype).fill(task(root).parts)
    packing.pack(bank, task(root), tmp_path / "one.tar", targets=True)
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "elsewhere"))
    assert commands.unpack(str(tmp_path / "one.tar")) == 0
    (hint,) = (line for line in capsys.readouterr().out.splitlines() if "To probe it" in line)
    assert hint.endswith(f"ENCODER=small-3d {variables} eva fit --config CONFIG")
    for word in shlex.split(hint.removeprefix("To probe it: ")):
        if "=" in word:
            monkeypatch.setenv(*word.split("=", 1))
    model, data = packing.settings_of(Path("eva_configs/segmentation/amos22.yaml"))
    again, pack = packing.bank_of(model, tmp_path, "cpu"), Pack.find(data["pack"])
    reading = PackedBank(again.encoder, pack, mode=CacheMode.USE, dtype=again.dtype, overlap=0.0, fit=False)
    (part, *_) = TaskData("quickstart", pack=pack.name).parts
    reading.fill([part])
    assert reading.case(part, 0).features.map.shape[0] == 48


def test_packs_are_equal_byte_by_byte_but_for_what_is_asked_for(root, packed, tmp_path):
    again, without = make(root, tmp_path / "again.tar", targets=True), make(root, tmp_path / "no.tar", targets=False)
    with tarfile.open(packed) as archive:
        assert archive.extractfile(MANIFEST_FILE).read() == again.to_json().encode()
    assert [case.labels for case in without.cases] == [None] * 3
    assert len(without.entries) == 3
    assert len(again.entries) == 6
    assert again.cases[0].patient == "pc0"
    assert "Apache-2.0" in again.notice
    assert "/" not in again.encoder["weights"]


def test_a_pack_without_labels_is_refused_by_a_probe_which_says_why(root, tmp_path):
    make(root, tmp_path / "no.tar", targets=False)
    pack = unpack(tmp_path / "no.tar", tmp_path / "features")
    with pytest.raises(TaskError, match="holds features alone"):
        TaskData("quickstart", pack=str(pack.folder))


# -- What is refused ---------------------------------------------------------------------------------------


class Spoiled:
    """A pack to change: its manifest and files."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as archive:
            self.files = {m.name: archive.extractfile(m).read() for m in archive}
        self.manifest = json.loads(self.files.pop(MANIFEST_FILE))
        self.more: list[tarfile.TarInfo] = []

    def write(self, path: Path, mode: str = "w:") -> None:
        with tarfile.open(path, mode) as archive:
            for name, content in {**self.files, MANIFEST_FILE: json.dumps(self.manifest).encode()}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, BytesIO(content))
            for info in self.more:
                archive.addfile(info, BytesIO(b"x" * info.size))

    @property
    def first(self) -> str:
        return self.manifest["cases"][0]["features"]

    def name(self, key: str) -> str:
        return f"{key[:2]}/{key}.safetensors"

    def put(self, key: str, content: bytes) -> None:
        self.files[self.name(key)] = content
        self.manifest["entries"][key]["nbytes"] = len(content)

    def store_again(self, key: str, folder: Path, change: Callable[[dict], dict]) -> None:
        """Stores an entry as its maker could: checksum, size and manifest agree."""
        store = TensorStore(folder)
        store.path(key).parent.mkdir(parents=True)
        store.path(key).write_bytes(self.files[self.name(key)])
        entry = store.load(key)
        store.save(key, change({n: t.clone() for n, t in entry.tensors.items()}), entry.about)
        self.put(key, store.path(key).read_bytes())
        self.manifest["entries"][key]["sha256"] = TensorStore(folder).load(key).sha256


def member(name: str, size: int = 1, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size if kind == tarfile.REGTYPE else 0, kind, target
    return info


def _bits(pack: Spoiled, folder: Path) -> None:
    content = bytearray(pack.files[pack.name(pack.first)])
    content[-1] ^= 1
    pack.files[pack.name(pack.first)] = bytes(content)


def _swapped(pack: Spoiled, folder: Path) -> None:
    one, two = pack.manifest["cases"][:2]
    one["features"], two["features"] = two["features"], one["features"]


def _other_entry(pack: Spoiled, folder: Path) -> None:
    one, two = (case["features"] for case in pack.manifest["cases"][:2])
    pack.put(one, pack.files[pack.name(two)])


def _pickle(pack: Spoiled, folder: Path) -> None:
    buffer = BytesIO()
    torch.save({"map": torch.zeros(1)}, buffer)
    pack.put(pack.first, buffer.getvalue())


def _infinite(pack: Spoiled, folder: Path) -> None:
    def change(tensors):
        tensors["map"][0, 0, 0, 0] = torch.inf
        return tensors

    pack.store_again(pack.first, folder, change)


def _fewer_channels(pack: Spoiled, folder: Path) -> None:
    pack.store_again(pack.first, folder, lambda tensors: tensors | {"map": tensors["map"][1:]})


def _unknown_label(pack: Spoiled, folder: Path) -> None:
    pack.store_again(pack.manifest["cases"][0]["labels"], folder, lambda t: t | {"native": t["native"] + 100})


def _bad_key(pack: Spoiled, folder: Path) -> None:
    pack.manifest["entries"]["../../escaped"] = pack.manifest["entries"].pop(pack.first)
    pack.manifest["cases"][0]["features"] = "../../escaped"


def _bad_case(pack: Spoiled, folder: Path) -> None:
    pack.manifest["cases"][0]["case"] = "../../escaped"


def _bad_task(pack: Spoiled, folder: Path) -> None:
    pack.manifest["task"]["name"] = "../escaped"


def _size(pack: Spoiled, folder: Path) -> None:
    pack.manifest["entries"][pack.first]["nbytes"] += 1


def _twice(pack: Spoiled, folder: Path) -> None:
    pack.manifest["cases"][1]["case"] = pack.manifest["cases"][0]["case"]


HOSTILE = {
    "a path out of the folder": (lambda p, f: p.more.append(member("../escaped")), "does not name"),
    "an absolute path": (lambda p, f: p.more.append(member("/escaped")), "does not name"),
    "a link": (lambda p, f: p.more.append(member("link", kind=tarfile.SYMTYPE, target="/etc")), "not a plain file"),
    "a hard link": (lambda p, f: p.more.append(member("x", kind=tarfile.LNKTYPE, target=MANIFEST_FILE)), "not a plain"),
    "a device": (lambda p, f: p.more.append(member("x", kind=tarfile.CHRTYPE)), "not a plain file"),
    "a file twice": (lambda p, f: p.more.append(member(p.name(p.first))), "twice"),
    "a file that is missing": (lambda p, f: p.files.pop(p.name(p.first)), "lacks"),
    "another size": (_size, "its manifest says"),
    "a bit that was turned": (_bits, "checksum"),
    "an entry in the place of another": (_other_entry, "another key"),
    "features of another case": (_swapped, "say that they are"),
    "a pickle": (_pickle, "truncated or damaged"),
    "infinite features": (_infinite, "not finite"),
    "fewer channels than the card has": (_fewer_channels, "should be"),
    "labels that are no class": (_unknown_label, "the task has 12 classes"),
    "a key that is a path": (_bad_key, "not a manifest"),
    "a case that is a path": (_bad_case, "not a manifest"),
    "a task that is a path": (_bad_task, "not a name of a task"),
    "a case twice": (_twice, "there twice"),
    "an entry of another hash": (
        lambda p, f: p.manifest["entries"][p.first].update(sha256="0" * 64),
        "not the entry that",
    ),
    "a manifest that is none": (lambda p, f: p.manifest.clear(), "not a manifest"),
}


@pytest.mark.parametrize("spoil", HOSTILE)
def test_what_no_pack_should_be_is_refused_and_leaves_nothing(spoil, packed, tmp_path):
    change, words = HOSTILE[spoil]
    spoiled = Spoiled(packed)
    change(spoiled, tmp_path / "store")
    spoiled.write(tmp_path / "spoiled.tar")
    with pytest.raises(FeatureError, match=words):
        unpack(tmp_path / "spoiled.tar", tmp_path / "a" / "features")
    assert [path for path in (tmp_path / "a").rglob("*") if path.is_file()] == []
    assert not list(tmp_path.rglob("escaped"))


def test_what_is_no_pack_at_all_is_refused(packed, tmp_path):
    Spoiled(packed).write(tmp_path / "packed.tar.gz", "w:gz")
    (tmp_path / "cut.tar").write_bytes(packed.read_bytes()[:3000])
    (tmp_path / "text.tar").write_text("hello")
    for name, words in {
        "packed.tar.gz": "uncompressed",
        "cut.tar": "cut off|not a feature pack",
        "text.tar": "not a feature",
    }.items():
        with pytest.raises(FeatureError, match=words):
            unpack(tmp_path / name, tmp_path / "features")
    with pytest.raises(FeatureError, match="No such file"):
        unpack(tmp_path / "none.tar", tmp_path / "features")


@pytest.fixture(scope="module")
def unpacked(packed, tmp_path_factory) -> Pack:
    return unpack(packed, tmp_path_factory.mktemp("features"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mode": CacheMode.REFRESH}, "not 'refresh'"),
        ({"mode": CacheMode.OFF}, "not 'off'"),
        ({"dtype": "fp32"}, "feature_dtype bf16"),
        ({"overlap": 0.5}, "window_overlap 0.0"),
        ({"fit": True}, "fit_windows False"),
        ({"encoder": Small3D("random", window_size=(16, 64, 64))}, "card: window_size"),
    ],
)
def test_a_pack_of_other_settings_than_those_asked_for_is_refused(unpacked, asked, words):
    settings = {"mode": CacheMode.USE, "dtype": "bf16", "overlap": 0.0, "fit": False} | asked
    encoder = settings.pop("encoder", Small3D("random"))
    with pytest.raises(FeatureError, match=words):
        PackedBank(encoder, unpacked, **settings).fill([])


def test_published_weights_that_the_card_knows_need_not_be_here(unpacked, monkeypatch):
    class Published(Small3D):
        card = replace(Small3D.card, weights=Weights(file="model.safetensors", sha256="1" * 64))

        def published_weights(self):
            raise WeightsError("there is no network")

    content = unpacked.manifest.model_dump(mode="json")
    monkeypatch.setattr("tests.packs.test_packs.Published", Published, raising=False)
    bank = {"mode": CacheMode.USE, "dtype": "bf16", "overlap": 0.0, "fit": False}
    for weights, refused in (("1" * 64, False), ("2" * 64, True)):
        encoder = Published(deferred=True)
        content["identity"] |= {"weights": weights} | {
            key: json.loads(json.dumps(identity(encoder, torch.device("cpu"), weights)))[key]
            for key in ("class", "settings")
        }
        pack = Pack(unpacked.folder, type(unpacked.manifest).model_validate(content), "0" * 64)
        with pytest.raises(WeightsError, match="no network") if refused else nullcontext():
            PackedBank(encoder, pack, **bank).fill([])


def test_an_entry_that_was_changed_after_it_was_unpacked_is_not_read(unpacked, tmp_path):
    pack = Pack.read(Path(shutil.copytree(unpacked.folder, tmp_path / "pack")))
    case = pack.manifest.cases[0]
    store = TensorStore(pack.folder)
    entry = store.load(case.features)
    store.save(case.features, entry.tensors | {"map": entry.tensors["map"] * 2}, entry.about)
    bank = PackedBank(Small3D("random"), pack, mode=CacheMode.USE, dtype="bf16", overlap=0.0, fit=False)
    part = TaskData("quickstart", pack=str(pack.folder)).parts[0]
    bank.fill([part])
    with pytest.raises(FeatureError, match="it was changed"):
        bank.case(part, 0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"perturbation": "noise-30hu"}, "has no scans"),
        ({"split_file": "mine.csv"}, "its own split"),
        ({"options": {"a": 1}}, "was made with the options"),
        ({"task": "amos22"}, "of the task quickstart, not of amos22"),
    ],
)
def test_data_that_a_pack_cannot_give_are_refused(unpacked, asked, words):
    with pytest.raises(TaskError, match=words):
        TaskData(**{"task": "quickstart", "pack": str(unpacked.folder)} | asked)


def test_targets_of_classification_come_from_the_pack_and_masks_do_not(unpacked):
    content = copy.deepcopy(unpacked.manifest.model_dump(mode="json"))
    content["task"] |= {"name": "rsna2023", "classes": list(RSNA2023.classes), "version": RSNA2023.version}
    for number, case in enumerate(content["cases"]):
        case["targets"], case["labels"] = [int(k == number) for k in range(len(RSNA2023.classes))], None
    content["entries"] = {case["features"]: content["entries"][case["features"]] for case in content["cases"]}
    pack = Pack(unpacked.folder, type(unpacked.manifest).model_validate(content), "0" * 64)
    parts = packed_datasets(pack, "rsna2023", None, None, None)
    assert {split: part.target(part.cases[0]).tolist().index(1) for split, part in parts.items()} == {
        "train": 0,
        "val": 1,
        "test": 2,
    }
    with pytest.raises(TaskError, match="has no masks"):
        parts["train"].require_masks()
    positive = f"{RSNA2023.classes[1]}"
    assert positive in parts["val"].strata("c1")
    assert f"not {positive}" in parts["train"].strata("c0")
    with pytest.raises(TaskError, match="has no masks to pool features over"):
        parts["test"].require_masks()


def test_a_table_of_a_pack_has_the_levels_that_it_holds_and_no_numbers(unpacked):
    content = copy.deepcopy(unpacked.manifest.model_dump(mode="json"))
    content["task"] |= {"name": "rsna2023", "classes": list(RSNA2023.classes), "version": RSNA2023.version}
    for number, case in enumerate(content["cases"]):
        case["targets"], case["labels"] = [int(k == number) for k in range(len(RSNA2023.classes))], None
        case["levels"] = {"sex": ["f", "m", None][number], "age": "60 to 70 years"}
    content["entries"] = {case["features"]: content["entries"][case["features"]] for case in content["cases"]}
    pack = Pack(unpacked.folder, type(unpacked.manifest).model_validate(content), "0" * 64)
    parts = packed_datasets(pack, "rsna2023", None, None, None)
    columns = parts["train"].table_columns(["sex"])
    found = [part.values(part.cases[0], columns)[0] for part in parts.values()]
    assert found == pytest.approx([code_of("f"), code_of("m"), np.nan], nan_ok=True)
    with pytest.raises(TaskError, match="has levels of columns, and no numbers such as 'age'"):
        parts["train"].table_columns(["sex", "age"])
