"""TAP-T-3D: the encoder that ships is the one that its README describes."""

import json

import pytest
import torch
from safetensors import safe_open

import tapct
from pretrain.settings import load_config
from tapct.encoders.base import identity
from tapct.encoders.tap_t import FOLDER, TapT3D
from tapct.features import extract
from tapct.leaderboard.overlap import known_overlap
from tapct.tasks import TaskData
from tapct.vit import VisionTransformer
from tests.small import abdomen


@pytest.fixture(scope="module")
def windows():
    volume, _ = abdomen((slice(40, 48), slice(0, 64), slice(0, 64)))
    return torch.from_numpy(volume.hu)[None, None]


def test_it_is_the_network_of_the_file_on_the_paper_s_intensities(windows):
    network = VisionTransformer(embed_dim=192, depth=12, num_heads=3, window_size=(8, 64, 64), patch_size=(4, 8, 8))
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16}
    with torch.no_grad():
        tokens = network.eval()((windows.clamp(-1008.0, 822.0) + 86.8086) / 322.6347)
    features = tapct.load_encoder("tap-t-3d")(windows)
    torch.testing.assert_close(features.map, tokens.map, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.cls, tokens.cls, atol=1e-4, rtol=1e-4)


def test_what_ships_is_small_and_says_where_it_comes_from():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12_000_000
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for source in ("TotalSegmentator", "LIDC-IDRI", "Soft-tissue-Sarcoma", "Colorectal-Liver-Metastases", "elastix"):
        assert source in readme
    config = load_config(FOLDER / "pretraining.yaml")
    assert config.crops.global_size == TapT3D.card.window_size
    assert len((FOLDER / "log.csv").read_text(encoding="utf-8").splitlines()) == config.run.steps + 1


def test_its_overlap_with_tasks_is_known():
    """One of its scans is of LIDC-IDRI, which LUNA16 is a part of, and one of TotalSegmentator."""
    assert known_overlap("luna16", TapT3D.card.pretraining_data)
    assert known_overlap("totalsegmentator", TapT3D.card.pretraining_data)
    assert not known_overlap("amos22", TapT3D.card.pretraining_data)


def test_stored_features_are_shared_wherever_the_package_lies():
    assert str(FOLDER) not in json.dumps(identity(tapct.load_encoder("tap-t-3d", deferred=True), torch.device("cpu")))


def test_random_weights_of_it_are_others(windows):
    trained, random = (tapct.load_encoder("tap-t-3d", weights)(windows).cls for weights in (None, "random"))
    assert not torch.allclose(trained, random, atol=0.1)
    assert random.isfinite().all()


def test_neighbouring_patches_are_more_alike_than_distant_ones():
    """Weights that were mixed up, or windows that were stitched in a wrong order, would not show the anatomy."""
    part = TaskData("quickstart").parts[0]
    ct = part.read_scan(part.cases[0])
    features = extract(tapct.load_encoder("tap-t-3d"), torch.from_numpy(ct.hu), ct.grid).map
    features = torch.nn.functional.normalize(features - features.mean(dim=(1, 2, 3), keepdim=True), dim=0)

    def likeness(steps: int) -> float:
        return float((features[:, steps:] * features[:, : features.shape[1] - steps]).sum(dim=0).mean())

    assert likeness(1) > likeness(4) + 0.1
