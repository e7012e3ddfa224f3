"""Reports that a frozen language model writes from the patches of a scan: what the adaptor `generated` trains and says.

Trained are a perceiver resampler, whose tokens stand in the prompt where `{scan}` is, and LoRA where it is asked for.
The loss of a report is the mean cross-entropy of its tokens, the end of text among them; nothing is asked of the
prompt.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from tapct.encoders import Precision
from tapct.errors import TaskError
from tapct.language_models.batches import Prompt, report_tokens
from tapct.language_models.decoding import Decoding, write
from tapct.language_models.files import find
from tapct.language_models.model import LanguageModel, Lora, require_peft
from tapct.probes.resampler import Resampler

FEATURE_WEIGHTS = ("resampler.patches.weight",)
"""Parameters of a head that multiply features."""

PROMPT = "Computed tomography scan: {scan}\nRadiology report:\n"


@dataclass(frozen=True)
class Generator:
    """What writes reports: the settings of the adaptor `generated`.

    Attributes:
        language_model: A causal language model of `transformers`, as safetensors: a folder, or a repository of the hub.
        revision: Branch, tag or commit of the repository.
        precision: Of the language model: "auto" (bf16 on a GPU, else fp32), "fp32", "bf16".
        lora: What of it is adapted, through `peft` (the extra "lora"); None trains the projector alone.
        prompt: What it is given; the tokens of the scan stand where `{scan}` is.
        tokens: That a scan becomes.
        width: Of the resampler.
        layers: Of the resampler.
        heads: Of the resampler's attention.
        most_cells: Of a scan, that the resampler sees; where there are more, they are merged
            (`tapct.probes.merged_patches`).
        decoding: How reports are written; longer ones than its `most_tokens` are cut in training as well.
        batch: Reports that are written at once; the numbers are the same, but for rounding.
    """

    language_model: str | None = None
    revision: str | None = None
    precision: Precision = "auto"
    lora: Lora | None = None
    prompt: str = PROMPT
    tokens: int = 64
    width: int = 512
    layers: int = 2
    heads: int = 8
    most_cells: int = 4096
    decoding: Decoding = field(default_factory=Decoding)
    batch: int = 16

    def __post_init__(self) -> None:
        few = {name: getattr(self, name) for name in ("tokens", "width", "layers", "heads", "most_cells", "batch")}
        if wrong := [f"{name} is {value}" for name, value in few.items() if value < 1]:
            raise TaskError(f"the generator's {wrong[0]}, and must be at least 1")
        if self.width % self.heads:
            raise TaskError(f"the generator's width of {self.width} cannot be divided among {self.heads} heads")

    def require(self) -> str:
        """Returns the name of the language model, once all that it needs is known to be there.

        Raises:
            TaskError: If none is named, or LoRA is asked for without `peft`.
        """
        if self.language_model is None:
            raise TaskError(
                "the adaptor 'generated' needs a language model: name a folder or a repository of the hub "
                "(model.init_args.generator.language_model, or the variable LANGUAGE_MODEL)"
            )
        if self.lora is not None:
            require_peft()
        return self.language_model


class ReportHead(nn.Module):
    """What is trained: the resampler, and of the language model LoRA's weights."""

    def __init__(self, resampler: Resampler, adapter: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.resampler = resampler
        self.adapter = nn.ParameterDict()
        for name, shape in adapter.items():  # as peft begins: what is added is zero
            start = torch.zeros(shape)
            if "lora_A" in name:
                nn.init.kaiming_uniform_(start, a=5**0.5)
            self.adapter[name.replace(".", "/")] = nn.Parameter(start)

    def forward(self, patches: torch.Tensor, places_mm: torch.Tensor) -> torch.Tensor:
        """Returns (tokens, E) what a scan becomes, of its (C, n) patches and their (n, 3) places."""
        return self.resampler(patches, places_mm)

    @property
    def lora(self) -> dict[str, torch.Tensor]:
        """LoRA's weights, by their names in the language model."""
        return {name.replace("/", "."): weight for name, weight in self.adapter.items()}


class ScanPatches(NamedTuple):
    """What a head sees of a scan.

    Attributes:
        patches: (C, n) float32.
        places_mm: (n, 3) float64, where they lie in the patient.
    """

    patches: torch.Tensor
    places_mm: torch.Tensor


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written.

    Attributes:
        text: On one line.
        is_cut: Whether it had not ended when it was as long as it may be.
    """

    text: str
    is_cut: bool


class Writer:
    """A language model with its prompt, as heads write with it; shared by the heads and the runs of a session."""

    def __init__(self, settings: Generator, device: torch.device) -> None:
        """Loads the language model.

        Args:
            settings: The settings.
            device: Where it runs.

        Raises:
            TapctError: If it cannot be had, or is too short for the prompt and a report.
        """
        self.settings = settings
        files = find(settings.require(), settings.revision)
        self.model = LanguageModel(files, device, settings.precision, settings.lora)
        self.prompt = Prompt.of(settings.prompt, self.model.tokenizer)
        most = settings.decoding.most_tokens
        needed = len(self.prompt.before) + settings.tokens + len(self.prompt.after) + most
        if self.model.longest is not None and needed > self.model.longest:
            raise TaskError(
                f"{files.name} sees {self.model.longest} tokens, and the prompt with {settings.tokens} tokens of the "
                f"scan and a report of up to {most} has {needed}: lower generator.decoding.most_tokens or "
                "generator.tokens, or take another model"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Writer":
        """Returns itself: eva copies the probe for each run."""
        return self

    def head(self, channels: int) -> ReportHead:
        """Returns a freshly initialised head for features of so many channels."""
        of = self.settings
        shape = {"width": of.width, "layers": of.layers, "heads": of.heads}
        resampler = Resampler(channels, of.tokens, self.model.size, **shape, token_rms=self.model.token_rms)
        return ReportHead(resampler, self.model.adapter_shapes)

    def is_cut(self, text: str) -> bool:
        """Returns whether a report is longer than what is trained on."""
        return self.model.end not in report_tokens(text, self.model.tokenizer, self.settings.decoding.most_tokens)[-1:]

    def prompted(self, head: ReportHead, scan: ScanPatches) -> torch.Tensor:
        """Returns (n, E) the prompt with the tokens of a scan in it."""
        before, after = (self.model.embed(part) for part in (self.prompt.before, self.prompt.after))
        return torch.cat([before, head(*scan).to(before.dtype), after])

    def losses(self, head: ReportHead, prompts: Sequence[torch.Tensor], reports: Sequence[str]) -> torch.Tensor:
        """Returns (B,) the loss of each report behind its prompt."""
        most = self.settings.decoding.most_tokens
        asked = [report_tokens(text, self.model.tokenizer, most) for text in reports]
        return self.model.losses(prompts, asked, head.lora)

    def write(self, head: ReportHead, prompts: Sequence[torch.Tensor], cases: Sequence[str]) -> list[WrittenReport]:
        """Returns the report of each case behind its prompt; what is drawn for one depends on its name and the seed."""
        how = self.settings.decoding
        seeds = [int.from_bytes(hashlib.sha256(f"{how.seed} {case}".encode()).digest()[:7], "big") for case in cases]
        found = write(self.model, prompts, how, seeds, head.lora)
        texts = [self.model.tokenizer.decode(list(one.tokens), skip_special_tokens=True) for one in found]
        return [WrittenReport(" ".join(text.split()), one.is_cut) for text, one in zip(texts, found, strict=True)]

    def seen_by_heads(self) -> dict[str, Any]:
        """Returns what decides what heads see and say: two language models never count as one, whatever their names."""
        of, about = self.settings, self.model.describe()
        return {
            "language_model_sha256": about["sha256"],
            "lora": about["lora"],
            **{name: getattr(of, name) for name in ("prompt", "tokens", "width", "layers", "heads", "most_cells")},
        }

    def describe(self) -> dict[str, Any]:
        """Returns what else a record holds: the language model by name, and how reports were written."""
        about = self.model.describe()
        return {
            "language_model": {
                key: about[key] for key in ("name", "revision", "architecture", "parameters", "precision")
            },
            "decoding": dict(vars(self.settings.decoding)),
        }


class WrittenAhead:
    """Reports of the cases that are about to be asked for, written several at once."""

    def __init__(self) -> None:
        self._written: dict[tuple[int, str], WrittenReport] = {}

    def take(self, head: nn.Module, case: str, write_next: Callable[[], Mapping[str, WrittenReport]]) -> WrittenReport:
        """Returns the report of a case by a head.

        Args:
            head: The head.
            case: Its name.
            write_next: Writes the report of this case and of some behind it.
        """
        key = id(head), case
        if key not in self._written:
            self._written |= {(id(head), name): report for name, report in write_next().items()}
        return self._written.pop(key)

    def forget(self) -> None:
        """Forgets what was written: other heads are asked from now on."""
        self._written.clear()
