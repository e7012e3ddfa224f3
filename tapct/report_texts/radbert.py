"""CT-RATE's own reader of reports: RadBERT with one linear layer, which made the labels of the release.

What is built here is what CT-CLIP's `text_classifier` (18b12a8) describes: the RoBERTa `zzxslp/RadBERT-RoBERTa-4m`
with its pooling layer, a linear layer on the pooled output, the sigmoid of its 18 numbers, and a finding where that is
at least 0.5. Texts are findings, then impression, cut to 512 tokens, in the case that they are written in. The weights
are a file of the data page, behind its terms; of the backbone only the config and the tokenizer are needed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from tapct.encoders.card import Weights
from tapct.encoders.download import PublishedFile, fetch
from tapct.encoders.weights import content_sha256, load_strict, read_state_dict
from tapct.errors import WeightsError
from tapct.language_models.files import tokenizer_folder
from tapct.report_texts.reader import Reader
from tapct.tasks.ct_rate_release import FINDINGS

BACKBONE = "zzxslp/RadBERT-RoBERTa-4m"

PUBLISHED = PublishedFile(
    "the reader of reports (RadBERT)",
    Weights(
        repository="huggingface.co/datasets/ibrahimhamamci/CT-RATE",
        file="models/RadBertClassifier.pth",
        licence="CC BY-NC-SA 4.0",
        gated=True,
    ),
    "Or get RadBertClassifier.pth on a machine that can, and give its path (READER_WEIGHTS, or "
    "model.init_args.reader_weights).",
)

MOST_TOKENS = 512

_POSITIONS = "model.embeddings.position_ids"
"""A buffer that files of older releases of `transformers` hold: 0, 1, 2, ..."""

_AT_ONCE = 16
"""Texts that are read side by side."""


class RadBERT(Reader):
    """Reads the 18 findings of CT-RATE."""

    findings = FINDINGS

    def __init__(
        self, weights: str | Path | None = None, backbone: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> None:
        """Loads the reader.

        Args:
            weights: The file RadBertClassifier.pth; None for the published one, which is fetched once.
            backbone: A folder with the config and the tokenizer of the backbone, or the name of a repository of the
                hub; None for `BACKBONE`, which is fetched once.
            device: Where it computes.

        Raises:
            WeightsError: If a file is not there and cannot be fetched, cannot be read, or does not fit.
        """
        path = fetch(PUBLISHED) if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"there is no file {path} with the weights of the reader of reports (READER_WEIGHTS)")
        folder = _backbone(str(backbone or BACKBONE))
        self._tokenizer, config = _tokenizer_and_config(folder)
        self._device = torch.device(device)
        self._network = _Classifier(config, len(self.findings))
        state = read_state_dict(path)
        _drop_positions(state, path)
        load_strict(self._network, state, where=f"RadBERT of {folder.name} with {len(self.findings)} findings")
        self._network.eval().requires_grad_(False)
        self._most_tokens = min(MOST_TOKENS, config.max_position_embeddings - config.pad_token_id - 1)
        self._about = {
            "name": "radbert",
            "weights_sha256": content_sha256(self._network.state_dict()),
            "tokenizer_sha256": hashlib.sha256(self._tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "threshold": self.threshold,
            "most_tokens": self._most_tokens,
        }

    @override
    def describe(self) -> dict[str, Any]:
        return dict(self._about)

    @override
    @torch.inference_mode()
    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        found = np.empty((len(texts), len(self.findings)))
        network = self._network.to(self._device)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # little padding
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            tokens = self._tokenizer(
                [texts[place] for place in places],
                max_length=self._most_tokens,
                truncation=True,
                padding=True,
                return_tensors="pt",
            ).to(self._device)
            found[places] = network(tokens["input_ids"], tokens["attention_mask"]).double().sigmoid().cpu().numpy()
        return found


class _Classifier(nn.Module):
    """Named as in the published file."""

    def __init__(self, config: Any, findings: int) -> None:
        from transformers import AutoModel

        super().__init__()
        self.model = AutoModel.from_config(config, dtype=torch.float32)
        self.classifier = nn.Linear(config.hidden_size, findings)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns (N, K) logits of (N, T) tokens, of which the mask names those that are no padding."""
        return self.classifier(self.model(input_ids=tokens, attention_mask=mask).pooler_output)


def _drop_positions(state: dict[str, Any], path: Path) -> None:
    """Takes a buffer of older files out, which no longer is one.

    Raises:
        WeightsError: If it holds other numbers than it always did.
    """
    positions = state.pop(_POSITIONS, None)
    if positions is not None and not torch.equal(positions.flatten(), torch.arange(positions.numel())):
        raise WeightsError(f"{path}: {_POSITIONS} is not 0, 1, 2, ...: it is not the reader's file")


def _tokenizer_and_config(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{folder} has no config and tokenizer that can be read ({str(error).splitlines()[0]}). Put config.json "
            f"and the tokenizer's files of {BACKBONE} there, or leave READER_BACKBONE out"
        ) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise WeightsError(f"{folder} has a tokenizer without vocabulary files: give vocab.json and merges.txt")
    return tokenizer, config


def _backbone(name: str) -> Path:
    try:
        return tokenizer_folder(name)
    except WeightsError as error:
        raise type(error)(
            f"the backbone of the reader of reports: {error}. Or give a folder with its config.json, vocab.json and "
            "merges.txt (READER_BACKBONE, or model.init_args.reader_backbone)"
        ) from error
