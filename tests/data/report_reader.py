"""A tiny reader of reports in the files of CT-RATE's: a random RoBERTa, a linear layer that knows some texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, RobertaConfig, RobertaModel

from tests.data import ct_rate

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


class ReaderFiles(NamedTuple):
    """Where a reader's files are.

    Attributes:
        weights: RadBertClassifier.pth.
        backbone: The folder with config.json, vocab.json and merges.txt.
    """

    weights: Path
    backbone: Path


def write(folder: Path, known: Mapping[str, Sequence[int]]) -> ReaderFiles:
    """Writes a reader that gives these findings of these texts; of others it says something."""
    backbone = folder / "backbone"
    backbone.mkdir(parents=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(list(known), vocab_size=320, special_tokens=SPECIAL, show_progress=False)
    tokenizer.save_model(str(backbone))
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    config.save_pretrained(backbone)
    torch.manual_seed(0)
    network = RobertaModel(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)  # else the pooled outputs of all texts are nearly one
    pooled = torch.cat([output(network, backbone, text) for text in known]).double().numpy()
    logits = np.where(np.array(list(known.values())) == 1, 4.0, -4.0)
    weight = np.linalg.lstsq(np.column_stack([pooled, np.ones(len(pooled))]), logits, rcond=None)[0].T
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    state |= {
        "model.embeddings.position_ids": torch.arange(514)[None],  # as older releases of transformers wrote it
        "classifier.weight": torch.tensor(weight[:, :-1], dtype=torch.float32).contiguous(),
        "classifier.bias": torch.tensor(weight[:, -1], dtype=torch.float32),
    }
    torch.save(state, folder / "RadBertClassifier.pth")
    return ReaderFiles(folder / "RadBertClassifier.pth", backbone)


def of_ct_rate(folder: Path) -> ReaderFiles:
    """Writes a reader that gives the labels of the tiny CT-RATE of its reports."""
    return write(folder, {ct_rate.text(v): ct_rate.findings(v) for v in (*ct_rate.train(), *ct_rate.VALID)})


@torch.no_grad()
def output(network: RobertaModel, backbone: Path, text: str) -> torch.Tensor:
    """(1, 64) the pooled output of a text, padded to 512 tokens as the authors do."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    tokens = tokenizer(text, return_tensors="pt", max_length=512, padding="max_length", truncation=True)
    return network(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
