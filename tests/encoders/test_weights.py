import json
import re
import zipfile

import pytest
import safetensors.torch
import torch

from tapct.errors import WeightsError
from tests.small import Small3D, small_encoder


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    """A state dict in DINOv2's names whose every value differs from a fresh network's."""
    state = small_encoder().network.state_dict()
    generator = torch.Generator().manual_seed(3)
    return {k: torch.randn(v.shape, generator=generator) for k, v in state.items()}


def chunked(state):
    return {re.sub(r"^blocks\.(\d+)\.", r"blocks.0.\1.", k): v for k, v in state.items()}


def under_teacher(state):
    heads = {"dino_head.mlp.0.weight": torch.zeros(2), "ibot_head.last_layer.weight": torch.zeros(2)}
    return {"teacher": {**{f"backbone.{k}": v for k, v in state.items()}, **heads}, "iteration": 7}


LAYOUTS = {
    "flat": lambda s: s,
    "teacher": under_teacher,
    "teacher, chunked": lambda s: under_teacher(chunked(s)),
    "chunked": chunked,
    "module.backbone": lambda s: {f"module.backbone.{k}": v for k, v in s.items()},
    "wrapper of the hub": lambda s: {f"model.{k}": v for k, v in s.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dinov2_layout_loads_strictly(layout, trained, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](trained), path)
    loaded = Small3D(path).network.state_dict()
    assert all(torch.equal(trained[k], v) for k, v in loaded.items())
    assert loaded.keys() == trained.keys()


def test_safetensors_load_and_the_hash_is_of_the_content_not_of_the_file(trained, tmp_path):
    safetensors.torch.save_file(trained, tmp_path / "a.safetensors")
    torch.save(under_teacher(trained), tmp_path / "b.pth")
    a, b = Small3D(tmp_path / "a.safetensors"), Small3D(str(tmp_path / "b.pth"))
    assert a.describe()["weights_sha256"] == b.describe()["weights_sha256"]
    assert a.describe()["weights_sha256"] != small_encoder().describe()["weights_sha256"]
    assert a.describe()["weights"].endswith("a.safetensors")


def test_a_misfit_lists_missing_unexpected_and_misshapen_keys(trained, tmp_path):
    del trained["norm.weight"]
    trained["head.bias"] = torch.zeros(3)
    trained["pos_embed"] = torch.zeros(1, 5, 48)
    torch.save(trained, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as error:
        Small3D(tmp_path / "w.pth")
    for part in ("1 missing: norm.weight", "1 unexpected: head.bias", "pos_embed (1, 5, 48) instead of (1, 129, 48)"):
        assert part in str(error.value)
    assert "w.pth" in str(error.value)


def test_weights_of_another_size_say_so(trained, tmp_path):
    trained["pos_embed"] = torch.zeros(1, 5, 48)
    torch.save(trained, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="another size, patch or window"):
        Small3D(tmp_path / "w.pth")


class Malicious:
    def __reduce__(self):
        return (print, ("ran",))


def test_pickled_code_is_never_run(tmp_path, capsys):
    torch.save({"a": Malicious()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="pickled objects"):
        Small3D(tmp_path / "w.pth")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_truncated_file_is_named(name, trained, tmp_path):
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save(trained, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=rf"{name} is not a weights file.*incomplete"):
        Small3D(tmp_path / name)


def test_a_missing_file_and_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        Small3D(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"ENCODER_WEIGHTS=.*'random'"):
        Small3D()


def test_something_else_than_a_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        Small3D(tmp_path / "w.pth")


# -- Files that claim what they do not have ----------------------------------------------------------------


def save_safetensors_header(path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def packed_again(path) -> None:
    with zipfile.ZipFile(path) as whole:
        records = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


HUGE = torch.zeros(1).expand(10**6, 10**6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"norm.weight": HUGE}, "the tensor norm.weight, .* claims 4,000,000,000,000 bytes, and the file has 4 of it"),
        ({"teacher": {"backbone.norm.weight": HUGE}}, "the tensor teacher.backbone.norm.weight, .* claims"),
        ({"state": [1, (HUGE,)]}, "the tensor state.1.0, .* claims"),
        ({"a": torch.zeros(9).as_strided((3, 9), (0, 1))}, "claims 108 bytes, and the file has 36"),
        ({"a": torch.empty(10**6, 10**6, device="meta")}, "was saved without its values"),
        ({"a": torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6))}, "is sparse or quantised"),
        ({0: torch.zeros(1)}, "keys are not names, such as 0"),
        ({"a": torch.zeros(1), ("b", 1): torch.zeros(1)}, r"keys are not names, such as \('b', 1\)"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_the_file_does_not_hold_is_refused(content, message, zipped, tmp_path):
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=rf"w\.pth.*{message}"):
        Small3D(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantised_weights_are_refused(trained, tmp_path):
    trained["norm.weight"] = torch.quantize_per_tensor(trained["norm.weight"], 0.1, 0, torch.qint8)
    torch.save(trained, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"norm.weight, .* is sparse or quantised"):
        Small3D(tmp_path / "w.pth")
    trained["norm.weight"] = torch.ones(48, dtype=torch.int8)
    torch.save(trained, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: 1 parameters are stored as torch.int8, such as norm.weight"):
        Small3D(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"teacher": {0: torch.zeros(1)}}, "finds no weights in .*w.pth .TypeError"),
        (
            {"norm.weight": 3.0, "epoch": 3},
            r"1 unexpected: epoch; 1 that are not tensors: norm.weight \(float\)\. .* not a state dict",
        ),
        ({"norm.weight": {"a": torch.zeros(2)}}, r"1 that are not tensors: norm.weight \(dict\)"),
    ],
)
def test_values_that_are_no_weights_are_named_with_the_file(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message) as raised:
        Small3D(tmp_path / "w.pth")
    assert "w.pth" in str(raised.value)


