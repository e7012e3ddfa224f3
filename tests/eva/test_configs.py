"""The configs of docs/eva.md through stock eva's own command line, in this process."""

import csv
import json
import multiprocessing
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from eva.__main__ import main

from tapct.errors import EncoderError
from tapct.eva import DenseEncoder
from tests.data import eva_tasks
from tests.eva import miniatures

DOCS = Path(__file__).parents[2] / "docs" / "eva.md"
CONFIGS = dict(re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))
IN_THIS_PROCESS = {"num_workers": 0, "pin_memory": False, "persistent_workers": False, "prefetch_factor": None}


@pytest.fixture(autouse=True)
def _start_method():
    """eva's data sets change it for the whole process."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def eva(monkeypatch, tmp_path: Path, command: str, *configs: str, root: Path, more=None, **variables: str) -> None:
    """Runs `eva COMMAND` on configs of the docs: one run of two steps on CPU."""
    of_all = {"DATA_ROOT": str(root), "N_RUNS": "1", "MAX_STEPS": "2", "VAL_CHECK_INTERVAL": "2"}
    of_all["EMBEDDINGS_ROOT"] = str(tmp_path / "embeddings")
    for name, value in (of_all | variables).items():
        monkeypatch.setenv(name, value)
    loaders = dict.fromkeys(("train", "val", *(["predict"] if command == "predict_fit" else [])), IN_THIS_PROCESS)
    short = {
        "trainer": {"init_args": {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}},
        "data": {"init_args": {"dataloaders": loaders}},
    }
    words = []
    for name, content in ((name, CONFIGS[name]) for name in configs):
        (tmp_path / name).write_text(content, encoding="utf-8")
        words += ["--config", str(tmp_path / name)]
    for number, content in enumerate(filter(None, (short, more))):
        (tmp_path / f"more{number}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        words += ["--config", str(tmp_path / f"more{number}.yaml")]
    monkeypatch.setattr(sys, "argv", ["eva", command, *words])
    main()


def results(tmp_path: Path) -> dict[str, float]:
    (path,) = tmp_path.glob("logs/*/*/results.json")
    (found,) = json.loads(path.read_text(encoding="utf-8"))["metrics"]["val"]
    return {name: value["mean"] for name, value in found.items()}


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def btcv(tmp_path_factory) -> Path:
    return miniatures.write(tmp_path_factory.mktemp("data"), "btcv")


@pytest.fixture
def watched(monkeypatch) -> list[tuple[tuple[int, ...], bool, bool]]:
    """What each call of a dense encoder got, whether anything was in training, and whether there are gradients."""
    seen, encode = [], DenseEncoder._encode

    def watch(self, scans):
        found = encode(self, scans)
        seen.append((tuple(scans.shape), any(m.training for m in self.modules()), found[0].requires_grad))
        return found

    monkeypatch.setattr(DenseEncoder, "_encode", watch)
    return seen


@pytest.mark.thorough
def test_eva_fit_trains_a_decoder_on_whole_scans(monkeypatch, tmp_path, btcv, watched):
    eva(monkeypatch, tmp_path, "fit", "btcv.yaml", root=btcv)
    assert 0 <= results(tmp_path)["val/DiceScore"] <= 1
    assert set(watched) == {((1, 1, 8, 80, 80), False, False)}
    assert len(watched) == 2 + 6 + 6, "two steps, a look at the validation scans, and the report"


def of_eva(name: str, **settings) -> dict:
    return {"class_path": f"eva.vision.data.transforms.{name}", "init_args": settings}


def flare22(root: Path, split: str, *more: dict) -> dict:
    """A data set with the transforms of eva's own config, but for those that scale intensities."""
    transforms = [of_eva("EnsureChannelFirst", channel_dim=1), of_eva("Spacing", pixdim=[3.0, 3.0, 3.0])]
    transforms += [of_eva("CropForeground", threshold=-500.0), *more]
    compose = {"class_path": "torchvision.transforms.v2.Compose", "init_args": {"transforms": transforms}}
    settings = {"root": str(root), "split": split, "transforms": compose}
    return {"class_path": "eva.vision.datasets.FLARE22", "init_args": settings}


