"""What every probe has and says: an encoder, cases as features, how a head is built, trained and scored."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules import module
from lightning.pytorch.trainer.states import TrainerFn
from loguru import logger
from torch import nn

from tapct._utils import telemetry
from tapct.encoders import Encoder, Precision, load_encoder
from tapct.encoders.options import parse_options, with_precision
from tapct.encoders.regions import RegionEncoder
from tapct.errors import EncoderError, TaskError
from tapct.features import EncodedCase, Seen
from tapct.features.channels import Channels, map_of
from tapct.kinds import Metric, kind
from tapct.probes.adaptors import Pooling
from tapct.probes.heads import HeadState, SharedByRuns, finite_loss
from tapct.probes.loaded import LoadedHead
from tapct.probes.of_training import channel_scale
from tapct.probes.recording import RunRecorder
from tapct.probes.selecting import has_selection
from tapct.probes.settings import ProbeSettings
from tapct.probes.solved import PooledCases, Solution
from tapct.probes.source import CaseSource
from tapct.records import CaseResult, PatchSize
from tapct.records.case import as_cases


class Probe(module.ModelModule):
    """The settings of a probe on a frozen encoder, and what a kind of probe says of its heads.

    Nothing here knows when eva calls what; that is `FrozenEncoderProbe`.
    """

    kind: ClassVar[str]
    """The kind of task that it is for (`tapct.kinds`)."""

    shows_results: ClassVar[bool] = True
    """It prints a table of its record as the last run ends: no other is needed."""

    encoder: Encoder
    head_name: str
    """Name of the attribute that holds the heads (one, once it is chosen)."""

    def __init__(
        self, encoder: str | Encoder, weights: str | None = None, *, of_eva: dict[str, Any], **settings: Any
    ) -> None:
        """Initializes what every probe has.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            of_eva: Arguments of the eva module that the probe is derived from.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TapctError: If there is no such encoder, or it describes no places and the heads of this kind need them.
        """
        super().__init__(**of_eva)
        self.settings = ProbeSettings(**settings)
        self.encoder = loaded_encoder(encoder, weights, self.settings.precision, self.settings.encoder_options)
        if isinstance(self.encoder, RegionEncoder) and not kind(self.kind).heads:
            raise TaskError(
                f"{self.encoder.card.name} describes a region of a scan by one vector, and a task of {self.kind} needs "
                "a map of features: take another encoder, or a task of classification, regression, survival, retrieval"
            )
        self.source = CaseSource(self.encoder, self.settings)
        self.session = SharedByRuns()
        self.run = 0
        self._begun: int | None = None
        self.loaded: LoadedHead | None = None
        self.recorder = RunRecorder()

    seen: Seen
    """Which features of a case a head sees."""

    seen_dtype: torch.dtype | None = torch.float32
    """What they are on the device; None is as they are stored, where heads convert them as they need them."""

    pooling: Pooling | None = None
    """How the features of a case become the one vector that a head sees; None where it sees all of them."""

    feature_weights: tuple[str, ...]
    """Parameters of a head that multiply features, whose channels lie along their second axis."""

    undecayed: tuple[str, ...] = ()
    """Parameters of a head without weight decay."""

    def build_head(self, classes: list[str]) -> nn.Module:
        """Returns a freshly initialised head for these classes (with background, in segmentation)."""
        raise NotImplementedError

    def require_data(self) -> None:
        """Refuses data that do not have what heads see; asked before anything is encoded."""

    def head_of(self, state: HeadState) -> nn.Module:
        """Returns a head that these weights fit into."""
        return self.build_head(self.classes)

    is_solved = False
    """Whether heads are solved at once instead of trained by steps."""

    def solve(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        """Returns the head of training cases, where `is_solved`.

        Args:
            train: The cases that it is fitted on; of a cross-validated task those of all folds but one.
            selection: The selection cases, if there are any.
        """
        raise NotImplementedError

    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        """Returns (heads,) the mean loss of each over cases, whose features are scaled as they are in training."""
        raise NotImplementedError

    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        """Returns what eva's metrics take, and the result of a head on a case.

        Args:
            head: The head.
            case: The case.
            reported: Whether this goes into the record, or only chooses a head while training.

        Raises:
            DivergedError: If the loss of the head is not finite.
        """
        raise NotImplementedError

    def apart(self, head: nn.Module, case: EncodedCase) -> dict[str, float]:
        """Returns how far the features of a case are from what a head itself holds of it, in words; 0 is the same.

        Most heads hold nothing of a case. It is asked where a case is encoded again.
        """
        return {}

    def head_input(self, case: EncodedCase) -> Channels:
        """Returns what a head sees of a case, as it is stored."""
        return map_of(case.features) if self.seen == "map" else Channels(case.features.embeddings.T)

    def prepare(self) -> None:
        """Takes from the training cases what heads start from: the scale of their features."""
        if self.settings.scale_features and self.session.scale is None:
            self.session.scale = channel_scale(self.source, self.trainer, self.seen, self.head_input)

    def on_device(self, case: EncodedCase, device: torch.device) -> EncodedCase:
        """Returns a case with what heads see of it on a device."""
        return case.to(device, [self.seen], self.seen_dtype)

    def folded(self, state: HeadState) -> dict[str, torch.Tensor]:
        """Returns the weights of a head for features that are not scaled."""
        return dict(state) if self.session.scale is None else self.session.scale.folded(state, self.feature_weights)

    def seen_by_heads(self) -> dict[str, Any]:
        """Returns the settings that decide what heads see and say, for the record and for heads trained before."""
        windows = {"window_overlap": self.settings.window_overlap, "fit_windows": self.settings.fit_windows}
        return {"classes": self.classes, **windows}

    def score(self, results: list[CaseResult]) -> float | None:
        """Returns the task's ranked metric over cases; None where it is undefined."""
        value = self.ranked.value(as_cases(kind(self.kind), results))
        return None if math.isnan(value) else value

    @property
    def ranked(self) -> Metric:
        """The metric that the task is ranked by; the usual one of its kind where the datamodule names none."""
        datamodule = self.trainer.datamodule
        said = datamodule.describe().get("metric") if hasattr(datamodule, "describe") else None
        return kind(self.kind).metric(said or kind(self.kind).ranked[0])

    @property
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        """What eva computes step by step: the loss. The metrics of the kind come from the results of the cases."""
        return metrics_lib.MetricsSchema(common=[AverageLoss()])

    def result(self, case: EncodedCase, loss: torch.Tensor, outcome: Mapping[str, Mapping[str, Any]]) -> CaseResult:
        """Returns the result of a case.

        Args:
            case: The case.
            loss: Of the head on it.
            outcome: By field of the kind and class, numbers or lists of them.

        Raises:
            DivergedError: If the loss is not finite.
        """
        return CaseResult(
            case=case.name,
            patient=case.patient,
            loss=finite_loss(loss, case.name),
            padding_voxels=case.features.padding,
            notes=case.notes,
            outcome={field: dict(by_class) for field, by_class in outcome.items()},
        )

    def cell_size(self) -> PatchSize | None:
        """Returns the size of patches and what it costs; None where no map is used."""
        return None

    @property
    def trained_head(self) -> nn.Module:
        """The head of this run, once it is chosen."""
        return getattr(self, self.head_name)[0]

    @property
    def split(self) -> str:
        """The split that is evaluated."""
        return "test" if self.trainer.state.fn == TrainerFn.TESTING else "val"

    @property
    def notice(self) -> str | None:
        """What must stand next to every number of the task; None of most."""
        return getattr(self.trainer.datamodule, "notice", None)

    def describe(self) -> dict[str, Any]:
        """Returns the settings of the probe for the record, from the objects that ran."""
        return {
            "module": f"{type(self).__module__}.{type(self).__qualname__}",
            "head": str(self.trained_head),
            **self.seen_by_heads(),
            "seed": self.settings.seed,
            "learning_rates": self.settings.learning_rates,
            "scale_features": self.settings.scale_features,
            "feature_scale": None if self.session.scale is None else self.session.scale.describe(),
            "select": "best" if has_selection(self.trainer, self.settings) else "last",
            "feature_dtype": self.source.dtype,
            **(self.session.settings if self.loaded is None else self.loaded.settings()),
        }

    @property
    def classes(self) -> list[str]:
        """Names of the classes, from the dataset that the trainer holds.

        Raises:
            TaskError: If the dataset names none.
        """
        datasets = self.trainer.datamodule.datasets
        for dataset in (datasets.train, datasets.val, datasets.test):
            one = dataset[0] if isinstance(dataset, list) else dataset
            if names := getattr(one, "classes", None):
                return list(names)
        raise TaskError("the datasets name no classes: give them a `classes` property, as eva's datasets have")

    def full_precision(self) -> torch.autocast:
        """Returns a context without autocast: sums over millions of voxels lose their digits in bf16.

        The trainer's `precision` then changes nothing here; the encoder has its own.
        """
        return torch.autocast(self.device.type, enabled=False)


def loaded_encoder(
    encoder: str | Encoder, weights: str | None, precision: Precision, options: dict[str, Any] | str | None
) -> Encoder:
    """Returns an encoder by name, or the one that was given with its settings."""
    if not telemetry.is_off():
        logger.warning(f"Set {telemetry.VARIABLE}=1 before starting eva: it imports onnxruntime, which phones home.")
    if isinstance(encoder, str):
        # Deferred: with every feature in the store, the network is never needed.
        asked = with_precision(parse_options(encoder, options), precision)
        return load_encoder(encoder, weights, deferred=True, **asked)
    if weights is not None or options or precision != "auto":
        raise EncoderError(
            "an encoder given by class_path takes its weights, precision and options in its own init_args"
        )
    return encoder