@pytest.mark.parametrize("padding", [0, 1000])
def test_a_record_shorter_than_its_tensor_is_refused(tmp_path, padding):
    torch.save({"a": torch.arange(12.0)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as whole:
        records = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content[:8] if name.endswith("data/0") else content)
        archive.writestr("w/data/1", bytes(padding))  # that nothing refers to
    with pytest.raises(WeightsError, match=r"w\.pth is not a weights file that can be read"):
        Small3D(tmp_path / "w.pth")


def test_an_archive_that_unpacks_to_more_than_it_has_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "w.pth")
    packed_again(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth is an archive of [\d,]+ bytes that claims 4,\d+,\d+"):
        Small3D(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}},
        {"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
        {"a": 3},
    ],
)
def test_a_safetensors_header_that_cannot_be_true_is_refused(header, tmp_path):
    save_safetensors_header(tmp_path / "w.safetensors", header, bytes(16))
    with pytest.raises(WeightsError, match=r"w\.safetensors is not a weights file that can be read"):
        Small3D(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        ("w.safetensors", b"<!doctype html><html>", "it is a web page"),
        ("w.safetensors", b"", "it is empty"),
        ("w.pth", b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01", "incomplete download"),
        ("w.pth", b"\x80\x02K\x01.", "holds|not a weights file"),
    ],
)
def test_something_else_under_the_name_of_weights_is_named_for_what_it_is(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}.*{message}"):
        Small3D(tmp_path / name)


def test_full_memory_is_said_of_the_file(trained, tmp_path, monkeypatch):
    torch.save(trained, tmp_path / "w.pth")

    def load(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(WeightsError, match=r"w\.pth .*no room"):
        Small3D(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_real_checkpoints_have_is_taken(trained, zipped, tmp_path):
    """Views of one storage, tied tensors, half precision, numbers, empty tensors, and the state of an optimizer."""
    whole = torch.cat([trained["norm.weight"], trained["norm.bias"]])
    trained["norm.weight"], trained["norm.bias"] = whole.chunk(2)
    trained["patch_embed.proj.bias"] = trained["patch_embed.proj.bias"].bfloat16()
    trained["pos_embed"] = torch.nn.Parameter(trained["pos_embed"])
    trained["blocks.0.mlp.fc1.weight"] = trained["blocks.0.mlp.fc1.weight"].T.contiguous().T
    beside = {
        "optimizer": {
            "state": {0: {"step": torch.tensor(3), "none": torch.zeros(0, 4)}},
            "param_groups": [{"lr": 0.1}],
        },
        "epoch": 3,
        "args": None,
        "ids": torch.arange(4).expand((1, -1)),
    }
    torch.save({"teacher": trained, **beside}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    loaded = Small3D(tmp_path / "w.pth").network.state_dict()
    assert all(torch.equal(trained[k].float(), v) for k, v in loaded.items())
