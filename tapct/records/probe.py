"""What a record says of the probe: taken from the objects that ran."""

from tapct.records.types import (
    AtLeast1,
    Count,
    FiniteFloat,
    Fraction,
    Frozen,
    Name,
    NotNegative,
    Setting,
    Settings,
    Sha256,
    Switch,
    Text,
    Whole,
    optional,
)


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
        patch_size_reference: Of older records: the version of the patch-size reference.
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
    learning_rates: tuple[FiniteFloat, ...] | None = None
    scale_features: Switch | None = None
    feature_scale: FeatureScale | None = None
    select: Name | None = None
    feature_dtype: Name | None = None
    optimizer: Settings | None = None
    lr_scheduler: tuple[Settings, ...] | None = None
    steps: Count | None = None
    accumulate_grad_batches: Count | None = None
    precision: Name | None = None
    gradient_clip_val: FiniteFloat | None = None
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
    patch_size_reference: Setting = None
