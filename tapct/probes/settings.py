"""What a config may say of any probe: declared once, for eva's command line and for all modules that are told."""

from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import optim

from tapct._utils.files import features_folder
from tapct.encoders import Precision
from tapct.features import CacheMode, FeatureMemory, TensorStore
from tapct.records.types import FeatureDtype


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """The settings that every probe takes, by the names that they have below `model.init_args`.

    A probe takes them as `**settings` and passes them on to `Probe`, which makes one of these of them; jsonargparse
    follows that, so that each field is a key of the config with its type, default and description.

    Attributes:
        precision: Of the encoder: "auto" (bf16 on a GPU, else fp32), "fp32", "bf16".
        encoder_options: Settings of the card or of the encoder's constructor to change, such as {in_plane_size: 512},
            or as text: "in_plane_size=512+precision=fp32".
        window_overlap: Share of overlap between windows, in [0, 1).
        fit_windows: Whether windows shrink to a scan that is smaller than they are: for crops of nodules.
        optimizer: Of the head.
        lr_scheduler: Of the head, stepped with the optimizer; None is a cosine that ends at zero.
        learning_rates: Rates to choose from on the selection cases; None for the optimizer's own.
        select: Which head is reported: the "best" on the selection cases over rates and validation evaluations (every
            `val_check_interval` of the trainer), or the "last". Without selection cases it is the last.
        seed: Run k starts from seed + k.
        runs_together: Whether the runs of a session train side by side; the numbers are the same.
        scale_features: Whether each channel is divided by its deviation over the training cases while the head trains;
            see `tapct.probes.scaling`. False is the paper's plain protocol.
        checkpoint_every: Steps between checkpoints of heads that are trained by steps: the same command resumes a
            session that was ended before its time; None for none. See `tapct.probes.checkpoints`.
        head: For `eva test` and `eva validate`: the folder of a session, or a `head.safetensors`, that was trained
            before; `eva fit` trains its own.
        features: What to do with stored features: "use", "refresh", "only-cached", "off"; see `CacheMode`.
        feature_folder: Where they are; by default the variable TAPCT_FEATURES, else in the cache folder.
        feature_dtype: What they are stored as: "bf16", "fp16", "fp32", or "int8" (half of bf16; marked).
        feature_budget_gb: What the folder may take, in GiB; older ones make room.
        feature_memory_gb: With "off": memory for the features of cases already encoded, in GiB.
    """

    precision: Precision = "auto"
    encoder_options: dict[str, Any] | str | None = None
    window_overlap: float = 0.0
    fit_windows: bool = False
    optimizer: OptimizerCallable = optim.AdamW
    lr_scheduler: LRSchedulerCallable | None = None
    learning_rates: list[float] | None = None
    select: Literal["best", "last"] = "best"
    seed: int = 0
    runs_together: bool = True
    scale_features: bool = True
    checkpoint_every: int | None = None
    head: str | None = None
    features: Literal["use", "refresh", "only-cached", "off"] = "use"
    feature_folder: str | None = None
    feature_dtype: FeatureDtype = "bf16"
    feature_budget_gb: float | None = None
    feature_memory_gb: float = 4.0

    def __post_init__(self) -> None:
        CacheMode(self.features)  # a ValueError of an unknown one

    @property
    def mode(self) -> CacheMode:
        """What to do with stored features."""
        return CacheMode(self.features)

    def store(self) -> TensorStore:
        """Returns the store of features that these settings name."""
        return TensorStore(self.feature_folder or features_folder(), self.feature_budget_gb)

    def memory(self) -> FeatureMemory:
        """Returns an empty memory for features, of the size that these settings name."""
        return FeatureMemory(int(self.feature_memory_gb * 2**30))
