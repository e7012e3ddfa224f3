"""What a record says of the encoder, the task and the probe: taken from the objects that ran."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from tapct import kinds
from tapct.encoders.card import InPlaneFilter
from tapct.encoders.mistake_names import OPTION as MISTAKE
from tapct.encoders.options import full_name, label
from tapct.encoders.verified import Status, in_words
from tapct.records.paths import base_name
from tapct.records.types import (
    AtLeast1,
    Count,
    Fraction,
    Frozen,
    Name,
    NotNegative,
    Number,
    Positive,
    Setting,
    Settings,
    Sha256,
    Switch,
    Text,
    Whole,
    optional,
)

RANDOM, NONE = "random", "none"
"""What stands for the name of a file of weights: drawn at random, or an encoder without parameters."""

Triple = tuple[Positive, Positive, Positive]
Sizes = tuple[Count, Count, Count]


class WeightsRecord(Frozen):
    """Where the published weights of the encoder are: `tapct.encoders.card.Weights`, whose fields it has."""

    repository: Text | None = None
    revision: Text | None = None
    file: Text | None = None
    sha256: Text | None = None
    md5: Text | None = None
    licence: Text | None = None
    gated: Switch = False
    needed: Switch = True


class CardRecord(Frozen):
    """The encoder's card as it was built: `tapct.encoders.EncoderCard`, whose fields it has.

    Older records have no `in_plane_filter`: all that was resampled was averaged.
    """

    name: Name
    display_name: Name
    window_size: Sizes
    spacing_mm: Triple | None
    in_plane_size: Count | None
    in_plane_filter: InPlaneFilter = "antialias"
    pad_hu: Number
    feature_stride: Sizes
    feature_dim: Count
    embedding_dim: Count
    has_cls: Switch
    num_params: Count
    weights: WeightsRecord = WeightsRecord()
    pretraining_data: tuple[Text, ...] = ()
    reference: Text = ""
    inputs_as_declared: Switch = False


class IdentityRecord(Frozen):
    """What tells two encoders of one card apart.

    Attributes:
        cls: The path of its class; `class` in the file.
        code_sha256: Hash of its sources, without comments; None where they are in no file.
        settings: By name; of buffers, arrays and files the hash of the content.
    """

    model_config = ConfigDict(populate_by_name=True)

    cls: Text = Field(alias="class")
    code_sha256: Sha256 | None
    settings: dict[str, Setting]


class InputSheetRow(Frozen):
    """A row of `tapct.encoders.input_sheet`, whose fields it has."""

    name: Name
    text: Text
    source: Text


class InputSheetRecord(Frozen):
    """What the network was given: the rows of `tapct describe`, and what arrives of the scan that ships.

    Attributes:
        rows: Its rows.
        received_sha256: See `tapct.features.received.sha256_of`; None where nothing arrived.
        not_received: Why nothing did; None where something did.
    """

    rows: tuple[InputSheetRow, ...]
    received_sha256: Sha256 | None = None
    not_received: Text | None = None


class VerificationRecord(Frozen):
    """What was known, where a cell ran, of its encoder beside the authors' own code (`tapct verify-encoder`).

    Attributes:
        status: "verified" with these weights, "randomised" with random ones alone, or "none".
        why: Why it is no better than that.
        date: When the two were compared.
        source: What was run of the authors.
        versions: Of that, of torch and of tapct, by name.
        differences: The largest difference by stage (voxels, map, embedding), relative to the stage's largest value.
        tolerance: The largest that rounding explains.
        left_out: What of the authors' preparation was not compared.
    """

    status: Status
    why: Text | None = optional()
    date: Text | None = optional()
    source: Text | None = optional()
    versions: dict[Name, Text] = Field(default_factory=dict)
    differences: dict[Name, NotNegative] = Field(default_factory=dict)
    tolerance: Positive | None = optional()
    left_out: Text | None = optional()

    @property
    def text(self) -> str:
        """In words, for people."""
        return in_words(self.status, self.source, self.date, list(self.differences.values()), self.why)


class EncoderRecord(Frozen):
    """The encoder, as it was built. An adapter may add settings of its own, by other names.

    Attributes:
        card: Its card.
        weights: "random", "none" of an encoder without parameters, or the name of their file (older records: its path).
        weights_sha256: Hash of the weights' content, not of the file; None without parameters.
        precision: As asked for.
        precision_used: As computed.
        parameters: Parameters of the frozen encoder, counted.
        feature_centre_voxel: Voxel (z, y, x) of a window at which its first feature lies.
        options: What was set otherwise than the encoder has it by itself: of its card, `precision`, of its constructor.
            None in records of before it was kept.
        identity: Class, source and settings; None in records of before it was kept.
        input_sheet: What its network was given; None in records of before it was kept, and of feature packs.
        verification: Beside its authors' own code; None in records of before it was kept. It is no part of what the
            model is, and outside the fingerprint, as `execution` is.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting] = Field(init=False)

    card: CardRecord
    weights: Text = Field(min_length=1)
    weights_sha256: Sha256 | None = None
    precision: Name | None = None
    precision_used: Name | None = None
    parameters: Count | None = None
    feature_centre_voxel: tuple[Number, Number, Number] | None = None
    options: Settings | None = None
    identity: IdentityRecord | None = None
    input_sheet: InputSheetRecord | None = optional()
    verification: VerificationRecord | None = optional()

    def settings(self) -> dict[str, Any]:
        """Returns what decides the features, and so the result: its content without `verification`."""
        return {key: value for key, value in self.content().items() if key != "verification"}

    @property
    def own_settings(self) -> dict[str, Any]:
        """What its adapter says of itself beside the documented keys."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def is_random(self) -> bool:
        """Whether it has random weights."""
        return self.weights == RANDOM

    @property
    def mistake(self) -> str | None:
        """The mistake that was made with its input on purpose, None for the right input."""
        settings = self.identity.settings if self.identity else {}  # where it stands too: its absence is no proof
        return (self.options or {}).get(MISTAKE) or settings.get(MISTAKE)

    @property
    def full_name(self) -> str:
        """The card's name and what was set: "TAP-B-3D, 512 px"; of an older record, which does not say it, the name."""
        return full_name(self.card.display_name, self.options or {})

    @property
    def label(self) -> str:
        """What a sweep calls it: `tap-b-3d+in_plane_size=512`, `curia@random`."""
        return label(self.card.name, self.is_random, self.options or {})

    @property
    def weights_name(self) -> str:
        """The name of the weights' file, without the folders of somebody's machine."""
        return base_name(self.weights)


