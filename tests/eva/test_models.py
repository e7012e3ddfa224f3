"""Our encoders as eva's models, against the feature store, eva's own readers and modules, and brute force."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eva.core.models.modules import HeadModule
from eva.vision.data.datasets.segmentation._utils import load_volume_tensor
from eva.vision.models import ModelFromRegistry as OfEva
from eva.vision.models.modules import SemanticSegmentationModule
from eva.vision.models.networks import ABMIL
from eva.vision.models.networks.backbones import backbone_registry
from monai.inferers import SlidingWindowInferer
from torch import nn

import tapct
from tapct.errors import EncoderError
from tapct.eva import Backbone, DenseEncoder, LinearDecoder, ModelFromRegistry, register
from tapct.features import CaseFeatures, EncodedCase, FeatureBank, TensorStore, extract
from tapct.features.outside import over_image
from tapct.probes import ClassificationProbe
from tapct.tasks import TaskData
from tapct.volumes import Grid, Size, read_ct
from tests.data.abdomen import block, save
from tests.small import CubicMillimetres, Drifting, Small3D, known_by_name


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[int, tuple[CaseFeatures, torch.Tensor]]:
    """By number of slices: stored features of a scan, and the scan as eva's reader and loader give it."""
    root, found = tmp_path_factory.mktemp("data"), {}
    for slices in (8, 11):
        slab = block(70, slices)
        for name, array in (("ct", slab.hu), ("organs", slab.organs)):
            save(root / "quickstart" / f"c{slices}" / f"{name}.nii.gz", array, slab.affine, "LAS")
    (root / "split.csv").write_text("case,patient,split\nc8,p8,train\nc11,p11,train\n")
    data = TaskData("quickstart", str(root), split_file=str(root / "split.csv"))
    bank = FeatureBank(Small3D("random"), TensorStore(root / "features"), dtype="fp32")
    bank.fill(data.parts)
    for index, slices in enumerate((8, 11)):
        volume = load_volume_tensor(str(root / "quickstart" / f"c{slices}" / "ct.nii.gz"))
        found[slices] = bank.case(data.parts[0], index).features, volume.as_subclass(torch.Tensor)[None].movedim(2, 1)
    return found


@pytest.fixture(scope="module")
def scan(cases) -> torch.Tensor:
    return cases[8][1]


def test_what_eva_sees_of_a_scan_is_what_is_stored(cases):
    stored, scan = cases[8]
    (dense,) = DenseEncoder(Small3D("random"))(scan)
    bag, patches, embedding = (
        Backbone(Small3D("random"), output=output)(scan) for output in ("windows", "patches", "embedding")
    )
    assert stored.map.shape == (48, 2, 8, 8)
    assert torch.allclose(dense[0], stored.map, atol=1e-6)
    assert torch.allclose(bag[0], stored.embeddings, atol=1e-6)
    assert torch.allclose(patches[0], stored.map.flatten(1).T, atol=1e-6)
    assert torch.allclose(embedding[0], stored.embeddings.mean(0), atol=1e-6)
    assert {t.dtype for t in (dense, bag, patches, embedding)} == {torch.float32}


