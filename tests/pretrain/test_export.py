"""What a run exports is what the benchmark loads: the teacher's backbone, with its own intensities."""

import functools
import json
import sys

import pytest
import safetensors.torch
import torch
import yaml
from eva.__main__ import main as eva

import tapct
from pretrain import export
from pretrain.settings import dump_config, load_config
from pretrain.ssl.model import Pretrainer
from pretrain.state_files import write_whole
from tapct.encoders import EncoderCard
from tapct.errors import EncoderError, WeightsError
from tapct.records import read_record
from tapct.vit import VisionTransformer
from tests.pretrain.runs import PROJECT, checkpoint, run_here
from tests.pretrain.tiny import CONFIGS
from tests.small import abdomen

ONE = ("--run.micro_batches=1",)
OTHERS = ("tap_s_2_5d", "tap_s_2d")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "tiny"
    assert run_here(store, output, "--run.steps=4", "--run.checkpoint_every=2", *ONE, "--data.mean_hu=-50.0") == 0
    return output


@pytest.fixture
def exported(run, tmp_path):
    folder = tmp_path / "exported"
    assert export.main([str(run), "-o", str(folder), "--licence", "apache-2.0", "--data", "quickstart"]) == 0
    return folder


SMALL_HEADS = ("heads.prototypes=8", "heads.hidden_dim=8", "heads.bottleneck_dim=8", "run.compile=false")


@pytest.fixture(scope="module")
def untrained():
    """Makes the network of a shipped architecture, once."""

    @functools.cache
    def of_name(name: str) -> Pretrainer:
        with pytest.MonkeyPatch.context() as patch:  # which numbers they are is no matter, and these are drawn fast
            patch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, std: torch.nn.init.normal_(tensor, std=std))
            return Pretrainer(load_config(CONFIGS / f"{name}.yaml", SMALL_HEADS))

    return of_name


def fake_run(folder, model: Pretrainer, name: str, *overrides: str):
    """A run of a shipped architecture that has not trained: the checkpoint of its first step."""
    config = load_config(CONFIGS / f"{name}.yaml", [*SMALL_HEADS, *overrides])
    (folder / "checkpoints").mkdir(parents=True)
    state = {
        "format": 1,
        "step": 0,
        "model": model.state_dict(),
        "counters": {"skipped": 0},
        "config": dump_config(config),
        "versions": {"torch": str(torch.__version__)},
    }
    write_whole(folder / "checkpoints" / "step_00000000.pt", state)
    return state["model"]


def test_an_exported_encoder_is_the_teacher_on_its_own_intensities(run, exported):
    encoder = tapct.load_encoder(str(exported))
    volume, _ = abdomen((slice(40, 44), slice(0, 32), slice(0, 48)))
    windows = torch.from_numpy(volume.hu)[None, None]
    features = encoder(windows)

    sizes = {"embed_dim": 96, "depth": 4, "num_heads": 3, "window_size": (4, 32, 32), "patch_size": (4, 8, 8)}
    teacher = VisionTransformer(**sizes).eval()
    state = checkpoint(run, 4)["model"]
    prefix = "teacher.backbone."
    teacher.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    with torch.no_grad():
        tokens = teacher((windows.clamp(-1008.0, 822.0) + 50.0) / 322.6347)
    torch.testing.assert_close(features.map, tokens.map, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.cls, tokens.cls, atol=1e-5, rtol=1e-5)


