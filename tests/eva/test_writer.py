"""Our writer in `eva predict`: what eva's own loses without a word ends the run, and nothing leaves the folder."""

import csv
from pathlib import Path

import pytest
import torch
from eva.core.data import dataloaders, datamodules
from eva.core.data.datamodules import schemas
from eva.core.models.modules import HeadModule
from eva.core.trainers import Trainer
from eva.core.trainers.functional import infer_model
from torch import nn
from torch.utils.data import Dataset

from tapct.errors import FeatureError
from tapct.eva import EmbeddingsWriter


class Given(Dataset):
    """Vectors with targets, under the names of files."""

    def __init__(self, names: list[str], targets: list[torch.Tensor]) -> None:
        self.names, self.targets = names, targets

    def __len__(self) -> int:
        return len(self.names)

    def filename(self, index: int) -> str:
        return self.names[index]

    def load_target(self, index: int) -> torch.Tensor:
        return self.targets[index]

    def __getitem__(self, index: int):
        return torch.full((4,), float(index)), self.targets[index], {}


def predict(folder: Path, *datasets: Given, splits: dict[int, str] | None = None, **settings) -> list[dict[str, str]]:
    """Runs eva's predict with our writer; returns the rows of its manifest."""
    writer = EmbeddingsWriter(
        str(folder / "out"), dataloader_idx_map=splits or {n: f"split{n}" for n in range(len(datasets))}, **settings
    )
    trainer = Trainer(
        default_root_dir=str(folder / "logs"), accelerator="cpu", logger=False, callbacks=[writer], max_epochs=1
    )
    loader = dataloaders.DataLoader(
        batch_size=2, num_workers=0, pin_memory=False, persistent_workers=False, prefetch_factor=None
    )
    data = datamodules.DataModule(
        datasets=schemas.DatasetsSchema(predict=list(datasets)), dataloaders=schemas.DataloadersSchema(predict=loader)
    )
    infer_model(trainer, HeadModule(head=nn.Identity(), criterion=nn.CrossEntropyLoss()), data)
    with (folder / "out" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def classes(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor(number) for number in numbers]


def test_every_item_is_in_the_manifest_and_its_file_below_the_folder(tmp_path):
    scans = tmp_path / "data" / "scans"
    absolute = Given([str(scans / f"p{n}" / "ct.nii.gz") for n in range(3)], classes(2, 0, 1))
    repeated = Given(["1.2.840.5.mha", "1.2.840.5.mha", "1.2.840.7.mha"], classes(0, 1, 1))
    rows = predict(tmp_path, absolute, repeated)
    assert [(row["embeddings"], row["target"], row["split"]) for row in rows] == [
        ("split0/p0/ct.pt", "2", "split0"),
        ("split0/p1/ct.pt", "0", "split0"),
        ("split0/p2/ct.pt", "1", "split0"),
        ("split1/1.2.840.5-0.pt", "0", "split1"),
        ("split1/1.2.840.5-1.pt", "1", "split1"),
        ("split1/1.2.840.7.pt", "1", "split1"),
    ]
    for index, row in enumerate(rows):
        assert torch.equal(torch.load(tmp_path / "out" / row["embeddings"]), torch.full((4,), float(index % 3)))
    assert not (tmp_path / "data").exists()
    with pytest.raises(FeatureError, match="holds embeddings already"):
        predict(tmp_path, absolute, repeated)
    assert len(predict(tmp_path, repeated, overwrite=True)) == 3


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([1, 0, 1]), "a target of 3 numbers"),
        (torch.tensor(0.7), "the target 0.7 is no class"),
        (torch.tensor(torch.nan), "the target nan is no class"),
    ],
)
def test_targets_that_evas_manifest_cannot_hold_end_the_run_before_it_begins(tmp_path, target, words):
    first = Given(["a.nii.gz"], classes(1))
    with pytest.raises(FeatureError, match=words):
        predict(tmp_path, first, Given(["b.nii.gz"], [target]))
    assert not (tmp_path / "out").exists()


def test_a_later_target_of_another_kind_ends_the_run_and_leaves_no_manifest(tmp_path):
    data = Given(["a.nii.gz", "b.nii.gz", "c.nii.gz"], classes(1.0, 0.0, 0.5))
    with pytest.raises(FeatureError, match=r"split0/c: the target 0\.5 is no class"):
        predict(tmp_path, data)
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_what_cannot_be_written_ends_the_run(tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(FeatureError, match="cannot write"):
        predict(tmp_path, Given(["a.nii.gz"], classes(1)))


def test_every_data_set_has_a_split(tmp_path):
    data = Given(["a.nii.gz"], classes(1))
    with pytest.raises(FeatureError, match="there are 2 data sets"):
        predict(tmp_path, data, data, splits={0: "train"})


def test_items_never_share_a_file(tmp_path):
    data = Given(["a.nii.gz"], classes(1))
    with pytest.raises(FeatureError, match=r"1 items would be written into the file of another, such as train/a"):
        predict(tmp_path, data, data, splits={0: "train", 1: "train"})
    assert not (tmp_path / "out").exists()


def test_a_run_that_overwrites_and_ends_half_way_leaves_no_manifest_of_the_embeddings_before(tmp_path):
    names = [f"{letter}.nii.gz" for letter in "abc"]
    predict(tmp_path, Given(names, classes(0, 1, 1)))
    with pytest.raises(FeatureError, match=r"split0/c: the target 0\.5 is no class"):
        predict(tmp_path, Given(names, classes(0.0, 1.0, 0.5)), overwrite=True)
    assert not (tmp_path / "out" / "manifest.csv").exists()