def _kind(name: str) -> str:
    return kinds.kind(name).name


class FoldsRecord(Frozen):
    """How patients were cross-validated: every case is predicted by a head of the folds that it is not in.

    Attributes:
        repeats: How often patients were dealt into folds anew; run k is repeat k.
        folds: Folds of a repeat.
    """

    repeats: AtLeast1
    folds: AtLeast1


class TaskRecord(Frozen):
    """The task.

    Attributes:
        name: Its name.
        version: Goes up whenever a number could change.
        kind: What is predicted.
        metric: The metric that is ranked, by its name in `metrics`.
        classes: Names by label; background first in segmentation.
        options: Settings of the data set.
        split: The file or the rule that the split is from.
        split_sha256: Hash of its rows.
        cases: Cases by split.
        patients: Patients by split.
        excluded: Cases that are left out, and why.
        accepted_orientation: Cases that lie otherwise than their headers say and were accepted, and how they lie.
        batch_size: Training cases that the probe saw at once.
        order_seed: Decides the order of the training cases.
        train_fraction: Fraction of the training patients that trained.
        train_draw: Which patients these were.
        perturbation: Of the reported scans, by name.
        perturbation_parameters: Its parameters.
        unit: Of the targets, where they have one.
        folds: How patients were cross-validated, if they were.
    """

    name: Name
    version: Count
    kind: Annotated[Name, AfterValidator(_kind)] | None = None
    metric: Name | None = None
    classes: tuple[Name, ...] = ()
    options: Settings = Field(default_factory=dict)
    split: Text | None = None
    split_sha256: Sha256 | None = None
    cases: dict[Name, Count] = Field(default_factory=dict)
    patients: dict[Name, Count] = Field(default_factory=dict)
    excluded: dict[Name, Text] = Field(default_factory=dict)
    accepted_orientation: dict[Name, Text] = Field(default_factory=dict)
    batch_size: Count | None = None
    order_seed: Whole | None = None
    train_fraction: Fraction = 1.0
    train_draw: Count = 0
    perturbation: Name | None = None
    perturbation_parameters: Settings | None = None
    unit: Name | None = optional()
    folds: FoldsRecord | None = optional()

    @model_validator(mode="after")
    def _check_metric(self) -> "TaskRecord":
        ranked = [name for one in ([self.kind] if self.kind else kinds.KINDS) for name in kinds.kind(one).ranked]
        if self.metric is not None and self.metric not in ranked:
            raise ValueError(f"no task of {self.kind or 'any kind'} is ranked by {self.metric}: {', '.join(ranked)}")
        return self

    def with_unit(self, metric: str) -> str:
        """Returns the name of a metric with its unit, where it has one; of what is no metric of the kind its name."""
        of = None if self.kind is None else kinds.kind(self.kind).by_name.get(metric)
        return ", ".join(filter(None, (metric, None if of is None else of.unit_of(self.unit))))


