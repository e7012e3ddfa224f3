"""A frozen causal language model: what it says of reports, given tokens of scans; adapted by LoRA where asked for."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tapct.encoders import Precision
from tapct.errors import TaskError, WeightsError
from tapct.language_models.batches import padded
from tapct.language_models.files import ModelFiles

Adapter = Mapping[str, torch.Tensor]
"""Weights of LoRA by the name that they have in the network; none where it is not adapted."""

NOT_ADAPTED: Adapter = {}


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), through `peft`.

    Attributes:
        rank: Of each update.
        alpha: Updates are multiplied by alpha / rank.
        targets: Linear layers that are adapted, by the last part of their name.
    """

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not self.targets:
            raise TaskError(f"LoRA needs a rank of at least 1, an alpha of at least 1 and targets, not {self}")


def require_peft() -> None:
    """Makes sure that `peft` is installed.

    Raises:
        TaskError: If not.
    """
    if importlib.util.find_spec("peft") is None:
        raise TaskError(
            "LoRA needs the package peft, which is not installed: pip install 'tapct-bench[lora]'. Without "
            "lora (null) the projector alone is trained"
        )


class LanguageModel:
    """A causal language model of `transformers` that is never trained, copied or saved.

    It is no module: heads that train side by side share it, and what is trained of it (LoRA) is theirs and handed in.

    Attributes:
        files: Its files.
        device: Where it runs.
        dtype: What it computes in.
        lora: What of it heads adapt.
        adapter_shapes: The shape of each weight of LoRA, by name.
        parameters: How many it has, without those of LoRA.
        tokenizer: Its tokenizer.
        begin: Its begin-of-text token; None where it has none.
        end: Its end-of-text token.
    """

    def __init__(
        self,
        files: ModelFiles,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
        lora: Lora | None = None,
    ) -> None:
        """Loads a model.

        Args:
            files: Its files.
            device: Where it runs.
            precision: Of its weights: "auto" (bf16 on a GPU, else fp32), "fp32", "bf16".
            lora: What of it heads adapt; None is nothing.

        Raises:
            WeightsError: If it cannot be loaded, or its tokenizer has no end of text or more tokens than it.
            TaskError: If LoRA cannot be had.
        """
        if lora is not None:
            require_peft()
        self.files, self.lora, self.device = files, lora, torch.device(device)
        is_bf16 = precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
        self.dtype = torch.bfloat16 if is_bf16 else torch.float32
        self.tokenizer, network = _loaded(files, self.dtype)
        self._network: nn.Module = network if lora is None else _adapted(network, lora)
        self._network.eval().requires_grad_(False).to(self.device)
        adapted = {name: tuple(p.shape) for name, p in self._network.named_parameters() if "lora_" in name}
        self.adapter_shapes: dict[str, tuple[int, ...]] = adapted
        self.parameters = sum(p.numel() for p in self._network.parameters()) - sum(
            torch.Size(shape).numel() for shape in adapted.values()
        )
        self._embeddings = self._network.get_input_embeddings()  # type: ignore[operator]
        self._check()
        self.begin: int | None = self.tokenizer.bos_token_id
        self.end = int(self.tokenizer.eos_token_id)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LanguageModel":
        """Returns itself: eva copies the probe for each run."""
        return self

    @property
    def size(self) -> int:
        """Of its tokens' vectors."""
        return int(self._embeddings.weight.shape[1])

    @property
    def token_rms(self) -> float:
        """Root mean square of its tokens' vectors."""
        return float(self._embeddings.weight.float().square().mean().sqrt())

    @property
    def longest(self) -> int | None:
        """Tokens that it can see at once; None where its config does not say."""
        return getattr(self._network.config, "max_position_embeddings", None)

    def describe(self) -> dict[str, Any]:
        """Returns what a record holds of it."""
        lora = self.lora
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            "sha256": self.files.sha256,
            "architecture": type(self._network).__name__,
            "parameters": self.parameters,
            "precision": str(self.dtype).removeprefix("torch."),
            "lora": None if lora is None else {"rank": lora.rank, "alpha": lora.alpha, "targets": list(lora.targets)},
        }

    def embed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Returns (n, E) the vectors of tokens."""
        return self._embeddings(torch.tensor(tokens, dtype=torch.int64, device=self.device))

    def forward(
        self,
        rows: torch.Tensor,
        mask: torch.Tensor,
        adapter: Adapter = NOT_ADAPTED,
        *,
        positions: torch.Tensor | None = None,
        past: Any = None,
        keep: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """Returns (B, n, V) float32 logits of the token behind each, and what is kept of keys and values.

        Args:
            rows: (B, n, E) vectors of tokens.
            mask: (B, past + n) which are no padding.
            adapter: LoRA's weights.
            positions: (B, n) of the tokens; None where they are 0, 1, 2, ...
            past: Keys and values of the tokens before.
            keep: Whether to keep them.
        """
        given: dict[str, Any] = {
            "inputs_embeds": rows.to(self.dtype),
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": past,
            "use_cache": keep,
        }
        found = functional_call(self._network, dict(adapter), (), given) if adapter else self._network(**given)
        return found.logits.float(), found.past_key_values if keep else None

    def losses(
        self, prompts: Sequence[torch.Tensor], reports: Sequence[Sequence[int]], adapter: Adapter = NOT_ADAPTED
    ) -> torch.Tensor:
        """Returns (B,) the mean cross-entropy of the tokens of each report, each given all before it.

        Nothing is asked of the prompt, and padding is seen by no token.

        Args:
            prompts: (n, E) vectors of each, at least one.
            reports: The tokens of each report, at least one.
            adapter: LoRA's weights.
        """
        rows = [
            torch.cat([prompt.to(self.dtype), self.embed(report[:-1]).to(self.dtype)])
            for prompt, report in zip(prompts, reports, strict=True)
        ]
        logits, _ = self.forward(*padded(rows, "right"), adapter)
        each = []
        for own, prompt, report in zip(logits, prompts, reports, strict=True):
            said = own[len(prompt) - 1 : len(prompt) - 1 + len(report)]
            each.append(F.cross_entropy(said, torch.tensor(report, device=said.device)))
        return torch.stack(each)

    def _check(self) -> None:
        name = self.files.name
        if self.tokenizer.eos_token_id is None:
            raise WeightsError(
                f"the tokenizer of {name} has no end-of-text token, so no report would end: set its eos_token and save "
                "it again"
            )
        rows = self._embeddings.weight.shape[0]
        if len(self.tokenizer) > rows:
            raise WeightsError(
                f"the tokenizer of {name} has {len(self.tokenizer)} tokens, and the model {rows}: they are of two "
                "models, or tokens were added (model.resize_token_embeddings)"
            )


def _loaded(files: ModelFiles, dtype: torch.dtype) -> tuple[Any, nn.Module]:
    """Returns the tokenizer and the network, on the CPU."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # takes seconds

    settings: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **settings)
        settings |= {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        loaded: Any = AutoModelForCausalLM.from_pretrained(files.folder, **settings)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{files.name} cannot be loaded as a causal language model: {why}") from error
    network, about = loaded
    wrong = {what: sorted(map(str, about[what])) for what in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if bad := {what: keys for what, keys in wrong.items() if keys}:
        what, keys = next(iter(bad.items()))
        raise WeightsError(f"the weights of {files.name} do not fit its network: {what.replace('_', ' ')} {keys[:3]}")
    return tokenizer, network


def _adapted(network: nn.Module, lora: Lora) -> nn.Module:
    """Returns a network with the layers of LoRA in it."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0)
    there = {name.rpartition(".")[2] for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    if absent := [name for name in lora.targets if name not in there]:
        raise TaskError(f"the language model has no linear layers called {', '.join(absent)}. It has {sorted(there)}")
    return inject_adapter_in_model(config, network)