def test_an_encoder_that_was_trained_here_goes_through_eva_fit(exported, tmp_path, monkeypatch):
    settings = {"ENCODER": str(exported), "ENCODER_WEIGHTS": "null", "MAX_STEPS": "2", "N_RUNS": "1"}
    for name, value in (settings | {"ACCELERATOR": "cpu"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["eva", "fit", "--config", str(PROJECT / "eva_configs" / "quickstart.yaml")])
    eva()
    (record,) = (tmp_path / "logs" / "quickstart").glob("*/record.json")
    patch = read_record(record)
    assert patch.complete
    assert patch.encoder.weights == "model.safetensors"


def test_the_card_is_that_of_the_network(exported):
    encoder = tapct.load_encoder(str(exported))
    assert isinstance(encoder.card, EncoderCard)
    assert encoder.card.name == "tiny"
    assert encoder.card.num_params == sum(p.numel() for p in encoder.network.parameters())
    assert encoder.card.window_size == (4, 32, 32)
    assert encoder.card.feature_stride == (4, 8, 8)
    assert encoder.card.pretraining_data == ("quickstart",)
    assert tapct.load_encoder(str(exported), in_plane_size=64).card.in_plane_size == 64


def test_the_folder_is_ready_for_the_hub(exported):
    assert {path.name for path in exported.iterdir()} == {
        *("model.safetensors", "config.json", "card.json", "pretraining.yaml", "README.md"),
    }
    _, front, text = (exported / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "tapct-bench"
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert "the whole schedule" in text
    assert "8, 2 a step" in text, "4 steps of a micro-batch of 2 samples"
    assert "process hours on CPUs" in text
    with safetensors.safe_open(exported / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert load_config(exported / "pretraining.yaml").data.mean_hu == -50.0


def test_half_the_bytes_and_larger_slices(run, tmp_path, capsys):
    options = ["--dtype", "bf16", "--in-plane-size", "64"]
    assert export.main([str(run), "-o", str(tmp_path), *options]) == 0
    encoder = tapct.load_encoder(str(tmp_path))
    assert encoder.card.in_plane_size == 64
    state = checkpoint(run, 4)["model"]
    for name, tensor in encoder.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[f"teacher.backbone.{name}"].bfloat16().float())
    assert (tmp_path / "model.safetensors").stat().st_size < 2.1 * encoder.card.num_params
    assert export.main([str(run), "-o", str(tmp_path), "--in-plane-size", "16"]) == 1
    assert "in_plane_size 16 is smaller than the window" in capsys.readouterr().err


def test_an_earlier_checkpoint_and_the_student(run, tmp_path, capsys):
    options = ["--step", "2", "--part", "student", "--name", "early"]
    assert export.main([str(run), "-o", str(tmp_path), *options]) == 0
    exported = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state = checkpoint(run, 2)["model"]
    for name, tensor in exported.items():
        assert torch.equal(tensor, state[f"student.backbone.{name}"])
    assert "not a finished run" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert export.main([str(run), "-o", str(tmp_path), "--step", "3"]) == 1
    assert "Steps that are kept: 4, 2" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tap_s_3d", *(pytest.param(n, marks=pytest.mark.thorough) for n in OTHERS)])
def test_a_tap_architecture_takes_its_weights_by_name(untrained, name, tmp_path):
    state = fake_run(tmp_path / "run", untrained(name), name)
    assert export.main([str(tmp_path / "run"), "-o", str(tmp_path / "out")]) == 0
    tap = name.replace("_", "-").replace("2-5d", "2.5d")
    by_name = tapct.load_encoder(tap, tmp_path / "out", in_plane_filter="antialias")
    by_folder = tapct.load_encoder(str(tmp_path / "out"))
    for key, tensor in by_name.network.state_dict().items():
        assert torch.equal(tensor, state[f"teacher.backbone.{key}"])
        assert torch.equal(tensor, by_folder.network.state_dict()[key])
    ours, theirs = by_folder.card, by_name.card
    for field in (
        "window_size",
        "feature_stride",
        "in_plane_size",
        "in_plane_filter",
        "pad_hu",
        "num_params",
        "feature_dim",
        "spacing_mm",
    ):
        assert getattr(ours, field) == getattr(theirs, field)


def test_weights_of_other_intensities_are_refused_by_name(untrained, tmp_path):
    fake_run(tmp_path / "run", untrained("tap_s_3d"), "tap_s_3d", "data.std_hu=300.0")
    assert export.main([str(tmp_path / "run"), "-o", str(tmp_path / "out")]) == 0
    with pytest.raises(WeightsError, match=r"std_hu=300.0.*ENCODER="):
        tapct.load_encoder("tap-s-3d", tmp_path / "out")
    assert tapct.load_encoder(str(tmp_path / "out")).intensities["std_hu"] == 300.0


@pytest.mark.parametrize(
    ("antialias", "cut", "benchmark"), [("true", "antialias", "linear"), ("false", "linear", None)]
)
def test_an_encoder_is_fed_as_its_crops_were_cut_or_refused_by_name(untrained, tmp_path, antialias, cut, benchmark):
    """Nothing else would show it: an encoder of noisy crops on smooth slices, or the other way."""
    fake_run(tmp_path / "run", untrained("tap_s_3d"), "tap_s_3d", f"data.antialias={antialias}")
    assert export.main([str(tmp_path / "run"), "-o", str(tmp_path / "out")]) == 0
    assert tapct.load_encoder(str(tmp_path / "out")).card.in_plane_filter == cut
    if benchmark is None:
        assert tapct.load_encoder("tap-s-3d", tmp_path / "out").card.in_plane_filter == cut
        return
    with pytest.raises(WeightsError, match=rf"in_plane_filter={cut}, but tap-s-3d resizes with {benchmark}.*ENCODER="):
        tapct.load_encoder("tap-s-3d", tmp_path / "out")
    assert tapct.load_encoder("tap-s-3d", tmp_path / "out", in_plane_filter=cut).card.in_plane_filter == cut


def test_weights_of_another_size_are_refused(exported):
    other = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    other["architecture"]["depth"] = 5
    (exported / "config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(WeightsError, match="do not fit"):
        tapct.load_encoder(str(exported))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("card.json", {"colour": "red"}, "is not an encoder card"),
        ("config.json", {"architecture": None}, "lacks its architecture"),
        ("config.json", {"intensities": {"clip_hu": [1]}}, "intensities must be"),
        ("config.json", {"architecture": {"depth": 1}}, "no such vision transformer"),
    ],
)
def test_a_spoiled_folder_is_named(exported, file, change, message):
    content = json.loads((exported / file).read_text(encoding="utf-8")) | change
    (exported / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EncoderError, match=message):
        tapct.load_encoder(str(exported))


def test_no_run_is_named(tmp_path, capsys):
    assert export.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "has no checkpoint" in capsys.readouterr().err
