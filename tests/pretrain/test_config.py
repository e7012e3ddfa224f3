"""Table 7 in every shipped configuration; what does not fit is refused with the key and the fix."""

import pytest
import torch
import yaml

from pretrain.config import Config
from pretrain.errors import PretrainError
from pretrain.settings import dump_config, load_config, parse_config
from pretrain.ssl.model import Pretrainer
from tests.pretrain.tiny import CONFIGS, PAPER

# Table 7 and Appendices A and B of the paper, typed by hand.
TABLE_7 = {
    "run.steps": 125_000,
    "losses.dino_weight": 1.0,
    "losses.ibot_weight": 1.0,
    "losses.koleo_weight": 0.1,
    "model.layer_scale_init": 1e-5,
    "optim.base_lr": 0.0035,
    "optim.weight_decay": (0.04, 0.4),
    "optim.teacher_momentum": (0.992, 1.0),
    "losses.teacher_temperature": (0.04, 0.07),
    "losses.teacher_temperature_warmup_steps": 37_500,
    "optim.clip_norm": 3.0,
    "crops.global_scale": (0.32, 1.0),
    "crops.local_scale": (0.05, 0.32),
    "heads.prototypes": 65_536,
    "heads.hidden_dim": 2048,
    "heads.num_layers": 3,
    "heads.bottleneck_dim": 256,
    "masking.probability": 0.5,
    "masking.ratio": (0.1, 0.5),
    "model.num_register_tokens": 4,
    "optim.layer_decay": 0.9,
    "optim.warmup_steps": 25_000,
    "data.mean_hu": -86.8086,
    "data.std_hu": 322.6347,
    "data.clip_hu": (-1008.0, 822.0),
    # DINOv2's, whose recipe the paper follows.
    "crops.num_global": 2,
    "crops.num_local": 8,
    "losses.student_temperature": 0.1,
    "losses.centre_momentum": 0.9,
    "optim.min_lr": 1e-6,
    "optim.patch_embed_lr_factor": 0.2,
    "optim.freeze_last_layer_steps": 1250,
    "optim.betas": (0.9, 0.999),
    "run.precision": "bf16",
}
VARIANTS = {
    "2d": {"crops.global_size": (224, 224), "crops.local_size": (96, 96), "model.patch_size": (16, 16)},
    "2_5d": {"crops.global_size": (6, 224, 224), "crops.local_size": (6, 96, 96), "model.patch_size": (1, 16, 16)},
    "3d": {"crops.global_size": (12, 224, 224), "crops.local_size": (12, 96, 96), "model.patch_size": (4, 8, 8)},
}


