import re

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
