"""The settings of a pretraining run: typed, documented, read from YAML, refused where they do not fit.

The files in `pretrain/configs` hold Table 7 of the TAP-CT paper. What the paper does not say comes from
DINOv2, whose recipe it follows (section 3.1); the field's text then says so.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pretrain.setting_types import (
    AboveZero,
    AtLeastOne,
    CropSize,
    Fractions,
    Interval,
    Location,
    NonNegative,
    PositiveRange,
    Probability,
    Section,
    Steps,
    is_url,
)
from tapct.vit.positions import patch_grid


class ModelConfig(Section):
    """The vision transformer. Its native window is the global crop (`crops.global_size`)."""

    size: Literal["debug", "t", "s", "b"]
    """ViT-Ti (192 wide), ViT-S (384) or ViT-B (768), 12 blocks each; "debug": 96 wide, 4 blocks."""
    patch_size: CropSize
    """The patch, ([D,] H, W); two axes make a 2D model."""
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)]
    """Stochastic depth, uniform over the blocks, by batch subset: 0.2 for ViT-B, 0.1 for ViT-S (A.1)."""
    layer_scale_init: AboveZero = 1e-5
    """First value of the LayerScales (Table 7)."""
    num_register_tokens: Steps = 4
    """Register tokens (Table 7)."""


class InitConfig(Section):
    """What a run begins with."""

    source: Path | None = Field(default=None, alias="from")
    """`from`: weights that the backbone begins with, read once (`pretrain.training.warm_start`): a 2D DINOv2 as Hugging
    Face or torch.hub have it, or an encoder that `pretrain.export` wrote; null for fresh ones, as in the paper."""


class DataConfig(Section):
    """The store of volumes and how it is read."""

    store: Location
    """The folder that `python -m pretrain.prepare` wrote; or the URL of a copy of it, read through fsspec
    (``s3://bucket/store``, ``gs://``, ``https://``)."""
    cache: Path | None = None
    """Folder on each node's own disk that keeps what was read from a URL; all processes of a node share it."""
    cache_gb: AboveZero = 100.0
    """What that folder holds at most, in 10^9 bytes; what was used least recently goes first."""
    intensities: Literal["given", "store"] = "given"
    """Where the next three come from: "given" takes them as they are here, "store" the store's own fingerprint, as the
    run begins."""
    clip_hu: Interval = (-1008.0, 822.0)
    """Values are clipped to this range: the 0.5 and 99.5 percentiles of the foreground (Appendix B)."""
    mean_hu: float = -86.8086
    """Mean of the foreground; subtracted after clipping (Appendix B)."""
    std_hu: AboveZero = 322.6347
    """Standard deviation of the foreground; divides last (Appendix B)."""
    antialias: bool = True
    """Whether crops are averaged in the plane where they shrink, as DINOv2's are and as the benchmark resizes scans.

    False takes the two voxels next to each pixel's centre: the encoder is then trained on noisier images than most
    readers of CT see. The paper does not say; runs from before this setting did without.
    """
    slab_slices: AtLeastOne
    """Neighbouring slices that one visit to a volume reads; its ten crops lie at random depths inside them.

    The paper does not say how far apart in depth the crops of a volume are (A.1); this is our choice.
    """
    workers: Steps = 4
    """Processes that decode slabs, for each training process; 0 decodes in the training process."""
    prefetch: AtLeastOne = 2
    """Micro-batches that the workers of a training process keep ready, all together."""
    max_quarantined_fraction: Probability = 0.01
    """The run stops when more of the store's volumes than this turn out to be unreadable.

    Up to there each is reported, and the next volume in the order of the samples takes its place.
    """

    @model_validator(mode="after")
    def _url_has_a_cache(self) -> "DataConfig":
        if is_url(self.store) and self.cache is None:
            raise ValueError(
                f"data.store {self.store} is a URL: give data.cache too, a folder on each node's own disk for what is "
                "read from there, and data.cache_gb, how large it may grow"
            )
        return self


class CropsConfig(Section):
    """Multi-crop and augmentation, on the device."""

    global_size: CropSize
    """Global crop after resizing, ([D,] H, W); the depth is never resized (section 3.1)."""
    local_size: CropSize
    """Local crop after resizing, ([D,] H, W)."""
    num_global: Literal[2] = 2
    """Global crops a sample; the losses are written for two, as DINOv2's."""
    num_local: AtLeastOne = 8
    """Local crops a sample (DINOv2)."""
    global_scale: Fractions = (0.32, 1.0)
    """Area of a global crop over that of the axial slice (Table 7)."""
    local_scale: Fractions = (0.05, 0.32)
    """Area of a local crop over that of the axial slice (Table 7)."""
    aspect_ratio: PositiveRange = (3 / 4, 4 / 3)
    """Width over height of a crop before resizing, log-uniform (torchvision's RandomResizedCrop, as in DINOv2)."""
    flip_probability: tuple[Probability, Probability, Probability] = (0.0, 0.0, 0.5)
    """Chance that a crop is mirrored along depth, height and width; DINOv2 flips horizontally."""
    gamma: PositiveRange = (0.7, 1.5)
    """Exponent of the gamma adjustment, on the clip range brought to [0, 1]; nnU-Net's, for the paper gives none."""
    gamma_probability: Probability = 0.8
    """Chance of the gamma adjustment; that of the colour jitter which it replaces (DINOv2)."""
    blur_sigma: PositiveRange = (0.1, 2.0)
    """Standard deviation of the in-plane Gaussian blur, in pixels of the resized crop (DINOv2)."""
    blur_probability: tuple[Probability, Probability, Probability] = (1.0, 0.1, 0.5)
    """Chance of the blur for the first global, the second global and the local crops: what DINO had and DINOv2 names.

    DINOv2's code inverts it and did [0.0, 0.9, 0.5] (docs/pretraining-vs-dinov2.md); the paper gives none.
    """


class EarlyConfig(Section):
    """Smaller crops for the first steps of a run (multi-resolution); off where no size is given. Not in the paper."""

    global_size: CropSize | None = None
    """Global crop of the first steps after resizing, ([D,] H, W); null for `crops.global_size` in all."""
    local_size: CropSize | None = None
    """Local crop of the first steps after resizing, ([D,] H, W); goes with `global_size`."""
    full_size_last: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the run's steps, the last ones, whose crops have the full size."""


class MaskingConfig(Section):
    """Which patches of the global crops the student does not see (iBOT)."""

    probability: Probability = 0.5
    """Share of the global crops that are masked (Table 7)."""
    ratio: Fractions = (0.1, 0.5)
    """Share of the patches of a masked crop that are masked, spread evenly over the masked crops (Table 7)."""
    aspect_hw: PositiveRange = (0.3, 1 / 0.3)
    """Height over width of a block, in patches, log-uniform (DINOv2)."""
    aspect_hd: PositiveRange = (0.3, 1 / 0.3)
    """Height over depth of a block, in patches, log-uniform; its range is our choice (section 3.1 gives none)."""
    min_patches: AtLeastOne = 4
    """Smallest block (DINOv2)."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a global crop's patches that the student does not compute, drawn from those that are not masked; as many
    in every crop, so that shapes never change. Not in the paper."""


class HeadsConfig(Section):
    """The two projection heads, DINO's and iBOT's, with weights of their own (untied, Table 7)."""

    prototypes: AtLeastOne = 65536
    """Rows of the last layer (Table 7)."""
    hidden_dim: AtLeastOne = 2048
    """Width of the hidden layers (Table 7)."""
    num_layers: Annotated[int, Field(ge=2)] = 3
    """Linear layers before the prototypes (Table 7)."""
    bottleneck_dim: AtLeastOne = 256
    """Width before the prototypes, where the vectors are brought to length 1 (Table 7)."""
    train_gain: bool = False
    """Trains the lengths of the prototypes, from 1, as DINOv2 does; false keeps them at 1, as DINO's
    ``norm_last_layer``, so that a logit is a cosine. The paper does not say."""


class LossesConfig(Section):
    """DINO, iBOT and KoLeo."""

    dino_weight: NonNegative = 1.0
    """Weight of the DINO loss (Table 7)."""
    ibot_weight: NonNegative = 1.0
    """Weight of the iBOT loss (Table 7)."""
    koleo_weight: NonNegative = 0.1
    """Weight of the KoLeo regulariser (Table 7)."""
    student_temperature: AboveZero = 0.1
    """Temperature of the student's softmax (DINOv2)."""
    teacher_temperature: tuple[AboveZero, AboveZero] = (0.04, 0.07)
    """Temperature of the teacher's softmax at the start and after its warm-up (Table 7)."""
    teacher_temperature_warmup_steps: Steps = 37_500
    """Steps over which the teacher's temperature rises, linearly (Table 7)."""
    centre_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the centres (DINOv2)."""
    chunk_rows: AtLeastOne | None = 2048
    """Tokens whose prototype logits exist at one time; null holds those of all tokens (exact either way)."""
    centre_from_bottleneck: bool = True
    """Takes the mean of the teacher's logits from the mean of its bottleneck vectors; false sums the logits (equal)."""


class OptimConfig(Section):
    """AdamW and its schedules."""

    base_lr: AboveZero = 0.0035
    """Learning rate at a batch of `reference_batch`; multiplied by sqrt(batch / reference_batch) (Table 7)."""
    reference_batch: AtLeastOne = 1024
    """Batch at which `base_lr` holds (DINOv2)."""
    min_lr: NonNegative = 1e-6
    """Learning rate at the end of the cosine (DINOv2); not scaled."""
    warmup_steps: Steps = 25_000
    """Steps over which the learning rate rises, linearly; the paper saw collapse with 12,500 (section 3.1)."""
    weight_decay: tuple[NonNegative, NonNegative] = (0.04, 0.4)
    """Weight decay at the start and at the end, along a cosine (Table 7)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Learning rate of a block over that of the next (Table 7)."""
    patch_embed_lr_factor: NonNegative = 0.2
    """Further factor on the learning rate of the patch embedding (DINOv2)."""
    freeze_last_layer_steps: Steps = 1250
    """Steps during which the prototypes do not move: DINOv2's first epoch of 1,250 iterations."""
    clip_norm: AboveZero = 3.0
    """Largest norm of the gradient of the backbone and of each head, clipped separately (Table 7, DINOv2)."""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """AdamW's betas (DINOv2)."""
    teacher_momentum: tuple[Probability, Probability] = (0.992, 1.0)
    """Momentum of the teacher at the start and at the end, along a cosine (Table 7)."""


class ProbeConfig(Section):
    """The online k-NN probe of the teacher on volumes that are not trained on."""

    folder: Path | None = None
    """Held-out volumes with labels; null for no probe."""
    every_steps: AtLeastOne = 2500
    """Steps between two probes."""
    neighbours: AtLeastOne = 20
    """Neighbours that vote (DINO's k-NN)."""


class CollapseConfig(Section):
    """When the representation counts as collapsed, judged at each line of the log."""

    min_entropy: Probability = 0.1
    """Alarm below this entropy of the teacher's distributions, as a share of ln(prototypes)."""
    min_effective_rank: NonNegative = 10.0
    """Alarm below this effective rank of the class tokens; not judged where a step has under 4 times as many."""
    after_steps: Steps = 5_000
    """Steps that are not judged: the class tokens of fresh weights are nearly alike."""
    stop: bool = False
    """Stops the run at an alarm; false only tells."""


class RunConfig(Section):
    """How long, how large, where to, and what to do when something goes wrong."""

    output: Path
    """Folder of checkpoints, logs and reports."""
    steps: AtLeastOne = 125_000
    """Optimizer steps of the whole schedule (Table 7)."""
    stop_at: AtLeastOne | None = None
    """Stops (and saves) at this step, with the schedules of the whole run; null runs to the end."""
    micro_batch_size: AtLeastOne = 32
    """Samples of a micro-batch, the unit of meaning: it has its own random numbers and KoLeo groups."""
    micro_batches: AtLeastOne = 64
    """Micro-batches of a step, over all processes; `micro_batch_size` times this is the batch (2048, Table 7)."""
    seed: Steps = 0
    """Seed of initialisation, samples, crops, masks and stochastic depth."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the matrix products; weights, optimizer, softmax and losses are float32 in either case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; "auto" takes CUDA where there is one."""
    compile: bool = True
    """Compiles the transformer blocks and the prototype losses; false runs them eagerly."""
    compile_check: Literal["refuse", "fall_back", "skip"] = "refuse"
    """At the start, where compiled code gives other results than plain code, or cannot be made: refuses to start, or
    says so and computes plainly; "skip" does not compare."""
    recompute: bool = True
    """Computes GELUs and norms anew in the backward pass instead of holding them; has effect with `compile` (equal)."""
    keep_freed_memory: bool = True
    """On a CPU (glibc): keeps freed memory for the next step instead of handing it back to the system."""
    prune_last_block: bool = True
    """Computes, in the last block, only the tokens that a loss reads; false computes all (equal)."""
    adopt_store: bool = False
    """Resumes with a store whose volumes are others than before, such as a grown one; noted in the run. Its samples
    are then those of the new order; false refuses."""
    checkpoint_every: AtLeastOne = 500
    """Steps between two checkpoints."""
    keep: AtLeastOne = 3
    """Newest checkpoints that are kept."""
    log_every: AtLeastOne = 10
    """Steps between two lines of the log."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """After a non-finite loss or gradient, and the dump of its batch: stop the run, or leave out the step."""
    max_skipped_steps: AtLeastOne = 3
    """With "skip": steps in a row that may be left out before the run stops."""
    collapse: CollapseConfig = CollapseConfig()
    """The collapse alarm."""
    probe: ProbeConfig = ProbeConfig()
    """The online probe."""


class Config(Section):
    """All settings of a run."""

    model: ModelConfig
    """The vision transformer."""
    init: InitConfig = InitConfig()
    """What it begins with."""
    data: DataConfig
    """The store of volumes and how it is read."""
    crops: CropsConfig
    """Multi-crop and augmentation."""
    early: EarlyConfig = EarlyConfig()
    """Smaller crops at first."""
    masking: MaskingConfig = MaskingConfig()
    """Which patches the student does not see."""
    heads: HeadsConfig = HeadsConfig()
    """The projection heads."""
    losses: LossesConfig = LossesConfig()
    """The losses."""
    optim: OptimConfig = OptimConfig()
    """The optimizer and its schedules."""
    run: RunConfig
    """Length, size, place and policies."""

    @property
    def global_grid(self) -> tuple[int, ...]:
        """The patch grid of a global crop, ``([d,] h, w)``."""
        return patch_grid(self.crops.global_size, self.model.patch_size, "crops.global_size")

    @property
    def local_grid(self) -> tuple[int, ...]:
        """The patch grid of a local crop, ``([d,] h, w)``."""
        return patch_grid(self.crops.local_size, self.model.patch_size, "crops.local_size")

    @property
    def most_masked(self) -> int:
        """A bound on the masked patches of one global crop; the masks may round up once more."""
        return math.ceil(self.masking.ratio[1] * math.prod(self.global_grid)) + 1

    @property
    def computed_patches(self) -> int:
        """Patches of a global crop that the student computes (`masking.drop`)."""
        patches = math.prod(self.global_grid)
        return patches - round(self.masking.drop * patches)

    @property
    def phases(self) -> tuple[tuple[int, "Config"], ...]:
        """The first step of each phase, and the settings with its crops; without `early` one: these settings."""
        early = self.early
        if early.global_size is None:
            return ((0, self),)
        change = self.run.steps - max(1, round(self.run.steps * early.full_size_last))
        sizes = {"global_size": early.global_size, "local_size": early.local_size}
        full = self.model_copy(update={"early": EarlyConfig()})
        return (0, full.model_copy(update={"crops": self.crops.model_copy(update=sizes)})), (change, full)

    def at(self, step: int) -> "Config":
        """Returns the settings with the crops of a step, counted from 0."""
        return next(config for first, config in reversed(self.phases) if first <= step)

    @property
    def batch_size(self) -> int:
        """Samples of one optimizer step, over all processes."""
        return self.run.micro_batch_size * self.run.micro_batches

    @property
    def peak_lr(self) -> float:
        """Learning rate after the warm-up: the base rate scaled by sqrt(batch / reference batch), as DINOv2."""
        return self.optim.base_lr * math.sqrt(self.batch_size / self.optim.reference_batch)

    @model_validator(mode="after")
    def _sections_fit(self) -> "Config":
        self._check_sizes()
        if self.optim.warmup_steps >= self.run.steps:
            raise ValueError(
                f"optim.warmup_steps {self.optim.warmup_steps} leaves nothing of run.steps {self.run.steps}; "
                "to stop early on the same schedule, set run.stop_at"
            )
        return self

    def _check_sizes(self) -> None:
        """Raises where crops, patches and slabs do not fit each other, in either phase."""
        early, crops = self.early, self.crops
        if (early.global_size is None) != (early.local_size is None):
            raise ValueError("early.global_size and early.local_size go together")
        small = [size for size in (early.global_size, early.local_size) if size]
        if len({len(size) for size in (self.model.patch_size, crops.global_size, crops.local_size, *small)}) > 1:
            raise ValueError("model.patch_size, crops.* and early.* must have as many axes")
        for name, size, full in zip(("global", "local"), small, (crops.global_size, crops.local_size), strict=False):
            patch_grid(size, self.model.patch_size, f"early.{name}_size")
            if any(one > whole for one, whole in zip(size, full, strict=True)):
                raise ValueError(f"early.{name}_size {size} must not be larger than crops.{name}_size {full}")
        _ = self.global_grid, self.local_grid  # raises where a crop is not a multiple of the patch
        depth = max(size[0] if len(size) == 3 else 1 for size in (crops.global_size, crops.local_size))
        if self.data.slab_slices < depth:
            raise ValueError(f"data.slab_slices {self.data.slab_slices} is less than the {depth} slices of a crop")
        for _, phase in self.phases if self.masking.drop else ():
            if phase.computed_patches < phase.most_masked:
                left, needed = phase.computed_patches, phase.most_masked
                raise ValueError(f"masking.drop leaves {left} patches of a crop, and up to {needed} are masked")
