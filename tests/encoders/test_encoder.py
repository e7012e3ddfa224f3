import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

import tapct
from tapct.encoders import Encoder, EncoderCard, Features, encoder_class
from tapct.encoders.axes import from_axes, to_axes
from tapct.encoders.identity import identity
from tapct.errors import EncoderError
from tests.small import Drifting, Small3D, small_card, small_encoder

AIR = -1000.0


def windows(*shape, seed=0) -> torch.Tensor:
    return torch.empty(shape or (2, 1, 8, 64, 64)).uniform_(-1000, 800, generator=torch.Generator().manual_seed(seed))


def test_the_six_tap_ct_encoders_are_found_by_entry_point():
    names = tapct.list_encoders()
    assert names[:6] == ["tap-s-2d", "tap-b-2d", "tap-s-2.5d", "tap-b-2.5d", "tap-s-3d", "tap-b-3d"]
    assert [encoder_class(n).card.name for n in names] == names


@pytest.mark.parametrize(
    ("name", "window", "stride", "dim"),
    [
        ("tap-s-2d", (1, 224, 224), (1, 16, 16), 384),
        pytest.param("tap-b-2d", (1, 224, 224), (1, 16, 16), 768, marks=pytest.mark.thorough),
        ("tap-s-2.5d", (6, 224, 224), (1, 16, 16), 384),
        pytest.param("tap-b-2.5d", (6, 224, 224), (1, 16, 16), 768, marks=pytest.mark.thorough),
        ("tap-s-3d", (12, 224, 224), (4, 8, 8), 384),
        ("tap-b-3d", (12, 224, 224), (4, 8, 8), 768),
    ],
)
def test_a_tap_ct_encoder_is_what_its_card_says(name, window, stride, dim):
    encoder = tapct.load_encoder(name, "random")
    card = encoder.card
    assert (card.window_size, card.feature_stride, card.feature_dim) == (window, stride, dim)
    assert card.num_params == sum(p.numel() for p in encoder.parameters())
    small = (1, 1, window[0], 2 * stride[1], 3 * stride[2])  # any multiple of the stride, not only the window
    features = encoder(windows(*small))
    assert features.map.shape == (1, dim, window[0] // stride[0], 2, 3)
    assert features.embedding.shape == features.cls.shape == (1, card.embedding_dim)
    assert torch.equal(features.cls, features.embedding)


def test_hu_are_clipped_and_normalised_as_in_appendix_b():
    encoder = small_encoder()
    x = windows() * 2
    normalised = (np.clip(x.numpy(), -1008.0, 822.0) - -86.8086) / 322.6347
    with torch.no_grad():
        expected = encoder.network(torch.from_numpy(normalised).float())
    torch.testing.assert_close(encoder(x).map, expected.map)
    torch.testing.assert_close(encoder(x).embedding, expected.cls)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x: x[0], r"takes windows \(B, 1, D, H, W\)"),
        (lambda x: x.expand(-1, 3, -1, -1, -1), r"takes windows \(B, 1, D, H, W\)"),
        (lambda x: x.double(), "float32"),
        (lambda x: x.short(), "float32"),
        (lambda x: x[..., :60], "multiple of its stride"),
        (lambda x: x[:, :, :6], "multiple of its stride"),
        (lambda x: x.masked_fill(x > 700, float("nan")), "NaN or infinite"),
        (lambda x: x.masked_fill(x > 700, float("inf")), "NaN or infinite"),
        (lambda x: (x + 1000) / 1800, "not Hounsfield units"),
        (lambda x: ((x + 1000) / 1800) * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1), "not Hounsfield units"),
        (lambda x: (x > 0).float(), "not Hounsfield units"),
    ],
)
def test_an_input_that_cannot_be_a_window_in_hu_is_refused(bad, message):
    with pytest.raises(EncoderError, match=message) as error:
        small_encoder()(bad(windows()))
    assert "small-3d" in str(error.value)


@pytest.mark.parametrize("value", [AIR, 0.0, 0.5, 1.0])
def test_a_window_of_one_value_is_valid_alone_and_beside_others(value):
    """Plain 0 is what resampling tools fill with, and water; -1000 is air."""
    encoder, plain = small_encoder(), torch.full((1, 1, 8, 64, 64), value)
    alone = encoder(plain).map
    assert torch.isfinite(alone).all()
    for others in (windows(), torch.zeros(2, 1, 8, 64, 64)):
        torch.testing.assert_close(encoder(torch.cat((others, plain))).map[2:], alone, atol=1e-5, rtol=1e-5)


def test_one_window_with_nan_among_valid_ones_is_refused():
    x = windows()
    x[1, 0, 0, 0, 0] = float("nan")
    with pytest.raises(EncoderError, match="NaN or infinite"):
        small_encoder()(x)


def test_a_2d_encoder_wants_single_slices():
    encoder = tapct.load_encoder("tap-s-2d", "random")
    with pytest.raises(EncoderError, match="D = 1"):
        encoder(windows(1, 1, 2, 32, 32))


def test_nothing_moves_a_frozen_encoder():
    encoder = small_encoder(Drifting)
    before = copy.deepcopy(encoder.network.state_dict())
    first = encoder(windows())
    encoder.train()
    torch.nn.Sequential(encoder).train()
    second = encoder(windows())
    assert not any(m.training for m in encoder.modules())
    assert torch.equal(first.map, second.map)
    assert not first.map.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in encoder.network.state_dict().items())


def test_features_do_not_depend_on_the_autocast_around_them():
    encoder = small_encoder()
    plain = encoder(windows())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder(windows())
    assert torch.equal(plain.map, inside.map)
    bf16 = Small3D("random", precision="bf16")(windows())
    assert bf16.map.dtype == torch.float32
    assert 0 < (bf16.map - plain.map).abs().max() < 0.5


