"""The bank: what makes features new, what keeps them, and that nothing is extracted twice or wrongly."""

import importlib.util
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from loguru import logger
from torch.utils.data import DataLoader

from tapct.errors import EncoderError, FeatureError
from tapct.features import extract
from tapct.features.bank import EncodedCases, FeatureBank
from tapct.features.extract import WINDOWS_PER_BATCH
from tapct.features.identity import ScanHashes
from tapct.features.store import CacheMode, TensorStore
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.splits import SPLITS
from tapct.volumes import Grid
from tests.data.abdomen import block, save
from tests.features.processes import Child
from tests.small import CubicMillimetres, Small3D

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CASES = {"c0": "train", "c1": "train", "c2": "val", "c3": "test"}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Four slabs of the quickstart's abdomen, as the cases of its task."""
    root = tmp_path_factory.mktemp("data") / "quickstart"
    for number, case in enumerate(CASES):
        slab = block(60 + 12 * number)
        save(root / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / case / "organs.nii.gz", slab.organs, slab.affine)
    rows = [f"{case},p{case},{split}" for case, split in CASES.items()]
    (root / "split.csv").write_text("\n".join(["case,patient,split", *rows]))
    return root


@pytest.fixture
def data(original, tmp_path) -> Path:
    """The same, for spoiling."""
    return Path(shutil.copytree(original, tmp_path / "quickstart"))


def parts_of(root: Path, task=Quickstart):
    return [task(root, split, root / "split.csv") for split in SPLITS]


def filled(store: Path | TensorStore, parts, encoder=None, **settings) -> FeatureBank:
    """A bank as a new process has it, filled."""
    store = TensorStore(store.folder if isinstance(store, TensorStore) else store)
    bank = FeatureBank(encoder or CubicMillimetres("random", deferred=True), store, **settings)
    bank.fill(parts)
    return bank


def cases_of(bank: FeatureBank, parts):
    return {case.name: case for part in parts for case in EncodedCases(bank, part)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, case in one.items():
        assert torch.equal(case.features.map, other[name].features.map)
        assert torch.equal(case.features.embeddings, other[name].features.embeddings)
        assert torch.equal(case.target, other[name].target)
        assert torch.equal(case.labels, other[name].labels)


# -- Hits --------------------------------------------------------------------------------------------------


def test_the_second_run_reads_everything_and_builds_no_encoder(data, tmp_path):
    first = filled(tmp_path / "features", parts_of(data), Small3D("random", deferred=True))
    assert first.extracted == 4
    assert first.encoder.is_built
    parts = parts_of(data)
    second = filled(tmp_path / "features", parts, Small3D("random", deferred=True))
    cases = cases_of(second, parts)
    assert second.extracted == 0
    assert json.loads(json.dumps(second.description())) == json.loads(json.dumps(first.encoder.describe()))
    assert second.description()["parameters"] > 1000
    assert not second.encoder.is_built
    assert {name: case.patient for name, case in cases.items()} == {name: f"p{name}" for name in CASES}


def test_the_same_weights_under_another_name_are_a_hit(data, tmp_path):
    weights = Small3D("random").network.state_dict()
    for name in "ab":
        safetensors.torch.save_file(weights, tmp_path / f"{name}.safetensors")
    banks = [
        filled(tmp_path / "f", parts_of(data), Small3D(tmp_path / f"{n}.safetensors", deferred=True)) for n in "ab"
    ]
    assert [bank.extracted for bank in banks] == [4, 0]


# -- Misses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"spacing_mm": (5.0, 5.0, 5.0)}, {}),
        ({"precision": "bf16"}, {}),
        ({}, {"dtype": "fp32"}),
        ({}, {"overlap": 0.5}),
        ({}, {"fit_windows": True}),
    ],
    ids=["card option", "precision", "dtype", "overlap", "fit_windows"],
)
def test_another_setting_is_a_miss(options, settings, original, tmp_path):
    parts = parts_of(original)
    filled(tmp_path, parts)
    assert filled(tmp_path, parts, CubicMillimetres("random", deferred=True, **options), **settings).extracted == 4
    assert filled(tmp_path, parts).extracted == 0, "the first ones are still there"


