"""results.json of stock eva runs on the page: references, never ranked."""

import copy
import csv
import json
import statistics

import pytest
import yaml
from eva.core.trainers._recorder import SessionRecorder

from tapct.errors import RecordError
from tapct.leaderboard import site
from tapct.leaderboard.eva_results import TASKS, read
from tests.leaderboard import results

VALUES = {"val/AverageLoss": [0.9, 0.8], "val/DiceScore": [0.5, 0.625], "val/DiceScore_1_spleen": [0.75, 0.5]}

CONFIG = {
    "trainer": {
        "class_path": "eva.Trainer",
        "init_args": {
            "max_steps": 2000,
            "checkpoint_type": "best",
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"monitor": "val/DiceScore", "mode": "max"},
                }
            ],
        },
    },
    "model": {
        "class_path": "eva.vision.models.modules.SemanticSegmentationModule",
        "init_args": {
            "encoder": {
                "class_path": "eva.vision.models.ModelFromRegistry",
                "init_args": {"model_name": "radiology/voco_b", "model_kwargs": {"out_indices": 6}},
            },
            "decoder": {"class_path": "eva.vision.models.networks.decoders.segmentation.SwinUNETRDecoder"},
            "inferer": {
                "class_path": "monai.inferers.SlidingWindowInferer",
                "init_args": {"roi_size": [96, 96, 96], "overlap": 0.75},
            },
            "metrics": {
                "common": [{"class_path": "eva.metrics.AverageLoss"}],
                "evaluation": [
                    {
                        "class_path": "torchmetrics.segmentation.DiceScore",
                        "init_args": {"include_background": False, "average": "macro", "input_format": "one-hot"},
                    }
                ],
            },
        },
    },
    "data": {
        "class_path": "eva.DataModule",
        "init_args": {
            "datasets": {
                "train": {"class_path": "eva.vision.datasets.BTCV", "init_args": {"split": "train"}},
                "val": {
                    "class_path": "eva.vision.datasets.BTCV",
                    "init_args": {
                        "split": "val",
                        "transforms": {
                            "class_path": "torchvision.transforms.v2.Compose",
                            "init_args": {
                                "transforms": [
                                    {
                                        "class_path": "eva.vision.data.transforms.Spacing",
                                        "init_args": {"pixdim": [1.5, 1.5, 1.5]},
                                    }
                                ]
                            },
                        },
                    },
                },
            }
        },
    },
}


@pytest.fixture
def session(tmp_path):
    """Writes the folder of a session, its results by eva's own recorder."""

    def write(values=VALUES, config=CONFIG, where="run_0/config.yaml"):
        folder = tmp_path / "logs" / "20261101-120000000000_0123abcd"
        recorder = SessionRecorder(str(folder), verbose=False)
        for run in range(len(next(iter(values.values())))):
            recorder.update(validation_scores=[{name: of[run] for name, of in values.items()}])
        recorder.save()
        if config is not None:
            (folder / where).parent.mkdir(exist_ok=True)
            (folder / where).write_text(yaml.safe_dump(config))
        return folder / "results.json"

    return write


@pytest.mark.parametrize("where", ["run_0/config.yaml", "config.yaml"])
def test_a_number_has_its_model_data_split_and_protocol_in_words(session, where):
    dice, spleen = read(session(where=where))
    assert (dice.model, dice.data, dice.task) == ("radiology/voco_b, SwinUNETRDecoder", "BTCV", "btcv")
    assert (dice.split, dice.metric, dice.runs) == ("val", "DiceScore", 2)
    assert (dice.mean, dice.stdev) == (0.5625, pytest.approx(statistics.stdev([0.5, 0.625])))
    words = "; ".join(dice.protocol)
    for said in (
        "the checkpoint was chosen on the same list (val/DiceScore)",
        "2000 steps, 2 runs",
        "all runs start from one decoder",
        "scored on voxels of 1.5 x 1.5 x 1.5 mm",
        "SlidingWindowInferer, window [96, 96, 96], overlap 0.75",
        "mean over volumes of the mean over classes, without background",
        "left out since 1.8",
    ):
        assert said in words
    assert spleen.protocol[-1] == "DiceScore_1_spleen: eva's name, of which the config says no more"