@pytest.mark.thorough
def test_eva_fit_on_crops_and_windows_of_its_inferer_as_its_own_configs_have_it(monkeypatch, tmp_path, watched):
    root = miniatures.write(tmp_path / "data", "flare22")
    kwargs = {"out_indices": 1, "windows": True, "encoder_options": {"in_plane_size": None}}
    model = {
        "encoder": {
            "class_path": "eva.vision.models.ModelFromRegistry",
            "init_args": {"model_name": "tapct/tap-t-3d", "model_kwargs": kwargs},
        },
        "inferer": {
            "class_path": "monai.inferers.SlidingWindowInferer",
            "init_args": {"roi_size": [8, 64, 64], "sw_batch_size": 4, "overlap": 0.25, "cval": -1024.0},
        },
    }
    crops = [
        of_eva("RandCropByLabelClasses", spatial_size=[8, 64, 64], num_samples=2, num_classes=14),
        of_eva("RandFlip", spatial_axes=[0, 1, 2]),
        of_eva("RandRotate90", spatial_axes=[1, 2]),
    ]
    loader = {"batch_size": 2, "collate_fn": "eva.vision.data.dataloaders.collate_fn.collection_collate"}
    data = {
        "datasets": {"train": flare22(root, "train", *crops), "val": flare22(root, "val")},
        "dataloaders": {"train": IN_THIS_PROCESS | loader},
    }
    more = {"model": {"init_args": model}, "data": {"init_args": data}}
    eva(monkeypatch, tmp_path, "fit", "btcv.yaml", root=root, more=more)
    assert 0 <= results(tmp_path)["val/DiceScore"] <= 1
    assert set(watched) == {((4, 1, 8, 64, 64), False, False)}
    assert len(watched) == 2 + 11 + 11


def test_eva_validate_reports_a_decoder_as_it_is(monkeypatch, tmp_path, btcv, watched):
    eva(monkeypatch, tmp_path, "validate", "btcv.yaml", root=btcv, CHECKPOINT_TYPE="last")
    assert 0 <= results(tmp_path)["val/DiceScore"] <= 1
    assert watched == [((1, 1, 8, 80, 80), False, False)] * 6


def test_eva_ends_where_a_config_scales_intensities(monkeypatch, tmp_path, btcv):
    scale = of_eva("ScaleIntensityRange", input_range=[-175.0, 250.0], output_range=[0.0, 1.0])
    config = yaml.safe_load(CONFIGS["btcv.yaml"])["data"]["init_args"]["datasets"]
    config["val"]["init_args"]["transforms"]["init_args"]["transforms"].append(scale)
    more = {"data": {"init_args": {"datasets": {"val": config["val"]}}}}
    with pytest.raises(EncoderError, match="drop ScaleIntensityRange"):
        eva(monkeypatch, tmp_path, "validate", "btcv.yaml", root=btcv, more=more, CHECKPOINT_TYPE="last")


@pytest.mark.parametrize(
    "writer",
    [
        "tapct.eva.EmbeddingsWriter",
        pytest.param("eva.callbacks.SegmentationEmbeddingsWriter", marks=pytest.mark.slow),  # starts a process
    ],
)
def test_eva_predict_fit_trains_a_decoder_on_maps_that_either_writer_wrote(monkeypatch, tmp_path, btcv, writer):
    monkeypatch.setitem(CONFIGS, "offline.yaml", CONFIGS["offline.yaml"].replace("tapct.eva.EmbeddingsWriter", writer))
    eva(monkeypatch, tmp_path, "predict_fit", "btcv.yaml", "offline.yaml", root=btcv)
    assert 0 <= results(tmp_path)["val/DiceScore"] <= 1
    rows = manifest(tmp_path / "embeddings" / "btcv")
    assert [row["split"] for row in rows] == ["train"] * 24 + ["val"] * 6
    (maps,) = torch.load(tmp_path / "embeddings" / "btcv" / rows[0]["embeddings"])
    assert maps.shape == (192, 2, 16, 16)
    mask = torch.load(tmp_path / "embeddings" / "btcv" / rows[0]["target"])
    assert mask.shape == (1, 8, 80, 80)
    assert mask.max() > 0


def test_eva_predict_fit_trains_attention_on_bags(monkeypatch, tmp_path):
    root = tmp_path / "cc_ccii"
    eva_tasks.write_cc_ccii(root)
    before = set(root.rglob("*"))
    eva(monkeypatch, tmp_path, "predict_fit", "cc_ccii.yaml", root=root)
    assert 0 <= results(tmp_path)["val/MulticlassAccuracy"] <= 1
    rows = manifest(tmp_path / "embeddings" / "cc_ccii")
    assert [(row["embeddings"], row["target"]) for row in rows] == [
        (f"{'train' if part == 'train' else 'val'}/p{patient}-s{scan}.pt", eva_tasks.TARGETS[label])
        for (part, patient, scan), label in eva_tasks.SCANS.items()
    ]
    bags = [torch.load(tmp_path / "embeddings" / "cc_ccii" / row["embeddings"]).shape for row in rows]
    assert bags[:3] == [(4, 192), (8, 192), (8, 192)], "8, 9 and 10 slices in windows of 8"
    assert set(root.rglob("*")) == before, "nothing goes into the data folder"