def test_other_weights_are_a_miss(original, tmp_path):
    weights = Small3D("random").network.state_dict()
    for value in (0.0, 1e-3):
        weights["norm.bias"] = torch.full_like(weights["norm.bias"], value)
        safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
        bank = filled(tmp_path / "f", parts_of(original), Small3D(tmp_path / "weights.safetensors", deferred=True))
        assert bank.extracted == 4


def adapter(file: Path, lowest_hu: int) -> type[CubicMillimetres]:
    """A third-party encoder, whose range is in no card."""
    file.write_text(
        "from tests.small import CubicMillimetres\n\n"
        "class Clipped(CubicMillimetres):\n"
        f"    def _encode(self, x):\n        return super()._encode(x.clamp({lowest_hu}, 1000))\n",
        encoding="utf-8",
    )
    spec = importlib.util.spec_from_file_location("a_third_parties_adapter", file)
    module = sys.modules["a_third_parties_adapter"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Clipped


def test_another_constant_in_the_source_of_an_adapter_is_a_miss(original, tmp_path):
    parts = parts_of(original)
    maps = []
    for number, lowest_hu in enumerate((-1000, -150)):
        bank = filled(tmp_path, parts, adapter(tmp_path / f"adapter{number}.py", lowest_hu)("random", deferred=True))
        assert bank.extracted == 4
        maps.append(bank.case(parts[0], 0).features.map)
    assert not torch.equal(*maps)


class WithOption(Quickstart):
    option = "a"

    def describe(self):
        return {"option": self.option}


class NextVersion(Quickstart):
    spec = replace(Quickstart.spec, version=Quickstart.spec.version + 1)


def test_another_option_or_version_of_the_task_is_a_miss(original, tmp_path, monkeypatch):
    extracted = [filled(tmp_path, parts_of(original, task)).extracted for task in (Quickstart, NextVersion, WithOption)]
    monkeypatch.setattr(WithOption, "option", "b")
    extracted += [filled(tmp_path, parts_of(original, WithOption)).extracted for _ in range(2)]
    assert extracted == [4, 4, 4, 4, 0]


def test_another_format_of_the_store_is_a_miss(original, tmp_path, monkeypatch):
    filled(tmp_path, parts_of(original))
    for module in ("store", "identity"):
        monkeypatch.setattr(f"tapct.features.{module}.FORMAT", 99)
    assert filled(tmp_path, parts_of(original)).extracted == 4


def rewrite(path: Path, change) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.asanyarray(image.dataobj).copy()), image.affine), path)


def test_a_scan_that_changed_is_extracted_again_alone(data, tmp_path):
    parts = parts_of(data)
    before = filled(tmp_path / "f", parts).case(parts[0], 1).features.map
    rewrite(data / "c1" / "ct.nii.gz", lambda hu: hu + 50)
    bank = filled(tmp_path / "f", parts)
    assert bank.extracted == 1
    assert not torch.equal(bank.case(parts[0], 1).features.map, before)


def test_new_labels_need_no_new_features(data, tmp_path):
    parts = parts_of(data)
    before = filled(tmp_path / "f", parts).case(parts[0], 0)
    rewrite(data / "c0" / "organs.nii.gz", lambda organs: np.where(organs == 5, 1, organs).astype(np.uint8))
    bank = filled(tmp_path / "f", parts)
    after = bank.case(parts[0], 0)
    assert bank.extracted == 0
    assert not bank.encoder.is_built
    assert torch.equal(after.features.map, before.features.map)
    for old, new in ((before.target, after.target), (before.labels, after.labels)):
        assert (old == 2).any()  # liver, which is now called spleen
        assert torch.equal(new, torch.where(old == 2, 1, old))


def test_content_is_hashed_again_when_a_file_changed(tmp_path):
    folder, header, voxels = tmp_path / "dicom", tmp_path / "ct.mhd", tmp_path / "voxels.bin"
    folder.mkdir()
    (folder / "1.dcm").write_text("slice")
    voxels.write_text("one")
    header.write_text("NDims = 3\nDimSize = 1 1 1\nElementDataFile = voxels.bin\n")
    hashes = ScanHashes(tmp_path / "hashes")
    of_folder, of_header = hashes.of([folder]), hashes.of([header])
    assert ScanHashes(tmp_path / "hashes").of([header]) == of_header
    voxels.write_text("two")
    (folder / "2.dcm").write_text("slice")
    assert ScanHashes(tmp_path / "hashes").of([header]) != of_header
    assert ScanHashes(tmp_path / "hashes").of([folder]) != of_folder
    with pytest.raises(FeatureError, match=r"cannot read .*missing.*tapct doctor"):
        hashes.of([tmp_path / "missing"])