def test_they_stand_on_the_page_and_in_every_table_and_change_no_rank(session, tmp_path):
    folder = results.write_all(tmp_path / "results", ("tap-b-3d", "curia"), ("lits17",))
    plain, with_eva = tmp_path / "plain", tmp_path / "with"
    assert site.build([folder], plain, resamples=100) == 0
    assert site.build([folder], with_eva, eva=[session().parents[1]], resamples=100) == 0
    assert (plain / "leaderboard.csv").read_bytes() == (with_eva / "leaderboard.csv").read_bytes()
    page = (with_eva / "index.html").read_text(encoding="utf-8")
    section = page[page.index('id="eva"') : page.index('id="tasks"')]
    assert "radiology/voco_b, SwinUNETRDecoder" in section
    assert "never ranked" in section
    assert "0.562 ± 0.088" in section or "0.563 ± 0.088" in section
    with (with_eva / "eva_results.csv").open(encoding="utf-8", newline="") as file:
        first, _ = csv.DictReader(file)
    assert (first["data"], first["metric"], first["mean"]) == ("BTCV", "DiceScore", "0.5625")
    assert json.loads((with_eva / "leaderboard.json").read_text(encoding="utf-8"))["eva"]["rows"][0]["runs"] == 2
    assert "never ranked" in (with_eva / "leaderboard.md").read_text(encoding="utf-8")
    assert 'id="eva"' not in (plain / "index.html").read_text(encoding="utf-8")
    assert site.build([folder], with_eva, resamples=100) == 0
    assert not (with_eva / "eva_results.csv").exists(), "stale"


def test_a_value_that_is_not_finite_is_no_number(session):
    (dice,) = read(session({"val/DiceScore": [float("nan")]}))  # of several runs, eva's recorder fails by itself
    assert (dice.mean, dice.stdev, dice.runs) == (None, None, 1)


def test_of_several_data_sets_each_has_its_own_grid_and_selection(session):
    config = copy.deepcopy(CONFIG)
    btcv = config["data"]["init_args"]["datasets"]["val"]
    other = copy.deepcopy(btcv) | {"class_path": "eva.vision.datasets.WORD"}
    spacing = other["init_args"]["transforms"]["init_args"]["transforms"][0]
    spacing["init_args"]["pixdim"] = 2.0
    config["data"]["init_args"]["datasets"]["val"] = [btcv, other]
    trainer = config["trainer"]["init_args"]
    trainer |= {"max_steps": -1, "max_epochs": 10}
    (monitor,) = [one["init_args"] for one in trainer["callbacks"] if "monitor" in one.get("init_args", {})]
    monitor["monitor"] = "val/DiceScore/dataloader_idx_0"
    file = session(config=config)
    recorder = SessionRecorder(str(file.parent), verbose=False)
    recorder.update(validation_scores=[{f"val/DiceScore/dataloader_idx_{index}": 0.5} for index in range(2)])
    recorder.save()
    first, second = read(file)
    assert (first.data, first.metric, second.data, second.metric) == ("BTCV", "DiceScore", "WORD", "DiceScore")
    assert "scored on voxels of 1.5 x 1.5 x 1.5 mm, the grid of its transforms" in first.protocol
    assert "scored on voxels of 2.0 mm, the grid of its transforms" in second.protocol
    assert "the checkpoint was chosen on the same list (val/DiceScore/dataloader_idx_0)" in first.protocol
    assert "checkpoint: best by val/DiceScore/dataloader_idx_0" in second.protocol
    assert "10 epochs, 1 run" in first.protocol
    assert first.protocol[-1].startswith("Dice: mean over volumes")


def change(content, *path, to):
    *inner, last = path
    for key in inner:
        content = content[key]
    content[last] = to


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("metrics", "val", 0, "val/DiceScore", "mean"), 0.9, "the mean is 0.9, and that of its values 0.5625"),
        (("metrics", "val", 0, "val/DiceScore", "stdev"), 0.0, "the stdev is 0"),
        (("metrics", "val", 0, "val/DiceScore", "values"), [], "has no values"),
        (("metrics", "val", 0, "val/DiceScore", "values"), ["0.5", 0.625], r"not a results.json of eva's: .*values\.0"),
        (("metrics", "val", 0, "DiceScore"), {"mean": 1.0, "stdev": 0.0, "values": [1.0]}, "does not begin with val/"),
        (("metrics", "best"), [], r"metrics\.best: Extra inputs"),
        (("schema_version",), 3, "schema_version: Extra inputs"),
    ],
)
def test_what_eva_did_not_write_so_is_refused(session, path, to, message):
    file = session()
    content = json.loads(file.read_text())
    change(content, *path, to=to)
    file.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message) as caught:
        read(file)
    assert "results.json" in str(caught.value)


def test_without_its_config_it_is_of_nobody_knows_what(session, tmp_path):
    unknown = session(config=None)
    with pytest.raises(RecordError, match=r"says neither model nor data.*ConfigurationLogger"):
        read(unknown)
    config = copy.deepcopy(CONFIG)
    del config["data"]["init_args"]["datasets"]["val"]
    file = session(config=config)
    with pytest.raises(RecordError, match=r"no such data set \(data\.init_args\.datasets\.val\)"):
        read(file)
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"there is no results\.json of eva's in"):
        site.build([tmp_path], tmp_path / "site", eva=[empty])


def test_the_data_sets_that_are_named_are_evas():
    from eva.vision import datasets

    assert all(hasattr(datasets, name) for name in TASKS)