class FeatureScale(Frozen):
    """What the channels of features were divided by (`tapct.probes.scaling`)."""

    sha256: Sha256
    channels: Count
    constant_channels: Count
    min: NotNegative
    median: NotNegative
    max: NotNegative


class HeadFrom(Frozen):
    """Where a head is from that was trained before.

    Attributes:
        sha256: Hash of its weights, of a head without a record.
        record: Fingerprint of its record.
        name: The task that it was trained on.
        version: The version of that task.
        split_sha256: The split.
    """

    sha256: Sha256 | None = None
    record: Sha256 | None = None
    name: Name | None = None
    version: Count | None = None
    split_sha256: Sha256 | None = None


class ReaderRecord(Frozen):
    """What read the findings of reports (`tapct.report_texts`).

    Attributes:
        name: Its name.
        weights_sha256: Hash of its weights' content.
        tokenizer_sha256: Hash of what cuts texts for it.
        threshold: The least probability at which a finding is there.
        most_tokens: How many pieces of a text it reads; what is behind them it does not see.
    """

    name: Name
    weights_sha256: Sha256
    tokenizer_sha256: Sha256
    threshold: Fraction
    most_tokens: Count


class LoraRecord(Frozen):
    """Low-rank adaptation of a language model: `tapct.language_models.model.Lora`, whose fields it has."""

    rank: Count
    alpha: Count
    targets: tuple[Name, ...]


class GeneratorRecord(Frozen):
    """What wrote reports, as far as it decides what heads see and say (`tapct.probes.generated.Generator`).

    Attributes:
        language_model_sha256: Hash of the language model's config, tokenizer and weights.
        lora: What of it was adapted.
        prompt: What it was given; the tokens of the scan stood where `{scan}` is.
        tokens: That a scan became.
        width: Of the resampler.
        layers: Of the resampler.
        heads: Of the resampler's attention.
        most_cells: Of a scan, that the resampler saw.
    """

    language_model_sha256: Sha256
    lora: LoraRecord | None
    prompt: Text
    tokens: AtLeast1
    width: AtLeast1
    layers: AtLeast1
    heads: AtLeast1
    most_cells: AtLeast1


class LanguageModelRecord(Frozen):
    """What a language model is called.

    Attributes:
        name: Its repository, or the name of its folder.
        revision: The commit of the repository.
        architecture: Its class in `transformers`.
        parameters: Its own, all frozen.
        precision: What it computed in.
    """

    name: Text
    revision: Text | None
    architecture: Name
    parameters: Count
    precision: Name