# -- Exactness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder_class", [Small3D, CubicMillimetres])
def test_stored_features_are_those_of_the_scan_alone(encoder_class, original, tmp_path):
    parts, encoder = parts_of(original), encoder_class("random")
    stored = {
        dtype: cases_of(filled(tmp_path, parts, encoder, dtype=dtype), parts) for dtype in ("fp32", "bf16", "fp16")
    }
    for part in parts:
        for volume, mask, metadata in part:
            hu = volume.as_subclass(torch.Tensor)[:, 0]
            grid = Grid.of(hu.shape, metadata["affine"].numpy())
            plain = extract(encoder, hu, grid)
            for dtype, of in DTYPES.items():
                case = stored[dtype][metadata["case"]]
                assert torch.equal(case.features.map, plain.map.to(of))
                assert torch.equal(case.features.embeddings, plain.embeddings.to(of))
                assert case.to(torch.device("cpu")).features.map.dtype == torch.float32
                assert case.features.padding == plain.padding
                for name in ("native_grid", "encoder_grid", "feature_grid"):
                    stored_grid, plain_grid = getattr(case.features, name), getattr(plain, name)
                    assert stored_grid.shape == plain_grid.shape
                    assert np.array_equal(stored_grid.affine, plain_grid.affine)
                assert torch.equal(case.target, mask.as_subclass(torch.Tensor)[:, 0])
                assert tuple(case.labels.shape) == tuple(plain.encoder_grid.shape)


def test_the_number_of_workers_changes_nothing(original, tmp_path):
    parts = parts_of(original)
    none, two = (cases_of(filled(tmp_path / f"{n}", parts, num_workers=n, dtype="fp32"), parts) for n in (0, 2))
    assert_same(none, two)


def test_a_bank_works_in_the_workers_of_a_loader_however_they_are_started(original, tmp_path):
    parts = parts_of(original)
    bank = filled(tmp_path, parts)
    dataset = EncodedCases(bank, parts[0])
    (forked, _) = DataLoader(dataset, batch_size=None, num_workers=1)
    pickled = pickle.loads(pickle.dumps(dataset))[0]
    assert_same({"c0": dataset[0]}, {"c0": forked})
    assert_same({"c0": dataset[0]}, {"c0": pickled})


# -- Interrupted, together ---------------------------------------------------------------------------------


class Dying(CubicMillimetres):
    """Kills its process in the second batch of windows, of two cases each, when the first is stored."""

    dies_with: TensorStore | None = None
    batches = 0

    def _encode(self, windows_hu):
        type(self).batches += 1
        if self.dies_with is not None and self.batches == 2:
            while len(self.dies_with.files()) < 4:  # features and labels of two cases
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._encode(windows_hu)


def test_a_killed_extraction_resumes_where_it_stopped(original, tmp_path, monkeypatch):
    parts = parts_of(original)
    monkeypatch.setitem(WINDOWS_PER_BATCH, "cpu", 8)
    monkeypatch.setattr(Dying, "dies_with", TensorStore(tmp_path / "f"))
    with pytest.raises(EOFError):
        Child(lambda _: filled(tmp_path / "f", parts, Dying("random", deferred=True))).receive()
    monkeypatch.setattr(Dying, "dies_with", None)
    resumed = filled(tmp_path / "f", parts, Dying("random", deferred=True))
    assert resumed.extracted == 2
    straight = filled(tmp_path / "g", parts, Dying("random", deferred=True))
    assert_same(cases_of(resumed, parts), cases_of(straight, parts))


class Slow(CubicMillimetres):
    def _encode(self, windows_hu):
        time.sleep(0.5)
        return super()._encode(windows_hu)


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.thorough)])
def test_two_processes_share_the_cases_and_extract_each_once(num_workers, original, tmp_path):
    parts = parts_of(original)

    def run(send):
        bank = filled(tmp_path, parts, Slow("random", deferred=True), num_workers=num_workers)
        send(bank.extracted)
        return {name: float(case.features.map.float().sum()) for name, case in cases_of(bank, parts).items()}

    children = [Child(run) for _ in range(2)]
    extracted = [child.receive() for child in children]
    assert sum(extracted) == 4
    assert num_workers or min(extracted) > 0, "the work is shared"
    sums = [child.receive() for child in children]
    assert sums[0] == sums[1]


