"""What identifies an encoder: every setting, buffer and file that its features hang on, and no path or place."""

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tapct
from tapct.encoders.identity import identity
from tapct.errors import EncoderError
from tapct.probes.predictions import rebuilt_encoder
from tapct.records import EncoderRecord
from tests.small import CubicMillimetres, Small3D

CPU = torch.device("cpu")


def who(encoder) -> str:
    return json.dumps(identity(encoder, CPU), sort_keys=True)


@dataclass(frozen=True)
class Window:
    low: float
    high: float


class Holding(CubicMillimetres):
    """Holds a thing outside its network: as a buffer, a parameter, a module or an attribute, as that is."""

    def __init__(self, held, **options):
        super().__init__("random", deferred=True, **options)
        if isinstance(held, nn.Parameter):
            self.register_parameter("held", held)
        elif isinstance(held, torch.Tensor):
            self.register_buffer("held", held, persistent=False)
        else:
            self.held = held


def scaled(value):
    module = nn.BatchNorm3d(1)
    module.running_mean.fill_(value)
    return module


def nested(size):
    return nn.Sequential(nn.Identity(), nn.AvgPool3d(size))


@pytest.mark.parametrize(
    "make",
    [
        torch.tensor,
        lambda v: nn.Parameter(torch.tensor(float(v))),
        scaled,
        nested,
        lambda v: np.array([v]),
        np.float32,
        lambda v: {"range": [-1000, v]},
        lambda v: Window(-1000.0, v),
        lambda v: {v, 0},
        lambda v: range(v),
        lambda v: [torch.tensor(v)],
        lambda v: (nn.ReLU, nn.GELU)[v - 1],
        lambda v: bytes([v]),
    ],
)
def test_two_values_of_anything_that_it_holds_are_two_encoders(make):
    assert who(Holding(make(1))) == who(Holding(make(1)))
    assert who(Holding(make(1))) != who(Holding(make(2)))


@pytest.mark.parametrize(
    "held",
    [object(), lambda x: x, iter([1]), nn.Sequential(nn.Identity())],
    ids=["object", "function", "iterator", "module"],
)
def test_what_cannot_be_told_from_another_is_refused_by_name(held):
    if isinstance(held, nn.Module):
        held[0].anything = object()
    with pytest.raises(EncoderError, match=r"cubic\.held.* is a .*, which the key of stored features cannot hold"):
        who(Holding(held))


def test_a_thing_that_holds_itself_is_refused():
    held = []
    held.append(held)
    with pytest.raises(EncoderError, match="holds itself"):
        who(Holding(held))


@pytest.mark.parametrize("kind", ["path", "text", "folder"])
def test_the_content_behind_a_path_counts_and_not_the_path(kind, tmp_path, monkeypatch):
    def held(name, content):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "stats.json").write_text(content, encoding="utf-8")
        path = tmp_path / name if kind == "folder" else tmp_path / name / "stats.json"
        return who(Holding(str(path) if kind == "text" else path))

    one = held("a", "1")
    assert held("b", "1") == one, "moved"
    assert held("b", "2") != one
    assert held("a", "3") != one, "changed behind its name"
    assert str(tmp_path) not in one