def value(config: Config, key: str):
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("name", PAPER)
def test_shipped_configurations_hold_table_7(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    _, size, variant = name.split("_", 2)
    expected = TABLE_7 | VARIANTS[variant] | {"model.size": size, "model.drop_path_rate": {"s": 0.1, "b": 0.2}[size]}
    assert {key: value(config, key) for key in expected} == expected
    assert config.batch_size == 2048
    assert config.peak_lr == pytest.approx(0.0035 * 2**0.5, rel=1e-12)
    written = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    rows = [key for key in list(TABLE_7)[:21] if key not in {"data.mean_hu"}]
    for key in rows:  # Table 7 can be read in the file itself
        section, field = key.split(".")
        assert field in written[section], key


# Backbone: patches x C + C, positions (1 + N), CLS, 4 registers, mask, final norm 2 C; a block 12 C^2 + 15 C.
BACKBONES = {
    "tap_s_2d": 256 * 384 + 384 * (1 + 197 + 6 + 2) + 12 * (12 * 384**2 + 15 * 384),
    "tap_b_2d": 256 * 768 + 768 * (1 + 197 + 6 + 2) + 12 * (12 * 768**2 + 15 * 768),
    "tap_s_2_5d": 256 * 384 + 384 * (1 + 1177 + 6 + 2) + 12 * (12 * 384**2 + 15 * 384),
    "tap_b_2_5d": 256 * 768 + 768 * (1 + 1177 + 6 + 2) + 12 * (12 * 768**2 + 15 * 768),
    "tap_s_3d": 256 * 384 + 384 * (1 + 2353 + 6 + 2) + 12 * (12 * 384**2 + 15 * 384),
    "tap_b_3d": 256 * 768 + 768 * (1 + 2353 + 6 + 2) + 12 * (12 * 768**2 + 15 * 768),
    "tap_t_3d": 256 * 192 + 192 * (1 + 2353 + 6 + 2) + 12 * (12 * 192**2 + 15 * 192),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_true_sizes_and_parameter_counts(name):
    config = load_config(CONFIGS / f"{name}.yaml", ["run.compile=false"])
    with torch.device("meta"):
        model = Pretrainer(config)
    width = {"t": 192, "s": 384, "b": 768}[config.model.size]
    head = width * 2048 + 2048 + 2048**2 + 2048 + 2048 * 256 + 256 + 256 * 65_536
    counts = {key: sum(p.numel() for p in module.parameters()) for key, module in model.student.named_children()}
    assert counts == {"backbone": BACKBONES[name], "dino_head": head, "ibot_head": head}
    assert sum(p.numel() for p in model.teacher.parameters()) == sum(counts.values())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(counts.values())


@pytest.mark.parametrize("name", [*PAPER, "tap_s_3d_short", "tap_t_3d", "tap_debug"])
def test_dump_reads_back_to_the_same(name, tmp_path):
    config = load_config(CONFIGS / f"{name}.yaml")
    (tmp_path / "resolved.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == config
    assert parse_config(yaml.safe_load(dump_config(config)), "a checkpoint") == config


def test_appendix_d_is_two_overrides():
    config = load_config(CONFIGS / "tap_s_3d.yaml", ["crops.local_size=[6, 96, 96]", "model.patch_size=[1, 16, 16]"])
    assert (config.global_grid, config.local_grid) == ((12, 14, 14), (6, 6, 6))


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("optim.base_lr=1e-3", "base_lr", 1e-3),
        ("--optim.base_lr=.002", "base_lr", 0.002),
        ("optim.weight_decay=[0, 1E-1]", "weight_decay", (0.0, 0.1)),
        ("optim.warmup_steps=7", "warmup_steps", 7),
    ],
)
def test_overrides_are_yaml(override, field, expected):
    assert getattr(load_config(CONFIGS / "tap_b_3d.yaml", [override]).optim, field) == expected


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.base_l=1", "unknown key optim.base_l. Did you mean 'base_lr'"),
        ("modl.size=b", "unknown key modl. Did you mean 'model'"),
        ("run.probe.folde=x", "unknown key run.probe.folde. Did you mean 'folder'"),
        ("optim.base_lr=fast", "optim.base_lr: .*number.*'fast'"),
        ("run.steps='20'", "run.steps: .*integer.*'20'"),
        ("run.compile=1", "run.compile: .*boolean.*1"),
        ("run.steps=1.5", "run.steps: .*integer.*1.5"),
        ("model.size=xl", "model.size: .*'t', 's' or 'b'.*'xl'"),
        ("data.store=null", "data.store"),
        ("crops.global_scale=[1, 0.3]", r"crops.global_scale: must be \(min, max\)"),
        ("crops.local_scale=[0.1, 1.3]", "crops.local_scale"),
        ("crops.global_size=[12, 220, 224]", "crops.global_size height 220 is not a positive multiple"),
        ("crops.local_size=[10, 96, 96]", "crops.local_size depth 10"),
        ("model.patch_size=[8, 8]", "as many axes"),
        ("data.slab_slices=8", "data.slab_slices 8 is less than"),
        ("run.steps=100", "optim.warmup_steps 25000 leaves nothing of run.steps 100.*run.stop_at"),
        ("steps", "an override reads section.key=value, got 'steps'"),
        ("run.steps.x=1", "run.steps: Input should be a valid integer"),
        ("run.steps=[", "cannot read the value"),
    ],
)
def test_what_does_not_fit_is_refused(override, says):
    with pytest.raises(PretrainError, match=says):
        load_config(CONFIGS / "tap_b_3d.yaml", [override])


def test_missing_keys_and_files_are_named(tmp_path):
    with pytest.raises(PretrainError, match=r"there is no configuration .*none.yaml"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "some.yaml"
    path.write_text("model: {size: b}\n", encoding="utf-8")
    with pytest.raises(PretrainError, match=r"model.patch_size is missing.*data is missing"):
        load_config(path)
    path.write_text("model: {size: b\n", encoding="utf-8")
    with pytest.raises(PretrainError, match="cannot read the configuration"):
        load_config(path)
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(PretrainError, match="must hold sections"):
        load_config(path)


def test_every_field_is_documented():
    sections = [Config]
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                sections.append(field.annotation)
    assert len(sections) == 13


def test_settings_cannot_be_changed_in_place():
    config = load_config(CONFIGS / "tap_b_3d.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.optim.base_lr = 1.0


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """YAML's own reader takes the last one in silence."""
    twice = (CONFIGS / "tap_debug.yaml").read_text(encoding="utf-8").replace("run:\n", "run:\n  steps: 3\n")
    (tmp_path / "twice.yaml").write_text(twice, encoding="utf-8")
    with pytest.raises(PretrainError, match="duplicate key steps"):
        load_config(tmp_path / "twice.yaml")