class Stuck(Small3D):
    """Never comes back from its first batch, if told so: by then its process holds the locks of all four cases."""

    tell = None

    def _encode(self, windows_hu):
        if self.tell:
            self.tell("stuck")
            time.sleep(60)
        return super()._encode(windows_hu)


def test_processes_that_wait_for_the_same_cases_in_another_order_do_not_wait_for_ever(original, tmp_path):
    def run(send, order, stuck):
        Stuck.tell = send if stuck else None
        return filled(tmp_path, parts_of(original)[::order], Stuck("random", deferred=True)).extracted

    holder = Child(run, 1, True)
    assert holder.receive() == "stuck"
    waiting = [Child(run, order, False) for order in (1, -1)]
    time.sleep(1)
    holder.kill()
    assert sum(child.receive() for child in waiting) == 4


# -- Faults ------------------------------------------------------------------------------------------------


@pytest.fixture
def warnings():
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(sink)


def features_file(bank: FeatureBank, case: str) -> Path:
    for file in bank.store.files():
        about = bank.store.about(file.key)
        if (about["kind"], about["case"]) == ("features", case):
            return file.path
    raise AssertionError(f"no features of {case}")


def test_a_damaged_entry_is_said_and_extracted_again_but_not_where_only_reading_is_allowed(data, tmp_path, warnings):
    parts = parts_of(data)
    whole = filled(tmp_path / "f", parts)
    expected = cases_of(whole, parts)
    path = features_file(whole, "c2")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.unlink()  # what was loaded is mapped to the old file
    path.write_bytes(content)
    with pytest.raises(FeatureError, match=r"features of 1 of 4 cases of quickstart, such as c2, are not .*damaged"):
        filled(tmp_path / "f", parts, mode=CacheMode.ONLY_CACHED)
    assert path.exists()
    warnings.clear()
    again = filled(tmp_path / "f", parts)
    assert again.extracted == 1
    (warning,) = warnings
    assert "quickstart, case c2: " in warning
    assert "does not match its checksum" in warning
    assert_same(cases_of(again, parts), expected)


def test_only_cached_names_the_cases_that_are_missing_and_writes_nothing(original, tmp_path):
    with pytest.raises(FeatureError, match=r"4 of 4 cases of quickstart, such as c0, c1, c2, .*Run once with .*'use'"):
        filled(tmp_path / "f", parts_of(original), mode="only-cached")
    assert not list((tmp_path / "f").glob("??/*"))


def test_refresh_extracts_everything_again_and_off_has_no_bank(original, tmp_path):
    parts = parts_of(original)
    assert [filled(tmp_path, parts, mode=mode).extracted for mode in ("use", "refresh")] == [4, 4]
    with pytest.raises(FeatureError, match="in the mode 'off' there must be none"):
        filled(tmp_path, parts, mode=CacheMode.OFF)
    with pytest.raises(FeatureError, match=r"as bf16, fp16, fp32, int8, not as 'int4'"):
        filled(tmp_path, parts, dtype="int4")