def test_a_bag_of_patches_has_no_padding():
    hu = torch.randint(-1000, 400, (9, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    (patches,) = Backbone(Small3D("random"), output="patches")(hu[None, None])
    whole = extract(Small3D("random"), hu, Grid.of(hu.shape, np.eye(4))).map
    assert whole.shape == (48, 3, 8, 8), "the last patch of 4 slices is centred beyond the ninth"
    assert torch.allclose(patches, whole[:, :2].flatten(1).T, atol=1e-6)


def test_a_scan_that_was_padded_has_patches_that_divide_it_evenly(cases):
    stored, scan = cases[11]
    (dense,) = DenseEncoder(Small3D("random"))(scan)
    assert stored.padding == (1, 0, 0)
    # Three patches of 11/3 slices; those of the encoder are centred on the slices 1.5, 5.5 and 9.5.
    z = (np.arange(3) + 0.5) * 11 / 3 - 0.5
    centres = np.array([1.5, 5.5, 9.5])
    columns = stored.map.double().numpy()
    expected = np.apply_along_axis(lambda column: np.interp(z, centres, column), 1, columns)
    assert dense.shape == (1, 48, 3, 8, 8)
    assert np.allclose(dense[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("centre", [None, (0.0, 0.0, 0.0)])
def test_a_plain_upsampled_map_lies_where_its_image_does(centre):
    image = Grid.of((45, 24, 61), np.eye(4))
    patches = image.padded((48, 24, 72)).patches((4, 4, 8), centre)
    where = [torch.from_numpy(axis) for axis in patches.coordinates_in(image)]
    positions = torch.stack(torch.meshgrid(*where, indexing="ij"))
    upsampled = F.interpolate(over_image(positions, patches, image)[None], size=tuple(image.shape), mode="trilinear")[0]
    for axis, (n, stride) in enumerate(zip(image.shape, (4, 4, 8), strict=True)):
        line = upsampled[axis].movedim(axis, 0).flatten(1)
        assert torch.allclose(line, line[:, :1]), "nothing of the other axes"
        inner = slice(3 * stride // 2, n - 3 * stride // 2)  # there is no patch beyond the first and the last
        assert torch.allclose(line[inner, 0], torch.arange(n, dtype=torch.float64)[inner], atol=1e-9)


def test_spacing_comes_from_the_config_and_is_held_against_the_card():
    slab = block(70, 12)
    hu = torch.from_numpy(slab.hu.astype(np.float32)[::-1, ::-1].transpose(2, 1, 0).copy())
    with pytest.raises(EncoderError, match=r"pixdim: \[4.0, 4.0, 4.0\]"):
        DenseEncoder(CubicMillimetres("random"))
    (dense,) = DenseEncoder(CubicMillimetres("random"), spacing_mm=[3, 3, 3])(hu[None, None])
    grid = Grid.of(hu.shape, np.diag([3.0, 3, 3, 1]))
    stored = extract(CubicMillimetres("random"), hu, grid)
    assert torch.allclose(dense[0], over_image(stored.map, stored.feature_grid, grid), atol=1e-3)
    with pytest.raises(EncoderError, match="4 x 4 x 4 mm voxels, but the config says"):
        DenseEncoder(CubicMillimetres("random"), windows=True, spacing_mm=[3, 3, 3])
    with pytest.raises(EncoderError, match="three positive lengths"):
        DenseEncoder(CubicMillimetres("random"), spacing_mm=[4, 4])


def test_nothing_of_the_trainer_reaches_the_encoder(scan):
    model = DenseEncoder(Drifting("random"))
    assert not any(module.training for module in model.modules())
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    (plain,) = model(scan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (mixed,) = model(scan.clone().requires_grad_())
    assert torch.equal(plain, mixed)
    assert not mixed.requires_grad
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_windows_of_an_inferer_are_encoded_as_they_come(cases):
    scan = F.pad(cases[8][1], (0, 16, 0, 16, 0, 5), value=-1000.0)  # (13, 96, 96): windows overlap at both ends
    encoder = DenseEncoder(Small3D("random"), windows=True)
    torch.manual_seed(0)
    decoder = LinearDecoder(48, 3)
    inferer = SlidingWindowInferer(roi_size=(8, 64, 64), sw_batch_size=3, overlap=0.0)
    module = SemanticSegmentationModule(
        decoder=decoder, criterion=nn.CrossEntropyLoss(), encoder=encoder, inferer=inferer, spatial_dims=3
    ).eval()
    total, count = torch.zeros(1, 3, 13, 96, 96), torch.zeros(13, 96, 96)
    for z in (0, 5):
        for y in (0, 32):
            for x in (0, 32):
                part = (..., slice(z, z + 8), slice(y, y + 64), slice(x, x + 64))
                logits = decoder.classifier(Small3D("random")(scan[part]).map)
                total[part] += F.interpolate(logits, size=(8, 64, 64), mode="trilinear")
                count[part] += 1
    with torch.no_grad():
        assert torch.allclose(module(scan, to_size=None), total / count, atol=1e-5)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda t: t.movedim(1, 2), "EnsureChannelFirst with channel_dim: 1"),
        (lambda t: t[:, 0], "use eva's 3D data sets"),
        (lambda t: t.expand(-1, 3, -1, -1, -1), "a CT has one channel"),
        (lambda t: torch.zeros(1, 1, 512, 512, 90), "the slices are not along the third axis"),
        (lambda t: torch.zeros(1, 1, 512, 90, 512), "the slices are not along the third axis"),
        (lambda t: t.bfloat16(), "bf16-mixed"),
        (lambda t: t[..., 20:50, 20:50], "Drop RandCropByLabelClasses"),
    ],
)
def test_scans_that_lie_otherwise_are_refused(scan, turn, words):
    with pytest.raises(EncoderError, match=words):
        DenseEncoder(Small3D("random"))(turn(scan))


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize(
    "scaled",
    [
        lambda hu: ((hu + 175) / 425).clip(0, 1),
        lambda hu: ((hu + 1024) / 2048).clip(0, 1) * 2 - 1,
        lambda hu: hu.clip(-175, 250),
        lambda hu: torch.where(hu > 500, torch.nan, hu),
    ],
)
def test_scaled_intensities_end_in_an_error_that_names_the_transform(cases, scaled, windows):
    hu = cases[8][1][..., :64, :64]
    model = DenseEncoder(Small3D("random"), windows=windows)
    assert torch.isfinite(model(hu)[0]).all()
    with pytest.raises(EncoderError, match="drop ScaleIntensityRange"):
        model(scaled(hu))


def test_eight_bits_are_refused_and_padding_is_raised_as_our_readers_do(scan, tmp_path):
    with pytest.raises(EncoderError, match="8 bits"):
        Backbone(Small3D("random"))(((scan + 1350) / 1500 * 255).clip(0, 255).round())
    padded = scan.clone()
    padded[..., :8, :8] = -3024
    array = padded[0, 0].numpy().astype(np.int16)
    save(tmp_path / "ct.nii.gz", array[:, ::-1, ::-1].transpose(2, 1, 0), np.diag([3.0, 3, 3, 1]))
    ct = read_ct(tmp_path / "ct.nii.gz")
    stored = extract(Small3D("random"), torch.from_numpy(ct.hu), ct.grid)
    assert torch.allclose(DenseEncoder(Small3D("random"))(padded)[0][0], stored.map, atol=1e-6)


def test_every_encoder_is_in_evas_registry_and_none_is_imported_for_it():
    assert {f"tapct/{name}" for name in tapct.list_encoders()} <= set(backbone_registry.entries())
    with known_by_name("third_parties", "no.such.module:ThirdParty"):
        register()
        register()  # once more changes nothing
        assert "tapct/third_parties" in backbone_registry.entries()
        with pytest.raises(EncoderError, match="'third_parties' of an unknown distribution cannot be imported"):
            OfEva("tapct/third_parties")


def test_another_of_a_name_of_ours_in_evas_registry_is_refused(monkeypatch):
    monkeypatch.setitem(backbone_registry._registry, "tapct/tap-b-3d", nn.Identity)
    with pytest.raises(EncoderError, match=r"eva's registry has another 'tapct/tap-b-3d', <class .*Identity"):
        register()


@pytest.mark.parametrize("wrapper", [OfEva, ModelFromRegistry])
def test_a_registered_encoder_is_asked_for_as_evas_own(scan, wrapper):
    with known_by_name("small-3d", "tests.small:Small3D"):
        register()
        kwargs = {"weights": "random", "window_overlap": 0.0}
        dense = wrapper("tapct/small-3d", model_kwargs={"out_indices": 1}, model_extra_kwargs=kwargs)
        vector = wrapper("tapct/small-3d", model_kwargs={"out_indices": None, **kwargs})
        bag = wrapper("tapct/small-3d", model_kwargs={"output": "windows", **kwargs})
        assert torch.equal(dense(scan)[0], DenseEncoder(Small3D("random"))(scan)[0])
        assert torch.equal(vector(scan), Backbone(Small3D("random"))(scan))
        assert bag(scan).shape == (1, 1, 48)
        with pytest.raises(EncoderError, match=r"no setting 'weigths'\. Did you mean 'weights'"):
            wrapper("tapct/small-3d", model_kwargs={"weigths": "random"})
        with pytest.raises(EncoderError, match=r"output is 'cls'\. Known: embedding, patches"):
            wrapper("tapct/small-3d", model_kwargs={"output": "cls", **kwargs})
        with pytest.raises(EncoderError, match=r"three positive lengths .*, not 1\.5"):
            wrapper("tapct/small-3d", model_kwargs={"spacing_mm": 1.5, **kwargs})
        with pytest.raises(EncoderError, match=r"set out_indices .* to 1"):
            wrapper("tapct/small-3d", model_kwargs={"out_indices": 6})


def test_the_decoder_refuses_what_it_cannot_decode(scan):
    maps = DenseEncoder(Small3D("random"))(scan)
    size = tuple(scan.shape[2:])
    assert LinearDecoder(48, 3)((maps, size, scan)).shape == (1, 3, *size)
    for decoder, features, image in ((LinearDecoder(47, 3), maps, size), (LinearDecoder(48, 3), maps * 2, size)):
        with pytest.raises(EncoderError, match="takes one map"):
            decoder((features, image, scan))
    with pytest.raises(EncoderError, match="spatial_dims: 3"):
        LinearDecoder(48, 3)((maps, size[1:], scan))


def test_stock_eva_and_our_probe_agree_on_given_bags(monkeypatch):
    monkeypatch.setattr(ClassificationProbe, "classes", ["a", "b"])
    generator = torch.Generator().manual_seed(0)
    bags = [torch.randn(n, 48, generator=generator) for n in (3, 7, 1, 5)]
    targets = [torch.tensor([k % 2, 1 - k % 2]) for k in range(4)]
    probe = ClassificationProbe(Small3D("random"))
    head = probe.build_head(["a", "b"])
    grid = Grid.of((1, 1, 1), np.eye(4))
    cases = [
        EncodedCase(
            str(k), str(k), CaseFeatures(torch.zeros(48, 1, 1, 1), bag, grid, grid, grid, Size(0, 0, 0)), t, None
        )
        for k, (bag, t) in enumerate(zip(bags, targets, strict=True))
    ]
    (ours,) = probe.losses([head], cases)
    ours.backward()
    stock_head = ABMIL(input_size=48, output_size=2, projected_input_size=None, hidden_sizes_mlp=())
    stock_head.load_state_dict(head.state_dict())
    stock = HeadModule(head=stock_head, criterion=nn.BCEWithLogitsLoss())
    losses = [stock.training_step((bag[None], t[None].float()))["loss"] for bag, t in zip(bags, targets, strict=True)]
    mean = torch.stack(losses).mean()  # what eva accumulates over four batches of one scan
    mean.backward()
    assert torch.allclose(ours, mean, atol=1e-7)
    for mine, theirs in zip(head.parameters(), stock_head.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-7)