def test_a_copy_of_an_encoder_is_itself():
    encoder = small_encoder()
    assert copy.deepcopy(encoder) is encoder


def test_random_weights_are_seeded_and_leave_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, two = small_encoder(), small_encoder()
    assert torch.equal(torch.rand(3), expected)
    assert one.describe()["weights_sha256"] == two.describe()["weights_sha256"]
    assert one.describe()["weights"] == "random"


def test_options_change_the_card_and_unknown_ones_name_the_nearest():
    encoder = Small3D("random", in_plane_size=96, window_size=[12, 64, 64])
    assert encoder.card.in_plane_size == 96
    assert encoder.card.window_size == (12, 64, 64)
    assert Small3D.card.in_plane_size == 64
    with pytest.raises(EncoderError, match=r"in_plane_filter is 'nearest'.*Known: antialias, linear"):
        Small3D("random", in_plane_filter="nearest")
    with pytest.raises(EncoderError, match="Did you mean 'in_plane_size'"):
        Small3D("random", inplane_size=96)
    with pytest.raises(EncoderError, match="not a multiple"):
        Small3D("random", window_size=(10, 64, 64))
    with pytest.raises(EncoderError, match="precision"):
        Small3D("random", precision="fp8")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(EncoderError, match=r"no encoder 'tap-s3d'. Did you mean 'tap-s-3d'"):
        tapct.load_encoder("tap-s3d", "random")


def test_a_card_is_frozen_and_refuses_what_it_does_not_know():
    card = small_card()
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.name = "other"
    with pytest.raises(TypeError, match="spacing"):
        small_card(spacing=1.0)
    with pytest.raises(TypeError):
        EncoderCard("positional")
    with pytest.raises(EncoderError, match="must be positive"):
        small_card(spacing_mm=(1.0, 0.0, 1.0))


def test_a_third_party_needs_a_card_and_two_methods():
    class Mean(Encoder):
        card = small_card(name="mean", feature_dim=1, embedding_dim=1, has_cls=False, num_params=0)

        def build(self):
            return torch.nn.AvgPool3d(self.card.feature_stride)

        def _encode(self, windows_hu):
            features = self.network(windows_hu)
            return Features(features, features.mean((2, 3, 4)), None)

    assert Mean("random")(windows()).map.shape == (2, 1, 2, 8, 8)


@pytest.mark.parametrize("axes", ["SPL", "RAS", "LPS", "SRA", "IAR"])
def test_axes_turn_windows_as_nibabel_orients_them_and_maps_turn_back(axes):
    import nibabel

    spl = torch.randn(2, 1, 4, 6, 8)
    turned = to_axes(spl, axes)
    # Independent: nibabel's own orientation transform. Its codes name the end an axis grows towards.
    start = nibabel.orientations.axcodes2ornt(tuple("SPL"))
    transform = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(tuple(axes)))
    expected = nibabel.orientations.apply_orientation(spl[1, 0].numpy(), transform)
    assert np.array_equal(turned[1, 0].numpy(), expected)
    assert torch.equal(from_axes(turned, axes), spl)


def test_axes_that_name_a_direction_twice_are_refused():
    with pytest.raises(EncoderError, match="once"):
        to_axes(torch.zeros(1, 1, 2, 2, 2), "RLS")


@pytest.mark.parametrize(("name", "size"), [("vista3d", 16), ("voco-b", 32), ("suprem", 8)])
def test_a_window_of_one_feature_is_refused_where_instance_norm_needs_more(name, size):
    encoder = encoder_class(name).__new__(encoder_class(name))
    assert not encoder.supports((size, size, size))
    assert encoder.supports((size, size, 2 * size))


class _Optional(Small3D):
    """A third-party adapter with settings of its own."""

    def __init__(self, weights=None, *, clip=None, _window=0, **options):
        self.__dict__["clip"], self.__dict__["_window"] = clip, _window
        super().__init__(weights, **options)
        self.clip, self._window = clip, _window


def test_encoders_that_differ_in_any_setting_have_different_identities():
    def of(**options):
        return identity(_Optional("random", deferred=True, **options), torch.device("cpu"))

    options = [
        {},
        {"clip": {"low": -1}},
        {"clip": {"low": -2}},
        {"_window": 3},
        {"in_plane_size": 32},
        {"precision": "bf16"},
    ]
    assert len({json.dumps(of(**o), sort_keys=True) for o in options}) == len(options)
    assert of(clip=(1, 2)) == of(clip=[1, 2])
    assert of(precision="auto") == of(precision="fp32")
    with pytest.raises(EncoderError, match=r"small-3d.clip is a object, which the key of stored features cannot hold"):
        of(clip=object())


@pytest.mark.parametrize("name", tapct.list_encoders())
def test_every_encoder_has_an_identity_without_being_built(name):
    encoder = tapct.load_encoder(name, "random", deferred=True)
    found = identity(encoder, torch.device("cpu"))
    assert not encoder.is_built
    assert found["weights"] == ("random, seed 0" if encoder.card.weights.needed else "none")
    assert found["card"]["name"] == name
    json.dumps(found)


@pytest.mark.parametrize(("old", "new"), [("accepts", "supports"), ("cell_centre", "patch_centre")])
def test_an_old_name_in_an_adapter_is_refused_and_not_passed_over(old, new):
    with pytest.raises(EncoderError, match=f"Mine sets `{old}`, which is called `{new}` now"):
        type("Mine", (Encoder,), {old: None})