def test_a_full_store_on_a_read_only_disk_serves_a_run(original, tmp_path):
    root = Path(shutil.copytree(original, tmp_path / "data"))
    store = tmp_path / "features"
    expected = filled(store, parts_of(root)).case(parts_of(root)[0], 0)
    shutil.rmtree(store / "hashes")
    folders = [tmp_path, store, *(path for path in store.iterdir() if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)

    def run(_send, mode):
        parts = parts_of(root)
        bank = filled(store, parts, mode=mode)
        return bank.extracted, bank.encoder.is_built, cases_of(bank, parts)["c0"].features.map.float().numpy()

    for mode in ("use", "only-cached"):
        extracted, built, feature_map = Child(run, mode, bound=True).receive()
        assert (extracted, built) == (0, False)
        assert np.array_equal(feature_map, expected.features.map.float())
    with pytest.raises(FeatureError, match=r"cannot (write|store) .*under .*features: .*denied.*TAPCT_FEATURES"):
        Child(run, "refresh", bound=True).receive()
    for folder in folders:
        folder.chmod(0o755)


def test_a_disk_that_fills_up_during_extraction_ends_it_clearly_and_keeps_what_was_done(original, tmp_path):
    parts = parts_of(original)

    def run(_send):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
        filled(tmp_path, parts)

    with pytest.raises(FeatureError, match=r"cannot store .*File too large"):
        Child(run).receive()
    assert not list(tmp_path.glob("??/.*"))
    assert filled(tmp_path, parts).extracted == 4


class Broken(CubicMillimetres):
    """Gives what the test wants in place of features."""

    def __init__(self, what: str, value: float) -> None:
        super().__init__("random", deferred=True)
        self.what, self.value = what, value

    def _encode(self, windows_hu):
        features = super()._encode(windows_hu)
        return features._replace(**{self.what: torch.full_like(getattr(features, self.what), self.value)})


@pytest.mark.parametrize("what", ["map", "embedding"])
@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (float("nan"), "bf16", "cubic gives features that are not finite for c0$"),
        (float("inf"), "fp32", "cubic gives features that are not finite for c0$"),
        (1e5, "fp16", r"features up to 1e\+05 for c0, too large for fp16\. Store them as bf16 or fp32"),
    ],
)
def test_features_that_are_not_finite_are_never_stored(what, value, dtype, message, original, tmp_path):
    with pytest.raises(EncoderError, match=message):
        filled(tmp_path, parts_of(original), Broken(what, value), dtype=dtype)
    assert not list(tmp_path.glob("??/*.safetensors"))


class Poisoned(Quickstart):
    """A task whose own reading breaks one voxel of a case."""

    poisoned = ("c1",)

    def read(self, case):
        ct, target = super().read(case)
        if case in self.poisoned:
            ct.hu[3, 20, 20] = np.nan
        return ct, target


def test_a_broken_scan_is_named_and_those_before_it_are_stored_whatever_shares_a_batch(original, tmp_path, monkeypatch):
    monkeypatch.setitem(WINDOWS_PER_BATCH, "cpu", 64)
    with pytest.raises(EncoderError, match="cubic cannot encode quickstart, case c1: the values are NaN or infinite"):
        filled(tmp_path, parts_of(original, Poisoned))
    monkeypatch.setattr(Poisoned, "poisoned", ())
    bank = filled(tmp_path, [parts_of(original, Poisoned)[0]], mode=CacheMode.USE)
    assert bank.extracted == 1, "only the broken scan was left to extract"


def test_a_case_that_the_bank_was_not_filled_with_is_a_clear_error(original, tmp_path):
    train, val, test = parts_of(original)
    bank = filled(tmp_path, [train])
    bank.fill([test])
    assert (bank.case(train, 1).name, bank.case(test, 0).name) == ("c1", "c3")
    with pytest.raises(FeatureError, match=r"not filled with the case c2 of 'val': call `fill` first"):
        bank.case(val, 0)
    features_file(bank, "c3").unlink()
    with pytest.raises(FeatureError, match=r"the features of c3 are no longer in .*; run again"):
        bank.case(test, 0)


# -- Classification ----------------------------------------------------------------------------------------


class Liver(ClassificationDataset):
    """Whether the liver is in sight, from a table of the test's own."""

    spec = replace(Quickstart.spec, name="liver", kind="classification", classes=("liver",), metric="MicroAUROC")

    def ct_path(self, case):
        return self.root / case / "ct.nii.gz"

    def target_paths(self, case):
        return [self.root / "liver.json"]

    def targets(self, case):
        return json.loads((self.root / "liver.json").read_text(encoding="utf-8"))[case]


def test_targets_of_a_classification_task_are_read_and_not_stored(data, tmp_path):
    (data / "liver.json").write_text(json.dumps({case: [int(case > "c1")] for case in CASES}))
    parts = parts_of(data, Liver)
    bank = filled(tmp_path / "f", parts, CubicMillimetres("random", deferred=True), fit_windows=True)
    cases = cases_of(bank, parts)
    assert {name: case.target.tolist() for name, case in cases.items()} == {c: [int(c > "c1")] for c in CASES}
    assert all(case.labels is None for case in cases.values())
    assert len(bank.store.files()) == bank.extracted == 4