def test_a_name_that_happens_to_be_a_folder_here_stays_a_name(tmp_path, monkeypatch):
    before = who(Holding("decoder"))
    (tmp_path / "decoder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert who(Holding("decoder")) == before


def test_a_file_named_without_a_folder_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = set()
    for content in ("1", "2"):
        (tmp_path / "stats.json").write_text(content, encoding="utf-8")
        found.add(who(Holding("stats.json")))
    assert len(found) == 2


def test_a_folder_of_everything_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tapct.encoders.identity._MOST_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(EncoderError, match="more than 3 files"):
        who(Holding(tmp_path))


def clipped(low, at=None):
    class Clipped(CubicMillimetres):
        lowest = at

        def _encode(self, x):
            return super()._encode(x.clamp(low, 1000))

    return Clipped("random", deferred=True)


def test_what_a_class_takes_from_the_function_that_makes_it_counts():
    assert who(clipped(-1000)) == who(clipped(-1000))
    assert len({who(clipped(-1000)), who(clipped(-150)), who(clipped(-1000, 1)), who(clipped(-1000, 2))}) == 4


def test_a_constant_of_a_class_that_is_set_counts_and_a_counter_does_not(monkeypatch):
    encoder = CubicMillimetres("random", deferred=True)
    before = who(encoder)
    monkeypatch.setattr(CubicMillimetres, "calls", 3, raising=False)
    assert who(encoder) == before
    monkeypatch.setattr(CubicMillimetres, "patch_centre", (0.0, 0.0, 0.0))
    assert who(encoder) != before


class Building(CubicMillimetres):
    """Registers something with its network."""

    def build(self):
        self.register_buffer("with_it", torch.ones(2))
        self.note = "built"
        return super().build()


def test_a_deferred_encoder_is_the_same_before_and_after_it_is_built():
    encoder = Building("random", deferred=True)
    before = who(encoder)
    encoder.load()
    assert encoder.note == "built"
    assert who(encoder) == before
    built = Building("random")
    first = who(built)
    built.with_it.fill_(2)
    assert who(built) != first


def test_the_two_regions_of_astra_and_two_sizes_of_a_card_are_two_encoders():
    spacing = (2.0, 1.5, 1.5)
    regions = [
        tapct.load_encoder("astra", "random", deferred=True, region=region, spacing_mm=spacing)
        for region in ("chest", "abdomen")
    ]
    sizes = [tapct.load_encoder("tap-b-3d", "random", deferred=True, in_plane_size=size) for size in (224, 512)]
    assert len({who(encoder) for encoder in (*regions, *sizes)}) == 4


ADAPTER = """from tests.small import CubicMillimetres
from {package}.clip import LOW

class Clipped(CubicMillimetres):
    def _encode(self, x):
        from .late import HIGH
        return super()._encode(x.clamp(LOW, HIGH))
"""


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """Writes a third-party package, and gives its encoder as a new process has it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(low="LOW = -1000", high="HIGH = 1000", package="third_party"):
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        for name, text in {"__init__": "", "encoder": ADAPTER, "clip": low, "late": high}.items():
            (folder / f"{name}.py").write_text(text.format(package=package) + "\n", encoding="utf-8")
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module(f"{package}.encoder").Clipped("random", deferred=True)

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "third_party"]:
        del sys.modules[name]


def test_the_helpers_of_an_adapter_count_and_their_comments_do_not(third_party):
    before = who(third_party())
    assert who(third_party(low="# the lowest\nLOW = -1000")) == before
    assert who(third_party(low="LOW = -150")) != before
    assert who(third_party(high="HIGH = 500")) != before
    assert who(third_party()) == before


def test_the_class_that_it_is_derived_from_counts():
    found = identity(Holding(1), CPU)
    assert found["class"] == "tests.encoders.test_identity.Holding"
    assert found["libraries"].keys() >= {"torch", "numpy"}


def test_a_record_holds_the_identity():
    described = Small3D("random").describe()["identity"]
    expected = identity(Small3D("random", deferred=True), CPU)
    assert described == {key: expected[key] for key in ("class", "code_sha256", "settings")}
    exported = tapct.load_encoder("tap-t-3d").describe()["identity"]
    assert list(exported["settings"]["intensities"]["clip_hu"]) == [-1008.0, 822.0]


def test_an_encoder_is_rebuilt_with_the_settings_that_its_record_holds():
    for region in ("chest", "abdomen"):
        asked = tapct.load_encoder("astra", "random", deferred=True, region=region)
        about = {"card": {**asdict(asked.card)}, "weights": "random", "precision": "auto"}
        about["identity"] = {key: identity(asked, CPU)[key] for key in ("class", "code_sha256", "settings")}
        again = rebuilt_encoder(SimpleNamespace(encoder=EncoderRecord.model_validate_json(json.dumps(about))))
        assert identity(again, CPU) == identity(asked, CPU)


def test_an_encoder_that_cannot_be_told_from_another_runs_and_its_record_says_so():
    described = Holding(object()).describe()["identity"]
    assert described["class"] == "tests.encoders.test_identity.Holding"
    assert "cubic.held is a object" in described["settings"]["cannot be told"]


def test_an_encoder_in_no_file_is_refused():
    namespace = {"CubicMillimetres": CubicMillimetres, "__name__": "nowhere"}
    exec("class Loose(CubicMillimetres):\n    pass\n", namespace)  # as in a notebook
    with pytest.raises(EncoderError, match="Loose is defined in no file"):
        who(namespace["Loose"]("random", deferred=True))