class DecodingRecord(Frozen):
    """How reports were written: `tapct.language_models.decoding.Decoding`, whose fields it has."""

    most_tokens: AtLeast1
    temperature: NotNegative
    top_p: Fraction
    seed: Whole


class TableColumn(Frozen):
    """A column of a table that stands behind the features.

    Attributes:
        name: Its name.
        title: In words.
        kind: "numeric", "ordered", "categorical" or "text".
        known: Training cases of which it is known.
        levels: Levels without an order that are told apart.
        unit: Of a number.
    """

    name: Name
    title: Text
    kind: Name
    known: Count
    levels: Count | None = optional()
    unit: Name | None = optional()


class ProbeRecord(Frozen):
    """The probe: head, training and protocol, from the objects that ran and not from the command line.

    Attributes:
        module: Path of its class.
        head: The head's layers.
        classes: The classes that it was trained on.
        window_overlap: Fraction of overlap between windows.
        fit_windows: Whether windows shrink to small scans.
        adaptor: What stands on the features (classification).
        pooling: How features were pooled for it.
        bag: What attention looked at, "cls" or "patch"; None of pooled features, and of older records.
        mask: What the task's masks are, where features were pooled over them.
        table: Columns of the task's table behind the features, or alone.
        seed: Of the session; run k has seed + k.
        learning_rates: Those that were chosen from; None for the optimizer's own.
        scale_features: Whether channels were divided by their deviation over the training cases.
        feature_scale: By what.
        select: "best" on the selection cases, or "last".
        feature_dtype: What features were stored as.
        optimizer: Class and settings.
        lr_scheduler: Class and settings of each.
        steps: Steps that were taken.
        accumulate_grad_batches: Batches of a step.
        precision: Of the trainer.
        gradient_clip_val: Of the trainer.
        nsd_tolerance_mm: Of the normalised surface Dice.
        fused_loss: Whether the loss ran as one kernel.
        start_bias: What the head's bias started from.
        apart_mm: Least distance between two candidates of a scan (localisation).
        reader: What read the findings of reports.
        reader_agreement: Share of the release's own labels that the reader finds in the reports that they are of.
        word_scores: By name, the libraries that compared words of reports, with their versions, and why one did not.
        generator: What wrote reports.
        language_model: What that is called.
        decoding: How it wrote.
        cut_reports: Training reports that were longer than what was trained on, and cut.
        head_from: Of a head that was trained before.
        cell_size_reference: Of older records: the version of the cell-size reference.
    """

    module: Text | None = None
    head: Text | None = None
    classes: tuple[Name, ...] = ()
    window_overlap: Fraction = 0.0
    fit_windows: Switch = False
    adaptor: Name | None = None
    pooling: Name | None = None
    bag: Name | None = None
    mask: Text | None = None
    table: tuple[TableColumn, ...] | None = optional()
    seed: Whole | None = None
    learning_rates: tuple[Number, ...] | None = None
    scale_features: Switch | None = None
    feature_scale: FeatureScale | None = None
    select: Name | None = None
    feature_dtype: Name | None = None
    optimizer: Settings | None = None
    lr_scheduler: tuple[Settings, ...] | None = None
    steps: Count | None = None
    accumulate_grad_batches: Count | None = None
    precision: Name | None = None
    gradient_clip_val: Number | None = None
    nsd_tolerance_mm: NotNegative | None = None
    fused_loss: Switch | None = None
    start_bias: Name | None = None
    apart_mm: NotNegative | None = optional()
    reader: ReaderRecord | None = optional()
    reader_agreement: Fraction | None = optional()
    word_scores: dict[Name, Text] | None = optional()
    generator: GeneratorRecord | None = optional()
    language_model: LanguageModelRecord | None = optional()
    decoding: DecodingRecord | None = optional()
    cut_reports: Count | None = optional()
    head_from: HeadFrom | None = None
    cell_size_reference: Setting = None
